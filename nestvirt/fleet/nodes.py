"""VMs that are nodes of a Kubernetes cluster: cordoned and drained before they go down, uncordoned when they
are Ready again.

What somebody else had cordoned stays so. The cluster is asked through kubectl, whose own drain this is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from nestvirt.backends.base import moments
from nestvirt.errors import ChangeRejected, ConnectionFailed, Error, Interrupted, JournalError, PowerError
from nestvirt.fleet.cluster import Cluster, State, state_of

GRACE = 30.0
"""Seconds that kubectl's drain gets beyond its own time limit."""
STALE = 60.0
"""Seconds for which a node that is gone may still be called Ready; the cluster itself waits 40 to 50."""


class Notes(Protocol):
    """Where it is written down beforehand what is done to a node; see FleetRecord."""

    def cordoning(self, node: str, uid: str) -> None:
        """It is about to be cordoned; its uid tells it from those of other clusters."""

    def uncordoned(self, node: str) -> None:
        """It is not cordoned any more."""

    def leaving(self, node: str, uid: str, boot: str) -> None:
        """It is about to go down; the boot tells what it is now from what it is when it is back."""

    def back(self, node: str) -> None:
        """It is Ready again, or has not been down."""


@dataclass
class Trip:
    """A node that is away.

    Attributes:
        before: how it stood.
        awaited: whether it is to be Ready again afterwards.
        drained: whether it was, for this.
        stopped: whether its VM was off; who works on the VM says so.
        started: whether its VM was started afterwards; likewise.
        ended: whether it is known what came of it.
    """

    before: State
    awaited: bool
    drained: bool = False
    stopped: bool = False
    started: bool = False
    ended: bool = False


