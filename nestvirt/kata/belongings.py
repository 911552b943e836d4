"""Whose an object of the cluster is: this release's, another's, or nobody's. What is not ours stays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.install_plan import CAPABLE
from nestvirt.kata.kube import Kube
from nestvirt.kata.rollout import LABEL
from nestvirt.kata.shims import SHIMS

DAEMONSET = "kata-deploy"
"""What kata-deploy's DaemonSet is called, and its pods' label ``name``; a second one has a suffix."""
OWN_LABELS = re.compile(rf"{re.escape(LABEL)}|{re.escape(CAPABLE)}|kata-deploy\.katacontainers\.io/.+")
"""Labels of nodes that kata-deploy or nestvirt has put there."""
ALONE_OURS = (CAPABLE, "kata-deploy.katacontainers.io/default")
"""Those of them that a second installation has no use for."""
OWNER, PLACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
"""Helm's annotations of what it has made."""
PARTS = ("kata-deploy", "kata-monitor")
"""How the names of the chart's own objects begin."""
HOOKS = frozenset(
    f"kata-deploy-{name}"
    for name in ("cleanup", "rb-cleanup", "role-cleanup", "sa-cleanup", "cleanup-dispatcher", "verify")
)
"""The objects of the charts' hooks, which Helm writes no owner on."""
ROLES = ("kata-deploy-role", "kata-deploy-rb")
"""What a cluster has one of, and so tells whose kata-deploy is there."""
Owner = tuple[str, str]
"""A release's name and its namespace."""
NAMESPACED = ("daemonsets", "jobs", "configmaps", "serviceaccounts", "roles", "rolebindings")
GLOBAL = ("clusterrolebindings", "clusterroles")


def owner_of(found: Object) -> Owner | None:
    """The release that has made an object; None where no Helm has written one on it."""
    name, place = (at(found, "metadata", "annotations", key) for key in (OWNER, PLACE))
    return None if name is None and place is None else (str(name or ""), str(place or ""))


def classes(kube: Kube, owner: Owner) -> tuple[str, ...]:
    """The names of the RuntimeClasses that are Kata's, and not another release's."""
    return tuple(sorted(name_of(o) for o in kube.list("runtimeclasses") if is_katas(o, owner)))


def is_katas(found: Object, owner: Owner) -> bool:
    """Of this release; or of none, and as kata-deploy itself makes them where the chart does not."""
    handler, name = str(found.get("handler") or ""), name_of(found)
    if not re.match(r"kata(-|$)", handler) or owner_of(found) not in (None, owner):
        return False
    shim = handler.removeprefix("kata-").removesuffix("-debug")
    selects = at(found, "scheduling", "nodeSelector", LABEL) == "true"
    return owner_of(found) is not None or (selects and name in (handler, "kata") and shim in {*SHIMS, "kata"})


def own_labels(node: Object, *, shared: bool = False) -> tuple[str, ...]:
    """The labels of a node that are to go; fewer where it has a second installation, too."""
    labels = at(node, "metadata", "labels")
    ours = ALONE_OURS.__contains__ if shared else OWN_LABELS.fullmatch
    return tuple(sorted(key for key in labels if ours(key))) if isinstance(labels, dict) else ()


def listed(kube: Kube, namespace: str) -> dict[str, list[Object]]:
    """Where objects of the chart may be: kind to all that there are; DaemonSets of every namespace."""
    spaces = {kind: "*" if kind == "daemonsets" else namespace for kind in NAMESPACED}
    return {kind: kube.list(kind, namespace=spaces.get(kind)) for kind in (*NAMESPACED, *GLOBAL)}


def parts(all_of: Mapping[str, Sequence[Object]], owner: Owner) -> dict[str, tuple[str, ...]]:
    """The release's own objects; once it is gone, what its hooks or a killed Helm have left."""
    found: dict[str, tuple[str, ...]] = {}
    for kind, objects in all_of.items():
        here = [o for o in objects if at(o, "metadata", "namespace") in (None, owner[1])]
        ours = [o for o in here if owner_of(o) == owner and name_of(o).startswith(PARTS)]
        names = {*HOOKS, DAEMONSET} if kind == "daemonsets" else HOOKS
        hooks = [o for o in here if owner_of(o) is None and name_of(o) in names]
        if ours or hooks:
            found[kind] = tuple(sorted(name_of(o) for o in (*ours, *hooks)))
    return found


def others(all_of: Mapping[str, Sequence[Object]], owner: Owner) -> tuple[tuple[Owner, ...], tuple[str, ...]]:
    """Who else has installed kata-deploy where this release has it, and what is there beside it."""
    elsewhere, beside = set[Owner](), set[str]()
    for found in all_of["daemonsets"]:
        name, place = name_of(found), str(at(found, "metadata", "namespace"))
        whose = owner_of(found) or ("", place)
        label = at(found, "spec", "template", "metadata", "labels", "name")
        if whose == owner or whose == ("", owner[1]):
            continue
        if DAEMONSET in (name, label):
            elsewhere.add(whose)
        elif name.startswith(f"{DAEMONSET}-"):
            beside.add(f"{place}/{name}")
    for found in (o for kind in GLOBAL for o in all_of[kind] if name_of(o) in ROLES):
        elsewhere |= {owner_of(found) or owner} - {owner}
    return tuple(sorted(elsewhere)), tuple(sorted(beside))
