"""Hyper-V over WinRM: reads a VM's settings by PowerShell and writes its nesting, nothing else.

Cmdlets: https://learn.microsoft.com/powershell/module/hyper-v/; the library is pywinrm.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

from nestvirt.backends.base import COLD_VM, Listed, Place, changed_meanwhile
from nestvirt.backends.hyperv import direct, finding, lingering, listing, refusals, scripts
from nestvirt.backends.hyperv.facts import CHECKS, VmFacts
from nestvirt.backends.hyperv.faults import NoAnswer, ScriptFailed
from nestvirt.backends.hyperv.power import Machine
from nestvirt.backends.hyperv.reading import facts_of
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.backends.hyperv.setting import Order
from nestvirt.backends.hyperv.situation import SHUTDOWN_SERVICE
from nestvirt.errors import ChangeRejected, SettingsError
from nestvirt.guest.channel import Channel, Examiner
from nestvirt.model import Change, Target, Vm
from nestvirt.printable import printable

__all__ = ["CHECKS", "HyperVBackend"]

PATIENCE = 60.0
"""Seconds for a script that reads, or writes one setting."""

FRESH = 10.0
"""Seconds for which facts that came with an answer stand for a reading of their own."""

SECRETS = ("password", "guest_password")
_NOT_KEPT = (*SECRETS, "port", "plain_http")  # the address has them


class _Fresh(NamedTuple):
    at: float
    facts: VmFacts


class HyperVBackend:
    """One session with a Hyper-V host; see Backend."""

    kind = replace(COLD_VM, parallel=1)  # a shell runs one script after another

    def __init__(self, session: HyperVSession, settings: Mapping[str, str]) -> None:
        self._session = session
        self._settings = settings
        self._guest_user = settings.get("guest_username", "") if settings.get("guest_password") else ""
        self._last: dict[str, VmFacts] = {}
        self._fresh: dict[str, _Fresh] = {}  # what came with another answer, for the next reading
        kept = {name: value for name, value in settings.items() if name not in _NOT_KEPT}
        self.endpoint: Mapping[str, str] = {**kept, "endpoint": str(session.address)}

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """Open a shell where ``endpoint["endpoint"]`` says; see Backend."""
        if not endpoint.get("endpoint"):
            raise SettingsError(
                "nothing says where the Hyper-V host is",
                evidence="there is no endpoint in the options, the environment or the configuration file",
                cure="set NESTVIRT_HYPERV_ENDPOINT or HYPERV_HOST, or give --connect https://host.example.com",
            )
        session = HyperVSession(endpoint)
        session.open()
        return cls(session, endpoint)

    def find(self, name: str) -> Vm:
        """By name, GUID, or ``GUID@HOST`` as records write it; see Backend."""
        wanted = finding.Wanted.parse(name)
        try:
            answer = self._session.run("find", wanted.data, timeout=PATIENCE)
        except ScriptFailed as error:
            raise refusals.unexpected(error, name) from error
        found, cluster = finding.one(wanted, answer)
        facts = facts_of(found, self._guest_user)
        vm = Vm(f"{facts.id}@{finding.place_of(wanted, facts, cluster)}", facts.name)
        self._keep(vm, facts)
        return vm

    def listed(self) -> Iterator[Listed]:
        """All VMs of the host, by one script; see Listing."""
        try:
            answer = self._session.run("list", {}, timeout=PATIENCE)
        except ScriptFailed as error:
            raise refusals.unexpected(error, "the VMs") from error
        return listing.listed(answer)

    def host_of(self, vm: Vm) -> Place:
        """The Hyper-V host; see Backend. It is no machine that nestvirt changes."""
        return Place(self._known(vm).host.name, None)

    def at_work(self, vm: Vm) -> str:
        """What the host goes on with: a dead run's script, or a change of the VM's state; see Lingering."""
        self._fresh.pop(vm.id, None)  # it may have been read before the last of it ended
        return lingering.told(_guid(vm), self._run(vm, "at_work", {"id": _guid(vm), "mark": scripts.MARK}))

    def read(self, vm: Vm) -> VmFacts:
        """All of it by one script, or what has just come with another one's answer; see Backend."""
        fresh = self._fresh.pop(vm.id, None)
        if fresh is None or time.monotonic() - fresh.at > FRESH:
            answer = self._run(vm, "read", {"id": _guid(vm)})
            self._keep(vm, facts_of(answer.get("facts"), self._guest_user))
            self._fresh.pop(vm.id)
        return self._last[vm.id]

    def _known(self, vm: Vm) -> VmFacts:
        return self._last.get(vm.id) or self.read(vm)

    def _keep(self, vm: Vm, facts: VmFacts) -> None:
        self._last[vm.id] = facts
        self._fresh[vm.id] = _Fresh(time.monotonic(), facts)

    def _run(self, vm: Vm, phase: str, data: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._session.run(phase, data, timeout=PATIENCE)
        except ScriptFailed as error:
            raise refusals.unexpected(error, vm.name) from error

    def apply(self, vm: Vm, change: Change) -> None:
        """Write by the setting's own cmdlet, in a script that looks at the former value first; see Backend.

        Raises:
            NoAnswer: a write was sent, and it could not be found out what has become of it.
        """
        order = _order(vm, change)
        data = {
            "id": _guid(vm),
            "setting": change.setting,
            "before": change.before,
            "value": order.value,
            "adapter": order.adapter,
        }
        self._fresh.pop(vm.id, None)
        try:
            answer = self._session.run("apply", data, timeout=PATIENCE)
        except NoAnswer:
            if self.read(vm).value(change.setting) != change.after:
                raise
            return  # what got lost was an answer
        except ScriptFailed as error:
            refused = refusals.rejected(vm, change, error)
            present = self.read(vm).value(change.setting)
            if present == change.after:
                return  # what failed was the reading after it
            if present != change.before and isinstance(refused, ChangeRejected):
                raise changed_meanwhile(f"{change.setting} of {vm.name}", change, present) from error
            raise refused from error
        facts = facts_of(answer.get("facts"), self._guest_user)
        if answer.get("written") is not True:
            present = facts.value(change.setting)
            raise changed_meanwhile(f"{change.setting} of {printable(vm.name, 100)}", change, present)
        if answer.get("warned") and facts.value(change.setting) == change.before:
            raise refusals.left(vm, change, answer["warned"])
        self._keep(vm, facts)

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """By the integration services; see Backend."""
        self._machine(vm).shut_down(timeout)

    def power_off(self, vm: Vm) -> None:
        """By Stop-VM -TurnOff; see Backend."""
        self._machine(vm).cut()

    def start(self, vm: Vm, *, timeout: float) -> None:
        """By Start-VM, or by the VM's cluster; see Backend."""
        found = self._machine(vm).start(timeout)
        if found is not None:
            self._keep(vm, facts_of(found, self._guest_user))

    def _machine(self, vm: Vm) -> Machine:
        service = self._known(vm).services.get(SHUTDOWN_SERVICE)
        self._fresh.pop(vm.id, None)

        def run(phase: str, data: dict[str, Any], timeout: float) -> dict[str, Any]:
            return self._session.run(phase, data, timeout=timeout)

        return Machine(run, _guid(vm), vm.name, askable=service is not None and service.enabled)

    def channel(self, vm: Vm) -> Channel | Examiner | None:
        """PowerShell Direct, where there is a user of a Windows guest to log in as; see Backend."""
        return direct.way_in(self._session, _guid(vm), self._known(vm).system, self._settings)

    def close(self) -> None:
        """Close the shell, and the connection."""
        self._session.close()


def _guid(vm: Vm) -> str:
    return vm.id.partition("@")[0]


def _order(vm: Vm, change: Change) -> Order:
    try:
        if not re.fullmatch(r"[\w:-]{1,100}", change.setting):
            raise ValueError(f"not a setting: {change.setting!r}")
        return Order.parse(change.setting, change.after)
    except ValueError as error:
        raise ChangeRejected(
            f"{printable(change.setting, 100)} of {printable(vm.name, 100)} has no such value",
            evidence=printable(str(error), 200),
            cure="write true or false; On or Off for MAC address spoofing",
        ) from error
