"""The record of a fleet run: what is in it, after whatever end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from nestvirt.backends.base import Backend
from nestvirt.errors import Busy, JournalError, TargetError
from nestvirt.fleet.endpoints import Endpoint, Place
from nestvirt.fleet.record import FleetRuns
from nestvirt.fleet.recorded import Recorded
from nestvirt.fleet.selection import Known, Member
from nestvirt.model import Ending, Target, Vm

MEMBERS = [
    Member("libvirt:a", Target("libvirt", "a"), ssh="admin@a", node="worker-a"),
    Member("vmx@lab:/vms/name=b.vmx", Target("vmx", "/vms/name=b.vmx", "lab")),
    Member("proxmox: tag=k8s"),
]


def path_of(state: Path) -> Path:
    [path] = (state / "fleets").glob("*.jsonl")
    return path


def found(runs: FleetRuns, run_id: str) -> Recorded:
    run = runs.get(run_id)
    assert run is not None
    return run


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
def test_a_record_that_cannot_be_read_is_said_so_and_is_in_nobody_elses_way(
    tmp_path: Path, text: str
) -> None:
    skipped: list[JournalError] = []
    runs = FleetRuns(tmp_path, skipped.append)
    with runs.begin("enable", MEMBERS, {}) as record:
        pass
    ill = tmp_path / "fleets/29990131-101500-1a2b3c.jsonl"
    ill.write_text(text)
    with pytest.raises(JournalError, match="1a2b3c"):
        runs.find(ill.stem, "enable")
    assert runs.find(record.id, "enable").id == record.id
    assert skipped == []
    with pytest.raises(TargetError, match="which fleet run is the newest") as caught:
        runs.find(None, "enable")  # it may be the one that was to take that back
    assert ill.stem in caught.value.evidence
    assert f"--resume {record.id}" in caught.value.cure
    with pytest.raises(TargetError, match="no disable"):
        runs.find(None, "disable")
    assert [ill.stem in error.message for error in skipped] == [True]
    ill.rename(tmp_path / "fleets/20000131-101500-1a2b3c.jsonl")
    assert FleetRuns(tmp_path).find(None, "enable").id == record.id


def test_no_path_is_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "fleets").mkdir()
    (tmp_path / "else.jsonl").write_text("no JSON\n")
    with pytest.raises(TargetError):
        FleetRuns(tmp_path).find("../else", "enable")


def test_a_write_that_falls_short_stops_the_run_and_leaves_no_half_line_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = FleetRuns(tmp_path)
    write = os.write
    with runs.begin("enable", MEMBERS, {}) as record:
        monkeypatch.setattr(os, "write", lambda to, data: write(to, data[:5]))
        with pytest.raises(JournalError, match="nothing more is begun"):
            record.begun("libvirt:a")
        monkeypatch.setattr(os, "write", write)
        record.ended("libvirt:a", Ending.FAIL)
    assert runs.find(None, "enable").endings == {"libvirt:a": Ending.FAIL}


def test_only_the_newest_run_of_all_is_gone_on_with_unless_it_is_named(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS, {}) as older:
        older.begun("libvirt:a")
    assert runs.find(None, "enable").id == older.id
    with runs.begin("disable", MEMBERS[:1], {}) as newer:
        newer.ended("libvirt:a", Ending.PASS)
        runs.end(newer)
    with pytest.raises(TargetError, match="is to be resumed") as caught:
        runs.find(None, "enable")
    assert newer.id in caught.value.evidence
    assert f"--resume {older.id}" in caught.value.cure
    assert runs.find(older.id, "enable").id == older.id


def test_a_run_that_came_to_its_end_is_gone_on_with_by_its_id_only(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS[:2], {}) as record:
        record.ended("libvirt:a", Ending.UNKNOWN)
        runs.end(record)
        assert not runs.find(record.id, "enable").ended  # one has no ending
        record.ended(MEMBERS[1].written, Ending.PASS)
        runs.end(record)
    with pytest.raises(TargetError, match="is to be resumed") as caught:
        runs.find(None, "enable")
    assert f"--resume {record.id}" in caught.value.cure
    assert runs.find(record.id, "enable").ended


def test_what_is_left_is_told_by_names_also_where_a_pattern_has_become_several(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", [MEMBERS[0], MEMBERS[2]], {}) as record:
        record.ended("libvirt:a", Ending.PASS)
        record.ended("proxmox: tag=k8s", Ending.FAIL)
    assert runs.find(None, "enable").resumable
    found = [Member(f"proxmox:{n}", Target("proxmox", str(n))) for n in (1, 2)]
    with runs.reopen(runs.find(None, "enable")) as again:
        again.meant([MEMBERS[0], *found])
        again.ended("proxmox:1", Ending.PASS)
    assert runs.find(None, "enable").resumable  # as many passed as were named first, and one is left
    with runs.reopen(runs.find(None, "enable")) as again:
        again.ended("proxmox:2", Ending.PASS)
    assert not runs.find(again.id, "enable").resumable


def test_which_vm_each_name_meant_and_what_led_to_it_is_kept_and_no_secret(tmp_path: Path) -> None:
    endpoint = Endpoint(Place("proxmox", None), {"endpoint": "pve", "password": "hush"})
    endpoint._backend = cast(Backend, SimpleNamespace(endpoint={"endpoint": "https://pve:8006"}))
    vms = [Member(f"proxmox:{n}", Target("proxmox", n), endpoint, Vm(f"{n}@uuid", n)) for n in "12"]
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", [*vms, *MEMBERS], {}) as record:
        record.begun("proxmox:1")
    known = runs.find(None, "enable").known
    assert known["proxmox:2"] == Known("2@uuid", {"endpoint": "https://pve:8006"})
    assert list(known) == ["proxmox:1", "proxmox:2"]
    assert "hush" not in path_of(tmp_path).read_text()
    assert path_of(tmp_path).read_text().count("https://pve:8006") == 1
    assert runs.find(None, "enable").broken == ("proxmox:1",)
    gone_on = [Member(m.written, m.target, endpoint, Vm("other", "x"), known=known[m.written]) for m in vms]
    with runs.reopen(runs.find(record.id, "enable")) as again:
        again.meant(gone_on)
    assert runs.find(None, "enable").known == known  # what it was, not what there is elsewhere


def test_a_name_that_is_no_utf_8_is_kept_as_it_is(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", [Member("libvirt:b\udcff", Target("libvirt", "b\udcff"))], {}) as record:
        record.ended("libvirt:b\udcff", Ending.FAIL)
    assert runs.find(None, "enable").endings == {"libvirt:b\udcff": Ending.FAIL}


def test_a_run_that_has_left_a_vm_off_is_not_through(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS[:1], {}) as record:
        record.ended("libvirt:a", Ending.FAIL, down=True)
        runs.end(record)
        assert not runs.find(None, "enable").ended
        assert runs.find(None, "enable").broken == ("libvirt:a",)
        record.ended("libvirt:a", Ending.FAIL)
        runs.end(record)
    assert runs.find(record.id, "enable").ended


def test_what_the_fleet_file_said_is_kept_where_a_pattern_was_not_resolved(tmp_path: Path) -> None:
    told = {"proxmox: tag=k8s": {"node": "{name}.lab"}, "proxmox:b": {"ssh": "admin@b"}}
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", [*MEMBERS[:2], Member("proxmox: tag=k8s", told=told)], {}):
        pass
    details = runs.find(None, "enable").details
    assert {name: details[name] for name in told} == told
    assert details["libvirt:a"] == {"ssh": "admin@a", "node": "worker-a"}


def test_an_empty_record_had_begun_nothing(tmp_path: Path) -> None:
    (tmp_path / "fleets").mkdir()
    (tmp_path / "fleets/20260131-101500-1a2b3c.jsonl").touch()
    with pytest.raises(TargetError):
        FleetRuns(tmp_path).find(None, "enable")


def test_a_folder_that_cannot_be_written_stops_before_anything_is_begun(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="nothing more is begun"):
        FleetRuns(tmp_path / "file").begin("enable", MEMBERS, {})


def test_what_was_taken_back_is_not_gone_on_with_and_says_how_far_it_is_undone(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS[:1], {}) as record:
        record.ended("libvirt:a", Ending.FAIL)
        record.taken_back()
    assert not found(runs, record.id).resumable
    assert found(runs, record.id).state == "partly undone"
    with pytest.raises(TargetError, match="was taken back") as caught:
        runs.find(record.id, "enable")
    assert caught.value.cure.endswith(f"nestvirt undo {record.id}")
    with runs.reopen(found(runs, record.id)) as again:
        again.undone()
    assert found(runs, record.id).state == "undone"
    with pytest.raises(TargetError, match="was taken back") as caught:
        runs.find(record.id, "enable")
    assert "nestvirt undo" not in caught.value.cure


def test_it_says_which_of_the_journals_runs_have_left_something_changed(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS[:2], {}) as record:
        record.ended("libvirt:a", Ending.UNKNOWN, "one")
        record.ended(MEMBERS[1].written, Ending.PASS)
        record.begun("libvirt:a")
        record.ended("libvirt:a", Ending.PASS, "two")
    assert found(runs, record.id).runs == {"libvirt:a": ("one", "two")}


def test_an_undo_is_gone_on_with_by_the_run_that_it_takes_back(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("undo", MEMBERS, {"undoes": "20260131-101500-1a2b3c"}) as record:
        pass
    assert found(runs, record.id).again == "nestvirt undo 20260131-101500-1a2b3c"
    with pytest.raises(TargetError) as caught:
        runs.find(record.id, "enable")
    assert caught.value.cure == "nestvirt undo 20260131-101500-1a2b3c"


def test_a_record_of_an_older_nestvirt_is_read_and_known_as_such(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS, {}) as record:
        record.ended("libvirt:a", Ending.PASS)
    assert found(runs, record.id).traced
    path = path_of(tmp_path)
    begin, *rest = path.read_text().splitlines()
    older = {key: value for key, value in json.loads(begin).items() if key != "traced"}
    path.write_text("\n".join([json.dumps(older), *rest, ""]))
    assert not found(runs, record.id).traced
    assert runs.find(None, "enable").endings == {"libvirt:a": Ending.PASS}


def test_it_is_seen_while_it_is_under_way(tmp_path: Path) -> None:
    runs = FleetRuns(tmp_path)
    with runs.begin("enable", MEMBERS, {}) as record:
        assert runs.under_way(found(runs, record.id))
    assert not runs.under_way(found(runs, record.id))
