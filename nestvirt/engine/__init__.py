"""check, reach (enable and disable), undo: the only place with an order of steps.

Every step is told before it is taken. A step that fails, or a Ctrl-C, puts everything back; a crash leaves
a journal from which ``undo`` puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType

from nestvirt.backends.base import Approximate, Facts, Guarded
from nestvirt.engine.died import (
    ends,
    interrupted,
    net,
    owes_power,
    refuse_another,
    refuse_forgetting,
    refuse_unseen,
    take_over,
)
from nestvirt.engine.inside import (
    CHECK_PATIENCE,
    believed,
    believing,
    deduced,
    depending,
    look_inside,
    verified,
)
from nestvirt.engine.session import Manner, Session, Step, judged, read, read_when_quiet
from nestvirt.engine.work import Work, carry_out
from nestvirt.errors import ChangeRejected, Error, Interrupted, Left
from nestvirt.guest.verify import NO_GUEST
from nestvirt.journal import Run
from nestvirt.model import (
    LASTING,
    POWER_RIGHT,
    SAVED_STATE,
    Change,
    Finding,
    Goal,
    Layer,
    Plan,
    Power,
    Report,
    Status,
    Vm,
)
from nestvirt.plan import make_plan

__all__ = ["CHECKS", "Manner", "Session", "Step", "check", "reach", "undo", "undoing"]

CHECKS = {
    "vm-run-interrupted": "Did an earlier run on this VM die in its middle?",
    "vm-restored": "Is a setting again what it was before a run?",
    "guest-withdrawn": "After disable: has the guest no vmx or svm any more?",
}
"""Check id to the question it asks: what the engine itself finds, whatever the hypervisor."""


def check(session: Session, goal: Goal) -> Report:
    """Read, judge, and look inside the guest. Changes nothing.

    Raises:
        Error: as the backend's ``read`` does.
    """
    facts = read(session)
    patience = min(session.timeout, CHECK_PATIENCE)
    probed = look_inside(session, facts.power, patience)
    if probed is not NO_GUEST and facts.power is Power.RUNNING:
        facts = read(session)  # once more: an agent may have connected meanwhile
    findings = (
        *interrupted(session, facts),
        *deduced(session, believed(judged(session, facts, goal), probed), probed),
        *probed.findings,
    )
    proof = None if probed is NO_GUEST else probed.proof
    return Report(str(session.target), findings, proof=proof, goal=goal)


def reach(session: Session, goal: Goal, manner: Manner) -> Report:
    """Bring a VM to the goal, and verify it inside the guest.

    Returns:
        A report; where something blocks the plan, or in a dry run, nothing was touched.

    Raises:
        Busy: another run is working on this VM.
        Interrupted: the user stopped the run, and everything was put back.
        Error: a step failed; everything was put back, or the cure says how to.
    """
    with _locked(session, manner):
        if not goal.nested:
            goal = replace(goal, former=session.journal.enabling(session.target.backend, session.vm))
        unfinished = session.journal.unfinished(session.target.backend, session.vm)
        facts = read(session) if unfinished is None else read_when_quiet(session)
        findings = believing(session, facts, judged(session, facts, goal), goal)
        if not goal.nested:
            findings += depending(session, facts)
        plan = make_plan(findings)
        in_use = tuple(f for f in findings if f.layer is Layer.GUEST and f.status is Status.FAIL)
        blockers = tuple(f for f in (*plan.blockers, *in_use) if manner.restart or f.check != POWER_RIGHT)
        if blockers:
            return Report(str(session.target), tuple(findings), goal=goal, blockers=blockers)
        refuse_forgetting(session, unfinished)
        owed = owes_power(unfinished, facts)
        idle, cycle = _cycled(session, manner, plan, facts, owed)
        _refuse_while_it_runs(session, facts, plan.changes, cycle)
        would = _would(session, plan, facts, cycle, owed)
        if manner.dry_run and not (plan.empty and not owed):
            planned = Report(str(session.target), tuple(findings), plan.changes, goal=goal, planned=True)
            return replace(planned, remains=would, cycled=cycle)
        if not plan.changes and not owed and not (plan.cold_boot and cycle):
            if unfinished is not None and not manner.dry_run:
                session.journal.end(unfinished, "applied")  # completed by this one, it owes nothing any more
            remains = _pending(session, facts) if plan.cold_boot else ()
            return verified(session, goal, facts.power, remains=remains, facts=facts)
        manner.consent(replace(plan, would=would))
        power = Power.RUNNING if owed else facts.power
        command = "enable" if goal.nested else "disable"
        record = session.journal.begin(command, session.target, session.vm, power, session.backend.endpoint)
        left = take_over(session, unfinished, record, facts, owed)
        work = Work(record, plan.changes, cycle, manner.force_off, goal, plan.received, idle and not owed)
        work.begun += left
        carry_out(session, work, facts)
        changes = net([*left, *work.changes])
        changed = record.id if changes else None
        unproven = f"{session.vm.name} has its change, and it is not proven"
        with _InPlace(unproven, _way_back(record.id, changes), changed):
            return _proven(session, goal, work, facts, changes)


def _proven(session: Session, goal: Goal, work: Work, facts: Facts, changes: tuple[Change, ...]) -> Report:
    """What is done is looked at.

    Args:
        facts: as they were before.
        changes: what differs since, also by a run that died before.
    """
    remains: tuple[str, ...] = ()
    whole = work.cycle or session.backend.kind.cold  # then nothing can be left pending
    if not whole and make_plan(session.backend.read(session.vm).judge(goal)).cold_boot:
        remains = _pending(session, facts)
    power = Power.RUNNING if work.cycle else facts.power
    if any(change.setting == SAVED_STATE for change in work.changes):
        power = Power.STOPPED
        remains = (f"{session.vm.name} is off now, as its saved state is gone: start it when it suits",)
    run = work.record.id if changes else None
    report = verified(session, goal, power, changes, run, remains)
    return replace(report, cycled=work.cycle)


def undo(session: Session, run: Run, manner: Manner) -> Report:
    """Put back exactly what a run changed, whether it ended, failed or died.

    Raises:
        ChangeRejected: a setting was changed by somebody else since; nothing was touched.
        Error: as ``reach``.
    """
    with _locked(session, manner):
        run = session.journal.whole(run)  # as it is now that nobody else can write it
        refuse_another(session, run)
        refuse_unseen(session, run)
        facts = read_when_quiet(session)
        changes = undoing(run, facts.value)
        blockers = _against_undoing(session, run, facts, changes) if changes else ()
        if blockers:
            return Report(str(session.target), blockers, run=run.id, goal=None, blockers=blockers)
        owed = owes_power(run if run.outcome is None else None, facts)
        # A change that the running VM has never received needs no power cycle to be taken back.
        received = not make_plan(facts.judge(_goal_of(run))).cold_boot
        running = facts.power is Power.RUNNING and not facts.busy
        received = received or session.backend.kind.cold
        cycle = owed or (manner.restart and received and bool(changes) and running)
        _refuse_while_it_runs(session, facts, changes, cycle)
        would = _would(session, Plan(changes, owed, ()), facts, cycle, owed)
        warnings = make_plan(facts.judge(Goal(nested=False))).warnings
        if manner.dry_run:
            planned = Report(str(session.target), warnings, changes, None, run.id, would, None, planned=True)
            return replace(planned, cycled=cycle)
        if changes or owed:
            manner.consent(Plan(changes, owed, (), warnings, would=would))
            record = session.journal.record(run)
            record.undoing(facts.power)
            work = Work(record, changes, cycle, manner.force_off, None, interrupted=run.outcome is None)
            carry_out(session, work, facts)
        with _InPlace(f"run {run.id} is undone", changed=run.id if changes else None):
            session.journal.end(run, "undone")
            findings = _restored(run, read(session))
            remains = _pending(session, facts)[:1] if changes and received and not cycle else ()
            if not run.steps:
                remains = (f"run {run.id} had changed no setting; all runs: nestvirt undo --list",)
            done = Report(str(session.target), findings, changes, run=run.id, remains=remains, goal=None)
            return replace(done, cycled=cycle)


def _cycled(session: Session, manner: Manner, plan: Plan, facts: Facts, owed: bool) -> tuple[bool, bool]:
    """Whether it is off and is started for the goal's sake, and whether it is power-cycled, or started."""
    needed = not plan.changes or not all(facts.has(change) for change in plan.changes)
    running = facts.power is Power.RUNNING and not facts.busy
    idle = plan.cold_boot and facts.power is Power.STOPPED and not session.backend.kind.has_guest
    return idle, owed or (manner.restart and (idle or (running and needed)))


