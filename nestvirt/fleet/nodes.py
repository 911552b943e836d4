"""VMs that are nodes of a Kubernetes cluster: cordoned and drained before they go down, uncordoned when they
are Ready again.

What somebody else had cordoned stays so. The cluster is asked through kubectl, whose own drain this is.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from nestvirt.backends.base import moments
from nestvirt.errors import ChangeRejected, ConnectionFailed, Error, PowerError, TargetError
from nestvirt.kata.api import Object, name_of
from nestvirt.kata.kube import Kube
from nestvirt.printable import printable

CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
GRACE = 30.0
"""Seconds that kubectl's drain gets beyond its own time limit."""


class Notes(Protocol):
    """Where it is written down beforehand what is done to a node; see FleetRecord."""

    def cordoning(self, node: str, uid: str) -> None:
        """It is about to be cordoned; its uid tells it from those of other clusters."""

    def uncordoned(self, node: str) -> None:
        """It is not cordoned any more."""


@dataclass(frozen=True)
class State:
    """What the cluster says of a node.

    Attributes:
        boot: what differs after each of its starts.
        uid: what no other node has, of any cluster.
    """

    ready: bool
    cordoned: bool
    boot: str
    control_plane: bool
    uid: str = ""


@dataclass
class Nodes:
    """The nodes of one cluster.

    Attributes:
        timeout: seconds for each of: the drain, and that a node is Ready again.
        empty_dirs: whether pods with data in emptyDir volumes may be evicted, and lose it.
        notes: where it is written down; nobody's before there is something to be changed.
        left: nodes that are to be uncordoned: this run, or one before it, had cordoned them and died.
        lost: nodes that this run has had away, and that did not come back, with the boot before.
    """

    kube: Kube
    notes: Notes | None
    timeout: float
    empty_dirs: bool = False
    left: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    _place: str | None = None
    _known: Mapping[str, State] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self, node: str) -> State:
        """How a node stood when the cluster was first asked.

        Raises:
            TargetError: the cluster has no such node.
        """
        known = self._all()
        if node not in known:
            raise TargetError(
                f"{self.kube.place} has no node {printable(node, 100)!r}",
                evidence=printable(f"it has: {', '.join(sorted(known)[:20])}", 600),
                cure='say what the node is called, in the fleet file: [targets."backend:name"] node = "…"',
            )
        return known[node]

    def _all(self) -> Mapping[str, State]:
        with self._lock:
            if self._known is None:
                self._known = {name_of(found): _state(found) for found in self.kube.list("nodes")}
            return self._known

    def is_here(self, node: str, uid: str) -> bool:
        """Whether this cluster has that very node."""
        found = self._all().get(node)
        return found is not None and uid in ("", found.uid)

    def take_up(self, run: str, cordoned: Mapping[str, str]) -> None:
        """Have those uncordoned that a run, now gone on with, had cordoned: names and their uids.

        Raises:
            ChangeRejected: this is another cluster.
        """
        for node, uid in cordoned.items():
            if not self.is_here(node, uid):
                raise ChangeRejected(
                    f"{self.place} does not have the node {node} that run {run} has cordoned",
                    evidence=f"its uid was {uid}; nothing was touched" if uid else "nothing was touched",
                    cure="give that run's cluster: --context NAME; where the node is gone for good, begin "
                    "a new run with the same targets",
                )
            self.left.add(node)

    @property
    def place(self) -> str:
        """Which cluster this is, for people, by the name of its context."""
        if self._place is None:
            place = self.kube.place
            if self.kube.context is None:
                with contextlib.suppress(Error):  # it has none; what is asked of it next says more
                    said = self.kube.run("config", "current-context").decode(errors="replace").strip()
                    place = printable(said, 100) or place
            self._place = place
        return self._place

    def would(self, node: str) -> str:
        """What is done to a node that is Ready, as a dry run says it."""
        lost = ", and pods with emptyDir volumes lose their data" if self.empty_dirs else ""
        return f"it would drain node {node} of {self.place} first{lost}"

    @contextmanager
    def away(self, node: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Cordon and drain a node that is Ready; whatever happens then, uncordon what was cordoned here."""
        before = self.now(node)
        ours = node in self.left or (before.ready and not before.cordoned)
        if ours and node not in self.left and self.notes is not None:
            self.notes.cordoning(node, before.uid)
        failure: Error | None = None
        try:
            if before.ready:
                tell(f"cordoning and draining {node}")
                self.kube.run("cordon", node)
                self._drain(node)
            yield
        except Error as error:
            failure = error
            raise
        finally:
            if ours:  # nothing is told here: a wish to stop would be raised at it
                self._give_back(node, failure)

    def _give_back(self, node: str, failure: Error | None) -> None:
        """Uncordon it; what is wrong with that is no fault of its VM, and is tried once more at the end."""
        try:
            self.uncordon(node)
        except Error:
            self.left.add(node)
            if failure is not None:
                still = f"the node {node} may still be cordoned: kubectl uncordon {node}"
                failure.cure = "; ".join(filter(None, (failure.cure, still)))

    def now(self, node: str) -> State:
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
        self.lost[node] = before.boot
        raise PowerError(
            f"the node {node} was not Ready within {self.timeout:.0f} s",
            evidence=seen,
            cure=f"see why: kubectl describe node {node}",
        )

    def refuse_while_lost(self) -> None:
        """No node goes down while one that was down before it has not come back.

        Raises:
            ChangeRejected: there is such a one.
        """
        for node, boot in sorted(self.lost.items()):
            state = self.now(node)
            if not state.ready or state.boot == boot:
                raise ChangeRejected(
                    f"the node {node} is not Ready, so that no other is drained",
                    evidence=f"it was down in this run, and is not back in {self.place}; nothing was touched",
                    cure=f"see why: kubectl describe node {node}",
                )
            self.lost.pop(node, None)


def _state(node: Object) -> State:
    status, metadata = node.get("status") or {}, node.get("metadata") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or []}
    labels = metadata.get("labels") or {}
    return State(
        ready=conditions.get("Ready") == "True",
        cordoned=bool((node.get("spec") or {}).get("unschedulable")),
        boot=str((status.get("nodeInfo") or {}).get("bootID") or ""),
        control_plane=any(label in labels for label in CONTROL_PLANE),
        uid=str(metadata.get("uid") or ""),
    )
