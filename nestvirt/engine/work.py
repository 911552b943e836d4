"""Carry a plan out, step by step, and put everything back where a step fails."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from nestvirt.backends.base import Facts
from nestvirt.engine.session import Session, Step
from nestvirt.errors import ChangeRejected, Error, Interrupted, Left, PowerError
from nestvirt.journal import Record
from nestvirt.model import Change, Goal, Power
from nestvirt.plan import make_plan

SETTLE = 20.0
"""Seconds that an interrupted run waits for a guest that was already asked to shut down."""


@dataclass
class Work:
    """What a run has to do, and how far it has come."""

    record: Record
    changes: Sequence[Change]
    cycle: bool
    force_off: bool
    goal: Goal | None  # None: an undo, whose read-back must equal the former value
    received: Sequence[Change] = ()  # what the power cycle alone brings
    was_off: bool = False  # it is started for the goal's sake, and owes nobody to be on
    interrupted: bool = False  # an undo of a run that died: what that owes is owed until it is done
    begun: list[Change] = field(default_factory=list)  # first by a run that died, which this one goes on with
    asked_to_stop: bool = False
    stopped: bool = False
    started: bool = False

    def outcome(self, subject: str) -> str:
        """What putting back has come to, for people."""
        if self.goal is None:
            said = "the undo was taken back, and what it was to undo is still in place"
        else:
            said = "everything was put back as it was" if self.begun else "no setting was changed"
        lasting = [change for change in self.begun if change.lasts]
        said += "".join(f", but for {change.stays}" for change in lasting)
        return f"{said}; off in between: {subject}" if self.stopped else said


def carry_out(session: Session, work: Work, facts: Facts) -> None:
    """Do the work: stop, write and read back each change, start.

    Raises:
        Interrupted: Ctrl-C; everything was put back.
        Error: a step failed; everything was put back, or the cure says how to.
    """
    with _PuttingBack(session, work):
        if work.cycle and facts.power is Power.RUNNING and (work.changes or not facts.waiting):
            _stop(session, work)
        for change in work.changes:
            facts = _apply(session, work, change)
        if work.goal is not None and work.changes:
            _read_back(facts, work.goal)
        if work.stopped and work.changes and facts.power is Power.RUNNING:
            raise PowerError(
                f"{session.subject} was started by somebody else meanwhile, without the change",
                evidence="it was off a moment ago, and runs",
                cure="run this again when nobody else works on it",
            )
        if work.cycle:
            session.tell(Step.START, session.subject)
            work.started = True
            session.backend.start(session.vm, timeout=session.timeout)
        if work.goal is not None:
            work.record.end("applied")


class _PuttingBack:
    """Puts everything back, whatever ends the work: an error, Ctrl-C, or a fault of our own."""

    def __init__(self, session: Session, work: Work) -> None:
        self._session = session
        self._work = work

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if failure is None:
            return
        run = self._work.record.id
        unsettled = f"not put back; do that as soon as you can: nestvirt undo {run}"
        with _Noting(Left.told(unsettled, changed=bool(self._work.begun), run=run)):
            settled = _put_back(self._session, self._work, failure)
        outcome = self._work.outcome(self._session.subject)
        if not settled:
            outcome += (
                f", but {self._session.subject} may still shut down, as it was asked to; "
                f"nestvirt undo {run} starts it again"
            )
        lasts = any(change.lasts for change in self._work.begun)
        if isinstance(failure, KeyboardInterrupt):
            interrupted = Interrupted(f"interrupted: {outcome}", cure="run it again at any time")
            interrupted.changed = lasts
            raise interrupted from failure
        if isinstance(failure, Error):
            failure.changed = lasts
            failure.cure = f"{failure.cure}; {outcome}".lstrip("; ")
        else:
            failure.add_note(Left.told(outcome, changed=lasts))


class _Noting:
    """Tells how things stand also where it is a fault of our own that ends the run; see cli."""

    def __init__(self, note: Left) -> None:
        self._note = note

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if failure is not None and not isinstance(failure, Error):
            failure.add_note(self._note)


def _stop(session: Session, work: Work) -> None:
    session.tell(Step.STOP, session.subject)
    work.asked_to_stop = True
    try:
        session.backend.stop(session.vm, timeout=session.timeout)
    except PowerError:
        if not work.force_off:
            raise
        session.tell(Step.POWER_OFF, session.subject)
        session.backend.power_off(session.vm)
    work.stopped = True


def _apply(session: Session, work: Work, change: Change) -> Facts:
    """Write one change and read it back; return the facts as they are now."""
    if work.goal is not None:
        work.record.intend(change)
    session.tell(Step.LOAD if change.module else Step.APPLY, change.module or change.setting)
    work.begun.append(change)
    try:
        session.backend.apply(session.vm, change)
    except ChangeRejected:
        work.begun.pop()  # nothing was written: putting back would overwrite what somebody else wrote
        raise
    session.tell(Step.READ_BACK, change.setting)
    facts = session.backend.read(session.vm)
    kept = facts.value(change.setting)
    if work.goal is not None:
        work.record.kept(change, kept)
    elif kept != change.after:
        raise ChangeRejected(
            f"{change.setting} is not what it was before the run",
            evidence=f"it should be {change.after!r}, and is {kept!r}",
            cure="compare it by hand with what the journal holds",
        )
    return facts


def _read_back(facts: Facts, goal: Goal) -> None:
    still = make_plan(facts.judge(goal))
    if still.changes or still.blockers:
        left = [change.setting for change in still.changes] + [f.evidence for f in still.blockers]
        raise ChangeRejected(
            "the hypervisor took the change and does not hold it",
            evidence=f"after reading back there is still: {'; '.join(left)}",
            cure="look at the VM's definition with the hypervisor's own tools",
        )


def _put_back(session: Session, work: Work, failure: BaseException) -> bool:
    """Undo in reverse, and give the VM its power state back. Raises what explains best if that fails too.

    Returns:
        False where the guest was asked to shut down and still runs: it may go off when nobody looks. The
        record is then left open, and with it the debt of starting the VM again.
    """
    backend, vm = session.backend, session.vm
    undone: list[Change] = []
    try:
        session.tell(Step.PUT_BACK, vm.name)
        going_down = work.asked_to_stop and not work.stopped
        running = backend.read(vm).power is Power.RUNNING
        if work.started and not work.begun:
            for change in work.received:  # what it does not start with is what it was to receive
                work.record.intend(change)
                work.begun.append(change)
        if running and work.begun and work.started:
            backend.power_off(vm)  # it was started with the change a moment ago
        elif running and going_down and isinstance(failure, KeyboardInterrupt):
            with contextlib.suppress(PowerError):  # it goes down all the same: start it again only then
                backend.stop(vm, timeout=min(SETTLE, session.timeout))
        for change in [c for c in reversed(work.begun) if not c.lasts]:
            current = backend.read(vm).value(change.setting)
            if current != change.before:
                backend.apply(vm, Change(change.setting, current, change.before))
            undone.append(change)
        power = backend.read(vm).power
        if power is Power.RUNNING and work.begun and work.started:
            backend.power_off(vm)  # our start came late, and with the change
            power = Power.STOPPED
        if work.cycle and power is Power.STOPPED and not work.was_off:
            work.stopped = True
            backend.start(vm, timeout=session.timeout)
        elif going_down:
            return False
        if not work.interrupted:
            work.record.end("put-back" if work.goal is not None else "applied")
        return True
    except (Error, KeyboardInterrupt) as second:
        (first, why), (then, also) = _told(failure), _told(second)
        kind = Interrupted if isinstance(second, KeyboardInterrupt) else Error
        both = kind(
            f"{first}; and it is not put back: {then}",
            evidence=f"{why}; {also}",
            cure=f"put it back as soon as you can: nestvirt undo {work.record.id}",
        )
        both.changed, both.run = len(undone) < len(work.begun), work.record.id
        raise both from second


def _told(failure: BaseException) -> tuple[str, str]:
    """What happened, and what was seen."""
    if isinstance(failure, Error):
        return failure.message, failure.evidence
    what = "interrupted" if isinstance(failure, KeyboardInterrupt) else "a fault in nestvirt"
    return what, type(failure).__name__
