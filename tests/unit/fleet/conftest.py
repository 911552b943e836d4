"""The in-memory hypervisor for the fleet's own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestvirt import backends
from tests.peers import memory
from tests.peers.memory_fleet import MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryFleet:
    monkeypatch.setitem(backends.BACKENDS, *memory.REGISTRATION)
    return MemoryFleet(tmp_path)
