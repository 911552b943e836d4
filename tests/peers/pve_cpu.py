"""How Proxmox reads a VM's cpu string: what it refuses, in its own words, and what a guest gets of it.

As qemu-server does it (PVE::QemuServer::CPUConfig and ::CPUFlags), from 7 to 9.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fakepve import schema

from tests.peers.guest_answers import BROKEN, NO_FLAG, WORKS

FLAGS = {
    "aes": "Activate AES instruction set for HW acceleration.",
    "amd-no-ssb": "Notifies guest OS that host is not vulnerable for Spectre on AMD CPUs.",
    "amd-ssbd": "Improves Spectre mitigation performance with AMD CPUs, best used with 'virt-ssbd'.",
    "hv-evmcs": "Improve performance for nested virtualization. Only supported on Intel CPUs.",
    "hv-tlbflush": "Improve performance in overcommitted Windows guests.",
    "ibpb": "Allows improved Spectre mitigation with AMD CPUs.",
    "md-clear": "Required to let the guest OS know if MDS is mitigated correctly.",
    "nested-virt": "Controls nested virtualization, namely 'svm' for AMD CPUs and 'vmx' for Intel CPUs.",
    "pcid": "Meltdown fix cost reduction on Westmere, Sandy-, and IvyBridge Intel CPUs.",
    "pdpe1gb": "Allow guest OS to use 1GB size pages, if host HW supports it.",
    "spec-ctrl": "Allows improved Spectre mitigation with Intel CPUs.",
    "ssbd": "Protection for 'Speculative Store Bypass' for Intel models.",
    "virt-ssbd": "Basis for 'Speculative Store Bypass' protection for AMD models.",
}

_LEVELS = "x86-64-v2 x86-64-v2-AES x86-64-v3 x86-64-v4"
_AMD = """athlon phenom EPYC EPYC-IBPB EPYC-v3 EPYC-v4 EPYC-Rome EPYC-Rome-v2 EPYC-Milan EPYC-Milan-v2
    EPYC-Genoa EPYC-Turin Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5"""
_INTEL = """486 pentium pentium2 pentium3 coreduo core2duo Conroe Penryn Nehalem Nehalem-IBRS Westmere
    Westmere-IBRS SandyBridge SandyBridge-IBRS IvyBridge IvyBridge-IBRS Haswell Haswell-noTSX Broadwell
    Broadwell-noTSX Skylake-Client Skylake-Server Skylake-Server-v5 Cascadelake-Server Cooperlake
    Icelake-Server Icelake-Server-noTSX SapphireRapids GraniteRapids SierraForest KnightsMill"""
_GENERIC = "host max kvm32 kvm64 qemu32 qemu64"

_FLAG = "[+-][a-zA-Z0-9._-]+"
_OPTIONS: dict[str, dict[str, object]] = {
    "cputype": {"type": "string", "default_key": 1, "optional": 1},
    "flags": {"type": "string", "pattern": f"{_FLAG}(;{_FLAG})*", "optional": 1},
    "guest-phys-bits": {"type": "integer", "minimum": 32, "maximum": 64, "optional": 1},
    "hidden": {"type": "boolean", "optional": 1},
    "hv-vendor-id": {"type": "string", "pattern": "[a-zA-Z0-9]{1,12}", "optional": 1},
    "level": {"type": "integer", "minimum": 1, "maximum": 2147483647, "optional": 1},
    "phys-bits": {"type": "string", "pattern": "host|[89]|[1-5][0-9]|6[0-4]", "optional": 1},
    "reported-model": {"type": "string", "optional": 1},
}


@dataclass(frozen=True)
class Release:
    """A version of Proxmox, by what matters here.

    Attributes:
        message: whether errors have a JSON body with their message (http-server 5.2.0).
    """

    version: str
    release: str
    qemu_server: tuple[int, ...]
    message: bool = True

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def flags(self) -> list[str]:
        """What a VM may name in flags=."""
        return [flag for flag in FLAGS if flag != "nested-virt" or self.qemu_server >= (9, 0, 27)]

    @property
    def types(self) -> list[str]:
        return f"{_GENERIC} {_AMD} {_INTEL} {_LEVELS if self.major >= 8 else ''}".split()


PVE_7 = Release("7.4-17", "7.4", (7, 4, 4), message=False)
PVE_8 = Release("8.4.10", "8.4", (8, 4, 4), message=False)
PVE_9_0 = Release("9.0.3", "9.0", (9, 0, 16), message=False)
PVE_9_1 = Release("9.1.1", "9.1", (9, 0, 30))
PVE_9_2 = Release("9.2.11", "9.2", (9, 2, 6))


@dataclass
class Host:
    """A node's hardware and its kvm module.

    Attributes:
        virt: whether /proc/cpuinfo shows vmx or svm.
        nested: the kvm module's parameter.
        reports: whether pvestatd has told the cluster which flags its KVM supports.
    """

    vendor: str = "AuthenticAMD"
    model: str = "AMD EPYC 7313 16-Core Processor"
    virt: bool = True
    nested: bool = True
    machine: str = "x86_64"
    reports: bool = True

    @property
    def flag(self) -> str:
        return "vmx" if self.vendor == "GenuineIntel" else "svm"

    @property
    def cpuinfo(self) -> dict[str, object]:
        """What /nodes/NODE/status says of it."""
        flags = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse"
        flags += (
            f" sse2 ht syscall nx lm pni ssse3 cx16 sse4_1 sse4_2 aes{' ' + self.flag if self.virt else ''}"
        )
        counts = {"cpus": 32, "cores": 16, "sockets": 1, "user_hz": 100, "mhz": "2596.122", "family": "25"}
        return {**counts, "hvm": "1", "flags": flags, "vendor": self.vendor, "model": self.model}


def intel() -> Host:
    """A node with an Intel CPU."""
    return Host("GenuineIntel", "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz")


def options(cpu: str | None) -> dict[str, str]:
    """The string's parts by name; the type is ``cputype``."""
    found: dict[str, str] = {}
    for part in (cpu or "kvm64").split(","):
        key, equals, value = part.partition("=")
        found[key if equals else "cputype"] = value if equals else key
    return found