def _refuse_while_it_runs(session: Session, facts: Facts, changes: Sequence[Change], cycle: bool) -> None:
    """Some hypervisors take a change only while the VM is off, so that none can be left pending."""
    if session.backend.kind.cold and changes and facts.power is Power.RUNNING and not cycle:
        raise ChangeRejected(
            f"{session.vm.name} runs, and its hypervisor takes this change only while it is off",
            evidence="--no-restart would leave it running; nothing was touched",
            cure="run this again without --no-restart, or when it has been shut down",
        )


def _goal_of(run: Run) -> Goal:
    return Goal(nested=run.command == "enable")


def _against_undoing(
    session: Session, run: Run, facts: Facts, changes: Sequence[Change]
) -> tuple[Finding, ...]:
    """What would make undoing vain, such as a managed save, or harm VMs inside the guest."""
    of_host = any(change.setting.startswith("/") for change in changes)
    rights = facts.forbids(changes) if isinstance(facts, Guarded) else ()
    blockers = [
        f for f in make_plan(facts.judge(Goal(nested=False))).blockers if of_host or f.layer is not Layer.HOST
    ]
    blockers = [f for f in blockers if f.check not in {right.check for right in rights}]
    return (*rights, *blockers, *(depending(session, facts) if _goal_of(run).nested else ()))


