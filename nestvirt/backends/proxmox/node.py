"""What is known of a cluster's nodes: their CPUs, their version, and whether their VMs can nest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nestvirt.backends.proxmox.cpu import NESTED_FLAG

MODULES = {"intel": "kvm_intel", "amd": "kvm_amd"}
FLAGS = {"intel": "vmx", "amd": "svm"}

READ_NESTED = "hostname; cat /sys/module/kvm_intel/parameters/nested /sys/module/kvm_amd/parameters/nested"
"""Shell words whose output is the machine's name, and the parameter of the module that is loaded there."""


@dataclass(frozen=True)
class NodeCpu:
    """A node's processor, from ``/nodes/NODE/status``; that needs Sys.Audit.

    Attributes:
        flags: those of /proc/cpuinfo.
        machine: the architecture that the kernel names, where the version tells it.
    """

    vendor: str | None
    model: str
    flags: frozenset[str]
    machine: str | None

    @classmethod
    def parse(cls, status: object) -> NodeCpu | None:
        """Read the answer; None where it has no CPU."""
        fields = status if isinstance(status, Mapping) else {}
        info = fields.get("cpuinfo")
        if not isinstance(info, Mapping):
            return None
        flags = frozenset(str(info.get("flags", "")).split())
        maker, model = str(info.get("vendor", "")), str(info.get("model", "unknown"))
        amd = "AMD" in maker or "Hygon" in maker or "AMD" in model or "svm" in flags
        intel = "Intel" in maker or "Intel" in model or "vmx" in flags
        kernel = fields.get("current-kernel")
        machine = str(kernel["machine"]) if isinstance(kernel, Mapping) and "machine" in kernel else None
        return cls("amd" if amd else "intel" if intel else None, model, flags, machine)

    @property
    def can_nest(self) -> bool:
        """Whether the CPU has vmx or svm at all, and the firmware has not locked it away."""
        return bool(self.flags & {"vmx", "svm"})


@dataclass(frozen=True)
class Node:
    """The node that holds the VM.

    Attributes:
        cpu: None where it could not be read.
        version: of pve-manager, such as (9, 2, 11).
        offers_flag: whether ``nested-virt`` is a flag there; None where it was not found out.
        nesting_nodes: nodes that report that their KVM offers it; None where the version tells none.
        reporting_nodes: nodes that report any flag of their KVM.
        nested: the kvm module's parameter as it was read there: Y, N, 1, 0.
        nested_unread: why it was not, where it was tried.
    """

    name: str
    cpu: NodeCpu | None
    version: tuple[int, ...]
    offers_flag: bool | None = None
    nesting_nodes: frozenset[str] | None = None
    reporting_nodes: frozenset[str] = frozenset()
    nested: str | None = None
    nested_unread: str = ""


def version_of(text: object) -> tuple[int, ...]:
    """The numbers of a version such as ``9.2.11``, ``7.4-17`` or ``8.0~beta1``."""
    return tuple(int(number) for number in re.findall(r"\d+", str(text))[:3])


def flag_report(rows: object) -> tuple[bool, frozenset[str] | None, frozenset[str]]:
    """Read ``/nodes/NODE/capabilities/qemu/cpu-flags``.

    Returns:
        Whether nested-virt is a flag there; the nodes that offer it, or None; the nodes that report anything.
    """
    offered, nesting = False, None
    reporting: set[str] = set()
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, Mapping):
            continue
        listed = row.get("supported-on")
        nodes = frozenset(map(str, listed)) if isinstance(listed, list) else None
        reporting |= nodes or frozenset()
        if row.get("name") == NESTED_FLAG:
            offered, nesting = True, nodes
    return offered, nesting, frozenset(reporting)
