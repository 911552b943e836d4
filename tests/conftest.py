"""Peers that are brought up once for all tests that ask for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import LabError, need
from tests.lab.kvmhost import KvmHost
from tests.lab.libvirtd import LibvirtLab


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
