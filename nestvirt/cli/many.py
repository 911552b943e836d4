"""check, enable and disable of many VMs: which they are, how a run over them goes, and what came of it.

See undo_many.py for what takes it back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from nestvirt import settings
from nestvirt.cli import fleet_plan
from nestvirt.cli.fleet_kept import as_before, kept
from nestvirt.cli.fleet_nodes import NodesOfRun
from nestvirt.cli.fleet_options import NEWEST, PARALLEL
from nestvirt.cli.fleet_progress import Screen
from nestvirt.cli.output import STOPPED, JsonLines, Progress, finish_fleet, leave, leaving_at_once
from nestvirt.cli.session import Chosen, settings_for
from nestvirt.engine import Manner
from nestvirt.errors import Error
from nestvirt.fleet import targetsfile
from nestvirt.fleet.apart import refuse_one_guest
from nestvirt.fleet.doing import Changing, Doing, Foresight, Reaching
from nestvirt.fleet.endpoints import Endpoints, Place
from nestvirt.fleet.leftovers import Leftovers
from nestvirt.fleet.proofs import Proofs
from nestvirt.fleet.record import FleetRecord, FleetRuns
from nestvirt.fleet.recorded import Recorded
from nestvirt.fleet.recording import Recording
from nestvirt.fleet.running import Pace, Runner, Stop, Work
from nestvirt.fleet.selection import Member, Selection
from nestvirt.journal import Journal
from nestvirt.model import Ending, Fleet, Goal, Plan, Report, Row, Target, Vm

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
        self.vms: dict[str, Vm] = {}
        self.output = str(self.options["output"])
        self.quiet = bool(self.options["quiet"]) or self.output != "text"
        self.lines = JsonLines() if self.output == "jsonl" else None
        self.chosen = Chosen.of(self.options)
        self.progress = Progress(quiet=self.quiet)
        self.notes = Progress(quiet=bool(self.options["quiet"]))  # whatever the form of output is
        self._told: set[str] = set()
        self.endpoints = Endpoints(self._settings_of)

    def _settings_of(self, place: Place) -> Mapping[str, str]:
        target = Target(place.backend, place.name or "*", place.profile)
        return settings_for(self.chosen, target, self.progress, dict(place.kept) or None)

    @property
    def broken(self) -> Sequence[str]:
        """Those in whose middle the run died that is gone on with."""
        return self.recorded.broken if self.recorded is not None else ()

    def begin(self, runs: FleetRuns, members: Sequence[Member], besides: Mapping[str, object]) -> FleetRecord:
        """Open the record of a new run.

        Args:
            besides: options that hold for all of it, whatever was given.
        """
        return runs.begin(self.command, members, {**kept(self.options), **besides})

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
            refuse_one_guest(members)
        self.progress.rest()
        if self.recorded is None:
            selection.refuse_idle(members, some=bool(self.options["group"]))
        known = self.recorded.known if self.recorded is not None else {}
        return [member.going_on(known.get(member.written)) for member in members]

    def doing(self, members: Sequence[Member]) -> Doing:
        """How each is worked on."""
        return Doing(
            Journal(self.state),
            Foresight(members),
            timeout=self.chosen.timeout,
            load_modules=self.chosen.load_modules,
            ssh_config=self.chosen.ssh_config,
            spelling=self.chosen.spelling,
            vms=self.vms,
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
            runner = Runner(found, work, pace, screen, self.stop, self.vms)
            rows = dict(zip(map(id, found), runner.run(), strict=True))
        unfound = {id(m): Row(m.written, m.error) for m in members if m.error is not None}
        for row in [*unfound.values(), *(row for row in rows.values() if row.outcome is None)]:
            self.tell(row)
        return [(rows | unfound)[id(member)] for member in members]

    def tell(self, row: Row) -> None:
        """A row is final."""
        self._told.add(row.target)
        if self.lines is not None:
            self.lines.tell(row)

    def _tell_settled(self, row: Row) -> None:
        if row.ending is not Ending.PLAN or self.options.get("dry_run"):
            self.tell(row)

    def pace(self, changing: Changing, planned: Sequence[Row]) -> Pace:
        """How what was agreed to is carried out. With --max-failures, what failed in the plan counts, too; a
        batch by itself ends the run only for what was done."""
        batch, failures = self.options["batch"], self.options["max_failures"]
        batch = batch or (1 if self.options["drain_nodes"] else None)
        before = sum(_failed(row) for row in planned) if failures else 0
        failures = failures or (1 if batch else None)
        parallel = self.options["parallel"] or PARALLEL
        return Pace(parallel, batch, failures, changing.failed, before, down=changing.down)

    def run_of(self, recording: Recording | None) -> str | None:
        """The run that is told of, as it is what one can go on with."""
        return recording.record.id if recording is not None else None

    def finish(
        self, rows: Sequence[Row], recording: Recording | None = None, down: Set[str] = frozenset()
    ) -> int:
        """Close the record, and print what came of all; return the exit code.

        Args:
            down: those that a run has shut down, and that may be off still.
        """
        run = self.run_of(recording)
        if recording is not None and not self.stop.times:
            recording.close()
        if recording is not None and recording.said:
            self.notes.note(recording.said)
        for row in rows:
            if row.target not in self._told:
                self.tell(row)
        stopped = "by Ctrl-C, or another signal" if self.stop.times else ""
        seconds = time.monotonic() - self.began
        code = finish_fleet(Fleet(tuple(rows), self.command, run, seconds, stopped, len(down)), self.output)
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
            options = as_before(options, recorded)
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
        leftovers = Leftovers(runs, open_things, own=record, before=recorded)
        of_nodes = NodesOfRun.of(options, many.chosen.timeout, leftovers, many.stop)
        reaching = Reaching(many.doing(members), manner_of(options), nodes=of_nodes.nodes, goal=goal)
        return carry_through(many, members, reaching, of_nodes)


def carry_through(many: Many, members: Sequence[Member], changing: Changing, of_nodes: NodesOfRun) -> int:
    """A plan for each, one question, and then what was agreed to."""
    options, leftovers = many.options, of_nodes.leftovers
    record, enter = leftovers.own, leftovers.open_things.enter_context
    journal = changing.doing.journal
    journal.look()  # a record that may be about any of them is one error, and no row's
    earlier = many.recorded.endings if many.recorded is not None else {}
    left = [m for m in members if earlier.get(m.written) is not Ending.PASS]
    ahead = Pace(max(options["parallel"] or PARALLEL, PARALLEL), reads=True)
    planned = many.run("planning", left, changing.plan, ahead, last=False)
    pace = many.pace(changing, planned)
    same = changing.same([m for m, row in zip(left, planned, strict=True) if row.ending is Ending.PLAN])
    rows = _held_back(planned, same, pace, look=options["dry_run"])
    to_do = [m for m in left if rows[m.written].ending is Ending.PLAN]
    changing.down.update(_died_in(many, rows))
    with_nodes = changing.with_nodes(left, rows)
    of_nodes.take_up(changing.node_names, with_nodes, many.notes.note, look=options["dry_run"])
    if options["dry_run"] or many.stop.times or not (to_do or of_nodes.to_do):
        recording = Recording(leftovers.runs, record, changing.down, again=True) if record else None
        if recording is not None:
            recording.settled(rows.values())
        down = frozenset[str]() if options["dry_run"] else changing.down
        return many.finish([*_in_order(many, members, rows, same), *of_nodes.rows], recording, down)
    enter(of_nodes.alone(journal))
    fleet_plan.consent([*rows.values(), *of_nodes.rows], yes=options["yes"], quiet=many.quiet)
    if record is None:
        record = enter(many.begin(leftovers.runs, changing.found(members), of_nodes.context))
    journal.fleet = record.id
    recording = Recording(leftovers.runs, record, changing.down, again=many.recorded is not None)
    recording.settled(rows.values())
    rows |= _carried_out(
        many, to_do, replace(changing, plans=_agreed(to_do, rows)), of_nodes, recording, pace
    )
    rows_of_nodes = of_nodes.settle()
    rows_of_all = _in_order(many, members, rows, same)
    recording.settled(row for row in rows_of_all if row.target in same)
    return many.finish([*rows_of_all, *rows_of_nodes], recording, changing.down)


def _agreed(members: Iterable[Member], rows: Mapping[str, Row]) -> dict[str, Report]:
    """The plans that were shown."""
    plans = {m.written: rows[m.written].outcome for m in members}
    return {written: plan for written, plan in plans.items() if isinstance(plan, Report)}


def _carried_out(
    many: Many,
    to_do: list[Member],
    changing: Changing,
    of_nodes: NodesOfRun,
    recording: Recording,
    pace: Pace,
) -> dict[str, Row]:
    """Do what was agreed to; what came of each."""
    first = [changing.node_names[m.written] for m in to_do if changing.comes_first(m)]
    of_nodes.begin(recording.record, first)
    to_do = sorted(to_do, key=changing.turn)
    done = many.run(DOING[many.command], to_do, recording.around(changing.carry_out), pace, last=True)
    return dict(zip((m.written for m in to_do), done, strict=True))


def _in_order(
    many: Many, members: Sequence[Member], rows: Mapping[str, Row], same: Mapping[str, str]
) -> list[Row]:
    """All rows; of those that ended well before, and of a VM's further names, what is known of them."""
    run = many.recorded.id if many.recorded is not None else ""
    known: dict[str, Row] = {}
    for member in members:
        name = member.vm.name if member.vm is not None else ""
        through = Row(
            member.written, earlier=Ending.PASS, note=f"in run {run}; not looked at again", name=name
        )
        known[member.written] = rows.get(member.written) or through
    known |= {name: replace(known[name], earlier=known[first].ending) for name, first in same.items()}
    return list(known.values())


