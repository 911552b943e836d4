"""Everything about one VM, its host and the host's cluster in one call of the PropertyCollector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pyVmomi import vim, vmodl

from nestvirt.backends.vsphere.api import Api
from nestvirt.backends.vsphere.facts import VmFacts
from nestvirt.backends.vsphere.setting import KEY, Nesting
from nestvirt.backends.vsphere.situation import POWERS, Host
from nestvirt.model import Power
from nestvirt.printable import printable

_QUERY: Any = vmodl.query.PropertyCollector

OF_VM = [
    "name",
    "effectiveRole",
    "capability.nestedHVSupported",
    "config.instanceUuid",
    "config.template",
    "config.version",
    "config.changeVersion",
    "config.nestedHVEnabled",
    "config.extraConfig",
    "config.flags",
    "config.guestId",
    "config.hardware.device",
    "guest.toolsRunningStatus",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.faultToleranceState",
    "runtime.host",
    "runtime.question",
    "runtime.featureRequirement",
    "runtime.bootTime",
    "snapshot",
]
OF_HOST = [
    "name",
    "capability.nestedHVSupported",
    "runtime.connectionState",
    "runtime.inMaintenanceMode",
    "summary.currentEVCModeKey",
    "summary.config.sslThumbprint",
]


def properties(kind: Any, paths: list[str]) -> Any:
    """What to read of each object of a type."""
    return _QUERY.PropertySpec(type=kind, pathSet=paths)


def step(kind: Any, path: str, *then: Any, name: str | None = None) -> Any:
    """From an object of a type to those that a property of it names, and further."""
    return _QUERY.TraversalSpec(name=name, type=kind, path=path, skip=False, selectSet=list(then))


def selection(start: Any, steps: list[Any], *what: Any) -> Any:
    """A filter spec: from an object, along steps, read this."""
    return _QUERY.FilterSpec(objectSet=[_QUERY.ObjectSpec(obj=start, selectSet=steps)], propSet=list(what))


def selection_of(objects: list[Any], *what: Any) -> Any:
    """A filter spec: of each of these, read this."""
    return _QUERY.FilterSpec(
        objectSet=[_QUERY.ObjectSpec(obj=found) for found in objects], propSet=list(what)
    )


def upwards() -> list[Any]:
    """From an entity to its folders, its datacenter and the root."""
    again = _QUERY.SelectionSpec(name="up")
    return [
        step(vim.ManagedEntity, "parent", again, name="up"),
        step(vim.VirtualMachine, "parentVApp", again),
    ]


class Found(NamedTuple):
    """One VM as it was read.

    Attributes:
        uuid: its instance UUID; empty where it has no configuration.
        datacenter: which starts it, on a vCenter; None where that may not be seen.
    """

    facts: VmFacts
    uuid: str
    datacenter: Any


def read(api: Api, vm: Any, guest_user: str) -> Found | None:
    """Read all facts about a VM; None where vSphere shows no such VM any more."""
    members = step(vim.ComputeResource, "host")
    hosts = step(vim.VirtualMachine, "runtime.host", step(vim.HostSystem, "parent", members))
    specs = [
        selection(
            vm,
            [hosts, *upwards()],
            properties(vim.VirtualMachine, OF_VM),
            properties(vim.HostSystem, OF_HOST),
            properties(vim.Datacenter, ["name"]),
        )
    ]
    if api.content.authorizationManager is not None:
        roles = properties(vim.AuthorizationManager, ["roleList"])
        specs.append(selection(api.content.authorizationManager, [], roles))
    own: dict[str, Any] | None = None
    roles_by_id: dict[int, Any] = {}
    hosts_by_id: dict[str, Host] = {}
    datacenter = None
    for found, values in api.retrieve(specs):
        if isinstance(found, vim.HostSystem):
            hosts_by_id[_id(found)] = host_of(values)
        elif isinstance(found, vim.Datacenter):
            datacenter = found
        elif isinstance(found, vim.AuthorizationManager):
            roles_by_id = {role.roleId: role for role in values.get("roleList") or []}
        elif _id(found) == _id(vm):
            own = values
    if own is None:
        return None
    held = [roles_by_id[role] for role in own.get("effectiveRole") or [] if role in roles_by_id]
    privileges = frozenset(str(p) for role in held for p in role.privilege) if held else None
    where = own.get("runtime.host")
    host = hosts_by_id.pop(_id(where), None) if where is not None else None
    facts = facts_of(own, api.who, guest_user, privileges, host, tuple(hosts_by_id.values()))
    return Found(facts, str(own.get("config.instanceUuid") or ""), datacenter)


def _id(entity: Any) -> str:
    return str(entity._GetMoId())


def host_of(values: dict[str, Any]) -> Host:
    """A host, of what OF_HOST names."""
    maintained = bool(values.get("runtime.inMaintenanceMode"))
    connection = values.get("runtime.connectionState")
    return Host(
        printable(str(values.get("name") or "a host"), 200),
        nested=values.get("capability.nestedHVSupported"),
        usable=connection == "connected" and not maintained,
        connection=str(connection or "connected"),
        evc=values.get("summary.currentEVCModeKey"),
        thumbprint=values.get("summary.config.sslThumbprint"),
    )


def facts_of(
    own: dict[str, Any],
    who: str,
    guest_user: str,
    privileges: frozenset[str] | None,
    host: Host | None,
    peers: tuple[Host, ...],
) -> VmFacts:
    """A VM's facts, of what OF_VM names and of what is around it."""
    options = {str(o.key): str(o.value) for o in own.get("config.extraConfig") or []}
    name = next((key for key in options if key.lower() == KEY), None)
    flags, snapshot = own.get("config.flags"), own.get("snapshot")
    question = own.get("runtime.question")
    return VmFacts(
        name=printable(str(own.get("name") or ""), 200),
        who=who,
        guest_user=guest_user,
        power=POWERS.get(str(own.get("runtime.powerState")), Power.STOPPED),
        connection=str(own.get("runtime.connectionState") or "connected"),
        readable=bool(own.get("config.changeVersion") or own.get("config.version")),
        template=bool(own.get("config.template")),
        hardware=str(own.get("config.version") or ""),
        change_version=str(own.get("config.changeVersion") or ""),
        nesting=Nesting(own.get("config.nestedHVEnabled"), name, options.get(name or "", "")),
        capable=own.get("capability.nestedHVSupported"),
        vbs=bool(getattr(flags, "vbsEnabled", False)),
        fault_tolerance=str(own.get("runtime.faultToleranceState") or ""),
        passthrough=tuple(_passthrough(own.get("config.hardware.device") or [])),
        question=printable(str(question.text), 300) if question is not None else "",
        required=frozenset(str(r.key) for r in own.get("runtime.featureRequirement") or []),
        boot=str(own.get("runtime.bootTime") or ""),
        guest_id=str(own.get("config.guestId") or ""),
        memory_snapshots=tuple(_with_memory(snapshot.rootSnapshotList if snapshot is not None else [])),
        tools=own.get("guest.toolsRunningStatus") == "guestToolsRunning",
        privileges=privileges,
        host=host,
        peers=peers,
    )


def _passthrough(devices: list[Any]) -> Iterator[str]:
    for device in devices:
        if isinstance(device, vim.vm.device.VirtualPCIPassthrough):
            info = device.deviceInfo
            yield printable(str(info.label if info is not None else f"device {device.key}"), 100)


def _with_memory(trees: list[Any]) -> Iterator[str]:
    """A snapshot's state is the VM's when it resumes from it: only with memory is it a running one."""
    for tree in trees or []:
        if tree.state != "poweredOff":
            yield printable(str(tree.name), 100)
        yield from _with_memory(tree.childSnapshotList)
