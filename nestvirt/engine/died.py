"""What runs that died have left, and who answers for it now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nestvirt.backends.base import Facts
from nestvirt.engine.session import Session
from nestvirt.errors import ChangeRejected, JournalError
from nestvirt.journal import Record, Run, Step
from nestvirt.model import Change, Finding, Layer, Power, Status


def owes_power(run: Run | None, facts: Facts) -> bool:
    """True where a run died after it had stopped the VM, or others for it, and they are still off."""
    if run is None or run.power is not Power.RUNNING:
        return run is not None and bool(facts.waiting)
    return facts.power is Power.STOPPED or bool(facts.waiting)


def refuse_forgetting(session: Session, died: Run | None) -> None:
    """An earlier run that died may owe other VMs their start, which this one would not know of."""
    drained = died.endpoint.get("drain") if died is not None else None
    if died is not None and drained and drained != session.backend.endpoint.get("drain"):
        raise ChangeRejected(
            f"run {died.id} was interrupted, and may have left VMs off that it had shut down",
            evidence=f"it was given: {', '.join(drained.split())}",
            cure=f"put that back first: nestvirt undo {died.id}",
        )


def refuse_another(session: Session, run: Run) -> None:
    """A VM's file may have been replaced by that of another one, to which nothing is to be put back."""
    if not session.vm.may_be(run.vm):
        raise ChangeRejected(
            f"{session.vm.name} is another VM than that of run {run.id}",
            evidence=f"the run's was {run.vm.name} with the UUID {run.vm.uuid}; there is now one with "
            f"{session.vm.uuid or 'none'} at {session.vm.id}",
            cure="nothing was touched; there is nothing to undo where the run's VM is gone",
        )


def refuse_unseen(session: Session, run: Run) -> None:
    """A run that has the VM alone cannot put back what one before it, that died, has changed of the host."""
    unseen = [step.change.setting for step in run.steps if not _is_seen(session, step.change)]
    if unseen:
        raise ChangeRejected(
            f"a run on {session.vm.name} that died has changed its host, too, which is not reached from here",
            evidence=f"on the host it has changed {', '.join(dict.fromkeys(unseen))}; nothing was touched",
            cure=f"put back both: nestvirt undo {run.id}",
        )


def take_over(session: Session, died: Run | None, record: Record, facts: Facts, owed: bool) -> list[Change]:
    """Write what a run that died has changed into the record of the one that goes on with it, and end it.

    A VM that it has left off may not start with that: so it is put back with what the new run changes, and
    one undo takes back both. What it has changed of a VM that runs is in nobody's way, and stays its own.

    Returns:
        what it has changed, and is there still.
    """
    if died is None:
        return []
    seen = replace(died, steps=tuple(step for step in died.steps if _is_seen(session, step.change)))
    left = list(_left(seen, facts)) if owed else []
    for change in left:
        record.intend(change)
        record.kept(change, change.after)
    session.journal.end(died, "continued" if owed and seen == died else "applied")
    return left


def _is_seen(session: Session, change: Change) -> bool:
    """Whether the setting is one of what this run reads: the host's are not, where it has the VM alone."""
    of_host = change.setting.startswith("/")
    return not of_host or not session.backend.kind.has_guest or "with_host" in session.backend.endpoint


def _left(run: Run, facts: Facts) -> Iterator[Change]:
    """What a run has changed, and nobody else since."""
    for first, last in ends(run):
        current = facts.value(first.change.setting)
        if current != first.change.before and (not last.read_back or current == last.kept):
            yield Change(first.change.setting, first.change.before, current)


def ends(run: Run) -> list[tuple[Step, Step]]:
    """The first and the last step with each setting, in the order of the first ones."""
    first = {step.change.setting: step for step in reversed(run.steps)}
    last = {step.change.setting: step for step in run.steps}
    return [(first[setting], last[setting]) for setting in last]


def net(changes: list[Change]) -> tuple[Change, ...]:
    """What several changes come to, each setting once."""
    first = {change.setting: change for change in reversed(changes)}
    last = {change.setting: change for change in changes}
    both = [Change(setting, first[setting].before, last[setting].after) for setting in last]
    return tuple(change for change in both if change.before != change.after)


def interrupted(session: Session, facts: Facts) -> tuple[Finding, ...]:
    """An earlier run that died, or another one that is under way at this moment. Reads only."""
    check, layer = "vm-run-interrupted", Layer.VM
    try:
        pid = session.journal.under_way(session.target.backend, session.vm)
        run = session.journal.unfinished(session.target.backend, session.vm)
    except JournalError as error:
        return (Finding(check, layer, Status.WARN, f"{error.message}: {error.evidence}", error.cure),)
    if pid is not None:
        evidence = f"another run is working on {session.vm.name} at this moment: process {pid}"
        return (Finding(check, layer, Status.WARN, evidence, "check again when it has ended"),)
    if run is None:
        return ()
    left = f", and it has left {session.subject} off" if owes_power(run, facts) else ""
    evidence = f"run {run.id} ({run.command}) did not end{left}"
    return (Finding(check, layer, Status.WARN, evidence, f"nestvirt undo {run.id}"),)
