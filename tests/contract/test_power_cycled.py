"""A report says whether the VM was power-cycled, and a dry run whether it would be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.peers.memory_fleet import MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    made = MemoryFleet(tmp_path)
    made.add("off")
    made.add("pending", nested="on", live="off")
    made.add("stopped", running=False)
    made.add("on", nested="on", live="on")
    return made


def cycled(fleet: MemoryFleet, *words: str) -> dict[str, bool]:
    return {target: row["power_cycled"] for target, row in fleet.rows(*words, "memory: *").items()}


def test_it_is_foretold_and_then_told(fleet: MemoryFleet) -> None:
    expected = {
        "memory:id-off": True,
        "memory:id-pending": True,
        "memory:id-stopped": False,
        "memory:id-on": False,
    }
    assert cycled(fleet, "check") == dict.fromkeys(expected, False)
    assert cycled(fleet, "enable", "--dry-run") == expected
    assert cycled(fleet, "enable", "--yes") == expected
    assert {vm["name"]: vm.get("boots", 0) for vm in fleet.vms().values()} == {
        "off": 1,
        "pending": 1,
        "stopped": 0,
        "on": 0,
    }
    assert cycled(fleet, "enable", "--yes") == dict.fromkeys(expected, False)


def test_without_a_restart_it_is_not(fleet: MemoryFleet) -> None:
    assert not any(cycled(fleet, "enable", "--yes", "--no-restart").values())


def test_undo_says_so_too(fleet: MemoryFleet) -> None:
    rows = fleet.rows("enable", "--yes", "memory:off")
    run = rows["memory:off"]["run"]
    for manner in ("--dry-run", "--yes"):
        told = json.loads(fleet.run("undo", run, manner, "-o", "json").stdout)
        assert told["power_cycled"] is True
    assert fleet.vms()["off"]["boots"] == 2
