"""What is done with one target of many: the engine's own check and reach, over a shared connection."""

from __future__ import annotations

import contextlib
import math
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nestvirt import engine
from nestvirt.backends.base import Foresighted
from nestvirt.engine import Manner, Session, Step
from nestvirt.errors import ChangeRejected, Error, JournalError, PowerError, TargetError
from nestvirt.fleet.endpoints import Endpoint, address_of
from nestvirt.fleet.nodes import Nodes, State
from nestvirt.fleet.running import Tell
from nestvirt.fleet.selection import Member
from nestvirt.guest.ssh import SshChannel
from nestvirt.journal import Journal
from nestvirt.model import Ending, Finding, Goal, Plan, Power, Report, Row, Target, Vm

PAGE = 250
"""So many VMs are read at once, where a backend can."""
AGE = 10.0
"""Seconds after which what was read ahead is read anew: a VM may have been changed, or started, meanwhile."""


@dataclass
class Foresight:
    """Reads members ahead, page by page, where their backend can read many at once."""

    members: Sequence[Member]
    _read: dict[int, float] = field(default_factory=dict)  # when
    _begun: set[int] = field(default_factory=set)
    _locks: dict[int, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, member: Member) -> None:
        """Have this one read with those that follow it."""
        endpoint = member.endpoint
        if endpoint is None or member.vm is None:
            return
        with self._lock:
            own = self._locks.setdefault(id(endpoint), threading.Lock())
        with own:
            backend = endpoint.connected()
            if not self._fresh(member) and isinstance(backend, Foresighted):
                page = self._page(endpoint, member)
                backend.foresee([m.vm for m in page if m.vm is not None])
                self._read.update(dict.fromkeys(map(id, page), time.monotonic()))
            self._begun.add(id(member))

    def _fresh(self, member: Member) -> bool:
        return time.monotonic() - self._read.get(id(member), -math.inf) < AGE

    def _page(self, endpoint: Endpoint, first: Member) -> list[Member]:
        page = [first]
        for member in self.members:
            if len(page) >= PAGE:
                break
            own = member.endpoint is endpoint and member.vm is not None and member is not first
            if own and id(member) not in self._begun and not self._fresh(member):
                page.append(member)
        return page


@dataclass(frozen=True)
class Doing:
    """How each target of a run is worked on.

    Attributes:
        timeout: seconds for each wait, as of a session.
        proven: told of each report, for those who keep proofs.
        ssh_config: for members that have no other.
        spelling: what names a target again on the command line, for the cures.
        said: every finding of the run, once.
    """

    journal: Journal
    foresight: Foresight
    timeout: float = 120.0
    load_modules: bool = False
    ssh_config: str | None = None
    spelling: Callable[[Target], str] = field(default=lambda target: shlex.quote(str(target)))
    said: dict[Finding, Finding] = field(default_factory=dict)
    proven: Callable[[str, Vm, Report], None] = field(default=lambda _backend, _vm, _report: None)

    def session(self, member: Member, tell: Tell) -> Session:
        """A member's session; its connection is the endpoint's.

        Raises:
            ChangeRejected: the run that is gone on with had another VM, or another hypervisor.
            Error: no connection, or no such VM.
        """
        target, endpoint = member.target, member.endpoint
        if target is None or endpoint is None:
            raise member.error or TargetError(f"{member.written} is no VM")
        backend = endpoint.connected()
        _refuse_elsewhere(member, target, backend.endpoint, None)
        vm = member.vm or backend.find(target.name)
        _refuse_elsewhere(member, target, backend.endpoint, vm.id)
        config = member.ssh_config or self.ssh_config
        ssh = SshChannel(member.ssh, ("-F", config) if config else ()) if member.ssh else None
        return Session(
            backend=backend,
            target=target,
            vm=vm,
            journal=self.journal,
            spelling=self.spelling(target),
            ssh=ssh,
            timeout=self.timeout,
            load_modules=self.load_modules,
            tell=tell,
        )

    def check(self, member: Member, tell: Tell) -> Report:
        """See engine.check."""
        self.foresight.before(member)
        session = self.session(member, tell)
        return self._kept(session, engine.check(session, Goal()))

    def _kept(self, session: Session, report: Report) -> Report:
        """The report, with what it says like others in one piece of memory: of ten thousand, that is most."""
        self.proven(session.target.backend, session.vm, report)
        if isinstance(session.backend, Foresighted):
            session.backend.forget(session.vm)
        findings = tuple(self.said.setdefault(finding, finding) for finding in report.findings)
        return replace(report, findings=findings)


