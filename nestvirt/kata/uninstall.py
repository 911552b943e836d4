"""Take Kata off a cluster, also where the chart forgets nodes, and show that nothing of it is left.

Order: the RuntimeClasses, so that no pod comes any more; Helm's release; each node's files, when the pods of
kata-deploy have ended there; each runtime that had read them; labels, which kata-deploy looks for while it
cleans; and then a fresh look at everything. What another release has installed stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from nestvirt.errors import ChangeRejected, ConnectionFailed
from nestvirt.kata import belongings, cleaning, pods
from nestvirt.kata.answers import Untrusted
from nestvirt.kata.api import Object, Query, at, name_of
from nestvirt.kata.belongings import DAEMONSET, NAMESPACED, Owner
from nestvirt.kata.cleaning import Said
from nestvirt.kata.helm import Helm
from nestvirt.kata.kube import Kube
from nestvirt.kata.node_checks import is_ready, some
from nestvirt.kata.pods import Outcome, Task, Tell
from nestvirt.kata.preflight import named, ordered
from nestvirt.kata.rollout import PATIENCE
from nestvirt.kata.stopping import stopped
from nestvirt.model import Finding, Layer, Report, Status
from nestvirt.printable import printable

CHECK = "cluster-clean"


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

    def ready(self, names: Sequence[str]) -> set[str]:
        """Wait until nodes are ready; the names of those that are not within the timeout."""
        late = set(names)
        with closing(self.patient.watches([Query("nodes")], timeout=self.timeout)) as changes:
            for _, _, node in changes:
                if node and name_of(node) in names:
                    (late.discard if is_ready(node) else late.add)(name_of(node))
                if not late:
                    break
        return late

    @property
    def owner(self) -> Owner:
        """Whose objects are removed."""
        return self.helm.release, self.helm.namespace


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
        parts: kind to the names of the release's own objects, and of those that its hooks have left.
        elsewhere: who else has installed kata-deploy into the same places of the nodes.
        beside: the DaemonSets of installations with a suffix, which stay.
        pending: since when a Helm is at work on the release; empty where none is.
        suffix: that of the release itself.
    """

    release: str
    distribution: str
    classes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    users: Mapping[str, tuple[str, ...]]
    nodes: tuple[Object, ...]
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elsewhere: tuple[Owner, ...] = ()
    beside: tuple[str, ...] = ()
    pending: str = ""
    suffix: str = ""

    @property
    def lines(self) -> list[str]:
        """What would be removed, for people."""
        names = some([name_of(node) for node in self.nodes])
        found = [f"uninstall {self.release}"] if self.release else []
        found += [f"delete the RuntimeClass {name}" for name in self.classes]
        found += [f"delete the {kind} {', '.join(names)}" for kind, names in self.parts.items()]
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
        force: go on although pods run under its RuntimeClasses, or a Helm is at work on the release.
        dry_run: say what would be removed, and look at no node.

    Raises:
        Error: what went wrong; running it again goes on from there.
    """
    with stopped("nothing was changed", "run it again"):
        there = look(work, work.kube)
        blockers = (*_not_ours(there), *(() if force else (*_pending(there), *_in_use(there))))
        if blockers:
            return Report(work.target, blockers, goal=None, blockers=blockers)
        if dry_run:
            return Report(work.target, _unasked(there), goal=None, remains=tuple(there.lines), planned=True)
        consent(there.lines)
        users = {} if force else _users(work.patient.list("pods", namespace="*"), there.classes)
        blockers = _in_use(replace(there, users=users))  # whoever came while the user was being asked
        if blockers:
            return Report(work.target, blockers, goal=None, blockers=blockers)
    with stopped("what was removed so far stays removed", "run kata-uninstall again: it goes on from there"):
        findings = remove_all(work, there)
    return Report(work.target, tuple(findings), goal=None, summary="nothing of Kata is left")


def remove_all(work: Work, seen: There | None = None) -> list[Finding]:
    """Remove all of it, whoever uses it; the findings of cluster-clean.

    Args:
        seen: what there is, where that was read already.

    Raises:
        ChangeRejected: the nodes have another installation's files.
        ConnectionFailed: pods of kata-deploy do not end.
    """
    there = seen or look(work, work.patient)
    for finding in _not_ours(there):
        raise ChangeRejected("nothing was removed", evidence=finding.evidence, cure=finding.cure)
    if there.classes:
        work.patient.delete("runtimeclasses", names=there.classes)
    if there.release:
        _uninstall(work)
    _delete_parts(work, there.nodes)
    said = cleaning.clean_nodes(
        there.nodes, cleaning.Manner(work.ask, work.ready, work.tell, work.image, there.distribution)
    )
    for node in work.patient.list("nodes"):  # kata-deploy looks for its own label while it cleans
        keys = belongings.own_labels(node, shared=bool(there.beside))
        if keys:
            work.tell("taking off", f"the labels of {name_of(node)}")
            work.patient.label("nodes", name_of(node), dict.fromkeys(keys))
    return _judged(look(work, work.patient), said)


# --- looking


def look(work: Work, kube: Kube) -> There:
    """Read what the API has of Kata; no node is asked."""
    work.tell("reading", "what there is of Kata")
    helm = replace(work.helm, kube=kube)
    history, nodes = helm.history(), tuple(kube.list("nodes"))
    latest = history[-1] if history else None
    values = helm.values() if latest else {}
    listed = belongings.listed(kube, work.helm.namespace)
    elsewhere, beside = belongings.others(listed, work.owner)
    classes = belongings.classes(kube, work.owner)
    labels = {name_of(node): belongings.own_labels(node, shared=bool(beside)) for node in nodes}
    return There(
        f"the release {work.helm.release} (Kata {latest.chart}, {latest.status})" if latest else "",
        printable(str(values.get("k8sDistribution") or ""), 20),
        classes,
        {node: keys for node, keys in labels.items() if keys},
        _users(kube.list("pods", namespace="*"), classes),
        nodes,
        belongings.parts(listed, work.owner),
        elsewhere,
        beside,
        latest.since if latest and latest.status.startswith("pending-") else "",
        printable(str(at(values, "env", "multiInstallSuffix") or ""), 40),
    )


def _users(all_pods: Sequence[Object], classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for pod in all_pods:
        name, meta = at(pod, "spec", "runtimeClassName"), pod["metadata"]
        ours = at(pod, "metadata", "labels", "app.kubernetes.io/managed-by") == "nestvirt"
        if name in classes and not ours and at(pod, "status", "phase") not in ("Succeeded", "Failed"):
            found.setdefault(str(name), []).append(f"{meta.get('namespace')}/{meta.get('name')}")
    return {name: tuple(users) for name, users in found.items()}


def _not_ours(there: There) -> tuple[Finding, ...]:
    """What no --force goes over: the files on the nodes are another installation's."""
    found = [
        (
            f"kata-deploy is installed {_placed(owner)}, and not where it was asked for",
            f"name that one: nestvirt kata-uninstall -n {owner[1]}"
            + (f" --release {owner[0]}" if owner[0] else ""),
        )
        for owner in there.elsewhere
    ]
    if there.suffix:
        found.append(
            (
                f"the release is one beside another, with the suffix {there.suffix}",
                "nestvirt looks after the one without a suffix; take this one away by itself: helm uninstall",
            )
        )
    return tuple(
        Finding("cluster-release", Layer.CLUSTER, Status.FAIL, printable(words, 300), printable(cure, 300))
        for words, cure in found
    )


