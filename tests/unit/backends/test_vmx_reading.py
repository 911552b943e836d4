"""What is read around a .vmx: locks, VMware's log, snapshots, the machine; and how vmrun is found."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nestvirt.backends.workstation import VmxBackend, locks, vmfile
from nestvirt.backends.workstation.dialect import Document
from nestvirt.backends.workstation.host import Host, read_host
from nestvirt.backends.workstation.locks import Life, holders
from nestvirt.backends.workstation.poweron import recorded
from nestvirt.backends.workstation.vmrun import Refused, Vmrun
from nestvirt.errors import AccessDenied, ConnectionFailed, SettingsError
from nestvirt.model import Target
from tests.peers.vmrun_rig import machine_id

NAME = "vhv.enable"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No container, wherever these tests run."""
    monkeypatch.setattr(locks, "all_seen", lambda: True)


def started(pid: int) -> str:
    """When a process was started, as the kernel counts."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def held(folder: Path, content: str) -> list[tuple[int, str, Life]]:
    (folder / "a.vmx.lck").mkdir()
    (folder / "a.vmx.lck/M12345.lck").write_text(content)
    return [(h.pid, h.process, h.life) for h in holders(folder / "a.vmx")]


def test_no_lock_folder_and_an_empty_one(tmp_path: Path) -> None:
    assert holders(tmp_path / "a.vmx") == ()
    (tmp_path / "a.vmx.lck").mkdir()
    assert holders(tmp_path / "a.vmx") == ()
    (tmp_path / "b.vmx.lck").write_text("a file")
    assert holders(tmp_path / "b.vmx") == ()


def test_this_very_process(tmp_path: Path) -> None:
    me = os.getpid()
    content = f"{machine_id()} {me}-{started(me)}(vmware-vmx) 3 X [ lc=99 ".ljust(512, "\0")
    assert held(tmp_path, content) == [(me, "vmware-vmx", Life.LIVE)]


def test_number_that_another_process_has_by_now(tmp_path: Path) -> None:
    content = f"{machine_id()} {os.getpid()}-1(vmware-vmx) 3 X"
    assert held(tmp_path, content) == [(os.getpid(), "vmware-vmx", Life.DEAD)]


def test_process_that_ended_and_was_not_waited_for(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    content = f"{machine_id()} {ended.pid}-{started(ended.pid)}(vmware-vmx) 3 X"
    assert held(tmp_path, content) == [(ended.pid, "vmware-vmx", Life.DEAD)]
    ended.wait()


def test_name_that_is_not_told_is_asked_for(tmp_path: Path) -> None:
    me = os.getpid()
    [(_, process, life)] = held(tmp_path, f"uuid=56-4d {me}-0 3 X")
    assert life is Life.LIVE
    assert process


@pytest.mark.parametrize(
    "content", ["", "x", "a b c", "a pid-1 1 X", "uuid=56-4d 4194304-1(vmware-vmx) 1 X", "AAAA 4194304-1 1 X"]
)
def test_what_nobody_can_place_is_another_machines(tmp_path: Path, content: str) -> None:
    assert [life for _, _, life in held(tmp_path, content)] == [Life.ELSEWHERE]


def test_same_host_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = f"{machine_id()} 4194304-1(vmware-vmx) 1 X"
    assert held(tmp_path, content) == [(4194304, "vmware-vmx", Life.DEAD)]
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert [h.life for h in holders(tmp_path / "a.vmx")] == [Life.ELSEWHERE]


@pytest.mark.parametrize("refusal", [None, PermissionError])
def test_process_that_proc_hides_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: type[OSError] | None
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/stat").touch()
    monkeypatch.setattr(locks, "PROC", tmp_path)

    def ask(_pid: int, _signal: int) -> None:
        if refusal:
            raise refusal

    monkeypatch.setattr(os, "kill", ask)
    assert held(tmp_path, f"{machine_id()} 71-5(vmware-vmx) 1 X") == [(71, "vmware-vmx", Life.LIVE)]


def test_in_a_container_a_number_that_is_none_may_be_one_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").touch()  # a file with another number than that of the machine's own namespace
    monkeypatch.setattr(locks, "PROC", tmp_path)
    assert held(tmp_path, f"{machine_id()} 4194304-1(vmware-vmx) 1 X") == [
        (4194304, "vmware-vmx", Life.ELSEWHERE)
    ]


LOG = b"""\
2026-01-31T10:15:00.000Z In(05) vmx Log for VMware Workstation pid=71
2026-01-31T10:15:00.000Z In(05) vmx DICT --- USER PREFERENCES /x
2026-01-31T10:15:00.000Z In(05) vmx DICT                vhv.enable = "elsewhere"
2026-01-31T10:15:00.000Z In(05) vmx DICT --- CONFIGURATION /vms/web/web.vmx
2026-01-31T10:15:00.000Z| vmx| I125: DICT            config.version = "8"
%b2026-01-31T10:15:00.000Z In(05) vmx DICT --- USER DEFAULTS
2026-01-31T10:15:00.000Z In(05) vmx DICT                vhv.enable = "not this"
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'In(05) vmx DICT                VHV.enable = "TRUE"\r\n', (True, "TRUE")),
        (b"In(05) vmx DICT  vhv.enable=FALSE\n", (True, "FALSE")),
        (b"", (True, None)),
    ],
)
def test_log_tells_what_a_vm_was_powered_on_with(
    tmp_path: Path, line: bytes, said: tuple[bool, str | None]
) -> None:
    (tmp_path / "vmware.log").write_bytes(LOG % line)
    assert recorded(tmp_path / "vmware.log", NAME) == said


