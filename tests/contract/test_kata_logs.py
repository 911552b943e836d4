"""kata-logs at a real API server: all that is to be read is in the archive, and no secret is."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

from tests.contract.kata_runs import run
from tests.peers.kubelet import Cluster, Ill, Machine

RKE2 = "var/lib/rancher/rke2/agent/etc/containerd/config.toml"
JOURNAL = """\
#!/bin/sh
echo "asked: $*"
echo "time=now level=error msg=\\"failed to create shim task\\" r=https://bob:hunter22@r.example sandbox=1"
echo "Authorization: Basic hunter22"
"""
AUTH = '\n[plugins.x.registry.configs."r.example".auth]\nusername = "bob"\npassword = "hunter22"\n'


def archive(path: Path) -> dict[str, str]:
    """Its members' texts, by name below its folder."""
    with tarfile.open(path) as opened:
        files = {member.name: opened.extractfile(member) for member in opened}
        return {name.partition("/")[2]: file.read().decode() for name, file in files.items() if file}


def left(cluster: Cluster) -> list[str]:
    kinds = [cluster.objects(kind, "kube-system") for kind in ("pods", "configmaps")]
    names = [found["metadata"]["name"] for objects in kinds for found in objects]
    return [name for name in names if name.startswith("nestvirt")]


def test_all_is_in_it_and_no_secret(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add("worker-1", Machine(files={"usr/bin/journalctl": JOURNAL}))
    # What a run that was killed has left: its time is over as soon as the cluster's clock has gone on.
    stale = {
        "metadata": {
            "name": "nestvirt-stale",
            "labels": {"app.kubernetes.io/managed-by": "nestvirt", "nestvirt.io/run": "00000000"},
            "annotations": {"nestvirt.io/lifetime": "0"},
        }
    }
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", **stale, "data": {"a": "b"}}
    cluster.kubectl("create", "--namespace", "kube-system", "-f", "-", stdin=json.dumps(config_map))
    cluster.install("3.25.0", shims=("qemu",))
    config = node.root / RKE2
    config.write_text(config.read_text() + AUTH)
    path = tmp_path / "logs.tar.gz"

    done = run(cluster, "kata-logs", "--file", str(path), "--since", "2h")

    assert (done.code, done.stdout) == (0, f"{path}\n"), done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert left(cluster) == []
    files = archive(path)
    assert "hunter22" not in json.dumps(files)
    assert 'configs."r.example".auth' in files[f"nodes/worker-1/files/{RKE2}"]
    assert (
        "[hypervisor.qemu]"
        in files["nodes/worker-1/files/opt/kata/share/defaults/kata-containers/configuration-qemu.toml"]
    )
    assert "--since=-7200s --identifier=kata" in files["nodes/worker-1/logs/kata"]
    assert "failed to create shim task" in files["nodes/worker-1/logs/runtime"]
    assert any(name.startswith("kata-deploy/kata-deploy-") for name in files)
    assert json.loads(files["release.json"])["values"]["shims"]["qemu"] == {"enabled": True}
    assert [c["handler"] for c in json.loads(files["cluster/runtimeclasses.json"])] == ["kata-qemu"]
    about = json.loads(files["about.json"])
    assert (about["target"], about["nodes"], about["missing"]) == ("cluster lab", ["worker-1"], [])

    again = run(cluster, "kata-logs", "--file", str(path))
    assert again.code == 2
    assert "is there already" in again.stderr
    assert archive(path) == files


def test_what_cannot_be_read_is_said_and_the_rest_is_there(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add("worker-1")
    cluster.ill(Ill.IMAGE_PULL)
    done = run(cluster, "kata-logs", "--file", str(tmp_path / "a.tar.gz"), "--node", "worker-1")
    assert done.code == 0, done.stderr
    assert "worker-1: the node cannot pull the image" in done.stderr
    assert "Helm has no release kata-deploy" in done.stderr
    files = archive(tmp_path / "a.tar.gz")
    assert len(json.loads(files["about.json"])["missing"]) == 2
    assert json.loads(files["nodes/worker-1/node.json"])["name"] == "worker-1"
    assert left(cluster) == []

    none = run(cluster, "kata-logs", "--node", "worker-9", "--file", str(tmp_path / "b.tar.gz"))
    assert none.code == 2
    assert "there is no node worker-9" in none.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
