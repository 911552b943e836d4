"""Of many, the VM that was planned is the one that is changed, whatever its name means by then."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab import wait_for
from tests.peers.memory_fleet import MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    return MemoryFleet(tmp_path)


def edit(fleet: MemoryFleet, change: Callable[[dict[str, Any]], object]) -> None:
    vms = json.loads(fleet.path.read_text())
    change(vms)
    fleet.path.write_text(json.dumps(vms))


def test_a_new_vm_of_the_name_of_one_that_was_planned_is_not_touched(
    fleet: MemoryFleet, tmp_path: Path
) -> None:
    fleet.add("a", path=tmp_path / "first.json")
    (tmp_path / "config.toml").write_text(
        f'[profiles.first]\nbackend = "memory"\npath = "{tmp_path / "first.json"}"\nboot = "2"\n'
    )
    fleet.add("b")
    running = fleet.begin("enable", "memory@first:a", "memory:b", "--yes", "--parallel", "1")
    first = tmp_path / "first.json"
    wait_for(lambda: '"stopped"' in first.read_text(), 30, "a to be off")
    edit(
        fleet,
        lambda vms: (vms["id-b"].update(name="b-old"), vms.update(new={"name": "b", "power": "running"})),
    )
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert fleet.vms()["b-old"]["live"] == "on"
    assert fleet.vms()["b"] == {"name": "b", "power": "running"}


def test_a_vm_that_was_renamed_while_it_was_off_is_gone_on_with(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    killed = fleet.run("enable", "memory:a", "memory:b", "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE="1")
    assert killed.returncode == -signal.SIGKILL
    edit(fleet, lambda vms: vms["id-a"].update(name="z"))
    rows = fleet.rows("enable", "--resume", "--yes")
    assert [row["ending"] for row in rows.values()] == ["pass", "pass"]
    assert [vm["boots"] for vm in fleet.vms().values()] == [1, 1]


@pytest.mark.parametrize("others", [(), ("memory:b",)], ids=["alone", "beside another"])
def test_a_vm_that_was_renamed_and_whose_name_another_has_by_now_is_gone_on_with(
    fleet: MemoryFleet, others: tuple[str, ...]
) -> None:
    for name in "ab":
        fleet.add(name)
    fleet.run("enable", "memory:a", *others, "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE="1")
    edit(
        fleet, lambda vms: (vms["id-a"].update(name="old"), vms.update(new={"name": "a", "power": "running"}))
    )
    rows = fleet.rows("enable", "--resume", "--yes", "--batch", "1")
    assert {row["ending"] for row in rows.values()} == {"pass"}
    assert rows["memory:a"]["name"] == "old"
    assert fleet.vms()["old"]["boots"] == 1
    assert fleet.vms()["a"] == {"name": "a", "power": "running"}


def test_one_that_cannot_be_found_any_more_takes_its_place_in_a_batch(fleet: MemoryFleet) -> None:
    """It may be off, and only not be shown to this user."""
    fleet.add("a")
    fleet.add("b")
    args = ("enable", "memory:a", "memory:b", "--yes", "--batch", "1")
    assert fleet.run(*args, NESTVIRT_MEMORY_DIE="1").returncode == -signal.SIGKILL
    edit(fleet, lambda vms: vms.pop("id-a"))
    rows = fleet.rows("enable", "--resume", "--yes")
    assert rows["memory:a"]["error"]["kind"] == "TargetError"
    assert rows["memory:b"]["ending"] == "not-begun"
    assert "boots" not in fleet.vms()["b"]


@pytest.mark.parametrize("readable", [True, False], ids=["of one VM", "of any VM"])
def test_an_ill_record_stands_in_the_way_only_of_the_vms_that_it_may_be_about(
    fleet: MemoryFleet, readable: bool
) -> None:
    fleet.add("a")
    fleet.run("enable", "memory:a", "--yes")
    [path] = (fleet.state / "runs").glob("*.jsonl")
    path.write_text(path.read_text() + "{}\n" if readable else "{}\n")
    fleet.add("b")
    done = fleet.run("enable", "memory: *", "--yes", "-o", "json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    if readable:
        rows = {row["target"]: row for row in told["fleet"]}
        assert str(path) in rows["memory:id-a"]["error"]["message"]
        assert rows["memory:id-b"]["ending"] == "pass"
    else:
        assert str(path) in told["error"]["message"]
        assert "live" not in fleet.vms()["b"]
    checked = fleet.rows("check", "memory: *")
    assert checked["memory:id-a"]["ending"] == "pass"
    assert "vm-run-interrupted" in [finding["check"] for finding in checked["memory:id-a"]["findings"]]