def refusal(cpu: str, release: Release, custom: Mapping[str, str]) -> str | None:
    """Why PVE does not take a string, in its words; None where it does."""
    wrong = schema._property_string(_OPTIONS, cpu, "")
    if wrong:
        return str(wrong)
    parts = options(cpu)
    kind = parts.get("cputype", "kvm64")
    if kind.startswith("custom-"):
        if kind.removeprefix("custom-") not in custom:
            return f"Custom cputype '{kind.removeprefix('custom-')}' not found\n"
    elif kind not in release.types:
        return f"Built-in cputype '{kind}' is not defined (missing 'custom-' prefix?)\n"
    if "reported-model" in parts:
        return "Property 'reported-model' not allowed in VM-specific CPU config.\n"
    named = {flag[1:] for flag in parts.get("flags", "").split(";") if flag}
    if named - set(release.flags):
        return f"VM-specific CPU flags must be a subset of: {', '.join(release.flags)}\n"
    return None


class QemuFailed(Exception):
    """QEMU does not start with this CPU on this node; its arguments are the task's log."""


def shows_nesting(cpu: str | None, args: str = "", custom: Mapping[str, str] | None = None) -> bool:
    """Whether a guest is meant to nest, wherever it runs."""
    named = re.search(r"-cpu\s+(\S+)", args)
    if named:
        return bool(re.search(r"^host|\+?(vmx|svm)", named[1]))
    parts = options(cpu)
    kind, flags = parts.get("cputype", "kvm64"), parts.get("flags", "").split(";")
    if "-nested-virt" in flags:
        return False
    if kind.startswith("custom-"):
        flags += (custom or {}).get(kind.removeprefix("custom-"), "").split(";")
    return kind in ("host", "max") or bool({"+nested-virt", "+vmx", "+svm"} & set(flags))


def started(config: Mapping[str, object], host: Host, custom: Mapping[str, str]) -> tuple[str, list[str]]:
    """What a guest gets when it is started: how nesting is inside, and the task's log.

    Raises:
        QemuFailed: every type but host is enforced: a flag that KVM does not offer ends QEMU.
    """
    cpu, args = config.get("cpu"), str(config.get("args", ""))
    cpu = None if cpu is None else str(cpu)
    if str(config.get("kvm", 1)) == "0" or not shows_nesting(cpu, args, custom):
        return NO_FLAG, []
    kind = options(cpu).get("cputype", "kvm64")
    if kind in ("host", "max") or "-cpu" in args:
        return (WORKS if host.virt and host.nested else NO_FLAG), []
    if not host.virt:
        return NO_FLAG, ["WARN: ignoring 'nested-virt' CPU flag - the host has neither 'svm' nor 'vmx'"]
    log = [f"CPU flag 'nested-virt' resolved to '{host.flag}'"]
    if not host.nested:
        where = "80000001H:ECX.svm [bit 2]" if host.flag == "svm" else "01H:ECX.vmx [bit 5]"
        raise QemuFailed(
            *log,
            f"kvm: warning: host doesn't support requested feature: CPUID.{where}",
            "kvm: Host doesn't support requested features",
        )
    return (BROKEN if kind.startswith("x86-64-v") else WORKS), log
