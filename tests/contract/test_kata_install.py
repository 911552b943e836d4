"""kata-install on a real control plane, with both Helms and the stub charts of two schemas."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.contract import kata_runs
from tests.contract.kata_runs import config, everything, install, interrupt, run
from tests.lab import wait_for
from tests.peers.kubelet import Cluster, Ill, Machine

CAPABLE = "nestvirt.io/kvm"


OWNERLESS = """\
{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata-qemu"},
 "handler": "kata-qemu"}
"""


def pods_left(cluster: Cluster) -> list[str]:
    """The short pods, and what they were given."""
    left = [o for kind in ("pods", "configmaps") for o in cluster.objects(kind)]
    return [o["metadata"]["name"] for o in left if o["metadata"]["name"].startswith("nestvirt-")]


def revisions(cluster: Cluster) -> list[tuple[int, str]]:
    """By Helm's own word."""
    words = ["history", "kata-deploy", "-n", "kube-system", "-o", "json", *cluster.options]
    return [(r["revision"], r["status"]) for r in json.loads(cluster.plane.helm(*words))]


def class_names(cluster: Cluster) -> list[str]:
    return [o["metadata"]["name"] for o in cluster.objects("runtimeclasses")]


def test_what_the_issue_shows(cluster: Cluster, chart_url: str, tmp_path: Path) -> None:
    """From a registry: one RuntimeClass, nodes labelled, the proof, nothing left; then nothing to do."""
    cluster.add("server-1", Machine(control_plane=True))
    cluster.add("worker-1")
    cluster.add("worker-2")
    words = ["kata-install", "--config", config(tmp_path), "--chart", chart_url, "--plain-http", "--yes"]
    cluster.api_drops(1.5)
    done = run(cluster, *words, "-o", "json")
    assert done.code == 0, done.stdout + done.stderr
    assert class_names(cluster) == ["kata-qemu"]
    assert cluster.labelled() == {"worker-1", "worker-2"}
    proofs = {(f["subject"], f["status"]) for f in done.found("cluster-pod-kata")}
    assert proofs == {("worker-1/kata-qemu", "pass"), ("worker-2/kata-qemu", "pass")}
    assert "taint" in done.found("cluster-daemonset", "skip")[0]["evidence"]
    assert not pods_left(cluster)
    assert [c["after"] for c in done.report["changes"]] == ["3.25.0", "kata-qemu"]

    again = run(cluster, *words)
    assert again.code == 0
    assert "nothing to do" in again.stdout
    assert revisions(cluster) == [(1, "deployed")]


def test_a_node_without_kvm_is_named_before_anything_is_changed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("worker-1")
    cluster.add("worker-2", Machine(kvm="no-flag"))
    cluster.add("worker-3", Machine(kvm="no-module", python=False))
    before = everything(cluster)
    done = install(cluster, config(tmp_path))
    assert done.code == 1
    assert everything(cluster) == before
    ill = {f["subject"]: f for f in done.found("cluster-node-kvm", "fail")}
    assert sorted(ill) == ["worker-2", "worker-3"]
    assert "no-cpu-flag" in ill["worker-2"]["evidence"]
    assert "nestvirt enable --libvirt VM-OF-worker-2" in ill["worker-2"]["cure"]
    assert "modprobe" in ill["worker-3"]["cure"]
    assert any("--only-capable-nodes" in line for line in done.report["remains"])

    done = install(cluster, config(tmp_path), "--only-capable-nodes")
    assert done.code == 0, done.stdout + done.stderr
    assert cluster.labelled() == {"worker-1"}
    labelled = cluster.objects("nodes", selector=f"{CAPABLE}=works")
    assert [node["metadata"]["name"] for node in labelled] == ["worker-1"]
    left_out = done.found("cluster-node-kvm", "warn")
    assert {f["subject"] for f in left_out} == {"worker-2", "worker-3"}
    assert all(f["evidence"].startswith("left out: ") for f in left_out)


