"""What an installation would change, and whether it may. Pure.

The plan is the difference between what the release has made and what the chart renders now, object by
object; what is asked of the user, what --dry-run shows, and what "nothing to do" means all come from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nestvirt.errors import ChangeRejected
from nestvirt.kata import rollout
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.chart import renders_runtime_classes, runtime_classes
from nestvirt.kata.config import KataConfig
from nestvirt.kata.helm import DEPLOYED, FAILED, PENDING, Revision
from nestvirt.model import Change, Finding, Layer, Status

CAPABLE, WORKS = "nestvirt.io/kvm", "works"
"""The label by which nestvirt selects nodes; whoever has it has it from nestvirt."""


@dataclass(frozen=True)
class Live:
    """What is there before.

    Attributes:
        history: of the release, oldest first.
        objects: what its latest revision has rendered.
        classes: the RuntimeClasses of the cluster.
        has_daemonset: whether the DaemonSet itself is there.
        users: RuntimeClass to the pods that name it, as NAMESPACE/NAME.
        katas: those of the RuntimeClasses whose handler is Kata's, whoever made them.
        deployers: the uids of kata-deploy's pods.
    """

    history: tuple[Revision, ...]
    objects: tuple[Object, ...]
    classes: frozenset[str]
    has_daemonset: bool
    users: Mapping[str, tuple[str, ...]]
    katas: tuple[Object, ...] = ()
    deployers: frozenset[str] = frozenset()

    @property
    def latest(self) -> Revision | None:
        """The newest revision."""
        return self.history[-1] if self.history else None

    @property
    def deployed(self) -> Revision | None:
        """The newest revision that Helm calls deployed."""
        return next((r for r in reversed(self.history) if r.status == DEPLOYED), None)

    @property
    def former(self) -> Revision | None:
        """What one would go back to: what is deployed; else what failed last, which may be in use."""
        failed = self.latest if self.latest is not None and self.latest.status == FAILED else None
        return self.deployed or failed


@dataclass(frozen=True)
class Nodes:
    """Which nodes get it.

    Attributes:
        targets: the names of those that kata-deploy goes to.
        beyond: name of each other to why it does not.
        label, unlabel: those that get, or lose, nestvirt's own label.
    """

    targets: tuple[str, ...]
    beyond: Mapping[str, str]
    label: tuple[str, ...] = ()
    unlabel: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """What would be done.

    Attributes:
        lines: for people, in the order of the work; none where there is nothing to do.
        objects: what Helm would write, object by object, as YAML.
        changes: the same in short: versions, RuntimeClasses, labels.
        helm: whether Helm has to do anything.
        unseen: kata-deploy's pods are made anew, and have no probe that would tell when they are done.
    """

    lines: tuple[str, ...]
    objects: tuple[Change, ...]
    changes: tuple[Change, ...]
    helm: bool
    unseen: bool = False

    @property
    def empty(self) -> bool:
        """True where there is nothing to do."""
        return not self.lines


def targets(daemonset: Object, nodes: Sequence[Object], *, own_label: bool) -> Nodes:
    """Which nodes a DaemonSet goes to.

    Args:
        own_label: its selector has nestvirt's label, which the nodes are still to get.
    """
    labelled = [_with_label(node) if own_label else node for node in nodes]
    why = {name_of(node): rollout.reach(daemonset, node) for node in labelled}
    return Nodes(
        tuple(sorted(name for name, reason in why.items() if not reason)),
        {name: reason for name, reason in sorted(why.items()) if reason},
    )


def _with_label(node: Object) -> Object:
    labels = {**(at(node, "metadata", "labels") or {}), CAPABLE: WORKS}
    return {**node, "metadata": {**node["metadata"], "labels": labels}}


def chosen(
    nodes: Nodes, all_nodes: Sequence[Object], capable: Sequence[str] | None, incapable: Sequence[str] = ()
) -> Nodes:
    """Of those the capable ones alone, by nestvirt's own label; all of them where ``capable`` is None.

    Args:
        incapable: those that were asked and have no KVM: they lose the label. One that could not be asked
            keeps what it has, for pods may run there.
    """
    has = {name_of(n) for n in all_nodes if at(n, "metadata", "labels", CAPABLE) == WORKS}
    if capable is None:
        return Nodes(nodes.targets, nodes.beyond, (), tuple(sorted(has)))
    wanted = set(nodes.targets) & set(capable)
    return Nodes(
        tuple(sorted(wanted)),
        nodes.beyond,
        tuple(sorted(wanted - has)),
        tuple(sorted(has & set(incapable) - wanted)),
    )


def plan(config: KataConfig, live: Live, rendered: Sequence[Object], nodes: Nodes) -> Planned:
    """What has to be done so that the release is what the configuration says."""
    changes = difference(live.objects, rendered)
    lines = [*_release(config, live, changes), *_classes(config, live, rendered)]
    helm = bool(lines)
    if nodes.label:
        lines.append(f"label {CAPABLE}={WORKS} on: {_listed(nodes.label)}")
    if nodes.unlabel:
        lines.append(f"take the label {CAPABLE} off: {_listed(nodes.unlabel)}")
    if lines:
        lines.append(f"nodes: {_listed(nodes.targets)}")
        lines += [f"not on {name}: {why}" for name, why in nodes.beyond.items()]
    if helm:
        lines.append(
            "mind: kata-deploy restarts the container runtime of each node; the API server may be away"
        )
    unseen = helm and _unseen(live, rendered)
    if unseen and live.latest is not None:
        lines.append("mind: on a node that kata-deploy has not finished anew, no further pod of Kata starts")
    short = _in_short(config, live, rendered, nodes, helm=helm)
    return Planned(tuple(lines), tuple(changes), tuple(short), helm, unseen)


def _unseen(live: Live, rendered: Sequence[Object]) -> bool:
    """Whether pods are made anew without a probe. What is not deployed tells nothing of the pods that are."""
    known = live.has_daemonset and live.latest is not None and live.latest.status == DEPLOYED
    former, wanted = rollout.daemonset_of(live.objects) if known else None, rollout.daemonset_of(rendered)
    template = at(wanted, "spec", "template")
    return at(former, "spec", "template") != template and not rollout.is_probed(template)


def _in_short(
    config: KataConfig, live: Live, rendered: Sequence[Object], nodes: Nodes, *, helm: bool
) -> list[Change]:
    latest, found = live.latest, []
    if helm and latest is not None and latest.chart == config.version:
        found.append(Change("release", f"revision {latest.number}", f"revision {latest.number + 1}"))
    elif helm:
        found.append(Change("Kata", latest.chart if latest else None, config.version))
    new = [name for name in runtime_classes(config) if name not in live.classes]
    found += [Change("RuntimeClass", None, name) for name in new]
    found += [Change("RuntimeClass", name, None) for name in vanishing(live, rendered)]
    found += [Change(f"{CAPABLE} of {name}", None, WORKS) for name in nodes.label]
    return [*found, *(Change(f"{CAPABLE} of {name}", WORKS, None) for name in nodes.unlabel)]


def _release(config: KataConfig, live: Live, changes: Sequence[Change]) -> list[str]:
    latest = live.latest
    if latest is None:
        return [f"install Kata {config.version}"]
    if latest.chart != config.version:
        return [_from(latest.chart, config)]
    if latest.status != DEPLOYED:
        return [f"install Kata {config.version} again: the release is {latest.status}"]
    if changes:
        return [f"change Kata {config.version}: {_listed([change.setting for change in changes])}"]
    missing = [f"RuntimeClass {name}" for name in runtime_classes(config) if name not in live.classes]
    missing += [] if live.has_daemonset else ["DaemonSet kata-deploy"]
    return [f"put back what somebody deleted: {_listed(missing)}"] if missing else []


def _from(former: str, config: KataConfig) -> str:
    words = f"Kata from {former} to {config.version}"
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", former)
    if numbers and tuple(map(int, numbers.groups())) > config.release:
        return f"downgrade {words}"
    return f"upgrade {words}"


def _classes(config: KataConfig, live: Live, rendered: Sequence[Object]) -> list[str]:
    new = [name for name in runtime_classes(config) if name not in live.classes]
    lines = [f"make the RuntimeClass {_listed(new)}"] if new else []
    for name in vanishing(live, rendered):
        users = live.users.get(name, ())
        lines.append(
            f"remove the RuntimeClass {name}" + (f", which is used by {_listed(users)}" if users else "")
        )
    return lines


def vanishing(live: Live, rendered: Sequence[Object]) -> tuple[str, ...]:
    """The release's RuntimeClasses that it will not have any more."""
    return tuple(sorted(_named_classes(live.objects) & live.classes - _named_classes(rendered)))


