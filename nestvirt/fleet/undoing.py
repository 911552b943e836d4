"""A run over many, taken back: which of the journal's runs are its own, and how each VM's are undone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nestvirt import engine
from nestvirt.engine import Manner, Session
from nestvirt.engine.session import found_again
from nestvirt.errors import ChangeRejected, Error, JournalError
from nestvirt.fleet.doing import Changing, agreeing
from nestvirt.fleet.endpoints import Endpoints, Place, address_of
from nestvirt.fleet.recorded import DETAILS, Recorded
from nestvirt.fleet.running import Tell
from nestvirt.fleet.selection import Member
from nestvirt.journal import Run
from nestvirt.model import Report, Target

NOTHING = "nothing to put back"


def own_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """A name of the run over many to its runs in the journal, in the order in which they are undone.

    That is the newest first; those that have changed nothing may still owe a VM its start, and come last, so
    that it is started without the change.

    Args:
        runs: all of that run, newest first.
    """
    by_vm: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        by_vm.setdefault(_vm_of(run), []).append(run)
    named: dict[str, list[Run]] = {}
    for own in by_vm.values():
        name = str(own[0].target)
        name = f"{name} ({own[0].vm.id})" if name in named else name
        named[name] = sorted(own, key=lambda run: not run.steps)
    return named


def _vm_of(run: Run) -> tuple[str, str, str]:
    backend = run.target.backend
    return (run.vm.hypervisor or backend, run.vm.id, address_of(backend, run.endpoint))


def further_names(recorded: Recorded, own: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """Names of a VM that was changed by another one of its names: to that one."""
    changed = {_vm_of(runs[0]): name for name, runs in own.items()}
    backends = {str(what): what.backend for what in recorded.names if isinstance(what, Target)}
    further: dict[str, str] = {}
    for name, known in recorded.known.items():
        if name in backends and name not in own:
            vm = (backends[name], known.vm, address_of(backends[name], known.endpoint))
            further |= {name: changed[vm]} if vm in changed else {}
    return further


def members_of(
    recorded: Recorded,
    own: Mapping[str, Sequence[Run]],
    known: Mapping[str, JournalError | None],
    endpoints: Endpoints,
) -> list[Member]:
    """Those of the run that is taken back, each at the hypervisor where it was changed.

    Args:
        own: its runs, by name.
        known: the ids of all of it that the journal has; and why one cannot be read.
    """
    names = dict.fromkeys((*map(str, recorded.names), *own))
    return [_member(recorded, name, own.get(name, ()), known, endpoints) for name in names]


def _member(
    recorded: Recorded,
    name: str,
    own: Sequence[Run],
    known: Mapping[str, JournalError | None],
    endpoints: Endpoints,
) -> Member:
    ssh, config, node = (recorded.details.get(name, {}).get(key) for key in DETAILS)
    member = Member(name, ssh=ssh, ssh_config=config, node=node)
    gone = [run for run in recorded.runs.get(name, ()) if run not in known]
    ill = [error for error in (known[run.id] for run in own) if error is not None]
    due = _due(own)
    try:
        if ill:
            raise ill[0]
        if gone:
            raise JournalError(
                f"the record of run {gone[0]} is gone, and with it what was there before",
                evidence=f"the run over many, {recorded.id}, has changed {name} in it",
                cure="take nesting away with nestvirt disable, or set it by hand",
            )
        if not due:
            return member
        place = Place.of(due[0].target, due[0].endpoint)
        return replace(member, target=due[0].target, endpoint=endpoints.at(place))
    except Error as error:
        return replace(member, error=error)


def _due(own: Sequence[Run]) -> list[Run]:
    """Those to be undone; one that died before it had changed anything is to be closed, too."""
    return [run for run in own if run.undoable or run.outcome is None]


@dataclass(frozen=True)
class Undoing(Changing):
    """undo, of each VM's runs.

    Attributes:
        own: the runs, by the member's written name.
        further: names of a VM whose runs another of its names has: to that one.
        closes: whether a run of which nothing is to be put back is marked as undone at once.
        shown: the plan for each of a member's runs.
    """

    own: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    further: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False
    shown: dict[str, list[Report]] = field(default_factory=dict)

    def plan(self, member: Member, tell: Tell) -> Report:
        """What would be done. Who has nothing to be put back is not even connected to."""
        own = self.own.get(member.written, ())
        for run in own:
            _refuse_continued(run, self.doing.journal.heir(run))
        if _due(own):
            return super().plan(member, tell)
        if own:
            self.doing.vms.setdefault(member.written, own[0].vm)
            self.node_names[member.written] = member.node or own[0].vm.name
        undone = ", ".join(run.id for run in own if run.outcome == "undone")
        said = f"run {undone} is undone already" if undone else "no change of it is left"
        if member.written in self.further:
            said = f"it is the same VM as {self.further[member.written]}"
        newest = own[0].id if own else None
        return Report(member.written, (), run=newest, goal=None, summary=f"{NOTHING}: {said}")

    def _session(self, member: Member, tell: Tell) -> Session:
        if member.endpoint is not None and member.written not in self.doing.vms:
            vm = found_again(member.endpoint.connected(), _due(self.own[member.written])[0])
            member = replace(member, vm=vm)
        return super()._session(member, tell)

    def _engine(self, member: Member, session: Session, manner: Manner) -> Report:
        due = _due(self.own[member.written])
        if not manner.dry_run:
            return _together(_undone(session, due, manner, self.shown[member.written]))
        shown: list[Report] = []
        for run in due:
            untouched = not any(_does_something(report) for report in shown)
            shown.append(engine.undo(session, run, manner) if untouched else _after(shown, session, run))
            if shown[-1].blockers:
                return shown[-1]
        self.shown[member.written] = shown
        if any(map(_does_something, shown)):
            return _together(shown)
        if self.closes:
            shown = _undone(session, due, replace(manner, dry_run=False), shown)
        said = f"{NOTHING}: it is as it was before"
        return replace(_together(shown), planned=False, remains=(), summary=said)


def _refuse_continued(run: Run, heir: Run) -> None:
    """What died may have been gone on with by a run of its own, which has its change since."""
    if heir.fleet != run.fleet and heir.undoable:
        raise ChangeRejected(
            f"run {heir.id} has gone on with what run {run.id} had begun, and has its change",
            evidence=f"that is {heir.command} of {heir.target}, which is {heir.state}; nothing was touched",
            cure=f"take that back first: nestvirt undo {heir.fleet or heir.id}",
        )


def _does_something(planned: Report) -> bool:
    return bool(planned.changes) or planned.cycled


def _undone(session: Session, due: Sequence[Run], manner: Manner, shown: Sequence[Report]) -> list[Report]:
    """Undo one after the other, each as it was shown, up to the first that cannot be."""
    done: list[Report] = []
    for run, plan in zip(due, shown, strict=True):
        ids = ", ".join(report.run for report in done if report.run and report.changes)
        consent = agreeing(plan, f"run {ids} is undone") if ids else agreeing(plan)
        try:
            done.append(engine.undo(session, run, replace(manner, consent=consent)))
        except Error as error:
            error.changed |= any(report.changes for report in done)
            raise
        if done[-1].blockers:
            break
    return done


def _after(shown: Sequence[Report], session: Session, run: Run) -> Report:
    """What undoing a run comes to when those that came after it are undone."""
    before = next(report for report in reversed(shown) if _does_something(report))
    facts = session.backend.read(session.vm)
    values = {change.setting: change.after for report in shown for change in report.changes}
    changes = engine.undoing(run, lambda name: values[name] if name in values else facts.value(name))
    old, new = (" and ".join(change.deed for change in of) for of in (before.changes, changes))
    would = tuple(line.replace(old, new, 1) for line in before.remains) if old and new else ()
    cycled = before.cycled and bool(changes)
    return replace(before, changes=changes, run=run.id, remains=would, cycled=cycled)


def _together(reports: Sequence[Report]) -> Report:
    """What came of several runs of one VM."""
    if len(reports) == 1:
        return reports[0]
    ids = ", ".join(report.run for report in reports if report.run)
    return replace(
        reports[0],
        findings=tuple(dict.fromkeys(finding for report in reports for finding in report.findings)),
        changes=tuple(change for report in reports for change in report.changes),
        remains=tuple(line for report in reports for line in report.remains),
        blockers=reports[-1].blockers,
        cycled=any(report.cycled for report in reports),
        summary=f"runs {ids} are undone",
    )
