"""The bank: machines that differ in one thing each, what is true of them, and what the probe has to find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tcg:
    """Booted in QEMU's emulator, which has AMD's virtualization and none of Intel's."""

    cpu: str = "EPYC,svm=on"


@dataclass(frozen=True)
class Bochs:
    """Booted in Bochs, which has Intel's virtualization too.

    Attributes:
        model: the CPU, in Bochs' words.
        cpuid: features added to the model, in Bochs' words.
        vt_in_firmware: what its firmware's setup would call VT-x: enabled or disabled, and locked either way.
    """

    model: str
    vt_in_firmware: bool = True
    cpuid: str = ""


@dataclass(frozen=True)
class GuestOf:
    """Booted by a machine of the lab, with QEMU on that machine's KVM, as -cpu host."""

    host: Tcg
    host_prepare: str


@dataclass(frozen=True)
class Here:
    """Not booted: the machine that the tests run on."""


@dataclass(frozen=True)
class Machine:
    """One machine of the bank.

    Attributes:
        name: its name.
        boot: how it is brought up.
        truth: what is true of it, for people.
        verdict: what the probe has to say; None where the lab cannot know (Here).
        cause: the first broken link that the probe has to name.
        prepare: shell that runs in it before modules are loaded.
        given: shell that runs in it before it is looked at.
        user: who looks.
        modules: False where KVM's modules are not loaded at boot.
        statuses: further checks of the probe, and what they have to say.
    """

    name: str
    boot: Tcg | Bochs | GuestOf | Here
    truth: str
    verdict: str | None
    cause: str | None = None
    prepare: str = ""
    given: str = ""
    user: str = "root"
    modules: bool = True
    statuses: Mapping[str, str] = field(default_factory=dict)


BLACKLIST = "echo blacklist kvm_amd >/etc/modprobe.d/lab.conf"
NO_NESTING = "echo options kvm_amd nested=0 >/etc/modprobe.d/lab.conf"
NODE = "mknod -m 666 /dev/kvm c 10 232"
REMOVE = "rm -r /lib/modules/*/kernel/arch/x86/kvm && depmod"

HASWELL = "corei7_haswell_4770"

MACHINES = (
    Machine(
        "amd",
        Tcg(),
        "An AMD VM with svm: its VMs run, and theirs too.",
        "works",
        statuses={"guest-nesting": "pass"},
    ),
    Machine("amd-no-svm", Tcg("EPYC,svm=off"), "An AMD VM without svm: no VM runs.", "off", "no-cpu-flag"),
    Machine("amd-no-npt", Tcg("EPYC,svm=on,npt=off"), "svm without nested paging: VMs run, slower.", "works"),
    Machine(
        "amd-blacklisted",
        Tcg(),
        "svm is there, kvm_amd is blacklisted in modprobe.d: no /dev/kvm.",
        "off",
        "module-blacklisted",
        prepare=BLACKLIST,
    ),
    Machine(
        "amd-no-module",
        Tcg(),
        "svm is there, the kernel comes without KVM's modules.",
        "off",
        "module-absent",
        prepare=REMOVE,
    ),
    Machine(
        "amd-denied",
        Tcg(),
        "KVM works, and its device is root's alone (0600); an ordinary user looks.",
        "off",
        "device-denied",
        given="chmod 600 /dev/kvm",
        user="nobody",
    ),
    Machine(
        "amd-stale-node",
        Tcg(),
        "A node /dev/kvm with no driver behind it: opening it gives ENODEV.",
        "off",
        "device-stale",
        given=NODE,
        modules=False,
    ),
    Machine(
        "amd-stale-blacklisted",
        Tcg(),
        "The same, and kvm_amd is blacklisted, so that loading is no cure.",
        "off",
        "module-blacklisted",
        prepare=BLACKLIST,
        given=NODE,
    ),
    Machine(
        "middle-host",
        Tcg(),
        "kvm_amd nested=0: its VMs run, and theirs cannot.",
        "works",
        prepare=NO_NESTING,
        statuses={"guest-nesting": "skip"},
    ),
    Machine(
        "guest-of-middle-host",
        GuestOf(Tcg(), NO_NESTING),
        "A real KVM guest (-cpu host) of that host: no svm reaches it.",
        "off",
        "no-cpu-flag",
    ),
    Machine("intel", Bochs(HASWELL), "An Intel machine with VMX: its VMs run.", "works"),
    Machine(
        "intel-firmware-locked",
        Bochs(HASWELL, vt_in_firmware=False),
        "The same with VMX locked off by its firmware: disabled by BIOS, says its kernel.",
        "off",
        "firmware-locked",
    ),
    Machine(
        "generic-firmware-locked",
        Bochs("bx_generic", cpuid="vmx=2"),
        "VMX of a maker that Linux does not know: /proc/cpuinfo keeps showing it, and the firmware says no.",
        "off",
        "firmware-locked",
    ),
    Machine(
        "intel-no-vt",
        Bochs("p4_prescott_celeron_336"),
        "A CPU made without VT.",
        "off",
        "no-cpu-flag",
    ),
    Machine("this-machine", Here(), "Where this table was made; see the verdict.", None),
)