def _named_classes(objects: Sequence[Object]) -> set[str]:
    return {name_of(o) for o in objects if o.get("kind") == "RuntimeClass"}


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def difference(before: Sequence[Object], after: Sequence[Object]) -> list[Change]:
    """Two renderings, object by object, as YAML."""
    old, new = ({f"{o.get('kind')} {name_of(o)}": _yaml(o) for o in side} for side in (before, after))
    keys = [*new, *(key for key in old if key not in new)]
    return [Change(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _yaml(found: dict[str, Any]) -> str:
    import yaml  # when it is used: it takes its time

    return str(yaml.safe_dump(found, sort_keys=True, default_flow_style=False)).rstrip()


def refuse_other_classes(config: KataConfig, rendered: Sequence[Object]) -> None:
    """The chart ignores values that it does not know: what it renders is what counts.

    Raises:
        ChangeRejected: it would make one that nobody asked for, or lacks one.
    """
    wanted, made = set(runtime_classes(config)), _named_classes(rendered)
    missing = wanted - made if renders_runtime_classes(config) else set()
    if made - wanted or missing:
        raise ChangeRejected(
            "the chart would make other RuntimeClasses than those that are asked for",
            evidence=f"wanted: {_listed(sorted(wanted))}; it renders: {_listed(sorted(made)) or 'none'}",
            cure="look at the values (--show-values) beside the chart's own: helm show values",
        )


def judge_release(live: Live, *, force: bool) -> Finding:
    """In which state Helm's release is (cluster-release); FAIL where that has to be healed first."""
    latest = live.latest
    if latest is None:
        return _of_release(Status.PASS, "there is none yet")
    words = f"revision {latest.number}, Kata {latest.chart}, is {latest.status}"
    if latest.status in PENDING and not force:
        evidence = f"{words} since {latest.since}: a Helm is at work on it, or was killed there"
        return _of_release(
            Status.FAIL, evidence, "wait for it; where no Helm is at work, run it again with --force"
        )
    if latest.status != DEPLOYED:
        return _of_release(Status.WARN, words, "this run installs it again")
    return _of_release(Status.PASS, words)


def _of_release(status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding("cluster-release", Layer.CLUSTER, status, evidence, cure)
