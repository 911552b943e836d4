"""Does Kata work on this cluster? Readings, and then the proof on each node with each RuntimeClass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nestvirt.errors import AccessDenied, Error, TargetError
from nestvirt.kata import cluster, judge, nodefiles, pods, proof
from nestvirt.kata.api import name_of
from nestvirt.kata.cluster import Cluster, Deploy, Node, RuntimeClass
from nestvirt.kata.explain import of_pod
from nestvirt.kata.kube import Kube
from nestvirt.kata.node_checks import some
from nestvirt.kata.pods import Outcome, Tell
from nestvirt.kata.preflight import named, ordered
from nestvirt.model import Finding, Layer, Status
from nestvirt.printable import printable

LINES = 50
"""Lines of the log of a pod that does not run."""
MOST_LOGS = 5
"""Pods whose logs are read, where many do not run; they commonly say the same."""


@dataclass(frozen=True)
class Manner:
    """How it is checked.

    Attributes:
        namespace: where the short pods run, and where kata-deploy is looked for first.
        release: Helm's.
        image: of the short pods.
        timeout: seconds within which they have to end.
        nodes: only these; none for all on which there is to be Kata.
        classes: the RuntimeClasses that there have to be, and no other; None for those that kata-deploy says.
        pods: whether pods are started; without them there is no proof.
    """

    namespace: str
    release: str
    image: str
    timeout: float
    tell: Tell
    nodes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    pods: bool = True


@dataclass(frozen=True)
class Checked:
    """What came of it.

    Attributes:
        findings: in the order of the chain.
        remains: what could not be cleaned up, as what to do.
        summary: the headline where all is well.
    """

    findings: tuple[Finding, ...]
    remains: tuple[str, ...] = ()
    summary: str = ""


def check(kube: Kube, manner: Manner) -> Checked:
    """Read the cluster, run the proof, clean up.

    Raises:
        TargetError: there is no such node.
        AccessDenied, ConnectionFailed: the cluster refuses, or does not answer.
    """
    manner.tell("reading", "nodes, RuntimeClasses and kata-deploy")
    known = cluster.read(kube, manner.namespace)
    nodes = _chosen(known, manner)
    found = judge.judge(known, nodes, manner.classes, _logs(kube, known, nodes))
    if known.empty:
        return Checked(tuple(found), summary="")
    found += _release(kube, known, manner)
    classes = _proven(known, manner)
    outcomes = _run(kube, known, nodes, classes, manner) if manner.pods else []
    for node in nodes:
        found += _of_node(known, node, classes, [o for o in outcomes if o.task.node == node.name], manner)
    found += _unproven(known, nodes, classes, manner)
    found += _of_nothing(known, nodes, found, manner)
    remains = tuple(dict.fromkeys(f"short pods are left: {o.remains}" for o in outcomes if o.remains))
    return Checked(tuple(ordered(named(found))), remains, _summary(found))


def _chosen(known: Cluster, manner: Manner) -> tuple[Node, ...]:
    missing = [name for name in manner.nodes if known.node(name) is None]
    if missing:
        raise TargetError(
            f"there is no node {printable(missing[0], 100)}",
            evidence=f"the nodes are {printable(', '.join(node.name for node in known.nodes), 500)}",
            cure="see: kubectl get nodes",
        )
    if manner.nodes:
        return tuple(node for node in known.nodes if node.name in manner.nodes)
    return known.targets()


def _proven(known: Cluster, manner: Manner) -> tuple[RuntimeClass, ...]:
    """One RuntimeClass for each handler: an alias shows nothing new."""
    wanted = manner.classes if manner.classes is not None else judge.expected_classes(known)
    there = {c.name: c for c in known.classes if c.name in wanted or not wanted}
    chosen: dict[str, RuntimeClass] = {}
    for name in sorted(there, key=lambda n: (n != there[n].handler, n)):
        chosen.setdefault(there[name].handler, there[name])
    return tuple(chosen.values())


def _for_node(known: Cluster, node: Node, classes: Sequence[RuntimeClass]) -> list[RuntimeClass]:
    """Those of its architecture's shims."""
    arch = {name for deploy in known.deploys for name in deploy.classes(node.arch)}
    other = set(judge.expected_classes(known)) - arch
    return [c for c in classes if c.name not in other]


