"""What an installation would change, and whom it reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nestvirt.errors import ChangeRejected
from nestvirt.kata import changing, helm, install, install_plan, preflight, rollout
from nestvirt.kata.config import KataConfig
from nestvirt.kata.helm import Helm, Revision, Source
from nestvirt.kata.install_plan import Live, Nodes, chosen, difference, judge_release, plan, targets
from nestvirt.kata.kube import Kube
from nestvirt.model import Change, Finding, Layer, Status

CONFIG = KataConfig()
QEMU: dict[str, Any] = {"kind": "RuntimeClass", "metadata": {"name": "kata-qemu"}, "handler": "kata-qemu"}
CLH: dict[str, Any] = {"kind": "RuntimeClass", "metadata": {"name": "kata-clh"}, "handler": "kata-clh"}
NODES = Nodes(("worker-1", "worker-2"), {"server-1": "its taint x:NoSchedule is not tolerated"})
DEPLOYED = Revision(1, "deployed", "3.25.0", "then")


def daemonset(**spec: Any) -> dict[str, Any]:
    return {
        "kind": "DaemonSet",
        "metadata": {"name": "kata-deploy"},
        "spec": {"template": {"spec": spec}},
    }


RENDERED = [daemonset(), QEMU]


def live(
    *history: Revision,
    objects: Sequence[dict[str, Any]] = (),
    classes: Sequence[str] = (),
    users: dict[str, tuple[str, ...]] | None = None,
    has_daemonset: bool = True,
) -> Live:
    return Live(history, tuple(objects), frozenset(classes), has_daemonset, users or {})


SAME = live(DEPLOYED, objects=RENDERED, classes=["kata-qemu"])


def test_the_same_again_is_nothing_to_do() -> None:
    planned = plan(CONFIG, SAME, RENDERED, NODES)
    assert planned.empty
    assert not planned.helm
    assert not planned.changes


PLANS: dict[str, tuple[Live, str, tuple[Change, ...]]] = {
    "new": (
        live(),
        "install Kata 3.25.0",
        (Change("Kata", None, "3.25.0"), Change("RuntimeClass", None, "kata-qemu")),
    ),
    "upgrade": (
        live(replace(DEPLOYED, chart="3.24.0"), objects=RENDERED, classes=["kata-qemu"]),
        "upgrade Kata from 3.24.0 to 3.25.0",
        (Change("Kata", "3.24.0", "3.25.0"),),
    ),
    "downgrade": (
        live(replace(DEPLOYED, chart="3.30.0"), objects=RENDERED, classes=["kata-qemu"]),
        "downgrade Kata from 3.30.0 to 3.25.0",
        (Change("Kata", "3.30.0", "3.25.0"),),
    ),
    "other values": (
        live(DEPLOYED, objects=[daemonset(hostPID=True), QEMU], classes=["kata-qemu"]),
        "change Kata 3.25.0: DaemonSet kata-deploy",
        (Change("release", "revision 1", "revision 2"),),
    ),
    "failed before": (
        live(replace(DEPLOYED, status="failed"), objects=RENDERED, classes=["kata-qemu"]),
        "install Kata 3.25.0 again: the release is failed",
        (Change("release", "revision 1", "revision 2"),),
    ),
    "somebody deleted": (
        live(DEPLOYED, objects=RENDERED, has_daemonset=False, classes=["kata-qemu"]),
        "put back what somebody deleted: DaemonSet kata-deploy",
        (Change("release", "revision 1", "revision 2"),),
    ),
    "one too many": (
        live(
            DEPLOYED,
            objects=[*RENDERED, CLH],
            classes=["kata-qemu", "kata-clh", "kata-by-hand"],
            users={"kata-clh": ("default/web",)},
        ),
        "remove the RuntimeClass kata-clh, which is used by default/web",
        (Change("release", "revision 1", "revision 2"), Change("RuntimeClass", "kata-clh", None)),
    ),
}


@pytest.mark.parametrize(("there", "line", "changes"), PLANS.values(), ids=PLANS)
def test_a_plan_says_from_what_to_what(there: Live, line: str, changes: tuple[Change, ...]) -> None:
    planned = plan(CONFIG, there, RENDERED, NODES)
    assert planned.helm
    assert line in planned.lines
    assert "nodes: worker-1, worker-2" in planned.lines
    assert "not on server-1: its taint x:NoSchedule is not tolerated" in planned.lines
    assert planned.changes == changes


def test_a_label_alone_needs_no_helm() -> None:
    nodes = replace(NODES, label=("worker-2",), unlabel=("worker-3",))
    planned = plan(CONFIG, SAME, RENDERED, nodes)
    assert not planned.helm
    assert not planned.empty
    assert planned.changes == (
        Change("nestvirt.io/kvm of worker-2", None, "works"),
        Change("nestvirt.io/kvm of worker-3", "works", None),
    )


def test_a_difference_is_object_by_object() -> None:
    changed = difference([QEMU, CLH], [{**QEMU, "handler": "other"}, daemonset()])
    assert [(c.setting, c.before is None, c.after is None) for c in changed] == [
        ("RuntimeClass kata-qemu", False, False),
        ("DaemonSet kata-deploy", True, False),
        ("RuntimeClass kata-clh", False, True),
    ]


@pytest.mark.parametrize("made", [[QEMU, CLH], [CLH], []], ids=["one more", "another", "none"])
def test_other_runtimeclasses_than_asked_for_are_refused(made: list[dict[str, Any]]) -> None:
    install_plan.refuse_other_classes(CONFIG, [QEMU])
    with pytest.raises(ChangeRejected):
        install_plan.refuse_other_classes(CONFIG, made)


@pytest.mark.parametrize(
    ("status", "force", "expected"),
    [
        ("deployed", False, Status.PASS),
        ("failed", False, Status.WARN),
        ("pending-install", False, Status.FAIL),
        ("pending-upgrade", False, Status.FAIL),
        ("uninstalling", False, Status.FAIL),
        ("pending-install", True, Status.WARN),
    ],
)
def test_a_release_that_somebody_is_at_work_on(status: str, force: bool, expected: Status) -> None:
    found = judge_release(live(replace(DEPLOYED, status=status)), force=force)
    assert (found.check, found.status) == ("cluster-release", expected)
    assert found.status is not Status.FAIL or "--force" in found.cure


# --- whom it reaches


def node(name: str, *, taints: Sequence[str] = (), **labels: str) -> dict[str, Any]:
    """A node; a taint is written KEY:EFFECT."""
    parts = [taint.rpartition(":") for taint in taints]
    spec = {"taints": [{"key": key, "effect": effect} for key, _, effect in parts]}
    named = {key.replace("_", "/"): value for key, value in labels.items()}
    return {"metadata": {"name": name, "labels": named}, "spec": spec}


TOLERATIONS: list[tuple[list[dict[str, str]], str, bool]] = [
    ([], "x:NoSchedule", False),
    ([], "x:PreferNoSchedule", True),
    ([], "node.kubernetes.io/unschedulable:NoSchedule", True),
    ([{"operator": "Exists"}], "x:NoExecute", True),
    ([{"key": "x", "operator": "Exists"}], "x:NoSchedule", True),
    ([{"key": "x", "operator": "Exists", "effect": "NoExecute"}], "x:NoSchedule", False),
    ([{"key": "y", "operator": "Exists"}], "x:NoSchedule", False),
    ([{"key": "x", "value": "z"}], "x:NoSchedule", False),
    ([{"key": "x"}], "x:NoSchedule", True),
]


@pytest.mark.parametrize(("tolerations", "taint", "reached"), TOLERATIONS)
def test_taints_and_what_tolerates_them(tolerations: list[dict[str, str]], taint: str, reached: bool) -> None:
    why = rollout.reach(daemonset(tolerations=tolerations), node("a", taints=[taint]))
    assert (not why) is reached


def test_a_selector_and_our_own_label() -> None:
    """The label that nestvirt is still to put there counts as there."""
    wanted = daemonset(nodeSelector={"pool": "big", "nestvirt.io/kvm": "works"})
    nodes = [node("a", pool="big"), node("b", pool="small"), node("c", pool="big", kubernetes_io_os="x")]
    nodes[2]["metadata"]["labels"]["kubernetes.io/os"] = "windows"
    reached = targets(wanted, nodes, own_label=True)
    assert reached.targets == ("a",)
    assert reached.beyond == {"b": "it lacks the label pool=big", "c": "it does not run Linux"}
    assert targets(wanted, nodes, own_label=False).targets == ()


def test_labels_go_on_and_off() -> None:
    nodes = [node("a"), node("b", nestvirt_io="x"), node("c")]
    nodes[2]["metadata"]["labels"]["nestvirt.io/kvm"] = "works"
    reached = Nodes(("a", "b", "c"), {})
    assert chosen(reached, nodes, ["a", "b"], ["c"]) == Nodes(("a", "b"), {}, ("a", "b"), ("c",))
    assert chosen(reached, nodes, None) == Nodes(("a", "b", "c"), {}, (), ("c",))


def test_a_node_that_could_not_be_asked_keeps_its_label() -> None:
    """NotReady, or an image that is not pulled: pods of Kata may run there."""
    nodes = [node("a"), node("b")]
    nodes[1]["metadata"]["labels"]["nestvirt.io/kvm"] = "works"
    found = [
        Finding("cluster-node-kvm", Layer.CLUSTER, Status.PASS, "", subject="a"),
        Finding("cluster-node-kvm", Layer.CLUSTER, Status.UNKNOWN, "", subject="b"),
    ]
    capable, incapable = preflight.capable(found, nodes), preflight.incapable(found)
    assert chosen(Nodes(("a", "b"), {}), nodes, capable, incapable) == Nodes(("a",), {}, ("a",), ())


@pytest.mark.parametrize("ask", [install.ask_nodes, None], ids=["preflight", "dry run"])
def test_kata_deploy_that_goes_to_no_node_is_a_failure(
    ask: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "preflight", lambda *_words: ([], None))
    tainted = node("a", taints=["x:NoSchedule"])
    session = changing.Session(Kube(), Helm(Kube(), "r", "n", 3), "lab", lambda _s, _d: None, list)
    wanted = changing.Wanted(CONFIG, Source("c", "3.25.0"), "image", 1, lambda _planned: None)
    look = changing.Look((tainted,), "rke2", live(), ())
    if ask is not None:
        _, findings = ask(session, wanted, look, RENDERED)
    else:
        monkeypatch.setattr(install, "look_around", lambda *_words: look)
        monkeypatch.setattr(install, "_rendered", lambda *_words: RENDERED)
        monkeypatch.setattr(helm, "fetched", lambda *_words, **_more: nullcontext(Path("c")))
        findings = install.dry_run(session, wanted).findings
    failed = [f.evidence for f in findings if f.status is Status.FAIL]
    assert failed == ["kata-deploy goes to no node"]


PROBED = daemonset(containers=[{"name": "kube-kata", "readinessProbe": {"httpGet": {}}}])
OLD = [daemonset(hostPID=True), QEMU]
UNSEEN: dict[str, tuple[Live, Sequence[dict[str, Any]], bool]] = {
    "an upgrade": (live(DEPLOYED, objects=OLD, classes=["kata-qemu"]), RENDERED, True),
    "with a probe": (live(DEPLOYED, objects=OLD, classes=["kata-qemu"]), [PROBED, QEMU], False),
    "the same pods": (
        live(DEPLOYED, objects=[daemonset(), QEMU, CLH], classes=["kata-clh"]),
        RENDERED,
        False,
    ),
    "it had failed": (live(replace(DEPLOYED, status="failed"), objects=RENDERED), RENDERED, True),
    "somebody deleted it": (live(DEPLOYED, objects=RENDERED, has_daemonset=False), RENDERED, True),
    "nothing to do": (SAME, RENDERED, False),
}


@pytest.mark.parametrize(("there", "rendered", "unseen"), UNSEEN.values(), ids=UNSEEN)
def test_pods_that_do_not_tell_when_they_are_done(
    there: Live, rendered: Sequence[dict[str, Any]], unseen: bool
) -> None:
    planned = plan(CONFIG, there, rendered, NODES)
    assert planned.unseen is unseen
    assert any("no further pod of Kata starts" in line for line in planned.lines) is unseen


def test_a_pod_on_a_node_that_is_not_waited_for_holds_nothing_up() -> None:
    """A node that is not ready and keeps its label: the DaemonSet is never whole there."""
    state = rollout._State()
    status = {
        "observedGeneration": 2,
        "desiredNumberScheduled": 2,
        "numberReady": 1,
        "updatedNumberScheduled": 1,
    }
    state.see("daemonsets", "ADDED", {"metadata": {"name": "kata-deploy", "generation": 2}, "status": status})
    for name in ("a", "b"):
        state.see("pods", "ADDED", {"metadata": {"name": name}, "spec": {"nodeName": name}})
    assert state.done(["a"])
    assert not state.done(["a", "b"])


def test_a_pod_is_for_a_node_before_it_is_placed() -> None:
    terms = [{"matchFields": [{"key": "metadata.name", "values": ["worker-1"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    pod = {"spec": {"affinity": {"nodeAffinity": required}}}
    assert rollout.node_of(pod) == "worker-1"
    assert rollout.node_of({"spec": {"nodeName": "worker-2"}}) == "worker-2"
    assert rollout.node_of({"spec": {}}) == ""


def test_a_dry_run_does_not_know_which_nodes_can(monkeypatch: pytest.MonkeyPatch) -> None:
    session = changing.Session(Kube(), Helm(Kube(), "r", "n", 3), "lab", lambda _s, _d: None, list)
    wanted = changing.Wanted(
        CONFIG, Source("c", "3.25.0"), "image", 1, lambda _planned: None, only_capable=True
    )
    monkeypatch.setattr(install, "look_around", lambda *_words: changing.Look((node("a"),), "rke2", SAME, ()))
    monkeypatch.setattr(install, "_rendered", lambda *_words: RENDERED)
    monkeypatch.setattr(helm, "fetched", lambda *_words, **_more: nullcontext(Path("c")))
    assert install.dry_run(session, wanted).remains == (
        "which nodes get the label nestvirt.io/kvm is known once they were asked: --preflight",
    )
