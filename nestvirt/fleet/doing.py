"""What is done with one target of many: the engine's own check and reach, over a shared connection."""

from __future__ import annotations

import contextlib
import math
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from nestvirt import engine
from nestvirt.backends.base import Backend, Foresighted
from nestvirt.engine import Manner, Session, Step
from nestvirt.errors import ChangeRejected, ConnectionFailed, JournalError, TargetError
from nestvirt.fleet.draining import runs, state_for, while_away
from nestvirt.fleet.endpoints import Endpoint, address_of
from nestvirt.fleet.nodes import Nodes
from nestvirt.fleet.running import Tell
from nestvirt.fleet.selection import Known, Member
from nestvirt.guest.ssh import SshChannel
from nestvirt.journal import Journal, identity
from nestvirt.model import Ending, Finding, Goal, Plan, Power, Report, Row, Target, Vm
from nestvirt.plan import make_plan

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
        vms: what each name means, since it was looked for.
    """

    journal: Journal
    foresight: Foresight
    timeout: float = 120.0
    load_modules: bool = False
    ssh_config: str | None = None
    spelling: Callable[[Target], str] = field(default=lambda target: shlex.quote(str(target)))
    said: dict[Finding, Finding] = field(default_factory=dict)
    proven: Callable[[str, Vm, Report], None] = field(default=lambda _backend, _vm, _report: None)
    vms: dict[str, Vm] = field(default_factory=dict)

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
        vm = member.vm or self.vms.get(member.written) or _find(backend, target, member.known)
        self.vms[member.written] = vm  # who was planned is who is changed, whatever the name means by then
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
        up: those whose VM was seen to run.
        down: those that a run has shut down, this one or one before it, and that are off still.
        locks: of each VM that is worked on, by its identity.
    """

    doing: Doing
    manner: Manner
    plans: Mapping[str, Report] = field(default_factory=dict)
    nodes: Nodes | None = None
    left_off: set[str] = field(default_factory=set)
    node_names: dict[str, str] = field(default_factory=dict)
    up: set[str] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    locks: dict[str, threading.Lock] = field(default_factory=dict)

    def failed(self, row: Row) -> bool:
        """Whether it is not as it was to be; who is off, or is not to be restarted, has nothing to prove."""
        if isinstance(row.outcome, Report) and not self.manner.restart:
            return bool(row.outcome.blockers)
        return row.ending is Ending.FAIL or (row.ending is Ending.UNKNOWN and row.target not in self.left_off)

    def plan(self, member: Member, tell: Tell) -> Report:
        """What would be done. Where nothing is to be done, it is verified at once."""
        self.doing.foresight.before(member)
        session = self._session(member, tell)
        if _owes_power(session) and session.backend.read(session.vm).power is not Power.RUNNING:
            self.down.add(member.written)
        self.node_names[member.written] = node = member.node or session.vm.name
        if self.nodes is not None and runs(session):
            self.up.add(member.written)
            self.nodes.of_run.add(node)
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
            state = state_for(self.nodes, node, session) if plan.cycled else self.nodes.cluster.state(node)
            if plan.cycled and state is not None and runs(session):
                lines.append(self.nodes.would(node))
        return lines

    def carry_out(self, member: Member, tell: Tell) -> Report:
        """Do what was agreed to, and nothing else."""
        seen: set[Step] = set()

        def telling(step: Step, detail: str) -> None:
            seen.add(step)
            tell(step, detail)

        session = self._session(member, telling)
        manner = replace(self.manner, consent=agreeing(self.plans[member.written]), dry_run=False)

        def change() -> Report:
            return self.doing._kept(session, self._engine(member, session, manner))

        with self._node_due(member), self._alone(session), self._knowing_power(member, session):
            if self.nodes is None or not self.plans[member.written].cycled:  # it is not away
                report = change()
            else:
                node = self.node_names[member.written]
                ahead = partial(self._ahead, member, session, manner)
                report = while_away(self.nodes, node, session, ahead, change, seen, tell)
        if Step.START not in seen:
            self.left_off.add(member.written)
        return report

    def _ahead(self, member: Member, session: Session, manner: Manner) -> Report:
        """What would be done by now; refused where that is not what was agreed to."""
        plan = self._engine(member, session, replace(manner, dry_run=True))
        if not plan.planned:
            return self.doing._kept(session, plan)
        manner.consent(replace(make_plan(plan.findings), changes=plan.changes, would=plan.remains))
        return plan

    def _alone(self, session: Session) -> threading.Lock:
        """Two profiles may lead to one VM: one of its names waits for the other, and finds it done."""
        return self.locks.setdefault(identity(session.target.backend, session.vm), threading.Lock())

    @contextlib.contextmanager
    def _knowing_power(self, member: Member, session: Session) -> Iterator[None]:
        """Know afterwards, whatever came of it, whether it was given its power back."""
        try:
            yield
        finally:
            with contextlib.suppress(JournalError):
                note = self.down.add if _owes_power(session) else self.down.discard
                note(member.written)

    @contextlib.contextmanager
    def _node_due(self, member: Member) -> Iterator[None]:
        """Whatever came of it: from then on its node has to be Ready before another one is drained."""
        try:
            yield
        finally:
            if self.nodes is not None:
                self.nodes.due.discard(self.node_names[member.written])

    def with_nodes(self, members: Sequence[Member], rows: Mapping[str, Row]) -> list[Member]:
        """Those whose VM runs, or is to be power-cycled: it may be away as a node, or is to be Ready."""
        plans = {name: row.outcome for name, row in rows.items()}
        cycled = {name for name, plan in plans.items() if isinstance(plan, Report) and plan.cycled}
        return self.found([member for member in members if member.written in self.up | cycled])

    def found(self, members: Sequence[Member]) -> list[Member]:
        """The members, each with its VM where that is known by now."""
        return [replace(member, vm=member.vm or self.doing.vms.get(member.written)) for member in members]

    def same(self, members: Sequence[Member]) -> dict[str, str]:
        """Names of a VM that one before them names, too, which only its hypervisor knew: to that one."""
        first: dict[tuple[str, str], str] = {}
        others: dict[str, str] = {}
        for member in members:
            vm, target, endpoint = self.doing.vms.get(member.written), member.target, member.endpoint
            if vm is not None and target is not None and endpoint is not None:
                there = address_of(target.backend, endpoint.kept)
                known = first.setdefault((identity(target.backend, vm), there), member.written)
                others |= {member.written: known} if known != member.written else {}
        return others

    def turn(self, member: Member) -> tuple[bool, bool, bool]:
        """What orders them: those that are down come first, so that they are up before others go down."""
        return member.written not in self.down, not self.comes_first(member), self.comes_last(member)

    def comes_first(self, member: Member) -> bool:
        """It is off, or a run has died when its node was about to go down."""
        lost = self.nodes is not None and self.node_names.get(member.written) in self.nodes.lost
        return lost or member.written in self.down

    def comes_last(self, member: Member) -> bool:
        """A node of the control plane is worked on after all others."""
        if self.nodes is None:
            return False
        try:
            return self.nodes.cluster.state(self.node_names[member.written]).control_plane
        except ConnectionFailed:
            return False  # it is started only


