"""kata-uninstall on a real control plane: what the chart forgets, what is in use, and what broke off."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.contract.kata_runs import POD, Ran, config, everything, install, interrupt, run
from tests.peers.kubelet import Cluster, Machine, Node


def files(node: Node) -> dict[str, str]:
    """Every file of a node's / that an installation might touch, with a digest of what is in it."""
    tops = [node.root / name for name in ("etc", "opt", "var", "usr/local", "run")]
    found = [path for top in tops for path in sorted(top.rglob("*")) if path.is_file() or path.is_symlink()]
    return {
        str(path.relative_to(node.root)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
    }


def uninstall(cluster: Cluster, *more: str, helm: str = "3") -> Ran:
    return run(cluster, "kata-uninstall", "--yes", "-o", "json", *more, helm=helm)


def assert_gone(cluster: Cluster, nodes: list[Node]) -> None:
    """By the cluster's and the nodes' own word."""
    assert not cluster.objects("runtimeclasses")
    assert not cluster.objects("daemonsets")
    kept = cluster.kubectl("get", "nodes", "--show-labels")
    assert "kata" not in kept
    assert "nestvirt" not in kept
    assert not [node.name for node in nodes if (node.root / "opt/kata").exists()]
    assert not [node.name for node in nodes if any("kata" in handler for handler in node.handlers)]
    assert not [o for o in cluster.objects("pods") if o["metadata"]["name"].startswith("nestvirt-")]


MACHINES = {
    "rke2": ("3.25.0", Machine()),
    "k3s with containerd 2": (
        "4.1.0",
        Machine(distribution="k3s", kubelet="v1.33.1+k3s1", containerd="2.0.5-k3s1"),
    ),
    "k8s": ("3.25.0", Machine(distribution="k8s", kubelet="v1.31.2", containerd="1.7.27")),
}


@pytest.mark.parametrize(("version", "machine"), MACHINES.values(), ids=MACHINES)
def test_every_node_is_as_it_was_before(
    cluster: Cluster, tmp_path: Path, version: str, machine: Machine
) -> None:
    """Also what the hook of 3.25 forgets; each runtime is restarted once; a second run finds nothing."""
    nodes = [cluster.add(name, machine) for name in ("worker-1", "worker-2")]
    before = [files(node) for node in nodes]
    settings = config(tmp_path, version=version, distribution=machine.distribution)
    done = install(cluster, settings, "--only-capable-nodes", version=version)
    assert done.code == 0, done.stdout + done.stderr
    starts = [len(node.played) for node in nodes]

    gone = uninstall(cluster)
    assert gone.code == 0, gone.stdout + gone.stderr
    assert_gone(cluster, nodes)
    assert [files(node) for node in nodes] == before
    assert {f["subject"] for f in gone.found("cluster-clean", "pass")} == {"", "worker-1", "worker-2"}
    heard = [line for node, n in zip(nodes, starts, strict=True) for line in node.played[n:]]
    restarts = [line for line in heard if line.startswith("systemctl restart")]
    assert len(restarts) == (1 if version == "3.25.0" else 0)  # the others by kata-deploy itself
    played = [node.played for node in nodes]
    assert uninstall(cluster).code == 0
    assert [node.played for node in nodes] == played


def test_what_is_in_use_is_named(cluster: Cluster) -> None:
    node = cluster.add("worker-1")
    cluster.install("3.25.0")
    cluster.kubectl("create", "-f", "-", stdin=POD)
    before = everything(cluster)
    refused = uninstall(cluster)
    assert refused.code == 1
    assert refused.found("cluster-runtimeclass", "fail")[0]["evidence"] == "used by default/web"
    planned = uninstall(cluster, "--force", "--dry-run")
    assert planned.code == 0
    assert any("uninstall the release kata-deploy" in line for line in planned.report["remains"])
    assert everything(cluster) == before
    cluster.api_drops(1.5)  # while the hook of the chart restarts the runtime
    forced = uninstall(cluster, "--force")
    assert forced.code == 0, forced.stdout + forced.stderr
    assert_gone(cluster, [node])


def test_another_namespaces_kata_is_not_touched(cluster: Cluster) -> None:
    cluster.add("worker-1")
    cluster.install("4.1.0")
    before = everything(cluster)
    refused = run(cluster, "kata-uninstall", "--yes", "-o", "json", "--force", "-n", "default")
    assert refused.code == 1
    assert "-n kube-system --release kata-deploy" in refused.found("cluster-release", "fail")[0]["cure"]
    assert everything(cluster) == before


def test_a_release_that_is_half_gone(cluster: Cluster) -> None:
    """Stopped while Helm was at work; and then Helm's own record is lost, too."""
    nodes = [cluster.add("worker-1"), cluster.add("worker-2")]
    cluster.install("3.25.0")
    done = interrupt(cluster, "helm uninstall", "kata-uninstall", "--yes")
    assert done.code == 130
    assert "goes on from there" in done.stderr
    cluster.kubectl("delete", "secrets", "-n", "kube-system", "-l", "owner=helm")
    gone = uninstall(cluster)
    assert gone.code == 0, gone.stdout + gone.stderr
    assert_gone(cluster, nodes)


def test_a_node_that_is_away_is_not_called_clean(cluster: Cluster) -> None:
    cluster.add("worker-1", Machine(ready=False))
    gone = uninstall(cluster)
    assert gone.code == 3
    assert "not ready" in gone.found("cluster-clean", "unknown")[0]["evidence"]
