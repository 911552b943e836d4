"""The cluster whose nodes a run's VMs are: which it is, and how its nodes stand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nestvirt.errors import AccessDenied, ChangeRejected, Error, TargetError
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.kube import Kube
from nestvirt.printable import printable

CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
WHOSE_UID = "kube-system"
"""The namespace that each cluster has, and whose uid is taken for the cluster's own."""


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
class Cluster:
    """One cluster; it is asked when it is first needed, and what that came to holds for the whole run.

    Attributes:
        kube: what asks it.
        uid: what no other cluster has; known once it was asked, if the user may know it.
    """

    kube: Kube
    uid: str = ""
    _before: tuple[str, str, str] | None = None
    _known: Mapping[str, State] | Error | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def meant(cls, kube: Kube) -> Cluster:
        """The one that the user means now; which context is current later does not count."""
        if kube.context is None:
            with contextlib.suppress(Error):  # there is none; what is asked of it next says more
                said = kube.run("config", "current-context").decode(errors="replace").strip()
                kube = replace(kube, context=said or None)
        return cls(kube)

    @property
    def place(self) -> str:
        """Which it is, for people, by the name of its context."""
        return printable(self.kube.place, 100)

    def expect(self, run: str, uid: str, instead: str) -> None:
        """Refuse another one than that of the run that is gone on with, or taken back.

        Args:
            uid: that cluster's; empty where it is not known.
            instead: what the user can do without it.
        """
        self._before = (run, uid, instead) if uid else None

    def known(self) -> Mapping[str, State]:
        """Its nodes as they were at first; what is done to one updates that one.

        Raises:
            ChangeRejected: it is another one than expected.
            Error: it cannot be asked; the same each time.
        """
        with self._lock:
            if self._known is None:
                try:
                    self._known = self._first()
                except Error as error:
                    self._known = error
            if isinstance(self._known, Error):
                raise self._known.with_traceback(None)
            return self._known

    def _first(self) -> Mapping[str, State]:
        with contextlib.suppress(AccessDenied):  # who may drain need not read namespaces
            found = self.kube.get("namespaces", WHOSE_UID)
            self.uid = str(at(found, "metadata", "uid") or "")
        run, then, instead = self._before or ("", self.uid, "")
        if self.uid != then:
            raise ChangeRejected(
                f"{self.place} is not {'' if self.uid else 'known to be '}the cluster of run {run}",
                evidence=f"its uid is {printable(self.uid, 60) or 'unknown'}, and was {then}; "
                "nothing was touched",
                cure=f"give that run's cluster: --context NAME; or {instead}"
                if self.uid
                else f"have its user read the namespace {WHOSE_UID}, as then; or {instead}",
            )
        return self.all_now()

    def all_now(self) -> Mapping[str, State]:
        """All its nodes, as they are now."""
        return {name_of(found): state_of(found) for found in self.kube.list("nodes")}

    def state(self, node: str) -> State:
        """How a node stood when it was last asked about.

        Raises:
            TargetError: the cluster has no such node.
        """
        known = self.known()
        if node not in known:
            raise TargetError(
                f"{self.place} has no node {printable(node, 100)!r}",
                evidence=printable(f"it has: {', '.join(sorted(known)[:20])}", 600),
                cure='say what the node is called, in the fleet file: [targets."backend:name"] node = "…"',
            )
        return known[node]

    def now(self, node: str) -> State:
        """How a node stands now: others may have cordoned it since the run began.

        Raises:
            ChangeRejected: it is not the node any more that it was.
        """
        was, found = self.state(node), self.kube.get("nodes", node)
        now = state_of(found) if found is not None else None
        if now is None or now.uid != was.uid:
            raise ChangeRejected(
                f"the node {node} of {self.place} is not the one any more that the run began with",
                evidence=f"its uid was {was.uid}, and is {printable(now.uid, 60)}" if now else "it is gone",
                cure="nothing more was done to it; run this again to see the new plan",
            )
        with self._lock:
            if isinstance(self._known, Mapping):
                self._known = {**self._known, node: now}
        return now

    def is_cordoned(self, node: str) -> bool:
        """Whether a node is so now; who seems not to be is asked about once more."""
        return self.state(node).cordoned or self.now(node).cordoned

    def has(self, node: str, uid: str) -> bool:
        """Whether it has that very node; an empty uid is any node of that name."""
        found = self.known().get(node)
        return found is not None and uid in ("", found.uid)


def state_of(node: Object) -> State:
    """What an API's object says of a node."""
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
