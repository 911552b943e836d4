"""A run over many VMs that is taken back as a whole: whole processes, killed ones too."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from nestvirt.fleet.record import FleetRuns
from nestvirt.fleet.selection import Member
from nestvirt.journal import Journal
from nestvirt.model import Change, Power, Target, Vm
from tests.contract.fleet_runs import asked, definitions, edit, enabled, fleet_runs, in_effect, run_of
from tests.peers.memory_fleet import MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    made = MemoryFleet(tmp_path)
    made.add("a")
    made.add("b", nested="off", live="off")
    made.add("idle", running=False)
    return made


def test_all_of_it_is_as_it_was_byte_for_byte_after_one_plan(fleet: MemoryFleet) -> None:
    before = definitions(fleet.path)
    done = fleet.run("enable", "memory: *", "--yes")
    run = run_of(fleet)
    assert f"to put all of it back: nestvirt undo {run}\n" in done.stdout
    assert definitions(fleet.path) != before
    undone = fleet.run("undo", run, "--yes")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert "will write nested and power-cycle the VM: memory:id-a (a), memory:id-b (b)\n" in undone.stderr
    assert definitions(fleet.path) == before
    assert in_effect(fleet)
    assert "put all of it back" not in undone.stdout
    listed = [(told["command"], told["targets"], told["state"]) for told in fleet_runs(fleet)]
    assert listed == [("undo", 3, "ended"), ("enable", 3, "undone")]
    assert "3 targets" in fleet.run("undo", "--list").stdout
    of_one = json.loads(fleet.run("undo", "--list", "--host", "elsewhere", "-o", "json").stdout)
    assert (of_one["runs"], of_one["fleet_runs"]) == ([], [])


def test_a_disable_is_taken_back_too(fleet: MemoryFleet) -> None:
    enabled(fleet)
    before = definitions(fleet.path)
    fleet.run("disable", "memory: *", "--yes")
    assert definitions(fleet.path) != before
    assert fleet.run("undo", run_of(fleet, "disable"), "--yes").returncode == 0
    assert definitions(fleet.path) == before
    assert in_effect(fleet)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_line_of_its_records_it_is_taken_back(fleet: MemoryFleet, when: str) -> None:
    before, pristine = definitions(fleet.path), fleet.path.read_bytes()
    found: set[str] = set()
    for line in range(2, 100):
        done = fleet.run(
            *("enable", "memory: *", "--yes", "--parallel", "1"),
            NESTVIRT_MEMORY_DIE_AT=f"{when} {line}",
        )
        if done.returncode != -signal.SIGKILL:
            break
        found.add(definitions(fleet.path))
        undone = fleet.run("undo", run_of(fleet), "--yes")
        assert undone.returncode == 0, (line, undone.stdout, undone.stderr)
        assert definitions(fleet.path) == before, line
        assert in_effect(fleet), line
        states = {
            told["state"] for told in json.loads(fleet.run("undo", "--list", "-o", "json").stdout)["runs"]
        }
        assert states <= {"undone"}, line
        fleet.path.write_bytes(pristine)
        shutil.rmtree(fleet.state)
    assert line > 18  # of each VM: begun, its own four, ended
    assert len(found) > 3


def test_killed_while_it_is_taken_back_the_same_command_again_ends_it(fleet: MemoryFleet) -> None:
    before = definitions(fleet.path)
    run = enabled(fleet)
    held, state = fleet.path.read_bytes(), fleet.folder / "saved"
    shutil.copytree(fleet.state, state)
    found: set[str] = set()
    for line in range(1, 100):
        killed = fleet.run("undo", run, "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE_AT=f"before {line}")
        if killed.returncode != -signal.SIGKILL:
            break
        found.add(definitions(fleet.path))
        resumed = fleet.run("enable", "--resume", run, "--yes") if line > 2 else None
        assert resumed is None or resumed.returncode == 2, line
        undone = fleet.run("undo", run, "--yes")
        assert undone.returncode == 0, (line, undone.stdout, undone.stderr)
        assert definitions(fleet.path) == before, line
        assert in_effect(fleet), line
        assert fleet_runs(fleet)[-1]["state"] == "undone"
        fleet.path.write_bytes(held)
        shutil.rmtree(fleet.state)
        shutil.copytree(state, fleet.state)
    assert line > 14
    assert len(found) > 3


def test_gone_on_with_after_a_kill_all_of_its_runs_are_taken_back(fleet: MemoryFleet) -> None:
    before = definitions(fleet.path)
    fleet.run("enable", "memory: *", "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE="2")
    fleet.run("enable", "--resume", "--yes")
    assert all(vm["nested"] == "on" for vm in fleet.vms().values())
    rows = fleet.rows("undo", run_of(fleet), "--yes")
    assert {row["ending"] for row in rows.values()} == {"pass"}
    assert definitions(fleet.path) == before
    assert in_effect(fleet)


def test_killed_twice_while_it_was_off_a_vm_is_started_once(fleet: MemoryFleet) -> None:
    before = definitions(fleet.path)
    fleet.run("enable", "memory:a", "--yes", NESTVIRT_MEMORY_DIE="1")
    fleet.run("enable", "--resume", "--yes", NESTVIRT_MEMORY_DIE="1")
    assert fleet.vms()["a"]["power"] == "stopped"
    rows = fleet.rows("undo", run_of(fleet), "--yes")
    assert rows["memory:a"]["ending"] == "pass"
    assert definitions(fleet.path) == before
    assert fleet.vms()["a"]["boots"] == 1


def test_of_several_runs_of_one_vm_the_newest_is_undone_first(fleet: MemoryFleet) -> None:
    before = definitions(fleet.path)
    target, journal = Target("memory", "a"), Journal(fleet.state)
    with FleetRuns(fleet.state).begin("enable", [Member("memory:a", target)], {}) as record:
        journal.fleet = record.id
        for change in (Change("nested", None, "off"), Change("nested", "off", "on")):
            own = journal.begin("enable", target, Vm("id-a", "a"), Power.RUNNING, {"path": str(fleet.path)})
            own.intend(change)
            own.kept(change, change.after)
            own.end("applied")
    edit(fleet, "a", nested="on", live="on")
    [planned] = fleet.rows("undo", record.id, "--dry-run").values()
    assert [(change["before"], change["after"]) for change in planned["changes"]] == [
        ("on", "off"),
        ("off", None),
    ]
    [row] = fleet.rows("undo", record.id, "--yes").values()
    assert row["ending"] == "pass"
    assert definitions(fleet.path) == before
    assert in_effect(fleet)


def test_a_dry_run_touches_nothing_and_says_what_would_be_done(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    state = {p: p.read_bytes() for p in fleet.state.rglob("*") if p.is_file()}
    before = fleet.path.read_bytes()
    rows = fleet.rows("undo", run, "--dry-run")
    assert {row["ending"] for row in rows.values()} == {"plan"}
    assert "it would write nested and power-cycle the VM" in rows["memory:id-a"]["remains"][0]
    assert fleet.path.read_bytes() == before
    assert {p: p.read_bytes() for p in fleet.state.rglob("*") if p.is_file()} == state


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 130)], ids=["yes", "no"])
def test_it_is_asked_once_and_the_answer_counts(fleet: MemoryFleet, answer: bytes, code: int) -> None:
    before = definitions(fleet.path)
    run = enabled(fleet)
    with asked(fleet, "undo", run) as (running, terminal):
        os.write(terminal, answer)
        _, said = running.communicate(timeout=60)
    assert running.returncode == code
    assert "Change" not in said
    assert (definitions(fleet.path) == before) is (code == 0)
    assert fleet_runs(fleet)[-1]["state"] == ("undone" if code == 0 else "ended")


def test_never_more_than_the_batch_of_the_run_is_down_at_once(fleet: MemoryFleet) -> None:
    for number in range(4):
        fleet.add(f"vm-{number}")
    before = definitions(fleet.path)
    # How long a boot takes is of the endpoint, and so recorded.
    fleet.run(
        "enable", "memory: *", "--yes", "--batch", "2", "--max-failures", "9", NESTVIRT_MEMORY_BOOT="0.2"
    )
    running = fleet.begin("undo", run_of(fleet), "--yes")
    most = 0
    while running.poll() is None:
        most = max(most, sum(vm["power"] == "stopped" for vm in fleet.vms().values()) - 1)  # one is idle
    running.communicate()
    assert running.returncode == 0
    assert 0 < most <= 2
    assert definitions(fleet.path) == before


@pytest.mark.parametrize("form", ["jsonl", "junit", "html", "nagios"])
def test_it_is_told_in_every_form_of_a_fleet(fleet: MemoryFleet, form: str) -> None:
    done = fleet.run("undo", enabled(fleet), "--yes", "-o", form)
    assert done.returncode == 0
    assert "memory:id-a" in done.stdout or form == "nagios"
    assert "undo of 3" in done.stdout or '"command": "undo"' in done.stdout or form == "junit"
