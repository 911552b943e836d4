"""The nodes of Kubernetes that a run's VMs are: what is planned for them, and what became of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from nestvirt.errors import ChangeRejected, ConnectionFailed, Error
from nestvirt.fleet.apart import refuse_one_node
from nestvirt.fleet.cluster import Cluster
from nestvirt.fleet.leftovers import Leftovers
from nestvirt.fleet.nodes import Nodes
from nestvirt.fleet.record import FleetRecord
from nestvirt.fleet.running import Stop
from nestvirt.fleet.selection import Member
from nestvirt.journal import Journal
from nestvirt.model import Ending, Report, Row, Vm

KIND = "kubernetes"
"""What a cluster's lock is called by, among those of VMs."""


@dataclass
class NodesOfRun:
    """All that a run has to do with nodes; nothing, where its VMs are none.

    Attributes:
        nodes: the cluster's; None without --drain-nodes.
        rows: what is planned for nodes that earlier runs have left cordoned; or why that is not known.
    """

    nodes: Nodes | None
    leftovers: Leftovers
    stop: Stop
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        options: Mapping[str, Any],
        timeout: float,
        leftovers: Leftovers,
        stop: Stop,
    ) -> NodesOfRun:
        """Those that the options mean.

        Raises:
            ChangeRejected: the run that is gone on with, or taken back, was on another cluster.
        """
        if not options["drain_nodes"]:
            return cls(None, leftovers, stop)
        from nestvirt.kata.kube import Kube

        cluster = Cluster.meant(Kube(options["context"], options["kubeconfig"]))
        before = leftovers.before
        if before is not None and before.cluster:
            cluster.expect(before.id, before.cluster, leftovers.instead)
            with contextlib.suppress(ConnectionFailed):  # then each row that needs it says so
                cluster.known()
        nodes = Nodes(cluster, None, timeout, options["delete_emptydir_data"])
        if before is not None:
            nodes.of_run.update(before.nodes)
        nodes.in_haste = lambda: stop.times > 1
        return cls(nodes, leftovers, stop)

    @property
    def context(self) -> Mapping[str, object]:
        """The option that names the cluster, whatever is current later."""
        context = self.nodes.cluster.kube.context if self.nodes is not None else None
        return {"context": context} if context is not None else {}

    @property
    def to_do(self) -> bool:
        """Whether nodes are to be uncordoned."""
        return self.nodes is not None and bool(self.nodes.left)

    def take_up(
        self,
        names: Mapping[str, str],
        members: Sequence[Member],
        note: Callable[[str], None],
        *,
        look: bool,
    ) -> None:
        """Plan what is to be done for nodes that earlier runs have left.

        Args:
            names: each VM of this run to its node.
            members: those whose VM runs, or is to be power-cycled.
            look: only look, as in a dry run.

        Raises:
            ChangeRejected: the run that is gone on with, or taken back, was on another cluster.
            SettingsError: two VMs are one node.
        """
        nodes = self.nodes
        if nodes is None:
            return
        refuse_one_node(members, names)
        try:
            for line in self.leftovers.take_up(nodes, set(names.values()), look=look):
                note(line)
        except ChangeRejected:
            raise
        except Error as error:
            self.rows.append(Row(f"nodes of {nodes.cluster.place}", error))
        for node, run in sorted(self.leftovers.found.items()):
            would = f"it would uncordon a node of {nodes.cluster.place}, which run {run} has left cordoned"
            remains = (f"dry run, nothing was touched; {would}",)
            plan = Report(_name(node), (), remains=remains, goal=None, planned=True)
            self.rows.append(Row(_name(node), plan))

    def alone(self, journal: Journal) -> AbstractContextManager[None]:
        """Keep other runs, also of other VMs, off the same cluster's nodes until this one has ended.

        Raises:
            Busy: there is one.
        """
        if self.nodes is None:
            return contextlib.nullcontext()
        cluster = self.nodes.cluster
        return journal.lock(KIND, Vm(cluster.uid or cluster.place, f"the nodes of {cluster.place}"))

    def begin(self, record: FleetRecord, first: Collection[str]) -> None:
        """Write down from now on what is done, and to which cluster.

        Args:
            first: the nodes whose VMs are off, and are started first.
        """
        if self.nodes is not None:
            self.nodes.notes, self.leftovers.own = self.leftovers, record
            self.nodes.due.update(first)
            if self.nodes.cluster.uid:
                record.cluster(self.nodes.cluster.uid)

    def settle(self) -> list[Row]:
        """Uncordon what was cordoned and is still so, after a run that died too; what came of each."""
        if self.nodes is None:
            return []
        rows = [row for row in self.rows if isinstance(row.outcome, Error)]
        with self.stop.listening():
            for node in sorted(self.nodes.left | self.leftovers.found.keys()):
                try:
                    if node in self.nodes.left:
                        self.nodes.give_back(node)
                except Error as error:
                    rows.append(Row(_name(node), error))
                    continue
                if node in self.leftovers.found:
                    note = f"uncordoned, as run {self.leftovers.found[node]} had left it cordoned"
                    rows.append(Row(_name(node), earlier=Ending.PASS, note=note))
        return rows


def _name(node: str) -> str:
    return f"node {node}"
