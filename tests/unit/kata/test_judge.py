"""What the API server says of Kata, read and judged. cluster-api, cluster-node-ready, cluster-daemonset,
cluster-node-label, cluster-runtimeclass, cluster-release."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nestvirt.kata import judge
from nestvirt.kata.cluster import Cluster, Deploy, Node, RuntimeClass, read
from nestvirt.kata.kube import Kube
from nestvirt.kata.rollout import LABEL
from nestvirt.model import Finding, Status

Object = dict[str, Any]
READY = {
    "metadata": {"name": "kata-deploy-x", "namespace": "kube-system"},
    "spec": {"nodeName": "w1"},
    "status": {"phase": "Running", "containerStatuses": [{"ready": True, "state": {"running": {}}}]},
}
W1 = Node("w1", ready=True, labels={LABEL: "true"}, arch="amd64")
DEPLOY = Deploy(
    "kata-deploy",
    "kube-system",
    desired=1,
    ready=1,
    image="quay.io/kata-containers/kata-deploy:3.25.0",
    env={"SHIMS_X86_64": "qemu clh", "SHIMS_AARCH64": "qemu"},
    pods={"w1": READY},
)
CLASSES = (RuntimeClass("kata-clh", "kata-clh"), RuntimeClass("kata-qemu", "kata-qemu"))
SOUND = Cluster((1, 30), (W1,), CLASSES, (DEPLOY,))


def changed(**fields: Any) -> Cluster:
    return Cluster(
        **({"version": (1, 30), "nodes": (W1,), "classes": CLASSES, "deploys": (DEPLOY,)} | fields)
    )


def of(cluster: Cluster, expected: tuple[str, ...] | None = None, **logs: bytes) -> dict[str, Finding]:
    nodes = cluster.targets() or cluster.nodes
    found = judge.judge(cluster, nodes, expected, {k.replace("_", "-"): v for k, v in logs.items()})
    assert all(f.cure for f in found if f.ill)
    return {f.check: f for f in found}


def deploy(**fields: Any) -> Deploy:
    return Deploy(**(vars(DEPLOY) | fields))


def test_all_is_well() -> None:
    assert {f.status for f in of(SOUND).values()} == {Status.PASS}


def test_nothing_is_there() -> None:
    found = of(Cluster((1, 30), (Node("w1", ready=True),)))
    assert found["cluster-daemonset"].status is Status.FAIL
    assert "kata-install" in found["cluster-daemonset"].cure
    assert list(found) == ["cluster-api", "cluster-daemonset"]


CASES: list[tuple[str, Cluster, Status, str]] = [
    ("cluster-daemonset", changed(deploys=()), Status.FAIL, "though there is more of Kata"),
    ("cluster-daemonset", changed(deploys=(deploy(desired=0, pods={}),)), Status.FAIL, "selects no node"),
    ("cluster-node-label", changed(nodes=(Node("w1", ready=True),)), Status.FAIL, "not there"),
    (
        "cluster-node-label",
        changed(nodes=(Node("w1", ready=True, labels={LABEL: "false"}),)),
        Status.FAIL,
        "not done",
    ),
    ("cluster-node-ready", changed(nodes=(Node("w1", ready=False, why="no CNI"),)), Status.FAIL, "no CNI"),
    ("cluster-node-ready", changed(nodes=(Node("w1", why="not heard of"),)), Status.UNKNOWN, "not heard of"),
    ("cluster-runtimeclass", changed(classes=CLASSES[:1]), Status.FAIL, "missing: kata-qemu"),
    ("cluster-runtimeclass", changed(deploys=(deploy(env={}),)), Status.FAIL, "no shim is on"),
    (
        "cluster-runtimeclass",
        changed(classes=(*CLASSES, RuntimeClass("kata-fc", "kata-fc"))),
        Status.WARN,
        "kata-fc",
    ),
    (
        "cluster-runtimeclass",
        changed(classes=(*CLASSES, RuntimeClass("kata", "kata-qemu"))),
        Status.PASS,
        "kata ",
    ),
    (
        "cluster-runtimeclass",
        changed(classes=(*CLASSES, RuntimeClass("kata-qemu-debug", "kata-qemu-debug"))),
        Status.PASS,
        "",
    ),
]


@pytest.mark.parametrize(("check", "cluster", "status", "words"), CASES)
def test_each_ill_is_told(check: str, cluster: Cluster, status: Status, words: str) -> None:
    found = of(cluster)[check]
    assert found.status is status
    assert words in found.evidence


def test_exactly_the_wanted_classes() -> None:
    assert of(SOUND, ("kata-clh", "kata-qemu"))["cluster-runtimeclass"].status is Status.PASS
    assert of(SOUND, ("kata-qemu",))["cluster-runtimeclass"].status is Status.WARN
    assert of(SOUND, ("kata-fc", "kata-qemu"))["cluster-runtimeclass"].status is Status.FAIL


def test_a_pod_that_crashes_is_explained_by_its_log() -> None:
    state = [{"ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]
    pod = READY | {"status": {"phase": "Running", "containerStatuses": state}}
    cluster = changed(deploys=(deploy(ready=0, pods={"w1": pod}),))
    found = of(cluster, kata_deploy_x=b"cp: cannot create '/host/opt/kata/x': Permission denied\n")
    assert "SELinux" in found["cluster-daemonset"].evidence
    assert "ausearch" in found["cluster-daemonset"].cure


def test_pods_that_the_namespace_refuses_are_explained() -> None:
    words = 'Error creating: pods "kata-deploy-y" is forbidden: violates PodSecurity "restricted:latest": x'
    events = {"kata-deploy": ({"reason": "FailedCreate", "message": words},)}
    found = of(changed(deploys=(deploy(desired=1, ready=0, pods={}, events=events),)))["cluster-daemonset"]
    assert found.status is Status.FAIL
    assert "kubectl label namespace kube-system pod-security.kubernetes.io/enforce=privileged" in found.cure


# --- reading


class FakeKube(Kube):
    """A cluster of those objects."""

    def version(self) -> tuple[int, int]:
        return 1, 30

    def list(
        self, kind: str, *, namespace: str | None = None, selector: str = "", fields: str = ""
    ) -> list[Object]:
        return OBJECTS[kind]


CONTAINER = {
    "name": "kube-kata",
    "image": "quay.io/x:3.25.0",
    "env": [{"name": "NODE_NAME", "valueFrom": {}}, {"name": "SHIMS_X86_64", "value": "qemu clh"}],
    "volumeMounts": [{"name": "conf", "mountPath": "/etc/containerd/"}],
}
OBJECTS: dict[str, list[Object]] = {
    "nodes": [
        {
            "metadata": {"name": "w1", "labels": {LABEL: "true"}},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kernelVersion": "5.14", "bootID": "b", "kubeletVersion": "v1.30.6+rke2r1"},
                "runtimeHandlers": [{"name": ""}, {"name": "kata-qemu"}],
            },
        },
        {"metadata": {"name": "w2"}, "status": {"conditions": 7, "nodeInfo": [], "runtimeHandlers": None}},
        {"metadata": {"name": "w3"}, "status": None},
    ],
    "runtimeclasses": [
        {
            "metadata": {"name": "kata-qemu"},
            "handler": "kata-qemu",
            "scheduling": {"nodeSelector": {"a": "b"}},
        },
        {"metadata": {"name": "gvisor"}, "handler": "runsc"},
    ],
    "daemonsets": [
        {
            "metadata": {"name": "kata-deploy", "namespace": "kube-system"},
            "spec": {
                "selector": {"matchLabels": {"name": "kata-deploy"}},
                "template": {
                    "spec": {
                        "containers": [CONTAINER],
                        "volumes": [{"name": "conf", "hostPath": {"path": "/var/lib/x/"}}],
                    }
                },
            },
            "status": {"desiredNumberScheduled": 1, "numberReady": 1},
        },
        {"metadata": {"name": "other", "namespace": "kube-system"}},
        {"metadata": {"name": "kata-deploy-odd", "namespace": "kube-system"}, "spec": 7},
    ],
    "pods": [READY],
    "events": [],
}


def test_objects_are_read_strictly() -> None:
    cluster = read(FakeKube(), "kube-system")
    w1, w2, w3 = cluster.nodes
    assert (w1.ready, w1.distribution, w1.handlers) == (True, "rke2", frozenset({"", "kata-qemu"}))
    assert (w2.ready, w2.boot_id, w2.handlers) == (None, "", None)
    assert w3.ready is None
    assert [c.name for c in cluster.classes] == ["kata-qemu"]
    deploy, odd = cluster.deploys
    assert deploy.shims("amd64") == ("qemu", "clh")
    assert deploy.directory == "/var/lib/x"
    assert [node.name for node in cluster.targets()] == ["w1"]
    assert (odd.image, odd.pods, odd.shims("amd64")) == ("", {}, ())


def test_a_cordoned_node_is_a_warning() -> None:
    found = of(changed(nodes=(replace(W1, cordoned=True),)))["cluster-node-ready"]
    assert (found.status, found.cure) == (Status.WARN, "kubectl uncordon NODE")


def test_that_a_node_is_cordoned_is_read() -> None:
    node = {"metadata": {"name": "w1"}, "spec": {"unschedulable": True}}
    daemonset = {"metadata": {"name": "kata-deploy", "annotations": {"meta.helm.sh/release-name": "mine"}}}

    class Told(Kube):
        def version(self) -> tuple[int, int]:
            return 1, 30

        def list(self, kind: str, **_options: Any) -> list[Object]:
            listed: dict[str, list[Object]] = {"nodes": [node], "daemonsets": [daemonset]}
            return listed.get(kind, [])

    known = read(Told(), "kube-system")
    assert known.nodes[0].cordoned
    assert known.deploys[0].release == "mine"


@pytest.mark.parametrize(("label", "cure"), [(None, "kubectl delete pod"), ("false", "kata-logs")])
def test_a_label_that_was_lost_comes_back_when_kata_deploy_works_again(label: str | None, cure: str) -> None:
    labels = {} if label is None else {LABEL: label}
    found = of(changed(nodes=(replace(W1, labels=labels),)))["cluster-node-label"]
    assert found.status is Status.FAIL
    assert cure in found.cure
