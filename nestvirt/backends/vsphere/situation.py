"""The facts about one VM as data, for all that judges them. Needs no vSphere."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nestvirt.backends.vsphere.setting import SETTING, Nesting
from nestvirt.model import HARDWARE_VERSION, Change, Power

POWERS = {"poweredOn": Power.RUNNING, "poweredOff": Power.STOPPED, "suspended": Power.SUSPENDED}


@dataclass(frozen=True)
class Host:
    """An ESXi host.

    Attributes:
        nested: capability.nestedHVSupported; None where that could not be read.
        usable: whether it is connected, and not in maintenance mode.
        connection: connected, disconnected, notResponding; as connected where that could not be read.
        evc: the EVC mode in effect; None for none.
        thumbprint: of its certificate, as vCenter knows it; None where it tells none.
    """

    name: str
    nested: bool | None = None
    usable: bool = True
    connection: str = "connected"
    evc: str | None = None
    thumbprint: str | None = None


@dataclass(frozen=True)
class Situation:
    """One VM as vSphere tells it.

    Attributes:
        who: the user that asks.
        guest_user: as whom guest operations would log in to the guest; empty for nobody.
        connection: connected, disconnected, inaccessible, invalid, orphaned.
        readable: whether there is a configuration to read at all.
        hardware: the hardware version, as vmx-19.
        change_version: of the configuration; a write that names another one is refused.
        nesting: what the configuration says.
        capable: vm.capability.nestedHVSupported; None where it is not told.
        vbs: whether Windows' virtualization-based security is on.
        fault_tolerance: runtime.faultToleranceState.
        passthrough: labels of PCI devices of the host that the VM has.
        question: what it waits to be answered; empty for nothing.
        required: features that the running VM has been given (cpuid.VMX, …); empty where that is not told.
        boot: when it was last powered on, as text; empty where that is not told.
        tools: whether VMware Tools run.
        privileges: on the VM; None where they could not be read.
        host: where it is; None where that could not be read.
        peers: the other hosts of the cluster.
        kept_false: nestedHVEnabled reads false, and stands for what this run has taken out.
    """

    name: str
    who: str
    guest_user: str
    power: Power
    connection: str
    readable: bool
    template: bool
    hardware: str
    change_version: str
    nesting: Nesting
    capable: bool | None
    vbs: bool
    fault_tolerance: str
    passthrough: tuple[str, ...]
    question: str
    required: frozenset[str]
    boot: str
    guest_id: str
    memory_snapshots: tuple[str, ...]
    tools: bool
    privileges: frozenset[str] | None
    host: Host | None
    peers: tuple[Host, ...]
    kept_false: bool = False

    busy = ""  # see Facts: a VM can always be power-cycled
    waiting = ""  # and nothing else is shut down for it

    def has(self, _change: Change) -> bool:
        """See Facts: a running VM has what its configuration has, as that cannot be changed meanwhile."""
        return False

    def value(self, setting: str) -> str | None:
        """See Facts."""
        return {SETTING: self.nesting.text, HARDWARE_VERSION: self.hardware or None}.get(setting)

    def nearest(self, setting: str) -> str:
        """See Approximate."""
        return "reads false" if setting == SETTING and self.kept_false else ""

    @property
    def version(self) -> int:
        """The number of the hardware version; 0 where it is not known."""
        found = re.fullmatch(r"vmx-(\d+)", self.hardware)
        return int(found[1]) if found else 0

    @property
    def windows(self) -> bool:
        """Whether the guest is said to be Windows (VirtualMachineGuestOsIdentifier)."""
        return self.guest_id.startswith("win")

    @property
    def received(self) -> bool | None:
        """Whether the running VM nests, by the features that it requires; None where that is not told."""
        if self.power is not Power.RUNNING or not self.required:
            return None
        return bool(self.required & {"cpuid.VMX", "cpuid.SVM", "hv.capable"})
