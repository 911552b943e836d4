"""Saved machines: directories that look to the probe like the file system of a machine."""

import os
import stat
import struct
from pathlib import Path

from tests.lab import need

KERNEL = "6.1.0-test"
MODULES = f"/lib/modules/{KERNEL}/modules.dep"
BUILTIN = f"/lib/modules/{KERNEL}/modules.builtin"
MISC = "232 kvm\n183 hw_random\n"
MISC_WITHOUT_KVM = "183 hw_random\n"


class Node:
    """A character device."""

    def __init__(self, major: int = 10, minor: int = 232) -> None:
        self.device = os.makedev(major, minor)


class Sparse:
    """A file that is asked at offsets, as the msr and cpuid devices are."""

    def __init__(self, **at: bytes) -> None:
        self.at = {int(offset, 16): data for offset, data in at.items()}


Files = dict[str, str | bytes | Node | Sparse | None]


def cpuinfo(vendor: str, *flags: str) -> str:
    one = f"vendor_id\t: {vendor}\nmodel name\t: Test CPU\nflags\t\t: fpu lm {' '.join(flags)}\n"
    return f"processor\t: 0\n{one}\nprocessor\t: 1\n{one}\n"


AMD: Files = {
    "/proc/cpuinfo": cpuinfo("AuthenticAMD", "svm", "hypervisor"),
    "/proc/cmdline": "root=/dev/vda1 quiet\n",
    "/proc/misc": MISC,
    "/proc/sys/kernel/osrelease": f"{KERNEL}\n",
    "/sys/class/dmi/id/sys_vendor": "QEMU\n",
    "/sys/module/kvm_amd/parameters/nested": "1\n",
    "/sys/module/kvm_amd/parameters/npt": "Y\n",
    MODULES: "kernel/arch/x86/kvm/kvm-amd.ko.xz: kernel/arch/x86/kvm/kvm.ko.xz\n",
    "/dev/kvm": Node(),
}
INTEL: Files = AMD | {
    "/proc/cpuinfo": cpuinfo("GenuineIntel", "vmx", "hypervisor"),
    "/sys/module/kvm_amd/parameters/nested": None,
    "/sys/module/kvm_amd/parameters/npt": None,
    "/sys/module/kvm_intel/parameters/nested": "Y\n",
    "/sys/module/kvm_intel/parameters/ept": "Y\n",
    MODULES: "kernel/arch/x86/kvm/kvm-intel.ko: kernel/arch/x86/kvm/kvm.ko\n",
}
NOT_LOADED: Files = {
    "/sys/module/kvm_amd/parameters/nested": None,
    "/sys/module/kvm_amd/parameters/npt": None,
    "/sys/module/kvm_intel/parameters/nested": None,
    "/sys/module/kvm_intel/parameters/ept": None,
    "/proc/misc": MISC_WITHOUT_KVM,
    "/dev/kvm": None,
}
STALE: Files = NOT_LOADED | {"/dev/kvm": Node()}
NO_SVM: Files = {"/proc/cpuinfo": cpuinfo("AuthenticAMD", "hypervisor")}
NO_VMX: Files = {"/proc/cpuinfo": cpuinfo("GenuineIntel", "hypervisor")}


def msr(value: int) -> bytes:
    return struct.pack("<Q", value)


def leaf(ecx: int) -> bytes:
    return struct.pack("<4I", 0, 0, ecx, 0)


def build(root: Path, files: Files) -> Path:
    """Write a machine below `root`; a file of None is left out."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        if content is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case Node():
                try:
                    os.mknod(path, stat.S_IFCHR | 0o600, content.device)
                except PermissionError as error:
                    need(error, "only root may make device nodes")
            case Sparse():
                with path.open("wb") as file:
                    for offset, data in content.at.items():
                        os.pwrite(file.fileno(), data, offset)
            case str():
                path.write_text(content, encoding="utf-8")
            case bytes():
                path.write_bytes(content)
    return root
