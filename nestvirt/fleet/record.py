"""The record of a fleet run, written before each target is begun: so that the run can be gone on with.

One file a run, ``fleets/<run>.jsonl`` in the state folder, one JSON object a line, on the disk before what
it announces. What is done to each VM is in the journal's own records; this one says which VMs are through.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from nestvirt.errors import Busy, JournalError, TargetError
from nestvirt.fleet.node_lines import NodeLines
from nestvirt.fleet.recorded import DETAILS, SCHEMA_VERSION, Recorded, leaves_nodes, read
from nestvirt.fleet.selection import Member
from nestvirt.model import Ending


class FleetRecord(NodeLines):
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

    def meant(self, members: Sequence[Member]) -> None:
        """Note anew which the targets are, where a pattern could not be resolved before."""
        self._write(event="members", **_members_told(members))

    def begun(self, target: str) -> None:
        """Note that a target is about to be worked on."""
        self._write(event="begun", target=target)

    def ended(self, target: str, ending: Ending, run: str | None = None, *, down: bool = False) -> None:
        """Note how it ended.

        Args:
            run: its run in the journal, where that has left something changed.
            down: whether the run has shut it down, and may have left it off.
        """
        besides = {"run": run, "down": down}
        told = {name: value for name, value in besides.items() if value}
        self._write(event="ended", target=target, ending=ending, **told)

    def taken_back(self) -> None:
        """Note that it is about to be undone, so that it is not gone on with any more."""
        self._write(event="undoing")

    def undone(self) -> None:
        """Note that all of it is undone."""
        self._write(event="undone")

    def end(self) -> None:
        """Note that the run came to its end, whatever came of its targets."""
        self._write(event="end")

    def _write(self, **line: object) -> None:
        data = json.dumps(line).encode() + b"\n"  # ASCII: a name may be no UTF-8
        try:
            with self._lock:
                before = os.fstat(self._descriptor).st_size
                if os.write(self._descriptor, data) != len(data):
                    os.truncate(self._descriptor, before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                os.fsync(self._descriptor)
        except OSError as error:
            raise _unwritable(error) from error


class FleetRuns:
    """All fleet runs of one user.

    Args:
        directory: the state folder.
        skipped: told of a record that cannot be read, and was not asked for by its name.
    """

    def __init__(
        self, directory: Path, skipped: Callable[[JournalError], None] = lambda _error: None
    ) -> None:
        self._folder = directory / "fleets"
        self._skipped = skipped
        self._ill: set[Path] = set()  # of which it was told

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
            traced=True,
            options=dict(options),
            **_members_told(members),
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

    def end(self, record: FleetRecord) -> None:
        """Note that a run came to its end, if each of its targets has one."""
        run = read(self._folder / f"{record.id}.jsonl")
        if run is not None and run.through:
            record.end()

    def leaving_nodes(self) -> Iterator[Recorded]:
        """The runs that have left nodes cordoned, or down, newest first. Others are not read whole."""
        return (run for run in self.runs(leaves_nodes) if run.cordoned or run.away)

    def runs(self, among: Callable[[Path], bool] = lambda _path: True) -> Iterator[Recorded]:
        """All runs that can be read, newest first.

        Args:
            among: which records are read.
        """
        for path in filter(among, sorted(self._folder.glob("*.jsonl"), reverse=True)):
            try:
                run = read(path)
            except JournalError as error:
                if path not in self._ill:
                    self._skipped(error)
                self._ill.add(path)
                continue
            if run is not None:
                yield run

    def find(self, run_id: str | None, command: str) -> Recorded:
        """One run by its id; or the newest of all, where it did not come to its end.

        Raises:
            TargetError: there is none, or it was another command's.
            JournalError: the one of that id cannot be read.
        """
        if run_id is None:
            return self._newest(command)
        run = self.get(run_id)
        if run is None:
            raise TargetError(
                f"there is no fleet run {run_id!r}",
                evidence=self._known(),
                cure=f"begin one: nestvirt {command} TARGET…",
            )
        if run.command != command:
            raise TargetError(
                f"the fleet run {run.id} is one of {run.command}", evidence=self._known(), cure=run.again
            )
        if run.taken_back:
            raise TargetError(
                f"the fleet run {run.id} was taken back, and is not gone on with",
                evidence=f"it is {run.state}",
                cure=f"begin a new one: nestvirt {command} TARGET…"
                + ("" if run.undone else f"; to have the rest undone: nestvirt undo {run.id}"),
            )
        return run

    def get(self, run_id: str) -> Recorded | None:
        """One run by its id; None where there is none.

        Raises:
            JournalError: it cannot be read.
        """
        path = self._folder / f"{run_id}.jsonl"
        return read(path) if re.fullmatch(r"[\w-]+", run_id) and path.exists() else None

    def under_way(self, run: Recorded) -> bool:
        """Whether a process works on it, or takes it back, at this moment. Writes nothing."""
        try:
            with (self._folder / f"{run.id}.jsonl").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _newest(self, command: str) -> Recorded:
        """What came after a run may have been meant to take it back, so that no older one is gone on with."""
        run = next(self.runs(), None)
        if run is not None and run.command == command and run.resumable and not run.ended:
            self._refuse_if_newer_is_ill(run)
            return run
        what, cure = f"no {command} of many is to be resumed", f"begin one: nestvirt {command} TARGET…"
        if run is None:
            raise TargetError(what, evidence=self._known(), cure=cure)
        said = "came to its end" if run.ended or not run.resumable else f"is one of {run.command}"
        own = next((known.id for known in self.runs() if known.command == command and known.resumable), None)
        again = f"; what did not pass in an earlier run is tried once more by its id: --resume {own}"
        raise TargetError(
            what,
            evidence=f"the newest fleet run, {run.id}, {said}; {self._known()}",
            cure=cure + (again if own is not None else ""),
        )

    def _refuse_if_newer_is_ill(self, run: Recorded) -> None:
        """What cannot be read may be of a run that was to take this one back."""
        newer = [path for path in self._ill if path.stem > run.id]
        if newer:
            raise TargetError(
                "it is not known which fleet run is the newest",
                evidence=f"{max(newer)} cannot be read, and is newer than run {run.id} ({run.command})",
                cure=f"if that is the one you mean: nestvirt {run.command} --resume {run.id}",
            )

    def _known(self) -> str:
        runs = [f"{run.id} ({run.command})" for run in itertools.islice(self.runs(), 5)]
        return f"newest fleet runs in {self._folder}: {', '.join(runs) or 'none'}"


def _members_told(members: Sequence[Member]) -> dict[str, object]:
    """All members for a line, with the endpoints that they are at, each once."""
    endpoints: list[Mapping[str, str]] = []
    told: list[dict[str, object]] = []
    at: dict[int, int | None] = {}
    for member in members:
        known = member.known
        source = id(known.endpoint if known is not None else member.endpoint)
        if source not in at:
            kept = known.endpoint if known is not None else member.endpoint.kept if member.endpoint else {}
            at[source] = len(endpoints) if kept else None
            endpoints += [kept] if kept else []
        vm = known.vm if known is not None else member.vm.id if member.vm is not None else ""
        told.append(
            _told(member) | {n: v for n, v in (("vm", vm), ("at", at[source])) if v not in ("", None)}
        )
    return {"members": told, "endpoints": endpoints}


def _told(member: Member) -> dict[str, object]:
    details = {name: getattr(member, name) for name in DETAILS}
    told: dict[str, object] = {"written": member.written}
    if member.target is not None:
        told["target"] = [member.target.backend, member.target.profile, member.target.name]
    told |= {"told": member.told} if member.told else {}
    return told | {name: value for name, value in details.items() if value is not None}


def _unwritable(error: OSError) -> JournalError:
    return JournalError(
        "the record of the fleet's run cannot be written, so nothing more is begun",
        evidence=str(error),
        cure="make room or give access there, or name another place in NESTVIRT_STATE_DIR",
    )
