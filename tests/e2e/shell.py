"""An operator's shell: nestvirt commands typed at a hypervisor that the environment names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.contract.rig import Seen
from tests.peers.hyperv_rig import HyperVRig
from tests.peers.libvirt_rig import LibvirtRig
from tests.peers.proxmox_rig import ProxmoxRig
from tests.peers.vsphere_rig import VSphereRig

NESTVIRT = str(Path(sys.executable).with_name("nestvirt"))


class Prompt:
    """Types nestvirt commands.

    Args:
        state: where nestvirt keeps its records.
        where: the variables that say where the hypervisor is.
    """

    def __init__(self, state: Path, where: Mapping[str, str]) -> None:
        self.state = state
        self.environment = {
            **os.environ,
            "NESTVIRT_STATE_DIR": str(state),
            "NESTVIRT_CONFIG": os.devnull,
            **where,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command under way; no terminal, as in a script."""
        return subprocess.Popen(
            [NESTVIRT, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def until_it_says(self, process: subprocess.Popen[str], words: str) -> None:
        """Read stderr until a step is told."""
        assert process.stderr is not None
        for line in process.stderr:
            if words in line:
                return
        pytest.fail(f"it ended without saying {words!r}")


class Shell(Prompt):
    """At the lab's libvirt."""

    def __init__(self, rig: LibvirtRig, state: Path) -> None:
        super().__init__(state, {"LIBVIRT_DEFAULT_URI": rig.lab.uri})
        self.rig = rig


class ProxmoxShell(Prompt):
    """At the Proxmox peer, with the variables that other tools for Proxmox read."""

    def __init__(self, rig: ProxmoxRig, state: Path) -> None:
        where = {"PROXMOX_VE_ENDPOINT": rig.served.url, "PROXMOX_VE_API_TOKEN": rig.token}
        super().__init__(state, where | {"PROXMOX_CA_PATH": rig.served.ca_file})
        self.rig = rig


class VSphereShell(Prompt):
    """At the vSphere peer, with the variables that govc reads."""

    def __init__(self, rig: VSphereRig, state: Path) -> None:
        lab = rig.lab
        where = {"GOVC_URL": f"https://{lab.address}", "GOVC_TLS_CA_CERTS": lab.ca_file}
        where |= {"GOVC_USERNAME": lab.user, "GOVC_PASSWORD": lab.password}
        super().__init__(state, where | {"GOVC_GUEST_LOGIN": f"{lab.guest_user}:{lab.guest_password}"})
        self.rig = rig


class HyperVShell(Prompt):
    """At the Hyper-V peer, with the variables that Terraform's provider reads, and those of the guest."""

    def __init__(self, rig: HyperVRig, state: Path) -> None:
        address, service = rig.address, rig.lab.endpoint
        where = {"HYPERV_HOST": address["endpoint"], "HYPERV_CACERT_PATH": address["ca_file"]}
        where |= {"HYPERV_USER": service.user, "HYPERV_PASSWORD": service.password}
        where |= {"NESTVIRT_HYPERV_GUEST_USERNAME": rig.endpoint["guest_username"]}
        where |= {"NESTVIRT_HYPERV_GUEST_PASSWORD": rig.endpoint["guest_password"]}
        super().__init__(state, where)
        self.rig = rig


def same_configuration(one: Seen, other: Seen) -> bool:
    return (one.stored, one.running) == (other.stored, other.running)