@dataclass(frozen=True)
class Changing:
    """First a plan for each, then, when all plans are agreed to, each is carried out.

    Attributes:
        manner: without its consent, which is asked for all at once.
        plans: what was agreed to, by the member's written name.
        nodes: the cluster whose nodes the VMs are; None where they are none.
        left_off: those that were changed and not started.
        node_names: what each is called as a node, since it was planned.
        vms: what each name means, since it was planned.
        down: those that a run has shut down, this one or one before it, and that are off still.
    """

    doing: Doing
    manner: Manner
    plans: Mapping[str, Report] = field(default_factory=dict)
    nodes: Nodes | None = None
    left_off: set[str] = field(default_factory=set)
    node_names: dict[str, str] = field(default_factory=dict)
    vms: dict[str, Vm] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)

    def failed(self, row: Row) -> bool:
        """Whether it is not as it was to be; who is off, and stays so, has nothing to prove."""
        return row.ending is Ending.FAIL or (row.ending is Ending.UNKNOWN and row.target not in self.left_off)

    def plan(self, member: Member, tell: Tell) -> Report:
        """What would be done. Where nothing is to be done, it is verified at once."""
        self.doing.foresight.before(member)
        session = self._session(member, tell)
        self.vms[member.written] = session.vm
        if _owes_power(session) and session.backend.read(session.vm).power is not Power.RUNNING:
            self.down.add(member.written)
        self.node_names[member.written] = member.node or session.vm.name
        report = self._engine(member, session, replace(self.manner, dry_run=True))
        if report.planned:
            report = replace(report, remains=(*report.remains, *self._besides(member, session, report)))
        return self.doing._kept(session, report)

    def _session(self, member: Member, tell: Tell) -> Session:
        return self.doing.session(member, tell)

    def _engine(self, member: Member, session: Session, manner: Manner) -> Report:
        """What the engine does; in a dry run, what it would do."""
        raise NotImplementedError

    def _besides(self, member: Member, session: Session, plan: Report) -> list[str]:
        """What else is done for a plan, to be agreed to as well."""
        lines: list[str] = []
        if plan.cycled and self.manner.force_off:
            lines.append(f"it would cut the power after {self.doing.timeout:.0f} s, if it does not shut down")
        if self.nodes is not None:
            node = self.node_names[member.written]
            state = self.nodes.state(node)
            if plan.cycled:
                self._refuse_unready(session, node, state)
                lines += [self.nodes.would(node)] if state.ready else []
        return lines

    def _refuse_unready(self, session: Session, node: str, state: State) -> None:
        """A VM that runs is not shut down under a node that cannot be drained; one that is off may start."""
        if not state.ready and session.backend.read(session.vm).power is Power.RUNNING:
            raise ChangeRejected(
                f"the node {node} is not Ready, so it cannot be drained",
                evidence=f"{session.vm.name} runs, and its node is not Ready; nothing was touched",
                cure=f"see why: kubectl describe node {node}; or do this one without --drain-nodes",
            )

    def carry_out(self, member: Member, tell: Tell) -> Report:
        """Do what was agreed to, and nothing else."""
        started: list[Step] = []

        def telling(step: Step, detail: str) -> None:
            if step is Step.START:
                started.append(step)
            tell(step, detail)

        session = self._session(member, telling)
        manner = replace(self.manner, consent=agreeing(self.plans[member.written]), dry_run=False)
        with self._knowing_power(member, session):
            if self.nodes is None or not self.plans[member.written].cycled:  # it is not away
                report = self._engine(member, session, manner)
            else:
                report = self._while_away(self.nodes, member, session, manner, started)
        if not started:
            self.left_off.add(member.written)
        return self.doing._kept(session, report)

    @contextlib.contextmanager
    def _knowing_power(self, member: Member, session: Session) -> Iterator[None]:
        """Know afterwards, whatever came of it, whether it was given its power back."""
        try:
            yield
        finally:
            with contextlib.suppress(JournalError):
                note = self.down.add if _owes_power(session) else self.down.discard
                note(member.written)

    def _while_away(
        self, nodes: Nodes, member: Member, session: Session, manner: Manner, started: list[Step]
    ) -> Report:
        """Do it while the VM's node is cordoned and drained; and have it Ready again before the next one."""
        node = self.node_names[member.written]
        nodes.refuse_while_lost()
        state = nodes.now(node)
        self._refuse_unready(session, node, state)
        again = state.ready or node in nodes.left
        with nodes.away(node, lambda what: session.tell(Step.STOP, what)):
            try:
                report = self._engine(member, session, manner)
            except Error:
                with contextlib.suppress(PowerError):  # what went wrong before is what the user has to know
                    if again and started:
                        nodes.wait_ready(node)
                raise
            if again and started:
                nodes.wait_ready(node)
        return report

    def found(self, members: Sequence[Member]) -> list[Member]:
        """The members, each with its VM where that is known by now."""
        return [replace(member, vm=member.vm or self.vms.get(member.written)) for member in members]

    def turn(self, member: Member) -> tuple[bool, bool]:
        """What orders them: those that are down come first, so that they are up before others go down."""
        return member.written not in self.down, self.comes_last(member)

    def comes_last(self, member: Member) -> bool:
        """A node of the control plane is worked on after all others."""
        return self.nodes is not None and self.nodes.state(self.node_names[member.written]).control_plane