def test_the_other_helm_and_the_other_schema(cluster: Cluster, tmp_path: Path) -> None:
    """4.1 by Helm 4; a node without Python is not proven, and not refused; then 4.1's own uninstallation."""
    k8s = Machine(distribution="k8s", kubelet="v1.31.2", containerd="2.0.1", python=False)
    cluster.add("worker-1", k8s)
    settings = config(tmp_path, version="4.1.0", distribution="k8s", clh=True)
    done = install(cluster, settings, version="4.1.0", helm="4")
    assert done.code == 0, done.stdout + done.stderr
    assert class_names(cluster) == ["kata-clh", "kata-qemu"]
    assert [f["status"] for f in done.found("cluster-node-kvm")] == ["warn"]
    assert "clh" in done.found("cluster-shims")[0]["evidence"]

    gone = run(cluster, "kata-uninstall", "--yes", "-o", "json", helm="4")
    assert gone.code == 0, gone.stdout + gone.stderr
    assert not class_names(cluster)
    assert not cluster.labelled()
    assert not (cluster.node("worker-1").root / "opt/kata").exists()


def test_an_upgrade_that_fails_is_put_back(cluster: Cluster, tmp_path: Path) -> None:
    """From 3.24 to 3.25, whose image cannot be pulled; --atomic goes back to the revision that worked."""
    cluster.add("worker-1")
    cluster.install("3.24.0", shims=("qemu", "clh"))
    pod = kata_runs.POD.replace("kata-qemu", "kata-clh")
    cluster.kubectl("create", "-f", "-", stdin=pod)
    settings = config(tmp_path)
    shown = run(
        cluster,
        "kata-install",
        "--config",
        settings,
        "--chart",
        str(cluster.plane.chart_file("3.25.0")),
        "--dry-run",
    )
    assert shown.code == 0, shown.stderr
    assert "upgrade Kata from 3.24.0 to 3.25.0" in shown.stdout
    assert "remove the RuntimeClass kata-clh, which is used by default/web" in shown.stdout
    cluster.ill(Ill.IMAGE_PULL, pod="kata-deploy")
    done = install(cluster, settings, "--atomic", "--timeout", "15")
    assert done.code == 1
    assert done.found("cluster-daemonset", "fail")
    assert [status for _, status in revisions(cluster)][-1] == "deployed"
    assert class_names(cluster) == ["kata-clh", "kata-qemu"]
    assert not cluster.labelled()  # nor can the former image be pulled, and that is said
    assert all(line.startswith("not as it was before: worker-1: ") for line in done.report["remains"])
    cluster.heal()
    wait_for(lambda: cluster.labelled() == {"worker-1"}, 30, "kata-deploy of the former revision")


@pytest.mark.parametrize("helm", ["3", "4"])
def test_kata_that_others_have_put_there(cluster: Cluster, tmp_path: Path, helm: str) -> None:
    """--force takes it over, and says so in the dry run; what fails then with --atomic leaves it there."""
    cluster.add("worker-1")
    cluster.kubectl("create", "-f", "-", stdin=OWNERLESS)
    done = install(cluster, config(tmp_path), helm=helm)
    assert (done.code, "--force" in done.stderr) == (1, True), done.stderr
    cluster.ill(Ill.NO_LABEL)
    done = install(cluster, config(tmp_path), "--force", "--atomic", "--timeout", "8", helm=helm)
    assert done.code == 1, done.stderr
    assert "without a release" in done.report["remains"][0]
    assert class_names(cluster) == ["kata-qemu"]
    assert not cluster.objects("secrets", selector="owner=helm")
    cluster.heal()
    done = install(cluster, config(tmp_path), "--force", helm=helm)
    assert done.code == 0, done.stdout + done.stderr