def test_log_without_a_configuration_tells_nothing(tmp_path: Path) -> None:
    assert recorded(tmp_path / "vmware.log", NAME) == (False, None)
    (tmp_path / "vmware.log").write_bytes(b'DICT  vhv.enable = "TRUE"\n')
    assert recorded(tmp_path / "vmware.log", NAME) == (False, None)


def test_machine(tmp_path: Path) -> None:
    assert read_host(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("flags\t\t: fpu vmx\nvmx flags\t: ept vpid\nbugs : x\n" * 2)
    assert read_host(tmp_path) == Host(False, None)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/vmmon").touch()
    assert read_host(tmp_path) == Host(True, frozenset({"fpu", "vmx", "ept", "vpid"}))


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "web.vmx"
    path.write_text('config.version = "8"\nlog.fileName = "other.log"\n')
    return path


def test_snapshots_with_memory(vm: Path) -> None:
    vm.with_suffix(".vmsd").write_text(
        '.encoding = "UTF-8"\nsnapshot.numSnapshots = "3"\n'
        'snapshot0.filename = "web-Snapshot1.vmsn"\nsnapshot0.displayName = "grün"\n'
        'snapshot1.filename = "web-Snapshot2.vmsn"\nsnapshot1.displayName = "off"\n'
        'snapshot2.filename = "web-Snapshot3.vmsn"\nsnapshot0.disk0.fileName = "web.vmdk"\n',
        encoding="utf-8",
    )
    for name in ("web-Snapshot1.vmem", "web-Snapshot3.vmem"):
        vm.with_name(name).touch()
    backend = VmxBackend.connect(Target("vmx", str(vm)), {})
    assert backend.read(backend.find(str(vm))).memory_snapshots == ("grün", "web-Snapshot3.vmsn")


@pytest.mark.parametrize(
    ("line", "saved_file", "saved"),
    [
        ("", False, ""),
        ("", True, "web.vmss"),
        ('checkpoint.vmState = ""', True, ""),
        ('checkpoint.vmState = "web-5f.vmss"', False, "web-5f.vmss"),
    ],
)
def test_saved_state(vm: Path, line: str, saved_file: bool, saved: str) -> None:
    with vm.open("a") as opened:
        opened.write(f"{line}\n")
    if saved_file:
        vm.with_suffix(".vmss").touch()
    backend = VmxBackend.connect(Target("vmx", str(vm)), {})
    found = backend.find(str(vm))
    facts = backend.read(found)
    assert (found.name, facts.saved_state, facts.control) == ("web", saved, None)


def test_log_of_another_name(vm: Path) -> None:
    vm.with_name("other.log").write_bytes(LOG % b'DICT vhv.enable = "TRUE"\n')
    backend = VmxBackend.connect(Target("vmx", str(vm)), {})
    facts = backend.read(backend.find(str(vm)))
    assert (facts.logged, facts.powered_on_with) == (True, "TRUE")


@pytest.mark.parametrize("name", ["a|00b", "..", "/", "|0A", "x" * 5000])
def test_names_that_are_none_are_of_nothing(vm: Path, name: str) -> None:
    vm.write_text(f'config.version = "8"\nvmx.log.filename = "{name}"\n')
    vm.with_suffix(".vmsd").write_text(f'snapshot0.filename = "{name}"\n')
    backend = VmxBackend.connect(Target("vmx", str(vm)), {})
    facts = backend.read(backend.find(str(vm)))
    assert (facts.logged, facts.memory_snapshots) == (False, ())


def test_a_pipe_is_not_waited_for(vm: Path) -> None:
    pipes = vm.with_name("other.log"), vm.with_suffix(".vmsd")
    for pipe in pipes:
        os.mkfifo(pipe)

    def write(pipe: Path) -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe.write_bytes(LOG % b"")

    # A reader that waits gets something to read, so that this test ends.
    writers = [threading.Thread(target=write, args=(pipe,)) for pipe in pipes]
    for writer in writers:
        writer.start()
    backend = VmxBackend.connect(Target("vmx", str(vm)), {})
    logged = backend.read(backend.find(str(vm))).logged
    for pipe, writer in zip(pipes, writers, strict=True):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reader)
    assert not logged


