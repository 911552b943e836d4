"""``make demo`` tells its story to the end: FAIL with its cause, the change, the proof, and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.lab.libvirtd import LibvirtLab

STORY = [
    "FAIL  first broken link: vm-cpu",
    "-    <feature policy='disable' name='svm'/>",
    "+    <feature policy='require' name='svm'/>",
    "PASS  ran guest code in the guest (by qemu-guest-agent)",
    "PASS    guest-kvm-exit-latency",
    "is undone",
    "byte for byte what it was before",
]


def test_demo_goes_from_no_nesting_to_a_proof_and_back(libvirt_lab: LibvirtLab) -> None:
    """The demo has a libvirtd of its own; the fixture says whether one can be brought up at all."""
    assert libvirt_lab.pid is not None
    command = [sys.executable, "-m", "tests.lab.demo"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    at = 0
    for line in STORY:
        assert line in done.stdout[at:], f"after {at} characters there is no {line!r}"
        at = done.stdout.index(line, at)


def test_the_labs_shell_has_nestvirt_and_the_vm(libvirt_lab: LibvirtLab) -> None:
    assert libvirt_lab.pid is not None
    words = ["sh", "-c", "nestvirt check --libvirt web-01 -q; virsh -q list --name"]
    command = [sys.executable, "-m", "tests.lab.shell", *words]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=300
    )
    assert "first broken link: vm-cpu" in done.stdout
    assert done.stdout.split()[-1] == "web-01", done.stderr
    assert done.returncode == 0
