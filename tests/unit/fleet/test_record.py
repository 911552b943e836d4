"""The record of a fleet run: what is in it, after whatever end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nestvirt.errors import Busy, JournalError, TargetError
from nestvirt.fleet.record import FleetRuns
from nestvirt.fleet.selection import Member
from nestvirt.model import Ending, Target

MEMBERS = [
    Member("libvirt:a", Target("libvirt", "a"), ssh="admin@a", node="worker-a"),
    Member("vmx@lab:/vms/name=b.vmx", Target("vmx", "/vms/name=b.vmx", "lab")),
    Member("proxmox: tag=k8s"),
]


def path_of(state: Path) -> Path:
    [path] = (state / "fleets").glob("*.jsonl")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS, {"batch": 2}) as record:
        record.begun("libvirt:a")
        record.ended("libvirt:a", Ending.PASS)
        record.begun("proxmox: tag=k8s")
        record.cordoning("worker-a", "uid-a")
        record.cordoning("worker-b", "uid-b")
        record.uncordoned("worker-a")
    found = runs.find(None, "enable")
    assert found.id == record.id
    # A target is no pattern, whatever its name looks like.
    assert found.names == (Target("libvirt", "a"), MEMBERS[1].target, "proxmox: tag=k8s")
    assert found.details["libvirt:a"] == {"ssh": "admin@a", "node": "worker-a"}
    assert found.options == {"batch": 2}
    assert found.endings == {"libvirt:a": Ending.PASS}
    assert found.cordoned == {"worker-b": "uid-b"}
    assert not found.ended
    assert found.resumable


def test_who_is_begun_once_more_has_not_ended(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS[:1], {}) as record:
        record.ended("libvirt:a", Ending.PASS)
        record.begun("libvirt:a")
    assert runs.find(None, "enable").endings == {}


def test_where_all_ended_well_there_is_nothing_to_resume(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS[:1], {}) as record:
        record.ended("libvirt:a", Ending.PASS)
        record.end()
    with pytest.raises(TargetError, match="is to be resumed"):
        runs.find(None, "enable")
    assert runs.find(record.id, "enable").ended


def test_a_torn_line_is_as_if_its_step_had_not_begun(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS, {}) as record:
        record.begun("libvirt:a")
    with path_of(tmp_path).open("a") as file:
        file.write('{"event": "ended", "tar')
    found = runs.find(None, "enable")
    assert found.endings == {}
    with runs.reopen(found) as again:
        again.ended("libvirt:a", Ending.PASS)
    lines = [json.loads(line) for line in path_of(tmp_path).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "begun", "ended"]


def test_a_run_is_one_processs_at_a_time(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS, {}), pytest.raises(Busy):
        runs.reopen(runs.find(None, "enable"))


def test_a_run_of_the_other_command_is_told_as_such(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS, {}) as record:
        pass
    with pytest.raises(TargetError) as caught:
        runs.find(record.id, "disable")
    assert caught.value.cure == f"nestvirt enable --resume {record.id}"
    with pytest.raises(TargetError, match="nope"):
        runs.find("nope", "enable")


@pytest.mark.parametrize("text", ["{}\n", '{"event": "begin", "schema_version": 9}\n', "no JSON\n", "[]\n"])
def test_a_record_that_cannot_be_read_is_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleets").mkdir()
    (tmp_path / "fleets/20260131-101500-1a2b3c.jsonl").write_text(text)
    with pytest.raises(JournalError) as caught:
        FleetRuns(tmp_path).find(None, "enable")
    assert "1a2b3c" in caught.value.message


def test_an_empty_record_had_begun_nothing(tmp_path: Path) -> None:
    (tmp_path / "fleets").mkdir()
    (tmp_path / "fleets/20260131-101500-1a2b3c.jsonl").touch()
    with pytest.raises(TargetError):
        FleetRuns(tmp_path).find(None, "enable")


def test_a_folder_that_cannot_be_written_stops_before_anything_is_begun(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="nothing more is begun"):
        FleetRuns(tmp_path / "file").begin("enable", MEMBERS, {})