def _placed(owner: Owner) -> str:
    return f"in the namespace {owner[1]}" + (f" as the release {owner[0]}" if owner[0] else "")


def _pending(there: There) -> tuple[Finding, ...]:
    """A Helm that is at work, and would go on making what is removed here."""
    if not there.pending:
        return ()
    evidence = f"{there.release} since {there.pending}: a Helm is at work on it, or was killed there"
    cure = "wait for it; where no Helm is at work, run it again with --force"
    return (Finding("cluster-release", Layer.CLUSTER, Status.FAIL, evidence, cure),)


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


def _delete_parts(work: Work, nodes: Sequence[Object]) -> None:
    """What Helm leaves: objects that it keeps, those of hooks, RuntimeClasses that kata-deploy has made.

    Raises:
        ConnectionFailed: see _wait_for_pods.
    """
    kube, namespace = work.patient, work.helm.namespace
    parts = belongings.parts(belongings.listed(kube, namespace), work.owner)
    for kind, names in parts.items():
        kube.delete(kind, names=names, namespace=namespace if kind in NAMESPACED else None)
    for job in parts.get("jobs", ()):  # the API server lets go of a Job's pods, and does not delete them
        kube.delete("pods", selector=f"job-name={job}", namespace=namespace)
    classes = belongings.classes(kube, work.owner)
    if classes:
        kube.delete("runtimeclasses", names=classes)
    selectors = [f"name={DAEMONSET}", *(f"job-name={job}" for job in parts.get("jobs", ()))]
    _wait_for_pods(work, selectors, {name_of(node) for node in nodes if is_ready(node)})


