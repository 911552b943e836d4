"""What a guest's files say of nesting, where it lets us read them and runs no programs for us.

A flag in /proc/cpuinfo and a /dev/kvm that is there prove nothing: no guest code was run.
"""

from __future__ import annotations

import re

from nestvirt.errors import GuestUnreachable
from nestvirt.guest.channel import FileReader
from nestvirt.model import Finding, Layer, Status
from nestvirt.printable import printable

CPUINFO, DEVICE = "/proc/cpuinfo", "/dev/kvm"

_FLAGS = re.compile(r"^flags\s*:(.*)$", re.MULTILINE)


def examine(reader: FileReader) -> tuple[str | None, tuple[Finding, ...]]:
    """Look at the CPU's flags and at the device.

    Returns:
        The cause that is broken first, or None where nothing looks broken; and what was seen.

    Raises:
        GuestUnreachable: the files cannot be read either.
    """
    text = (reader.file(CPUINFO) or b"").decode(errors="replace")
    shown = _FLAGS.search(text)
    if shown is None:
        raise GuestUnreachable(
            f"{CPUINFO} of the guest lists no flags",
            evidence=repr(printable(text, 60)),
            cure="look into the guest by hand",
        )
    seen = [flag for flag in ("vmx", "svm") if flag in shown[1].split()]
    if not seen:
        cure = "give this VM nested virtualization on its hypervisor, then power it off and on"
        return "no-cpu-flag", (_flag(Status.FAIL, f"neither vmx nor svm in {CPUINFO}", cure),)
    flag = _flag(Status.PASS, f"{seen[0]} in {CPUINFO}")
    if reader.file(DEVICE) is None:
        module = "kvm_intel" if seen[0] == "vmx" else "kvm_amd"
        return "device-missing", (flag, _device(Status.FAIL, f"there is no {DEVICE}", f"modprobe {module}"))
    return None, (flag, _device(Status.PASS, f"{DEVICE} is there"))


def _flag(status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding("guest-cpu-flag", Layer.GUEST, status, evidence, cure)


def _device(status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding("guest-device", Layer.GUEST, status, evidence, cure)
