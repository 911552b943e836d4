"""What a run over many says: once, truly, and to whoever still listens."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
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


class Silent:
    """A Proxmox that takes connections and never says a word.

    Attributes:
        variables: what leads there.
    """

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        server.settimeout(30)
        self.variables = {
            "PROXMOX_VE_ENDPOINT": f"https://127.0.0.1:{server.getsockname()[1]}",
            "PROXMOX_VE_API_TOKEN": "root@pam!t=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        }
        self._callers: list[socket.socket] = []

    def called(self) -> None:
        """Until somebody waits for its answer."""
        self._callers.append(self._server.accept()[0])

    def close(self) -> None:
        """Let all go."""
        for caller in self._callers:
            caller.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.closing(Silent(server)) as peer:
        yield peer


@pytest.mark.parametrize("command", ["check", "enable"])
def test_where_nothing_is_changed_ctrl_c_twice_waits_for_nobody(
    fleet: MemoryFleet, silent: Silent, command: str
) -> None:
    running = fleet.begin(
        command, "proxmox:100", *(["--dry-run"] if command == "enable" else []), **silent.variables
    )
    silent.called()
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    assert any("Ctrl-C once more" in line for line in running.stderr)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Interrupted: stopped before anything of it was touched" in out  # and not what its wait ended with
    assert "Traceback" not in err


def test_stopped_while_it_plans_what_was_planned_has_its_line(fleet: MemoryFleet, silent: Silent) -> None:
    fleet.add("a")
    running = fleet.begin("enable", "memory:a", "proxmox:100", "-o", "jsonl", "--yes", **silent.variables)
    silent.called()
    running.send_signal(signal.SIGINT)
    time.sleep(0.5)  # two signals at once may be one
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    *rows, summary = [json.loads(line) for line in out.splitlines()]
    assert {row["target"]: row["ending"] for row in rows} == {"memory:a": "plan", "proxmox:100": "unknown"}
    assert summary["summary"]["total"] == 2
    assert not (fleet.state / "fleets").exists()  # nothing was begun, and there is nothing to be gone on with


@pytest.mark.parametrize("args", [["list", "proxmox: *"], ["check", "proxmox: *"]], ids=" ".join)
def test_ctrl_c_in_a_listing_waits_for_nobody(fleet: MemoryFleet, silent: Silent, args: list[str]) -> None:
    running = fleet.begin(*args, **silent.variables)
    silent.called()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert err.count("stopping; nothing was touched") == 1
    assert "Traceback" not in err


def test_two_names_of_one_vm_are_one_row_and_no_failure(fleet: MemoryFleet) -> None:
    fleet.add("a")
    rows = fleet.rows("enable", "memory:a", "memory:id-a", "--yes")
    assert {name: row["ending"] for name, row in rows.items()} == {"memory:a": "pass"}


def test_a_table_of_the_fleet_file_that_is_nobodys_stops_the_run_before_anything_is_touched(
    fleet: MemoryFleet,
) -> None:
    fleet.add("a")
    file = fleet.folder / "fleet.toml"
    file.write_text('[groups.all]\ntargets = ["memory:a"]\n[targets."memory:aa"]\nnode = "n"\n')
    for group in ((), ("--group", "all")):
        done = fleet.run("enable", "--targets", str(file), *group, "--yes", "-q")
        assert (done.returncode, done.stdout) == (2, "")
        assert '[targets."memory:aa"] of the fleet file is no target of this run' in done.stderr
        assert "memory:a" in done.stderr
    assert fleet.vms()["a"].get("nested") != "on"


def test_of_each_hypervisor_one_line_says_what_it_is_reached_with(fleet: MemoryFleet) -> None:
    fleet.add("a", nested="on", live="on")
    lab = f'[profiles.lab]\nbackend = "memory"\npath = "{fleet.path}"\nboot = "0"\n'
    (fleet.folder / "config.toml").write_text(lab)
    done = fleet.run("check", "memory@lab:a", "memory:a")
    lines = [line for line in done.stderr.splitlines() if "connecting" in line]
    assert [line.partition(";")[0] for line in lines] == [
        *("nestvirt: connecting to memory@lab", "nestvirt: connecting to memory"),
    ]
    assert "; the path and boot are from profile lab in " in lines[0]
    assert "; the path is from NESTVIRT_MEMORY_PATH" in lines[1]


def test_a_patterns_rows_have_what_the_users_call_the_vms(fleet: MemoryFleet) -> None:
    fleet.add("worker-3")
    rows = fleet.rows("check", "memory: *")
    assert [row["name"] for row in rows.values()] == ["worker-3"]
    planned = fleet.run("enable", "memory: *")  # and nobody there to be asked
    assert "power-cycle the VM: memory:id-worker-3 (worker-3)\n" in planned.stderr
    assert fleet.rows("check", "memory:id-worker-3")["memory:id-worker-3"]["name"] == "worker-3"
    assert fleet.rows("check", "memory:worker-9")["memory:worker-9"]["name"] is None


def test_a_single_name_is_checked_with_the_chain_in_sight(fleet: MemoryFleet) -> None:
    fleet.add("a")
    done = fleet.run("check", "memory:a")
    assert done.returncode == 1
    assert done.stdout.startswith("memory:a: FAIL")
    assert "\nvm\n" in done.stdout
