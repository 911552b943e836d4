"""Nodes that a run cordoned, or had down, before it died: one after it waits for them and uncordons them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass, field

from nestvirt.errors import Busy, ChangeRejected, JournalError
from nestvirt.fleet.nodes import Nodes
from nestvirt.fleet.record import FleetRecord, FleetRuns
from nestvirt.fleet.recorded import Recorded


@dataclass
class Leftovers:
    """What becomes of nodes, in the record of this run and in those that were left; see Notes.

    Attributes:
        open_things: closes the records that were left, which are locked until then.
        own: this run's record; None before there is something to be changed.
        before: the run that is gone on with, or taken back.
        held: its record, open; None where that is this run's own, and in a dry run.
        takes_back: whether it is taken back.
        found: the nodes that are to be uncordoned, and which run has left them so.
    """

    runs: FleetRuns
    open_things: ExitStack
    own: FleetRecord | None = None
    before: Recorded | None = None
    held: FleetRecord | None = None
    takes_back: bool = False
    found: dict[str, str] = field(default_factory=dict)
    _held: dict[str, list[FleetRecord]] = field(default_factory=dict)

    def take_up(self, nodes: Nodes, wanted: Set[str], *, look: bool = False) -> Iterator[str]:
        """Have those of this run's nodes uncordoned that earlier runs left so; what to say of each.

        Nodes that were down then, and not seen back, are waited for, whose ever they are. A node counts by
        its uid, so that none of another cluster is taken for it. A run that is still under way keeps its
        nodes; cordoned nodes that are none of this run's are only told of. One that somebody has uncordoned
        meanwhile is none of theirs any more.

        Args:
            look: leave the records as they are, as in a dry run.

        Raises:
            ChangeRejected: the run that is gone on with, or taken back, was on another cluster.
            Error: the cluster cannot be asked.
        """
        for run in list(self.runs.leaving_nodes()):
            if self.before is not None and run.id == self.before.id:
                self._refuse_elsewhere(nodes, run)
                yield from self._taken(nodes, run, wanted | run.cordoned.keys(), self.held or self.own)
                continue
            with ExitStack() as closing:
                record = None
                if not look:
                    try:
                        record = closing.enter_context(self.runs.reopen(run))
                        run = self.runs.get(run.id) or run  # as it is now that nobody else can write it
                    except (Busy, JournalError):
                        continue
                yield from self._taken(nodes, run, wanted, record)
                if any(record in held for held in self._held.values()):
                    self.open_things.push(closing.pop_all())

    def _taken(
        self, nodes: Nodes, run: Recorded, wanted: Set[str], record: FleetRecord | None
    ) -> Iterator[str]:
        """One run's."""
        held = [record] if record is not None else []
        for node, away in run.away.items():
            if nodes.cluster.has(node, away.uid):
                own = self.before is not None and run.id == self.before.id
                nodes.remember(node, away.boot, away.since, "" if own else run.again)
                self._held.setdefault(node, []).extend(held)
                if not own and node not in wanted and nodes.is_away(node, nodes.cluster.state(node)):
                    said = f"run {run.id} has had the node {node} down, or was about to"
                    yield f"{said}, and no other is drained until it is seen back: {run.again}"
        for node, uid in run.cordoned.items():
            if not nodes.cluster.has(node, uid):
                continue
            if not nodes.cluster.is_cordoned(node):  # by hand; who cordons it later does so for himself
                if record is not None:
                    with contextlib.suppress(JournalError):  # then the next run looks for itself
                        record.uncordoned(node)
                continue
            said = f"run {run.id} has left the node {node} cordoned"
            if node in wanted:
                self._held.setdefault(node, []).extend(held)
                self.found[node] = run.id
                nodes.left.add(node)
                yield f"{said}; to uncordon it is in the plan"
            else:
                yield f"{said}, which is none of this one's: {run.again}"

    @property
    def instead(self) -> str:
        """What can be done where the cluster of the run before is not to be had."""
        return "--no-drain-nodes" if self.takes_back else "begin a new run with the same targets"

    def _refuse_elsewhere(self, nodes: Nodes, run: Recorded) -> None:
        """Where a run's nodes are not, it is not gone on with."""
        for node, uid in run.cordoned.items():
            if not nodes.cluster.has(node, uid):
                raise ChangeRejected(
                    f"{nodes.cluster.place} does not have the node {node} that run {run.id} has cordoned",
                    evidence=f"its uid was {uid}; nothing was touched" if uid else "nothing was touched",
                    cure="give that run's cluster: --context NAME; where the node is gone for good, "
                    f"{self.instead}",
                )

    def _records(self, node: str) -> list[FleetRecord]:
        held = [record for record in self._held.get(node, []) if record is not self.own]
        return [*([self.own] if self.own is not None else []), *held]

    def cordoning(self, node: str, uid: str) -> None:
        """See Notes."""
        if self.own is not None:
            self.own.cordoning(node, uid)

    def uncordoned(self, node: str) -> None:
        """See Notes."""
        for record in self._records(node):
            record.uncordoned(node)

    def leaving(self, node: str, uid: str, boot: str) -> None:
        """See Notes."""
        if self.own is not None:
            self.own.leaving(node, uid, boot)

    def back(self, node: str) -> None:
        """See Notes."""
        for record in self._records(node):
            record.back(node)
