"""From "Helm is done" to "Kata is on the nodes": followed by watches, through an API server that restarts.

kata-deploy's DaemonSet is ready before its work is (3.25 has no readiness probe): what tells of the end is
the label that it puts on a node.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from nestvirt.errors import Error
from nestvirt.kata import explain
from nestvirt.kata.api import Object, Query, at, name_of
from nestvirt.kata.kube import Kube
from nestvirt.kata.node_checks import some
from nestvirt.kata.pods import Tell
from nestvirt.model import Finding, Layer, Status

LABEL = "katacontainers.io/kata-runtime"
"""kata-deploy's label: true once Kata is installed on the node; 4.x says false until then."""
PATIENCE = 300.0
"""Seconds that an API server may take to come back: rke2 and k3s restart it for kata-deploy."""
STUCK_SECONDS = 60.0
"""Seconds after which pods that all hang by themselves are given up, or a fifth of the timeout where that is
less. An image is tried again after 10, 20 and 40 s."""
TICK = 2.0
RESTARTS = 3
"""A kata-deploy whose API server goes away crashes, and does its work after that: so often is enough."""

_STUCK = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}
_STUCK |= {"CreateContainerConfigError", "RunContainerError"}
_OWN_TAINTS = "node.kubernetes.io/"


def daemonset_of(objects: Sequence[Object]) -> Object | None:
    """kata-deploy's DaemonSet among rendered objects."""
    found = [o for o in objects if o.get("kind") == "DaemonSet"]
    return next((o for o in found if name_of(o).startswith("kata-deploy")), None)


def is_deployer(pod: Object, namespace: str) -> bool:
    """Whether it is one of the DaemonSet's pods."""
    meta = pod["metadata"]
    return bool(meta.get("namespace") == namespace and at(meta, "labels", "name") == "kata-deploy")


def is_probed(template: Object) -> bool:
    """Whether pods of that template are ready only when kata-deploy is done: from 3.31 on."""
    containers = at(template, "spec", "containers")
    return isinstance(containers, list) and any(at(c, "readinessProbe") for c in containers)


@contextmanager
def lowered(kube: Kube, namespace: str, labelled: Sequence[str], tell: Tell) -> Iterator[None]:
    """Set the label to false on nodes that have it from before, so that only new pods set it again.

    Until then no pod of Kata is scheduled there, which is right while its runtime is replaced. Where the
    DaemonSet comes out of it as it was, its pods stay, and the label is put back here.
    """
    before = _version(kube, namespace) if labelled else None
    try:
        for name in labelled:
            tell("holding", f"further pods of Kata on {name}")
            kube.label("nodes", name, {LABEL: "false"})
        yield
    finally:
        try:
            if labelled and _version(kube, namespace) == before:
                for name in labelled:
                    kube.label("nodes", name, {LABEL: "true"})
        except Error as error:  # what happened before is what counts
            command = f"kubectl label --overwrite nodes {' '.join(labelled)} {LABEL}=true"
            tell("not put back:", f"{error.message}; where kata-deploy was not changed: {command}")


def _version(kube: Kube, namespace: str) -> tuple[str, str] | None:
    """What changes as soon as the DaemonSet makes other pods."""
    found = kube.get("daemonsets", "kata-deploy", namespace=namespace)
    return (str(at(found, "metadata", "uid")), str(at(found, "metadata", "generation"))) if found else None


def reach(daemonset: Object, node: Object) -> str:
    """Why a DaemonSet does not go to a node; empty where it does.

    DaemonSets tolerate what Kubernetes itself taints nodes with.
    """
    spec = at(daemonset, "spec", "template", "spec")
    labels, selector = at(node, "metadata", "labels") or {}, at(spec, "nodeSelector") or {}
    if labels.get("kubernetes.io/os", "linux") != "linux":
        return "it does not run Linux"
    missing = [f"{key}={value}" for key, value in selector.items() if labels.get(key) != value]
    if missing:
        return f"it lacks the label {', '.join(missing)}"
    tolerations = at(spec, "tolerations") or []
    for taint in at(node, "spec", "taints") or []:
        key, effect = str(at(taint, "key")), at(taint, "effect")
        own = key.startswith(_OWN_TAINTS) or effect == "PreferNoSchedule"
        if not own and not any(_tolerates(toleration, taint) for toleration in tolerations):
            return f"its taint {key}:{effect} is not tolerated"
    return ""


