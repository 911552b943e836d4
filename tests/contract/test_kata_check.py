"""kata-check at a real API server: what is sound passes, and each failure is explained, with one cure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.e2e.shell import NESTVIRT, Prompt
from tests.lab import wait_for
from tests.lab.k8s import ControlPlane
from tests.peers.kubelet import Cluster, Ill, Machine

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/report.schema.json").read_text())
KERNEL = Machine().kernel
KATA = "cluster-pod-kata"
SECONDS = 30


@dataclass(frozen=True)
class Explained:
    """A finding that is expected.

    Attributes:
        evidence: words of it.
        cure: words of it; empty where there is nothing to cure.
    """

    check: str
    subject: str
    status: str
    evidence: str = ""
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.check} {self.subject} {self.status}"


class Operator(Prompt):
    """Types ``nestvirt kata-check``."""

    def __init__(self, cluster: Cluster, state: Path) -> None:
        # What is installed on this machine as kubectl is not what the lab has.
        path = f"{cluster.plane.path()}:{os.environ['PATH']}"
        super().__init__(state, {"KUBECONFIG": cluster.kubeconfig, "PATH": path})
        self.cluster = cluster

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """A kata-check under way."""
        return self.start("kata-check", "--timeout", str(SECONDS), *words)

    def check(self, *words: str) -> tuple[int, dict[str, Any]]:
        """The exit code, and the report as JSON, which is of the form that is promised."""
        code, out, err = self.run("kata-check", "--timeout", str(SECONDS), "-o", "json", *words)
        assert "Traceback" not in err
        report: dict[str, Any] = json.loads(out)
        jsonschema.validate(report, SCHEMA)
        assert self.left() == []
        return code, report

    def left(self) -> list[str]:
        """What there is of nestvirt's on the cluster."""
        kinds = [self.cluster.api.items(f"/api/v1/{kind}") for kind in ("pods", "configmaps")]
        names = [found["metadata"]["name"] for objects in kinds for found in objects]
        return [name for name in names if name.startswith("nestvirt")]


@pytest.fixture
def operator(cluster: Cluster, tmp_path: Path) -> Operator:
    return Operator(cluster, tmp_path)


def found(report: dict[str, Any], wanted: Explained) -> dict[str, Any]:
    """The finding of that check about that subject."""
    of = [
        f for f in report["findings"] if (f["check"], f.get("subject", "")) == (wanted.check, wanted.subject)
    ]
    assert len(of) == 1, (str(wanted), report["findings"])
    finding: dict[str, Any] = of[0]
    return finding


def assert_explained(report: dict[str, Any], *expected: Explained) -> None:
    for wanted in expected:
        finding = found(report, wanted)
        assert finding["status"] == wanted.status, (str(wanted), finding)
        assert wanted.evidence in finding["evidence"], (str(wanted), finding)
        assert wanted.cure in finding["cure"], (str(wanted), finding)
        assert bool(finding["cure"]) == (wanted.status != "pass"), (str(wanted), finding)


def statuses(report: dict[str, Any]) -> set[str]:
    return {finding["status"] for finding in report["findings"]}


def test_a_sound_cluster_passes(operator: Operator, control_plane: ControlPlane) -> None:
    operator.cluster.add("worker-1")
    operator.cluster.add("worker-2", Machine(distribution="k3s", kernel="6.12.47"))
    operator.cluster.add("control", Machine(control_plane=True))  # kata-deploy does not go there
    operator.cluster.install(wait=False)
    both = {"worker-1", "worker-2"}
    wait_for(lambda: operator.cluster.labelled() == both, SECONDS, "both labels")
    control_plane.forget_requests()
    code, report = operator.check("--node", "worker-1")
    asked = control_plane.requests()
    assert (code, statuses(report)) == (0, {"pass"})
    assert_explained(
        report,
        Explained("cluster-release", "", "pass", "deployed"),
        Explained("cluster-daemonset", "worker-1", "pass", "kata-deploy:3.25.0"),
        Explained("cluster-node-label", "worker-1", "pass"),
        Explained("cluster-node-files", "worker-1", "pass", "qemu"),
        Explained("cluster-runtimeclass", "", "pass", "kata-qemu"),
        Explained("cluster-handler", "worker-1/kata-qemu", "pass"),
        Explained("cluster-pod-standard", "worker-1", "pass", KERNEL),
        Explained(KATA, "worker-1/kata-qemu", "pass", "QEMU"),
    )
    # It is told of changes, and does not ask again and again.
    assert asked["watch pods"] <= 2
    assert asked["list pods"] <= 6, asked
    assert sum(asked.values()) < 60