def _run(
    kube: Kube, known: Cluster, nodes: Sequence[Node], classes: Sequence[RuntimeClass], manner: Manner
) -> list[Outcome]:
    tasks = []
    for node in nodes:
        if node.ready is not True:
            continue
        deploy = _deploy_of(known, node)
        if deploy is not None:
            tasks.append(nodefiles.task(node, deploy, manner.image))
        names = [None, *(c.name for c in _for_node(known, node, classes))]
        tasks += [proof.task(node.name, manner.image, name) for name in names]
    kube = kube.patient(manner.timeout)  # so long is waited for the pods anyway
    return pods.run(kube, tasks, namespace=manner.namespace, timeout=manner.timeout, tell=manner.tell)


def _deploy_of(known: Cluster, node: Node) -> Deploy | None:
    there = [deploy for deploy in known.deploys if node.name in deploy.pods]
    return next(iter(there or known.deploys), None)


def _of_node(
    known: Cluster,
    node: Node,
    classes: Sequence[RuntimeClass],
    outcomes: Sequence[Outcome],
    manner: Manner,
) -> list[Finding]:
    """The findings of a node's files and pods."""
    mine = _for_node(known, node, classes)
    deploy = _deploy_of(known, node)
    shown = next((o for o in outcomes if o.task.purpose == nodefiles.PURPOSE), None)
    found = nodefiles.judge(node, deploy, mine, shown) if deploy is not None else []
    if not outcomes:
        why = "no pods were wanted" if not manner.pods else "the node is not ready"
        asked = [proof.STANDARD, *([nodefiles.FILES] if deploy else [])]
        skipped = [judge.skipped(check, why, node.name) for check in asked]
        return [*found, *skipped, *(judge.skipped(proof.KATA, why, f"{node.name}/{c.name}") for c in mine)]
    standard = next((o for o in outcomes if o.task.purpose == proof.BESIDE), None)
    kata = {o.task.runtime_class: o for o in outcomes if o.task.runtime_class is not None}
    return found + proof.judge(node, standard, kata)


def _unproven(
    known: Cluster, nodes: Sequence[Node], classes: Sequence[RuntimeClass], manner: Manner
) -> list[Finding]:
    """The nodes that no RuntimeClass fits, as no shim is on for their architecture: none is tried there."""
    bare = [node for node in nodes if manner.pods and not _for_node(known, node, classes)]
    cure = f"turn a shim on that runs there: {judge.INSTALL}; or leave NODE out with the chart's nodeSelector"
    return [
        _unknown(f"not proven: there is no RuntimeClass for {printable(node.arch, 20)}", cure, node.name)
        for node in bare
    ]


def _of_nothing(
    known: Cluster, nodes: Sequence[Node], found: Sequence[Finding], manner: Manner
) -> list[Finding]:
    """That nothing was proven, where no proof says so itself: silence is no success."""
    if any(f.check == proof.KATA and f.status is not Status.SKIP for f in found):
        return []
    if not manner.pods:
        return [_unknown("nothing was proven: no pods were wanted", "nestvirt kata-check")]
    if nodes:
        return [_unknown("nothing was proven: no pod could be tried on any node", _AGAIN)]
    placed = {name for deploy in known.deploys for name in deploy.pods if name}
    where = "kata-deploy has no pod on any node"
    if placed:  # or their nodes would be among those that are asked
        where = f"kata-deploy has pods on nodes that are gone ({some(sorted(placed))})"
    evidence = f"nothing was proven: {printable(where, 300)}, and no node is labelled"
    return [_unknown(evidence, "see where its pods are: kubectl get nodes; kubectl get pods -A -o wide")]