def _failed(row: Row) -> bool:
    """Whether it could not even be planned, or is blocked."""
    return row.ending is Ending.FAIL or isinstance(row.outcome, Error)


def _held_back(planned: Iterable[Row], same: Mapping[str, str], pace: Pace, *, look: bool) -> dict[str, Row]:
    """The plan's rows by their targets, without what is not to be begun: a VM by a further name; and, but for
    a dry run, any that is not off already where so many have failed."""
    enough = pace.failures is not None and pace.failed_before >= pace.failures and not look
    rows: dict[str, Row] = {}
    for row in planned:
        held_back = enough and row.target not in pace.down
        note = f"{pace.failed_before} had failed already" if held_back else ""
        note = f"the same VM as {same[row.target]}" if row.target in same else note
        held = note and row.ending is Ending.PLAN
        rows[row.target] = replace(row, outcome=None, note=note) if held else row
    return rows


def _died_in(many: Many, rows: Mapping[str, Row]) -> set[str]:
    """Those in whose middle a run died, and of which nothing can be learned now."""
    outcomes = {name: rows[name].outcome for name in many.broken if name in rows}
    return {name for name, outcome in outcomes.items() if isinstance(outcome, Error)}


def manner_of(options: Mapping[str, Any]) -> Manner:
    """How the user wants it made; it is planned first, and asked for all at once."""
    return Manner(_nobody, not options["no_restart"], options["force_off"], dry_run=True)


def _nobody(_plan: Plan) -> None:
    """A plan alone asks nobody."""


def _refuse_what_is_not_theirs(goal: Goal, members: Sequence[Member]) -> None:
    backends = {m.target.backend: m.written for m in members if m.target is not None}
    apart = [backends[backend] for backend in ("vsphere", "hyperv", "vmx", "host") if backend in backends]
    if goal.cpu is not None and apart:
        raise click.UsageError(f"--cpu does not go with {apart[0]}, where nesting is a setting of its own.")
    others = [written for backend, written in backends.items() if backend != "hyperv"]
    if goal.mac_spoofing and others:
        raise click.UsageError(f"--mac-spoofing is for Hyper-V; it does not go with {others[0]}.")
