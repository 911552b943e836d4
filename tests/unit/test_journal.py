"""The record of runs survives what kills a run: power cuts, full disks, SIGKILL."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nestvirt.errors import JournalError, TargetError
from nestvirt.journal import Journal, Record, Run
from nestvirt.model import Change, Power, Target, Vm

TARGET = Target("libvirt", "web-01", "lab")
VM = Vm("6695eb01-f6a4-8304-79aa-97f2502e193f", "web-01")
OTHER = Vm("0d1f6a0c-95f1-4b0f-8a42-b0a7bfd7a3a1", "web-02")
CPU = Change("cpu", "<cpu mode='custom'>\n  <model>ä</model>\n</cpu>", "<cpu mode='host-passthrough'/>")
BOOT = Change("boot", None, "x")
URI = {"uri": "qemu:///system"}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def begun(journal: Journal, vm: Vm = VM, power: Power = Power.RUNNING) -> Record:
    return journal.begin("enable", TARGET, vm, power, URI)


def applied(journal: Journal, vm: Vm = VM) -> Record:
    record = begun(journal, vm)
    record.intend(CPU)
    record.kept(CPU, CPU.after)
    record.end("applied")
    return record


def the(journal: Journal) -> Run:
    (run,) = journal.runs()
    return run


def file_of(folder: Path, record: Record) -> Path:
    return folder / "runs" / f"{record.id}.jsonl"


def test_a_run_is_read_anew_and_missed_where_it_is_gone(tmp_path: Path, journal: Journal) -> None:
    record = begun(journal)
    run = the(journal)
    record.end("applied")
    assert journal.whole(run).outcome == "applied"
    file_of(tmp_path, record).unlink()
    with pytest.raises(JournalError, match="cannot be read"):
        journal.whole(run)


def test_a_run_is_read_back_as_it_was_written(journal: Journal) -> None:
    record = begun(journal)
    record.intend(CPU)
    record.kept(CPU, None)
    record.intend(BOOT)
    run = the(journal)
    assert (run.id, run.command, run.target, run.vm) == (record.id, "enable", TARGET, VM)
    assert (run.power, run.endpoint, run.outcome, run.state) == (Power.RUNNING, URI, None, "interrupted")
    assert [(step.change, step.kept, step.read_back) for step in run.steps] == [
        (CPU, None, True),
        (BOOT, None, False),
    ]


@pytest.mark.parametrize(
    ("write", "undoable", "state", "power"),
    [
        pytest.param(lambda r: None, True, "interrupted", "running", id="died before the first change"),
        pytest.param(lambda r: r.intend(CPU), True, "interrupted", "running", id="died in the middle"),
        pytest.param(lambda r: (r.intend(CPU), r.end("applied")), True, "applied", "running", id="applied"),
        pytest.param(
            lambda r: (r.intend(CPU), r.end("put-back")), False, "put-back", "running", id="put back"
        ),
        pytest.param(lambda r: r.end("applied"), False, "applied", "running", id="a power cycle only"),
        pytest.param(
            lambda r: (r.intend(CPU), r.end("applied"), r.undoing(Power.STOPPED)),
            True,
            "interrupted",
            "stopped",
            id="the undoing died, which owes the power state that it found",
        ),
        pytest.param(
            lambda r: (r.intend(CPU), r.undoing(Power.STOPPED)),
            True,
            "interrupted",
            "running",
            id="run and undoing died: the run's own debt counts",
        ),
        pytest.param(
            lambda r: (r.intend(CPU), r.end("applied"), r.undoing(Power.STOPPED), r.end("undone")),
            False,
            "undone",
            "stopped",
            id="undone",
        ),
    ],
)
def test_how_a_run_stands(
    journal: Journal, write: Callable[[Record], object], undoable: bool, state: str, power: str
) -> None:
    write(begun(journal))
    run = the(journal)
    assert (run.undoable, run.state, run.power) == (undoable, state, power)


def test_a_name_that_is_no_utf_8_is_read_back_as_it_is(journal: Journal) -> None:
    vm = Vm("/vms/b\udcff.vmx", "b\udcff")
    with journal.lock("vmx", vm):
        journal.begin("enable", Target("vmx", vm.id), vm, Power.RUNNING, URI)
    assert the(journal).vm == vm


def test_a_line_torn_at_any_byte_is_as_if_it_had_not_been_written(journal: Journal, tmp_path: Path) -> None:
    record = applied(journal)
    path = file_of(tmp_path, record)
    whole = path.read_bytes()
    path.write_bytes(b"")
    expected: list[Run] = []
    for line in whole.splitlines(keepends=True):
        so_far = path.read_bytes()
        for length in range(len(line)):
            path.write_bytes(so_far + line[:length])
            assert journal.runs() == expected
        path.write_bytes(so_far + line)
        expected = journal.runs()
        assert len(expected) == 1


def test_a_torn_record_can_be_continued(journal: Journal, tmp_path: Path) -> None:
    record = applied(journal)
    path = file_of(tmp_path, record)
    whole = path.read_bytes()
    begin = whole.index(b"\n") + 1
    for length in range(begin, len(whole) + 1):
        path.write_bytes(whole[:length])
        journal.record(the(journal)).end("undone")
        assert the(journal).outcome == "undone"


def test_a_run_of_nothing_but_a_torn_line_stands_in_nobodys_way(journal: Journal, tmp_path: Path) -> None:
    whole = applied(journal)
    (tmp_path / "runs" / "99990101-000000-aaaaaa.jsonl").write_bytes(b'{"event": "beg')
    assert journal.find(None).id == whole.id
    assert journal.unfinished("libvirt", VM) is None


BEGIN = {
    "event": "begin",
    "schema_version": 1,
    "command": "enable",
    "time": "2026-01-31T10:15:00+00:00",
    "target": "libvirt:web-01",
    "vm": {"id": "1", "name": "web-01"},
    "power": "running",
    "endpoint": URI,
}
CHANGE = {"event": "change", "setting": "cpu", "before": "a", "after": "b"}


NO_BEGIN = [
    pytest.param(["no JSON"], id="no JSON"),
    pytest.param(["[]"], id="a list"),
    pytest.param(["{}"], id="an empty object"),
    pytest.param([b"\xff"], id="no UTF-8"),
    pytest.param([BEGIN | {"schema_version": 2}], id="a later version"),
    pytest.param([BEGIN | {"target": "web-01"}], id="no target"),
    pytest.param([BEGIN | {"power": "on"}], id="unknown power state"),
    pytest.param([BEGIN | {"vm": "web-01"}], id="no VM"),
]
ILL_LATER = [
    pytest.param([BEGIN, CHANGE | {"before": 5}], id="a value of another type"),
    pytest.param([BEGIN, {"event": "change", "setting": "cpu"}], id="a change without values"),
    pytest.param([BEGIN, {"event": "kept", "value": "a"}], id="kept, but nothing was changed"),
    pytest.param([BEGIN, {"event": "dance"}], id="unknown event"),
    pytest.param([BEGIN, b"\xff"], id="later no UTF-8"),
    pytest.param([BEGIN, "", CHANGE], id="an empty line"),
]
ITS_VM = Vm("1", "web-01")


def write(folder: Path, lines: list[object]) -> Path:
    path = folder / "runs" / "20260131-101500-1a2b3c.jsonl"
    path.parent.mkdir(exist_ok=True)
    data = [line if isinstance(line, bytes | str) else json.dumps(line) for line in lines]
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in data))
    return path


@pytest.mark.parametrize("lines", [*NO_BEGIN, *ILL_LATER])
def test_an_unreadable_record_is_named(journal: Journal, tmp_path: Path, lines: list[object]) -> None:
    path = write(tmp_path, lines)
    reads: list[Callable[[], object]] = [
        journal.runs,
        lambda: journal.find(None),
        lambda: journal.unfinished("libvirt", ITS_VM),
    ]
    for read in reads:
        with pytest.raises(JournalError) as caught:
            read()
        assert str(path) in caught.value.message
        assert caught.value.cure


@pytest.mark.parametrize("lines", NO_BEGIN)
def test_one_that_may_be_about_any_vm_stands_in_the_way_of_all(
    journal: Journal, tmp_path: Path, lines: list[object]
) -> None:
    write(tmp_path, lines)
    with pytest.raises(JournalError):
        journal.look()
    with pytest.raises(JournalError):
        journal.unfinished("libvirt", OTHER)


@pytest.mark.parametrize("lines", ILL_LATER)
def test_one_that_is_about_another_vm_stands_in_no_way(
    journal: Journal, tmp_path: Path, lines: list[object]
) -> None:
    write(tmp_path, lines)
    dead, whole = begun(journal, OTHER), applied(journal)
    found = journal.unfinished("libvirt", OTHER)
    assert found is not None
    assert found.id == dead.id
    [run] = journal.runs(whole.id)
    assert journal.whole(run).id == whole.id
    journal.look()


def test_runs_are_listed_newest_first(journal: Journal) -> None:
    ids = [begun(journal).id for _ in range(30)]
    assert [run.id for run in journal.runs()] == ids[::-1]


def test_every_line_is_on_the_disk_before_its_step_begins(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bytes | None] = []

    def note(fd: int) -> None:
        flushed.append(None if stat.S_ISDIR(os.fstat(fd).st_mode) else os.pread(fd, 1 << 20, 0))

    monkeypatch.setattr(os, "fsync", note)
    record = begun(journal)
    assert flushed == [file_of(tmp_path, record).read_bytes(), None]  # the file, and its name in the folder
    writes: list[Callable[[], None]] = [
        lambda: record.intend(CPU),
        lambda: record.kept(CPU, None),
        lambda: record.end("applied"),
    ]
    for write in writes:
        write()
        assert flushed[-1] == file_of(tmp_path, record).read_bytes()
    assert len(flushed) == 5


def test_find(journal: Journal) -> None:
    oldest, newer = applied(journal), applied(journal)
    begun(journal).end("put-back")
    assert journal.find(None).id == newer.id
    assert journal.find(oldest.id).id == oldest.id
    newer.end("undone")
    assert journal.find(None).id == oldest.id
    oldest.end("undone")
    with pytest.raises(JournalError, match="no run to undo"):
        journal.find(None)
    with pytest.raises(TargetError, match="no run 'x'") as caught:
        journal.find("x")
    assert newer.id in caught.value.evidence


@pytest.mark.parametrize(
    ("vm", "backend", "found"),
    [
        (None, None, ["libvirt", "proxmox"]),
        (None, "proxmox", ["proxmox"]),
        ("100", None, ["libvirt", "proxmox"]),
        ("100", "proxmox", ["proxmox"]),
        ("100", "libvirt", ["libvirt"]),
        ("web-01", None, ["proxmox"]),
        ("100@pve1.example.com", "proxmox", ["proxmox"]),
        ("as-it-was-named", "proxmox", ["proxmox"]),
        ("pve1.example.com", "proxmox", []),
    ],
)
def test_runs_of_one_vm(journal: Journal, vm: str | None, backend: str | None, found: list[str]) -> None:
    for target, it in (
        (Target("proxmox", "as-it-was-named"), Vm("100@pve1.example.com", "web-01")),
        (Target("libvirt", "100"), Vm(VM.id, "100")),
    ):
        record = journal.begin("enable", target, it, Power.RUNNING, {})
        record.intend(CPU)
        record.end("applied")
    assert [run.target.backend for run in journal.runs() if run.is_of(vm, backend)] == found
    if found:
        assert journal.find(None, vm, backend).target.backend == found[0]
    else:
        with pytest.raises(JournalError, match="no run to undo"):
            journal.find(None, vm, backend)


def test_find_in_an_empty_journal(journal: Journal) -> None:
    with pytest.raises(JournalError) as caught:
        journal.find(None)
    assert "none" in caught.value.evidence


def test_unfinished_is_the_newest_run_of_this_vm_alone(journal: Journal) -> None:
    assert journal.unfinished("libvirt", VM) is None
    dead = begun(journal)
    applied(journal, OTHER)
    found = journal.unfinished("libvirt", VM)
    assert found is not None
    assert found.id == dead.id
    assert journal.unfinished("libvirt", OTHER) is None
    assert journal.unfinished("other", VM) is None
    applied(journal)
    assert journal.unfinished("libvirt", VM) is None


def test_the_journal_is_its_users_alone(journal: Journal, tmp_path: Path) -> None:
    path = file_of(tmp_path, applied(journal))
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


# --- where it cannot be written


def test_a_file_in_the_directorys_place(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    journal = Journal(tmp_path / "state")
    with pytest.raises(JournalError, match="no place") as caught:
        begun(journal)
    assert "NESTVIRT_STATE_DIR" in caught.value.cure
    with pytest.raises(JournalError, match="no place"), journal.lock("libvirt", VM):
        pytest.fail("locked without a lock")


def test_a_directory_that_goes_away(journal: Journal, tmp_path: Path) -> None:
    record = begun(journal)
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(JournalError, match="cannot be written"):
        record.intend(CPU)


FULL = """
import signal, sys
from pathlib import Path
from nestvirt.errors import JournalError
from nestvirt.journal import Journal
from tests.unit.test_journal import CPU, begun, limit_files_to

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
record = begun(Journal(Path(sys.argv[1])))
limit_files_to((Path(sys.argv[1]) / "runs" / f"{record.id}.jsonl").stat().st_size + int(sys.argv[2]))
try:
    record.intend(CPU)
except JournalError:
    record.end("")
"""


def limit_files_to(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_line_that_has_no_room_is_an_error_and_spoils_nothing(
    journal: Journal, tmp_path: Path, room: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(room)], capture_output=True, text=True
    )
    assert "JournalError" in done.stderr or done.returncode == 0
    assert the(journal).steps == ()
    journal.record(the(journal)).intend(CPU)
    assert the(journal).steps[0].change == CPU
