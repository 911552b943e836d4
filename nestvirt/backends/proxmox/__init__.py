"""Proxmox VE: reads a VM's configuration and writes its option ``cpu``, and nothing else of it.

API: https://pve.proxmox.com/pve-docs/api-viewer/; the library is proxmoxer.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Self

from nestvirt.backends.base import VM, Listed, Place, changed_meanwhile
from nestvirt.backends.proxmox import api as paths
from nestvirt.backends.proxmox import listing
from nestvirt.backends.proxmox.agent import AgentChannel
from nestvirt.backends.proxmox.api import Api, NoAnswer, Refused, Way, is_elsewhere, vm_path
from nestvirt.backends.proxmox.cluster import Cluster
from nestvirt.backends.proxmox.facts import CHECKS, Surroundings, VmFacts, uuid_of, vm_facts
from nestvirt.backends.proxmox.node import version_of
from nestvirt.backends.proxmox.tasks import Machine, moments
from nestvirt.errors import (
    AccessDenied,
    ChangeRejected,
    ConnectionFailed,
    MissingExtra,
    SettingsError,
    TargetError,
)
from nestvirt.guest.channel import Channel
from nestvirt.model import Change, Target, Vm
from nestvirt.printable import printable

__all__ = ["CHECKS", "ProxmoxBackend"]

LOCK_PATIENCE = 60.0
"""Seconds in which a write is tried again: a clean-up after a stop can hold the lock for 30."""

SECRETS = ("password", "api_token", "token_secret")


class ProxmoxBackend:
    """One connection to a cluster; see Backend."""

    kind = VM

    def __init__(self, api: Api, settings: Mapping[str, str], version: tuple[int, ...]) -> None:
        self._api = api
        self._cluster = Cluster(api, settings, version)
        self._last: dict[str, VmFacts] = {}
        self._rows: dict[str, object] = {}  # what find has read, for the first reading of facts
        self._around: dict[str, Surroundings] = {}
        self._machines: dict[str, Machine] = {}
        self._warnings: dict[str, tuple[str, ...]] = {}
        kept = {name: value for name, value in settings.items() if name not in (*SECRETS, "port")}
        self.endpoint: Mapping[str, str] = {**kept, "endpoint": api.address}

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Self:
        """Open the way that ``endpoint["endpoint"]`` names; see Backend."""
        api = Api(_way(endpoint))
        message = f"{api.address} does not answer as Proxmox VE does"
        with contextlib.ExitStack() as undone:
            undone.callback(api.close)
            try:
                answer = api.get(paths.VERSION)
            except Refused as error:
                raise ConnectionFailed(message, evidence=error.evidence, cure=_ADDRESS) from error
            version = version_of(answer.get("version")) if isinstance(answer, dict) else ()
            if not version:
                evidence = f"its version is {printable(str(answer), 100)}"
                raise ConnectionFailed(message, evidence=evidence, cure=_ADDRESS)
            api.version = version
            undone.pop_all()
        return cls(api, endpoint, version)

    def find(self, name: str) -> Vm:
        """By VMID, name, or ``VMID@UUID`` as records write it; see Backend."""
        vmid, title = self._cluster.find(name)
        rows = self._pending(vmid)
        if vmid not in self._last:  # else a run may be at work on it, under another name
            self._rows[vmid] = rows
        found = f"{vmid}@{uuid_of(rows) or self._api.address}"
        if "@" in name and name != found:
            raise TargetError(
                f"VM {vmid} is another one now",
                evidence=f"{self._api.address} has {title} there: {found}, and not {name}",
                cure="nothing was touched; where the VM is on another cluster, name that one with --connect",
            )
        return Vm(found, title)

    def listed(self) -> Iterator[Listed]:
        """All VMs; see Listing."""
        return listing.listed(self._api, self._cluster)

    def host_of(self, vm: Vm) -> Place:
        """The VM's node; see Backend. An address of the connection may be that of another node."""
        login = self.endpoint.get("node_ssh")
        address = f"ssh://{login}" if login else self._api.address
        shell = address == "local" or address.startswith("ssh://")
        return Place(self._cluster.node_of(_vmid(vm)), address if shell else None)

    def read(self, vm: Vm) -> VmFacts:
        """Configuration live and pending, state; and once: node, cluster, snapshots, rights; see Backend."""
        vmid = _vmid(vm)
        rows = self._rows.pop(vmid, None) or self._pending(vmid)
        status = self._ask(vmid, "status", "current")
        node = self._cluster.node_of(vmid)
        if vmid not in self._around or self._around[vmid].node.name != node:
            self._around[vmid] = self._surroundings(node, vmid)
        warnings = self._warnings.get(vmid, ())
        facts = vm_facts(vmid, self._api.who, rows, status, self._around[vmid], warnings)
        self._last[vmid] = facts
        return facts

    def _pending(self, vmid: str) -> object:
        """Every option, live and pending, and the digest."""
        return self._ask(vmid, "pending")

    def _ask(self, vmid: str, *what: str) -> object:
        """Ask about a VM, and once more where it is now, if it has moved."""
        try:
            return self._api.get(vm_path(self._cluster.node_of(vmid), vmid, *what))
        except Refused as error:
            if not is_elsewhere(error):
                raise
            self._cluster.forget(vmid)
            return self._api.get(vm_path(self._cluster.node_of(vmid), vmid, *what))

    def _surroundings(self, node: str, vmid: str) -> Surroundings:
        snapshots = self._api.get(vm_path(node, vmid, "snapshot"))
        path = f"/vms/{vmid}"
        rights = self._api.get(paths.PERMISSIONS, {"path": path})
        held = rights.get(path, {}) if isinstance(rights, dict) else None
        with_memory = [str(s["name"]) for s in snapshots or [] if s.get("vmstate") in (1, "1", True)]
        return Surroundings(
            node=self._cluster.node(node),
            members=self._cluster.members(node),
            memory_snapshots=tuple(with_memory),
            privileges=None if held is None else frozenset(held),  # a value says whether it is inherited
        )

    def apply(self, vm: Vm, change: Change) -> None:
        """Write the option cpu, with the digest of what was read; see Backend.

        Raises:
            NoAnswer: a write was sent, and it could not be found out what has become of it.
        """
        vmid = _vmid(vm)
        unsure = False
        evidence = ""
        for _ in moments(time.monotonic() + LOCK_PATIENCE):
            facts = self._last.get(vmid) or self.read(vm)
            present = facts.configured("cpu")
            if unsure and present == change.after:
                return  # what got lost was an answer
            if present != change.before:
                raise changed_meanwhile(f"the CPU of {vm.name}", change, present)
            try:
                self._write(vmid, facts, change.after)
            except NoAnswer as error:
                unsure, evidence = True, error.evidence
                self.read(vm)
            except Refused as error:
                evidence = error.evidence
                written = self.read(vm).configured("cpu") == change.after
                if not _passes(error):
                    if written:
                        return  # Proxmox complains of another option after it has written this one
                    raise _rejected(vm, vmid, error) from error
            except AccessDenied as error:
                raise ChangeRejected(error.message, evidence=error.evidence, cure=error.cure) from error
            else:
                self._last.pop(vmid)
                return
        failure = NoAnswer if unsure else ChangeRejected
        raise failure(
            f"Proxmox did not take the CPU of {vm.name} within {LOCK_PATIENCE:.0f} s",
            evidence=evidence,
            cure="see in the GUI which task works on the VM; then run this again",
        )

    def _write(self, vmid: str, facts: VmFacts, after: str | None) -> None:
        values: dict[str, object]
        if "cpu" in facts.pending and facts.live.get("cpu") == after:
            values = {"revert": "cpu"}  # leaves no trace of a pending change
        elif after is None:
            values = {"delete": "cpu"}
        else:
            values = {"cpu": after}
        if facts.digest:
            values["digest"] = facts.digest
        self._api.put(vm_path(self._cluster.node_of(vmid), vmid, "config"), values)

    def stop(self, vm: Vm, *, timeout: float) -> None:
        """By status/shutdown, which tells the agent or presses the power button; see Backend."""
        self._machine(vm).shut_down(timeout)

    def power_off(self, vm: Vm) -> None:
        """By status/stop; see Backend."""
        self._machine(vm).cut()

    def start(self, vm: Vm, *, timeout: float) -> None:
        """By status/start; see Backend."""
        ended = self._machine(vm).start(timeout)
        self._warnings[_vmid(vm)] = ended.warnings

    def channel(self, vm: Vm) -> Channel | None:
        """The guest agent, where the configuration has one; see Backend."""
        vmid = _vmid(vm)
        facts = self._last.get(vmid) or self.read(vm)
        if not facts.agent or facts.windows:
            return None
        return AgentChannel(self._api, self._cluster, vmid)

    def close(self) -> None:
        """Close the connection."""
        self._api.close()

    def _machine(self, vm: Vm) -> Machine:
        vmid = _vmid(vm)
        facts = self._last.get(vmid) or self.read(vm)
        machine = self._machines.get(vmid)
        if machine is None:
            machine = Machine(self._api, self._cluster, vmid, vm.name, facts.ha is not None, facts.pid)
            self._machines[vmid] = machine
        machine.pid = facts.pid or machine.pid
        return machine


