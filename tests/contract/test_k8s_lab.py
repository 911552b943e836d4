"""The lab's own cluster: what is played on the real control plane is what the real products do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab import wait_for
from tests.lab.k8s import ControlPlane
from tests.peers.kubelet import Cluster, Ill, Machine

NODE = "worker-1"
SECONDS = 20
DEPLOY = "kube-system"


def run(
    cluster: Cluster,
    command: str,
    *,
    name: str = "short",
    runtime_class: str | None = None,
    privileged: bool = False,
    selector: dict[str, str] | None = None,
) -> None:
    """Create a pod with one shell command; a privileged one has the node at /host."""
    container: dict[str, Any] = {
        "name": "c",
        "image": "example.org/busybox:1",
        "command": ["sh", "-c", command],
    }
    container["env"] = [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [container]}
    if privileged:
        container["securityContext"] = {"privileged": True}
        container["volumeMounts"] = [{"name": "host", "mountPath": "/host"}]
        spec["volumes"] = [{"name": "host", "hostPath": {"path": "/"}}]
    spec |= {"runtimeClassName": runtime_class} if runtime_class else {}
    spec |= {"nodeSelector": selector} if selector else {}
    metadata = {"name": name, "namespace": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))


def wait(cluster: Cluster, phase: str, *names: str) -> None:
    pods = [f"pod/{name}" for name in names or ("short",)]
    cluster.kubectl("wait", f"--for=jsonpath={{.status.phase}}={phase}", *pods, f"--timeout={SECONDS}s")


def events(cluster: Cluster, about: str = "") -> str:
    found = cluster.api.items("/api/v1/events")
    mine = [event for event in found if event["involvedObject"]["name"].startswith(about)]
    return "\n".join(f"{event['reason']}: {event['message']}" for event in mine)


def wait_for_event(cluster: Cluster, text: str, about: str = "") -> None:
    wait_for(lambda: text in events(cluster, about), SECONDS, f"an event with {text!r}")


def test_a_pod_runs_to_its_end_and_its_log_is_read(cluster: Cluster) -> None:
    node = cluster.add(NODE)
    run(cluster, "uname -r; cat /proc/sys/kernel/random/boot_id; echo $NODE; exit 3")
    wait(cluster, "Failed")
    (pod,) = cluster.objects("pods")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    info = cluster.objects("nodes")[0]["status"]["nodeInfo"]
    assert cluster.kubectl("logs", "short").split() == [node.machine.kernel, info["bootID"], NODE]
    cluster.kubectl("delete", "pod", "short", f"--timeout={SECONDS}s")
    assert cluster.objects("pods") == []


def test_a_privileged_pod_changes_its_node(cluster: Cluster) -> None:
    node = cluster.add(NODE)
    run(
        cluster,
        "chroot /host python3 - < /dev/null && touch /host/opt/mark && nsenter -t 1 -m -- systemctl stop x",
        privileged=True,
    )
    wait(cluster, "Succeeded")
    assert json.loads(cluster.kubectl("logs", "short"))["verdict"] == "works"
    assert (node.root / "opt/mark").exists()
    assert node.played == ("systemctl stop x",)


def test_a_pod_that_is_deleted_ends(cluster: Cluster) -> None:
    cluster.add(NODE)
    run(cluster, "echo begun; sleep 600")
    wait(cluster, "Running")
    assert cluster.kubectl("logs", "short") == "begun\n"
    cluster.kubectl("delete", "pod", "short", f"--timeout={SECONDS}s")


def test_a_node_that_is_not_ready_runs_nothing(cluster: Cluster) -> None:
    cluster.add(NODE, Machine(ready=False))
    run(cluster, "true")
    wait_for_event(cluster, "node.kubernetes.io/not-ready")
    assert cluster.objects("pods")[0]["status"]["phase"] == "Pending"


@pytest.mark.parametrize("helm", ["3", "4"])
@pytest.mark.parametrize(("version", "memory"), [("3.25.0", "160Mi"), ("4.1.0", "320Mi")])
def test_both_helms_install_both_charts_from_the_registry(
    cluster: Cluster, control_plane: ControlPlane, chart_url: str, helm: str, version: str, memory: str
) -> None:
    node = cluster.add(NODE)
    words = ["--set", "shims.disableAll=true"] if version == "4.1.0" else []
    words += [f"--set=shims.{name}.enabled=false" for name in ("clh", "fc", "dragonball")]
    words += [
        "--set=shims.qemu.enabled=true",
        "--set=k8sDistribution=rke2",
        "--plain-http",
        "--version",
        version,
    ]
    control_plane.helm("install", "kata", chart_url, "--namespace", DEPLOY, *words, helm=helm)
    wait_for(lambda: cluster.labelled() == {NODE}, SECONDS, "the label")
    classes = {found["metadata"]["name"]: found for found in cluster.objects("runtimeclasses")}
    # 3.25 has thirteen more than those that are switched off here; 4.1 is told to switch off all.
    assert len(classes) == (13 if version == "3.25.0" else 1)
    assert classes["kata-qemu"]["overhead"]["podFixed"]["memory"] == memory
    assert set(node.handlers) == set(classes)
    control_plane.helm("uninstall", "kata", "--namespace", DEPLOY, helm=helm)
    assert cluster.objects("runtimeclasses") == []
    left = [found["metadata"]["name"] for found in cluster.objects("clusterroles")]
    assert not [name for name in left if name.startswith("kata-deploy")]


def test_only_3_25_forgets_nodes(cluster: Cluster, control_plane: ControlPlane) -> None:
    names = {cluster.add(f"worker-{number}").name for number in (1, 2, 3)}
    for version, forgotten in (("3.25.0", 2), ("4.1.0", 0)):
        cluster.install(version)
        assert cluster.labelled() == names
        control_plane.helm("uninstall", "kata-deploy", "--namespace", DEPLOY)
        kept = {name for name in names if (cluster.node(name).root / "opt/kata").exists()}
        assert len(kept) == forgotten
        assert cluster.labelled() == kept
        assert {name for name in names if cluster.node(name).handlers} == kept


def test_a_kata_pod_shows_another_machine(cluster: Cluster) -> None:
    cluster.add(NODE)
    cluster.install()
    seen = {}
    for name, runtime_class in (("plain", None), ("kata", "kata-qemu")):
        run(cluster, "uname -r; cat /sys/class/dmi/id/sys_vendor", name=name, runtime_class=runtime_class)
        wait(cluster, "Succeeded", name)
        seen[name] = cluster.kubectl("logs", name).splitlines()
    assert seen["plain"] == [Machine().kernel, "VMware, Inc."]
    assert seen["kata"] == ["6.12.47", "QEMU"]
    cluster.ill(Ill.NOT_ISOLATED, runtime_class="kata-qemu")
    run(cluster, "uname -r", name="liar", runtime_class="kata-qemu")
    wait(cluster, "Succeeded", "liar")
    assert cluster.kubectl("logs", "liar").split() == [Machine().kernel]


SANDBOX = {
    Ill.NO_HANDLER: 'no runtime for "kata-qemu" is configured',
    Ill.NO_KVM: "Could not access KVM kernel module",
    Ill.VSOCK_MISSING: "open /dev/vhost-vsock: no such file or directory",
    Ill.VSOCK_BUSY: "open /dev/vhost-vsock: no such device",
    Ill.NO_DEVMAPPER: "ENOENT: No such file or directory",
    Ill.AGENT_TIMEOUT: "ConnectConfig { dial_timeout_ms: 30, reconnect_timeout_ms: 3000 }",
    Ill.IMAGE_PULL: "Failed to pull image",
}


def test_each_ill_has_its_event_and_can_be_healed(cluster: Cluster) -> None:
    cluster.add(NODE)
    cluster.install()
    for number, ill in enumerate(SANDBOX):
        cluster.ill(ill, runtime_class="kata-qemu", pod=f"pod-{number}")
        run(cluster, "true", name=f"pod-{number}", runtime_class="kata-qemu")
    for text in SANDBOX.values():
        wait_for_event(cluster, text)
    assert {pod["status"]["phase"] for pod in cluster.objects("pods", "default")} == {"Pending"}
    cluster.heal()
    wait(cluster, "Succeeded", *(f"pod-{number}" for number in range(len(SANDBOX))))


def test_ills_follow_from_machines(cluster: Cluster) -> None:
    machines = {
        "no-kvm": (Machine(kvm="no-device"), "qemu", Ill.NO_KVM),
        "busy": (Machine(vhost_vsock="busy"), "qemu", Ill.VSOCK_BUSY),
        "no-devmapper": (Machine(), "fc", Ill.NO_DEVMAPPER),
        # 3.25 writes a template that rke2 does not read with this containerd.
        "third-version": (Machine(containerd="2.0.5"), "qemu", Ill.NO_HANDLER),
    }
    for name, (machine, _, _) in machines.items():
        cluster.add(name, machine)
    cluster.install("3.25.0", ("qemu", "fc"))
    for name, (_, shim, _) in machines.items():
        where = {"kubernetes.io/hostname": name}
        run(cluster, "true", name=name, runtime_class=f"kata-{shim}", selector=where)
    for name, (_, _, ill) in machines.items():
        wait_for_event(cluster, SANDBOX[ill], about=name)


def test_the_control_plane_itself_says_no(cluster: Cluster) -> None:
    cluster.add(NODE)
    with pytest.raises(Exception, match='RuntimeClass "kata-qemu" not found'):
        run(cluster, "true", runtime_class="kata-qemu")
    run(cluster, "true", selector={"no": "such"})
    wait_for_event(cluster, "FailedScheduling")


def test_kata_deploy_can_fail(cluster: Cluster) -> None:
    for number, ill in enumerate((Ill.SELINUX, Ill.DEPLOY_CRASH, Ill.NO_LABEL), 1):
        cluster.ill(ill, node=cluster.add(f"worker-{number}").name)
    cluster.add("worker-4")
    cluster.install(wait=False)
    wait_for(lambda: cluster.labelled() == {"worker-4"}, SECONDS, "the sound node's label")
    wait_for(
        lambda: events(cluster).count("Back-off restarting failed container") == 2, SECONDS, "two crashes"
    )
    pods = {pod["spec"]["nodeName"]: pod for pod in cluster.objects("pods", DEPLOY, "name=kata-deploy")}
    said = cluster.kubectl("logs", "--namespace", DEPLOY, pods["worker-1"]["metadata"]["name"])
    assert "Permission denied" in said
    assert pods["worker-3"]["status"]["containerStatuses"][0]["ready"]


def test_the_api_server_drops_while_kata_deploy_restarts_the_runtime(cluster: Cluster) -> None:
    cluster.add(NODE)
    begun = cluster.plane.pid("api")
    cluster.api_drops(0.1)
    cluster.install(wait=False)
    wait_for(lambda: cluster.plane.pid("api") not in (begun, None), SECONDS, "another API server")
    wait_for(lambda: cluster.api.answers() and cluster.labelled() == {NODE}, SECONDS, "the label")
    run(cluster, "true", runtime_class="kata-qemu")
    wait(cluster, "Succeeded")


def test_requests_are_counted(cluster: Cluster, control_plane: ControlPlane) -> None:
    cluster.add(NODE)
    control_plane.forget_requests()
    cluster.kubectl("get", "--raw", "/api/v1/nodes")
    assert control_plane.requests() == {"list nodes": 1}