def _tolerates(toleration: Object, taint: Object) -> bool:
    key, effect = at(toleration, "key"), at(toleration, "effect")
    if effect and effect != at(taint, "effect"):
        return False
    if at(toleration, "operator") == "Exists":
        return not key or key == at(taint, "key")
    return bool(key == at(taint, "key") and (at(toleration, "value") or "") == (at(taint, "value") or ""))


@dataclass
class _State:
    """What has been seen of it."""

    daemonset: Object | None = None
    pods: dict[str, Object] = field(default_factory=dict)
    nodes: dict[str, Object] = field(default_factory=dict)
    events: dict[str, dict[str, Object]] = field(default_factory=dict)

    def see(self, kind: str, change: str, found: Object) -> None:
        """One change."""
        if kind == "daemonsets":
            self.daemonset = None if change == "DELETED" else found
        elif kind == "events":
            self.events.setdefault(str(at(found, "involvedObject", "name")), {})[name_of(found)] = found
        else:
            kept = self.pods if kind == "pods" else self.nodes
            if change == "DELETED":
                kept.pop(name_of(found), None)
            else:
                kept[name_of(found)] = found

    def count(self, name: str) -> int:
        """A number of the DaemonSet's status."""
        value = at(self.daemonset, "status", name)
        return value if isinstance(value, int) else 0

    @property
    def observed(self) -> bool:
        """Whether its controller has read what Helm has written."""
        written = at(self.daemonset, "metadata", "generation")
        return isinstance(written, int) and self.count("observedGeneration") >= written

    def rolled_out(self, wanted: int, beyond: int = 0) -> bool:
        """Whether all of its pods are new and ready, but for ``beyond`` on nodes that are not waited for."""
        counts = [self.count(name) for name in ("updatedNumberScheduled", "numberReady")]
        desired = self.count("desiredNumberScheduled") - beyond
        return self.observed and desired >= wanted and all(count >= desired for count in counts)

    def done(self, targets: Sequence[str]) -> bool:
        """The same of those nodes' pods: one that is not ready, and keeps its label, is not waited for."""
        beyond = sum(node_of(pod) not in targets for pod in self.pods.values())
        return self.rolled_out(len(targets), beyond)

    def labelled(self, node: str) -> bool:
        """Whether kata-deploy says that Kata is on the node."""
        return bool(at(self.nodes.get(node), "metadata", "labels", LABEL) == "true")


def wait(
    kube: Kube, namespace: str, daemonset: str, targets: Sequence[str], *, timeout: float, tell: Tell
) -> list[Finding]:
    """Wait until the DaemonSet is ready and every node has the label; say what hangs where it does not.

    Args:
        targets: the names of the nodes that have to get it.

    Returns:
        cluster-daemonset and cluster-node-label of each node.
    """
    patient = kube.patient(PATIENCE)
    selector = f"name={daemonset}"
    queries = [
        Query("daemonsets", namespace, fields=f"metadata.name={daemonset}"),
        Query("pods", namespace, selector),
        Query("nodes"),
        Query("events", namespace, fields="involvedObject.kind=Pod,type=Warning"),
    ]
    state, told = _State(), -1
    given_up, hanging_since = min(STUCK_SECONDS, timeout / 5), time.monotonic()
    tell("waiting for", f"kata-deploy on {some(targets)}")
    with closing(patient.watches(queries, timeout=timeout, quiet=TICK)) as changes:
        for kind, change, found in changes:
            if found:
                state.see(kind, change, found)
            if not _hopeless(state, targets):
                hanging_since = time.monotonic()
            elif time.monotonic() - hanging_since > given_up:
                break
            done = sum(state.labelled(node) for node in targets)
            if done != told and state.nodes:
                tell("waiting for", f"kata-deploy: {done} of {len(targets)} nodes have it")
                told = done
            if done == len(targets) and state.done(targets):
                break
    return _judged(patient, namespace, state, targets)


