"""The probe's judgement of saved machines: what is broken first?"""

from pathlib import Path

import pytest

from nestvirt.guest import probe
from tests.unit.guest.answers import judged_well
from tests.unit.guest.machines import (
    AMD,
    BUILTIN,
    INTEL,
    MODULES,
    NO_SVM,
    NO_VMX,
    NOT_LOADED,
    STALE,
    Files,
    Node,
    Sparse,
    build,
    cpuinfo,
    leaf,
    msr,
)

SEV_WORDS = "Memory Encryption Features active: AMD SEV"
OLD_SEV_WORDS = "AMD Memory Encryption Features active: SEV"  # up to Linux 5.17
BOTH_BUILT_IN: Files = {
    "/sys/module/kvm_amd/parameters/nested": "1\n",
    "/sys/module/kvm_intel/parameters/nested": "Y\n",
    MODULES: None,
    BUILTIN: "kernel/arch/x86/kvm/kvm-amd.ko\nkernel/arch/x86/kvm/kvm-intel.ko\n",
}
XEN: Files = {"/sys/hypervisor/type": "xen\n"}

MACHINES: dict[str, tuple[Files, str | None]] = {
    "healthy AMD": (AMD, "not-run"),
    "healthy Intel": (INTEL, "not-run"),
    "AMD without svm": (AMD | NOT_LOADED | NO_SVM, "no-cpu-flag"),
    "Intel without vmx": (INTEL | NOT_LOADED | NO_VMX, "no-cpu-flag"),
    "svm on an Intel CPU": (
        INTEL | NOT_LOADED | {"/proc/cpuinfo": cpuinfo("GenuineIntel", "svm")},
        "no-cpu-flag",
    ),
    "another KVM that needs no flag": (
        AMD
        | NOT_LOADED
        | NO_SVM
        | {"/sys/module/kvm_pvm/uevent": "", "/dev/kvm": Node(), "/proc/misc": "232 kvm\n"},
        "not-run",
    ),
    "module not loaded": (AMD | NOT_LOADED, "module-not-loaded"),
    "only the other vendor's module on disk": (AMD | NOT_LOADED | {MODULES: INTEL[MODULES]}, "module-absent"),
    "both modules built in, no flag": (AMD | NOT_LOADED | NO_SVM | BOTH_BUILT_IN, "no-cpu-flag"),
    "both modules built in, no flag, stale node": (AMD | STALE | NO_SVM | BOTH_BUILT_IN, "no-cpu-flag"),
    "both modules built in, locked": (
        AMD | NOT_LOADED | BOTH_BUILT_IN | {"/dev/kmsg": "3,1,2,-;kvm: disabled by bios\n"},
        "firmware-locked",
    ),
    "both modules built in, and well": (AMD | BOTH_BUILT_IN, "not-run"),
    "both modules, no /proc/misc": (AMD | BOTH_BUILT_IN | {"/proc/misc": None}, "not-run"),
    "module absent": (AMD | NOT_LOADED | {MODULES: None}, "module-absent"),
    "module absent, stale node": (AMD | STALE | {MODULES: None}, "module-absent"),
    "module built in, but did not start": (
        AMD | NOT_LOADED | {MODULES: None, BUILTIN: "kernel/arch/x86/kvm/kvm-amd.ko\n"},
        "module-not-loaded",
    ),
    "module blacklisted": (
        AMD | NOT_LOADED | {"/etc/modprobe.d/no-kvm.conf": "# why\nblacklist kvm-amd\n"},
        "module-blacklisted",
    ),
    "module blacklisted, stale node": (
        AMD | STALE | {"/usr/lib/modprobe.d/no-kvm.conf": "blacklist kvm_amd\n"},
        "module-blacklisted",
    ),
    "blacklisting masked by an empty file": (
        AMD | NOT_LOADED | {"/lib/modprobe.d/k.conf": "blacklist kvm_amd\n", "/etc/modprobe.d/k.conf": ""},
        "module-not-loaded",
    ),
    "the other vendor's module blacklisted": (
        AMD | NOT_LOADED | {"/etc/modprobe.d/k.conf": "blacklist kvm_intel\n"},
        "module-not-loaded",
    ),
    "module barred by install": (
        INTEL | NOT_LOADED | {"/etc/modprobe.d/k.conf": "install kvm_intel /bin/false\n"},
        "module-blacklisted",
    ),
    "kvm itself barred by install": (
        INTEL | NOT_LOADED | {"/etc/modprobe.d/k.conf": "install kvm /usr/bin/true\n"},
        "module-blacklisted",
    ),
    "module installed by a command": (
        INTEL | NOT_LOADED | {"/etc/modprobe.d/k.conf": "install kvm_intel /sbin/modprobe -i kvm_intel\n"},
        "module-not-loaded",
    ),
    "module_blacklist=": (
        AMD | NOT_LOADED | {"/proc/cmdline": "module_blacklist=floppy,kvm_amd\n"},
        "module-blacklisted",
    ),
    "modprobe.blacklist=": (
        AMD | NOT_LOADED | {"/proc/cmdline": "modprobe.blacklist=kvm-amd\n"},
        "module-blacklisted",
    ),
    "blacklisted but loaded": (AMD | {"/etc/modprobe.d/k.conf": "blacklist kvm_amd\n"}, "not-run"),
    "stale node": (AMD | STALE, "device-stale"),
    "node without driver, no /proc/misc": (AMD | STALE | {"/proc/misc": None}, "device-stale"),
    "node is a regular file": (AMD | {"/dev/kvm": ""}, "device-stale"),
    "node has another number": (AMD | {"/dev/kvm": Node(10, 233)}, "device-stale"),
    "no node": (AMD | {"/dev/kvm": None}, "device-missing"),
    "no node in Docker": (AMD | {"/dev/kvm": None, "/.dockerenv": ""}, "container"),
    "no node in Podman": (AMD | {"/dev/kvm": None, "/run/.containerenv": ""}, "container"),
    "no node in LXC": (AMD | {"/dev/kvm": None, "/proc/1/environ": "HOME=/\0container=lxc\0"}, "container"),
    "no node, and a variable that only ends like it": (
        AMD | {"/dev/kvm": None, "/proc/1/environ": "HOME=/\0no_container=lxc\0"},
        "device-missing",
    ),
    "no node where the first variable tells": (
        AMD | {"/dev/kvm": None, "/proc/1/environ": "container=podman\0HOME=/\0"},
        "container",
    ),
    "container without modules on its disk": (
        AMD | NOT_LOADED | {MODULES: None, "/.dockerenv": ""},
        "container",
    ),
    "no node in a pod": (AMD | {"/dev/kvm": None, "/proc/1/cgroup": "0::/kubepods.slice/x\n"}, "container"),
    "container without a module": (AMD | NOT_LOADED | {"/.dockerenv": ""}, "module-not-loaded"),
    "SEV device": (AMD | {"/dev/sev-guest": ""}, "confidential-guest"),
    "SEV in the log": (
        AMD | NOT_LOADED | NO_SVM | {"/dev/kmsg": f"6,1,2,-;{SEV_WORDS} SEV-SNP\n"},
        "confidential-guest",
    ),
    "SEV in an older log": (
        AMD | NOT_LOADED | NO_SVM | {"/dev/kmsg": f"6,1,2,-;{OLD_SEV_WORDS} SEV-ES\n"},
        "confidential-guest",
    ),
    "an older host that encrypts its memory": (
        AMD | {"/dev/kmsg": "6,1,2,-;AMD Memory Encryption Features active: SME\n"},
        "not-run",
    ),
    "a host that encrypts its memory": (
        AMD | {"/dev/kmsg": "6,1,2,-;Memory Encryption Features active: AMD SME\n"},
        "not-run",
    ),
    "TDX flag": (
        INTEL | NOT_LOADED | {"/proc/cpuinfo": cpuinfo("GenuineIntel", "tdx_guest")},
        "confidential-guest",
    ),
    "SVM locked off in its MSR": (
        AMD | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(c0010114=msr(0x10))},
        "firmware-locked",
    ),
    "SVM lock bit alone": (
        AMD | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(c0010114=msr(0x8))},
        "module-not-loaded",
    ),
    "VMX locked off in its MSR": (
        INTEL | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(**{"3a": msr(1)})},
        "firmware-locked",
    ),
    "VMX locked on in its MSR": (
        INTEL | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(**{"3a": msr(5)})},
        "module-not-loaded",
    ),
    "VMX not locked": (
        INTEL | NOT_LOADED | {"/dev/cpu/0/msr": Sparse(**{"3a": msr(0)})},
        "module-not-loaded",
    ),
    "the log says disabled by bios": (
        INTEL | NOT_LOADED | {"/dev/kmsg": "3,1,2,-;kvm: support for 'kvm_intel' disabled by bios\n"},
        "firmware-locked",
    ),
    "the newer log says disabled by BIOS": (
        INTEL | NOT_LOADED | {"/dev/kmsg": "3,1,2,-;x86/cpu: VMX (outside TXT) disabled by BIOS\n"},
        "firmware-locked",
    ),
    "the log speaks of something else": (
        INTEL | NOT_LOADED | {"/dev/kmsg": "3,1,2,-;x86/cpu: SGX disabled by BIOS.\n"},
        "module-not-loaded",
    ),
    "CPUID has vmx, cpuinfo not": (
        INTEL | NOT_LOADED | NO_VMX | {"/dev/cpu/0/cpuid": Sparse(**{"1": leaf(1 << 5)})},
        "firmware-locked",
    ),
    "CPUID has vmx, cpuinfo not: Xen": (
        INTEL | NOT_LOADED | NO_VMX | XEN | {"/dev/cpu/0/cpuid": Sparse(**{"1": leaf(1 << 5)})},
        "no-cpu-flag",
    ),
    "CPUID has svm, cpuinfo not": (
        AMD | NOT_LOADED | NO_SVM | {"/dev/cpu/0/cpuid": Sparse(**{"80000001": leaf(1 << 2)})},
        "firmware-locked",
    ),
    "another architecture": (
        {"/proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\n"},
        "unsupported-arch",
    ),
    "nothing at all": ({}, "unsupported-arch"),
    "garbage in cpuinfo": ({"/proc/cpuinfo": bytes(range(256)) * 64}, "unsupported-arch"),
}

UNKNOWN = ("not-run", "unsupported-arch")


@pytest.mark.parametrize(("files", "cause"), MACHINES.values(), ids=MACHINES)
def test_saved_machine(tmp_path: Path, files: Files, cause: str | None) -> None:
    answer = probe.examine(str(build(tmp_path, files)))
    assert (answer["cause"], answer["verdict"]) == (cause, "unknown" if cause in UNKNOWN else "off")
    judged_well(answer)
