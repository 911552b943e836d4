"""A VM together with its host: both are changed in one run, which one undo takes back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from nestvirt.backends import AUTO
from nestvirt.backends.base import Backend, Facts, Kind, Place
from nestvirt.backends.host import HostBackend, HostFacts
from nestvirt.backends.host.facts import out_of_the_way
from nestvirt.errors import TargetError
from nestvirt.guest.channel import Channel, Examiner
from nestvirt.model import Change, Finding, Goal, Layer, Power, Status, Target, Vm
from nestvirt.printable import printable

_HOSTS_OWN = ("host-cpu", "host-nested")
"""What a VM's backend tells of the host from afar; the host itself tells it better."""


@dataclass(frozen=True)
class BothFacts:
    """The facts of a VM and of its host; see Facts.

    Attributes:
        own: what the host's own tools know the VM by.
    """

    vm: Facts
    host: HostFacts
    own: frozenset[str]
    busy: str = ""

    @property
    def power(self) -> Power:
        """The VM's; see Facts."""
        return self.vm.power

    @property
    def waiting(self) -> str:
        """See Facts."""
        return self.host.waiting

    def has(self, change: Change) -> bool:
        """See Facts. The module cannot be loaded anew while the VM runs."""
        return (self.host if change.setting.startswith("/") else self.vm).has(change)

    def value(self, setting: str) -> str | None:
        """See Facts."""
        return self.host.value(setting) if setting.startswith("/") else self.vm.value(setting)

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """The host's links of the chain, then the VM's. Only nesting is wanted of a host; see Facts."""
        of_vm = tuple(self.vm.judge(goal))
        cycled = tuple(user.key for user in self.host.users if user.identity in self.own and user.key)
        judging = replace(self.host, drain=(*self.host.drain, *cycled))
        if not goal.nested:  # an undo: the module is loaded anew for it
            concern = ("host-module", "host-users")
            against = (f for f in judging.judge(goal) if f.check in concern)
            return (*(self._with_module(judging, finding) for finding in against), *of_vm)
        of_host = tuple(self._with_module(judging, finding) for finding in judging.judge(goal))
        told = {finding.check for finding in of_host} | set(_HOSTS_OWN)
        return of_host + tuple(f for f in of_vm if f.layer is not Layer.HOST or f.check not in told)

    def _with_module(self, judging: HostFacts, finding: Finding) -> Finding:
        """Beside the VM's, the module's state is a setting like others: the VM's power is no matter of it."""
        if finding.check in ("host-nested", "host-module") and finding.fix is not None:
            parameter = judging.parameter
            return replace(
                finding, fix=Change(parameter, judging.value(parameter), judging.loaded_with(on=True))
            )
        if finding.check == "host-users" and judging.busy:
            cure = f"{out_of_the_way(judging)}; or, for the host's next reboot: nestvirt enable --host there"
            return replace(finding, status=Status.FAIL, cure=cure)
        return finding


class _Below(NamedTuple):
    """A host, and how it is worked on."""

    backend: HostBackend
    host: Vm


class WithHost:
    """The VM's backend and its host's; see Backend.

    Args:
        vms: the VM's backend.
        endpoint: ``with_host`` (an address, or AUTO), ``host_id``, ``host_ssh_config``, ``drain`` count.
    """

    def __init__(self, vms: Backend, endpoint: Mapping[str, str]) -> None:
        self._vms = vms
        self._address = endpoint["with_host"]
        self._host_id = endpoint.get("host_id", "")
        self._settings = {
            "ssh_config": endpoint.get("host_ssh_config", ""),
            "drain": endpoint.get("drain", ""),
        }
        self._below: dict[str, _Below] = {}  # by the VM's id
        self.kind: Kind = vms.kind
        self.endpoint: Mapping[str, str] = vms.endpoint

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """Not by itself: backends.connect puts it around another; see Backend."""
        raise NotImplementedError

    def find(self, name: str) -> Vm:
        """Find the VM, and log in to its host; see Backend."""
        vm = self._vms.find(name)
        place = self._vms.host_of(vm)
        address = (place.address or "") if self._address == AUTO else self._address
        if not address:
            raise TargetError(
                f"nestvirt does not know how to log in to the host of {vm.name}",
                evidence=f"the VM is on {place.name or 'a host'}, and the connection is no login there",
                cure=f"say how: --with-host ssh://root@{place.name or 'HOST'}",
            )
        backend = HostBackend.connect(Target("host", address), self._settings)
        with contextlib.ExitStack() as undone:
            undone.callback(backend.close)
            host = backend.find(self._host_id or address)
            _refuse_another(vm, place, host, address)
            undone.pop_all()
        self._below[vm.id] = _Below(backend, host)
        below = {
            "with_host": address,
            "host_id": host.id,
            "host_ssh_config": self._settings["ssh_config"],
            "drain": backend.endpoint["drain"],
        }
        self.endpoint = {**self._vms.endpoint, **{name: value for name, value in below.items() if value}}
        return vm

    def host_of(self, vm: Vm) -> Place:
        """See Backend."""
        return self._vms.host_of(vm)

    def read(self, vm: Vm) -> BothFacts:
        """See Backend."""
        below = self._below[vm.id]
        own = frozenset((vm.id, vm.id.partition("@")[0]))
        return BothFacts(self._vms.read(vm), below.backend.read(below.host), own)

    def apply(self, vm: Vm, change: Change) -> None:
        """Write to the VM, or to its host; see Backend."""
        if change.setting.startswith("/"):
            below = self._below[vm.id]
            below.backend.apply(below.host, change)
        else:
            self._vms.apply(vm, change)

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """See Backend."""
        self._vms.stop(vm, timeout=timeout)

    def power_off(self, vm: Vm) -> None:
        """See Backend."""
        self._vms.power_off(vm)

    def start(self, vm: Vm, *, timeout: float) -> None:
        """The VM, and what else was shut down for it and is still off; see Backend."""
        self._vms.start(vm, timeout=timeout)
        self._below[vm.id].backend.start_drained()

    def channel(self, vm: Vm) -> Channel | Examiner | None:
        """See Backend."""
        return self._vms.channel(vm)

    def close(self) -> None:
        """See Backend."""
        self._vms.close()
        for below in self._below.values():
            below.backend.close()


def _refuse_another(vm: Vm, place: Place, host: Vm, address: str) -> None:
    """A host that is not the VM's own would be changed for nothing."""
    certain = place.certain and address == place.address
    if place.name and not certain and _short(place.name) != _short(host.name):
        raise TargetError(
            f"{vm.name} is not on the host {host.name}",
            evidence=f"the VM is on {place.name}, and {printable(address, 100)} leads to {host.name}",
            cure=f"name its own host: --with-host ssh://root@{place.name}",
        )


def _short(name: str) -> str:
    return name.partition(".")[0].lower()
