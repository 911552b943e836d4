"""cluster-pod-standard and cluster-pod-kata: only another boot, with a hypervisor underneath, passes."""

from __future__ import annotations

import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.kata import proof
from nestvirt.kata.cluster import Node
from nestvirt.kata.pods import Outcome
from nestvirt.model import Status

NODES_BOOT, OTHER_BOOT = str(uuid.UUID(int=1)), str(uuid.UUID(int=0xABCDEF2))
NODE = Node("worker-1", ready=True, kernel="5.14.0-427.el9.x86_64", boot_id=NODES_BOOT)


def said(boot: str = OTHER_BOOT, kernel: str = "6.12.47", **facts: str) -> bytes:
    told = {"flag": "yes", "vendor": "QEMU", "product": "", "tree": "", "control": "", "agent": "yes"} | facts
    lines = ["nestvirt-proof 1", f"kernel {kernel}", f"boot {boot}", *(f"{k} {v}" for k, v in told.items())]
    return "\n".join([*lines, "end yes", ""]).encode()


def outcome(log: bytes, runtime_class: str | None = "kata-qemu", phase: str = "Succeeded") -> Outcome:
    return Outcome(proof.task("worker-1", "busybox", runtime_class), phase, 0, log)


def judged(log: bytes, node: Node = NODE, standard: bytes | None = said(NODES_BOOT, NODE.kernel)) -> Status:
    beside = outcome(standard, None) if standard is not None else None
    found = proof.judge(node, beside, {"kata-qemu": outcome(log)})
    assert all(f.cure for f in found if f.ill)
    assert found[-1].check == "cluster-pod-kata"
    assert found[-1].subject == "worker-1/kata-qemu"
    return found[-1].status


@pytest.mark.parametrize(
    "log",
    [
        said(),
        said(kernel=NODE.kernel),  # the same kernel, and another machine
        said(flag="no", vendor="", tree="linux,dummy-virt "),  # arm64
        said(flag="no", vendor="", control="KVM/Linux"),  # s390x
        said(flag="no", vendor="Amazon EC2", product="c5"),
    ],
)
def test_another_boot_on_a_hypervisor_passes(log: bytes) -> None:
    assert judged(log) is Status.PASS
    assert judged(log, standard=None) is Status.PASS


def test_the_nodes_own_boot_fails_whatever_else_it_says() -> None:
    assert judged(said(NODES_BOOT)) is Status.FAIL
    # the kubelet may not have told of the node's last boot yet; the standard pod knows it
    stale = replace(NODE, boot_id=str(uuid.UUID(int=9)))
    assert judged(said(NODES_BOOT), stale) is Status.FAIL


@pytest.mark.parametrize(
    "log",
    [
        said(flag="no", vendor=""),  # gVisor, say
        said(flag="no", vendor="Dell Inc."),
        b"",
        b"hello\n",
        said()[:-8],
        said() + said(),
        said(boot="unknown"),
        said(boot=OTHER_BOOT.upper()),
        said(kernel=""),
        said(flag="yes\nflag no"),
        b"\xff" + said(),
    ],
)
def test_anything_less_is_not_known(log: bytes) -> None:
    assert judged(log) is Status.UNKNOWN


def test_a_node_that_tells_no_boot_is_compared_with_its_standard_pod() -> None:
    silent = replace(NODE, boot_id="")
    assert judged(said(), silent) is Status.PASS
    assert judged(said(NODES_BOOT), silent) is Status.FAIL
    assert judged(said(), silent, standard=None) is Status.UNKNOWN


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_nonsense_is_never_a_proof(log: bytes) -> None:
    assert judged(log) is Status.UNKNOWN


@pytest.mark.parametrize(
    ("boot", "node", "status"),
    [
        (NODES_BOOT, NODE, Status.PASS),
        (OTHER_BOOT, NODE, Status.FAIL),
        (NODES_BOOT, replace(NODE, boot_id="x"), Status.UNKNOWN),
    ],
)
def test_the_standard_pod_shows_the_nodes_kernel(boot: str, node: Node, status: Status) -> None:
    found = proof.judge(node, outcome(said(boot), None), {})
    assert [(f.check, f.status, f.subject) for f in found] == [("cluster-pod-standard", status, "worker-1")]


def test_what_is_not_katas_fault_is_not_known() -> None:
    refused = Outcome(
        proof.task("worker-1", "i", "kata-qemu"), "Refused", trouble="pods is forbidden: exceeded quota"
    )
    missing = replace(refused, trouble='pod rejected: RuntimeClass "kata-qemu" not found')
    found = [proof.judge(NODE, None, {"kata-qemu": o})[0].status for o in (refused, missing)]
    assert found == [Status.UNKNOWN, Status.FAIL]


@pytest.mark.parametrize("shell", [["sh"], ["busybox", "sh"]])
def test_the_script_tells_of_this_machine(shell: list[str]) -> None:
    done = subprocess.run([*shell, str(proof.SCRIPT)], capture_output=True, check=True)
    answer = proof.read(done.stdout)
    assert answer.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert answer.kernel == Path("/proc/sys/kernel/osrelease").read_text().strip()
    flags = Path("/proc/cpuinfo").read_text().split()
    assert ("flag hypervisor" in answer.hypervisor) == ("hypervisor" in flags)
    assert done.stderr == b""
