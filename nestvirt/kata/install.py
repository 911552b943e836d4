"""Install Kata, or bring it to what the configuration says: look, ask every node, plan, do, wait, prove.

Helm's release and the nodes' labels are all the state there is: a run that was stopped is run again, or
uninstalled, and nothing has to be known of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestvirt.errors import ChangeRejected, ConnectionFailed, Error
from nestvirt.kata import chart, helm, install_plan, node_checks, preflight, rollout, validate
from nestvirt.kata.answers import Untrusted
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.config import KataConfig
from nestvirt.kata.helm import Helm, Revision, Source
from nestvirt.kata.install_plan import CAPABLE, WORKS, Live, Nodes, Planned
from nestvirt.kata.kube import Kube
from nestvirt.kata.node_checks import some
from nestvirt.kata.pods import Tell
from nestvirt.kata.preflight import ordered
from nestvirt.kata.stopping import stopped
from nestvirt.model import Finding, Layer, Report, Status

BACK = ("what was there before is back: Kata is not what the configuration says",)
ILL = (Status.FAIL, Status.UNKNOWN)


@dataclass(frozen=True)
class Wanted:
    """What the user wants, and how.

    Attributes:
        image: of the short pods.
        timeout: seconds for each wait.
        only_capable: install on the nodes that can, and leave the others out.
        force: take over what is not the release's, and a release that was left pending.
        atomic: put back what was there where anything fails.
        consent: called with the plan; raises where the user declines.
    """

    config: KataConfig
    source: Source
    image: str
    timeout: float
    consent: Callable[[Planned], None]
    only_capable: bool = False
    force: bool = False
    atomic: bool = False


@dataclass(frozen=True)
class Session:
    """One cluster, and its release.

    Attributes:
        target: what the report calls the cluster.
        put_back: removes the release and what it has left on the nodes, for where there was none before.
    """

    kube: Kube
    helm: Helm
    target: str
    tell: Tell
    put_back: Callable[[], Sequence[Finding]]


@dataclass(frozen=True)
class Look:
    """What is there before anything is done.

    Attributes:
        nodes: those that the configuration selects.
        distribution: what they are.
        findings: of the cluster as a whole.
    """

    nodes: tuple[Object, ...]
    distribution: str
    live: Live
    findings: tuple[Finding, ...]

    @property
    def blocked(self) -> bool:
        """Whether something stands against it already."""
        return any(f.status is Status.FAIL for f in self.findings)


# --- the three things that can be asked for


def install(session: Session, wanted: Wanted) -> Report:
    """Install, and prove it.

    Raises:
        Error: what went wrong; its cure says how things stand.
        Interrupted: the user stopped it; the message says the same.
    """
    with stopped("nothing was changed", "run it again"):
        look = look_around(session, wanted)
        if look.blocked:
            return _refused(session, look.findings)
        with helm.fetched(wanted.source, program=session.helm.program) as path:
            rendered = _rendered(session, wanted, look, path)
            nodes, findings = ask_nodes(session, wanted, look, rendered)
            if any(f.status in ILL for f in findings) or not nodes.targets:
                return _refused(session, findings, _left_out(wanted, findings))
            planned = install_plan.plan(wanted.config, look.live, rendered, nodes)
            if not planned.empty:
                wanted.consent(planned)
                findings += _carry_out(session, wanted, look, planned, nodes, path)
    return _prove(session, wanted, look, planned, nodes, findings)


def dry_run(session: Session, wanted: Wanted) -> Report:
    """What an installation would change: the chart is rendered and compared; no pod is started."""
    look = look_around(session, wanted)
    if look.blocked:
        return _refused(session, look.findings)
    with helm.fetched(wanted.source, program=session.helm.program) as path:
        rendered = _rendered(session, wanted, look, path)
    nodes = _reached(rendered, look, own_label=wanted.only_capable)
    skipped = "not asked: a dry run starts no pod; --preflight asks"
    findings = [*look.findings, *chart.warnings(wanted.config)]
    findings += [_of_node("cluster-node-kvm", name, Status.SKIP, skipped) for name in nodes.targets]
    findings += _beyond(nodes)
    planned = install_plan.plan(wanted.config, look.live, rendered, nodes)
    lines = planned.lines or ("there is nothing to do",)
    return Report(
        session.target, tuple(ordered(findings)), planned.objects, goal=None, remains=lines, planned=True
    )


def preflight_only(session: Session, wanted: Wanted) -> Report:
    """Whether every node could run Kata; nothing is installed."""
    look = look_around(session, wanted)
    with helm.fetched(wanted.source, program=session.helm.program) as path:
        rendered = _rendered(session, wanted, look, path)
    nodes, findings = ask_nodes(session, replace(wanted, only_capable=False), look, rendered)
    summary = f"Kata can run on {some(nodes.targets)}"
    return Report(session.target, tuple(findings), goal=None, summary=summary)


# --- looking


def look_around(session: Session, wanted: Wanted) -> Look:
    """Nodes, release, RuntimeClasses, and the pods that use them; what stands against the installation."""
    kube, config = session.kube, wanted.config
    session.tell("reading", "the nodes and the release")
    selector = ",".join(f"{key}={value}" for key, value in config.node_selector)
    nodes = tuple(kube.list("nodes", selector=selector))
    if not nodes:
        where = f"with {selector}" if selector else "in this cluster"
        raise ChangeRejected(f"there is no node {where}", cure="see: kubectl get nodes --show-labels")
    kubelets = {name_of(n): str(at(n, "status", "nodeInfo", "kubeletVersion") or "") for n in nodes}
    distribution, finding = chart.judge_distribution(config, kubelets)
    live = read_live(session)
    findings = (finding, install_plan.judge_release(live, force=wanted.force))
    return Look(nodes, distribution, live, findings)


def read_live(session: Session) -> Live:
    """The release as it is, and what there is of RuntimeClasses and of pods that use them."""
    kube = session.kube
    history = tuple(session.helm.history())
    manifest = session.helm.manifest() if history else ""
    users: dict[str, list[str]] = {}
    for pod in kube.list("pods", namespace="*"):
        name, meta = at(pod, "spec", "runtimeClassName"), pod["metadata"]
        if isinstance(name, str) and at(pod, "status", "phase") not in ("Succeeded", "Failed"):
            users.setdefault(name, []).append(f"{meta.get('namespace')}/{meta.get('name')}")
    objects = tuple(helm.objects(manifest))
    daemonset = rollout.daemonset_of(objects)
    there = daemonset is not None and kube.get(
        "daemonsets", name_of(daemonset), namespace=session.helm.namespace
    )
    classes = frozenset(name_of(found) for found in kube.list("runtimeclasses"))
    return Live(history, objects, classes, bool(there), {k: tuple(v) for k, v in users.items()})


def _values(wanted: Wanted, look: Look) -> str:
    selector = {CAPABLE: WORKS} if wanted.only_capable else None
    return chart.to_yaml(chart.values(wanted.config, look.distribution, selector=selector))


def _rendered(session: Session, wanted: Wanted, look: Look, path: Path) -> list[Object]:
    session.tell("rendering", f"the chart {wanted.config.version}")
    latest = look.live.latest
    pending = latest is not None and latest.status in helm.PENDING
    made = helm.objects(session.helm.rendered(path, _values(wanted, look), pending=pending))
    install_plan.refuse_other_classes(wanted.config, made)
    return made


def _reached(rendered: Sequence[Object], look: Look, *, own_label: bool) -> Nodes:
    daemonset = rollout.daemonset_of(rendered)
    if daemonset is None:
        raise ChangeRejected("the chart renders no DaemonSet", cure="see: helm template")
    return install_plan.targets(daemonset, look.nodes, own_label=own_label)


def ask_nodes(
    session: Session, wanted: Wanted, look: Look, rendered: Sequence[Object]
) -> tuple[Nodes, list[Finding]]:
    """Ask each node that kata-deploy would go to; which of them get it, and all that was found so far."""
    reached = _reached(rendered, look, own_label=wanted.only_capable)
    asked = [node for node in look.nodes if name_of(node) in reached.targets]
    manner = preflight.Manner(session.helm.namespace, wanted.image, wanted.timeout, session.tell)
    found, nested = preflight.preflight(session.kube, asked, wanted.config, look.distribution, manner)
    capable = preflight.capable(found, asked)
    if wanted.only_capable and capable:
        found = [_left(f, capable) for f in found]
    nodes = install_plan.chosen(reached, look.nodes, capable if wanted.only_capable else None)
    warnings = chart.warnings(wanted.config, nested=nested)
    return nodes, ordered([*look.findings, *warnings, *found, *_beyond(nodes)])


def _beyond(nodes: Nodes) -> list[Finding]:
    """The nodes that kata-deploy does not go to at all."""
    return [
        _of_node("cluster-daemonset", name, Status.SKIP, f"kata-deploy does not go there: {why}")
        for name, why in nodes.beyond.items()
    ]


def _left(finding: Finding, capable: Sequence[str]) -> Finding:
    """A node that is left out on the user's word is no failure of the installation."""
    if finding.subject in capable or finding.status not in ILL:
        return finding
    return replace(finding, status=Status.WARN, evidence=f"left out: {finding.evidence}")


