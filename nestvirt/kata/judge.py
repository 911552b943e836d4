"""What the API server says of Kata, judged. Pure: readings in, findings out; the proof is proof.py's.

A cure has NODE where the node's name belongs; see preflight.named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nestvirt.kata.api import at, name_of
from nestvirt.kata.causes import cause_of
from nestvirt.kata.cluster import Cluster, Deploy, Node
from nestvirt.kata.explain import of_pod
from nestvirt.kata.rollout import LABEL
from nestvirt.model import Finding, Layer, Status
from nestvirt.printable import printable

INSTALL = "nestvirt kata-install --config FILE"


def judge(
    cluster: Cluster, nodes: Sequence[Node], expected: Sequence[str] | None, logs: Mapping[str, bytes]
) -> list[Finding]:
    """All that can be said without a pod.

    Args:
        nodes: those on which Kata has to be.
        expected: the RuntimeClasses that there have to be, and no other; None for those that kata-deploy
            itself was told to make.
        logs: pod to the log of what does not run.
    """
    found = [_of_api(cluster)]
    if cluster.empty:
        return [*found, _finding("cluster-daemonset", Status.FAIL, NOTHING, INSTALL)]
    found += [_of_readiness(node) for node in nodes]
    found += _of_deploys(cluster, nodes, logs)
    found += [_of_label(node, cluster.deploys) for node in nodes]
    found.append(_of_classes(cluster, expected))
    return found


NOTHING = (
    "there is nothing of Kata on this cluster: no DaemonSet kata-deploy, no RuntimeClass, no labelled node"
)


def expected_classes(cluster: Cluster) -> tuple[str, ...]:
    """The RuntimeClasses that kata-deploy's own settings imply, over all architectures."""
    arches = {node.arch for node in cluster.nodes} or {"amd64"}
    return tuple(sorted({c for deploy in cluster.deploys for arch in arches for c in deploy.classes(arch)}))


def _of_api(cluster: Cluster) -> Finding:
    (major, minor), count = cluster.version, len(cluster.nodes)
    words = f"Kubernetes {major}.{minor}, {count} {'node' if count == 1 else 'nodes'}"
    return _finding("cluster-api", Status.PASS, words)


def _of_readiness(node: Node) -> Finding:
    if node.ready and node.cordoned:
        evidence = "ready, and cordoned: no pods of its users go there"
        return _finding("cluster-node-ready", Status.WARN, evidence, "kubectl uncordon NODE", node.name)
    if node.ready:
        return _finding("cluster-node-ready", Status.PASS, "ready", subject=node.name)
    status = Status.FAIL if node.ready is False else Status.UNKNOWN
    evidence = f"not ready: {printable(node.why, 300)}"
    return _finding("cluster-node-ready", status, evidence, "kubectl describe node NODE", node.name)


def _of_deploys(cluster: Cluster, nodes: Sequence[Node], logs: Mapping[str, bytes]) -> list[Finding]:
    check = "cluster-daemonset"
    if not cluster.deploys:
        evidence = "there is no DaemonSet kata-deploy, though there is more of Kata"
        cure = f"install it again: {INSTALL}; or remove the rest: nestvirt kata-uninstall"
        return [_finding(check, Status.FAIL, evidence, cure)]
    found = [finding for deploy in cluster.deploys for finding in _of_refusal(deploy)]
    placed = {name: deploy for deploy in cluster.deploys for name in deploy.pods}
    if not placed and not found:
        names = ", ".join(f"{d.namespace}/{d.name}" for d in cluster.deploys)
        found.append(_finding(check, Status.FAIL, f"{names} has no pod: it selects no node", _SELECTS))
    for node in nodes:
        deploy = placed.get(node.name)
        if deploy is not None:
            found.append(_of_pod(node, deploy, logs))
        elif placed:
            found.append(_finding(check, Status.WARN, "no pod of kata-deploy there", _SELECTS, node.name))
    return found


_SELECTS = (
    "see its nodeSelector and tolerations: kubectl get daemonsets -A -l app.kubernetes.io/managed-by=Helm"
)


