"""What a run over many says: once, truly, and to whoever still listens."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.lab import wait_for
from tests.peers.memory_fleet import MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    return MemoryFleet(tmp_path)


def test_a_reader_of_lines_who_leaves_ends_no_work(fleet: MemoryFleet) -> None:
    for number in range(6):
        fleet.add(f"vm-{number}")
    running = fleet.begin("enable", "memory: *", "-o", "jsonl", "--yes", "--parallel", "2")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    said = running.stderr.read()
    running.wait(timeout=60)
    assert all(vm["live"] == "on" for vm in fleet.vms().values())
    assert said.count("stdout cannot be written") == 1
    assert "Traceback" not in said
    assert fleet.run("enable", "--resume", "--yes").returncode == 2  # nothing was left to be done


def test_what_was_changed_and_not_proven_counts_as_changed(fleet: MemoryFleet) -> None:
    fleet.add("a")
    running = fleet.begin("enable", "memory:a", "--yes", "-o", "json", NESTVIRT_MEMORY_BOOT="2")
    wait_for(lambda: fleet.vms()["a"]["power"] == "stopped", 30, "it to be off")
    running.send_signal(signal.SIGINT)
    time.sleep(0.2)  # two signals at once may be one
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    told = json.loads(out)
    [row] = told["fleet"]
    assert row["error"]["kind"] == "Interrupted"
    changed = fleet.vms()["a"].get("nested") == "on"
    assert changed is ("has its change" in row["error"]["message"])
    assert row["changed"] is changed
    assert told["summary"]["changed"] == int(changed)


def test_what_was_put_back_counts_as_not_changed(fleet: MemoryFleet) -> None:
    fleet.add("fragile", fragile=True)
    rows = fleet.rows("enable", "memory:fragile", "--yes")
    assert rows["memory:fragile"]["error"]["kind"] == "PowerError"
    assert rows["memory:fragile"]["changed"] is False


def test_two_names_of_one_vm_are_one_row_and_no_failure(fleet: MemoryFleet) -> None:
    fleet.add("a")
    rows = fleet.rows("enable", "memory:a", "memory:id-a", "--yes")
    assert {name: row["ending"] for name, row in rows.items()} == {"memory:a": "pass"}


def test_a_table_of_the_fleet_file_that_is_nobodys_is_told(fleet: MemoryFleet) -> None:
    fleet.add("a", nested="on", live="on")
    file = fleet.folder / "fleet.toml"
    file.write_text('[groups.all]\ntargets = ["memory:a"]\n[targets."memory:zzz"]\nnode = "n"\n')
    done = fleet.run("check", "--targets", str(file))
    assert done.returncode == 0
    assert done.stderr.count('[targets."memory:zzz"] of the fleet file') == 1
    assert "zzz" not in fleet.run("check", "--targets", str(file), "--group", "all").stderr


def test_of_each_hypervisor_one_line_says_what_it_is_reached_with(fleet: MemoryFleet) -> None:
    fleet.add("a", nested="on", live="on")
    lab = f'[profiles.lab]\nbackend = "memory"\npath = "{fleet.path}"\nboot = "0"\n'
    (fleet.folder / "config.toml").write_text(lab)
    done = fleet.run("check", "memory@lab:a", "memory:a")
    lines = [line for line in done.stderr.splitlines() if "connecting" in line]
    assert [line.partition(";")[0] for line in lines] == [
        *("nestvirt: connecting to memory@lab", "nestvirt: connecting to memory"),
    ]
    assert lines[0].count(" is from ") == 2
