"""undo of a whole run over many VMs: taken back in the way in which enable and disable are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import click

from nestvirt.cli.fleet_kept import AS_BEFORE, OF_NODES, as_before
from nestvirt.cli.fleet_nodes import NodesOfRun
from nestvirt.cli.fleet_options import refuse_idle_drain
from nestvirt.cli.many import Many, carry_through, manner_of
from nestvirt.cli.options import VMS
from nestvirt.errors import JournalError, TargetError
from nestvirt.fleet.leftovers import Leftovers
from nestvirt.fleet.record import FleetRecord, FleetRuns
from nestvirt.fleet.recorded import UNDOES, Recorded
from nestvirt.fleet.recording import Recording
from nestvirt.fleet.selection import Member
from nestvirt.fleet.undoing import Undoing, further_names, members_of, own_runs
from nestvirt.journal import Journal, Run
from nestvirt.model import Ending, Row


@dataclass
class Back(Many):
    """The way back.

    Attributes:
        undone: the run that is taken back.
        held: its record, open; None in a dry run.
        own: its runs in the journal, by the VM's name.
        known: the ids of these; and why one cannot be read.
    """

    undone: Recorded = field(kw_only=True)
    held: FleetRecord | None = field(kw_only=True)
    own: dict[str, list[Run]] = field(default_factory=dict, init=False)
    known: dict[str, JournalError | None] = field(default_factory=dict, init=False)

    @property
    def broken(self) -> Sequence[str]:
        """Those in whose middle the run died, or its undo."""
        died = {run.id for runs in self.own.values() for run in runs if run.outcome is None}
        died -= {run for run, ill in self.known.items() if ill is not None}
        return [name for name, runs in self.own.items() if any(run.id in died for run in runs)]

    def members(self) -> list[Member]:
        """Those of the run that is taken back."""
        parts = list(Journal(self.state).parts(self.undone.id))
        self.known = {run.id: ill for run, ill in parts}
        self.own = own_runs(run for run, _ in parts)
        members = members_of(self.undone, self.own, self.known, self.endpoints)
        self.progress.rest()
        return members

    def begin(self, runs: FleetRuns, members: Sequence[Member], besides: Mapping[str, object]) -> FleetRecord:
        """Open the record, and note in the other one that it is not gone on with any more."""
        record = super().begin(runs, members, besides)
        if self.held is not None:
            self.held.taken_back()
        return record

    def run_of(self, _recording: Recording | None) -> str | None:
        """The run that is taken back: by its id one goes on."""
        return self.undone.id

    def finish(
        self, rows: Sequence[Row], recording: Recording | None = None, down: Set[str] = frozenset()
    ) -> int:
        """Note in the other record where nothing of it is left, and print what came of all."""
        if self.held is not None and all(row.ending is Ending.PASS for row in rows):
            try:
                self.held.undone()
            except JournalError as error:
                self.notes.note(
                    f"that all is undone is not in the record of run {self.held.id}: {error.evidence}"
                )
        return super().finish(rows, recording, down)


def undo_many(run_id: str, runs: FleetRuns, options: Mapping[str, Any]) -> int:
    """Take a whole run back: a plan for each, one question, and then what was agreed to."""
    _refuse_what_is_of_one(options)
    with ExitStack() as open_things:
        undone = _to_undo(runs, run_id)
        held = None
        if not options["dry_run"]:
            held = open_things.enter_context(runs.reopen(undone))
            undone = _to_undo(runs, run_id)  # as it is now that nobody else can write it
        undone = _as_tried(undone, runs)
        options = {**as_before(options, undone, AS_BEFORE), UNDOES: undone.id}
        if options["drain_nodes"] or not undone.options.get("drain_nodes"):
            refuse_idle_drain(options)
        back = Back("undo", options, undone=undone, held=held)
        open_things.callback(back.endpoints.close)
        members = back.members()
        if undone.cordoned and not options["drain_nodes"]:
            left = ", ".join(undone.cordoned)
            back.progress.note(f"run {undone.id} has left {left} cordoned; --drain-nodes uncordons them")
        leftovers = Leftovers(runs, open_things, before=undone, held=held, takes_back=True)
        of_nodes = NodesOfRun.of(options, back.chosen.timeout, leftovers, back.stop)
        undoing = Undoing(
            back.doing(members),
            manner_of(options),
            nodes=of_nodes.nodes,
            own=back.own,
            further=further_names(undone, back.own),
            closes=not options["dry_run"],
        )
        return carry_through(back, members, undoing, of_nodes)


def _to_undo(runs: FleetRuns, run_id: str) -> Recorded:
    undone = runs.get(run_id)
    if undone is None:
        raise TargetError(f"there is no run {run_id!r}", cure="see all runs: nestvirt undo --list")
    if undone.undoes is not None:
        raise TargetError(
            f"the run {undone.id} is an undo itself",
            evidence=f"it takes back the run {undone.undoes}",
            cure=f"go on with it: {undone.again}; or begin a new run: nestvirt enable TARGET…",
        )
    if not undone.traced:
        raise TargetError(
            f"the run {undone.id} is of an older nestvirt, and cannot be taken back as a whole",
            evidence="the records of its VMs do not name it",
            cure="take each of them back: nestvirt undo --list",
        )
    return undone


def _as_tried(undone: Recorded, runs: FleetRuns) -> Recorded:
    """With the nodes that an undo of it has drained before this one, where it had drained none itself."""
    tried = next((run for run in runs.runs() if run.undoes == undone.id and run.cluster), None)
    if tried is None or undone.cluster:
        return undone
    which = {name: tried.options[name] for name in OF_NODES if name in tried.options}
    return replace(undone, cluster=tried.cluster, nodes=tried.nodes, options={**undone.options, **which})


def _refuse_what_is_of_one(options: Mapping[str, Any]) -> None:
    given = [name for name in (*VMS, "machine", "drain") if options[name]]
    if given:
        raise click.UsageError(
            f"--{given[0]} does not go with a run over many VMs: undo --list shows those of each."
        )