def _wait_for_pods(work: Work, selectors: Sequence[str], ready: set[str]) -> None:
    """Two must not work on one node's files; on a node that is not ready no pod ends, and none is cleaned.

    Raises:
        ConnectionFailed: some are still there after the timeout.
    """
    kube, namespace = work.patient, work.helm.namespace
    work.tell("waiting for", "kata-deploy's pods to end")
    for selector in selectors:
        found = kube.list("pods", namespace=namespace, selector=selector)
        names = frozenset(name_of(pod) for pod in found if at(pod, "spec", "nodeName") in ready)
        left = names and kube.wait_gone(
            "pods", namespace=namespace, selector=selector, names=names, timeout=work.timeout
        )
        if left:
            raise ConnectionFailed(
                f"{len(left)} pods of kata-deploy have not ended within {work.timeout:.0f} s",
                evidence=", ".join(sorted(left)[:5]),
                cure=f"see what holds them: kubectl describe pod -n {namespace} {min(left)}",
            )


# --- proving


def _finding(subject: str, status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding(CHECK, Layer.CLUSTER, status, evidence, cure, subject=subject)


def _judged(there: There, said: Mapping[str, Said]) -> list[Finding]:
    left = [there.release] if there.release else []
    left += [f"RuntimeClass {name}" for name in there.classes]
    left += [f"{kind} {', '.join(names)}" for kind, names in there.parts.items()]
    left += [f"kata-deploy {_placed(owner)}" for owner in there.elsewhere]
    again = "run kata-uninstall again"
    stays = f"; not its own, and left alone: {', '.join(there.beside)}" if there.beside else ""
    whole = (
        _finding("", Status.FAIL, f"left in the cluster: {'; '.join(left)}", again)
        if left
        else _finding("", Status.PASS, f"no release, no RuntimeClass and no object of kata-deploy{stays}")
    )
    found = [_of_node(name_of(node), said.get(name_of(node)), there) for node in there.nodes]
    return ordered(named([whole, *found]))


def _of_node(node: str, said: Said | None, there: There) -> Finding:
    labels = there.labels.get(node, ())
    if said is None:
        cure = "bring NODE back, and run kata-uninstall again"
        return _finding(node, Status.UNKNOWN, "not looked at: the node is not ready", cure)
    if said.trouble and not said.of("left"):
        return _finding(node, Status.UNKNOWN, said.trouble, said.cure)
    if not said.clean or labels:
        left = [*said.of("left"), *(f"the label {key}" for key in labels), *said.of("failed")]
        left += ["its runtime still runs with what was removed"] if said.of("restart") else []
        return _finding(
            node, Status.FAIL, "; ".join(left), "look at it on NODE, and run kata-uninstall again"
        )
    missing = f"; there is no {', '.join(said.of('missing'))}" if said.of("missing") else ""
    kept = f"; kept, for it may be somebody's own: {', '.join(said.of('kept'))}" if said.of("kept") else ""
    return _finding(node, Status.PASS, f"no file, no configuration and no label of Kata{missing}{kept}")
