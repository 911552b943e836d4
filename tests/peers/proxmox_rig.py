"""The Proxmox peer as the conformance suite asks for it; the oracle is the peer's own store."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.contract.rig import Seen
from tests.peers.pve import PvePeer
from tests.peers.pve_cpu import shows_nesting
from tests.peers.pve_node import NO_CLUSTER, Node
from tests.peers.pve_server import Served
from tests.peers.pve_vm import PveVm

NOT_NESTED, NESTED, THIRD = "x86-64-v2-AES", "host", "kvm64"
AGENT = ("VM.GuestAgent.Audit", "VM.GuestAgent.FileRead", "VM.GuestAgent.Unrestricted")
ENOUGH = ("VM.Audit", "VM.Config.CPU", "VM.PowerMgmt", *AGENT, "Sys.Audit")
"""What nestvirt needs to do all of its work, and no more."""

ENOUGH_8 = ("VM.Audit", "VM.Config.CPU", "VM.PowerMgmt", "VM.Monitor", "Sys.Audit")
"""The same up to 8."""

_numbers = itertools.count(1)


class ProxmoxRig:
    """Over HTTPS, with an API token that has what it needs and no more.

    Args:
        served: the peer.
        privileges: what the token has, on /; by itself just enough.
    """

    backend = "proxmox"
    secret = "hunter2-in-the-description"  # noqa: S105

    def __init__(self, served: Served, privileges: tuple[str, ...] = ()) -> None:
        self.served = served
        enough = ENOUGH if served.pve.release.major >= 9 else ENOUGH_8
        self.token = served.pve.add_token("ops@pve!nestvirt", *(privileges or enough))

    @property
    def pve(self) -> PvePeer:
        """The peer, with all its switches."""
        return self.served.pve

    @property
    def address(self) -> dict[str, str]:
        """Where it is, and how it is trusted."""
        return {"endpoint": self.served.url, "ca_file": self.served.ca_file}

    @property
    def endpoint(self) -> Mapping[str, str]:
        return {**self.address, "api_token": self.token}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return {**self.endpoint, "endpoint": f"https://127.0.0.1:{probe.getsockname()[1]}"}

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        yield {**self.endpoint, "api_token": "ops@pve!nestvirt=00000000-0000-0000-0000-000000000000"}

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "", **config: Any) -> str:
        """See Rig; also with other configuration. ``cpu=None`` is none at all."""
        name = f"vm-{next(_numbers)}"
        cpu = config.pop("cpu", NESTED if nested else NOT_NESTED)
        config |= {"description": self.secret} | ({} if cpu is None else {"cpu": cpu})
        vm = self.pve.add(name, running=running, **config)
        vm.acpi = quirk != "deaf"
        vm.fragile = quirk == "fragile"
        return name

    def make_ambiguous(self) -> str:
        self.pve.add_host("pve2")
        name = self.make(running=False)
        self.pve.add(name, node="pve2")
        return name

    def vm(self, name: str) -> PveVm:
        """The VM of that name, with all its switches."""
        return self.pve.named(name)

    def see(self, name: str) -> Seen:
        vm = self.vm(name)
        stored = [vm.config, vm.pending, vm.snapshots]
        others = [{k: v for k, v in part.items() if k != "cpu"} for part in stored]
        cpu, args = vm.merged.get("cpu"), str(vm.merged.get("args", ""))
        return Seen(
            json.dumps(stored, sort_keys=True),
            json.dumps(others, sort_keys=True),
            shows_nesting(cpu, args, self.pve.custom),
            vm.status == "running",
            str(vm.pid),
        )

    def suspend(self, name: str) -> None:
        self.vm(name).pause()

    def edit(self, name: str, *, nested: bool | None) -> None:
        self.vm(name).change({"cpu": {True: NESTED, False: NOT_NESTED, None: THIRD}[nested]})

    def reboot_inside(self, name: str) -> None:
        """Its QEMU stays, and with it what it was started with."""


class PasswordRig(ProxmoxRig):
    """Over HTTPS, as a user who logs in."""

    @property
    def endpoint(self) -> Mapping[str, str]:
        return {**self.address, "username": self.pve.user, "password": self.pve.password}

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        yield {**self.endpoint, "password": "not-this-one"}


class LocalRig(ProxmoxRig):
    """On the node itself, by its pvesh."""

    def __init__(self, served: Served, node: Node) -> None:
        super().__init__(served)
        self.node = node
        node.be(served)

    @property
    def endpoint(self) -> Mapping[str, str]:
        return {"endpoint": "local"}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        self.node.be(self.served, ill=NO_CLUSTER)
        return self.endpoint

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        with self.node.needing_a_password():
            yield self.endpoint
