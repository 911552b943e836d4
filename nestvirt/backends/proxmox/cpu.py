"""A Proxmox VM's cpu string, read and written without losing a sub-option. Pure.

Form: ``[cputype=]TYPE[,flags=+a;-b][,hidden=1][,phys-bits=…]`` (qm.conf(5), option cpu).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

DEFAULT = "kvm64"
"""The type where the configuration names none (qm.conf(5)); what the GUI's wizard writes is another."""

NESTED_FLAG = "nested-virt"
"""The VM-level flag that stands for vmx or svm; qemu-server has it since 9.0.27. ``+vmx`` and ``+svm``
themselves are refused at the level of a VM."""

FAMILIES = {
    "amd": """
        EPYC EPYC-Rome EPYC-Milan EPYC-Genoa EPYC-Turin Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5
        Dhyana athlon phenom
    """,
    "intel": """
        486 pentium pentium2 pentium3 coreduo core2duo Conroe Penryn Nehalem Westmere SandyBridge IvyBridge
        Haswell Broadwell Skylake-Client Skylake-Server Cascadelake-Server Cooperlake Icelake-Client
        Icelake-Server KnightsMill SapphireRapids SierraForest GraniteRapids ClearwaterForest DiamondRapids
        Denverton Snowridge n270
    """,
}
"""The built-in types by vendor, less their variants (qemu-server, PVE/QemuServer/CPUConfig.pm)."""

_VARIANT = re.compile(r"(-(IBRS|IBPB|noTSX|v\d+))+$")
_GENERIC = re.compile(r"x86-64-v\d.*|(kvm|qemu)(32|64)")


@dataclass(frozen=True)
class Cpu:
    """A cpu string as its comma-separated parts, whose order and spelling are kept."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str | None) -> Cpu:
        """Read the value of the option; None for "was not set"."""
        return cls(tuple(text.split(",")) if text else ())

    def __str__(self) -> str:
        return ",".join(self.parts)

    @property
    def model(self) -> str:
        """The CPU type, also where it is the default."""
        index = self._type_index()
        return DEFAULT if index is None else self.parts[index].removeprefix("cputype=")

    @property
    def flags(self) -> tuple[str, ...]:
        """The VM-level flags, each with its sign."""
        index = self._index("flags=")
        return () if index is None else tuple(self.parts[index].removeprefix("flags=").split(";"))

    def with_model(self, model: str) -> Cpu:
        """The same with another type."""
        index = self._type_index()
        if index is None:
            return Cpu((model, *self.parts))
        prefix = "cputype=" if self.parts[index].startswith("cputype=") else ""
        return Cpu((*self.parts[:index], f"{prefix}{model}", *self.parts[index + 1 :]))

    def with_nested_flag(self, sign: str | None) -> Cpu:
        """The same with ``+nested-virt``, ``-nested-virt``, or (None) neither."""
        flags = [flag for flag in self.flags if flag[1:] != NESTED_FLAG]
        flags += [f"{sign}{NESTED_FLAG}"] if sign else []
        part = (f"flags={';'.join(flags)}",) if flags else ()
        index = self._index("flags=")
        if index is None:
            return replace(self, parts=(*self.parts, *part)) if part else self
        return Cpu((*self.parts[:index], *part, *self.parts[index + 1 :]))

    def _type_index(self) -> int | None:
        bare = next((i for i, part in enumerate(self.parts) if "=" not in part), None)
        return self._index("cputype=") if bare is None else bare

    def _index(self, prefix: str) -> int | None:
        return next((i for i, part in enumerate(self.parts) if part.startswith(prefix)), None)


def vendor_of(model: str) -> str | None:
    """Whose CPU a built-in type is: amd, intel, or None for a generic, custom or unknown one."""
    for vendor, names in FAMILIES.items():
        if _VARIANT.sub("", model) in names.split():
            return vendor
    return None


def is_generic(model: str) -> bool:
    """True for types that are no vendor's CPU, in which VMs cannot be started even with the flag."""
    return _GENERIC.fullmatch(model) is not None


def is_custom(model: str) -> bool:
    """True for a type that /etc/pve/virtual-guest/cpu-models.conf defines."""
    return model.startswith("custom-")


def shows_nesting(cpu: Cpu) -> bool | None:
    """Whether the guest of such a CPU sees vmx or svm, on a node that can nest; None: it cannot be told.

    Source: qemu-server, PVE/QemuServer/CPUConfig.pm (get_cpu_options); seen on PVE 9.2.
    """
    if f"-{NESTED_FLAG}" in cpu.flags:
        return False
    if cpu.model in ("host", "max"):
        return True
    if f"+{NESTED_FLAG}" in cpu.flags:
        return None if is_generic(cpu.model) else True
    return None if is_custom(cpu.model) else False
