"""The Proxmox and Hyper-V peers for the tests that ask for one: of its own, as it is up in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nestvirt import backends
from nestvirt.backends.base import Backend
from nestvirt.journal import Journal
from nestvirt.model import Target
from tests.peers.hyperv_rig import HyperVLab, HyperVRig
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


@pytest.fixture
def hyperv(hyperv_lab: HyperVLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[HyperVRig]:
    """A Hyper-V host, whose sessions are closed at the end: no shell may be left open then."""
    opened: list[Backend] = []
    connect = backends.connect

    def kept(target: Target, endpoint: Mapping[str, str]) -> Backend:
        opened.append(connect(target, endpoint))
        return opened[-1]

    monkeypatch.setattr(backends, "connect", kept)
    yield HyperVRig(hyperv_lab)
    for backend in opened:
        backend.close()
    assert hyperv_lab.endpoint.open == {}