@dataclass(frozen=True)
class Reaching(Changing):
    """enable, or disable."""

    goal: Goal = field(default_factory=Goal)

    def _engine(self, member: Member, session: Session, manner: Manner) -> Report:
        return engine.reach(session, self.goal, manner)


def agreeing(shown: Report, so_far: str = "the VM was not touched") -> Callable[[Plan], None]:
    """A consent to what was shown, and to nothing else.

    Args:
        so_far: what is to be known of the VM where it is refused.
    """

    def consent(plan: Plan) -> None:
        new = [warning for warning in plan.warnings if warning not in shown.findings]
        if plan.changes != shown.changes or not set(plan.would) <= set(shown.remains) or new:
            would = [line.partition("; it ")[2] for line in plan.would]
            minded = [f"mind {warning.check}: {warning.evidence}" for warning in new]
            raise ChangeRejected(
                "what has to be done is not any more what was agreed to",
                evidence=f"it {'; '.join((*would, *minded))}",
                cure=f"{so_far}; run this again to see the new plan",
            )

    return consent


def _owes_power(session: Session) -> bool:
    """Whether a run on this VM, this one or one that died, has not ended, and found it running."""
    run = session.journal.unfinished(session.target.backend, session.vm)
    return run is not None and run.power is Power.RUNNING


def _find(backend: Backend, target: Target, known: Known | None) -> Vm:
    """The VM of that name; where a run is gone on with, the one that it had, also where that was renamed."""
    if known is not None and known.vm:
        with contextlib.suppress(TargetError):
            vm = backend.find(target.name)
            if vm.id == known.vm:
                return vm
        with contextlib.suppress(TargetError):
            return backend.find(known.vm)
    return backend.find(target.name)


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
