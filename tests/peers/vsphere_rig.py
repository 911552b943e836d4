"""The vSphere peer as the conformance suite asks for it; the oracle is what govmomi reads."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.contract.rig import Seen
from tests.peers.vsphere import VSphere

SETTING = ("NestedHVEnabled", "vhv.enable")
MOVING = ("ChangeVersion", "Modified")
"""What each change moves, whatever it changes."""

ENOUGH = (
    "VirtualMachine.Config.AdvancedConfig",
    "VirtualMachine.Config.Settings",
    "VirtualMachine.GuestOperations.Execute",
    "VirtualMachine.GuestOperations.Modify",
    "VirtualMachine.GuestOperations.Query",
    "VirtualMachine.Interact.PowerOff",
    "VirtualMachine.Interact.PowerOn",
)
"""What nestvirt needs to do all of its work, and no more."""


class VSphereRig:
    """Over HTTPS on 127.0.0.2, as a user with the privileges that the guide names.

    Args:
        lab: the peer.
        privileges: what the user has; by itself just enough. None: all.
    """

    backend = "vsphere"
    secret = "hunter2-in-the-notes"  # noqa: S105

    def __init__(self, lab: VSphere, privileges: tuple[str, ...] | None = ENOUGH) -> None:
        self.lab = lab
        if privileges is not None:
            lab.privileges(*privileges)

    @property
    def address(self) -> dict[str, str]:
        """Where it is, and how it is trusted."""
        return {"endpoint": f"https://{self.lab.address}", "ca_file": self.lab.ca_file}

    @property
    def endpoint(self) -> Mapping[str, str]:
        login = {"username": self.lab.user, "password": self.lab.password}
        guest = {"guest_username": self.lab.guest_user, "guest_password": self.lab.guest_password}
        return {**self.address, **login, **guest}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.2", 0))
            return {**self.endpoint, "endpoint": f"https://127.0.0.2:{probe.getsockname()[1]}"}

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        yield {**self.endpoint, "password": "not-this-one"}

    def make(
        self, *, nested: bool | None = False, running: bool = True, quirk: str = "", **switches: Any
    ) -> str:
        """See Rig; also with other switches, see VSphere.make."""
        if quirk:
            switches[quirk] = True
        return self.lab.make(nested=nested, running=running, secret=self.secret, **switches)

    def make_ambiguous(self) -> str:
        name = self.make(running=False)
        return self.lab.make(name, folder="another/folder", running=False)

    def see(self, name: str) -> Seen:
        seen = self.lab.see(name)
        stored = {"config": _settled(seen["config"]), "snapshot": seen["snapshot"]}
        others = {"config": _others(stored["config"]), "snapshot": seen["snapshot"]}
        return Seen(
            json.dumps(stored, sort_keys=True),
            json.dumps(others, sort_keys=True),
            shows_nesting(seen["config"]),
            seen["runtime"]["PowerState"] == "poweredOn",
            f"{seen['runtime']['BootTime']}",
        )

    def suspend(self, name: str) -> None:
        self.lab.suspend(name)

    def edit(self, name: str, *, nested: bool | None) -> None:
        """A running VM takes the advanced setting only; the third value is none at all."""
        running = self.see(name).running
        self.lab.set_key(name, "vhv.enable", "TRUE" if nested and running else None)
        self.lab.set(name, {"config.nestedHVEnabled": None if running else nested})

    def reboot_inside(self, name: str) -> None:
        self.lab.reboot_inside(name)


def shows_nesting(config: Mapping[str, Any]) -> bool:
    """Whether a VM is started with nesting: the line of its .vmx decides, where there is one."""
    keys = {option["Key"].lower(): option["Value"] for option in config["ExtraConfig"]}
    if "vhv.enable" in keys:
        return bool(keys["vhv.enable"].upper() == "TRUE")
    return bool(config["NestedHVEnabled"])


def _settled(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in MOVING}


def _others(config: Mapping[str, Any]) -> dict[str, Any]:
    options = [option for option in config["ExtraConfig"] if option["Key"] not in SETTING]
    return {key: value for key, value in config.items() if key not in SETTING} | {"ExtraConfig": options}


class EsxiRig(VSphereRig):
    """A host has no folders: two VMs of one name are beside each other."""

    def make_ambiguous(self) -> str:
        name = self.make(running=False)
        return self.lab.make(name, running=False)
