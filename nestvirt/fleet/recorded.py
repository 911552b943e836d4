"""What the record of a fleet run says, read back; see record.py, which writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nestvirt.errors import Error, JournalError
from nestvirt.fleet.node_lines import NODE_EVENTS, Away, of_nodes
from nestvirt.fleet.selection import Known
from nestvirt.model import Ending, Target

SCHEMA_VERSION = 1
DETAILS = ("ssh", "ssh_config", "node")
UNDOES = "undoes"
"""The option of an undo's record that says which run it takes back."""


_ON_NODE = re.compile(rf'{{"event": ?"(?:{"|".join(NODE_EVENTS)})"'.encode())
"""How a line on a node begins."""


@dataclass(frozen=True)
class Recorded:
    """What a record says.

    Attributes:
        names: the targets, and those patterns that could not be resolved, in the order of the run.
        details: a name as it is written to its ``ssh``, ``ssh_config`` and ``node``.
        options: the command's options by name.
        endings: how those ended that did.
        known: which VM each name meant.
        broken: those in whose middle the run died, or that it has shut down and may have left off.
        cordoned: nodes that the run has cordoned, and not uncordoned, with their uids.
        away: nodes that the run has had down, and not seen back.
        nodes: all that it has had down.
        cluster: the uid of the cluster whose nodes they are; empty where none was asked.
        ended: whether it came to its end.
        runs: a name's runs in the journal that have left something changed, as far as they came to their end.
        traced: whether the journal's records name this run; those of an older nestvirt do not.
        taken_back: whether an undo of it was begun.
        undone: whether one came to its end.
    """

    id: str
    command: str
    time: str
    names: tuple[str | Target, ...]
    details: Mapping[str, Mapping[str, str]]
    options: Mapping[str, object]
    endings: Mapping[str, Ending] = field(default_factory=dict)
    known: Mapping[str, Known] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    cordoned: Mapping[str, str] = field(default_factory=dict)
    away: Mapping[str, Away] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()
    cluster: str = ""
    ended: bool = False
    runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    traced: bool = False
    taken_back: bool = False
    undone: bool = False

    @property
    def resumable(self) -> bool:
        """Whether something is left to be done."""
        left = bool(self.cordoned) or any(self.endings.get(n) is not Ending.PASS for n in self._written)
        return left and not self.taken_back

    @property
    def undoes(self) -> str | None:
        """The run that it takes back; None where it is no undo."""
        undoes = self.options.get(UNDOES)
        return str(undoes) if undoes is not None else None

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        if self.taken_back:
            return f"nestvirt undo {self.id}"
        return f"nestvirt {self.command} {self.undoes or f'--resume {self.id}'}"

    @property
    def state(self) -> str:
        """How it stands, in one word or two for people."""
        if self.taken_back:
            return "undone" if self.undone else "partly undone"
        return "ended" if self.ended else "interrupted"

    @property
    def through(self) -> bool:
        """Whether each has its ending, whatever that is."""
        open_ends = self.cordoned or self.broken
        return not open_ends and all(name in self.endings for name in self._written)

    @property
    def _written(self) -> Iterator[str]:
        return map(str, self.names)


def read(path: Path) -> Recorded | None:
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


def leaves_nodes(path: Path) -> bool:
    """Whether a run has left nodes cordoned, or down; or cannot be read. Of its lines, which may be tens of
    thousands, only those on nodes are looked at."""
    try:
        lines = path.read_bytes().splitlines()
        if not all(line.startswith(b'{"event":') for line in lines):
            return True
        nodes = of_nodes(json.loads(line) for line in lines if _ON_NODE.match(line))
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return bool(nodes["cordoned"] or nodes["away"])


def _replayed(run_id: str, lines: Sequence[Mapping[str, object]]) -> Recorded:
    begin = lines[0]
    options = begin["options"]
    if begin["schema_version"] != SCHEMA_VERSION or not isinstance(options, dict):
        raise ValueError("not a record of this version")
    run = Recorded(run_id, str(begin["command"]), str(begin["time"]), options=options, **_meant(begin))
    endings: dict[str, Ending] = {}
    runs: dict[str, tuple[str, ...]] = {}
    broken: dict[str, None] = {}
    ended = taken_back = undone = False
    for line in lines[1:]:
        match line:
            case {"event": "members"}:
                run = replace(run, **_meant(line))
            case {"event": "begun", "target": str(target)}:
                endings.pop(target, None)
                broken[target] = None
                ended = False
            case {"event": "ended", "target": str(target), "ending": str(ending)}:
                endings[target] = Ending(ending)
                if line.get("down"):
                    broken[target] = None
                else:
                    broken.pop(target, None)
                if line.get("run"):
                    runs[target] = (*runs.get(target, ()), str(line["run"]))
            case {"event": event} if event in NODE_EVENTS:
                pass  # see of_nodes
            case {"event": "undoing" | "undone" as event}:
                taken_back, undone = True, event == "undone"
            case {"event": "end"}:
                ended = True
            case _:
                raise ValueError(f"unknown line: {line}")
    run = replace(run, endings=endings, broken=tuple(broken), ended=ended, runs=runs, **of_nodes(lines))
    return replace(run, traced=begin.get("traced") is True, taken_back=taken_back, undone=undone)


def _meant(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says of the members."""
    names: list[str | Target] = []
    details: dict[str, Mapping[str, str]] = {}
    known: dict[str, Known] = {}
    for member in line["members"]:
        written = str(member["written"])
        target = member.get("target")
        names.append(Target(target[0], target[2], target[1]) if target else written)
        for name, told in (member.get("told") or {written: member}).items():
            details[name] = {key: str(told[key]) for key in DETAILS if key in told}
        if "vm" in member or "at" in member:
            endpoint = line["endpoints"][member["at"]] if "at" in member else {}
            known[written] = Known(str(member.get("vm", "")), endpoint)
    return {"names": tuple(names), "details": details, "known": known}
