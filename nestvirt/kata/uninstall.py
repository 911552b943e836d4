"""Take Kata off a cluster, also where the chart forgets nodes, and show that nothing of it is left.

Order: what lets pods come (labels, RuntimeClasses), Helm's release, each node's files, each runtime that
had read them, and then a fresh look at every node.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nestvirt.errors import ConnectionFailed
from nestvirt.kata import cleaning, pods
from nestvirt.kata.answers import Untrusted
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.cleaning import Said
from nestvirt.kata.helm import Helm
from nestvirt.kata.install_plan import CAPABLE
from nestvirt.kata.kube import Kube
from nestvirt.kata.node_checks import some
from nestvirt.kata.pods import Outcome, Task, Tell
from nestvirt.kata.preflight import named, ordered
from nestvirt.kata.rollout import LABEL, PATIENCE
from nestvirt.kata.stopping import stopped
from nestvirt.model import Finding, Layer, Report, Status
from nestvirt.printable import printable

CHECK = "cluster-clean"
OWN_LABELS = re.compile(rf"{re.escape(LABEL)}|{re.escape(CAPABLE)}|kata-deploy\.katacontainers\.io/.+")
"""Labels of nodes that kata-deploy or nestvirt has put there."""
OWNER = "meta.helm.sh/release-name"
"""Helm's annotation of what it has made."""
PARTS = ("kata-deploy", "kata-monitor")
"""How the names of the chart's own objects begin."""
NAMESPACED = ("daemonsets", "jobs", "configmaps", "serviceaccounts", "roles", "rolebindings")
GLOBAL = ("clusterrolebindings", "clusterroles")


@dataclass(frozen=True)
class Work:
    """One cluster, and how to work on it.

    Attributes:
        target: what the report calls the cluster.
        image: of the short pods.
        timeout: seconds for each wait.
    """

    kube: Kube
    helm: Helm
    target: str
    image: str
    timeout: float
    tell: Tell

    @property
    def patient(self) -> Kube:
        """The cluster while its API servers restart."""
        return self.kube.patient(PATIENCE)

    def ask(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Run short pods; what became of them."""
        namespace = self.helm.namespace
        return pods.run(self.patient, tasks, namespace=namespace, timeout=self.timeout, tell=self.tell)


@dataclass(frozen=True)
class There:
    """What there is of Kata.

    Attributes:
        release: in words; empty where there is none.
        distribution: what the release was installed for; empty where it does not say.
        classes: the RuntimeClasses that are Kata's.
        labels: node to those of its labels that are ours or kata-deploy's.
        users: pods that run under those RuntimeClasses, by RuntimeClass.
        nodes: all of the cluster.
    """

    release: str
    distribution: str
    classes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    users: Mapping[str, tuple[str, ...]]
    nodes: tuple[Object, ...]

    @property
    def lines(self) -> list[str]:
        """What would be removed, for people."""
        names = some([name_of(node) for node in self.nodes])
        found = [f"uninstall {self.release}"] if self.release else []
        found += [f"delete the RuntimeClass {name}" for name in self.classes]
        found += [f"take off {node}: the label {', '.join(keys)}" for node, keys in self.labels.items()]
        return [
            *found,
            f"look for Kata's files on {names}, remove them, and restart the runtime that has read them",
        ]


# --- what can be asked for


def uninstall(work: Work, *, consent: Callable[[Sequence[str]], None], force: bool, dry_run: bool) -> Report:
    """Remove all of it, and show that nothing is left.

    Args:
        consent: called with what would be removed; raises where the user declines.
        force: go on although pods run under its RuntimeClasses.
        dry_run: say what would be removed, and look at no node.

    Raises:
        Error: what went wrong; running it again goes on from there.
    """
    with stopped("nothing was changed", "run it again"):
        there = look(work, work.kube)
        blockers = () if force else _in_use(there)
        if blockers:
            return Report(work.target, blockers, goal=None, blockers=blockers)
        if dry_run:
            return Report(work.target, _unasked(there), goal=None, remains=tuple(there.lines), planned=True)
        consent(there.lines)
    with stopped("what was removed so far stays removed", "run kata-uninstall again: it goes on from there"):
        findings = remove_all(work, there)
    return Report(work.target, tuple(findings), goal=None, summary="nothing of Kata is left")


def remove_all(work: Work, seen: There | None = None) -> list[Finding]:
    """Remove all of it, whoever uses it; the findings of cluster-clean.

    Args:
        seen: what there is, where that was read already.
    """
    there = seen or look(work, work.patient)
    if there.release:
        _uninstall(work)
    _delete_parts(work)
    said = cleaning.clean_nodes(
        there.nodes, cleaning.Manner(work.ask, work.tell, work.image, there.distribution)
    )
    for node in work.patient.list("nodes"):  # kata-deploy looks for its own label while it cleans
        keys = _own_labels(node)
        if keys:
            work.tell("taking off", f"the labels of {name_of(node)}")
            work.patient.label("nodes", name_of(node), dict.fromkeys(keys))
    return _judged(look(work, work.patient), _parts(work.patient, work.helm.namespace), said)


# --- looking


def look(work: Work, kube: Kube) -> There:
    """Read what the API has of Kata; no node is asked."""
    work.tell("reading", "what there is of Kata")
    helm = replace(work.helm, kube=kube)
    history, nodes = helm.history(), tuple(kube.list("nodes"))
    latest = history[-1] if history else None
    values = helm.values() if latest else {}
    classes = _classes(kube, work.helm.release)
    labels = {name_of(node): _own_labels(node) for node in nodes}
    return There(
        f"the release {work.helm.release} (Kata {latest.chart}, {latest.status})" if latest else "",
        printable(str(values.get("k8sDistribution") or ""), 20),
        classes,
        {node: keys for node, keys in labels.items() if keys},
        _users(kube.list("pods", namespace="*"), classes),
        nodes,
    )


def _classes(kube: Kube, release: str) -> tuple[str, ...]:
    return tuple(sorted(name_of(o) for o in kube.list("runtimeclasses") if _is_katas(o, release)))


def _is_katas(found: Object, release: str) -> bool:
    """Of this release, or of none: kata-deploy's own have no owner."""
    handler, owner = str(found.get("handler") or ""), at(found, "metadata", "annotations", OWNER)
    return bool(re.match(r"kata(-|$)", handler)) and owner in (None, release)


def _own_labels(node: Object) -> tuple[str, ...]:
    labels = at(node, "metadata", "labels")
    return (
        tuple(sorted(key for key in labels if OWN_LABELS.fullmatch(key))) if isinstance(labels, dict) else ()
    )


def _users(all_pods: Sequence[Object], classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for pod in all_pods:
        name, meta = at(pod, "spec", "runtimeClassName"), pod["metadata"]
        ours = at(pod, "metadata", "labels", "app.kubernetes.io/managed-by") == "nestvirt"
        if name in classes and not ours and at(pod, "status", "phase") not in ("Succeeded", "Failed"):
            found.setdefault(str(name), []).append(f"{meta.get('namespace')}/{meta.get('name')}")
    return {name: tuple(users) for name, users in found.items()}


def _parts(kube: Kube, namespace: str) -> dict[str, tuple[str, ...]]:
    """The chart's own objects; once the release is gone, what its hooks or a killed Helm have left."""
    found = {kind: kube.list(kind, namespace=namespace) for kind in NAMESPACED}
    found |= {kind: kube.list(kind) for kind in GLOBAL}
    named_so = {
        kind: tuple(sorted(name_of(o) for o in objects if name_of(o).startswith(PARTS)))
        for kind, objects in found.items()
    }
    return {kind: names for kind, names in named_so.items() if names}


def _in_use(there: There) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            "cluster-runtimeclass",
            Layer.CLUSTER,
            Status.FAIL,
            f"used by {', '.join(users[:10])}" + (f" and {len(users) - 10} more" if len(users) > 10 else ""),
            "delete those pods, or let them use another RuntimeClass; --force goes on without",
            subject=name,
        )
        for name, users in there.users.items()
    )


