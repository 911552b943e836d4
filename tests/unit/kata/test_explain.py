"""Why a pod does not run: from its state, its events and its log to one cause."""

from __future__ import annotations

from typing import Any

import pytest

from nestvirt.kata.explain import of_outcome, of_pod
from nestvirt.kata.pods import Outcome, Task

Object = dict[str, Any]
TASK = Task("worker-1", "kata-qemu", "busybox", ("sh",), runtime_class="kata-qemu")
UNPLACED = (
    "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't satisfy "
    "plugin(s) [NodeAffinity]."
)


def pod(phase: str = "Pending", node: str | None = "worker-1", **status: Any) -> Object:
    return {
        "metadata": {"name": "p"},
        "spec": {"nodeName": node},
        "status": {"phase": phase, **status},
    }


def container(state: Object, *, ready: bool = False, last: Object | None = None) -> list[Object]:
    return [{"name": "task", "ready": ready, "state": state, "lastState": last or {}}]


def waiting(reason: str, message: str = "") -> list[Object]:
    return container({"waiting": {"reason": reason, "message": message}})


def ended(code: int, reason: str = "Error") -> Object:
    return {"terminated": {"exitCode": code, "reason": reason}}


def event(reason: str, message: str, at: str = "2026-11-29T08:00:00Z") -> Object:
    return {"metadata": {"name": reason + at}, "reason": reason, "message": message, "lastTimestamp": at}


def unscheduled(message: str) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(node=None, conditions=[condition])


CREATING = pod(containerStatuses=waiting("ContainerCreating"))
NO_HANDLER = event(
    "FailedCreatePodSandBox",
    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no "
    'runtime for "kata-qemu" is configured',
)
CASES: list[tuple[str, str, Object, list[Object], bytes]] = [
    ("handler-missing", 'no runtime for "kata-qemu"', CREATING, [NO_HANDLER], b""),
    ("scheduling", "label that this node does not have", unscheduled(UNPLACED), [], b""),
    (
        "scheduling",
        "no room",
        unscheduled(
            "0/2 nodes are available: 1 Insufficient memory, 1 node(s) didn't match Pod's node affinity."
        ),
        [],
        b"",
    ),
    (
        "scheduling",
        "taint",
        unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."),
        [],
        b"",
    ),
    ("scheduling", "does not place", pod(node=None), [event("FailedScheduling", "no nodes at all")], b""),
    (
        "image-pull",
        "no such host",
        pod(containerStatuses=waiting("ImagePullBackOff", "no such host")),
        [],
        b"",
    ),
    ("image-pull", "InvalidImageName", pod(containerStatuses=waiting("InvalidImageName")), [], b""),
    (
        "other",
        "configmap",
        pod(containerStatuses=waiting("CreateContainerConfigError", "no configmap")),
        [],
        b"",
    ),
    (
        "memory",
        "want of memory",
        pod("Failed", containerStatuses=container(ended(137, "OOMKilled"))),
        [],
        b"",
    ),
    (
        "exited",
        "exit code 3: cannot do it",
        pod("Failed", containerStatuses=container(ended(3))),
        [],
        b"cannot do it\n",
    ),
    (
        "selinux",
        "Permission denied",
        pod(
            "Running", containerStatuses=container({"waiting": {"reason": "CrashLoopBackOff"}}, last=ended(1))
        ),
        [event("BackOff", "Back-off restarting failed container")],
        b"installing\ncp: cannot create regular file '/host/opt/kata/bin/x': Permission denied\n",
    ),
    (
        "exited",
        "failed to restart",
        pod("Running", containerStatuses=waiting("CrashLoopBackOff")),
        [],
        b"Error: failed to restart the container runtime\n",
    ),
    ("other", "Evicted", pod("Failed", reason="Evicted", message="node was low on disk"), [], b""),
    ("silent", "ContainerCreating", CREATING, [], b""),
    ("other", "something new", CREATING, [event("FailedCreatePodSandBox", "something new")], b""),
]


@pytest.mark.parametrize(("name", "said", "found", "events", "log"), CASES)
def test_each_state_has_one_cause(
    name: str, said: str, found: Object, events: list[Object], log: bytes
) -> None:
    trouble = of_pod(found, events, log)
    assert trouble is not None
    assert trouble.name == name
    assert said in trouble.evidence
    assert trouble.cure


@pytest.mark.parametrize(
    "found",
    [
        pod("Succeeded", containerStatuses=container(ended(0))),
        pod("Running", containerStatuses=container({}, ready=True)),
    ],
)
def test_nothing_is_the_matter(found: Object) -> None:
    assert of_pod(found, [NO_HANDLER]) is None


def test_the_event_that_tells_most_counts() -> None:
    later = event("BackOff", 'Back-off pulling image "x"', "2026-11-29T09:00:00Z")
    trouble = of_pod(CREATING, [later, NO_HANDLER])
    assert trouble is not None
    assert trouble.name == "handler-missing"
    pulls = [
        event("Failed", "Error: ErrImagePull"),
        event("Failed", 'Failed to pull image "x": no such host', "0"),
    ]
    trouble = of_pod(CREATING, pulls)
    assert trouble is not None
    assert "no such host" in trouble.evidence


@pytest.mark.parametrize("junk", [None, 7, [], "x", [7], {"a": 1}])
def test_junk_is_no_state(junk: Any) -> None:
    found = {"metadata": {"name": "p"}, "spec": junk, "status": {"phase": junk, "conditions": junk}}
    assert of_pod(found, [{"metadata": {}, "reason": junk, "message": junk}]) is not None
    of_pod(pod(containerStatuses=junk, conditions=junk))
    of_pod(pod(containerStatuses=[{"state": junk, "lastState": {"terminated": junk}}]))


def test_what_became_of_a_task_is_explained() -> None:
    refused = Outcome(
        TASK, "Refused", trouble='pods "x" is forbidden: pod rejected: RuntimeClass "k" not found'
    )
    assert of_outcome(refused).name == "runtimeclass-missing"
    assert of_outcome(Outcome(TASK, "Gone")).name == "gone"
    pending = Outcome(TASK, "Pending", pod=CREATING)
    assert of_outcome(pending).name == "silent"
    assert of_outcome(pending, node_ready=None).name == "node-not-ready"
    assert of_outcome(
        Outcome(TASK, "Pending", pod=CREATING, events=(NO_HANDLER,)), node_ready=False
    ).name == ("handler-missing")
    unread = Outcome(
        TASK, "Succeeded", pod=pod("Succeeded"), trouble="the API server does not reach a kubelet"
    )
    assert of_outcome(unread).name == "no-log"