def _refused(session: Session, findings: Sequence[Finding], remains: tuple[str, ...] = ()) -> Report:
    blockers = tuple(f for f in findings if f.status is Status.FAIL)
    said = remains if blockers else ("nothing was changed: see what is unknown above", *remains)
    return Report(session.target, tuple(findings), goal=None, blockers=blockers, remains=said)


def _left_out(wanted: Wanted, findings: Sequence[Finding]) -> tuple[str, ...]:
    """What there is to do where single nodes are ill."""
    ill = {f.subject for f in findings if f.status in ILL}
    blind = any(f.check == "cluster-node-kvm" and f.status in ILL for f in findings)
    lines = [f"to look at such a node directly: {node_checks.SELF}"] if blind else []
    if ill and "" not in ill and not wanted.only_capable:
        lines.append("to install on the other nodes alone: --only-capable-nodes")
    return tuple(lines)


# --- doing


def _carry_out(
    session: Session, wanted: Wanted, look: Look, planned: Planned, nodes: Nodes, path: Path
) -> list[Finding]:
    """Labels, Helm, rollout; the findings of what hangs."""
    undone = "nestvirt kata-uninstall removes it; or run kata-install again"
    kube = session.kube.patient(rollout.PATIENCE)
    with stopped("the installation was under way; Helm has written down how far it got", undone):
        try:
            for name in nodes.label:
                session.tell("labelling", name)
                kube.label("nodes", name, {CAPABLE: WORKS})
            if planned.helm:
                upgrade(session, wanted, look, path)
            for name in nodes.unlabel:
                kube.label("nodes", name, {CAPABLE: None})
            found = _wait(session, wanted, nodes) if planned.helm or nodes.label else []
        except Error as error:
            raise _after(session, wanted, look, error) from error
        if wanted.atomic and any(f.status in ILL for f in found):
            _put_back(session, look)
    return found