def _unasked(there: There) -> tuple[Finding, ...]:
    words = "not looked at: a dry run starts no pod"
    return tuple(_finding(name_of(node), Status.SKIP, words) for node in there.nodes)


# --- removing


def _uninstall(work: Work) -> None:
    """Let Helm do it; again while its API server goes away under it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        work.tell("helm", f"uninstall {work.helm.release}")
        try:
            work.helm.uninstall()
        except ConnectionFailed as error:
            if isinstance(error, Untrusted) or time.monotonic() > deadline:
                raise
            work.tell("waiting for", f"the API server: {error.evidence}")
            work.kube.patient(deadline - time.monotonic()).run("get", "--raw", "/readyz")
        else:
            return


def _delete_parts(work: Work) -> None:
    """What Helm leaves: objects that it keeps, those of hooks, RuntimeClasses that kata-deploy has made."""
    kube, namespace = work.patient, work.helm.namespace
    for kind, names in _parts(kube, namespace).items():
        kube.delete(kind, names=names, namespace=namespace if kind in NAMESPACED else None)
    classes = _classes(kube, work.helm.release)
    if classes:
        kube.delete("runtimeclasses", names=classes)
    work.tell("waiting for", "kata-deploy's pods to end")
    kube.wait_gone("pods", namespace=namespace, selector="name=kata-deploy", timeout=work.timeout)


# --- proving


def _finding(subject: str, status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding(CHECK, Layer.CLUSTER, status, evidence, cure, subject=subject)


def _judged(there: There, parts: Mapping[str, tuple[str, ...]], said: Mapping[str, Said]) -> list[Finding]:
    left = [there.release] if there.release else []
    left += [f"RuntimeClass {name}" for name in there.classes]
    left += [f"{kind} {', '.join(names)}" for kind, names in parts.items()]
    again = "run kata-uninstall again"
    whole = (
        _finding("", Status.FAIL, f"left in the cluster: {'; '.join(left)}", again)
        if left
        else _finding("", Status.PASS, "no release, no RuntimeClass and no object of kata-deploy")
    )
    found = [_of_node(name_of(node), said.get(name_of(node)), there) for node in there.nodes]
    return ordered(named([whole, *found]))


def _of_node(node: str, said: Said | None, there: There) -> Finding:
    labels = there.labels.get(node, ())
    if said is None:
        cure = "bring NODE back, and run kata-uninstall again"
        return _finding(node, Status.UNKNOWN, "not looked at: the node is not ready", cure)
    if said.trouble:
        return _finding(node, Status.UNKNOWN, said.trouble, said.cure)
    if not said.clean or labels:
        left = [*said.of("left"), *(f"the label {key}" for key in labels), *said.of("failed")]
        left += ["its runtime still runs with what was removed"] if said.of("restart") else []
        return _finding(
            node, Status.FAIL, "; ".join(left), "look at it on NODE, and run kata-uninstall again"
        )
    kept = f"; kept, for it may be somebody's own: {', '.join(said.of('kept'))}" if said.of("kept") else ""
    return _finding(node, Status.PASS, f"no file, no configuration and no label of Kata{kept}")
