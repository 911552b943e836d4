"""Install Kata, or bring it to what the configuration says: look, ask every node, plan, do, wait, prove.

Helm's release and the nodes' labels are all the state there is: a run that was stopped is run again, or
uninstalled, and nothing has to be known of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nestvirt.errors import ChangeRejected
from nestvirt.kata import changing, chart, helm, install_plan, node_checks, preflight, rollout, validate
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.changing import ILL, Look, Session, Wanted
from nestvirt.kata.install_plan import Live, Nodes, Planned
from nestvirt.kata.preflight import ordered
from nestvirt.kata.stopping import stopped
from nestvirt.model import Finding, Layer, Report, Status

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
                ill, remains = changing.carry_out(session, wanted, look, planned, nodes, path)
                if any(f.status in ILL for f in ill):
                    found = tuple(ordered([*findings, *ill]))
                    return Report(session.target, found, planned.changes, goal=None, remains=remains)
                findings += ill
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
    if wanted.only_capable:
        lines = (
            *planned.lines,
            f"which nodes get the label {install_plan.CAPABLE} is known once they were asked: --preflight",
        )
    return Report(
        session.target, tuple(ordered(findings)), planned.objects, goal=None, remains=lines, planned=True
    )


def preflight_only(session: Session, wanted: Wanted) -> Report:
    """Whether every node could run Kata; nothing is installed."""
    look = look_around(session, wanted)
    with helm.fetched(wanted.source, program=session.helm.program) as path:
        rendered = _rendered(session, wanted, look, path)
    nodes, findings = ask_nodes(session, replace(wanted, only_capable=False), look, rendered)
    summary = preflight.summary(findings, nodes.targets)
    return Report(session.target, tuple(findings), goal=None, summary=summary)


# --- looking


def look_around(session: Session, wanted: Wanted) -> Look:
    """Nodes, release, RuntimeClasses, and the pods that use them; what stands against the installation."""
    kube, config = session.kube, wanted.config
    session.tell("reading", "the nodes and the release")
    everywhere = tuple(kube.list("nodes"))
    selects = dict(config.node_selector).items()
    nodes = tuple(n for n in everywhere if selects <= (at(n, "metadata", "labels") or {}).items())
    if not nodes:
        selector = ",".join(f"{key}={value}" for key, value in selects)
        where = f"with {selector}" if selector else "in this cluster"
        raise ChangeRejected(f"there is no node {where}", cure="see: kubectl get nodes --show-labels")
    kubelets = {name_of(n): str(at(n, "status", "nodeInfo", "kubeletVersion") or "") for n in nodes}
    distribution, finding = chart.judge_distribution(config, kubelets)
    live = read_live(session)
    findings = (finding, install_plan.judge_release(live, force=wanted.force))
    return Look(nodes, distribution, live, findings, everywhere)


def read_live(session: Session) -> Live:
    """The release as it is, and what there is of RuntimeClasses and of pods that use them."""
    kube = session.kube
    history = tuple(session.helm.history())
    manifest = session.helm.manifest() if history else ""
    users: dict[str, list[str]] = {}
    everyones = kube.list("pods", namespace="*")
    for pod in everyones:
        name, meta = at(pod, "spec", "runtimeClassName"), pod["metadata"]
        if isinstance(name, str) and at(pod, "status", "phase") not in ("Succeeded", "Failed"):
            users.setdefault(name, []).append(f"{meta.get('namespace')}/{meta.get('name')}")
    objects = tuple(helm.objects(manifest))
    daemonset = rollout.daemonset_of(objects)
    there = daemonset is not None and kube.get(
        "daemonsets", name_of(daemonset), namespace=session.helm.namespace
    )
    classes = kube.list("runtimeclasses")
    katas = [o for o in classes if str(o.get("handler") or "").partition("-")[0] == "kata"]
    deployers = [pod for pod in everyones if rollout.is_deployer(pod, session.helm.namespace)]
    return Live(
        history,
        objects,
        frozenset(map(name_of, classes)),
        bool(there),
        {name: tuple(pods) for name, pods in users.items()},
        tuple(katas),
        frozenset(str(at(pod, "metadata", "uid")) for pod in deployers),
    )


def _rendered(session: Session, wanted: Wanted, look: Look, path: Path) -> list[Object]:
    session.tell("rendering", f"the chart {wanted.config.version}")
    latest = look.live.latest
    pending = latest is not None and latest.status in helm.PENDING
    values = changing.values_of(wanted, look)
    made = helm.objects(session.helm.rendered(path, values, force=wanted.force, pending=pending))
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
    incapable = preflight.incapable(found)
    if wanted.only_capable and capable:
        found = [_left(f, capable) for f in found]
    chosen = capable if wanted.only_capable else None
    nodes = install_plan.chosen(reached, look.nodes, chosen, incapable)
    warnings = chart.warnings(wanted.config, nested=nested)
    return nodes, ordered([*look.findings, *warnings, *found, *_beyond(reached)])


def _beyond(nodes: Nodes) -> list[Finding]:
    """The nodes that kata-deploy does not go to at all; where it goes to none, that is a failure."""
    check, cure = (
        "cluster-daemonset",
        "let it go to some: see the taints and labels, and nodeSelector of the configuration",
    )
    none = Finding(check, Layer.CLUSTER, Status.FAIL, "kata-deploy goes to no node", cure)
    skipped = [
        _of_node(check, name, Status.SKIP, f"kata-deploy does not go there: {why}")
        for name, why in nodes.beyond.items()
    ]
    return skipped if nodes.targets else [none, *skipped]


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


# --- proving


def _prove(
    session: Session, wanted: Wanted, look: Look, planned: Planned, nodes: Nodes, findings: Sequence[Finding]
) -> Report:
    """The report with the proof, once the rollout has come to its end."""
    changes, names = planned.changes, chart.runtime_classes(wanted.config)
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
        back = changing.told(changing.put_back(session, wanted, look)) if failed else ()
    done = "nothing to do: " if planned.empty else ""
    summary = f"{done}{checked.summary}"
    merged = _merged(findings, proved)
    remains = (*checked.remains, *back)
    return Report(session.target, merged, changes, goal=None, remains=remains, summary=summary)


def _merged(before: Sequence[Finding], after: Sequence[Finding]) -> tuple[Finding, ...]:
    """All of both; what was asked twice is answered by the later."""
    asked = {(f.check, f.subject) for f in after}
    return tuple(ordered([*(f for f in before if (f.check, f.subject) not in asked), *after]))


def _of_node(check: str, node: str, status: Status, evidence: str) -> Finding:
    return Finding(check, Layer.CLUSTER, status, evidence, subject=node)