def upgrade(session: Session, wanted: Wanted, look: Look, path: Path) -> None:
    """Let Helm do it; again while its API server goes away under it."""
    before = look.live.latest
    if before is not None and before.status in helm.PENDING:
        session.helm.forget(before)  # judge_release has seen to it that the user wants that
    session.tell("helm", f"upgrade --install {session.helm.release} ({wanted.config.version})")
    deadline, tried = time.monotonic() + rollout.PATIENCE, False
    while True:
        try:
            if not (tried and _was_done(session, before)):
                session.helm.upgrade(path, _values(wanted, look), force=wanted.force)
        except ConnectionFailed as error:
            if isinstance(error, Untrusted) or time.monotonic() > deadline:
                raise
            session.tell("waiting for", f"the API server: {error.evidence}")
            session.kube.patient(deadline - time.monotonic()).run("get", "--raw", "/readyz")
            tried = True
        else:
            return


def _was_done(session: Session, before: Revision | None) -> bool:
    """Whether an attempt whose answer got lost was carried out; one that broke off is taken back."""
    latest = next(iter(reversed(session.helm.history())), None)
    if latest is None or (before is not None and latest.number <= before.number):
        return False
    if latest.status in helm.PENDING:
        session.helm.forget(latest)
    return latest.status == helm.DEPLOYED


