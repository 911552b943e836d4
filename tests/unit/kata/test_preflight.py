"""What a node says of itself: preflight.sh, by two shells over a folder that is the node; and the judging."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nestvirt.guest.verify import Probed, judge_answer
from nestvirt.kata import node_checks, preflight
from nestvirt.kata.config import KataConfig
from nestvirt.kata.node_checks import Answer, Wish, of_node
from nestvirt.kata.pods import Outcome
from nestvirt.model import Finding, Layer, Status
from tests.lab import need
from tests.peers.guest_answers import NO_FLAG, WORKS, probe_answer, reading_answer

SCRIPT = Path(preflight.__file__).with_name("preflight.sh")
GUEST = Path(preflight.__file__).parents[1] / "guest"
SHELLS = (["dash"], ["busybox", "sh"])
CPU = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu svm\n\n"
WISH = Wish(KataConfig(), "rke2")


def node(name: str = "worker-1", **status: Any) -> dict[str, Any]:
    """A node that is ready, as the API has it."""
    info = {"containerRuntimeVersion": "containerd://1.7.23-k3s2", "architecture": "amd64"}
    base = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": info}
    return {"metadata": {"name": name}, "spec": {}, "status": {**base, **status}}


def told(**facts: str) -> Answer:
    """A node's answer, by its own Python, where all is well but for what is given."""
    usual = {"devices": "vhost-net vhost-vsock", "directory": "yes", "free": "99999999"}
    return Answer(facts=usual | facts, how="node", probed=probed(WORKS))


def probed(inside: str, below: str = "kvm") -> Probed:
    said = json.loads(probe_answer(inside))
    for finding in said["findings"]:
        if finding["check"] == "guest-hypervisor":
            finding["evidence"] = f"{below}: CPUID says so"
    return judge_answer(said, channel="pod")


def of(findings: Sequence[Finding], check: str) -> Finding:
    (found,) = (f for f in findings if f.check == check)
    return found


# --- the script


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node's /, with a busybox and without Python."""
    need(os.geteuid() == 0, "chroot is root's")
    made = tmp_path / "node"
    for folder in ("bin", "dev", "proc", "opt", "usr/bin", "sys/module/vhost", "etc/containerd"):
        (made / folder).mkdir(parents=True)
    (made / "proc/cpuinfo").write_text(CPU)
    shutil.copy(shutil.which("busybox") or "", made / "bin/busybox")
    return made


