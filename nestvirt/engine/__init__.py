"""check, reach (enable and disable), undo: the only place with an order of steps.

Every step is told before it is taken. A step that fails, or a Ctrl-C, puts everything back; a crash leaves
a journal from which ``undo`` puts it back.
"""

from __future__ import annotations

from collections.abc import Sequence

from nestvirt.backends.base import Facts
from nestvirt.engine.inside import CHECK_PATIENCE, depending, look_inside, verified
from nestvirt.engine.session import Manner, Session, Step, judged, read
from nestvirt.engine.work import Work, carry_out
from nestvirt.errors import Busy, ChangeRejected, Interrupted
from nestvirt.journal import Run
from nestvirt.model import Change, Finding, Goal, Layer, Plan, Power, Report, Status
from nestvirt.plan import make_plan

__all__ = ["CHECKS", "Manner", "Session", "Step", "check", "reach", "undo"]

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
    probed = look_inside(session, facts, patience)
    findings = (*_interrupted(session, facts), *judged(session, facts, goal), *probed.findings)
    return Report(str(session.target), findings, proof=probed.proof, goal=goal)


def reach(session: Session, goal: Goal, manner: Manner) -> Report:
    """Bring a VM to the goal, and verify it inside the guest.

    Returns:
        A report; where something blocks the plan, or in a dry run, nothing was touched.

    Raises:
        Busy: another run is working on this VM.
        Interrupted: the user stopped the run, and everything was put back.
        Error: a step failed; everything was put back, or the cure says how to.
    """
    with session.journal.lock(session.target.backend, session.vm):
        facts = read(session)
        findings = judged(session, facts, goal)
        if not goal.nested:
            findings += depending(session, facts)
        plan = make_plan(findings)
        in_use = tuple(f for f in findings if f.layer is Layer.GUEST and f.status is Status.FAIL)
        blockers = (*plan.blockers, *in_use)
        if blockers:
            return Report(str(session.target), tuple(findings), goal=goal, blockers=blockers)
        unfinished = session.journal.unfinished(session.target.backend, session.vm)
        owed = _owes_power(unfinished, facts)
        if not plan.changes and not owed and not (plan.cold_boot and manner.restart):
            return verified(session, goal, remains=_pending(session, facts) if plan.cold_boot else ())
        if manner.dry_run:
            return _planned(session, findings, plan, facts, goal)
        manner.consent(plan)
        power = Power.RUNNING if owed else facts.power
        command = "enable" if goal.nested else "disable"
        record = session.journal.begin(command, session.target, session.vm, power, session.backend.endpoint)
        cycle = manner.restart and power is Power.RUNNING
        carry_out(session, Work(record, plan.changes, cycle, manner.force_off, goal), facts)
        if unfinished is not None:
            session.journal.record(unfinished).end("applied")
        remains = () if manner.restart else _pending(session, facts)
        try:
            return verified(session, goal, plan.changes, record.id, remains)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(
                f"interrupted while verifying: {session.vm.name} has its change, and it is not proven",
                cure=f"nestvirt check {session.spelling}; or put it back: nestvirt undo {record.id}",
            ) from interrupt


def undo(session: Session, run: Run, manner: Manner) -> Report:
    """Put back exactly what a run changed, whether it ended, failed or died.

    Raises:
        ChangeRejected: a setting was changed by somebody else since; nothing was touched.
        Error: as ``reach``.
    """
    with session.journal.lock(session.target.backend, session.vm):
        facts = read(session)
        changes = _undoing(run, facts)
        owed = _owes_power(run if run.outcome is None else None, facts)
        plan = Plan(changes, owed, ())
        if manner.dry_run:
            return _planned(session, (), plan, facts, None, run.id)
        if not plan.empty:
            manner.consent(plan)
            record = session.journal.record(run)
            record.undoing(facts.power)
            cycle = manner.restart and (facts.power is Power.RUNNING or owed)
            carry_out(session, Work(record, changes, cycle, manner.force_off, None), facts)
        session.journal.record(run).end("undone")
        findings = _restored(run, read(session))
        remains = _pending(session, facts) if changes and not manner.restart else ()
        return Report(str(session.target), findings, changes, run=run.id, remains=remains, goal=None)


def _owes_power(run: Run | None, facts: Facts) -> bool:
    """True where a run died after it had stopped the VM, and the VM is still off."""
    return run is not None and run.power is Power.RUNNING and facts.power is Power.STOPPED


def _undoing(run: Run, facts: Facts) -> tuple[Change, ...]:
    changes: list[Change] = []
    for step in reversed(run.steps):
        setting, before = step.change.setting, step.change.before
        current = facts.value(setting)
        if current == before:
            continue
        if step.read_back and current != step.kept:
            raise ChangeRejected(
                f"{setting} was changed by somebody else after run {run.id}",
                evidence=f"the run left {step.kept!r}, and now it is {current!r}",
                cure=f"decide by hand: before the run it was {before!r}",
            )
        changes.append(Change(setting, current, before))
    return tuple(changes)


def _restored(run: Run, facts: Facts) -> tuple[Finding, ...]:
    findings: list[Finding] = []
    for setting, before in {s.change.setting: s.change.before for s in reversed(run.steps)}.items():
        same = facts.value(setting) == before
        findings.append(
            Finding(
                "vm-restored",
                Layer.VM,
                Status.PASS if same else Status.FAIL,
                f"{setting} is {'exactly' if same else 'NOT'} what it was before run {run.id}",
                "" if same else f"set it by hand to: {before}",
            )
        )
    return tuple(findings)


def _pending(session: Session, facts: Facts) -> tuple[str, ...]:
    if facts.power is not Power.RUNNING:
        return ()
    return (
        f"power-cycle {session.vm.name}: shut it down and start it (a reboot inside the guest is not enough)",
        f"then see it proven: nestvirt check {session.spelling}",
    )


def _planned(
    session: Session,
    findings: Sequence[Finding],
    plan: Plan,
    facts: Facts,
    goal: Goal | None,
    run: str | None = None,
) -> Report:
    """The report of a dry run."""
    what = "; ".join(f"write {change.setting}" for change in plan.changes) or "change no setting"
    cycle = " and power-cycle the VM" if facts.power is Power.RUNNING else ""
    remains = (f"dry run, nothing was touched; it would {what}{cycle}",)
    return Report(str(session.target), tuple(findings), plan.changes, None, run, remains, goal, planned=True)


def _interrupted(session: Session, facts: Facts) -> tuple[Finding, ...]:
    """An earlier run that died, unless it is another one under way at this moment."""
    try:
        with session.journal.lock(session.target.backend, session.vm):
            run = session.journal.unfinished(session.target.backend, session.vm)
    except Busy as error:
        return (Finding("vm-run-interrupted", Layer.VM, Status.SKIP, f"{error.message}: {error.evidence}"),)
    if run is None:
        return ()
    left = ", and it has left the VM off" if _owes_power(run, facts) else ""
    cure = f"nestvirt undo {run.id}; or complete it: nestvirt {run.command} {session.spelling}"
    evidence = f"run {run.id} ({run.command}) died in its middle{left}"
    return (Finding("vm-run-interrupted", Layer.VM, Status.WARN, evidence, cure),)