def _wait(session: Session, wanted: Wanted, nodes: Nodes) -> list[Finding]:
    found = rollout.wait(
        session.kube, session.helm.namespace, "kata-deploy", nodes.targets,
        timeout=wanted.timeout, tell=session.tell,
    )  # fmt: skip
    return [f for f in found if f.status is not Status.PASS]


def _after(session: Session, wanted: Wanted, look: Look, error: Error) -> Error:
    """The same error, once what was there is back, or with the words of how to get there."""
    if wanted.atomic:
        _put_back(session, look)
        error.message = f"{error.message}; what was there before is back"
    else:
        error.cure = f"{error.cure}; then run it again, or take it back: nestvirt kata-uninstall".lstrip("; ")
    return error


def _put_back(session: Session, look: Look) -> None:
    """As it was before: the revision that was deployed, or no release at all."""
    former = look.live.deployed
    if former is None:
        session.tell("putting back", "no release: uninstalling")
        session.put_back()
    else:
        session.tell("putting back", f"revision {former.number}")
        session.helm.rollback(former.number)
    labelled = {name_of(n) for n in look.nodes if at(n, "metadata", "labels", CAPABLE) == WORKS}
    kube = session.kube.patient(rollout.PATIENCE)
    for node in kube.list("nodes", selector=f"{CAPABLE}={WORKS}"):
        if name_of(node) not in labelled:
            kube.label("nodes", name_of(node), {CAPABLE: None})


# --- proving


def _prove(
    session: Session, wanted: Wanted, look: Look, planned: Planned, nodes: Nodes, findings: Sequence[Finding]
) -> Report:
    """The report, with the proof where the rollout came to its end."""
    changes, names = planned.changes, chart.runtime_classes(wanted.config)
    if any(f.status in ILL for f in findings):
        remains = BACK if wanted.atomic else ()
        return Report(session.target, tuple(ordered(findings)), changes, goal=None, remains=remains)
    undone = "kata-check proves it; nestvirt kata-uninstall removes it"
    with stopped("Kata is installed, and was not proved", undone):
        manner = validate.Manner(
            session.helm.namespace,
            session.helm.release,
            wanted.image,
            wanted.timeout,
            session.tell,
            nodes.targets,
            names,
        )
        checked = validate.check(session.kube.patient(rollout.PATIENCE), manner)
        proved = list(checked.findings)
        failed = wanted.atomic and planned.helm and any(f.status is Status.FAIL for f in proved)
        if failed:
            _put_back(session, look)
    done = "nothing to do: " if planned.empty else ""
    summary = f"{done}{checked.summary}"
    merged = _merged(findings, proved)
    remains = (*checked.remains, *(BACK if failed else ()))
    return Report(session.target, merged, changes, goal=None, remains=remains, summary=summary)


def _merged(before: Sequence[Finding], after: Sequence[Finding]) -> tuple[Finding, ...]:
    """All of both; what was asked twice is answered by the later."""
    asked = {(f.check, f.subject) for f in after}
    return tuple(ordered([*(f for f in before if (f.check, f.subject) not in asked), *after]))


def _of_node(check: str, node: str, status: Status, evidence: str) -> Finding:
    return Finding(check, Layer.CLUSTER, status, evidence, subject=node)
