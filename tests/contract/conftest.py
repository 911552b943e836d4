"""The Proxmox peer for the tests that ask for it; each gets one of its own, for it is up in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nestvirt.journal import Journal
from tests.peers.proxmox_rig import ProxmoxRig
from tests.peers.pve_cpu import PVE_9_2, Release
from tests.peers.pve_server import Served, serve


@pytest.fixture
def release() -> Release:
    """The version that the peer has; parametrize it to have another."""
    return PVE_9_2


@pytest.fixture
def served(release: Release) -> Iterator[Served]:
    """The peer; a request that PVE's own description of its API does not allow fails the test."""
    with serve(release) as served:
        yield served
        assert served.pve.traffic.violations == []


@pytest.fixture
def rig(served: Served) -> ProxmoxRig:
    return ProxmoxRig(served)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state")