def test_a_folder_that_cannot_be_synced_takes_nothing_back(vm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError("no")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    vmfile.replace(vm, vmfile.read(vm), Document.parse(b"new"))
    assert vm.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("user", "groups", "inherited", "may"),
    [
        (0, [], False, True),
        (12345, [23456], False, True),
        (12345, [], False, False),
        (12345, [], True, True),
        (54321, [23456], True, False),
    ],
)
def test_owner_that_cannot_be_given_is_known_before(
    vm: Path, monkeypatch: pytest.MonkeyPatch, user: int, groups: list[int], inherited: bool, may: bool
) -> None:
    class Stat:
        """What stat tells, with another owner."""

        def __init__(self, true: os.stat_result) -> None:
            folder = stat.S_ISDIR(true.st_mode)
            self.st_mode = true.st_mode | (stat.S_ISGID if folder and inherited else 0)
            self.st_nlink, self.st_uid, self.st_gid = true.st_nlink, 12345, 23456

    look = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path: Stat(look(path)))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "getegid", lambda: user)
    monkeypatch.setattr(os, "getgroups", lambda: groups)
    told = vmfile.unwritable(vm)
    assert told == "" if may else "user 12345, group 23456" in told


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_vmrun_is_found_in_the_path_or_by_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Vmrun.found({}) is None
    own = program(tmp_path / "vmrun", "echo Total running VMs: 0")
    other = program(tmp_path / "other", 'echo "Total running VMs: 1"; echo "/vms/a b.vmx"; echo')
    found, named = Vmrun.found({}), Vmrun.found({"vmrun": str(other), "product": "player"})
    assert found is not None
    assert (found.program, found.product, found.running()) == (str(own), "ws", ())
    assert named is not None
    assert (named.product, named.running()) == ("player", ("/vms/a b.vmx",))


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("fe80::7", "fe80::7"),
        ("10.0.0.1 -oProxyCommand=x; rm -r .", ""),
        ("fe80::1%; rm -r .", ""),
        ("unknown", ""),
    ],
)
def test_what_the_guest_says_is_an_address_or_nothing(vm: Path, told: str, address: str) -> None:
    body = f"""[ "$3" = list ] && echo 'Total running VMs: 1' && echo '{vm}' || echo '{told}'"""
    vmrun = program(vm.with_name("vmrun"), body)
    backend = VmxBackend.connect(Target("vmx", str(vm)), {"vmrun": str(vmrun)})
    control = backend.read(backend.find(str(vm))).control
    assert control is not None
    assert (control.listed, control.address) == (True, address)


@pytest.mark.parametrize("settings", [{"vmrun": "/nowhere/vmrun"}, {"product": "esx"}])
def test_setting_that_cannot_be_used(settings: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Vmrun.found(settings)
    assert "NESTVIRT_VMX_" in caught.value.cure


def test_refusals_are_told_in_vmruns_words(tmp_path: Path) -> None:
    body = "echo 'Error: Insufficient permissions in host operating system'; exit 255"
    refusing = Vmrun(str(program(tmp_path / "vmrun", body)), "ws")
    with pytest.raises(AccessDenied) as caught:
        refusing.running()
    assert "Insufficient permissions" in caught.value.evidence
    silent = Vmrun(str(program(tmp_path / "silent", "exit 3")), "ws")
    with pytest.raises(Refused, match="vmrun stop ended with 3"):
        silent.ask("stop", "a.vmx")
    with pytest.raises(ConnectionFailed, match="does not tell"):
        Vmrun(str(tmp_path / "gone"), "ws").running()


def test_vmrun_that_hangs_is_ended(tmp_path: Path) -> None:
    hanging = Vmrun(str(program(tmp_path / "vmrun", "exec sleep 60")), "ws")
    with pytest.raises(Refused, match="no answer within 0 s"):
        hanging.ask("list", timeout=0.1)


@pytest.mark.parametrize("name", ["[datastore1] web/web.vmx", "/vmfs/volumes/x/web.vmx"])
def test_name_on_a_datastore_stays_as_it_is(name: str) -> None:
    assert vmfile.target_name(name) == name


def test_other_names_hold_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/nowhere")
    assert vmfile.target_name("web.vmx") == str(tmp_path / "web.vmx")
    assert vmfile.target_name("~/web.vmx") == "/nowhere/web.vmx"
