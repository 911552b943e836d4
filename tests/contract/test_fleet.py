"""A run over many VMs of the in-memory hypervisor, as its user meets it: whole processes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.peers.memory_fleet import COMMAND, MemoryFleet


@pytest.fixture
def fleet(tmp_path: Path) -> MemoryFleet:
    return MemoryFleet(tmp_path)


# --- check


def test_check_of_many_has_a_row_for_each_and_the_worst_as_exit_code(fleet: MemoryFleet) -> None:
    fleet.add("good", nested="on", live="on")
    fleet.add("bad")
    done = fleet.run("check", "memory:good", "memory:bad", "memory:nope", "-o", "json")
    rows = {row["target"]: row for row in json.loads(done.stdout)["fleet"]}
    assert list(rows) == ["memory:good", "memory:bad", "memory:nope"]
    assert [row["ending"] for row in rows.values()] == ["pass", "fail", "fail"]
    assert rows["memory:nope"]["error"]["kind"] == "TargetError"
    assert done.returncode == 1
    assert done.stderr == ""
    assert fleet.run("check", "memory:good").returncode == 0


def test_a_pattern_means_all_that_match_and_each_vm_is_once(fleet: MemoryFleet) -> None:
    for number in range(3):
        fleet.add(f"web-{number}", nested="on", live="on", tags=["k8s"])
    fleet.add("db", nested="on", live="on")
    rows = fleet.rows("check", "memory:id-web-1", "memory: tag=k8s", "memory: name=web-*")
    assert list(rows) == ["memory:id-web-1", "memory:id-web-0", "memory:id-web-2"]


def test_a_pattern_that_means_nothing_is_a_row_that_says_so(fleet: MemoryFleet) -> None:
    fleet.add("web", nested="on", live="on")
    rows = fleet.rows("check", "memory: name=wbe-*", "memory:web")
    assert rows["memory: name=wbe-*"]["error"]["kind"] == "TargetError"
    assert "web" in rows["memory: name=wbe-*"]["error"]["evidence"]
    assert rows["memory:web"]["ending"] == "pass"


def test_an_endpoint_that_is_down_costs_its_own_rows_only(fleet: MemoryFleet) -> None:
    fleet.add("web", nested="on", live="on")
    gone = f'[profiles.gone]\nbackend = "memory"\npath = "{fleet.folder}/nowhere.json"\n'
    (fleet.folder / "config.toml").write_text(gone)
    rows = fleet.rows("check", "memory@gone: *", "memory@gone:a", "memory:web")
    assert rows["memory@gone: *"]["error"]["kind"] == "ConnectionFailed"
    assert rows["memory@gone:a"]["error"]["kind"] == "ConnectionFailed"
    assert rows["memory:web"]["ending"] == "pass"


def test_the_fleet_file_names_groups(fleet: MemoryFleet) -> None:
    fleet.add("a", nested="on", live="on")
    fleet.add("b")
    file = fleet.folder / "fleet.toml"
    file.write_text('[groups.one]\ntargets = ["memory:a"]\n[groups.two]\ntargets = ["memory:b"]\n')
    assert list(fleet.rows("check", "--targets", str(file))) == ["memory:a", "memory:b"]
    assert list(fleet.rows("check", "--targets", str(file), "--group", "two")) == ["memory:b"]
    done = fleet.run("check", "--targets", str(file), "--group", "three")
    assert (done.returncode, done.stdout) == (2, "")
    assert "three" in done.stderr


def test_lines_come_as_each_ends_and_the_last_is_the_summary(fleet: MemoryFleet) -> None:
    fleet.add("a", nested="on", live="on")
    fleet.add("b")
    lines = fleet.run("check", "memory: *", "memory:nope", "-o", "jsonl").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert sorted(row["target"] for row in told[:-1]) == ["memory:id-a", "memory:id-b", "memory:nope"]
    assert "target" not in told[-1]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["check", "web-01"], "backend[@profile]:name"),
        (["check", "memory:a", "--libvirt", "b"], "--libvirt"),
        (["check", "memory:a", "--profile", "lab"], "--profile"),
        (["check", "memory:a", "--ssh", "a@b"], "--ssh"),
        (["check", "--group", "a"], "--group"),
        (["check", "memory:a", "--group", "a"], "--group"),
        (["check", "--libvirt", "a", "--parallel", "3"], "--parallel"),
        (["enable", "--libvirt", "a", "--batch", "3"], "--batch"),
        (["enable", "memory:a", "--with-host"], "--with-host"),
        (["enable", "memory:a", "--drain", "b"], "--drain"),
        (["enable", "memory:a", "--context", "b"], "--context"),
        (["enable", "memory:a", "--resume"], "--resume"),
        (["enable", "memory:a", "--connect", "x"], "--connect"),
        (["enable", "vsphere:a", "--cpu", "host"], "--cpu"),
        (["enable", "libvirt:a", "--mac-spoofing"], "--mac-spoofing"),
        (["enable", "hyperv:a", "--upgrade-version"], "--upgrade-version"),
        (["enable", "vsphere:a", "--upgrade-hardware"], "--upgrade-hardware"),
        (["enable", "--resume"], "enable"),
        (["list", "--profile", "nope"], "nope"),
        (["list", "--connect", "test:///default"], "--connect"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_touches_nothing(
    fleet: MemoryFleet, args: list[str], words: str
) -> None:
    done = fleet.run(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not fleet.state.exists()


# --- enable


def test_enable_plans_all_asks_once_and_proves_each(fleet: MemoryFleet) -> None:
    for number in range(5):
        fleet.add(f"vm-{number}")
    done = fleet.run("enable", "memory: *", "--yes")
    assert done.returncode == 0
    assert done.stderr.count("will write nested and power-cycle the VM") == 1
    assert all(vm["live"] == "on" and vm["boots"] == 1 for vm in fleet.vms().values())
    again = fleet.run("enable", "memory: *", "--yes")
    assert again.returncode == 0
    assert all(vm["boots"] == 1 for vm in fleet.vms().values())
    assert "will" not in again.stderr


def test_the_plan_names_all_that_will_be_changed(fleet: MemoryFleet) -> None:
    for number in range(30):
        fleet.add(f"vm-{number:02}", running=False)
    shown = fleet.run("enable", "memory: *").stderr
    assert all(f"memory:id-vm-{number:02}" in shown for number in range(30))
    assert "more" not in shown


def test_a_dry_run_touches_nothing_and_leaves_no_record(fleet: MemoryFleet) -> None:
    fleet.add("a")
    before = fleet.path.read_bytes()
    done = fleet.run("enable", "memory: *", "--dry-run")
    assert done.returncode == 0
    assert "PLAN" in done.stdout
    assert fleet.path.read_bytes() == before
    assert not fleet.state.exists()


def test_without_a_terminal_nothing_is_changed_unless_it_was_consented_to(fleet: MemoryFleet) -> None:
    fleet.add("a")
    before = fleet.path.read_bytes()
    done = fleet.run("enable", "memory: *")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert fleet.path.read_bytes() == before
    assert not (fleet.state / "fleets").exists()


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 130)], ids=["yes", "no"])
def test_at_a_terminal_all_is_asked_once_and_the_answer_counts(
    fleet: MemoryFleet, answer: bytes, code: int
) -> None:
    for number in range(3):
        fleet.add(f"vm-{number}")
    before = fleet.path.read_bytes()
    master, terminal = os.openpty()
    try:
        os.write(master, answer)
        command = [*COMMAND, "enable", "memory: *"]
        done = subprocess.run(
            command, env=fleet.environment(), stdin=terminal, capture_output=True, text=True, timeout=60
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == code
    assert done.stderr.count("Change 3 of 3?") == 1
    assert (fleet.path.read_bytes() == before) is (code == 130)


def test_what_blocks_one_and_what_fails_in_another_leave_the_rest_alone(fleet: MemoryFleet) -> None:
    fleet.add("good")
    fleet.add("fragile", fragile=True)
    fleet.add("asleep", power="suspended")
    rows = fleet.rows("enable", "memory: *", "--yes")
    vms = fleet.vms()
    assert rows["memory:id-good"]["ending"] == "pass"
    assert rows["memory:id-fragile"]["error"]["kind"] == "PowerError"
    assert rows["memory:id-asleep"]["first_broken"] == "vm-suspended"
    assert (vms["fragile"].get("nested"), vms["fragile"]["power"]) == (None, "running")  # put back
    assert vms["asleep"]["power"] == "suspended"


def test_a_batch_that_is_not_proven_is_the_last_one(fleet: MemoryFleet) -> None:
    for number in range(6):
        fleet.add(f"vm-{number}", fragile=number == 2)
    rows = fleet.rows("enable", "memory: *", "--yes", "--batch", "2")
    assert [rows[f"memory:id-vm-{n}"]["ending"] for n in (0, 1, 3)] == ["pass"] * 3
    assert rows["memory:id-vm-2"]["error"]
    assert [fleet.vms()[f"vm-{n}"].get("boots") for n in (4, 5)] == [None, None]


def test_of_a_batch_those_that_are_off_have_nothing_to_prove(fleet: MemoryFleet) -> None:
    fleet.add("off", running=False)
    fleet.add("on")
    done = fleet.run("enable", "memory:off", "memory:on", "--yes", "--batch", "1")
    assert fleet.vms()["on"]["live"] == "on"
    assert done.returncode == 3  # nobody has seen it in the one that is off


def test_never_more_than_a_batch_is_down_at_once(fleet: MemoryFleet) -> None:
    for number in range(6):
        fleet.add(f"vm-{number}")
    running = fleet.begin("enable", "memory: *", "--yes", "--batch", "2", NESTVIRT_MEMORY_BOOT="0.2")
    most = 0
    while running.poll() is None:
        most = max(most, sum(vm["power"] == "stopped" for vm in fleet.vms().values()))
    running.communicate()
    assert running.returncode == 0
    assert 0 < most <= 2


def test_disable_takes_it_away_again_from_all(fleet: MemoryFleet) -> None:
    for number in range(3):
        fleet.add(f"vm-{number}")
    fleet.run("enable", "memory: *", "--yes")
    done = fleet.run("disable", "memory: *", "--yes")
    assert done.returncode == 0
    assert all(vm.get("nested") is None for vm in fleet.vms().values())  # exactly as before enable


# --- list


def test_list_tells_how_each_stands_and_when_it_was_proven(fleet: MemoryFleet) -> None:
    fleet.add("on", nested="on", live="on")
    fleet.add("off")
    fleet.add("pending", nested="on")
    fleet.add("idle", running=False, nested="on")
    fleet.run("check", "memory:on")
    listed = json.loads(fleet.run("list", "memory: *", "-o", "json").stdout)
    vms = {vm["target"]: vm for vm in listed["vms"]}
    stands = {target: vm["nesting"] for target, vm in vms.items()}
    assert stands == {
        "memory:id-on": "on",
        "memory:id-off": "off",
        "memory:id-pending": "pending",
        "memory:id-idle": "on",
    }
    assert vms["memory:id-on"]["proven"] is not None
    assert vms["memory:id-off"]["proven"] is None
    assert vms["memory:id-pending"]["drift"]


def test_list_says_which_name_means_no_vm_and_shows_the_others(fleet: MemoryFleet) -> None:
    fleet.add("web-1")
    fleet.add("db-1")
    done = fleet.run("list", "memory: name=web-*", "memory: tag=nope", "memory:db-2", "memory: colour=red")
    assert done.returncode == 1
    assert "memory:id-web-1" in done.stdout
    assert "memory:id-db-1" not in done.stdout
    assert "1 VM: 1 off; 3 errors\n" in done.stdout
    assert "memory: no VM is meant by 'memory: tag=nope'" in done.stdout
    assert "memory: no VM is meant by 'memory:db-2'" in done.stdout
    assert "asks for colour" in done.stdout
    told = json.loads(fleet.run("list", "memory: tag=nope", "-o", "json").stdout)
    assert [error["error"]["kind"] for error in told["errors"]] == ["TargetError"]


@pytest.mark.parametrize("args", [(), ("--profile", "dc1", "--profile", "lab")], ids=["all", "named"])
def test_list_tells_of_a_profile_whose_backend_there_is_not(
    fleet: MemoryFleet, args: tuple[str, ...]
) -> None:
    fleet.add("a")
    lab = f'[profiles.lab]\nbackend = "memory"\npath = "{fleet.path}"\n'
    for ill in ('backend = "proxmos"', ""):
        (fleet.folder / "config.toml").write_text(f"[profiles.dc1]\n{ill}\n{lab}")
        done = fleet.run("list", *args, "-o", "json")
        told = json.loads(done.stdout)
        [failed] = told["errors"]
        assert (done.returncode, failed["error"]["kind"]) == (1, "SettingsError")
        assert "profile 'dc1'" in failed["error"]["message"]
        assert "memory@lab:id-a" in {vm["target"] for vm in told["vms"]}
        if ill:
            assert failed["endpoint"] == "proxmos@dc1"
            assert 'backend = "proxmox" in [profiles.dc1]' in failed["error"]["cure"]


def test_list_asks_no_other_where_the_only_profile_is_ill(fleet: MemoryFleet) -> None:
    (fleet.folder / "config.toml").write_text('[profiles.dc1]\nbackend = "proxmos"\n')
    told = json.loads(fleet.run("list", "-o", "json", NESTVIRT_MEMORY_PATH="").stdout)
    assert [failed["endpoint"] for failed in told["errors"]] == ["proxmos@dc1"]
    assert told["vms"] == []


def test_list_asks_all_profiles_and_what_the_environment_names(fleet: MemoryFleet) -> None:
    fleet.add("here")
    other = fleet.folder / "other.json"
    fleet.add("there", path=other)
    profiles = f'[profiles.lab]\nbackend = "memory"\npath = "{other}"\n'
    profiles += f'[profiles.gone]\nbackend = "memory"\npath = "{fleet.folder}/nowhere"\n'
    (fleet.folder / "config.toml").write_text(profiles)
    done = fleet.run("list", "-o", "json")
    told = json.loads(done.stdout)
    assert {vm["target"] for vm in told["vms"]} == {"memory:id-here", "memory@lab:id-there"}
    assert len(told["errors"]) == 1
    assert done.returncode == 3
    lab = json.loads(fleet.run("list", "--profile", "lab", "-o", "json").stdout)
    assert [vm["target"] for vm in lab["vms"]] == ["memory@lab:id-there"]
