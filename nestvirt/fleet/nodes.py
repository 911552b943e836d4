"""VMs that are nodes of a Kubernetes cluster: cordoned and drained before they go down, uncordoned when they
are Ready again.

What somebody else had cordoned stays so. The cluster is asked through kubectl, whose own drain this is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from nestvirt.backends.base import moments
from nestvirt.errors import ConnectionFailed, Error, PowerError, TargetError
from nestvirt.kata.api import Object, name_of
from nestvirt.kata.kube import Kube
from nestvirt.printable import printable

CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
GRACE = 30.0
"""Seconds that kubectl's drain gets beyond its own time limit."""


class Notes(Protocol):
    """Where it is written down beforehand what is done to a node; see FleetRecord."""

    def cordoning(self, node: str) -> None:
        """It is about to be cordoned."""

    def uncordoned(self, node: str) -> None:
        """It is not cordoned any more."""


@dataclass(frozen=True)
class State:
    """What the cluster says of a node.

    Attributes:
        boot: what differs after each of its starts.
    """

    ready: bool
    cordoned: bool
    boot: str
    control_plane: bool


@dataclass
class Nodes:
    """The nodes of one cluster.

    Attributes:
        timeout: seconds for each of: the drain, and that a node is Ready again.
        empty_dirs: whether pods with data in emptyDir volumes may be evicted, and lose it.
        notes: where it is written down; nobody's before there is something to be changed.
        left: nodes that this run, before it died, had cordoned.
    """

    kube: Kube
    notes: Notes | None
    timeout: float
    empty_dirs: bool = False
    left: set[str] = field(default_factory=set)
    _known: Mapping[str, State] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self, node: str) -> State:
        """How a node stood when the cluster was first asked.

        Raises:
            TargetError: the cluster has no such node.
        """
        with self._lock:
            if self._known is None:
                self._known = {name_of(found): _state(found) for found in self.kube.list("nodes")}
        if node not in self._known:
            raise TargetError(
                f"{self.kube.place} has no node {printable(node, 100)!r}",
                evidence=printable(f"it has: {', '.join(sorted(self._known)[:20])}", 600),
                cure='say what the node is called, in the fleet file: [targets."backend:name"] node = "…"',
            )
        return self._known[node]

    @contextmanager
    def away(self, node: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Cordon and drain a node that is Ready; whatever happens then, uncordon what was cordoned here."""
        before = self._anew(node)
        ours = node in self.left or (before.ready and not before.cordoned)
        if ours and node not in self.left and self.notes is not None:
            self.notes.cordoning(node)
        try:
            if before.ready:
                tell(f"cordoning and draining {node}")
                self.kube.run("cordon", node)
                self._drain(node)
            yield
        finally:
            if ours:  # nothing is told here: a wish to stop would be raised at it
                self.uncordon(node)

    def _anew(self, node: str) -> State:
        """How a node stands now: others may have cordoned it since the run began."""
        self.state(node)
        found = self.kube.get("nodes", node)
        with self._lock:
            if found is not None and self._known is not None:
                self._known = {**self._known, node: _state(found)}
        return self.state(node)

    def _drain(self, node: str) -> None:
        words = ["--ignore-daemonsets", f"--timeout={self.timeout:.0f}s"]
        words += ["--delete-emptydir-data"] if self.empty_dirs else []
        try:
            replace(self.kube, timeout=self.timeout + GRACE).run("drain", node, *words)
        except Error as error:
            error.cure = f"see what holds its pods: kubectl drain {node} --dry-run=server; {error.cure}"
            raise

    def uncordon(self, node: str) -> None:
        """Uncordon what this run, or this run before it died, has cordoned."""
        try:
            self.kube.patient(self.timeout).run("uncordon", node)
        except Error as error:
            error.cure = f"do it by hand: kubectl uncordon {node}; {error.cure}"
            raise
        self.left.discard(node)
        if self.notes is not None:
            self.notes.uncordoned(node)

    def wait_ready(self, node: str) -> None:
        """Return when it is Ready again: of another boot than before, for a node is called so for a while.

        Raises:
            PowerError: it was not in time.
        """
        before, seen = self.state(node), "it was not to be found"
        for _ in moments(time.monotonic() + self.timeout):
            try:
                found = self.kube.get("nodes", node)
            except ConnectionFailed as error:  # its API server may be on that very node
                seen = f"{error.message}: {error.evidence}"
                continue
            if found is None:
                continue
            now = _state(found)
            if now.ready and now.boot != before.boot:
                return
            seen = "its kubelet has not reported since its start" if now.ready else "it is not Ready"
        raise PowerError(
            f"the node {node} was not Ready within {self.timeout:.0f} s",
            evidence=seen,
            cure=f"see why: kubectl describe node {node}",
        )


def _state(node: Object) -> State:
    status = node.get("status") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or []}
    labels = (node.get("metadata") or {}).get("labels") or {}
    return State(
        ready=conditions.get("Ready") == "True",
        cordoned=bool((node.get("spec") or {}).get("unschedulable")),
        boot=str((status.get("nodeInfo") or {}).get("bootID") or ""),
        control_plane=any(label in labels for label in CONTROL_PLANE),
    )