def test_kata_deploy_that_goes_to_no_node(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("server-1", Machine(control_plane=True))
    before = everything(cluster)
    for more in ((), ("--preflight",), ("--only-capable-nodes",)):
        done = install(cluster, config(tmp_path), *more)
        assert done.code == 1, done.stdout
        assert done.found("cluster-daemonset", "fail")[0]["evidence"] == "kata-deploy goes to no node"
    assert everything(cluster) == before


def test_a_dry_run_changes_nothing_and_starts_nothing(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("worker-1", Machine(kvm="no-flag"))
    before = everything(cluster)
    cluster.plane.forget_requests()
    done = install(cluster, config(tmp_path), "--dry-run")
    assert done.code == 0, done.stdout + done.stderr
    assert done.report["dry_run"] is True
    assert "DaemonSet kata-deploy" in {c["setting"] for c in done.report["changes"]}
    assert done.found("cluster-node-kvm", "skip")
    assert everything(cluster) == before
    writes = {r for r in cluster.plane.requests() if r.split()[0] not in ("get", "list", "watch")}
    assert not writes


@pytest.mark.parametrize(
    ("when", "says", "left"),
    [
        ("waiting for 1 pods", "nothing was changed", False),
        ("waiting for kata-deploy", "under way", True),
        ("starting 3 short pods", "was not proved", True),
    ],
)
def test_ctrl_c_says_how_things_stand(
    cluster: Cluster, tmp_path: Path, when: str, says: str, left: bool
) -> None:
    cluster.add("worker-1")
    chart = str(cluster.plane.chart_file("3.25.0"))
    done = interrupt(cluster, when, "kata-install", "--config", config(tmp_path), "--chart", chart, "--yes")
    assert done.code == 130, done.stderr
    assert says in done.stderr
    assert not pods_left(cluster)
    assert bool(class_names(cluster)) is left


def test_a_release_that_a_killed_helm_left_pending(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("worker-1")
    cluster.add("worker-2")  # with one alone, Helm does not wait for a DaemonSet
    cluster.ill(Ill.IMAGE_PULL)
    values = tmp_path / "values.yaml"
    values.write_text(run(cluster, "kata-install", "--config", config(tmp_path), "--show-values").stdout)
    words = [cluster.plane.helm3, "install", "kata-deploy", str(cluster.plane.chart_file("3.25.0"))]
    words += ["-n", "kube-system", "--wait", "-f", str(values), *cluster.options]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as helm:
        wait_for(lambda: bool(cluster.objects("secrets", selector="owner=helm")), 30, "Helm's own record")
        helm.kill()
    assert revisions(cluster) == [(1, "pending-install")]

    before = everything(cluster)
    done = install(cluster, config(tmp_path))
    assert done.code == 1
    assert "pending-install" in done.found("cluster-release", "fail")[0]["evidence"]
    assert "--force" in done.found("cluster-release", "fail")[0]["cure"]
    assert everything(cluster) == before

    cluster.heal()
    done = install(cluster, config(tmp_path), "--force")
    assert done.code == 0, done.stdout + done.stderr
    assert revisions(cluster) == [(1, "deployed")]


def test_a_mismatch_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("worker-1")
    before = everything(cluster)
    done = install(cluster, config(tmp_path, distribution="k3s"))
    assert done.code == 1
    assert "rke2" in done.found("cluster-distribution", "fail")[0]["evidence"]
    assert everything(cluster) == before


def test_values_are_shown_without_a_cluster_and_without_programs(tmp_path: Path) -> None:
    words = [kata_runs.NESTVIRT, "kata-install", "--config", config(tmp_path), "--show-values"]
    done = subprocess.run(
        words, env={"PATH": "/nowhere", "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "qemu:" in done.stdout


REGISTRIES = {
    "Helm 3, no such version": ("3", "3.25.9", "", ("--plain-http",), 2, "kataContainers.version"),
    "Helm 4, no such version": ("4", "3.25.9", "", ("--plain-http",), 2, "kataContainers.version"),
    "Helm 4, no TLS there": ("4", "3.25.0", "", (), 2, "--plain-http"),  # Helm 3 itself tries without
    "Helm 3, nobody there": ("3", "3.25.0", "oci://127.0.0.1:1/kata-deploy", (), 3, "name a mirror"),
    "Helm 4, nobody there": ("4", "3.25.0", "oci://127.0.0.1:1/kata-deploy", (), 3, "name a mirror"),
}


def test_a_registry_that_does_not_give_the_chart(cluster: Cluster, chart_url: str, tmp_path: Path) -> None:
    """Each by Helm's own words."""
    cluster.add("worker-1")
    before = everything(cluster)
    for name, (helm, version, chart, more, code, cure) in REGISTRIES.items():
        words = ["kata-install", "--config", config(tmp_path, version=version), "--chart", chart or chart_url]
        done = run(cluster, *words, *more, "--yes", helm=helm)
        assert (done.code, cure in done.stderr) == (code, True), f"{name}: {done.stderr}"
    assert everything(cluster) == before
