"""All VMs with their nesting and where they are; and the facts about many at once: a few questions each.

What VMs share (hosts, clusters, folders) is read once and beforehand, so that VMs themselves come in pages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pyVmomi import vim

from nestvirt.backends.base import Listed, Nesting
from nestvirt.backends.vsphere import reading
from nestvirt.backends.vsphere.api import Api
from nestvirt.backends.vsphere.inventory import PAGE, plain
from nestvirt.backends.vsphere.reading import Found, properties, selection, step
from nestvirt.backends.vsphere.setting import Nesting as Switch
from nestvirt.backends.vsphere.situation import POWERS, Host
from nestvirt.model import Power, Vm
from nestvirt.printable import printable

_OF_LISTED = [
    "name",
    "parent",
    "parentVApp",
    "config.instanceUuid",
    "config.template",
    "config.nestedHVEnabled",
    "config.version",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.host",
]
_UNLIKE_A_NAME = re.compile(r"[/\\*?=]|^(vm-\d+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27})$")
"""What find, or a pattern, would take for something else."""
_CONTAINERS = (vim.Folder, vim.Datacenter, vim.VirtualApp, vim.ComputeResource, vim.HostSystem)


class Surroundings:
    """What the VMs are in: read by one question, in pages."""

    def __init__(self, api: Api, *, hosts: bool) -> None:
        """Read it.

        Args:
            api: the session.
            hosts: whether all that VMs' facts need of hosts is read, and not their names alone.
        """
        self._values: dict[str, dict[str, Any]] = {}
        self._kinds: dict[str, Any] = {}
        self._root = _id(api.content.rootFolder)
        what = [properties(kind, ["name", "parent"]) for kind in _CONTAINERS[:4]]
        what.append(properties(vim.HostSystem, ["parent", *(reading.OF_HOST if hosts else ["name"])]))
        for found, values in _viewed(api, list(_CONTAINERS), what):
            self._values[_id(found)] = values
            self._kinds[_id(found)] = found
        self._hosts: dict[str, Host] = {}

    def path(self, values: dict[str, Any]) -> str:
        """The folder that a VM is in, as an inventory path."""
        parts: list[str] = []
        here = values.get("parent") or values.get("parentVApp")
        while here is not None and _id(here) != self._root and len(parts) < 100:
            above = self._values.get(_id(here))
            if above is None:
                break
            parts.append(printable(plain(above.get("name")), 100))
            here = above.get("parent")
        return "/" + "/".join(reversed(parts))

    def name(self, entity: Any) -> str:
        """What a host is called; empty where it may not be seen."""
        values = self._values.get(_id(entity), {}) if entity is not None else {}
        return printable(plain(values.get("name")), 200)

    def cluster(self, host: Any) -> str:
        """What a host's cluster is called, or the host itself where it is in none."""
        values = self._values.get(_id(host), {}) if host is not None else {}
        return self.name(values.get("parent"))

    def host(self, entity: Any) -> Host | None:
        """What facts need to know of a host."""
        if entity is None or _id(entity) not in self._values:
            return None
        if _id(entity) not in self._hosts:
            self._hosts[_id(entity)] = reading.host_of(self._values[_id(entity)])
        return self._hosts[_id(entity)]

    def peers(self, entity: Any) -> tuple[Host, ...]:
        """The other hosts of its cluster."""
        own = self._values.get(_id(entity), {}) if entity is not None else {}
        cluster = own.get("parent")
        if cluster is None:
            return ()
        others = [
            found
            for moref, found in self._kinds.items()
            if isinstance(found, vim.HostSystem)
            and moref != _id(entity)
            and self._values[moref].get("parent") is not None
            and _id(self._values[moref]["parent"]) == _id(cluster)
        ]
        return tuple(host for host in map(self.host, others) if host is not None)

    def datacenter(self, values: dict[str, Any]) -> Any:
        """Which datacenter a VM is in; None where that may not be seen."""
        here = values.get("parent") or values.get("parentVApp")
        while here is not None:
            if isinstance(here, vim.Datacenter):
                return here
            here = self._values.get(_id(here), {}).get("parent")
        return None


