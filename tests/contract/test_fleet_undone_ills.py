"""A run over many VMs that is taken back, where something or somebody is in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nestvirt.journal import Journal
from nestvirt.model import Change, Power, Target, Vm
from tests.contract.fleet_runs import asked, definitions, edit, enabled, fleet_runs, run_of
from tests.peers.memory_fleet import MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    made = MemoryFleet(tmp_path)
    made.add("a")
    made.add("b", nested="off", live="off")
    made.add("idle", running=False)
    return made


def test_what_is_no_run_of_it_is_not_taken_back(fleet: MemoryFleet) -> None:
    fleet.run("enable", "memory:a", "memory:idle", "--yes", NESTVIRT_MEMORY_DIE_AT="after 2")
    run = run_of(fleet)
    # By hand, after it was killed: what it had begun, and had not come to.
    edit(fleet, "a", power="stopped")
    own = Journal(fleet.state).begin(
        "enable", Target("memory", "a"), Vm("id-a", "a"), Power.STOPPED, {"path": str(fleet.path)}
    )
    own.intend(Change("nested", None, "on"))
    edit(fleet, "a", nested="on")
    own.kept(Change("nested", None, "on"), "on")
    own.end("applied")
    before = fleet.path.read_bytes()
    rows = fleet.rows("undo", run, "--yes")
    assert {row["ending"] for row in rows.values()} == {"pass"}
    assert fleet.path.read_bytes() == before


def test_what_somebody_else_has_changed_since_is_a_row_of_its_own(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    edit(fleet, "a", nested="other")
    done = fleet.run("undo", run, "--yes", "-o", "json")
    rows = {row["target"]: row for row in json.loads(done.stdout)["fleet"]}
    assert done.returncode == 1
    assert rows["memory:id-a"]["error"]["kind"] == "ChangeRejected"
    assert "changed by somebody else" in rows["memory:id-a"]["error"]["message"]
    assert [rows[f"memory:id-{name}"]["ending"] for name in ("b", "idle")] == ["pass", "pass"]
    assert fleet.vms()["a"]["nested"] == "other"
    assert fleet.vms()["b"]["nested"] == "off"
    assert fleet_runs(fleet)[-1]["state"] == "partly undone"
    edit(fleet, "a", nested="on")
    assert fleet.run("undo", run, "--yes").returncode == 0
    assert fleet_runs(fleet)[-1]["state"] == "undone"


def test_what_was_put_back_by_hand_before_is_nothing_to_put_back(fleet: MemoryFleet) -> None:
    before = definitions(fleet.path)
    run = enabled(fleet)
    singles = json.loads(fleet.run("undo", "--list", "-o", "json").stdout)["runs"]
    single = next(told["run"] for told in singles if told["target"] == "memory:id-a")
    assert fleet.run("undo", single, "--yes").returncode == 0
    vms = json.loads(fleet.path.read_text())
    del vms["id-idle"]["nested"]  # not by nestvirt
    fleet.path.write_text(json.dumps(vms))
    shown = fleet.rows("undo", run, "--dry-run")
    assert {name: row["ending"] for name, row in shown.items()} == {
        "memory:id-a": "pass",
        "memory:id-b": "plan",
        "memory:id-idle": "pass",
    }
    done = fleet.run("undo", run, "--yes")
    assert done.returncode == 0
    assert f"nothing to put back: run {single} is undone already" in done.stdout
    assert "nothing to put back: it is as it was before" in done.stdout
    assert definitions(fleet.path) == before
    assert fleet.vms()["a"]["boots"] == 2
    again = fleet.run("undo", run, "--yes")
    assert again.returncode == 0
    assert again.stdout.count("nothing to put back") == 3


def test_who_was_stopped_since_the_plan_was_shown_is_left_alone(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    with asked(fleet, "undo", run, "-o", "json") as (running, terminal):
        edit(fleet, "a", power="stopped", live=None)
        os.write(terminal, b"y\n")
        out, _ = running.communicate(timeout=60)
    rows = {row["target"]: row for row in json.loads(out)["fleet"]}
    assert "agreed to" in rows["memory:id-a"]["error"]["message"]
    assert rows["memory:id-b"]["ending"] == "pass"
    assert fleet.vms()["a"]["nested"] == "on"


def test_one_that_fails_is_the_last_of_a_batch(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    edit(fleet, "a", deaf=True)
    rows = fleet.rows("undo", run, "--yes", "--batch", "1")
    endings = {name: row["ending"] for name, row in rows.items()}
    assert endings == {"memory:id-a": "fail", "memory:id-b": "not-begun", "memory:id-idle": "not-begun"}
    told = fleet.run("undo", run, "--yes", "--batch", "1")
    assert f"to go on: nestvirt undo {run}\n" in told.stdout
    rows = fleet.rows("undo", run, "--yes", "--force-off")
    assert {row["ending"] for row in rows.values()} == {"pass"}


def test_an_endpoint_that_is_down_costs_its_own_rows_only(fleet: MemoryFleet) -> None:
    other = fleet.folder / "other.json"
    fleet.add("there", path=other)
    lab = f'[profiles.lab]\nbackend = "memory"\npath = "{other}"\n'
    (fleet.folder / "config.toml").write_text(lab)
    before = definitions(fleet.path), definitions(other)
    fleet.run("enable", "memory: *", "memory@lab: *", "--yes")
    (fleet.folder / "config.toml").write_text("")  # it connects where the run did
    elsewhere = fleet.folder / "elsewhere.json"
    other.rename(elsewhere)
    done = fleet.run(
        *("undo", run_of(fleet), "--yes", "-o", "json"),
        NESTVIRT_MEMORY_PATH=str(fleet.folder / "nowhere.json"),
    )
    rows = {row["target"]: row for row in json.loads(done.stdout)["fleet"]}
    assert done.returncode == 3
    assert rows["memory@lab:id-there"]["error"]["kind"] == "ConnectionFailed"
    assert rows["memory:id-a"]["ending"] == "pass"
    assert definitions(fleet.path) == before[0]
    elsewhere.rename(other)
    assert fleet.run("undo", run_of(fleet), "--yes").returncode == 0
    assert definitions(other) == before[1]


def test_a_vm_that_is_gone_or_was_renamed(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    vms = json.loads(fleet.path.read_text())
    vms["id-a"]["name"] = "renamed"
    del vms["id-b"]
    fleet.path.write_text(json.dumps(vms))
    rows = fleet.rows("undo", run, "--yes")
    assert rows["memory:id-a"]["ending"] == "pass"
    assert "nested" not in fleet.vms()["renamed"]
    assert "not to be found" in rows["memory:id-b"]["error"]["message"]


def test_a_vm_whose_own_record_is_gone_is_no_success(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    singles = json.loads(fleet.run("undo", "--list", "-o", "json").stdout)["runs"]
    single = next(told["run"] for told in singles if told["target"] == "memory:id-a")
    (fleet.state / f"runs/{single}.jsonl").unlink()
    rows = fleet.rows("undo", run, "--yes")
    assert rows["memory:id-a"]["error"]["kind"] == "JournalError"
    assert rows["memory:id-b"]["ending"] == "pass"


def test_two_cannot_take_it_back_at_once(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    with asked(fleet, "undo", run) as (running, terminal):
        assert fleet_runs(fleet)[-1]["state"] == "under way"
        second = fleet.run("undo", run, "--yes")
        os.write(terminal, b"y\n")
        running.communicate(timeout=60)
    assert (running.returncode, second.returncode) == (0, 1)
    assert "under way" in second.stderr


def test_what_is_no_fleet_run_or_does_not_go_together_exits_with_2(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    singles = json.loads(fleet.run("undo", "--list", "-o", "json").stdout)["runs"]
    single = singles[0]["run"]
    before = fleet.path.read_bytes()
    wrong = [
        (["undo", "20260131-101500-1a2b3c"], "there is no run"),
        (["undo", "../runs/x"], "there is no run"),
        (["undo", run, "--libvirt", "a"], "--libvirt"),
        (["undo", run, "--drain", "a"], "--drain"),
        (["undo", run, "--context", "a"], "--context"),
        (["undo", run, "--delete-emptydir-data"], "--delete-emptydir-data"),
        (["undo", single, "--batch", "2"], "--batch"),
        (["undo", single, "--drain-nodes"], "--drain-nodes"),
        (["undo", single, "-o", "junit"], "-o junit"),
        (["undo", "--parallel", "2"], "--parallel"),
        (["undo", "--list", "-o", "html"], "-o html"),
        (["undo", run], "--yes"),
    ]
    for args, words in wrong:
        done = fleet.run(*args)
        assert (done.returncode, words in done.stderr) == (2, True), (args, done.stderr)
        assert "Traceback" not in done.stderr
    assert fleet.path.read_bytes() == before
    fleet.run("undo", run, "--yes")
    done = fleet.run("undo", run_of(fleet, "undo"), "--yes")
    assert (done.returncode, "an undo itself" in done.stderr) == (2, True)


def test_a_run_of_an_older_nestvirt_is_not_guessed_at(fleet: MemoryFleet) -> None:
    run = enabled(fleet)
    path = fleet.state / f"fleets/{run}.jsonl"
    path.write_text(path.read_text().replace('"traced": true, ', ""))
    before = fleet.path.read_bytes()
    done = fleet.run("undo", run, "--yes")
    assert (done.returncode, "older nestvirt" in done.stderr) == (2, True)
    assert fleet.path.read_bytes() == before


def test_what_was_taken_back_is_not_gone_on_with(fleet: MemoryFleet) -> None:
    fleet.run("enable", "memory: *", "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE="1")
    run = run_of(fleet)
    assert fleet.run("undo", run, "--yes").returncode == 0
    before = fleet.path.read_bytes()
    for args in (["--resume"], ["--resume", run]):
        done = fleet.run("enable", *args, "--yes")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert "was taken back" in done.stderr
    assert fleet.path.read_bytes() == before
