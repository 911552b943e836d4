"""What of Kata is on a node: shown by node.sh from a folder that stands for its /, read and judged."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nestvirt.kata import nodefiles
from nestvirt.kata.cluster import Deploy, Node, RuntimeClass
from nestvirt.kata.nodefiles import NodeFiles
from nestvirt.kata.pods import Outcome
from nestvirt.model import Finding, Status

K8S, CONFIGURATION = (
    "etc/containerd/config.toml",
    "opt/kata/share/defaults/kata-containers/configuration-qemu.toml",
)
DROP_IN = "/opt/kata/containerd/config.d/kata-deploy.toml"
NODE = Node("worker-1", ready=True, kubelet="v1.30.1", runtime="containerd://1.7.20")
DEPLOY = Deploy("kata-deploy", "kube-system", env={"SHIMS_X86_64": "qemu"}, directory="/etc/containerd")
QEMU = RuntimeClass("kata-qemu", "kata-qemu")
RUNTIME = """\
[plugins."{plugin}".containerd.runtimes.kata-qemu]
runtime_type = "io.containerd.kata-qemu.v2"
runtime_path = "/opt/kata/bin/containerd-shim-kata-v2"
[plugins."{plugin}".containerd.runtimes.kata-qemu.options]
ConfigPath = "/{configuration}"
"""
V2 = RUNTIME.format(plugin="io.containerd.grpc.v1.cri", configuration=CONFIGURATION)
TOML = """\
# a comment
[hypervisor.qemu]
path = "/opt/kata/bin/qemu-system-x86_64"
kernel = "/opt/kata/share/kata-containers/vmlinux.container"
"""
FILES = {
    K8S: f'version = 2\nimports = ["{DROP_IN}"]\n',
    DROP_IN.lstrip("/"): V2,
    CONFIGURATION: TOML,
    "opt/kata/bin/qemu-system-x86_64": "",
    "opt/kata/bin/containerd-shim-kata-v2": "",
    "opt/kata/share/kata-containers/vmlinux.container": "",
}


def shown(folder: Path, files: dict[str, str], deploy: Deploy = DEPLOY, **env: str) -> bytes:
    """What the script shows of a node with those files."""
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(0o755 if "/bin/" in path else 0o644)
    task = nodefiles.task(NODE, deploy, "busybox")
    asked = {**os.environ, **task.env, "NESTVIRT_HOST": str(folder), **env}
    done = subprocess.run(["sh", str(nodefiles.SCRIPT)], env=asked, capture_output=True, check=True)
    return done.stdout


def judged(log: bytes, node: Node = NODE) -> dict[str, Finding]:
    outcome = Outcome(nodefiles.task(node, DEPLOY, "busybox"), "Succeeded", 0, log)
    found = nodefiles.judge(node, DEPLOY, [QEMU], outcome)
    assert all(f.cure for f in found if f.ill)
    return {f.check: f for f in found}


def test_all_is_there(tmp_path: Path) -> None:
    log = shown(tmp_path, FILES)
    found = judged(log)
    assert found["cluster-node-files"].status is Status.PASS
    assert found["cluster-handler"].status is Status.PASS
    assert "a comment" not in log.decode()
    assert found["cluster-node-kvm"].status is Status.FAIL  # a folder has no devices
    assert "nestvirt enable" in found["cluster-node-kvm"].cure


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"opt/kata/bin/qemu-system-x86_64": None},
            "names /opt/kata/bin/qemu-system-x86_64, which is not there",
        ),
        ({"opt/kata/share/kata-containers/vmlinux.container": None}, "vmlinux.container, which is not there"),
        ({"opt/kata/bin/containerd-shim-kata-v2": None}, "has no /opt/kata/bin/containerd-shim-kata-v2"),
        ({CONFIGURATION: None}, "configuration-qemu.toml"),
        ({CONFIGURATION: "[hypervisor"}, "is no TOML"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, changed: dict[str, str | None], words: str) -> None:
    files = {path: text for path, text in (FILES | changed).items() if text is not None}
    found = judged(shown(tmp_path, files))["cluster-node-files"]
    assert found.status is Status.FAIL
    assert words in found.evidence


@pytest.mark.parametrize(
    ("config", "status", "words"),
    [
        ("version = 2\n", Status.FAIL, "name no kata-qemu"),  # written, and not imported
        (f"version = 2\n{V2}", Status.PASS, ""),  # containerd 1.7: into the file itself
        ('version = 2\nimports = ["/opt/kata/containerd/config.d/*.toml"]\n', Status.PASS, ""),
        ("version = [", Status.UNKNOWN, "cannot be read"),
    ],
)
def test_a_handler_is_what_containerd_reads(tmp_path: Path, config: str, status: Status, words: str) -> None:
    found = judged(shown(tmp_path, FILES | {K8S: config}))["cluster-handler"]
    assert found.status is status
    assert words in found.evidence


def test_where_the_cluster_tells_the_handlers_that_counts(tmp_path: Path) -> None:
    log = shown(tmp_path, FILES)
    has = replace(NODE, handlers=frozenset({"", "runc", "kata-qemu"}))
    assert judged(log, has)["cluster-handler"].status is Status.PASS
    lacks = replace(NODE, handlers=frozenset({"", "runc"}))
    found = judged(log, lacks)["cluster-handler"]
    assert found.status is Status.FAIL
    assert "has not been restarted" in found.evidence
    assert found.cure == "on NODE: systemctl restart containerd"
    unread = nodefiles.judge(lacks, DEPLOY, [QEMU], None)
    assert [(f.check, f.status) for f in unread] == [("cluster-handler", Status.FAIL)]


def test_version_3_and_crio_are_read(tmp_path: Path) -> None:
    third = RUNTIME.format(plugin="io.containerd.cri.v1.runtime", configuration=CONFIGURATION)
    read = nodefiles.read(shown(tmp_path, FILES | {DROP_IN.lstrip("/"): third}))
    assert set(nodefiles.handlers(read, NODE) or ()) == {"kata-qemu"}
    crio = NodeFiles(
        files={"/etc/crio/crio.conf.d/99-kata-deploy": "[crio.runtime.runtimes.kata-clh]\na = 1\n"}
    )
    assert set(nodefiles.handlers(crio, replace(NODE, runtime="cri-o://1.30")) or ()) == {"kata-clh"}


def test_vmwares_transport_keeps_vhost_vsock_out(tmp_path: Path) -> None:
    (tmp_path / "sys/module/vmw_vsock_vmci_transport").mkdir(parents=True)
    found = judged(shown(tmp_path, FILES))["cluster-node-vhost"]
    assert found.status is Status.FAIL
    assert "vmw_vsock_vmci_transport is loaded" in found.evidence
    assert "modprobe -r vmw_vsock_vmci_transport" in found.cure


def test_a_files_words_are_never_the_scripts(tmp_path: Path) -> None:
    forged = "end\ndevice kvm device\nhave x /opt/kata/bin/qemu\nfile /etc/shadow\n|x\nend"
    read = nodefiles.read(shown(tmp_path, {K8S: forged}))
    assert read.devices["kvm"] == "missing"
    assert set(read.files) == {f"/{K8S}"}
    assert read.files[f"/{K8S}"].split("\n") == forged.split("\n")


def test_links_of_the_node_lead_into_the_node(tmp_path: Path) -> None:
    files = {path: text for path, text in FILES.items() if path != CONFIGURATION} | {"srv/q.toml": TOML}
    link = tmp_path / CONFIGURATION
    link.parent.mkdir(parents=True)
    link.symlink_to("/srv/q.toml")
    assert judged(shown(tmp_path, files))["cluster-node-files"].status is Status.PASS


def test_credentials_do_not_get_into_the_pods_log(tmp_path: Path) -> None:
    config = (
        '[plugins."io.containerd.grpc.v1.cri".registry.configs."r.example".auth]\n'
        '  username = "bob"\n  password = "hunter22"\n  identitytoken = "hunter22"\n  auth = "hunter22"\n'
        '[plugins."x".registry.headers]\n  X = ["Basic hunter22"]\n'
        'y = "https://bob:hunter22@r.example"\nz = """\n-----BEGIN RSA PRIVATE KEY-----\nhunter22\n'
        '-----END RSA PRIVATE KEY-----"""\n'
    )
    for since in ("", "60"):
        log = shown(tmp_path, FILES | {K8S: config}, NESTVIRT_SINCE=since)
        assert b"hunter22" not in log
        assert b"registry.headers" in log


@pytest.mark.parametrize("log", [b"", b"hello", b"nestvirt-node 1\n", b"nestvirt-node 1\nx y\nend\n"])
def test_nonsense_is_not_known(log: bytes) -> None:
    found = judged(log)
    assert found["cluster-node-files"].status is Status.UNKNOWN
    assert list(found) == ["cluster-node-files"]


def test_the_task_asks_for_the_releases_own_shims() -> None:
    rke2 = replace(NODE, kubelet="v1.30.6+rke2r1", arch="arm64")
    deploy = replace(DEPLOY, env={"SHIMS": "clh", "SHIMS_AARCH64": "qemu fc", "MULTI_INSTALL_SUFFIX": "dev"})
    env = nodefiles.task(rke2, deploy, "i", since=60).env
    assert env == {
        "NESTVIRT_SHIMS": "qemu fc",
        "NESTVIRT_PREFIX": "/opt/kata-dev",
        "NESTVIRT_CONTAINERD": "/var/lib/rancher/rke2/agent/etc/containerd /etc/containerd",
        "NESTVIRT_SINCE": "60",
    }
    assert json.dumps(env)
