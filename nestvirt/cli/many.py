"""check, enable and disable of many VMs: which they are, how a run over them goes, and what came of it.

See undo_many.py for what takes it back."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from nestvirt import settings
from nestvirt.cli import fleet_plan
from nestvirt.cli.fleet_options import NEWEST, PARALLEL
from nestvirt.cli.fleet_progress import Screen
from nestvirt.cli.options import ENDPOINT
from nestvirt.cli.output import STOPPED, JsonLines, Progress, finish_fleet, leave, leaving_at_once
from nestvirt.cli.session import Chosen, settings_for
from nestvirt.engine import Manner
from nestvirt.errors import Error, TargetError
from nestvirt.fleet import targetsfile
from nestvirt.fleet.doing import Changing, Doing, Foresight, Reaching
from nestvirt.fleet.endpoints import Endpoints, Place
from nestvirt.fleet.leftovers import Leftovers
from nestvirt.fleet.nodes import Nodes
from nestvirt.fleet.proofs import Proofs
from nestvirt.fleet.record import FleetRecord, FleetRuns
from nestvirt.fleet.recorded import UNDOES, Recorded
from nestvirt.fleet.running import Pace, Runner, Stop, Tell, Work
from nestvirt.fleet.selection import Member, Selection
from nestvirt.journal import Journal
from nestvirt.model import Ending, Fleet, Goal, Plan, Report, Row, Target

KEPT = (
    *(name.replace("-", "_") for name in ENDPOINT),
    *("cpu", "mac_spoofing", "no_restart", "force_off", "timeout", "load_modules", "ssh_config"),
    *("parallel", "batch", "max_failures", "drain_nodes", "delete_emptydir_data", "context", "kubeconfig"),
    UNDOES,
)
"""The options that a record keeps, so that --resume goes on in the same way."""
DOING = {"enable": "enabling", "disable": "disabling", "undo": "undoing"}


@dataclass
class Many:
    """One run over many, from the command's options on.

    Attributes:
        recorded: the run that is gone on with; None for a new one.
    """

    command: str
    options: Mapping[str, Any]
    recorded: Recorded | None = None

    def __post_init__(self) -> None:
        self.state = settings.state_path()
        self.began = time.monotonic()
        self.stop = Stop()
        self.output = str(self.options["output"])
        self.quiet = bool(self.options["quiet"]) or self.output != "text"
        self.lines = JsonLines() if self.output == "jsonl" else None
        self.chosen = Chosen.of(self.options)
        self.progress = Progress(quiet=self.quiet)
        self.endpoints = Endpoints(self._settings_of)

    def _settings_of(self, place: Place) -> Mapping[str, str]:
        target = Target(place.backend, place.name or "*", place.profile)
        return settings_for(self.chosen, target, self.progress, dict(place.kept) or None)

    @property
    def broken(self) -> Sequence[str]:
        """Those in whose middle the run died that is gone on with."""
        return self.recorded.broken if self.recorded is not None else ()

    def begin(self, runs: FleetRuns, members: Sequence[Member]) -> FleetRecord:
        """Open the record of a new run."""
        return runs.begin(self.command, members, _kept(self.options))

    def leftovers(self, runs: FleetRuns, open_things: ExitStack) -> Leftovers:
        """What becomes of nodes."""
        return Leftovers(runs, open_things)

    def members(self) -> list[Member]:
        """Those that are meant, in the order in which they were named."""
        names: Sequence[str | Target] = self.options["names"]
        file = targetsfile.FleetFile()
        if self.recorded is not None:
            names, file = self.recorded.names, targetsfile.FleetFile(details=self.recorded.details)
        elif self.options["targets"]:
            file = targetsfile.read(Path(self.options["targets"]))
            names = [*names, *file.chosen(self.options["group"])]
        selection = Selection(self.endpoints, file)
        with leaving_at_once():
            members = selection.of(names)
        self.progress.rest()
        if self.recorded is None and not self.options["group"]:
            for name in selection.unmet():
                self.progress.note(f'[targets."{name}"] of the fleet file is no target of this run; see list')
        known = self.recorded.known if self.recorded is not None else {}
        return [replace(member, known=known.get(member.written)) for member in members]

    def doing(self, members: Sequence[Member]) -> Doing:
        """How each is worked on."""
        return Doing(
            Journal(self.state),
            Foresight(members),
            timeout=self.chosen.timeout,
            load_modules=self.chosen.load_modules,
            ssh_config=self.chosen.ssh_config,
            spelling=self.chosen.spelling,
            proven=Proofs(self.state).keep,
        )

    def run(self, what: str, members: Sequence[Member], work: Work, pace: Pace, *, last: bool) -> list[Row]:
        """One pass; those that could not even be found have their row already.

        Args:
            what: it is, for people.
            members: in the order in which they are begun.
            work: done with each.
            pace: how many at once, and how far.
            last: whether a row is final as it ends; else only those that need no further pass are.
        """
        found = [member for member in members if member.error is None]
        screen = Screen(quiet=self.quiet, tell=self.tell if last else self._tell_settled)
        with screen.showing(what, len(found), lines=last):
            runner = Runner(found, work, pace, screen, self.stop)
            rows = dict(zip(map(id, found), runner.run(), strict=True))
        unfound = {id(m): Row(m.written, m.error) for m in members if m.error is not None}
        for row in [*unfound.values(), *(row for row in rows.values() if row.outcome is None)]:
            self.tell(row)
        return [(rows | unfound)[id(member)] for member in members]

    def tell(self, row: Row) -> None:
        """A row is final."""
        if self.lines is not None:
            self.lines.tell(row)

    def _tell_settled(self, row: Row) -> None:
        if row.ending is not Ending.PLAN or self.options.get("dry_run"):
            self.tell(row)

    def pace(self, changing: Changing) -> Pace:
        """How what was agreed to is carried out."""
        batch, failures = self.options["batch"], self.options["max_failures"]
        batch = batch or (1 if self.options["drain_nodes"] else None)
        failures = failures or (1 if batch else None)
        return Pace(
            self.options["parallel"] or PARALLEL, batch, failures, changing.failed, down=changing.down
        )

    def finish(self, rows: Sequence[Row], run: str | None = None) -> int:
        """Print what came of all; return the exit code."""
        stopped = "by Ctrl-C, or another signal" if self.stop.times else ""
        seconds = time.monotonic() - self.began
        code = finish_fleet(Fleet(tuple(rows), self.command, run, seconds, stopped), self.output)
        code = STOPPED if self.stop.times and self.output != "nagios" else code
        return leave(code) if self.stop.left else code


def check_many(options: Mapping[str, Any]) -> int:
    """Check all of them."""
    many = Many("check", options)
    try:
        members = many.members()
        failures = options["max_failures"]
        pace = Pace(options["parallel"] or PARALLEL, None, failures, reads=True)
        return many.finish(many.run("checking", members, many.doing(members).check, pace, last=True))
    finally:
        many.endpoints.close()


def reach_many(goal: Goal, options: Mapping[str, Any]) -> int:
    """Enable, or disable, all of them: a plan for each, one question, and then what was agreed to."""
    command = "enable" if goal.nested else "disable"
    notes = Progress(quiet=bool(options["quiet"]))
    runs = FleetRuns(settings.state_path(), lambda ill: notes.note(f"{ill.message}, and is left out"))
    recorded = None
    with ExitStack() as open_things:
        if options["resume"]:
            run = None if options["resume"] == NEWEST else options["resume"]
            recorded = runs.find(run, command)
            options = as_before(options, recorded, KEPT)
            goal = replace(goal, cpu=options.get("cpu"), mac_spoofing=bool(options.get("mac_spoofing")))
        many = Many(command, options, recorded)
        open_things.callback(many.endpoints.close)
        members = many.members()
        _refuse_what_is_not_theirs(goal, members)
        record = None
        if recorded is not None and not options["dry_run"]:
            record = open_things.enter_context(runs.reopen(recorded))
            if {member.written for member in members} != set(map(str, recorded.names)):
                record.meant(members)
        reaching = Reaching(many.doing(members), manner_of(options), nodes=nodes_of(many), goal=goal)
        return carry_through(many, members, reaching, record, runs, open_things)


def carry_through(
    many: Many,
    members: Sequence[Member],
    changing: Changing,
    record: FleetRecord | None,
    runs: FleetRuns,
    open_things: ExitStack,
) -> int:
    """A plan for each, one question, and then what was agreed to."""
    options, nodes = many.options, changing.nodes
    earlier = many.recorded.endings if many.recorded is not None else {}
    ahead = Pace(max(options["parallel"] or PARALLEL, PARALLEL), reads=True)
    left = [m for m in members if earlier.get(m.written) is not Ending.PASS]
    planned = many.run("planning", left, changing.plan, ahead, last=False)
    rows = dict(zip((m.written for m in left), planned, strict=True))
    to_do = [m for m in left if rows[m.written].ending is Ending.PLAN]
    notes = many.leftovers(runs, open_things)
    if nodes is not None and not options["dry_run"]:
        for line in notes.take_up(nodes, set(changing.node_names.values())):
            many.progress.note(line)
    if options["dry_run"] or many.stop.times or not (to_do or (nodes and nodes.left)):
        if record is not None:
            _note(many, record, rows)
            if not many.stop.times:
                runs.end(record)
        return many.finish(_in_order(many, members, rows), record.id if record else None)
    if to_do:
        fleet_plan.consent(planned, yes=options["yes"], quiet=many.quiet)
    if record is None:
        record = open_things.enter_context(many.begin(runs, changing.found(members)))
    changing.doing.journal.fleet = record.id
    _note(many, record, rows)
    changing.down.update(_died_in(many, rows))
    plans = {m.written: row.outcome for m, row in zip(left, planned, strict=True) if m in to_do}
    agreed = {written: plan for written, plan in plans.items() if isinstance(plan, Report)}
    if nodes is not None:
        nodes.notes, notes.own = notes, record
    to_do.sort(key=changing.turn)
    changing = replace(changing, plans=agreed)
    work = _recorded(record, changing.carry_out)
    done = many.run(DOING[many.command], to_do, work, many.pace(changing), last=True)
    rows |= dict(zip((m.written for m in to_do), done, strict=True))
    left_cordoned = _settle(many, nodes) if nodes is not None else []
    if not many.stop.times:
        runs.end(record)
    return many.finish([*_in_order(many, members, rows), *left_cordoned], record.id)


def _settle(many: Many, nodes: Nodes) -> list[Row]:
    """Uncordon what was cordoned and is still so, after a run that died too; rows for what fails."""
    rows = []
    for node in sorted(nodes.left):
        try:
            nodes.uncordon(node)
        except Error as error:
            rows.append(Row(f"node {node}", error))
            many.tell(rows[-1])
    return rows


def _in_order(many: Many, members: Sequence[Member], rows: Mapping[str, Row]) -> list[Row]:
    """All rows; of those that ended well before, what is known of them."""
    run = many.recorded.id if many.recorded is not None else ""
    through = {
        m.written: Row(m.written, earlier=Ending.PASS, note=f"in run {run}; not looked at again")
        for m in members
    }
    return [rows.get(m.written) or through[m.written] for m in members]


def _recorded(record: FleetRecord, carry_out: Work) -> Work:
    """The work, with what is done written down before and after it."""

    def work(member: Member, tell: Tell) -> Report:
        record.begun(member.written)
        ending, run = Ending.FAIL, None
        try:
            report = carry_out(member, tell)
            ending, run = Row(member.written, report).ending, report.run
            return report
        except Error as error:
            run = error.run
            raise
        finally:
            record.ended(member.written, ending, run)

    return work


def _note(many: Many, record: FleetRecord, rows: Mapping[str, Row]) -> None:
    """How those ended for which nothing had to be done, or nothing could be.

    What cannot even be planned now, where a run is gone on with, is left to be gone on with another time.
    """
    for written, row in rows.items():
        later = many.recorded is not None and isinstance(row.outcome, Error)
        if row.outcome is not None and row.ending is not Ending.PLAN and not later:
            record.ended(written, row.ending)


def _died_in(many: Many, rows: Mapping[str, Row]) -> set[str]:
    """Those in whose middle the run died that is gone on with, and of which nothing can be learned now."""
    outcomes = {name: rows[name].outcome for name in many.broken if name in rows}
    return {n for n, o in outcomes.items() if isinstance(o, Error) and not isinstance(o, TargetError)}


def manner_of(options: Mapping[str, Any]) -> Manner:
    """How the user wants it made; it is planned first, and asked for all at once."""
    return Manner(_nobody, not options["no_restart"], options["force_off"], dry_run=True)


def nodes_of(many: Many) -> Nodes | None:
    """The cluster whose nodes are drained; None where none are."""
    if not many.options["drain_nodes"]:
        return None
    from nestvirt.kata.kube import Kube

    kube = Kube(many.options["context"], many.options["kubeconfig"])
    nodes = Nodes(kube, None, many.chosen.timeout, many.options["delete_emptydir_data"])
    if many.recorded is not None:
        nodes.take_up(many.recorded.id, many.recorded.cordoned)
    return nodes


def _nobody(_plan: Plan) -> None:
    """A plan alone asks nobody."""


def _kept(options: Mapping[str, Any]) -> dict[str, object]:
    """What a record keeps of the options; a file's name holds in any folder."""
    kept = {name: options[name] for name in KEPT if options.get(name) not in (None, False)}
    paths = {name for name in ("ssh_config", "kubeconfig", "ca_file") if name in kept}
    return kept | {name: str(Path(str(kept[name])).absolute()) for name in paths}


def as_before(options: Mapping[str, Any], recorded: Recorded, names: Collection[str]) -> dict[str, Any]:
    """The options with these as the run had them, but for those that are given now."""
    context = click.get_current_context()
    given = {n for n in names if context.get_parameter_source(n) is ParameterSource.COMMANDLINE}
    return {**options, **{n: v for n, v in recorded.options.items() if n in names and n not in given}}


def _refuse_what_is_not_theirs(goal: Goal, members: Sequence[Member]) -> None:
    backends = {m.target.backend: m.written for m in members if m.target is not None}
    apart = [backends[backend] for backend in ("vsphere", "hyperv", "vmx", "host") if backend in backends]
    if goal.cpu is not None and apart:
        raise click.UsageError(f"--cpu does not go with {apart[0]}, where nesting is a setting of its own.")
    others = [written for backend, written in backends.items() if backend != "hyperv"]
    if goal.mac_spoofing and others:
        raise click.UsageError(f"--mac-spoofing is for Hyper-V; it does not go with {others[0]}.")
