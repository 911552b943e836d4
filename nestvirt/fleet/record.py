"""The record of a fleet run, written before each target is begun: so that the run can be gone on with.

One file a run, ``fleets/<run>.jsonl`` in the state folder, one JSON object a line, on the disk before what
it announces. What is done to each VM is in the journal's own records; this one says which VMs are through.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nestvirt.errors import Busy, Error, JournalError, TargetError
from nestvirt.fleet.selection import Member
from nestvirt.model import Ending, Target

SCHEMA_VERSION = 1
DETAILS = ("ssh", "ssh_config", "node")


@dataclass(frozen=True)
class Recorded:
    """What a record says.

    Attributes:
        names: the targets, and those patterns that could not be resolved, in the order of the run.
        details: a name as it is written to its ``ssh``, ``ssh_config`` and ``node``.
        options: the command's options by name.
        endings: how those ended that did.
        cordoned: nodes that the run has cordoned, and not uncordoned, with their uids.
        ended: whether it came to its end.
    """

    id: str
    command: str
    time: str
    names: tuple[str | Target, ...]
    details: Mapping[str, Mapping[str, str]]
    options: Mapping[str, object]
    endings: Mapping[str, Ending] = field(default_factory=dict)
    cordoned: Mapping[str, str] = field(default_factory=dict)
    ended: bool = False

    @property
    def resumable(self) -> bool:
        """Whether something is left to be done."""
        through = [name for name, ending in self.endings.items() if ending is Ending.PASS]
        return bool(self.cordoned) or len(through) < len(self.names)


class FleetRecord:
    """A run's file, open and locked for the next lines; a context manager."""

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self.id = path.stem
        self._path = path
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise _unwritable(error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise Busy(
                f"the fleet run {self.id} is under way",
                evidence=f"another process holds {path}",
                cure="wait until it has ended",
            ) from error
        whole = path.read_bytes()
        os.truncate(self._descriptor, whole.rfind(b"\n") + 1)  # less what is left of a torn line

    def __enter__(self) -> FleetRecord:
        return self

    def __exit__(self, *_failure: object) -> None:
        os.close(self._descriptor)

    def begun(self, target: str) -> None:
        """Note that a target is about to be worked on."""
        self._write(event="begun", target=target)

    def ended(self, target: str, ending: Ending) -> None:
        """Note how it ended."""
        self._write(event="ended", target=target, ending=ending)

    def cordoning(self, node: str, uid: str) -> None:
        """Note that a node is about to be cordoned, which nobody had cordoned."""
        self._write(event="cordon", node=node, uid=uid)

    def uncordoned(self, node: str) -> None:
        """Note that it is not cordoned any more."""
        self._write(event="uncordon", node=node)

    def end(self) -> None:
        """Note that the run came to its end, whatever came of its targets."""
        self._write(event="end")

    def _write(self, **line: object) -> None:
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        try:
            with self._lock:
                os.write(self._descriptor, data)
                os.fsync(self._descriptor)
        except OSError as error:
            raise _unwritable(error) from error


class FleetRuns:
    """All fleet runs of one user.

    Args:
        directory: the state folder.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / "fleets"

    def begin(self, command: str, members: Sequence[Member], options: Mapping[str, object]) -> FleetRecord:
        """Open the record of a new run, before anything is touched."""
        now = datetime.now(UTC)
        run = f"{now:%Y%m%d-%H%M%S}-{now.microsecond:05x}{secrets.randbelow(16):x}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(error) from error
        record = FleetRecord(self._folder / f"{run}.jsonl", new=True)
        record._write(
            event="begin",
            schema_version=SCHEMA_VERSION,
            command=command,
            time=now.isoformat(timespec="seconds"),
            members=[_told(member) for member in members],
            options=dict(options),
        )
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(folder)  # the file's name must outlive a power cut, too
        os.close(folder)
        return record

    def reopen(self, run: Recorded) -> FleetRecord:
        """The record of an earlier run, for further lines.

        Raises:
            Busy: that run is still under way.
        """
        return FleetRecord(self._folder / f"{run.id}.jsonl")

    def runs(self) -> Iterator[Recorded]:
        """All runs, newest first."""
        paths = sorted(self._folder.glob("*.jsonl"), reverse=True)
        return (found for found in map(_read, paths) if found is not None)

    def find(self, run_id: str | None, command: str) -> Recorded:
        """One run by its id, or the newest of that command that has something left to do.

        Raises:
            TargetError: there is none, or it was another command's.
        """
        known = list(self.runs())
        if run_id is not None:
            found = [run for run in known if run.id == run_id]
        else:
            found = [run for run in known if run.command == command and run.resumable]
        evidence = ", ".join(f"{r.id} ({r.command})" for r in known[:5]) or "none"
        evidence = f"newest fleet runs in {self._folder}: {evidence}"
        if not found:
            what = f"there is no fleet run {run_id!r}" if run_id else f"no {command} of many is to be resumed"
            raise TargetError(what, evidence=evidence, cure=f"begin one: nestvirt {command} TARGET…")
        if found[0].command != command:
            raise TargetError(
                f"the fleet run {found[0].id} is one of {found[0].command}",
                evidence=evidence,
                cure=f"nestvirt {found[0].command} --resume {found[0].id}",
            )
        return found[0]


def _told(member: Member) -> dict[str, object]:
    details = {name: getattr(member, name) for name in DETAILS}
    told: dict[str, object] = {"written": member.written}
    if member.target is not None:
        told["target"] = [member.target.backend, member.target.profile, member.target.name]
    return told | {name: value for name, value in details.items() if value is not None}


def _read(path: Path) -> Recorded | None:
    """One run; None where it died before its first line was written, and with that before anything."""
    try:
        complete = path.read_bytes().rpartition(b"\n")[0]
        lines = [json.loads(line) for line in complete.split(b"\n")] if complete else []
        return _replayed(path.stem, lines) if lines else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, Error) as error:
        raise JournalError(
            f"the record {path} cannot be read",
            evidence=f"{type(error).__name__}: {error}",
            cure="move that file away; each VM's own record is in the journal: nestvirt undo --list",
        ) from error


def _replayed(run_id: str, lines: Sequence[Mapping[str, object]]) -> Recorded:
    begin = lines[0]
    members, options = begin["members"], begin["options"]
    known = begin["schema_version"] == SCHEMA_VERSION
    if not known or not isinstance(members, list) or not isinstance(options, dict):
        raise ValueError("not a record of this version")
    names: list[str | Target] = []
    details: dict[str, Mapping[str, str]] = {}
    for member in members:
        written = str(member["written"])
        target = member.get("target")
        names.append(Target(target[0], target[2], target[1]) if target else written)
        details[written] = {name: str(member[name]) for name in DETAILS if name in member}
    endings: dict[str, Ending] = {}
    cordoned: dict[str, str] = {}
    ended = False
    for line in lines[1:]:
        match line:
            case {"event": "begun", "target": str(target)}:
                endings.pop(target, None)
                ended = False
            case {"event": "ended", "target": str(target), "ending": str(ending)}:
                endings[target] = Ending(ending)
            case {"event": "cordon", "node": str(node)}:
                cordoned[node] = str(line.get("uid") or "")
            case {"event": "uncordon", "node": str(node)}:
                cordoned.pop(node, None)
            case {"event": "end"}:
                ended = True
            case _:
                raise ValueError(f"unknown line: {line}")
    return Recorded(
        run_id,
        str(begin["command"]),
        str(begin["time"]),
        tuple(names),
        details,
        options,
        endings,
        cordoned,
        ended,
    )


def _unwritable(error: OSError) -> JournalError:
    return JournalError(
        "the record of the fleet's run cannot be written, so nothing more is begun",
        evidence=str(error),
        cure="make room or give access there, or name another place in NESTVIRT_STATE_DIR",
    )
