"""The state of a Hyper-V host, and the rules by which it changes. No PowerShell in here.

The rules: https://learn.microsoft.com/windows-server/virtualization/hyper-v/nested-virtualization.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple
from uuid import UUID, uuid4

GIB, MIB = 2**30, 2**20
SHUTDOWN, KVP, HEARTBEAT, VSS = (
    "9F8233AC-BE49-4C79-8EE3-E7E1985B2077",
    "2A34B1C2-FD73-4043-8A5B-DD2159BC743F",
    "84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47",
    "5CED1297-4598-4915-A5FC-AD21BB4D02A4",
)
"""Integration services, by the id that no language changes."""

WITH_VERSIONS = 10240
"""Windows 10, the first whose VMs tell a configuration version; Windows Server 2012 R2 is 9600."""
FIRST_BUILD = 10565
"""The first of Windows that knows nested virtualization at all."""
WITH_AUTOMATIC = 16299
"""Windows 10 1709, the first that makes checkpoints by itself."""
RELEASED_BUILD = 14393
"""Windows Server 2016; earlier ones want VirtualizationBasedSecurityOptOut."""
AMD_BUILD = 20348
"""Windows Server 2022, the first with nested virtualization on AMD."""
AMD_CLIENT_BUILD = 22000
DEFAULT_MINIMUM, DEFAULT_MAXIMUM = 512 * MIB, 1024 * GIB

FAILED_TO_START = "'{name}' failed to start.\r\n\r\n{why}'{name}' failed to start. (Virtual machine ID {id})"
NO_PLATFORM = (
    "The virtual machine could not be started because this platform does not support nested virtualization."
    "\r\n\r\n"
)
NOT_MODIFIED = (
    "Failed to modify {what}.\r\nCannot modify property.\r\n'{name}' failed to modify {what}. "
    "(Virtual machine ID {id})\r\n{why}"
)
"""The product's words are of several lines."""


class Refused(Exception):
    """The host does not do it.

    Args:
        identifier: the error's, as the product has it: InvalidState, InvalidParameter, OperationFailed …
        message: its words.
    """

    def __init__(self, identifier: str, message: str) -> None:
        super().__init__(f"{identifier}: {message}")
        self.identifier, self.message = identifier, message


@dataclass
class Adapter:
    """A VM's network adapter."""

    name: str = "Network Adapter"
    id: str = field(default_factory=lambda: str(uuid4()).upper())
    spoofing: bool = False


@dataclass
class Checkpoint:
    """Of a VM that ran, with its state saved, unless it is a production checkpoint: then it is Off."""

    name: str
    state: str = "Saved"
    automatic: bool = False


@dataclass
class Guest:
    """What runs in a VM.

    Attributes:
        system: Linux or Windows, or empty where it is not known; ``name`` is what it says of itself.
        user: of a Windows guest, with its password; ``tried`` are the passwords that somebody tried.
        deaf: it takes the order to shut down, and does not.
        slow: seconds until it has shut down.
        locked: somebody is logged in, and has locked the screen.
        listens: the service that PowerShell Direct speaks to runs.
        hangs: it takes the connection, and says nothing.
        role: Hyper-V is installed in it.
        inner: the VM inside runs, wherever its hypervisor does; else nobody has started it.
        other: a part of its answers that a test replaces; see windows.py.
    """

    system: str = "windows"
    name: str = "Windows Server 2022 Datacenter"
    user: str = "Administrator"
    password: str = "guest-secret-6"  # noqa: S105
    tried: list[str] = field(default_factory=list)
    deaf: bool = False
    slow: float = 0.0
    locked: bool = False
    listens: bool = True
    hangs: bool = False
    role: bool = True
    inner: bool = True
    vbs: int = 0
    answer: str | None = None
    other: dict[str, Any] = field(default_factory=dict)