def test_the_same_kernel_on_another_machine_passes(operator: Operator) -> None:
    """A node whose kernel is Kata's own: it is the boot that tells machines apart."""
    operator.cluster.add("worker-1", Machine(kernel="6.12.47"))
    operator.cluster.install("4.1.0", ("qemu-runtime-rs",), helm="4")
    code, report = operator.check()
    assert (code, statuses(report)) == (0, {"pass"})


PODS = {
    "no-handler": Explained(KATA, "", "fail", 'no runtime for "kata-qemu" is configured', "kata-install"),
    "no-kvm": Explained(KATA, "", "fail", "Could not access KVM kernel module", "nestvirt enable"),
    "vsock-busy": Explained(KATA, "", "fail", "no such device", "modprobe -r vmw_vsock_vmci_transport"),
    "vsock-missing": Explained(KATA, "", "fail", "/dev/vhost-vsock", "modprobe vhost_vsock"),
    "no-devmapper": Explained(KATA, "", "fail", "devmapper", "thin pool"),
    "agent-timeout": Explained(KATA, "", "fail", "reconnect_timeout_ms: 3000", "45 s"),
    "image-pull": Explained(KATA, "", "unknown", "no such host", "--image"),
    "not-isolated": Explained(KATA, "", "fail", KERNEL, "kata-logs --node not-isolated"),
    "sound": Explained(KATA, "", "pass"),
}
NODES = {
    "no-kvm": Machine(kvm="no-device"),
    "vsock-busy": Machine(vhost_vsock="busy"),
    "vsock-missing": Machine(vhost_vsock="missing"),
}
"""Those that are ill by themselves; the others are told to be."""


def test_each_pod_that_does_not_run_isolated_is_explained(operator: Operator) -> None:
    cluster = operator.cluster
    for name in PODS:
        cluster.add(name, NODES.get(name))
    cluster.install()
    for name in PODS.keys() - NODES.keys() - {"sound"}:
        cluster.ill(Ill[name.replace("-", "_").upper()], node=name, runtime_class="kata-qemu")
    code, report = operator.check()
    assert code == 1
    for name, explained in PODS.items():
        subject = f"{name}/kata-qemu"
        wanted = Explained(KATA, subject, explained.status, explained.evidence, explained.cure)
        assert_explained(report, wanted, Explained("cluster-pod-standard", name, "pass"))
    assert_explained(
        report,
        Explained("cluster-node-kvm", "no-kvm", "fail", "/dev/kvm", "nestvirt enable"),
        Explained("cluster-node-vhost", "vsock-busy", "fail", "vmw_vsock_vmci_transport", "modprobe"),
        Explained("cluster-node-vhost", "vsock-missing", "fail", "/dev/vhost-vsock", "modprobe"),
    )


