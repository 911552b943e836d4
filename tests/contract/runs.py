"""Short words for the tests of a backend: a session, a run, a finding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from nestvirt import backends, engine, report
from nestvirt.engine import Session
from nestvirt.journal import Journal
from nestvirt.model import Finding, Goal, Report, Target
from tests.contract.basis import MANNER, ON, Tell, quiet
from tests.contract.rig import Rig


def session(
    rig: Rig,
    journal: Journal,
    name: str,
    *,
    tell: Tell = quiet,
    timeout: float = 30,
    endpoint: Mapping[str, str] | None = None,
) -> Session:
    """A session on a VM of the rig."""
    target = Target(rig.backend, name)
    backend = backends.connect(target, endpoint or rig.endpoint)
    spelling = f"--{rig.backend} {name}"
    return Session(backend, target, backend.find(name), journal, spelling, timeout=timeout, tell=tell)


def enable(
    rig: Rig, journal: Journal, name: str, goal: Goal = ON, *, endpoint: Mapping[str, str] | None = None
) -> Report:
    """Run enable on a VM of the rig."""
    return engine.reach(session(rig, journal, name, endpoint=endpoint), goal, MANNER)


def check(rig: Rig, journal: Journal, name: str, goal: Goal = ON) -> Report:
    """Run check on a VM of the rig."""
    return engine.check(session(rig, journal, name), goal)


def found(report: Report, check_id: str) -> Finding:
    """The one finding of that check."""
    [finding] = [f for f in report.findings if f.check == check_id]
    return finding


def all_told(rig: Rig, journal: Journal, state: Path, name: str) -> list[str]:
    """Whatever is shown, and kept in the folder of the journal, of enabling a VM and undoing it."""
    result = enable(rig, journal, name)
    engine.undo(session(rig, journal, name), journal.find(result.run), MANNER)
    told = [report.to_json(result), str(report.to_text(result))]
    told += [path.read_text() for path in state.rglob("*") if path.is_file()]
    told.append(json.dumps(dict(session(rig, journal, name).backend.endpoint)))
    return told