def script(shell: Sequence[str], root: Path, **variables: str) -> dict[str, str]:
    """What preflight.sh says there, read as a pod's log is."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NESTVIRT_HOST": str(root), **variables}
    done = subprocess.run(
        [*shell, str(SCRIPT)],
        env={"NESTVIRT_FILES": str(GUEST), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    return preflight.read(done.stdout)


def give_python(root: Path, says: str) -> None:
    (root / "answer").write_text(says)
    python = root / "usr/bin/python3"
    python.write_text("#!/bin/busybox sh\n/bin/busybox cat /answer\n")
    python.chmod(0o755)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_nodes_own_python_runs_the_probe(shell: list[str], root: Path) -> None:
    give_python(root, probe_answer(WORKS))
    facts = script(shell, root)
    assert facts["how"] == "node"
    assert preflight.probed(facts).proof.verdict == "works"
    assert facts["modules"].split() == ["vhost"]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_what_the_script_reads(shell: list[str], root: Path) -> None:
    give_python(root, "{}")
    (root / "sys/fs/selinux").mkdir(parents=True)
    (root / "sys/fs/selinux/enforce").write_text("1")
    (root / "dev/vhost-vsock").touch()
    index = root / "lib/modules" / os.uname().release
    index.mkdir(parents=True)
    (index / "modules.dep").write_text("kernel/drivers/vhost/vhost-net.ko.xz:\n")
    config = root / "etc/containerd"
    (config / "config-v3.toml.tmpl").write_text(
        'version = 3\nimports = [\n  "/a.toml",\n  "/b.toml" ]\n[x]\n'
    )
    (root / "bin/ctr").write_text(
        "#!/bin/busybox sh\necho 'io.containerd.snapshotter.v1    devmapper    linux/amd64    skip'\n"
    )
    (root / "bin/ctr").chmod(0o755)
    facts = script(shell, root, NESTVIRT_CTR="ctr --address /run/x.sock")
    assert facts["selinux"] == "1"
    assert facts["devices"].split() == ["vhost-vsock"]
    assert facts["loadable"].split() == ["index", "vhost_net"]
    assert facts["version-config-v3.toml.tmpl"] == "3"
    assert "/b.toml" in facts["imports-config-v3.toml.tmpl"]
    assert facts["snapshotter"] == "skip"
    assert int(facts["free"]) > 0
    assert facts["directory"] == "yes"


# --- reading


WELL = b"how=node\nprobe={}\nend=yes\n"


@pytest.mark.parametrize(
    "log",
    [
        b"",
        b"how=node\nprobe={}\n",
        WELL + b"how=node\n",
        WELL.replace(b"node", b"magic"),
        WELL + b"no sign",
        WELL + b"\xff=1\n",
        WELL + b"x=" + b"y" * 300_000,
        WELL + b"Upper case=1\n",
    ],
)
def test_what_is_not_the_preflights_is_refused(log: bytes) -> None:
    with pytest.raises(ValueError, match=r"line|early|decode"):
        preflight.read(log)
    task = preflight.task("worker-1", WISH, "image")
    answer = preflight.answer(Outcome(task, "Succeeded", 0, log))
    found = of(of_node(node(), answer, WISH), "cluster-node-kvm")
    assert found.status is Status.UNKNOWN


def test_a_forged_answer_proves_nothing() -> None:
    """The verdict says works, and the findings do not."""
    forged = probe_answer(NO_FLAG).replace('"verdict": "off"', '"verdict": "works"')
    facts = preflight.read(b"how=node\nprobe=" + forged.encode() + b"\nend=yes\n")
    assert preflight.probed(facts).proof.verdict == "unknown"


def test_a_reading_of_files_cannot_say_works() -> None:
    facts = {"how": "files", "probe": probe_answer(WORKS)}
    assert preflight.probed(facts).proof.verdict == "unknown"


def test_data_is_in_the_environment_and_the_programs_are_files() -> None:
    task = preflight.task("worker-1", Wish(KataConfig(shims=("fc", "qemu")), "rke2"), "image")
    assert task.command == ("sh", "/nestvirt/preflight.sh")
    assert task.read_only_host
    assert set(task.files) == {"preflight.sh", "probe.py", "reading.sh"}
    assert task.env["NESTVIRT_CTR"].startswith("/var/lib/rancher/rke2/bin/ctr")
    assert preflight.task("worker-1", WISH, "image").env["NESTVIRT_CTR"] == ""


# --- judging


def test_a_node_that_can() -> None:
    found = of_node(node(), told(), WISH)
    assert {f.status for f in found} == {Status.PASS}
    assert all(f.subject == "worker-1" for f in found)


@pytest.mark.parametrize(
    ("below", "cure"),
    [
        ("kvm", "nestvirt enable --libvirt VM-OF-NODE"),
        ("vmware", "vhv.enable"),
        ("microsoft", "Set-VMProcessor -VMName VM-OF-NODE"),
        ("vbox", "VBoxManage modifyvm VM-OF-NODE"),
        ("none", "firmware"),
        ("unnamed", "nestvirt enable --proxmox VM-OF-NODE"),
    ],
)
def test_the_cure_is_of_the_hypervisor_below(below: str, cure: str) -> None:
    answer = replace(told(), probed=probed(NO_FLAG, below))
    found = of(of_node(node(), answer, WISH), "cluster-node-kvm")
    assert found.status is Status.FAIL
    assert found.evidence.startswith("no-cpu-flag: ")
    assert cure in found.cure


def test_what_is_not_proven_is_no_failure() -> None:
    """Nobody can install Python on some systems: it is a warning, and the proof afterwards counts."""
    unproven = judge_answer(json.loads(reading_answer(WORKS)), channel="pod", full=False)
    found = of(of_node(node(), replace(told(), probed=unproven, how="files"), WISH), "cluster-node-kvm")
    assert found.status is Status.WARN
    assert "--image" in found.cure


FC = Wish(KataConfig(shims=("fc",)), "k8s")
VHOST, RUNTIME, SNAPSHOTTER = "cluster-node-vhost", "cluster-node-containerd", "cluster-node-snapshotter"
ONLY_NET = {"devices": "vhost-net"}
FACTS: dict[str, tuple[dict[str, str], Wish, str, Status, str]] = {
    "no vsock, loadable": (
        {**ONLY_NET, "loadable": "index vhost_vsock"},
        WISH,
        VHOST,
        Status.WARN,
        "modprobe -a vhost_vsock",
    ),
    "no vsock at all": ({**ONLY_NET, "loadable": "index"}, WISH, VHOST, Status.FAIL, "kernel"),
    "no index": ({"devices": ""}, WISH, VHOST, Status.WARN, "modprobe -a vhost_net vhost_vsock"),
    "vmci": (
        {**ONLY_NET, "modules": "vmw_vsock_vmci_transport"},
        WISH,
        VHOST,
        Status.WARN,
        "modprobe -r vmw_vsock_vmci_transport",
    ),
    "fc needs no vsock": (ONLY_NET, FC, VHOST, Status.PASS, ""),
    "another directory": ({"directory": ""}, WISH, RUNTIME, Status.FAIL, "k8sDistribution"),
    "selinux": ({"selinux": "1"}, WISH, "cluster-node-selinux", Status.WARN, "ausearch"),
    "permissive": ({"selinux": "0"}, WISH, "cluster-node-selinux", Status.PASS, ""),
    "little room": ({"free": "1000000"}, WISH, "cluster-node-files", Status.WARN, "df -h /opt"),
    "devmapper": ({"snapshotter": "ok"}, FC, SNAPSHOTTER, Status.PASS, ""),
    "no devmapper": ({"snapshotter": "skip", "plugins": "7"}, FC, SNAPSHOTTER, Status.FAIL, "thin pool"),
    "no ctr": ({"plugins": "0"}, FC, SNAPSHOTTER, Status.UNKNOWN, "ctr plugins ls"),
}


@pytest.mark.parametrize(("facts", "wish", "check", "status", "cure"), FACTS.values(), ids=FACTS)
def test_what_else_a_node_has(
    facts: dict[str, str], wish: Wish, check: str, status: Status, cure: str
) -> None:
    found = of(of_node(node(), told(**facts), wish), check)
    assert found.status is status
    assert cure in found.cure


V3 = "imports-config-v3.toml.tmpl"


@pytest.mark.parametrize(
    ("runtime", "facts", "version", "status"),
    [
        ("containerd://1.7.23-k3s2", {}, "3.25.0", Status.PASS),
        ("containerd://1.7.23-k3s2", {V3: ""}, "3.25.0", Status.PASS),
        ("containerd://2.0.5-k3s1", {}, "3.25.0", Status.WARN),
        ("containerd://2.0.5-k3s1", {V3: ""}, "3.25.0", Status.FAIL),
        ("containerd://2.0.5-k3s1", {V3: f'imports = ["{node_checks.DROP_IN}"]'}, "3.25.0", Status.PASS),
        ("containerd://2.0.5-k3s1", {V3: ""}, "4.1.0", Status.PASS),
        ("containerd://1.5.1", {}, "3.25.0", Status.FAIL),
        ("cri-o://1.30.0", {"directory": ""}, "3.25.0", Status.PASS),
        ("docker://20.10.0", {}, "3.25.0", Status.FAIL),
        ("", {}, "3.25.0", Status.FAIL),
    ],
)
def test_the_runtime_and_its_template(
    runtime: str, facts: dict[str, str], version: str, status: Status
) -> None:
    there = node(nodeInfo={"containerRuntimeVersion": runtime})
    found = of_node(there, told(**facts), Wish(KataConfig(version=version), "rke2"))
    assert of(found, "cluster-node-containerd").status is status


def test_a_node_that_is_away_is_not_asked() -> None:
    away = node(conditions=[{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}])
    found = of_node(away, None, WISH)
    assert of(found, "cluster-node-ready").status is Status.FAIL
    assert "NodeStatusUnknown" in of(found, "cluster-node-ready").evidence
    assert of(found, "cluster-node-kvm").status is Status.SKIP


def test_a_cordoned_node_is_told_as_such() -> None:
    cordoned = {**node(), "spec": {"unschedulable": True}}
    found = of(of_node(cordoned, told(), WISH), "cluster-node-ready")
    assert (found.status, found.cure) == (Status.WARN, "kubectl uncordon NODE")


def test_a_node_on_which_no_wanted_shim_runs() -> None:
    there = node(nodeInfo={"containerRuntimeVersion": "containerd://1.7.1", "architecture": "s390x"})
    found = of(of_node(there, told(), Wish(KataConfig(shims=("clh",)), "k8s")), "cluster-shims")
    assert found.status is Status.FAIL


# --- telling


def ill(
    subject: str, evidence: str = "e", cure: str = "on NODE: x", check: str = "cluster-node-kvm"
) -> Finding:
    return Finding(check, Layer.CLUSTER, Status.FAIL, evidence, cure, subject=subject)


def test_one_nodes_cure_has_its_name_and_manys_does_not() -> None:
    alone, *shared = preflight.named([ill("a", "other"), ill("b"), ill("c")])
    assert alone.cure == "on a: x"
    assert [f.cure for f in shared] == ["on NODE: x"] * 2
    both = preflight.named([ill("a/kata-qemu"), ill("a/kata-clh")])
    assert [f.cure for f in both] == ["on a: x"] * 2


def test_findings_are_in_the_order_of_the_chain() -> None:
    mixed = [ill("b"), ill("a", check="cluster-node-vhost"), ill("a"), ill("", check="cluster-release")]
    told_in = [(f.check, f.subject) for f in preflight.ordered(mixed)]
    assert told_in == [
        ("cluster-release", ""),
        ("cluster-node-kvm", "a"),
        ("cluster-node-kvm", "b"),
        ("cluster-node-vhost", "a"),
    ]


def test_capable_is_who_has_nothing_against_it() -> None:
    unknown = replace(ill("b"), status=Status.UNKNOWN)
    warned = replace(ill("c"), status=Status.WARN)
    nodes = [node(name) for name in "abcd"]
    assert preflight.capable([ill("a"), unknown, warned], nodes) == ["c", "d"]


@pytest.mark.parametrize(
    ("kvm", "said"),
    [
        ({"a": Status.PASS, "b": Status.PASS}, "Kata can run on a, b"),
        ({"a": Status.PASS, "b": Status.WARN}, "Kata can run on a; not proven on b"),
        ({"a": Status.WARN}, "not proven on a"),
        ({}, ""),
    ],
)
def test_a_summary_counts_what_was_proven(kvm: dict[str, Status], said: str) -> None:
    found = [Finding("cluster-node-kvm", Layer.CLUSTER, status, "", subject=n) for n, status in kvm.items()]
    assert preflight.summary(found, list(kvm)) == said