_AGAIN = "cure what is told of the nodes, and then nestvirt kata-check again"


def _unknown(evidence: str, cure: str, subject: str = "") -> Finding:
    return Finding(proof.KATA, Layer.CLUSTER, Status.UNKNOWN, evidence, cure, subject=subject)


def _logs(kube: Kube, known: Cluster, nodes: Sequence[Node]) -> dict[str, bytes]:
    """The last words of kata-deploy's pods that do not run."""
    found: dict[str, bytes] = {}
    names = {node.name for node in nodes}
    for deploy in known.deploys:
        for node, pod in deploy.pods.items():
            trouble = of_pod(pod, deploy.events.get(name_of(pod), ()))
            if node in names and trouble is not None and len(found) < MOST_LOGS:
                found[name_of(pod)] = _log(kube, deploy.namespace, name_of(pod))
    return found


def _log(kube: Kube, namespace: str, pod: str) -> bytes:
    for previous in (False, True):  # the run that crashed is the one before
        try:
            text = kube.log(pod, namespace=namespace, tail=LINES, previous=previous)
        except Error:  # it has not run at all, or its node is away
            continue
        if text:
            return text
    return b""


def _release(kube: Kube, known: Cluster, manner: Manner) -> list[Finding]:
    """In which state Helm's release is, by the labels of the Secret that Helm keeps it in."""
    words = (
        "get",
        "secrets",
        "--namespace",
        manner.namespace,
        "--selector",
        f"owner=helm,name={manner.release}",
    )
    try:
        table = kube.run(*words, "--label-columns", "version,status", "--no-headers").decode(errors="replace")
    except AccessDenied as error:
        return [judge.skipped("cluster-release", f"{error.message}: {error.evidence}")]
    rows = [line.split()[-2:] for line in table.split("\n") if line.strip()]
    versions = {int(version): status for version, status in rows if version.isdigit()}
    if not versions:
        return [_of_no_release(known, manner)]
    latest = max(versions)
    return [_of_release(versions[latest], latest, manner)]


def _of_no_release(known: Cluster, manner: Manner) -> Finding:
    """Kata may have come without Helm; or the release has another name, or is elsewhere."""
    evidence = f"Helm has no release {manner.release} in {manner.namespace}"
    of_helm = next((deploy for deploy in known.deploys if deploy.release), None)
    if of_helm is None:
        return judge.skipped("cluster-release", evidence)
    evidence += f"; {of_helm.name} is of {of_helm.release} in {of_helm.namespace}"
    cure = f"name it: nestvirt kata-check -n {of_helm.namespace} --release {of_helm.release}"
    return Finding("cluster-release", Layer.CLUSTER, Status.WARN, printable(evidence), printable(cure))


def _of_release(state: str, version: int, manner: Manner) -> Finding:
    evidence = f"{manner.release}, revision {version}, is {printable(state, 60)}"
    status, cure = Status.PASS, ""
    if state == "failed":
        status, cure = Status.FAIL, judge.INSTALL
    elif state != "deployed":
        status = Status.FAIL
        cure = f"helm rollback {manner.release} -n {manner.namespace}, and then {judge.INSTALL}"
    return Finding("cluster-release", Layer.CLUSTER, status, evidence, cure)


def _summary(found: Sequence[Finding]) -> str:
    shown = [f for f in found if f.check == proof.KATA and f.status is Status.PASS]
    nodes = {f.subject.partition("/")[0] for f in shown}
    names = sorted({f.subject.partition("/")[2] for f in shown})
    if not shown:
        return "nothing was proven: no pod ran under a RuntimeClass"
    plural = "node" if len(nodes) == 1 else "nodes"
    return f"pods under {', '.join(names)} run in VMs of their own on {len(nodes)} {plural}"
