"""A run over many VMs that was stopped or killed, and how it is gone on with: whole processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.lab import wait_for
from tests.peers.memory_fleet import MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    return MemoryFleet(tmp_path)


def runs(fleet: MemoryFleet) -> list[list[dict[str, Any]]]:
    """The fleet runs' records, oldest first."""
    paths = sorted((fleet.state / "fleets").glob("*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


def test_killed_in_its_middle_and_resumed_every_vm_ends_well_and_none_is_cycled_twice(
    fleet: MemoryFleet,
) -> None:
    names = [f"vm-{number:02}" for number in range(12)]
    for name in names:
        fleet.add(name)
    killed = fleet.run("enable", "memory: *", "--yes", "--parallel", "3", NESTVIRT_MEMORY_DIE="6")
    assert killed.returncode == -signal.SIGKILL
    through = [vm for vm in fleet.vms().values() if vm.get("boots")]
    down = [vm for vm in fleet.vms().values() if vm["power"] == "stopped"]
    assert 0 < len(through) < len(names)
    assert down
    done = fleet.run("enable", "--resume", "--yes", "-o", "json")
    assert done.returncode == 0
    assert all(vm["live"] == "on" and vm["boots"] == 1 for vm in fleet.vms().values())
    [record] = runs(fleet)
    begun = [line["target"] for line in record if line["event"] == "begun"]
    ended = {line["target"] for line in record if line["event"] == "ended"}
    assert len(ended) == len(names)
    assert all(begun.count(name) <= 2 for name in set(begun))
    assert record[-1]["event"] == "end"
    assert fleet.run("enable", "--resume").returncode == 2  # nothing is left to be done


def test_resume_takes_the_options_of_the_run_and_only_its_targets(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    fleet.run("enable", "memory: *", "--yes", "--parallel", "1", "--batch", "1", NESTVIRT_MEMORY_DIE="1")
    fleet.add("later")
    fleet.run("enable", "--resume", "--yes")
    assert "boots" not in fleet.vms()["later"]
    [record] = runs(fleet)
    options = record[0]["options"]
    assert isinstance(options, dict)
    assert (options["batch"], options["parallel"]) == (1, 1)
    assert "yes" not in options


def test_what_failed_is_tried_again_by_resume(fleet: MemoryFleet) -> None:
    fleet.add("good")
    fleet.add("fragile", fragile=True)
    fleet.run("enable", "memory: *", "--yes")
    vms = json.loads(fleet.path.read_text())
    del vms["id-fragile"]["fragile"]
    fleet.path.write_text(json.dumps(vms))
    assert fleet.run("enable", "--resume", "--yes").returncode == 2  # it came to its end
    [record] = (fleet.state / "fleets").glob("*.jsonl")
    rows = fleet.rows("enable", "--resume", record.stem, "--yes")
    assert rows["memory:id-fragile"]["ending"] == "pass"
    assert "not looked at again" in rows["memory:id-good"]["note"]
    assert fleet.vms()["good"]["boots"] == 1


def test_ctrl_c_finishes_what_is_under_way_and_says_how_to_go_on(fleet: MemoryFleet) -> None:
    for number in range(8):
        fleet.add(f"vm-{number}")
    running = fleet.begin("enable", "memory: *", "--yes", "--parallel", "2", NESTVIRT_MEMORY_BOOT="1")
    wait_for(lambda: any(vm["power"] == "stopped" for vm in fleet.vms().values()), 30, "the first to be off")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    vms = fleet.vms().values()
    assert all(vm["power"] == "running" for vm in vms)
    assert 0 < sum(vm.get("live") == "on" for vm in vms) < 8
    assert "stopping: 2 under way" in err
    assert "--resume" in out
    assert fleet.run("enable", "--resume", "--yes").returncode == 0
    assert all(vm["boots"] == 1 for vm in fleet.vms().values())


def test_ctrl_c_twice_ends_those_under_way_at_their_next_step_and_no_setting_is_left_half(
    fleet: MemoryFleet,
) -> None:
    for number in range(8):
        fleet.add(f"vm-{number}")
    running = fleet.begin("enable", "memory: *", "--yes", "--parallel", "2", NESTVIRT_MEMORY_BOOT="2")
    wait_for(lambda: any(vm["power"] == "stopped" for vm in fleet.vms().values()), 30, "the first to be off")
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    assert any("Ctrl-C once more" in line for line in running.stderr)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert all(vm["power"] == "running" for vm in fleet.vms().values())
    assert all(vm.get("live") == vm.get("nested") for vm in fleet.vms().values())
    assert fleet.run("enable", "--resume", "--yes").returncode == 0
    assert all(vm["live"] == "on" for vm in fleet.vms().values())


def test_two_cannot_go_on_with_one_run_at_once(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    fleet.run("enable", "memory: *", "--yes", NESTVIRT_MEMORY_DIE="1")
    first = fleet.begin("enable", "--resume", "--yes", NESTVIRT_MEMORY_BOOT="3")
    wait_for(lambda: sum(line["event"] == "begun" for line in runs(fleet)[0]) > 2, 30, "it to be under way")
    second = fleet.run("enable", "--resume", "--yes")
    first.communicate()
    assert second.returncode == 1
    assert "under way" in second.stderr
    assert first.returncode == 0


def test_at_another_hypervisor_a_run_is_not_gone_on_with_and_is_not_closed_there(
    fleet: MemoryFleet, tmp_path: Path
) -> None:
    for name in "abc":
        fleet.add(name)
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(fleet.path.read_text())
    before = elsewhere.read_bytes()
    args = ("enable", "memory: *", "--yes", "--parallel", "1")
    killed = fleet.run(*args, NESTVIRT_MEMORY_DIE="2")
    assert killed.returncode == -signal.SIGKILL
    assert fleet.vms()["b"]["power"] == "stopped"
    rows = fleet.rows("enable", "--resume", "--yes", NESTVIRT_MEMORY_PATH=str(elsewhere))
    for name in "bc":
        error = rows[f"memory:id-{name}"]["error"]
        assert error["kind"] == "ChangeRejected"
        assert str(fleet.path) in error["evidence"]
        assert str(elsewhere) in error["evidence"]
    assert elsewhere.read_bytes() == before
    assert fleet.run("enable", "--resume", "--yes").returncode == 0
    assert all(vm["live"] == "on" and vm["boots"] == 1 for vm in fleet.vms().values())


def test_a_run_is_not_gone_on_with_over_a_vm_that_has_only_the_name(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    fleet.run("enable", "memory:a", "memory:b", "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE="1")
    vms = json.loads(fleet.path.read_text())
    vms["id-new"] = {**vms.pop("id-b"), "power": "running"}
    fleet.path.write_text(json.dumps(vms))
    rows = fleet.rows("enable", "--resume", "--yes")
    assert rows["memory:a"]["ending"] == "pass"
    evidence = rows["memory:b"]["error"]["evidence"]
    assert "id-b" in evidence
    assert "id-new" in evidence
    assert fleet.vms()["b"].get("nested") is None


def test_a_batch_is_not_exceeded_by_those_that_a_killed_run_left_down(fleet: MemoryFleet) -> None:
    for name in ("f0", "f1"):
        fleet.add(name, fragile=True)
    for name in "abce":
        fleet.add(name)
    args = ("enable", "memory: *", "--yes", "--batch", "2", "--max-failures", "9")
    running = fleet.begin(*args, NESTVIRT_MEMORY_BOOT="1.5")
    both = ("a", "b")
    wait_for(lambda: all(fleet.vms()[n]["power"] == "stopped" for n in both), 60, "a and b to be off")
    running.kill()
    running.communicate()
    again = fleet.begin("enable", "--resume", "--yes", NESTVIRT_MEMORY_BOOT="0.3")
    most = 0
    while again.poll() is None:
        most = max(most, sum(vm["power"] == "stopped" for vm in fleet.vms().values()))
    again.communicate()
    assert most == 2
    assert all(vm["power"] == "running" for vm in fleet.vms().values())
    assert all(fleet.vms()[name]["live"] == "on" for name in "abce")


@pytest.mark.parametrize("limits", [("--max-failures", "1"), ("--batch", "2")])
def test_who_was_left_off_is_started_however_many_have_failed(
    fleet: MemoryFleet, limits: tuple[str, str]
) -> None:
    fleet.add("a", fragile=limits[0] == "--batch")
    fleet.add("b")
    fleet.add("c")
    args = ("enable", "memory: *", "--yes", *limits)
    running = fleet.begin(*args, NESTVIRT_MEMORY_BOOT="3")
    wait_for(lambda: all(fleet.vms()[n]["power"] == "stopped" for n in "ab"), 60, "a and b to be off")
    running.kill()
    running.communicate()
    vms = json.loads(fleet.path.read_text())
    if limits[0] == "--max-failures":
        del vms["id-c"]  # so that its plan fails
        fleet.path.write_text(json.dumps(vms))
    rows = fleet.rows("enable", "--resume", "--yes", "--parallel", "1")
    assert {fleet.vms()[name]["power"] for name in "ab"} == {"running"}
    assert rows["memory:id-b"]["ending"] == "pass"
    assert rows["memory:id-c"]["ending"] == ("not-begun" if "id-c" in vms else "fail")


def test_what_was_done_after_a_run_is_not_taken_back_by_resume(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("off", running=False)
    fleet.run("enable", "memory: *", "--yes")
    assert fleet.run("disable", "memory: *", "--yes").returncode == 0
    before = fleet.path.read_bytes()
    done = fleet.run("enable", "--resume", "--yes")
    assert done.returncode == 2
    assert "(disable)" in done.stderr
    assert fleet.path.read_bytes() == before


def test_what_the_fleet_file_says_holds_for_a_hypervisor_that_was_down_at_first(fleet: MemoryFleet) -> None:
    fleet.add("a")
    gone = fleet.folder / "gone.json"
    (fleet.folder / "config.toml").write_text(f'[profiles.q]\nbackend = "memory"\npath = "{gone}"\n')
    file = fleet.folder / "fleet.toml"
    file.write_text(
        '[groups.all]\ntargets = ["memory:a", "memory@q: *"]\n'
        '[targets."memory@q: *"]\nnode = "{name}.lab"\n[targets."memory@q:c"]\nnode = "third"\n'
    )
    fleet.run("enable", "--targets", str(file), "--yes", NESTVIRT_MEMORY_DIE="1")
    for name in "bc":
        fleet.add(name, path=gone)
    assert fleet.run("enable", "--resume", "--yes").returncode == 0
    told = [line for line in runs(fleet)[0] if line["event"] == "members"][-1]["members"]
    nodes = {member["written"]: member.get("node") for member in told}
    assert nodes == {"memory:a": None, "memory@q:id-b": "b.lab", "memory@q:id-c": "third"}


def test_where_the_newest_record_cannot_be_read_no_older_run_is_gone_on_with(fleet: MemoryFleet) -> None:
    for name in "abc":
        fleet.add(name)
    fleet.run("enable", "memory: *", "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE="2")
    fleet.run("disable", "memory: *", "--yes")
    enabled, disabled = sorted((fleet.state / "fleets").glob("*.jsonl"))
    disabled.write_text("no JSON\n")
    before = fleet.path.read_bytes()
    done = fleet.run("enable", "--resume", "--yes")
    assert done.returncode == 2
    assert f"nestvirt enable --resume {enabled.stem}" in done.stderr
    assert fleet.path.read_bytes() == before


def test_a_name_that_is_no_utf_8_is_its_own_row_only(fleet: MemoryFleet) -> None:
    fleet.add("a")
    names = ("memory:a", os.fsdecode(b"memory:b\xff"))
    rows = fleet.rows("enable", *names, "--yes")
    assert [row["ending"] for row in rows.values()] == ["pass", "fail"]
    assert fleet.vms()["a"]["live"] == "on"
