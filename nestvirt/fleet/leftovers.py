"""Nodes that a run cordoned before it died: a new run over them uncordons them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass, field

from nestvirt.errors import Busy, JournalError
from nestvirt.fleet.nodes import Nodes
from nestvirt.fleet.record import FleetRecord, FleetRuns


@dataclass
class Leftovers:
    """What becomes of nodes, in the record of this run and in those that were left.

    Attributes:
        open_things: closes the records that were left, which are locked until then.
        own: this run's record; None before there is something to be changed.
    """

    runs: FleetRuns
    open_things: ExitStack
    own: FleetRecord | None = None
    _held: dict[str, list[FleetRecord]] = field(default_factory=dict)

    def take_up(self, nodes: Nodes, wanted: Set[str]) -> Iterator[str]:
        """Have those of this run's nodes uncordoned that earlier runs left so; what to say of each.

        A node counts by its uid, so that none of another cluster is taken for it. A run that is still under
        way keeps its nodes; nodes that are none of this run's are only told of.
        """
        for run in self.runs.runs():
            if not run.cordoned:
                continue
            with ExitStack() as closing:
                try:
                    record = closing.enter_context(self.runs.reopen(run))
                    run = self.runs.get(run.id) or run  # as it is now that nobody else can write it
                except (Busy, JournalError):
                    continue
                here = [node for node, uid in run.cordoned.items() if nodes.is_here(node, uid)]
                if not wanted.isdisjoint(here):
                    self.open_things.push(closing.pop_all())
            for node in here:
                said = f"run {run.id} has left the node {node} cordoned"
                if node in wanted:
                    self._held.setdefault(node, []).append(record)
                    nodes.left.add(node)
                    yield f"{said}; this one uncordons it"
                else:
                    yield f"{said}, which is none of this one's: {run.again}"

    def hold(self, record: FleetRecord, nodes: Iterable[str]) -> None:
        """Have it noted in that record, which is open already, when these of its nodes are uncordoned."""
        for node in nodes:
            self._held.setdefault(node, []).append(record)

    def cordoning(self, node: str, uid: str) -> None:
        """See Notes."""
        if self.own is not None:
            self.own.cordoning(node, uid)

    def uncordoned(self, node: str) -> None:
        """See Notes."""
        for record in (*([self.own] if self.own is not None else []), *self._held.pop(node, [])):
            record.uncordoned(node)