def _hopeless(state: _State, targets: Sequence[str]) -> bool:
    """Whether all that is still waited for hangs by itself."""
    waiting = [pod for pod in state.pods.values() if not _done(state, pod)]
    return bool(waiting) and all(_stuck(pod) for pod in waiting) and len(state.pods) >= len(targets)


def _done(state: _State, pod: Object) -> bool:
    return state.labelled(node_of(pod)) and explain.of_pod(pod) is None


def _stuck(pod: Object) -> bool:
    statuses = at(pod, "status", "containerStatuses")
    for status in statuses if isinstance(statuses, list) else ():
        reason = at(status, "state", "waiting", "reason")
        restarts = at(status, "restartCount")
        often = isinstance(restarts, int) and restarts >= RESTARTS
        if reason in _STUCK or (reason == "CrashLoopBackOff" and often):
            return True
    return False


def node_of(pod: Object) -> str:
    """The node that a DaemonSet's pod is for, also while it has not been placed."""
    if at(pod, "spec", "nodeName"):
        return str(at(pod, "spec", "nodeName"))
    affinity = at(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    for term in at(affinity, "nodeSelectorTerms") or []:
        for wanted in at(term, "matchFields") or []:
            if at(wanted, "key") == "metadata.name":
                return str((at(wanted, "values") or [""])[0])
    return ""


def _judged(kube: Kube, namespace: str, state: _State, targets: Sequence[str]) -> list[Finding]:
    pods: Mapping[str, Object] = {node_of(pod): pod for pod in state.pods.values()}
    found: list[Finding] = []
    for node in targets:
        pod, labelled = pods.get(node), state.labelled(node)
        trouble = None
        if pod is not None and not (labelled and state.done(targets)):
            events = tuple(state.events.get(name_of(pod), {}).values())
            trouble = explain.of_pod(pod, events, b"" if labelled else _log(kube, namespace, pod))
        found.append(_of_daemonset(node, pod, trouble, state))
        if labelled:
            found.append(_finding("cluster-node-label", node, Status.PASS, f"{LABEL}=true"))
        else:
            evidence = f"{LABEL} is not true there" + (f"; {trouble.evidence}" if trouble else "")
            cure = (
                trouble.cure
                if trouble
                else f"see what it does: kubectl logs -n {namespace} -l name=kata-deploy"
            )
            found.append(_finding("cluster-node-label", node, Status.FAIL, evidence, cure))
    return found


def _of_daemonset(node: str, pod: Object | None, trouble: explain.Trouble | None, state: _State) -> Finding:
    check = "cluster-daemonset"
    if trouble is not None:
        return _finding(check, node, Status.FAIL, trouble.evidence, trouble.cure)
    if pod is None and not state.rolled_out(1):
        words = "it has no pod for the node" if state.observed else "its controller has not looked at it yet"
        cure = "see why: kubectl describe daemonset kata-deploy"
        return _finding(check, node, Status.FAIL, words, cure)
    return _finding(check, node, Status.PASS, "kata-deploy's pod is ready")


def _finding(check: str, node: str, status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding(check, Layer.CLUSTER, status, evidence, cure, subject=node)


def _log(kube: Kube, namespace: str, pod: Object) -> bytes:
    """The end of what kata-deploy has written there, if it has."""
    try:
        return kube.log(name_of(pod), namespace=namespace, container="kube-kata", tail=20)
    except Error:  # it has not started; what hangs is said by its state
        return b""
