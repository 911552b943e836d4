"""How a run over many ends: what counts as failed, what is told of each, and what is left open."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab import wait_for
from tests.peers.memory_fleet import COMMAND, TIMEOUT, MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    return MemoryFleet(tmp_path)


def the_record(fleet: MemoryFleet) -> Path:
    [path] = (fleet.state / "fleets").glob("*.jsonl")
    return path


# --- the disk is full


def many(folder: Path) -> MemoryFleet:
    """So many that the run's record is longer than any other file that is written."""
    folder.mkdir()
    fleet = MemoryFleet(folder)
    for number in range(20):
        fleet.add(f"vm-{number:02}", nested="on", live="on")
    fleet.add("off-a")
    return fleet


@pytest.mark.parametrize(("event", "said"), [("ended", "what came of memory:id-off-a"), ("end", "its end")])
def test_where_the_disk_is_full_the_report_still_says_what_came_of_all(
    tmp_path: Path, event: str, said: str
) -> None:
    words = ("enable", "memory: *", "--yes", "-o", "json")
    model, fleet = many(tmp_path / "model"), many(tmp_path / "small")
    model.run(*words)
    lines = the_record(model).read_bytes().splitlines(keepends=True)
    at = max(number for number, line in enumerate(lines) if json.loads(line)["event"] == event)
    room = len(b"".join(lines[:at])) + 3

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    done = subprocess.run(
        [*COMMAND, *words],
        env=fleet.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        preexec_fn=fill,
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert {row["ending"] for row in told["fleet"]} == {"pass"}
    assert [row["target"] for row in told["fleet"] if row["changed"]] == ["memory:id-off-a"]
    assert f"{said} is not in the record of run {told['run']}" in done.stderr
    assert "No space left" in done.stderr


# --- what counts as failed


def test_of_a_batch_those_that_are_not_to_be_restarted_have_nothing_to_prove(fleet: MemoryFleet) -> None:
    for name in "abcd":
        fleet.add(name)
    fleet.run("enable", "memory: *", "--yes", "--no-restart", "--batch", "2")
    assert [vm["nested"] for vm in fleet.vms().values()] == ["on"] * 4
    assert all("boots" not in vm for vm in fleet.vms().values())


def test_what_fails_in_the_plan_counts_where_an_end_after_failures_was_asked_for(fleet: MemoryFleet) -> None:
    fleet.add("a")
    names = ("memory:nope", "memory:no", "memory:a", "--yes")
    before = fleet.path.read_bytes()
    rows = fleet.rows("enable", *names, "--max-failures", "2")
    assert (rows["memory:a"]["ending"], rows["memory:a"]["note"]) == ("not-begun", "2 had failed already")
    assert fleet.path.read_bytes() == before
    asked = fleet.run("enable", *names[:-1], "--max-failures", "2")
    assert (asked.returncode, "--yes" in asked.stderr) == (1, False)  # there is nothing to be asked for
    rows = fleet.rows("enable", *names, "--max-failures", "2", "--dry-run")
    assert rows["memory:a"]["ending"] == "plan"
    rows = fleet.rows("enable", *names, "--batch", "1")  # that is only for what was done
    assert rows["memory:a"]["ending"] == "pass"


def test_failures_of_the_plan_and_those_after_it_are_counted_together(fleet: MemoryFleet) -> None:
    fleet.add("fragile", fragile=True)
    fleet.add("a")
    words = ("memory:nope", "memory:fragile", "memory:a", "--yes", "--parallel", "1")
    rows = fleet.rows("enable", *words, "--max-failures", "2")
    assert rows["memory:fragile"]["error"]["kind"] == "PowerError"
    assert (rows["memory:a"]["ending"], rows["memory:a"]["note"]) == ("not-begun", "2 had failed already")


# --- one VM by two names


def test_two_profiles_of_one_hypervisor_are_one_vm(fleet: MemoryFleet) -> None:
    fleet.add("a")
    lab = f'[profiles.lab]\nbackend = "memory"\npath = "{fleet.path}"\n'
    (fleet.folder / "config.toml").write_text(lab)
    done = fleet.run("enable", "memory:a", "memory@lab:a", "--yes", "-o", "json")
    first, again = json.loads(done.stdout)["fleet"]
    assert done.returncode == 0
    assert (first["ending"], again["ending"], again["changed"]) == ("pass", "pass", False)
    assert again["note"] == "the same VM as memory:a"
    assert fleet.vms()["a"]["boots"] == 1
    assert json.loads(the_record(fleet).read_text().splitlines()[-1])["event"] == "end"


def test_two_ways_to_one_hypervisor_wait_for_each_other(fleet: MemoryFleet) -> None:
    """Where not even the hypervisor's address tells that it is one."""
    fleet.add("a")
    (fleet.folder / "way.json").symlink_to(fleet.path)
    lab = f'[profiles.lab]\nbackend = "memory"\npath = "{fleet.folder}/way.json"\n'
    (fleet.folder / "config.toml").write_text(lab)
    rows = fleet.rows("enable", "memory:a", "memory@lab:a", "--yes", NESTVIRT_MEMORY_BOOT="0.5")
    assert {row["ending"] for row in rows.values()} == {"pass"}
    assert sorted(row["changed"] for row in rows.values()) == [False, True]
    assert fleet.vms()["a"]["boots"] == 1


# --- what is left open


def test_while_vms_are_off_the_run_is_open_and_says_so(fleet: MemoryFleet) -> None:
    for name in "ab":
        fleet.add(name)
    running = fleet.begin("enable", "memory: *", "--yes", NESTVIRT_MEMORY_BOOT="2")
    wait_for(lambda: all(vm["power"] == "stopped" for vm in fleet.vms().values()), 30, "both to be off")
    time.sleep(0.2)  # until both are being started
    away = fleet.path.rename(fleet.folder / "away.json")
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "2 may be off still, which a run has shut down" in out
    assert f"to go on: nestvirt enable --resume {the_record(fleet).stem}" in out
    assert fleet.run("enable", "--resume", "--yes").returncode == 3  # it is away still
    away.rename(fleet.path)
    assert fleet.run("enable", "--resume", "--yes").returncode == 0
    assert all(vm["live"] == "on" for vm in fleet.vms().values())
    assert fleet.run("enable", "--resume", "--yes").returncode == 2


# --- a line for each


def test_who_was_through_before_has_a_line_too(fleet: MemoryFleet) -> None:
    for name in "abc":
        fleet.add(name)
    fleet.run("enable", "memory: *", "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE="2")
    lines = fleet.run("enable", "--resume", "--yes", "-o", "jsonl").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert sorted(row["target"] for row in told[:-1]) == [f"memory:id-{name}" for name in "abc"]
    assert told[-1]["summary"]["total"] == 3
