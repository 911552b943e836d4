"""Finding one VM among ten thousand, and listing them all: by a view and the PropertyCollector, in pages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyVmomi import vim

from nestvirt.backends.vsphere.api import Api
from nestvirt.backends.vsphere.faults import GONE, Refused
from nestvirt.backends.vsphere.reading import properties, selection, step, upwards
from nestvirt.backends.vsphere.situation import POWERS
from nestvirt.errors import TargetError
from nestvirt.model import Power
from nestvirt.printable import printable

PAGE = 1000
"""VMs of one answer of the listing."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ESCAPED = {"%2f": "/", "%5c": "\\", "%25": "%"}
_SHOWN = 20


@dataclass(frozen=True)
class VmState:
    """One VM of the listing.

    Attributes:
        moref: its managed object id, such as vm-42.
        uuid: its instance UUID; empty where it has no configuration.
        nested: config.nestedHVEnabled; None where it is not set.
        hardware: the hardware version, as vmx-19.
    """

    moref: str
    uuid: str
    name: str
    power: Power
    template: bool
    nested: bool | None
    hardware: str


class Inventory:
    """The VMs that this user may see."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._view: Any = None

    def find(self, name: str) -> Any:
        """The one VM of that name, inventory path, UUID (the instance's or the BIOS's) or moref.

        Raises:
            TargetError: there is none, or more than one.
        """
        found = self._by_uuid(name) if _UUID.fullmatch(name) else []
        known: list[tuple[Any, str]] = []
        if not found and "/" in name.strip("/"):
            found = self._by_path(name)
        if not found:
            known = list(self._names())
            # A VM may be named as another's id is: the name is what its user has chosen.
            found = [vm for vm, title in known if title == name] or [vm for vm, _ in known if _id(vm) == name]
        if not found:
            raise self._unknown(name, [title for _, title in known])
        if len(found) > 1:
            raise TargetError(
                f"{len(found)} VMs are meant by {printable(name, 100)!r}",
                evidence=self._listed(found),
                cure="name the one by its inventory path or its UUID",
            )
        return found[0]

    def _listed(self, vms: list[Any]) -> str:
        paths = sorted(f"{path} ({_id(vm)})" for vm, path in self._paths(vms[:_SHOWN]))
        return "; ".join(paths) + ("; and more" if len(vms) > _SHOWN else "")

    def recorded(self, uuid: str, moref: str) -> Any:
        """The VM of a record; None where none has its instance UUID.

        Raises:
            TargetError: others have it, as copies made by hand do; or it was registered anew.
        """
        found = self._search(uuid, instance=True)
        for vm in found:
            if _id(vm) == moref:
                return vm
        if not found:
            return None
        raise TargetError(
            f"the VM of that record, {printable(moref, 50)}, is not there any more; others have its UUID",
            evidence=self._listed(found),
            cure="where one of these is it, registered anew, set by hand what nestvirt undo --list shows",
        )

    def by_moref(self, moref: str) -> Any:
        """A VM by its managed object id, unasked."""
        kind: Any = vim.VirtualMachine
        return kind(moref, self._api.content.rootFolder._stub)

    def states(self) -> Iterator[VmState]:
        """All VMs, read page by page."""
        paths = ["name", "config.instanceUuid", "config.template", "config.nestedHVEnabled", "config.version"]
        for vm, values in self._all([*paths, "runtime.powerState"], PAGE):
            yield VmState(
                _id(vm),
                str(values.get("config.instanceUuid") or ""),
                plain(values.get("name")),
                POWERS.get(str(values.get("runtime.powerState")), Power.STOPPED),
                bool(values.get("config.template")),
                values.get("config.nestedHVEnabled"),
                str(values.get("config.version") or ""),
            )

    def _names(self) -> Iterator[tuple[Any, str]]:
        for vm, values in self._all(["name"], None):
            yield vm, plain(values.get("name"))

    def _all(self, paths: list[str], page: int | None) -> Iterator[tuple[Any, dict[str, Any]]]:
        api, fresh = self._api, self._view is None
        if self._view is None:
            views = api.content.viewManager
            ask = partial(views.CreateContainerView, api.content.rootFolder, [vim.VirtualMachine], True)
            self._view = api.call("CreateContainerView", ask)  # it lasts as long as the session
        view = step(vim.view.ContainerView, "view")
        try:
            yield from api.retrieve(
                [selection(self._view, [view], properties(vim.VirtualMachine, paths))], page
            )
        except Refused as error:
            if error.name != GONE or fresh:
                raise
            self._view = None  # it went with a session that has run out
            yield from self._all(paths, page)

    def _by_uuid(self, uuid: str) -> list[Any]:
        return self._search(uuid, instance=True) or self._search(uuid, instance=False)

    def _search(self, uuid: str, *, instance: bool) -> list[Any]:
        index = self._api.content.searchIndex
        ask = partial(index.FindAllByUuid, None, uuid, True, instance)
        return list(self._api.call("FindAllByUuid", ask, again=True) or [])

    def _by_path(self, path: str) -> list[Any]:
        index = self._api.content.searchIndex
        ask = partial(index.FindByInventoryPath, path.strip("/"))
        found = self._api.call("FindByInventoryPath", ask, again=True)
        if found is not None and not isinstance(found, vim.VirtualMachine):
            raise TargetError(
                f"{printable(path, 200)!r} is no VM",
                evidence=f"it is a {type(found).__name__.rpartition('.')[2]}",
                cure="name a VM in it: FOLDER/NAME",
            )
        return [] if found is None else [found]

    def _paths(self, vms: list[Any]) -> Iterator[tuple[Any, str]]:
        """Each VM with its inventory path, as far up as this user may see."""
        kinds = (vim.VirtualMachine, vim.Folder, vim.Datacenter, vim.VirtualApp)
        what = [properties(kind, ["name", "parent"]) for kind in kinds]
        what[0].pathSet += ["parentVApp"]
        specs = [selection(vm, upwards(), *what) for vm in vms]
        above = {_id(entity): values for entity, values in self._api.retrieve(specs)}
        root = _id(self._api.content.rootFolder)
        for vm in vms:
            parts: list[str] = []
            here = _id(vm)
            while here in above and here != root and len(parts) < 100:
                values = above[here]
                parts.append(printable(str(values.get("name") or ""), 100))  # escaped, as a path is taken
                parent = values.get("parent") or values.get("parentVApp")
                here = _id(parent) if parent is not None else ""
            yield vm, "/" + "/".join(reversed(parts))

    def _unknown(self, name: str, known: list[str]) -> TargetError:
        who, address = self._api.who, self._api.address
        shown = f"{address} shows no VM {printable(name, 100)!r}"
        if not known:
            evidence = f"it shows {who} no VM at all: no permission, or there is none"
            return TargetError(
                shown, evidence=evidence, cure="give this user System.View and System.Read there"
            )
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.6)
        listed = list(dict.fromkeys([*near, *sorted(known)]))[:_SHOWN]
        left = len(set(known)) - len(listed)
        more = f" and {left} more" if left else ""
        cure = "name one of these, or its inventory path (/DATACENTER/vm/FOLDER/NAME), UUID or id"
        if self._api.content.about.apiType != "VirtualCenter":
            cure = "name one of these; of a VM that was moved to another host, name that host, or its vCenter"
        evidence = printable(f"{who} sees: {', '.join(listed)}", 1000) + more
        return TargetError(shown, evidence=evidence, cure=cure)


def _id(entity: Any) -> str:
    return str(entity._GetMoId())


def plain(name: object) -> str:
    """A name as people see it: vSphere escapes slashes and percent signs in it."""
    return re.sub("%2f|%5c|%25", lambda m: _ESCAPED[m[0].lower()], str(name or ""), flags=re.IGNORECASE)