@dataclass
class Nodes:
    """The nodes of one cluster.

    Attributes:
        timeout: seconds for each of: the drain, and that a node is Ready again.
        empty_dirs: whether pods with data in emptyDir volumes may be evicted, and lose it.
        notes: where it is written down; nobody's before there is something to be changed.
        left: nodes that are to be uncordoned: this run, or one before it, had cordoned them.
        lost: nodes that this run, or one before it, has had down and not seen back, with the boot before;
            empty where any boot will do.
        whose: those of them that are another run's, and the command that goes on with that.
        of_run: nodes whose VMs are of this run, and run.
        due: nodes that are down at this moment, or are to be started first: it is --batch that counts them.
        in_haste: whether the user wants to wait for nothing more.
    """

    cluster: Cluster
    notes: Notes | None
    timeout: float
    empty_dirs: bool = False
    left: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)
    whose: dict[str, str] = field(default_factory=dict)
    of_run: set[str] = field(default_factory=set)
    due: set[str] = field(default_factory=set)
    in_haste: Callable[[], bool] = lambda: False
    _waited: set[str] = field(default_factory=set)  # for whom the time is over

    def would(self, node: str) -> str:
        """What is done to a node that is Ready, as a dry run says it."""
        lost = ", and pods with emptyDir volumes lose their data" if self.empty_dirs else ""
        return f"it would drain node {node} of {self.cluster.place} first{lost}"

    def remember(self, node: str, boot: str, since: float, again: str = "") -> None:
        """An earlier run has had it down, and did not see it back.

        Args:
            since: when, by the clock.
            again: the command that goes on with that run; empty where this one does.
        """
        stale = time.time() - since > self._stale  # then Ready is Ready, whatever its boot
        self.lost[node] = "" if stale else boot
        if again:
            self.whose[node] = again

    @property
    def _stale(self) -> float:
        return self.timeout + STALE

    def is_away(self, node: str, now: State) -> bool:
        """Whether it is not seen back by now."""
        return not now.ready or now.boot == self.lost.get(node)

    @contextmanager
    def away(self, node: str, tell: Callable[[str], None], *, drain: bool) -> Iterator[Trip]:
        """Have a node drained, and Ready again afterwards, and uncordoned if it was cordoned here.

        A node that does not come back stays cordoned.

        Args:
            node: whose VM may go down meanwhile.
            tell: told of what takes its time.
            drain: whether its VM runs; else there is nothing to be drained.

        Raises:
            ChangeRejected: another one of the run is not back, or not Ready.
            PowerError: it was not Ready again in time.
            Interrupted: the user's wish to stop, after the drain.
        """
        if drain:
            self._have_others_back(node, tell)
        before = self.cluster.now(node)
        ours = node in self.left or (drain and not before.cordoned)
        trip = Trip(before, awaited=drain or before.ready or node in self.left or node in self.lost)
        failure: Error | None = None
        self.due.add(node)
        try:
            if drain:
                self._drain(node, before, tell, ours=ours and node not in self.left)
                trip.drained = True
            if self.notes is not None:
                self.notes.leaving(node, before.uid, before.boot)
            self.lost[node] = before.boot
            self.whose.pop(node, None)
            yield trip
            self._ended(node, trip)
        except KeyboardInterrupt as wish:
            if not trip.drained:
                raise
            failure = Interrupted(f"stopped when its node {node} was drained", cure="the VM was not touched")
            raise failure from wish
        except Error as error:
            failure = error
            if trip.drained and not trip.stopped:
                failure.cure = "; ".join(filter(None, (failure.cure, f"its node {node} was drained")))
            raise
        finally:
            with contextlib.suppress(Error):  # what went wrong before is what the user has to know
                self._ended(node, trip)
            if ours:  # nothing is told here: a wish to stop would be raised at it
                self._give_back(node, failure)

    def _have_others_back(self, node: str, tell: Callable[[str], None]) -> None:
        """Before this one is drained: no other is away that was, nor not Ready, nor cordoned by this run."""
        for other in sorted(self.lost.keys() - self.due - self._waited - {node}):
            tell(f"waiting for the node {other}")
            with contextlib.suppress(PowerError):
                self.wait_ready(other)
        now = self.cluster.all_now()
        for other in sorted((self.of_run | self.lost.keys()) & now.keys() - self.due - {node}):
            if self.is_away(other, now[other]):
                error = self._in_the_way(other, ready=now[other].ready)
                error.cure += f". Nothing of {node} was touched"
                raise error
            self._is_back(other)
        for other in sorted(self.left - self.due - {node}):
            try:
                self.uncordon(other)
            except Error as error:
                raise ChangeRejected(
                    f"the node {other} is cordoned still, so that no other is drained",
                    evidence=f"{error.message}: {error.evidence}",
                    cure=f"{error.cure}. Nothing of {node} was touched",
                ) from error

    def _in_the_way(self, node: str, *, ready: bool) -> ChangeRejected:
        """Why no other is drained, and what helps."""
        state = "is of the same boot as before it was to go down" if ready else "is not Ready"
        seen, again = f"see why: kubectl describe node {node}", self.whose.get(node)
        evidence = f"its VM is one of this run's; {self.cluster.place} says so"
        cure = f"{seen}; or begin a run without it"
        if node in self.lost:
            whose = "another run" if again else "the run"
            evidence = f"{whose} has had it down, or was about to, and has not seen it back"
            cure = f"go on with that run: {again}" if again else seen
            cure += (
                f"; or begin this again: {self._stale:.0f} s after it was to go down, Ready is enough"
                if ready
                else f"; where it is never to come back: kubectl delete node {node}"
            )
        return ChangeRejected(
            f"the node {node} {state}, so that no other is drained", evidence=evidence, cure=cure
        )

    def _drain(self, node: str, before: State, tell: Callable[[str], None], *, ours: bool) -> None:
        tell(f"cordoning and draining {node}")
        if ours and self.notes is not None:
            self.notes.cordoning(node, before.uid)
        words = ["--ignore-daemonsets", f"--timeout={self.timeout:.0f}s"]
        words += ["--delete-emptydir-data"] if self.empty_dirs else []
        self.cluster.kube.run("cordon", node)
        try:
            replace(self.cluster.kube, timeout=self.timeout + GRACE).run("drain", node, *words)
        except Error as error:
            error.cure = f"see what holds its pods: kubectl drain {node} --dry-run=server; {error.cure}"
            raise

    def _ended(self, node: str, trip: Trip) -> None:
        """Its VM is as it will be: have the node Ready again, if it was started."""
        self.due.discard(node)
        if trip.ended:
            return
        trip.ended = True
        if trip.started and trip.awaited:
            self.wait_ready(node)
        elif trip.started or not trip.stopped:
            self._is_back(node)

    def _give_back(self, node: str, failure: Error | None) -> None:
        """Uncordon it, if it is back. What is wrong with that is no fault of its VM, and is tried again."""
        try:
            if node not in self.lost:
                self.uncordon(node)
                return
        except Error:
            pass
        self.left.add(node)
        if failure is not None:
            still = f"the node {node} may still be cordoned: kubectl uncordon {node}"
            failure.cure = "; ".join(filter(None, (failure.cure, still)))

    def uncordon(self, node: str) -> None:
        """Uncordon what this run, or one before it, has cordoned."""
        try:
            self.cluster.kube.patient(self.timeout).run("uncordon", node)
        except Error as error:
            error.cure = f"run this again, or do it by hand: kubectl uncordon {node}; {error.cure}"
            raise
        self.left.discard(node)
        if self.notes is not None:
            self.notes.uncordoned(node)

    def give_back(self, node: str) -> None:
        """At the end of a run, uncordon one that is left; it has to be Ready by then.

        Raises:
            PowerError: it is not.
        """
        now = self.cluster.now(node)
        if self.is_away(node, now):
            try:
                if node in self._waited:
                    raise self._late(node, "it was waited for")
                self.wait_ready(node)
            except PowerError as error:
                by_hand = f"or you do it by hand: kubectl uncordon {node}"
                error.cure += f"; it stays cordoned until this is run again, {by_hand}"
                raise
        self._is_back(node)
        self.uncordon(node)

    def wait_ready(self, node: str) -> None:
        """Return when it is Ready again: of another boot than before, for a node is called so for a while.

        Raises:
            PowerError: it was not in time.
        """
        before, seen = self.lost.get(node, ""), "it was not to be found"
        for _ in moments(time.monotonic() + self.timeout):
            try:
                found = self.cluster.kube.get("nodes", node)
            except ConnectionFailed as error:  # its API server may be on that very node
                seen = f"{error.message}: {error.evidence}"
                continue
            if found is not None:
                now = state_of(found)
                if now.ready and (now.boot != before or not before):
                    self._is_back(node)
                    return
                seen = "its kubelet has not reported since its start" if now.ready else "it is not Ready"
            if self.in_haste():
                seen = f"the run was stopped; {seen}"
                break
        self._waited.add(node)
        raise self._late(node, seen)

    def _late(self, node: str, seen: str) -> PowerError:
        late = "is not Ready yet" if self.in_haste() else f"was not Ready within {self.timeout:.0f} s"
        return PowerError(
            f"the node {node} {late}",
            evidence=seen,
            cure=f"see why: kubectl describe node {node}",
        )

    def _is_back(self, node: str) -> None:
        self._waited.discard(node)
        self.whose.pop(node, None)
        if self.lost.pop(node, None) is not None and self.notes is not None:
            with contextlib.suppress(JournalError):  # then the next run looks for itself
                self.notes.back(node)