class _InPlace:
    """What has been done stays done, whatever happens while it is looked at; and the user is told so.

    Args:
        message: what is in place.
        cure: how it could be put back; empty where that is no question.
        changed: the run that has changed a setting; None where none was.
    """

    def __init__(self, message: str, cure: str = "", changed: str | None = None) -> None:
        self._message = message
        self._cure = cure
        self._changed = changed

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(failure, KeyboardInterrupt):
            interrupted = Interrupted(f"interrupted, but {self._message}", cure=self._cure)
            interrupted.changed, interrupted.run = self._changed is not None, self._changed
            raise interrupted from failure
        if isinstance(failure, Error):
            failure.cure = "; ".join(filter(None, (failure.cure, self._message, self._cure)))
            failure.changed, failure.run = self._changed is not None, self._changed
        elif isinstance(failure, Exception):
            note = "; ".join(filter(None, (self._message, self._cure)))
            failure.add_note(Left.told(note, changed=self._changed is not None, run=self._changed))


def _way_back(run: str, changes: Sequence[Change]) -> str:
    """How a run is taken back; what lasts is not."""
    lasting = [f"{change.stays}, which nobody can undo" for change in changes if change.lasts]
    undo = [] if len(lasting) == len(changes) else [f"to put it back: nestvirt undo {run}"]
    return "; ".join((*undo, *lasting))


@contextmanager
def _locked(session: Session, manner: Manner) -> Iterator[None]:
    """The VM's lock, and that of a host that is changed along; a dry run takes none, and leaves no trace.

    Raises:
        Busy: another run has one. What a dry run would say of that VM might be wrong a moment later.
    """
    host = session.backend.endpoint.get("host_id")
    named = [(session.target.backend, session.vm), *([("host", Vm(host, "its host"))] if host else [])]
    with ExitStack() as locks:
        for backend, vm in named:
            if manner.dry_run:
                session.journal.refuse_under_way(backend, vm)
            else:
                locks.enter_context(session.journal.lock(backend, vm))
        yield


def undoing(run: Run, value: Callable[[str], str | None]) -> tuple[Change, ...]:
    """The changes that take a run back.

    Args:
        value: what a setting is before that.

    Raises:
        ChangeRejected: a setting was changed by somebody else since.
    """
    changes: list[Change] = []
    for first, last in reversed(ends(run)):
        setting, before = first.change.setting, first.change.before
        current = value(setting)
        if current == before or first.change.lasts:
            continue
        if last.read_back and current != last.kept:
            raise ChangeRejected(
                f"{setting} was changed by somebody else after run {run.id}",
                evidence=f"the run left {last.kept!r}, and now it is {current!r}",
                cure=f"decide by hand: before the run it was {before!r}",
            )
        changes.append(Change(setting, current, before))
    return tuple(changes)


def _restored(run: Run, facts: Facts) -> tuple[Finding, ...]:
    findings: list[Finding] = []
    for step, _last in reversed(ends(run)):
        first = step.change
        setting, before = first.setting, first.before
        same = facts.value(setting) == before
        nearest = facts.nearest(setting) if same and isinstance(facts, Approximate) else ""
        evidence = f"{setting} is {'exactly' if same else 'NOT'} what it was before run {run.id}"
        if nearest:
            evidence = f"{setting} {nearest}, the nearest to not set that there is, as before run {run.id}"
        status, cure = Status.FAIL, f"set it by hand to: {before}"
        same = same and setting != SAVED_STATE  # another one may have been saved since
        if first.lasts and not same:
            evidence, status = f"{first.stays}, as run {run.id} left it", Status.WARN
            cure = f"none: {LASTING[setting]}"
        layer = Layer.HOST if setting.startswith("/") else Layer.VM
        status, cure = (Status.PASS, "") if same else (status, cure)
        findings.append(Finding("vm-restored", layer, status, evidence, cure))
    return tuple(findings)


def _pending(session: Session, facts: Facts) -> tuple[str, ...]:
    if facts.power is not Power.RUNNING:
        return ()
    return (
        session.backend.kind.pending.format(session.vm.name),
        f"then see it proven: nestvirt check {session.spelling}",
    )


def _would(session: Session, plan: Plan, facts: Facts, cycle: bool, owed: bool) -> tuple[str, ...]:
    """What a dry run says it would do."""
    kind, subject = session.backend.kind, session.subject
    steps = [change.deed for change in plan.changes] or ["change no setting"]
    if owed:
        steps.append(f"start {subject}, which an interrupted run has left off")
    elif cycle and facts.power is Power.STOPPED:
        steps.append(f"start {subject}")
    elif facts.power is Power.RUNNING:
        steps.append(kind.cycle if cycle else f"leave {subject} as it is")
    return (f"dry run, nothing was touched; it would {' and '.join(steps)}",)
