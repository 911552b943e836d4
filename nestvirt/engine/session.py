"""What a run works on, and what it tells of itself."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from nestvirt import settings
from nestvirt.backends.base import Backend, Facts, Lingering, moments
from nestvirt.errors import Busy, TargetError
from nestvirt.guest.channel import Channel
from nestvirt.journal import Journal, Run
from nestvirt.model import ColdBoot, Finding, Goal, Plan, Status, Target, Vm
from nestvirt.plan import make_plan


class Step(StrEnum):
    """What the engine is about to do."""

    READ = "reading the configuration"
    LINGER = "waiting for the hypervisor to end"
    STOP = "stopping"
    POWER_OFF = "cutting the power"
    APPLY = "writing"
    LOAD = "loading anew"
    READ_BACK = "reading back"
    START = "starting"
    WAIT = "waiting for the guest"
    PROBE = "running guest code in the guest"
    LOOK = "looking inside the guest"
    PUT_BACK = "putting back"


@dataclass(frozen=True)
class Session:
    """One VM of one connected hypervisor, and how to work with it.

    Attributes:
        spelling: the options that name this VM again on a command line, for the cures.
        beside: further options of this enable, for the cures that name it again.
        ssh: the user's own way into the guest, used instead of the hypervisor's.
        timeout: seconds for each of: the guest's shutdown, its start, and its first answer.
        load_modules: whether the probe may load the guest's kvm module.
        tell: called with each step before it is taken.
    """

    backend: Backend
    target: Target
    vm: Vm
    journal: Journal
    spelling: str
    beside: str = ""
    ssh: Channel | None = None
    timeout: float = 120.0
    load_modules: bool = False
    tell: Callable[[Step, str], None] = field(default=lambda _step, _detail: None)

    @property
    def subject(self) -> str:
        """What is stopped and started, for people."""
        return self.backend.kind.subject.format(self.vm.name)


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


def found_again(backend: Backend, run: Run) -> Vm:
    """The VM of a run, by what stays when it is renamed.

    Raises:
        TargetError: it is not there any more.
    """
    try:
        return backend.find(run.vm.id)
    except TargetError as error:
        where = settings.SETTINGS[run.target.backend][0].name
        raise TargetError(
            f"the {backend.kind.thing} {run.vm.name} of run {run.id} is not to be found",
            evidence=f"{error.message}: {error.evidence}",
            cure=f"{error.cure}; where it was deleted at {run.endpoint.get(where, 'that place')}, there is "
            "nothing left to put back",
        ) from error


def read(session: Session) -> Facts:
    """Read the VM's facts anew."""
    session.tell(Step.READ, session.vm.name)
    return session.backend.read(session.vm)


def read_when_quiet(session: Session) -> Facts:
    """The same, when the hypervisor has ended what a dead process left it with: that could still land.

    Raises:
        Busy: it has not in time.
    """
    backend, told = session.backend, ""
    if isinstance(backend, Lingering):
        for _ in moments(time.monotonic() + session.timeout):
            now = backend.at_work(session.vm)
            if not now:
                break
            if now != told:
                session.tell(Step.LINGER, now)
            told = now
        else:
            raise Busy(
                f"the hypervisor is at work on {session.vm.name}, and has not ended within "
                f"{session.timeout:.0f} s",
                evidence=told,
                cure="wait for its end, or cancel it with the hypervisor's own tools; then run this again, "
                "also with more --timeout",
            )
    return read(session)


def judged(session: Session, facts: Facts, goal: Goal) -> list[Finding]:
    """What the facts say; the cure of what nestvirt can mend is to let it, and below a VM is its host."""
    command = f"nestvirt {'enable' if goal.nested else 'disable'} {session.spelling}"
    command += f" {session.beside}" if session.beside else ""
    command += f" --cpu {shlex.quote(goal.cpu)}" if goal.cpu else ""
    command += f" --upgrade-hardware {shlex.quote(goal.upgrade)}" if goal.upgrade else ""
    command += " --discard-saved-state" if goal.discard_saved_state else ""
    command += " --mac-spoofing" if goal.mac_spoofing else ""
    command += " --upgrade-version" if goal.upgrade_version else ""
    findings = to_host(session, facts.judge(goal))
    blockers = dict.fromkeys(f.check for f in make_plan(findings).blockers)
    # That command is refused until then.
    cure = f"first mend {', '.join(blockers)}; then: {command}" if blockers else command
    by_hand = (None, ColdBoot()) if facts.busy else (None,)
    return [f if f.fix in by_hand else replace(f, cure=cure) for f in findings]


def to_host(session: Session, findings: Sequence[Finding]) -> list[Finding]:
    """Where a VM's host does not let it nest, the cure is to change the host, too."""
    if not session.backend.kind.has_guest or "with_host" in session.backend.endpoint:
        return list(findings)
    cure = f"nestvirt enable {session.spelling} --with-host; or on the host itself: nestvirt enable --host"
    return [
        replace(f, cure=cure) if f.check == "host-nested" and f.status is Status.FAIL else f for f in findings
    ]
