"""Which VMs a cluster has, and on which of its nodes; what those nodes' CPUs are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nestvirt.backends.proxmox import api as paths
from nestvirt.backends.proxmox.api import Api, Refused, grant, node_path, vm_path
from nestvirt.backends.proxmox.node import (
    READ_NESTED,
    Node,
    NodeCpu,
    flag_report,
)
from nestvirt.errors import AccessDenied, ConnectionFailed, GuestUnreachable, TargetError
from nestvirt.guest.ssh import SshChannel
from nestvirt.printable import printable

SSH_SECONDS = 30.0


class Cluster:
    """The nodes behind one connection, and what was found out about them; each is asked once.

    Args:
        settings: of which ``node_ssh`` and ``ssh_config`` count here.
        version: of pve-manager on the node that answers.
    """

    def __init__(self, api: Api, settings: Mapping[str, str], version: tuple[int, ...]) -> None:
        self._api = api
        self._settings = settings
        self.version = version
        self._rows: list[Mapping[str, Any]] | None = None
        self._places: dict[str, str] = {}
        self._cpus: dict[str, NodeCpu | None] = {}
        self._nodes: dict[str, Node] = {}

    def find(self, name: str) -> tuple[str, str]:
        """The VMID and the name of the one VM that is meant.

        Raises:
            TargetError: there is none, or more than one.
        """
        recorded = name.partition("@")[0] if "@" in name else ""  # VMID@UUID, as records have it
        wanted = recorded or name
        vms = [row for row in self._resources() if row.get("type") == "qemu"]
        matches = [row for row in vms if str(row.get("vmid")) == wanted]
        matches += [row for row in vms if row.get("name") == wanted and row not in matches and not recorded]
        if len(matches) > 1:
            listed = ", ".join(f"{row['vmid']} ({row.get('name')}, on {row.get('node')})" for row in matches)
            raise TargetError(
                f"{name!r} means more than one VM",
                evidence=printable(listed),
                cure="give the VMID of the one that is meant; where a name is another VM's number, rename it",
            )
        if matches:
            vmid = str(matches[0]["vmid"])
            self._places[vmid] = str(matches[0]["node"])
            return vmid, str(matches[0].get("name") or f"VM {vmid}")
        if _is_vmid(wanted) and (title := self._search(wanted)) is not None:
            return wanted, title
        raise self._unknown(name, wanted, vms)

    def vms(self) -> list[Mapping[str, Any]]:
        """All VMs that this user may see, as the cluster's own list has them now."""
        self._rows = None
        return [row for row in self._resources() if row.get("type") == "qemu" and row.get("node")]

    def node_of(self, vmid: str) -> str:
        """The node that holds the VM."""
        if vmid not in self._places:
            self.find(f"{vmid}@")  # by its number alone: another VM may be named like it
        return self._places[vmid]

    def forget(self, vmid: str) -> None:
        """Find the VM anew when it is asked for next."""
        self._places.pop(vmid, None)
        self._rows = [row for row in self._resources() if str(row.get("vmid")) != vmid]

    def node(self, name: str) -> Node:
        """What is known of a node, as far as this user may ask."""
        if name not in self._nodes:
            offers, nesting, reporting = self._flags(name)
            nested, unread = self._nested(name)
            self._nodes[name] = Node(
                name, self._cpu(name), self.version, offers, nesting, reporting, nested, unread
            )
        return self._nodes[name]

    def members(self, but: str) -> dict[str, NodeCpu | None]:
        """The other nodes that are online, with their CPUs where this user may read them."""
        online = [
            str(row["node"])
            for row in self._resources()
            if row.get("type") == "node" and row.get("status") == "online" and row.get("node") != but
        ]
        return {name: self._cpu(name) for name in online}

    def _resources(self) -> list[Mapping[str, Any]]:
        if self._rows is None:
            answer = self._api.get(paths.RESOURCES)
            self._rows = [row for row in answer or [] if isinstance(row, Mapping)]
        return self._rows

    def _search(self, vmid: str) -> str | None:
        """Ask the nodes themselves: the cluster's list lags behind what was just made or moved."""
        for row in self._api.get(paths.NODES) or []:
            name = str(row.get("node"))
            try:
                status = self._api.get(vm_path(name, vmid, "status", "current"))
            except (Refused, AccessDenied, ConnectionFailed):
                continue
            self._places[vmid] = name
            return str(status.get("name") or f"VM {vmid}")
        return None

    def _unknown(self, name: str, wanted: str, vms: list[Mapping[str, Any]]) -> TargetError:
        for row in self._resources():
            if row.get("type") == "lxc" and wanted in (str(row.get("vmid")), row.get("name")):
                return TargetError(
                    f"{name!r} is a container, not a VM",
                    evidence=f"{row.get('id')} on {row.get('node')}",
                    cure="a container uses its node's /dev/kvm: give it that device, and check the node",
                )
        if not vms:
            return TargetError(
                f"{self._api.address} shows no VM {name!r}",
                evidence=f"its list is empty: no permission for {self._api.who}, or no VM",
                cure=f"where there is one: {grant(self._api.who, self._path(wanted), self.version)}",
            )
        known = ", ".join(f"{row['vmid']} ({row.get('name')})" for row in vms[:20])
        return TargetError(
            f"{self._api.address} shows no VM {name!r}",
            evidence=f"{self._api.who} sees: {printable(known)}",
            cure="name one of these; a VM that is missing there needs VM.Audit",
        )

    def _path(self, wanted: str) -> str:
        return f"/vms/{wanted}" if _is_vmid(wanted) else "/vms/VMID"

    def _cpu(self, name: str) -> NodeCpu | None:
        if name not in self._cpus:
            try:
                self._cpus[name] = NodeCpu.parse(self._api.get(node_path(name, "status")))
            except (AccessDenied, Refused, ConnectionFailed):  # not this user's to read, or not online
                self._cpus[name] = None
        return self._cpus[name]

    def _flags(self, name: str) -> tuple[bool | None, frozenset[str] | None, frozenset[str]]:
        try:
            return flag_report(self._api.get(node_path(name, "capabilities", "qemu", "cpu-flags")))
        except ConnectionFailed:
            return None, None, frozenset()
        except AccessDenied:  # which Refused is, too: before PVE 9.1 there is no such path
            return (False if self.version < (9, 1) else None), None, frozenset()

    def _nested(self, name: str) -> tuple[str | None, str]:
        """The module's parameter, where a program can be run on that very node; else why it was not read."""
        try:
            words = self._api.node_words()
            if words is None or _host(words) != name:
                over = self._settings.get("node_ssh")
                if not over:
                    return None, ""
                config = self._settings.get("ssh_config")
                channel = SshChannel(over, ["-F", config] if config else [])
                done = channel.run(["sh", "-c", READ_NESTED], timeout=SSH_SECONDS)
                words = done.stdout.decode(errors="replace")
        except (GuestUnreachable, ConnectionFailed, AccessDenied) as error:
            return None, f"{error.message}: {error.evidence}"
        if _host(words) != name:
            return None, f"{over} is {_host(words) or 'unknown'}, and the VM is on {name}"
        return _parameter(words), "" if _parameter(words) else f"no kvm module is loaded on {name}"


def _is_vmid(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 100 <= int(text[:10]) <= 999_999_999


def _host(words: str) -> str:
    return printable(words.split("\n")[0].split(".")[0], 64)


def _parameter(words: str) -> str | None:
    return next((line for line in words.split("\n")[1:] if line in ("Y", "N", "1", "0")), None)
