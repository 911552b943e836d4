"""Peers that are brought up once for all tests that ask for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nestvirt.backends import base
from tests.lab import LabError, need
from tests.lab.kvmhost import KvmHost
from tests.lab.libvirtd import LibvirtLab
from tests.peers.vsphere import VSphere

AT_ONCE = 0.02
"""Seconds until it is looked a second time at a peer that does everything at once."""


@pytest.fixture(scope="session")
def libvirt_lab() -> Iterator[LibvirtLab]:
    """An isolated libvirtd with guests that really boot."""
    try:
        lab = LibvirtLab()
    except (LabError, OSError) as error:
        need(error, "the lab's libvirtd cannot be brought up")
        raise
    with lab:
        yield lab


@pytest.fixture(scope="session")
def kvm_host() -> Iterator[KvmHost]:
    """A real KVM host, reached over SSH. Tests share it: bring it into a known state with reload()."""
    try:
        host = KvmHost()
    except (LabError, OSError) as error:
        need(error, "the lab's KVM host cannot be brought up")
        raise
    with host:
        yield host


@pytest.fixture(scope="session")
def vcenter_process() -> Iterator[VSphere]:
    """A vCenter, of which each test gets a clean one: ask for vcenter."""
    yield from _vsphere(esx=False)


@pytest.fixture(scope="session")
def esxi_process() -> Iterator[VSphere]:
    """An ESXi host; ask for esxi."""
    yield from _vsphere(esx=True)


@pytest.fixture
def vcenter(vcenter_process: VSphere, monkeypatch: pytest.MonkeyPatch) -> VSphere:
    """A vCenter with govmomi's usual inventory: a host DC0_H0, a cluster DC0_C0 of three, four VMs."""
    monkeypatch.setattr(base, "FIRST_PAUSE", AT_ONCE)
    vcenter_process.reset()
    return vcenter_process


@pytest.fixture
def esxi(esxi_process: VSphere, monkeypatch: pytest.MonkeyPatch) -> VSphere:
    """An ESXi host without a vCenter, with two VMs."""
    monkeypatch.setattr(base, "FIRST_PAUSE", AT_ONCE)
    esxi_process.reset()
    return esxi_process


def _vsphere(*, esx: bool) -> Iterator[VSphere]:
    try:
        lab = VSphere(esx=esx)
    except (LabError, OSError) as error:
        need(error, "the vSphere peer cannot be brought up")
        raise
    with lab:
        yield lab
