"""Look inside the guest, and say what that proves."""

from __future__ import annotations

from dataclasses import replace

from nestvirt.backends.base import Facts
from nestvirt.engine.session import Session, Step, judged, read, to_host
from nestvirt.errors import GuestUnreachable
from nestvirt.guest import verify, windows
from nestvirt.guest.channel import Examiner
from nestvirt.model import PROOF, Change, Finding, Goal, Layer, Power, Report, Status

CHECK_PATIENCE = 15.0
"""Seconds that a mere check waits for a running guest to answer."""


def look_inside(session: Session, power: Power, patience: float) -> verify.Probed:
    """Run the probe in the guest, or let it tell of itself; where nobody can get in, say why."""
    name = session.vm.name
    if not session.backend.kind.has_guest:
        return verify.NO_GUEST
    if power is not Power.RUNNING:
        do = "resume" if power is Power.SUSPENDED else "start"
        why = f"{name} is {power}, so no code can run in it"
        return verify.not_reached(why, f"{do} it, and then: nestvirt check {session.spelling}")
    channel = session.ssh or session.backend.channel(session.vm)
    if channel is None:
        return verify.not_reached(
            f"there is no way into {name} that nestvirt could use",
            "see vm-agent; or name a way in: --ssh USER@HOST",
        )
    session.tell(Step.WAIT, f"{name} by {channel.name}")
    try:
        channel.ping(timeout=patience)
    except GuestUnreachable as error:
        return verify.not_reached(f"{error.message}: {error.evidence}", error.cure)
    if isinstance(channel, Examiner):
        session.tell(Step.LOOK, f"{name} by {channel.name}")
        return windows.look_inside(channel, timeout=session.timeout)
    session.tell(Step.PROBE, f"{name} by {channel.name}")
    return verify.probe_guest(channel, timeout=session.timeout, load_modules=session.load_modules)


def believed(findings: list[Finding], probed: verify.Probed) -> list[Finding]:
    """What ran is believed over what a definition says: beside a proof, that is but a warning."""
    if not _proven(probed):
        return findings
    return [
        replace(
            f, status=Status.WARN, evidence=f"{f.evidence}; it works all the same, until it is power-cycled"
        )
        if f.status is Status.FAIL and isinstance(f.fix, Change)
        else f
        for f in findings
    ]


def deduced(session: Session, findings: list[Finding], probed: verify.Probed) -> list[Finding]:
    """Where the VM's CPU is right and the guest sees no flag, what could not be read of the host is it."""
    broken = [f for f in findings if f.status is Status.FAIL or (f.check == "vm-cpu" and f.ill)]
    if probed.proof.cause != "no-cpu-flag" or broken:
        return findings
    seen = "; but the VM has the CPU, and its guest sees no flag: the host does not let it nest"
    told = [
        replace(f, status=Status.FAIL, evidence=f.evidence + seen)
        if f.check == "host-nested" and f.status is Status.UNKNOWN
        else f
        for f in findings
    ]
    return to_host(session, told)


def believing(session: Session, facts: Facts, findings: list[Finding], goal: Goal) -> list[Finding]:
    """Before a change that may not be needed (a warning with a fix), look whether nesting works already."""
    uncertain = [f for f in findings if f.status is Status.WARN and isinstance(f.fix, Change)]
    if not uncertain or not goal.nested or goal.cpu is not None or facts.power is not Power.RUNNING:
        return findings
    if not _proven(look_inside(session, facts.power, min(session.timeout, CHECK_PATIENCE))):
        return findings
    return [replace(f, fix=None, cure="none: guest code runs") if f in uncertain else f for f in findings]


def _proven(probed: verify.Probed) -> bool:
    return probed.proof.verdict == "works"


def verified(
    session: Session,
    goal: Goal,
    power: Power,
    changes: tuple[Change, ...] = (),
    run: str | None = None,
    remains: tuple[str, ...] = (),
    facts: Facts | None = None,
) -> Report:
    """Judge anew and look inside: what a run that is done, or had nothing to do, reports.

    Args:
        power: the VM's power state, as the run has left it.
        facts: those of a moment ago, where nothing was done since.
    """
    probed = look_inside(session, power, session.timeout)
    if facts is None or probed.proof.channel != verify.NOBODY:
        facts = read(session)  # only now: the guest's agent connects while it boots
    told = judged(session, facts, goal)
    findings = tuple(deduced(session, told, probed) if goal.nested else told)
    inside = probed.findings
    if not goal.nested and probed is not verify.NO_GUEST:
        inside = _withdrawn(facts, probed, certain=not any(f.check == "vm-cpu" and f.ill for f in told))
    proof = probed.proof if goal.nested and probed is not verify.NO_GUEST else None
    return Report(str(session.target), findings + inside, changes, proof, run, remains, goal)


def _withdrawn(facts: Facts, probed: verify.Probed, *, certain: bool) -> tuple[Finding, ...]:
    """After disable: the guest must lack the CPU flag, and that alone is success.

    Args:
        certain: whether the VM's CPU is known to have none.
    """
    verdict, cause = probed.proof.verdict, probed.proof.cause
    if cause == "no-cpu-flag":
        return (
            Finding("guest-withdrawn", Layer.GUEST, Status.PASS, "the guest's CPU offers no virtualization"),
        )
    if facts.power is not Power.RUNNING:
        coming = "it will have no nesting when it starts" if certain else "what it will have is not known"
        why = f"the VM is {facts.power}; {coming}"
        return (Finding("guest-withdrawn", Layer.GUEST, Status.SKIP, why),)
    if verdict == "unknown" or verdict == "not-proven":
        return tuple(f for f in probed.findings if f.check == PROOF)
    why = f"the probe's verdict in the guest is {verdict} ({cause or 'nested guests run'})"
    return (
        Finding("guest-withdrawn", Layer.GUEST, Status.FAIL, why, "power-cycle the VM, then check again"),
    )


def depending(session: Session, facts: Facts) -> list[Finding]:
    """Before disable: does anything in the guest depend on nesting at this moment?"""
    probed = look_inside(session, facts.power, min(session.timeout, CHECK_PATIENCE))
    users = int(probed.proof.numbers.get("kvm_users", 0))
    if not users:
        return []
    evidence = next((f.evidence for f in probed.findings if f.check == "guest-kvm-users"), f"{users} users")
    cure = "stop the VMs inside the guest first, then run this again"
    return [Finding("guest-kvm-users", Layer.GUEST, Status.FAIL, evidence, cure)]
