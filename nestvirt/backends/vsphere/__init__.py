"""vSphere, vCenter or a single ESXi host: reads a VM's configuration and writes its nesting, nothing else.

API: https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/; the library is pyvmomi.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from nestvirt.backends.base import COLD_VM, Listed, Place, changed_meanwhile, moments
from nestvirt.backends.vsphere.address import Address
from nestvirt.backends.vsphere.facts import CHECKS, VmFacts
from nestvirt.backends.vsphere.faults import GONE, NoAnswer, Partly, Refused, refused
from nestvirt.backends.vsphere.setting import KEY, SETTING, Nesting
from nestvirt.errors import ChangeRejected, Error, MissingExtra, SettingsError, TargetError
from nestvirt.guest.channel import Channel
from nestvirt.model import HARDWARE_VERSION, Change, Target, Vm
from nestvirt.printable import printable

if TYPE_CHECKING:
    from nestvirt.backends.vsphere.api import Api
    from nestvirt.backends.vsphere.inventory import VmState
    from nestvirt.backends.vsphere.listing import Surroundings
    from nestvirt.backends.vsphere.power import Machine
    from nestvirt.backends.vsphere.reading import Found
    from nestvirt.backends.vsphere.tasks import Tasks

__all__ = ["CHECKS", "VsphereBackend"]

PATIENCE = 60.0
"""Seconds in which a write is tried again, and its task waited for."""

SECRETS = ("password", "guest_password", "guest_login")
_PASSING = ("TaskInProgress", "ConcurrentAccess")


class VsphereBackend:
    """One session with a vCenter or an ESXi host; see Backend."""

    kind = COLD_VM

    def __init__(self, api: Api, settings: Mapping[str, str]) -> None:
        from nestvirt.backends.vsphere.inventory import Inventory

        self._api = api
        self._inventory = Inventory(api)
        self._guest = guest_of(settings)
        self._objects: dict[str, Any] = {}
        self._found: dict[str, Found] = {}
        self._fresh: dict[str, Found] = {}  # what the first find has read, for the first reading of facts
        self._tasks: dict[str, Tasks] = {}
        self._datacenters: dict[str, Any] = {}
        self._unset: set[str] = set()
        self._around: Surroundings | None = None  # for what is read ahead only
        kept = {name: value for name, value in settings.items() if name not in (*SECRETS, "port")}
        self.endpoint: Mapping[str, str] = {**kept, "endpoint": str(api.address)}

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """Log in where ``endpoint["endpoint"]`` says; see Backend."""
        if not endpoint.get("endpoint"):
            raise SettingsError(
                "nothing says where vSphere is",
                evidence="there is no endpoint in the options, the environment or the configuration file",
                cure="set VSPHERE_SERVER or GOVC_URL, or give --connect https://vcenter.example.com",
            )
        address = Address.parse(endpoint["endpoint"], endpoint.get("port"))
        try:
            from nestvirt.backends.vsphere.api import Api
        except ImportError as error:
            raise MissingExtra(
                "the Python package for vSphere is not installed",
                evidence=str(error),
                cure="pip install pyvmomi",
            ) from error
        return cls(Api(address, endpoint), endpoint)

    def find(self, name: str) -> Vm:
        """By name, inventory path, UUID, moref, or ``UUID@SERVER#MOREF`` as records write it; see Backend."""
        identity, _, moref = name.rpartition("#")
        uuid, _, place = identity.rpartition("@")
        entity = self._inventory.recorded(uuid, moref) if place == self._place else None
        entity = entity if entity is not None else self._inventory.find(name)
        found = self._read(entity)
        if found is None:
            raise _gone(name)
        vm = Vm(f"{found.uuid or _id(entity)}@{self._place}#{_id(entity)}", found.facts.name)
        if vm.id not in self._objects:  # else a run may be at work on it, under another name
            self._fresh[vm.id] = found
        self._objects[vm.id] = entity
        self._datacenters[vm.id] = found.datacenter
        return vm

    @property
    def _place(self) -> str:
        """What the VM's identity belongs to: this vCenter, whatever it is reached by."""
        return str(self._api.content.about.instanceUuid or self._api.address)

    def host_of(self, vm: Vm) -> Place:
        """The ESXi host; see Backend. It is no machine that nestvirt logs in to."""
        host = self._last(vm).facts.host
        return Place(host.name if host is not None else None, None)

    def states(self) -> Iterator[VmState]:
        """All VMs that this user may see, with their states: one query, in pages."""
        return self._inventory.states()

    def listed(self) -> Iterator[Listed]:
        """All VMs; see Listing."""
        from nestvirt.backends.vsphere.listing import listed

        for entity, datacenter, one in listed(self._api, self._place):
            self._objects[one.vm.id], self._datacenters[one.vm.id] = entity, datacenter
            yield one

    def foresee(self, vms: Sequence[Vm]) -> None:
        """Of VMs that were listed; see Foresighted. What is not there any more is left to ``read``."""
        from nestvirt.backends.vsphere.listing import Surroundings, facts_of

        ids = {_id(self._objects[vm.id]): vm.id for vm in vms if vm.id in self._objects}
        if self._around is None:
            self._around = Surroundings(self._api, hosts=True)
        user = self._guest[0] if self._guest[1] else ""
        for moref, found in facts_of(self._api, [self._objects[i] for i in ids.values()], user, self._around):
            self._fresh[ids[moref]] = found

    def forget(self, vm: Vm) -> None:
        """See Foresighted; what may still be going on is not forgotten."""
        self._fresh.pop(vm.id, None)
        self._found.pop(vm.id, None)

    def at_work(self, vm: Vm) -> str:
        """The tasks of the VM that have not ended, whoever began them; see Lingering."""
        self._fresh.pop(vm.id, None)  # it may have been read before the last of them ended
        tasks = self._tasks_of(vm)
        try:
            return tasks.at_work()
        except Refused as error:
            if error.name != GONE:
                raise
            if self._read(self._objects[vm.id]) is None:
                raise _gone(vm.name) from error
            return tasks.at_work()  # what went was a task

    def read(self, vm: Vm) -> VmFacts:
        """All of it in one call, when nothing that was begun can change it any more; see Backend.

        Raises:
            NoAnswer: a task of ours goes on, or nobody answers.
        """
        self._tasks_of(vm).settle()
        found = self._fresh.pop(vm.id, None) or self._read(self._objects[vm.id], vm)
        if found is None:
            raise _gone(vm.name)
        self._found[vm.id] = found
        return found.facts

    def _read(self, entity: Any, vm: Vm | None = None) -> Found | None:
        from nestvirt.backends.vsphere.reading import read

        try:
            found = read(self._api, entity, self._guest[0] if self._guest[1] else "")
        except Refused as error:
            if error.name != GONE:
                raise
            return None
        unset = vm is not None and vm.id in self._unset
        if found is not None and unset and found.facts.nesting.field is False:
            nesting = replace(found.facts.nesting, field=None)  # it is as near to unset as this server goes
            return found._replace(facts=replace(found.facts, nesting=nesting, kept_false=True))
        return found

    def _tasks_of(self, vm: Vm) -> Tasks:
        from nestvirt.backends.vsphere.tasks import Tasks

        if vm.id not in self._tasks:
            by_vcenter = self._api.content.about.apiType == "VirtualCenter"
            datacenter = self._datacenters[vm.id] if by_vcenter else None
            self._tasks[vm.id] = Tasks(self._api, self._objects[vm.id], datacenter)
        return self._tasks[vm.id]

    def _last(self, vm: Vm) -> Found:
        if vm.id not in self._found:
            self.read(vm)
        return self._found[vm.id]

    def apply(self, vm: Vm, change: Change) -> None:
        """Write by ReconfigVM_Task, with the changeVersion of what was read; see Backend.

        Raises:
            NoAnswer: a write was sent, and it could not be found out what has become of it; or was done in
                part (Partly).
        """
        if change.setting == SETTING:
            _parsed(vm, change)
        sent, evidence = False, ""
        for _ in moments(time.monotonic() + PATIENCE):
            present = self._last(vm).facts.value(change.setting)
            if present != change.before and not (sent and _halfway(change, present)):
                raise changed_meanwhile(f"{change.setting} of {vm.name}", change, present)
            try:
                self._write(vm, replace(change, before=present))
                return
            except Partly:
                raise
            except NoAnswer as error:
                sent, evidence = True, error.evidence
                if self.read(vm).value(change.setting) == change.after:
                    return  # what got lost was an answer
            except Refused as error:
                evidence = error.evidence
                if error.name not in _PASSING:
                    raise self._final(vm, change, error, sent=sent) from error
                self.read(vm)
        failure = NoAnswer if sent else ChangeRejected
        raise failure(
            f"vSphere did not take {change.setting} of {vm.name} within {PATIENCE:.0f} s",
            evidence=evidence,
            cure="see in the vSphere Client which task works on the VM; then run this again",
        )

    def _final(self, vm: Vm, change: Change, error: Refused, *, sent: bool) -> Error:
        """What a refusal amounts to: where a part was written before, there is something to put back."""
        if sent and self.read(vm).value(change.setting) != change.before:
            return Partly(error.message, evidence=error.evidence, cure=error.cure)
        return _rejected(vm, change, error)

    def _write(self, vm: Vm, change: Change) -> None:
        if change.setting == HARDWARE_VERSION:
            entity = self._objects[vm.id]
            self._task(vm, "UpgradeVM_Task", partial(entity.UpgradeVM_Task, change.after))
            return
        before, after = _parsed(vm, change)
        keys = {after.name: after.value} if after.name is not None else {}
        if before.field is None or after.field is not None:
            self._unset.discard(vm.id)
            gone = {before.name: ""} if before.name is not None and before.name != after.name else {}
            self._reconfigure(vm, after.field, {**gone, **keys})
            return
        # A property cannot be written as not set: but the line that it stands for can be taken out.
        self._reconfigure(vm, None, {before.name or KEY: ""})
        self._unset.add(vm.id)
        try:
            left = self.read(vm).nesting.field
            if left or keys:
                self._reconfigure(vm, False if left else None, keys)
        except Refused as error:
            failure = NoAnswer if error.name in _PASSING else Partly
            raise failure(error.message, evidence=error.evidence, cure=error.cure) from error

    def _reconfigure(self, vm: Vm, field: bool | None, keys: Mapping[str, str]) -> None:
        """Write the property, where it is to be set, and keys of extraConfig; an empty value removes one."""
        from pyVmomi import vim

        option: Any = vim.option.OptionValue
        spec: Any = vim.vm.ConfigSpec(
            changeVersion=self._last(vm).facts.change_version or None,
            extraConfig=[option(key=key, value=value) for key, value in keys.items()],
        )
        spec.nestedHVEnabled = field
        self._task(vm, "ReconfigVM_Task", partial(self._objects[vm.id].ReconfigVM_Task, spec))

    def _task(self, vm: Vm, request: str, ask: Any) -> None:
        """Have it done; what was read before counts no more."""
        tasks = self._tasks_of(vm)
        self._found.pop(vm.id, None)
        end = tasks.end(tasks.begin(request, ask), time.monotonic() + PATIENCE)
        if end is None:
            raise NoAnswer(
                f"{request} did not end within {PATIENCE:.0f} s", evidence=vm.name, cure="run this again"
            )
        if end.fault is not None:
            raise refused(request, end.fault)

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """By VMware Tools; see Backend."""
        self._machine(vm).shut_down(timeout)

    def power_off(self, vm: Vm) -> None:
        """By PowerOffVM_Task; see Backend."""
        self._machine(vm).cut()

    def start(self, vm: Vm, *, timeout: float) -> None:
        """By PowerOnMultiVM_Task, for DRS's sake, or on an ESXi host by PowerOnVM_Task; see Backend."""
        self._machine(vm).start(timeout)

    def _machine(self, vm: Vm) -> Machine:
        from nestvirt.backends.vsphere.power import Machine

        tasks = self._tasks_of(vm)
        return Machine(self._api, self._objects[vm.id], vm.name, tasks)

    def channel(self, vm: Vm) -> Channel | None:
        """Guest operations, where there is a user of the guest to log in as; see Backend."""
        facts = self._last(vm).facts
        user, password = self._guest
        if not (user and password) or facts.windows:
            return None
        from nestvirt.backends.vsphere.guestops import GuestChannel

        thumbprint = facts.host.thumbprint if facts.host is not None else None
        return GuestChannel(self._api, self._objects[vm.id], user, password, thumbprint)

    def close(self) -> None:
        """Log out, and close the connection."""
        self._api.close()