@dataclass
class Machine:
    """One VM.

    Attributes:
        expose: ExposeVirtualizationExtensions; None where the host's build does not say.
        received: with which value of it the running VM was started.
        rolls_back: with dynamic memory, the setting is gone after a start; else the VM does not start.
        fragile: it does not start with nesting.
        broken: it does not start at all.
        group: the state of its cluster's resource, Virtual Machine; empty where it is in no cluster.
        configuration: of its other one, Virtual Machine Configuration, without which the host shows no VM.
        demand: what its guest wants of dynamic memory, in bytes.
        stop_action: what becomes of it when its host shuts down.
        upgradable: its configuration version can be raised here, as it cannot in a cluster of mixed versions.
        boots: how often it was powered on.
        ends: when the guest will have shut down (time.monotonic).
    """

    name: str
    id: UUID = field(default_factory=uuid4)
    state: str = "Off"
    version: str = "10.0"
    generation: int = 2
    expose: bool | None = False
    dynamic: bool = False
    minimum: int = DEFAULT_MINIMUM
    startup: int = 4 * GIB
    maximum: int = DEFAULT_MAXIMUM
    demand: int = 0
    stop_action: str = "Save"
    upgradable: bool = True
    opt_out: bool = False
    processors: int = 2
    notes: str = ""
    adapters: list[Adapter] = field(default_factory=lambda: [Adapter()])
    checkpoints: list[Checkpoint] = field(default_factory=list)
    replication: str = "None"
    services: dict[str, bool] = field(
        default_factory=lambda: dict.fromkeys((SHUTDOWN, KVP, HEARTBEAT, VSS), True)
    )
    group: str = ""
    configuration: str = "Online"
    guest: Guest = field(default_factory=Guest)
    received: bool = False
    rolls_back: bool = True
    fragile: bool = False
    broken: bool = False
    boots: int = 0
    ends: float | None = None

    @property
    def assigned(self) -> int:
        """The memory that it has, in bytes."""
        if self.state not in ("Running", "Paused"):
            return 0
        return min(max(self.startup, self.demand), self.maximum) if self.dynamic else self.startup

    @property
    def role(self) -> str:
        """The state of its cluster's group, by those of its two resources.

        https://learn.microsoft.com/windows/win32/api/clusapi/nf-clusapi-getclustergroupstate
        """
        states = {self.group, self.configuration}
        if len(states) == 1:
            return self.group
        return "Failed" if "Failed" in states else "PartialOnline" if "Online" in states else "Offline"

    @property
    def answers(self) -> bool:
        """Whether its integration services do."""
        return self.state == "Running" and self.guest.listens

    def said(self, words: str, **about: str) -> str:
        """What the product says of it."""
        return words.format(name=self.name, id=str(self.id).upper(), **about)

    def stored(self) -> dict[str, Any]:
        """Its configuration, exactly."""
        passing = {"state", "guest", "received", "rolls_back", "fragile", "broken", "boots", "ends"}
        passing |= {"group", "configuration"}
        return {key: value for key, value in asdict(self).items() if key not in passing}


class Away(NamedTuple):
    """A VM of the cluster's that another node has."""

    name: str
    node: str
    id: UUID = UUID(int=0)


