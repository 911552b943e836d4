"""check, reach (enable and disable), undo: the only place with an order of steps.

Every step is told before it is taken. A step that fails, or a Ctrl-C, puts everything back; a crash leaves
a journal from which ``undo`` puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nestvirt.backends.base import Backend, Facts
from nestvirt.errors import ChangeRejected, Error, GuestUnreachable, Interrupted, PowerError
from nestvirt.guest import verify
from nestvirt.guest.channel import Channel
from nestvirt.journal import Journal, Record, Run
from nestvirt.model import PROOF, Change, Finding, Goal, Layer, Plan, Power, Report, Status, Target, Vm
from nestvirt.plan import make_plan

CHECK_PATIENCE = 15.0
"""Seconds that a mere check waits for a running guest to answer."""


class Step(StrEnum):
    """What the engine is about to do."""

    READ = "reading the configuration"
    STOP = "stopping"
    POWER_OFF = "cutting the power"
    APPLY = "writing"
    READ_BACK = "reading back"
    START = "starting"
    WAIT = "waiting for the guest"
    PROBE = "running guest code in the guest"
    PUT_BACK = "putting back"


@dataclass(frozen=True)
class Session:
    """One VM of one connected hypervisor, and how to work with it.

    Attributes:
        ssh: the user's own way into the guest, used instead of the hypervisor's.
        timeout: seconds for each of: the guest's shutdown, its start, and its first answer.
        load_modules: whether the probe may load the guest's kvm module.
        tell: called with each step before it is taken.
    """

    backend: Backend
    target: Target
    vm: Vm
    journal: Journal
    ssh: Channel | None = None
    timeout: float = 120.0
    load_modules: bool = False
    tell: Callable[[Step, str], None] = field(default=lambda _step, _detail: None)


@dataclass(frozen=True)
class Manner:
    """How the user wants a change made.

    Attributes:
        consent: called with the plan; raises where the user declines.
        restart: power-cycle a running VM; without, the change is left pending.
        force_off: cut the power where the guest does not shut down in time.
        dry_run: stop before anything is touched.
    """

    consent: Callable[[Plan], None]
    restart: bool = True
    force_off: bool = False
    dry_run: bool = False


def check(session: Session, goal: Goal) -> Report:
    """Read, judge, and look inside the guest. Changes nothing.

    Raises:
        Error: as the backend's ``read`` does.
    """
    facts = _read(session)
    patience = min(session.timeout, CHECK_PATIENCE)
    probed = _look_inside(session, facts, patience)
    return Report(str(session.target), (*facts.judge(goal), *probed.findings), proof=probed.proof, goal=goal)


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
        facts = _read(session)
        findings = [*facts.judge(goal), *([] if goal.nested else _depending(session, facts))]
        plan = make_plan(findings)
        unfinished = session.journal.unfinished(session.target.backend, session.vm)
        owed = _owes_power(unfinished, facts)
        blockers = (
            *plan.blockers,
            *(f for f in findings if f.layer is Layer.GUEST and f.status is Status.FAIL),
        )
        if blockers:
            return Report(str(session.target), tuple(findings), goal=goal, blockers=blockers)
        if plan.empty and not owed:
            return _verified(session, goal)
        if not manner.restart and not plan.changes:
            return _verified(session, goal, remains=_pending(session, facts))
        if manner.dry_run:
            return Report(
                str(session.target), tuple(findings), plan.changes, remains=_dry(plan, facts), goal=goal
            )
        manner.consent(plan)
        record = session.journal.begin(
            "enable" if goal.nested else "disable",
            session.target,
            session.vm,
            Power.RUNNING if owed else facts.power,
            session.backend.endpoint,
        )
        cycle = manner.restart and (facts.power is Power.RUNNING or owed)
        _carry_out(session, _Work(record, plan.changes, cycle, manner.force_off, goal), facts)
        if unfinished is not None:
            session.journal.record(unfinished).end("applied")
        remains = () if manner.restart else _pending(session, facts)
        try:
            return _verified(session, goal, plan.changes, record.id, remains)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(
                f"interrupted while verifying: {session.vm.name} has its change, and it is not proven",
                cure=f"{_check_command(session)}; or put it back: nestvirt undo {record.id}",
            ) from interrupt


def undo(session: Session, run: Run, manner: Manner) -> Report:
    """Put back exactly what a run changed, whether it ended, failed or died.

    Raises:
        ChangeRejected: a setting was changed by somebody else since; nothing was touched.
        Error: as ``reach``.
    """
    with session.journal.lock(session.target.backend, session.vm):
        facts = _read(session)
        changes = _undoing(run, facts)
        owed = _owes_power(run if run.outcome is None else None, facts)
        plan = Plan(changes, owed, ())
        if manner.dry_run:
            return Report(str(session.target), (), changes, run=run.id, remains=_dry(plan, facts), goal=None)
        if not plan.empty:
            manner.consent(plan)
            record = session.journal.record(run)
            record.undoing(facts.power)
            cycle = manner.restart and (facts.power is Power.RUNNING or owed)
            _carry_out(session, _Work(record, changes, cycle, manner.force_off, None), facts)
        session.journal.record(run).end("undone")
        findings = _restored(run, _read(session))
        remains = _pending(session, facts) if changes and not manner.restart else ()
        return Report(str(session.target), findings, changes, run=run.id, remains=remains, goal=None)


@dataclass
class _Work:
    """What a run has to do, and how far it has come."""

    record: Record
    changes: Sequence[Change]
    cycle: bool
    force_off: bool
    goal: Goal | None  # None: an undo, whose read-back must equal the former value
    begun: list[Change] = field(default_factory=list)


def _carry_out(session: Session, work: _Work, facts: Facts) -> None:
    backend, vm = session.backend, session.vm
    try:
        if work.cycle and facts.power is Power.RUNNING:
            _stop(session, work.force_off)
        for change in work.changes:
            _apply(session, work, change)
        if work.goal is not None:
            _read_back(session, work.goal)
        if work.cycle:
            session.tell(Step.START, vm.name)
            backend.start(vm, timeout=session.timeout)
        if work.goal is not None:
            work.record.end("applied")
    except (Error, KeyboardInterrupt) as failure:
        _put_back(session, work, failure)
        if isinstance(failure, KeyboardInterrupt):
            raise Interrupted(
                "interrupted: everything was put back", cure="run it again at any time"
            ) from failure
        failure.cure = f"{failure.cure}; everything was put back as it was".lstrip("; ")
        raise


def _stop(session: Session, force_off: bool) -> None:
    session.tell(Step.STOP, session.vm.name)
    try:
        session.backend.stop(session.vm, timeout=session.timeout)
    except PowerError:
        if not force_off:
            raise
        session.tell(Step.POWER_OFF, session.vm.name)
        session.backend.power_off(session.vm)


def _apply(session: Session, work: _Work, change: Change) -> None:
    if work.goal is not None:
        work.record.intend(change)
    session.tell(Step.APPLY, change.setting)
    work.begun.append(change)
    try:
        session.backend.apply(session.vm, change)
    except ChangeRejected:
        work.begun.pop()  # nothing was written: putting back would overwrite what somebody else wrote
        raise
    session.tell(Step.READ_BACK, change.setting)
    kept = session.backend.read(session.vm).value(change.setting)
    if work.goal is not None:
        work.record.kept(change, kept)
    elif kept != change.after:
        raise ChangeRejected(
            f"{change.setting} is not what it was before the run",
            evidence=f"it should be {change.after!r}, and is {kept!r}",
            cure="compare it by hand with what the journal holds",
        )


def _read_back(session: Session, goal: Goal) -> None:
    still = make_plan(session.backend.read(session.vm).judge(goal))
    if still.changes or still.blockers:
        left = [change.setting for change in still.changes] + [f.evidence for f in still.blockers]
        raise ChangeRejected(
            "the hypervisor took the change and does not hold it",
            evidence=f"after reading back there is still: {'; '.join(left)}",
            cure="look at the VM's definition with the hypervisor's own tools",
        )


def _put_back(session: Session, work: _Work, failure: BaseException) -> None:
    """Undo in reverse, and give the VM its power state back. Raises what explains best if that fails too."""
    session.tell(Step.PUT_BACK, session.vm.name)
    try:
        if work.begun and work.cycle and session.backend.read(session.vm).power is Power.RUNNING:
            session.backend.power_off(session.vm)  # it was started with the change a moment ago
        for change in reversed(work.begun):
            current = session.backend.read(session.vm).value(change.setting)
            if current != change.before:
                session.backend.apply(session.vm, Change(change.setting, current, change.before))
        if work.cycle and session.backend.read(session.vm).power is Power.STOPPED:
            session.backend.start(session.vm, timeout=session.timeout)
        if work.goal is not None:
            work.record.end("put-back")
    except (Error, KeyboardInterrupt) as second:
        first, then = (
            (e.message, e.evidence) if isinstance(e, Error) else ("interrupted", "Ctrl-C")
            for e in (failure, second)
        )
        raise Error(
            f"{first[0]}; and it could not be put back: {then[0]}",
            evidence=f"{first[1]}; {then[1]}",
            cure=f"when the hypervisor answers again: nestvirt undo {work.record.id}",
        ) from second


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


def _read(session: Session) -> Facts:
    session.tell(Step.READ, session.vm.name)
    return session.backend.read(session.vm)


def _look_inside(session: Session, facts: Facts, patience: float) -> verify.Probed:
    """Run the probe in the guest; where nobody can get in, say why and prove nothing."""
    name = session.vm.name
    if facts.power is not Power.RUNNING:
        return verify.not_reached(
            f"{name} is {facts.power}, so no code can run in it",
            f"start {name}, then run nestvirt check again",
        )
    channel = session.ssh or session.backend.channel(session.vm)
    if channel is None:
        return verify.not_reached(
            f"{name} has no guest agent that nestvirt could use",
            "give it the QEMU guest agent and its channel, or name a way in: --ssh USER@HOST",
        )
    session.tell(Step.WAIT, f"{name} by {channel.name}")
    try:
        channel.ping(timeout=patience)
    except GuestUnreachable as error:
        return verify.not_reached(f"{error.message}: {error.evidence}", error.cure)
    session.tell(Step.PROBE, f"{name} by {channel.name}")
    return verify.probe_guest(channel, timeout=session.timeout, load_modules=session.load_modules)


def _verified(
    session: Session,
    goal: Goal,
    changes: tuple[Change, ...] = (),
    run: str | None = None,
    remains: tuple[str, ...] = (),
) -> Report:
    probed = _look_inside(session, _read(session), session.timeout)
    facts = _read(session)  # only now: the guest's agent connects while it boots
    findings = tuple(facts.judge(goal))
    inside = probed.findings if goal.nested else _withdrawn(facts, probed)
    proof = probed.proof if goal.nested else None
    return Report(str(session.target), findings + inside, changes, proof, run, remains, goal)


def _withdrawn(facts: Facts, probed: verify.Probed) -> tuple[Finding, ...]:
    """After disable: the guest must lack the CPU flag, and that alone is success."""
    verdict, cause = probed.proof.verdict, probed.proof.cause
    if cause == "no-cpu-flag":
        return (
            Finding("guest-withdrawn", Layer.GUEST, Status.PASS, "the guest's CPU offers no virtualization"),
        )
    if facts.power is not Power.RUNNING:
        why = f"the VM is {facts.power}; it will have no nesting when it starts"
        return (Finding("guest-withdrawn", Layer.GUEST, Status.SKIP, why),)
    if verdict == "unknown" or verdict == "not-proven":
        return tuple(f for f in probed.findings if f.check == PROOF)
    why = f"the probe's verdict in the guest is {verdict} ({cause or 'nested guests run'})"
    return (
        Finding("guest-withdrawn", Layer.GUEST, Status.FAIL, why, "power-cycle the VM, then check again"),
    )


def _depending(session: Session, facts: Facts) -> list[Finding]:
    """Before disable: does anything in the guest depend on nesting at this moment?"""
    probed = _look_inside(session, facts, min(session.timeout, CHECK_PATIENCE))
    users = int(probed.proof.numbers.get("kvm_users", 0))
    if not users:
        return []
    evidence = next((f.evidence for f in probed.findings if f.check == "guest-kvm-users"), f"{users} users")
    cure = "stop the VMs inside the guest first, then run this again"
    return [Finding("guest-kvm-users", Layer.GUEST, Status.FAIL, evidence, cure)]


def _pending(session: Session, facts: Facts) -> tuple[str, ...]:
    if facts.power is not Power.RUNNING:
        return ()
    return (
        f"power-cycle {session.vm.name}: shut it down and start it (a reboot inside the guest is not enough)",
        f"then see it proven: {_check_command(session)}",
    )


def _check_command(session: Session) -> str:
    return f"nestvirt check --{session.target.backend} {session.vm.name}"


def _dry(plan: Plan, facts: Facts) -> tuple[str, ...]:
    cycle = " and power-cycle the VM" if facts.power is Power.RUNNING else ""
    what = "; ".join(f"write {change.setting}" for change in plan.changes) or "change no setting"
    return (f"dry run, nothing was touched. It would {what}{cycle}",)