def _of_refusal(deploy: Deploy) -> list[Finding]:
    """Its pods may be refused, which only its own events tell."""
    about = deploy.events.get(deploy.name, ())
    said = [str(at(event, "message")) for event in about if at(event, "reason") == "FailedCreate"]
    if not said or (deploy.desired is not None and deploy.desired == deploy.ready):
        return []
    cause = cause_of(said[-1])
    words = printable(said[-1], 500)
    if cause is None:
        evidence = f"its pods are not created: {words}"
        return [_finding("cluster-daemonset", Status.FAIL, evidence, _events_of(deploy))]
    cure = cause.cure.replace("NAME", deploy.namespace, 1)
    return [_finding("cluster-daemonset", Status.FAIL, f"{cause.words}: {words}", cure)]


def _events_of(deploy: Deploy) -> str:
    return f"see its events: kubectl describe daemonset -n {deploy.namespace} {deploy.name}"


def _of_pod(node: Node, deploy: Deploy, logs: Mapping[str, bytes]) -> Finding:
    check, pod = "cluster-daemonset", deploy.pods[node.name]
    name = name_of(pod)
    trouble = of_pod(pod, deploy.events.get(name, ()), logs.get(name, b""))
    if trouble is None:
        return _finding(check, Status.PASS, f"{deploy.name} is ready, of {deploy.image}", subject=node.name)
    return _finding(check, Status.FAIL, f"its pod: {trouble.evidence}", trouble.cure, node.name)


def _of_label(node: Node, deploys: Sequence[Deploy]) -> Finding:
    check = "cluster-node-label"
    if node.label == "true":
        return _finding(check, Status.PASS, f"{LABEL}=true", subject=node.name)
    said = "false: kata-deploy has not done yet" if node.label == "false" else node.label or "not there"
    evidence = f"{LABEL} is {printable(said, 100)}"
    look = "nestvirt kata-logs --node NODE"
    cure = look if node.label == "false" else f"{again(node, deploys)}; if that does not help: {look}"
    return _finding(check, Status.FAIL, evidence, cure, node.name)


def again(node: Node, deploys: Sequence[Deploy]) -> str:
    """How kata-deploy is made to do its work on a node once more: Helm sees nothing to change there."""
    for deploy in deploys:
        pod = deploy.pods.get(node.name)
        if pod is not None:
            return (
                f"let kata-deploy work there again: kubectl delete pod -n {deploy.namespace} {name_of(pod)}"
            )
    return INSTALL


def _of_classes(cluster: Cluster, expected: Sequence[str] | None) -> Finding:
    check = "cluster-runtimeclass"
    wanted = set(expected_classes(cluster) if expected is None else expected)
    present = {c.name: c.handler for c in cluster.classes}
    missing = sorted(wanted - present.keys())
    if missing:
        return _finding(check, Status.FAIL, f"missing: {', '.join(missing)}", INSTALL)
    more = sorted(present.keys() - wanted)
    # An alias (kata) and a shim's debug class are kata-deploy's own, too.
    stale = [c for c in more if present[c].removesuffix("-debug") not in wanted] if expected is None else more
    if stale and wanted:
        evidence = f"there are more than the shims that are on: {printable(', '.join(stale), 300)}"
        cure = f"kubectl delete runtimeclasses {' '.join(stale[:5])}"
        return _finding(check, Status.WARN, evidence, cure)
    if not wanted:
        return _finding(check, Status.FAIL, "no shim is on", INSTALL)
    shown = ", ".join(f"{name} (handler {present[name]})" for name in sorted(present)[:8])
    return _finding(check, Status.PASS, f"as they should be: {shown}")


def skipped(check: str, why: str, subject: str = "") -> Finding:
    """A question that was not asked."""
    return _finding(check, Status.SKIP, f"not asked: {why}", subject=subject)


def _finding(check: str, status: Status, evidence: str, cure: str = "", subject: str = "") -> Finding:
    return Finding(check, Layer.CLUSTER, status, evidence, cure, subject=subject)