def test_each_node_that_is_not_installed_rightly_is_explained(operator: Operator) -> None:
    cluster = operator.cluster
    names = ("selinux", "crash", "no-label", "image", "files", "handler", "away", "sound")
    nodes = {name: cluster.add(name) for name in names}
    for name, ill in (("selinux", Ill.SELINUX), ("crash", Ill.DEPLOY_CRASH), ("no-label", Ill.NO_LABEL)):
        cluster.ill(ill, node=name)
    cluster.ill(Ill.IMAGE_PULL, node="image", pod="kata-deploy")
    cluster.install(wait=False)
    labelled = {"files", "handler", "away", "sound"}
    wait_for(lambda: cluster.labelled() == labelled, SECONDS, "the labels of the sound")
    wait_for(lambda: nodes["no-label"].handlers != frozenset(), SECONDS, "its handlers")
    (nodes["files"].root / "opt/kata/bin/qemu-system-x86_64").unlink()
    template = nodes["handler"].root / nodes["handler"].machine.config / "config.toml.tmpl"
    template.write_text(template.read_text().replace("kata-deploy.toml", "other.toml"))
    nodes["handler"].restart()
    cluster.lose("away")
    code, report = operator.check()
    assert code == 1
    assert_explained(
        report,
        Explained("cluster-daemonset", "selinux", "fail", "Permission denied", "policy module"),
        Explained("cluster-daemonset", "crash", "fail", "exit status 1", "kata-logs"),
        Explained("cluster-daemonset", "image", "fail", "pull", "image"),
        Explained("cluster-daemonset", "no-label", "pass"),
        Explained("cluster-node-label", "no-label", "fail", "not there", "kata-logs --node"),
        Explained(KATA, "no-label/kata-qemu", "fail", "0/8 nodes are available", "katacontainers.io"),
        Explained("cluster-node-files", "files", "fail", "qemu-system-x86_64", "kubectl delete pod"),
        Explained("cluster-node-files", "sound", "pass"),
        Explained("cluster-handler", "handler/kata-qemu", "fail", "kata-qemu", "kubectl delete pod"),
        Explained(KATA, "handler/kata-qemu", "fail", "no runtime for", "kata-install"),
        Explained("cluster-node-ready", "away", "fail", "network not ready", "kubectl describe node"),
        Explained(KATA, "sound/kata-qemu", "pass"),
    )


def test_what_the_api_says_alone_is_explained(operator: Operator) -> None:
    cluster = operator.cluster
    cluster.add("worker-1")
    code, report = operator.check("--no-pods")
    assert (code, statuses(report)) == (1, {"pass", "fail"})
    assert_explained(report, Explained("cluster-daemonset", "", "fail", "nothing of Kata", "kata-install"))
    cluster.install()
    cluster.kubectl("delete", "runtimeclass", "kata-qemu")
    secrets = ("secrets", "--namespace", "kube-system", "--selector", "owner=helm")
    cluster.kubectl("label", "--overwrite", *secrets, "status=pending-upgrade")
    code, out, _ = operator.run("kata-check", "--no-pods", "-o", "junit")
    assert code == 1
    suite = ElementTree.fromstring(out)  # noqa: S314 - our own
    failed = {
        case.get("name", "").split()[0] for case in suite.iter("testcase") if case.find("failure") is not None
    }
    assert failed == {"cluster-runtimeclass", "cluster-release"}


@pytest.mark.parametrize("moment", ["starting", "waiting"])
def test_ctrl_c_leaves_nothing(operator: Operator, moment: str) -> None:
    cluster = operator.cluster
    cluster.add("worker-1")
    cluster.install()
    cluster.ill(Ill.AGENT_TIMEOUT)
    process = operator.begin()
    operator.until_it_says(process, moment)
    if moment == "waiting":
        wait_for(lambda: operator.left() != [], SECONDS, "short pods")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=2 * SECONDS)
    assert process.returncode == 130, err
    assert operator.left() == []


def test_it_survives_an_api_server_that_drops(operator: Operator) -> None:
    cluster = operator.cluster
    cluster.add("worker-1")
    cluster.install()
    cluster.ill(Ill.AGENT_TIMEOUT)
    process = operator.begin("-o", "json")
    wait_for(lambda: operator.left() != [], SECONDS, "short pods")
    cluster.plane.stop_api()
    cluster.heal()
    cluster.plane.start_api()
    out, err = process.communicate(timeout=2 * SECONDS)
    assert process.returncode == 0, (out, err)
    assert operator.left() == []


def test_nobody_answers(operator: Operator) -> None:
    operator.cluster.plane.stop_api()
    code, _, err = operator.run("kata-check", "-o", "json")
    operator.cluster.plane.start_api()
    assert code == 3
    assert NESTVIRT not in err