def listed(api: Api, place: str) -> Iterator[tuple[Any, Any, Listed]]:
    """Every VM that this user may see, beside its managed object and its datacenter.

    Args:
        api: the session.
        place: what the VMs' identities belong to.
    """
    around = Surroundings(api, hosts=False)
    what = [properties(vim.VirtualMachine, _OF_LISTED)]
    seen = _viewed(api, [vim.VirtualMachine], what)
    all_of_them = [_one(around, place, found, values) for found, values in seen]
    names = Counter(one.vm.name for *_, one in all_of_them)
    for found, datacenter, one in all_of_them:
        plainly = names[one.vm.name] == 1 and not _UNLIKE_A_NAME.search(one.vm.name)
        yield found, datacenter, replace(one, name=one.vm.name) if plainly else one


def _one(around: Surroundings, place: str, found: Any, values: dict[str, Any]) -> tuple[Any, Any, Listed]:
    moref, name = _id(found), printable(plain(values.get("name")), 200)
    folder = around.path(values)
    vm = Vm(f"{values.get('config.instanceUuid') or moref}@{place}#{moref}", name)
    labels = {
        "folder": (folder, f"{folder.rstrip('/')}/{name}"),
        "host": _some(around.name(values.get("runtime.host"))),
        "cluster": _some(around.cluster(values.get("runtime.host"))),
        "id": (moref,),
    }
    power = POWERS.get(str(values.get("runtime.powerState")), Power.STOPPED)
    nesting, note = _stands(values)
    return found, around.datacenter(values), Listed(vm, moref, power, nesting, labels, note)


def _some(value: str) -> tuple[str, ...]:
    return (value,) if value else ()


def _stands(values: dict[str, Any]) -> tuple[Nesting, str]:
    if values.get("runtime.connectionState") not in (None, "connected"):
        return "unknown", f"vSphere calls it {values['runtime.connectionState']}"
    if "config.version" not in values:
        return "unknown", "vSphere shows this user no configuration of it"
    enabled = Switch(values.get("config.nestedHVEnabled"), None, "").enabled
    return "on" if enabled else "off", "a template" if values.get("config.template") else ""


def facts_of(
    api: Api, vms: Sequence[Any], guest_user: str, around: Surroundings
) -> Iterator[tuple[str, Found]]:
    """The facts about many VMs by one question, by their managed object's id."""
    roles: list[Any] = []
    if api.content.authorizationManager is not None:
        what = properties(vim.AuthorizationManager, ["roleList"])
        for _, values in api.retrieve([selection(api.content.authorizationManager, [], what)]):
            roles = values.get("roleList") or []
    by_id = {role.roleId: frozenset(str(p) for p in role.privilege) for role in roles}
    what = properties(vim.VirtualMachine, [*reading.OF_VM, "parent", "parentVApp"])
    for found, values in api.retrieve([reading.selection_of(list(vms), what)], PAGE):
        held = [by_id[role] for role in values.get("effectiveRole") or [] if role in by_id]
        privileges = frozenset().union(*held) if held else None
        host = values.get("runtime.host")
        facts = reading.facts_of(
            values, api.who, guest_user, privileges, around.host(host), around.peers(host)
        )
        uuid = str(values.get("config.instanceUuid") or "")
        yield _id(found), Found(facts, uuid, around.datacenter(values))


def _viewed(api: Api, kinds: list[Any], what: list[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Objects of those kinds, wherever they are in the inventory, in pages."""
    views = api.content.viewManager
    ask = partial(views.CreateContainerView, api.content.rootFolder, kinds, True)
    view = api.call("CreateContainerView", ask)  # it lasts as long as the session
    yield from api.retrieve([selection(view, [step(vim.view.ContainerView, "view")], *what)], PAGE)


def _id(entity: Any) -> str:
    return str(entity._GetMoId())
