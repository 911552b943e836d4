"""The facts about one VM as data, for all that judges them. Needs no Hyper-V."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nestvirt.backends.hyperv.direct import System
from nestvirt.model import Change, Power

SHUTDOWN_SERVICE = "9f8233ac-be49-4c79-8ee3-e7e1985b2077"
"""The integration service that asks the guest to shut down; the names are in the host's language."""

_SUSPENDED = ("Saved", "Paused", "Saving", "Pausing", "Hibernated")


def settled(state: str) -> str:
    """A state, less that storage is away (OffCritical), or how it was saved (FastSaved)."""
    return state.removesuffix("Critical").removeprefix("Fast")


def power_of(state: str) -> Power:
    """Off, suspended, or on: what shuts down is on until it is off."""
    if settled(state) == "Off":
        return Power.STOPPED
    return Power.SUSPENDED if settled(state) in _SUSPENDED else Power.RUNNING


@dataclass(frozen=True)
class Host:
    """A Windows that has the role Hyper-V.

    Attributes:
        build: of Windows, such as 20348; 0 where it is not told.
        cpu_vendor: as CPUID says it: GenuineIntel, AuthenticAMD.
        hypervisor: whether its hypervisor runs; None where this user may not know.
        vbs: whether virtualization-based security runs on the host; None where this user may not know.
        version: the configuration version that it gives new VMs; empty where it is not told.
    """

    name: str
    build: int
    cpu_vendor: str
    hypervisor: bool | None = True
    vbs: bool | None = None
    version: str = ""


@dataclass(frozen=True)
class Adapter:
    """A network adapter of the VM."""

    id: str
    name: str
    spoofing: bool


@dataclass(frozen=True)
class Service:
    """An integration service: whether the host offers it, and VMIntegrationComponentOperationalStatus."""

    enabled: bool
    status: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: whether it has the guest's memory, and whether Hyper-V made it by itself."""

    name: str
    saved: bool = False
    automatic: bool = False


@dataclass(frozen=True)
class Group:
    """The cluster's role that the VM is; without a name where it could not be read, for ``state``."""

    cluster: str
    name: str
    state: str


@dataclass(frozen=True)
class Situation:
    """One VM as Hyper-V tells it.

    Attributes:
        id: the VM's GUID.
        state: VMState.
        version: the configuration version.
        replication: VMReplicationMode.
        group: None where it is not clustered.
        memory: MemoryStartup in bytes, which it keeps where memory is static.
        used: bytes that it has now, or that its guest wants; 0 while it does not run.
        stop_action: AutomaticStopAction, what becomes of it when its host shuts down.
        services: by the GUID of the component.
        heartbeat: VMHeartbeatStatus.
        system: the guest's, as it says; None where it says nothing.
        settings: what can be written, by name, as text; see vm.ps1.
        guest_user: as whom PowerShell Direct would log in to the guest; empty for nobody.
    """

    host: Host
    id: str
    name: str
    state: str
    version: str
    generation: int
    replication: str
    group: Group | None
    memory: int
    adapters: tuple[Adapter, ...] = ()
    services: Mapping[str, Service] = field(default_factory=dict)
    checkpoints: tuple[Checkpoint, ...] = ()
    used: int = 0
    stop_action: str = ""
    heartbeat: str = ""
    system: System | None = None
    settings: Mapping[str, str | None] = field(default_factory=dict)
    guest_user: str = ""

    busy = ""  # see Facts: a VM can always be power-cycled
    waiting = ""  # and nothing else is shut down for it

    @property
    def power(self) -> Power:
        """Off, suspended, or on: what shuts down is on until it is off."""
        return power_of(self.state)

    @property
    def settled(self) -> str:
        """The state, less that storage is away (OffCritical), or how it was saved (FastSaved)."""
        return settled(self.state)

    def has(self, _change: Change) -> bool:
        """See Facts: a running VM has what its configuration has, as that cannot be changed meanwhile."""
        return False

    def value(self, setting: str) -> str | None:
        """See Facts."""
        return self.settings.get(setting)

    @property
    def version_number(self) -> tuple[int, int]:
        """The configuration version as a number; (0, 0) where it is none."""
        return number_of(self.version)


def number_of(version: str) -> tuple[int, int]:
    """A configuration version such as 9.3 as a number; (0, 0) where it is none."""
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