def guest_of(settings: Mapping[str, str]) -> tuple[str, str]:
    """User and password of the guest: govc's are a pair, and no user gets the password of another."""
    user, password = settings.get("guest_username", ""), settings.get("guest_password", "")
    login_user, _, login_password = settings.get("guest_login", "").partition(":")
    if not user and not password:
        return login_user, login_password
    return (user, login_password) if not password and user == login_user else (user, password)


def _id(entity: Any) -> str:
    return str(entity._GetMoId())


def _parsed(vm: Vm, change: Change) -> tuple[Nesting, Nesting]:
    try:
        return Nesting.parse(change.before), Nesting.parse(change.after)
    except ValueError as error:
        raise ChangeRejected(
            f"{change.setting} of {vm.name} has no such value",
            evidence=printable(str(error), 200),
            cure="write true or false",
        ) from error


def _halfway(change: Change, present: str | None) -> bool:
    """Whether it is what our own first task leaves of two."""
    if change.setting != SETTING:
        return False
    before, after = Nesting.parse(change.before), Nesting.parse(change.after)
    return before.field is not None and after.field is None and Nesting.parse(present).name is None


def _gone(name: str) -> TargetError:
    return TargetError(
        f"the VM {printable(name, 100)} is not there any more",
        evidence="vSphere shows no such object",
        cure="see whether it was removed or registered anew; then name it again",
    )


def _rejected(vm: Vm, change: Change, error: Refused) -> ChangeRejected:
    cures = {
        "InvalidPowerState": "shut the VM down first: vSphere takes this change only while it is off",
        "NotSupported": "see host-nested-hv and vm-hardware-version: host or version cannot do it",
    }
    return ChangeRejected(
        f"vSphere refused {change.setting} of {vm.name}",
        evidence=error.evidence,
        cure=f"{cures.get(error.name, error.cure)}; nothing was written",
    )