_ADDRESS = "for example: https://pve1.example.com:8006, ssh://root@pve1, or local on a node itself"


def _way(settings: Mapping[str, str]) -> Way:
    """The way that the settings name; on a node without any, pvesh.

    The libraries of each way are imported when it is taken.
    """
    address = settings.get("endpoint") or ("local" if shutil.which("pvesh") else "")
    if not address:
        raise SettingsError(
            "nothing says where Proxmox is",
            evidence="there is no endpoint in the options, the environment or the configuration file, "
            "and no pvesh here",
            cure=f"set PROXMOX_VE_ENDPOINT or give --connect: {_ADDRESS}",
        )
    try:
        if address == "local":
            from nestvirt.backends.proxmox.commands import local_way

            return local_way()
        if address.startswith("ssh://"):
            from nestvirt.backends.proxmox.commands import ssh_way

            return ssh_way(address, settings.get("ssh_config"))
        from nestvirt.backends.proxmox.https import HttpsWay

        return HttpsWay(address, settings)
    except ImportError as error:
        raise MissingExtra(
            "the Python packages for Proxmox are not installed",
            evidence=str(error),
            cure="pip install proxmoxer requests",
        ) from error


def _vmid(vm: Vm) -> str:
    return vm.id.partition("@")[0]


def _passes(error: Refused) -> bool:
    """Whether a refusal passes: somebody else wrote, still holds the lock, or has moved the VM.

    Before PVE 8.2 the word was "missmatch" (PVE::Tools::assert_if_modified and AbstractConfig).
    """
    passing = re.search(r"checksum miss?match|can't lock file", error.text)
    return passing is not None or is_elsewhere(error)


def _rejected(vm: Vm, vmid: str, error: Refused) -> ChangeRejected:
    if "is locked" in error.text:
        cure = f"wait until the task that locks it has ended; if that has died, on the node: qm unlock {vmid}"
    elif error.status == 400:  # a parameter, of which there is one
        cure = "name a type that the GUI lists: VM > Hardware > Processors; nothing was written"
    else:
        cure = "mend what Proxmox says in the evidence, then run this again; nothing was written"
    return ChangeRejected(
        f"Proxmox refused the CPU of {vm.name}", evidence=printable(error.evidence, 600), cure=cure
    )