@dataclass(frozen=True)
class Reaching(Changing):
    """enable, or disable."""

    goal: Goal = field(default_factory=Goal)

    def _engine(self, member: Member, session: Session, manner: Manner) -> Report:
        return engine.reach(session, self.goal, manner)


def agreeing(shown: Report) -> Callable[[Plan], None]:
    """A consent to what was shown, and to nothing else."""

    def consent(plan: Plan) -> None:
        new = [warning for warning in plan.warnings if warning not in shown.findings]
        if plan.changes != shown.changes or not set(plan.would) <= set(shown.remains) or new:
            would = [line.partition("; it ")[2] for line in plan.would]
            minded = [f"mind {warning.check}: {warning.evidence}" for warning in new]
            raise ChangeRejected(
                "what has to be done is not any more what was agreed to",
                evidence=f"it {'; '.join((*would, *minded))}",
                cure="nothing was touched; run this again to see the new plan",
            )

    return consent


def _owes_power(session: Session) -> bool:
    """Whether a run on this VM, this one or one that died, has not ended, and found it running."""
    run = session.journal.unfinished(session.target.backend, session.vm)
    return run is not None and run.power is Power.RUNNING


def _refuse_elsewhere(member: Member, target: Target, kept: Mapping[str, str], vm: str | None) -> None:
    """What is gone on with has to be the very VM; where ``vm`` is None, only its hypervisor is compared."""
    known = member.known
    if known is None:
        return
    was, here = address_of(target.backend, known.endpoint), address_of(target.backend, kept)
    other_place = bool(was and here) and was != here
    if other_place or (vm is not None and known.vm and vm != known.vm):
        then = f"{known.vm or target.name} at {was or target}"
        raise ChangeRejected(
            f"{target} is not the one of the run that is gone on with",
            evidence=f"the run had {then}; here it is {vm or target.name} at {here or target}",
            cure="go on with it where it was begun, with the same hypervisor; to have this one changed, too, "
            "begin a new run. Nothing was touched",
        )
