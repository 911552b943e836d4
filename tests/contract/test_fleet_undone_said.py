"""A run over many that is taken back: what is said of each VM, and what the records lack or lose."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import pytest

from tests.contract.fleet_runs import definitions, enabled, fleet_runs, run_of
from tests.peers.memory_fleet import COMMAND, TIMEOUT, MemoryFleet

FILLED = json.dumps({"event": "ended", "target": "memory:id-vm-00", "ending": "pass"}) + "\n"


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    return MemoryFleet(tmp_path)


# --- the disk is full


def many(folder: Path) -> tuple[MemoryFleet, str]:
    """So many that the records of runs over them are longer than any other file; and the run over them."""
    folder.mkdir()
    fleet = MemoryFleet(folder)
    for number in range(20):
        fleet.add(f"vm-{number:02}", running=False)
    return fleet, enabled(fleet)


def record_of(fleet: MemoryFleet, run: str) -> Path:
    return fleet.state / f"fleets/{run}.jsonl"


def before(path: Path, event: str) -> int:
    """How long a record was when a line, the last one of its kind, was written."""
    lines = path.read_bytes().splitlines(keepends=True)
    at = max(number for number, line in enumerate(lines) if json.loads(line)["event"] == event)
    return len(b"".join(lines[:at]))


def undo(fleet: MemoryFleet, run: str, room: int) -> subprocess.CompletedProcess[str]:
    """In a process that can write no file that is longer."""

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    return subprocess.run(
        [*COMMAND, "undo", run, "--yes", "-o", "json"],
        env=fleet.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        preexec_fn=fill,
    )


@pytest.mark.parametrize(("event", "said"), [("ended", "what came of memory:id-vm-19"), ("end", "its end")])
def test_where_the_disk_is_full_the_report_still_says_what_came_of_all(
    tmp_path: Path, event: str, said: str
) -> None:
    (model, first), (fleet, run) = many(tmp_path / "model"), many(tmp_path / "small")
    assert model.run("undo", first, "--yes").returncode == 0
    path = record_of(fleet, run)  # made shorter than the undo's own
    lines = [json.dumps(json.loads(line), separators=(",", ":")) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{line}\n" for line in lines))
    done = undo(fleet, run, room=before(record_of(model, run_of(model, "undo")), event) + 3)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert {row["ending"] for row in told["fleet"]} == {"pass"}
    assert all(row["changed"] for row in told["fleet"])
    assert f"{said} is not in the record of run {run_of(fleet, 'undo')}" in done.stderr
    assert not any("nested" in vm for vm in fleet.vms().values())


def test_where_the_end_cannot_be_noted_in_the_run_that_is_taken_back_the_same_undo_notes_it(
    tmp_path: Path,
) -> None:
    fleet, run = many(tmp_path / "small")
    path = record_of(fleet, run)
    path.write_text(path.read_text() + FILLED * 20)  # it is the longest
    undoing = len(json.dumps({"event": "undoing"})) + 1
    done = undo(fleet, run, room=path.stat().st_size + undoing + 3)
    assert done.returncode == 0
    assert {row["ending"] for row in json.loads(done.stdout)["fleet"]} == {"pass"}
    assert f"that all is undone is not in the record of run {run}: " in done.stderr
    assert fleet_runs(fleet)[-1]["state"] == "partly undone"
    assert fleet.run("undo", run, "--yes").returncode == 0
    assert fleet_runs(fleet)[-1]["state"] == "undone"


def test_where_it_cannot_be_noted_that_it_is_taken_back_nothing_is_touched(tmp_path: Path) -> None:
    fleet, run = many(tmp_path / "small")
    path = record_of(fleet, run)
    path.write_text(path.read_text() + FILLED * 20)
    vms = fleet.path.read_bytes()
    done = undo(fleet, run, room=path.stat().st_size + 3)
    assert done.returncode == 1
    assert "cannot be written, so nothing more is begun" in done.stdout
    assert fleet.path.read_bytes() == vms


# --- every row


def test_every_row_is_a_line_with_its_name(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b", nested="on", live="on")
    fleet.add("idle", running=False)
    run = enabled(fleet)
    lines = fleet.run("undo", run, "--yes", "-o", "jsonl").stdout.splitlines()
    rows = [row for row in map(json.loads, lines) if "target" in row]
    assert sorted((row["target"], row["ending"]) for row in rows) == [
        ("memory:id-a", "pass"),
        ("memory:id-b", "pass"),
        ("memory:id-idle", "pass"),
    ]
    again = fleet.rows("undo", run, "--yes")
    assert again["memory:id-a"]["name"] == "a"


def test_two_names_of_one_vm_are_taken_back_once(fleet: MemoryFleet) -> None:
    fleet.add("a")
    lab = f'[profiles.q]\nbackend = "memory"\npath = "{fleet.path}"\n'
    (fleet.folder / "config.toml").write_text(lab)
    vms = definitions(fleet.path)
    assert fleet.run("enable", "memory:a", "memory@q:a", "--yes").returncode == 0
    rows = fleet.rows("undo", run_of(fleet), "--yes")
    assert {name: (row["ending"], row["changed"]) for name, row in rows.items()} == {
        "memory:a": ("pass", True),
        "memory@q:a": ("pass", False),
    }
    assert definitions(fleet.path) == vms
    shown = fleet.run("undo", run_of(fleet), "--dry-run")
    assert "nothing to put back: it is the same VM as memory:a" in shown.stdout


def test_where_its_hypervisor_is_away_who_may_be_off_is_told_and_how_to_go_on(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.run("enable", "memory:a", "--yes", NESTVIRT_MEMORY_DIE="1")
    run = run_of(fleet)
    vms, gone = fleet.path.read_bytes(), fleet.folder / "gone.json"
    fleet.path.rename(gone)
    away = fleet.run("undo", run, "--yes")
    assert away.returncode == 3
    assert "1 may be off still, which a run has shut down" in away.stdout
    assert f"to go on: nestvirt undo {run}\n" in away.stdout
    gone.rename(fleet.path)
    assert fleet.path.read_bytes() == vms
    assert fleet.run("undo", run, "--yes").returncode == 0
    assert fleet.vms()["a"]["power"] == "running"


# --- what is on record


def test_an_ill_record_costs_the_row_of_its_vm_only(fleet: MemoryFleet) -> None:
    fleet.add("a")
    fleet.add("b")
    run = enabled(fleet)
    singles = json.loads(fleet.run("undo", "--list", "-o", "json").stdout)["runs"]
    single = next(told["run"] for told in singles if told["target"] == "memory:id-a")
    path = fleet.state / f"runs/{single}.jsonl"
    whole = path.read_text()
    path.write_text(whole + "{}\n")
    rows = fleet.rows("undo", run, "--yes", "--batch", "1", "--max-failures", "9")
    assert str(path) in rows["memory:id-a"]["error"]["message"]
    assert rows["memory:id-b"]["ending"] == "pass"
    path.write_text(whole)
    assert fleet.run("undo", run, "--yes").returncode == 0
    assert not any("nested" in vm for vm in fleet.vms().values())


@pytest.mark.parametrize("over", ["one", "many"])
def test_what_a_later_run_has_gone_on_with_is_taken_back_with_that(fleet: MemoryFleet, over: str) -> None:
    fleet.add("a")
    fleet.add("b")
    vms = definitions(fleet.path)
    fleet.run("enable", "memory: *", "--yes", "--parallel", "1", NESTVIRT_MEMORY_DIE="1")
    run = run_of(fleet)
    later = ["memory:a"] if over == "one" else ["memory:a", "memory:b"]
    assert fleet.run("enable", *later, "--yes").returncode == 0
    newest = run_of(fleet)
    rows = fleet.rows("undo", run, "--yes")
    assert "has gone on with what run" in rows["memory:id-a"]["error"]["message"]
    assert rows["memory:id-a"]["error"]["cure"] == f"take that back first: nestvirt undo {newest}"
    assert fleet_runs(fleet)[-1]["state"] != "undone"
    assert fleet.run("undo", newest, "--yes").returncode == 0
    assert fleet.run("undo", run, "--yes").returncode == 0
    assert definitions(fleet.path) == vms
    assert fleet_runs(fleet)[-1]["state"] == "undone"
