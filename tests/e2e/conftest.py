"""What the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.shell import HyperVShell, ProxmoxShell, Shell, VSphereShell
from tests.lab.libvirtd import LibvirtLab
from tests.peers.hyperv_rig import HyperVLab, HyperVRig
from tests.peers.libvirt_rig import LibvirtRig
from tests.peers.proxmox_rig import ProxmoxRig
from tests.peers.pve_server import serve
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import VSphereRig


@pytest.fixture
def shell(libvirt_lab: LibvirtLab, tmp_path: Path) -> Iterator[Shell]:
    rig = LibvirtRig(libvirt_lab)
    yield Shell(rig, tmp_path / "state")
    rig.remove_all()


@pytest.fixture
def proxmox(tmp_path: Path) -> Iterator[ProxmoxShell]:
    with serve() as served:
        yield ProxmoxShell(ProxmoxRig(served), tmp_path / "state")
        assert served.pve.traffic.violations == []


@pytest.fixture
def vsphere(vcenter: VSphere, tmp_path: Path) -> VSphereShell:
    return VSphereShell(VSphereRig(vcenter), tmp_path / "state")


@pytest.fixture
def hyperv(hyperv_lab: HyperVLab, tmp_path: Path) -> Iterator[HyperVShell]:
    """A shell of WinRM's that a command leaves open fails the test."""
    yield HyperVShell(HyperVRig(hyperv_lab), tmp_path / "state")
    assert not hyperv_lab.endpoint.open