@dataclass
class Host:
    """A Hyper-V host, alone or in a cluster.

    Attributes:
        denied: the user may log in, and is no Hyper-V administrator.
        modules: what is installed of PowerShell's modules.
        service: the Virtual Machine Management service runs.
        restarts: the cluster starts a VM again that was turned off behind its back; seconds until then.
        lists: how often VMs were read that were not named by an id: of many, that takes a while.
        wrongs: what nobody should do to a host.
        log: the cmdlets that changed something, in order.
        processes: the command lines of each PowerShell that runs; those of others are not shown.
    """

    name: str = "HYPERV01"
    build: int = AMD_BUILD
    vendor: str = "AuthenticAMD"
    version: str = "10.0"
    hypervisor: bool | None = True
    vbs: int | None = 0
    cluster: str = ""
    denied: bool = False
    service: bool = True
    modules: set[str] = field(default_factory=lambda: {"Hyper-V", "FailoverClusters", "CimCmdlets"})
    restarts: float | None = None
    machines: list[Machine] = field(default_factory=list)
    elsewhere: list[Away] = field(default_factory=list)
    lists: int = 0
    wrongs: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    turned_off: dict[UUID, float] = field(default_factory=dict)
    jobs: list[Any] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)

    def has_module(self, name: str) -> bool:
        return name.lower() in {each.lower() for each in self.modules}

    def tick(self) -> None:
        """Let happen what is due: guests that have shut down, VMs that the cluster starts again."""
        now = time.monotonic()
        for machine in self.machines:
            if machine.ends is not None and now >= machine.ends:
                machine.ends = None
                self._down(machine)
                if machine.group:
                    machine.group = "Offline"
            due = self.turned_off.get(machine.id)
            if due is not None and now >= due:
                del self.turned_off[machine.id]
                if machine.state == "Off" and machine.group == "Online":
                    self.boot(machine)

    @property
    def registered(self) -> list[Machine]:
        """The VMs that Hyper-V knows: one of a cluster's only while its configuration is online there."""
        return [each for each in self.machines if not each.group or each.configuration == "Online"]

    def find(self, identity: UUID) -> Machine | None:
        return next((each for each in self.registered if each.id == identity), None)

    def must_be_off(self, machine: Machine, what: str) -> None:
        if machine.state != "Off":
            why = "The operation cannot be performed while the object is in its current state."
            raise Refused("InvalidState", machine.said(NOT_MODIFIED, what=what, why=why))

    def set_expose(self, machine: Machine, on: bool) -> None:
        """Set-VMProcessor -ExposeVirtualizationExtensions."""
        what = "device 'Processor'"
        self.must_be_off(machine, what)
        if on and version_of(machine.version) < (8, 0):
            why = f"Virtual machine version {machine.version} does not support nested virtualization."
            raise Refused("NotSupported", machine.said(NOT_MODIFIED, what=what, why=why))
        if on and self.build < RELEASED_BUILD and not machine.opt_out:
            why = "Cannot modify property without enabling VirtualizationBasedSecurityOptOut."
            raise Refused("NotSupported", machine.said(NOT_MODIFIED, what=what, why=why))
        machine.expose = on

    def boot(self, machine: Machine) -> None:
        """From off to running, or not."""
        wants = machine.expose is True
        if wants and not self.nests(machine):
            raise Refused("OperationFailed", machine.said(FAILED_TO_START, why=NO_PLATFORM))
        if machine.broken or (wants and (machine.fragile or (machine.dynamic and not machine.rolls_back))):
            raise Refused("OperationFailed", machine.said(FAILED_TO_START, why=""))
        if wants and machine.dynamic:
            machine.expose = False  # silently
        machine.received = machine.expose is True
        machine.state = "Running"
        machine.boots += 1
        machine.ends = None

    def nests(self, machine: Machine) -> bool:
        """Whether this host can give a VM virtualization extensions."""
        if self.vendor == "AuthenticAMD":
            return self.build >= AMD_BUILD and version_of(machine.version) >= (9, 3)
        return self.build >= FIRST_BUILD and version_of(machine.version) >= (8, 0)

    def _down(self, machine: Machine) -> None:
        machine.state, machine.received, machine.ends = "Off", False, None

    def turn_off(self, machine: Machine) -> None:
        """Cut its power."""
        self._down(machine)
        if machine.group and self.restarts is not None:
            self.turned_off[machine.id] = time.monotonic() + self.restarts

    def shut_down(self, machine: Machine) -> None:
        """Order its guest to shut down."""
        if not machine.guest.deaf:
            machine.ends = time.monotonic() + machine.guest.slow


def version_of(dotted: str) -> tuple[int, int]:
    major, _dot, minor = dotted.partition(".")
    return int(major), int(minor)
