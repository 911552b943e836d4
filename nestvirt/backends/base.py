"""What a hypervisor's module offers: facts that judge themselves, and a backend that reads and writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self, runtime_checkable

from nestvirt.errors import ChangeRejected
from nestvirt.guest.channel import Channel, Examiner
from nestvirt.model import Change, Finding, Goal, Power, Status, Target, Vm

Nesting = Literal["on", "off", "pending", "unknown"]
"""How a VM stands: ``pending`` where what is configured is not what it runs with."""


@dataclass(frozen=True)
class Kind:
    """What a backend's things are, and how to speak of them.

    Attributes:
        thing: VM or host.
        has_guest: whether there is an inside to look into.
        subject: what is stopped and started, with {} for its name.
        cycle: what makes a setting effective, as an order.
        condition: when that is done.
        pending: what is left to do where that was not done, with {} for the name.
        cold: whether a setting can be written only while it is off.
        parallel: on how many of one endpoint may be worked at once, over one connection.
        apart: whether each has a connection of its own, which its name leads to.
    """

    thing: str = "VM"
    has_guest: bool = True
    subject: str = "{}"
    cycle: str = "power-cycle the VM"
    condition: str = "if it runs"
    pending: str = "power-cycle {}: shut it down and start it (a reboot inside the guest is not enough)"
    cold: bool = False
    parallel: int = 8
    apart: bool = False


VM, COLD_VM = Kind(), Kind(cold=True)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0


def moments(deadline: float) -> Iterator[None]:
    """Moments to look at, at growing intervals, the last one at the deadline."""
    pause = FIRST_PAUSE
    while True:
        yield
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def changed_meanwhile(what: str, change: Change, present: str | None) -> ChangeRejected:
    """What is said where a setting is not any more what a plan was made for."""
    return ChangeRejected(
        f"{what} was changed by somebody else a moment ago",
        evidence=f"it was {change.before!r}, and is {present!r}",
        cure="run this again to plan anew",
    )


class Place(NamedTuple):
    """The host of a VM.

    Attributes:
        name: what it calls itself; None where that is not told.
        address: ``local``, or ``ssh://[USER@]HOST[:PORT]``; None where the connection is no login there.
        certain: whether the address is known to lead to that host, and not to another of its cluster.
    """

    name: str | None
    address: str | None
    certain: bool = False


class Facts(Protocol):
    """All that was read about one VM, frozen, with no way back to the hypervisor: so judging is pure."""

    @property
    def power(self) -> Power:
        """The VM's power state when the facts were read."""

    @property
    def busy(self) -> str:
        """What stands against a power cycle that nothing can be done about now; empty where nothing does."""

    @property
    def waiting(self) -> str:
        """What an interrupted run has shut down beside, and is still off; empty for nothing."""

    def has(self, change: Change) -> bool:
        """Whether what runs has already what the change writes, so that no power cycle is needed for it."""

    def value(self, setting: str) -> str | None:
        """The configured value of a setting, in the hypervisor's own words; None where it is not set."""

    def judge(self, goal: Goal) -> Sequence[Finding]:
        """What these facts mean for the goal, in chain order."""


@dataclass(frozen=True)
class Listed:
    """One VM of a listing.

    Attributes:
        vm: as ``find`` gives it, so that it can be read at once.
        name: what ``find`` finds this one by, and no other.
        nesting: what its configuration gives it, and whether it runs with that.
        labels: what patterns ask for beside the name, such as ``tag``, each with all of its values.
        note: what to know of it, for people; empty for nothing.
    """

    vm: Vm
    name: str
    power: Power
    nesting: Nesting
    labels: Mapping[str, tuple[str, ...]]
    note: str = ""


def nesting_of(judge: Callable[[Goal], Sequence[Finding]]) -> Nesting:
    """How a VM stands, from what its facts say of its CPU, of which a listing may read no more."""
    on, off = ({f.check: f.status for f in judge(Goal(nested=nested))} for nested in (True, False))
    if Status.FAIL in (on.get("vm-cpu-pending"), off.get("vm-cpu-pending")):
        return "pending"
    known: dict[Status | None, Nesting] = {Status.PASS: "on", Status.FAIL: "off"}
    return known.get(on.get("vm-cpu"), "unknown")


@runtime_checkable
class Listing(Protocol):
    """A backend that can tell all of its VMs, with as few questions as its hypervisor allows."""

    def listed(self) -> Iterator[Listed]:
        """Every VM that this user may see. Changes nothing.

        Raises:
            ConnectionFailed: no answer.
            AccessDenied: it answered and refused.
        """


@runtime_checkable
class Foresighted(Protocol):
    """A backend that reads many VMs at once, where each is about to be read."""

    def foresee(self, vms: Sequence[Vm]) -> None:
        """Read all of them, so that the next ``read`` of each asks nobody. Changes nothing."""

    def forget(self, vm: Vm) -> None:
        """Keep no more of a VM than it takes to read it again."""


@runtime_checkable
class Approximate(Protocol):
    """Facts of a hypervisor that cannot put every value back exactly."""

    def nearest(self, setting: str) -> str:
        """What a setting does instead of what ``value`` says of it; empty where that is exact."""


@runtime_checkable
class Lingering(Protocol):
    """A backend whose hypervisor goes on with what a process has begun that is dead by now."""

    def at_work(self, vm: Vm) -> str:
        """What the hypervisor does to the VM at this moment, whoever asked for it; empty for nothing."""


@runtime_checkable
class Guarded(Protocol):
    """Facts that know beforehand which rights a very change takes."""

    def forbids(self, changes: Sequence[Change]) -> Sequence[Finding]:
        """The rights that this user lacks for them, as ``judge`` says it of the goal's own changes."""


class Backend(Protocol):
    """Reads and writes one hypervisor. It decides nothing: the engine is the only place with an order."""

    kind: Kind
    """What its things are: VM, or another one."""

    endpoint: Mapping[str, str]
    """What connects to the same hypervisor again (an address, never a secret); kept in the journal."""

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """Open a connection.

        Args:
            target: whose backend and profile choose the hypervisor.
            endpoint: resolved settings by name, such as ``uri``.

        Raises:
            MissingExtra: the vendor's Python package is not installed.
            ConnectionFailed: no answer.
            AccessDenied: it answered and refused.
        """

    def find(self, name: str) -> Vm:
        """The one VM of that name or identity.

        Raises:
            TargetError: there is none (the evidence lists what there is), or more than one.
        """

    def host_of(self, vm: Vm) -> Place:
        """Where the VM is, and how to log in there; see backends/host/with_vm.py."""

    def read(self, vm: Vm) -> Facts:
        """Read all facts about a VM. Changes nothing."""

    def apply(self, vm: Vm, change: Change) -> None:
        """Write one setting to the VM's stored configuration, and nothing else.

        Raises:
            ChangeRejected: refused, or the present value is no longer ``change.before``; nothing was written.
        """

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """Ask the guest to shut down, and return when the VM is off.

        Raises:
            PowerError: it was still on after ``timeout`` seconds.
        """

    def power_off(self, vm: Vm) -> None:
        """Cut the VM's power, and return when it is off."""

    def start(self, vm: Vm, *, timeout: float) -> None:
        """Start the VM, and return when the hypervisor calls it running.

        Raises:
            PowerError: it did not start; the evidence has the hypervisor's own words.
        """

    def channel(self, vm: Vm) -> Channel | Examiner | None:
        """The hypervisor's own way into the guest, or None where it has none for this VM."""

    def close(self) -> None:
        """Close the connection."""
