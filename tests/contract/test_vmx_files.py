"""The .vmx file: one line differs, and undo gives the same bytes back, whatever the file is like."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from nestvirt import engine
from nestvirt.errors import AccessDenied, ChangeRejected, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Change, Power, Status
from tests.contract.basis import MANNER, OFF, ON
from tests.contract.test_vmx import VmxBasis
from tests.peers.vmrun_rig import VmrunRig

PLAIN = b'config.version = "8"\nvirtualHW.version = "14"\n'
FILES = {
    "plain": PLAIN,
    "no-final-newline": PLAIN + b'memsize = "512"',
    "blank-at-end": PLAIN + b"\n\n",
    "crlf": PLAIN.replace(b"\n", b"\r\n"),
    "crlf-no-final": PLAIN.replace(b"\n", b"\r\n") + b'memsize = "512"',
    "old-mac": PLAIN.replace(b"\n", b"\r"),
    "bom": b"\xef\xbb\xbf" + b'.encoding = "UTF-8"\r\n' + PLAIN,
    "script": b"#!/usr/bin/vmware\n# a comment = no line\n" + PLAIN,
    "off": PLAIN + b'vhv.enable = "FALSE"\nnumvcpus = "2"\n',
    "off-at-end": PLAIN + b'vhv.enable = "FALSE"',
    "by-hand": b"\tVHV.Enable=false  # caf\xe9\r\n" + PLAIN,
    "empty": PLAIN + b"vhv.enable = \n",
    "nonsense": PLAIN + b'vhv.enable = "perhaps"\nvhv.enable "TRUE"\n= "x"\n',
    "escaped": PLAIN + b'annotation = "|22vhv.enable = |22TRUE|22|0A"\nvhv.enable = "|46ALSE"\n',
    "twice": b'vhv.enable = "TRUE"\n' + PLAIN + b'vhv.enable = "FALSE"\nmemsize = "4"\n',
    "twice-alike": PLAIN + b'vhv.enable = "TRUE"\nVHV.enable = "TRUE"\n',
    "thrice": b"vhv.enable = 0\n" + PLAIN + b"vhv.enable = 1\n#\n#\nvhv.enable = no",
    "gbk": b'.encoding = "GBK"\n' + PLAIN + 'displayName = "测试|机 乗"\n'.encode("gb18030"),
    "shift-jis": b'.encoding = "Shift_JIS"\n' + PLAIN + 'displayName = "表ソ能 十"\r\n'.encode("cp932"),
    "1252": b'.encoding = "windows-1252"\n' + PLAIN + b'displayName = "na\xefve"\n',
    "mixed": PLAIN.replace(b"\n", b"\r\n") + b'vhv.enable = "FALSE"\nmemsize = "4"\r\n',
    "mixed-twice": b"vhv.enable = 1\r\n" + PLAIN.replace(b"\n", b"\r\n") + b"vhv.enable = 0\n",
    "mixed-thrice": b"vhv.enable = 1\nvhv.enable = 1\r" + PLAIN.replace(b"\n", b"\r\n") + b"vhv.enable = 0",
    "mixed-alike": b"vhv.enable = 1\nvhv.enable = 0\n" + PLAIN.replace(b"\n", b"\r\n"),
    "no-utf-8": PLAIN + b'displayName = "\xff\xfe\x80"\n',
}


def differing(before: bytes, after: bytes) -> list[bytes]:
    """The lines of which one file has more than the other."""
    one, other = before.splitlines(), after.splitlines()
    return [line for line in {*one, *other} if one.count(line) != other.count(line)]


def file(rig: VmrunRig, data: bytes) -> Path:
    """A VM that is off, with that file."""
    path = Path(rig.make(running=False))
    path.write_bytes(data)
    return path


class TestBytes(VmxBasis):
    @pytest.mark.parametrize("data", FILES.values(), ids=FILES)
    def test_one_line_differs_and_undo_gives_the_same_bytes(
        self, rig: VmrunRig, journal: Journal, data: bytes
    ) -> None:
        path = file(rig, data)
        run = engine.reach(self.session(rig, journal, str(path)), ON, MANNER).run
        after = path.read_bytes()
        assert all(b"vhv.enable" in line.lower() for line in differing(data, after))
        assert rig.see(str(path)).nested
        assert after.endswith((b"\n", b"\r")) is data.endswith((b"\n", b"\r"))
        assert engine.reach(self.session(rig, journal, str(path)), ON, MANNER).run is None
        engine.undo(self.session(rig, journal, str(path)), journal.find(run), MANNER)
        assert path.read_bytes() == data

    @pytest.mark.parametrize("data", FILES.values(), ids=FILES)
    def test_disable_and_its_undo(self, rig: VmrunRig, journal: Journal, data: bytes) -> None:
        path = file(rig, data)
        engine.reach(self.session(rig, journal, str(path)), OFF, MANNER)
        assert not rig.see(str(path)).nested
        runs = journal.runs()
        assert bool(runs) is (path.read_bytes() != data)
        if runs:
            engine.undo(self.session(rig, journal, str(path)), runs[0], MANNER)
        assert path.read_bytes() == data

    def test_unset_is_unset_again_after_vmware_wrote_below(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, PLAIN)
        engine.reach(self.session(rig, journal, str(path)), ON, MANNER)
        with path.open("ab") as opened:
            opened.write(b'uuid.bios = "56 4d"\n')
        engine.reach(self.session(rig, journal, str(path)), OFF, MANNER)
        assert path.read_bytes() == PLAIN + b'uuid.bios = "56 4d"\n'

    def test_file_that_vmware_calls_corrupt_is_brought_into_line(
        self, rig: VmrunRig, journal: Journal
    ) -> None:
        path = Path(rig.make())
        data = path.read_bytes()
        path.write_bytes(b'vhv.enable = "FALSE"\n' + data + b'VHV.enable = "TRUE"\n')
        result = engine.reach(self.session(rig, journal, str(path)), ON, MANNER)
        assert (result.conclusion, len(result.changes)) == (Status.PASS, 1)
        assert path.read_bytes() == data + b'VHV.enable = "TRUE"\n'


class TestPlace(VmxBasis):
    def test_folder_and_bundle_stand_for_their_file(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, PLAIN)
        bundle = path.parent.with_suffix(".vmwarevm")
        path.parent.rename(bundle)
        (bundle / "._vm.vmx").write_bytes(b"of the Finder's")
        session = self.session(rig, journal, f"{bundle}/")
        assert session.vm.id == str(bundle / path.name)
        assert self.session(rig, journal, session.vm.id).vm == session.vm

    def test_link_stays_and_what_it_leads_to_is_changed(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, PLAIN)
        link = rig.folder / "link.vmx"
        link.symlink_to(path)
        engine.reach(self.session(rig, journal, str(link)), ON, MANNER)
        assert link.is_symlink()
        assert rig.see(str(path)).nested
        assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []

    def test_lock_beside_the_link_counts_too(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, PLAIN)
        link = rig.folder / "link.vmx"
        link.symlink_to(path)
        folder = rig.folder / "link.vmx.lck"
        folder.mkdir()
        (folder / "M00001.lck").write_bytes(b"x")
        (folder / "D00001.lck").mkdir()
        (folder / "notes").write_text("no lock")
        result = engine.reach(self.session(rig, journal, str(link)), ON, MANNER)
        assert [f.check for f in result.blockers] == ["vm-lock"]
        assert path.read_bytes() == PLAIN

    def test_mode_owner_and_attributes_stay(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, PLAIN)
        path.chmod(0o640)
        if os.getuid() == 0:
            os.chown(path, 12345, 23456)
        os.setxattr(path, "user.note", b"mine")
        before = path.stat()
        engine.reach(self.session(rig, journal, str(path)), ON, MANNER)
        after = path.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
        assert os.getxattr(path, "user.note") == b"mine"
        assert after.st_ino != before.st_ino

    def test_read_only_file_is_a_blocker(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, PLAIN)
        path.chmod(0o444)
        result = engine.reach(self.session(rig, journal, str(path)), ON, MANNER)
        assert [f.check for f in result.blockers] == ["vm-permission"]
        assert "mode 444" in result.blockers[0].evidence
        assert path.read_bytes() == PLAIN

    def test_undo_that_cannot_be_written_is_told_before_the_shutdown(
        self, rig: VmrunRig, journal: Journal
    ) -> None:
        name = rig.make(nested=True)
        run = journal.find(engine.reach(self.session(rig, journal, name), OFF, MANNER).run)
        before = rig.see(name)
        Path(name).with_name("other").hardlink_to(name)
        result = engine.undo(self.session(rig, journal, name), run, MANNER)
        assert [f.check for f in result.blockers] == ["vm-permission"]
        assert rig.see(name) == before

    def test_file_of_two_names_is_a_blocker(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, PLAIN)
        path.with_name("other").hardlink_to(path)
        result = engine.reach(self.session(rig, journal, str(path)), ON, MANNER)
        assert "2 names" in result.blockers[0].evidence

    def test_disk_that_is_full_leaves_the_file_as_it_was(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, PLAIN)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        rig.has_vmrun = False
        session = self.session(rig, journal, str(path))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
            with pytest.raises(ChangeRejected, match="cannot be written"):
                session.backend.apply(session.vm, Change("vhv.enable", None, 'vhv.enable = "TRUE"'))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, handler)
        assert path.read_bytes() == PLAIN
        assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []

    @pytest.mark.parametrize(
        ("name", "cure"),
        [
            ("/vmfs/volumes/datastore1/web/web.vmx", "--vsphere"),
            ("[datastore1] web/web.vmx", "--vsphere"),
            ("/nowhere/web.vmx", "bundle"),
        ],
    )
    def test_what_is_no_file_of_this_machine(
        self, rig: VmrunRig, journal: Journal, name: str, cure: str
    ) -> None:
        with pytest.raises(TargetError) as caught:
            self.session(rig, journal, name)
        assert cure in caught.value.cure

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("vm.vmxf", b"<Foundry/>"),
            ("vm.vmx", b""),
            ("vm.vmx", b"hello\n"),
            ("vm.vmx", 'config.version = "8"\n'.encode("utf-16")),
            ("vm.vmx", b'.encoding = "ISO-2022-JP"\n' + PLAIN),
            ("vm.vmx", PLAIN + b"#" * (4 << 20)),
        ],
    )
    def test_what_is_no_configuration(self, rig: VmrunRig, journal: Journal, name: str, data: bytes) -> None:
        path = rig.folder / name
        path.write_bytes(data)
        with pytest.raises(TargetError) as caught:
            self.session(rig, journal, str(path))
        assert ".vmx" in caught.value.cure
        assert path.read_bytes() == data

    def test_pipe_is_no_file(self, rig: VmrunRig, journal: Journal) -> None:
        os.mkfifo(rig.folder / "pipe.vmx")
        with pytest.raises(TargetError, match="is no file"):
            self.session(rig, journal, str(rig.folder / "pipe.vmx"))

    def test_folder_without_a_vm(self, rig: VmrunRig, journal: Journal) -> None:
        with pytest.raises(TargetError, match="has no") as caught:
            self.session(rig, journal, str(rig.bin))
        assert "no VMs" in caught.value.evidence

    def test_loop_of_links_cannot_be_read(self, rig: VmrunRig, journal: Journal) -> None:
        loop = rig.folder / "loop.vmx"
        loop.symlink_to(loop)
        with pytest.raises((AccessDenied, TargetError)):
            self.session(rig, journal, str(loop))


class TestReplaced(VmxBasis):
    """A new VM at the path of one that is gone is another VM."""

    OLD, NEW = (PLAIN + f'uuid.bios = "56 4d {i}"\n'.encode() for i in (1, 2))

    def test_it_gets_nothing_back_that_the_other_one_had(self, rig: VmrunRig, journal: Journal) -> None:
        path = file(rig, self.OLD)
        run = engine.reach(self.session(rig, journal, str(path)), ON, MANNER).run
        replaced = self.NEW + b'vhv.enable = "TRUE"\n'
        path.write_bytes(replaced)
        with pytest.raises(ChangeRejected, match="another VM") as caught:
            engine.undo(self.session(rig, journal, str(path)), journal.find(run), MANNER)
        assert "56 4d 1" in caught.value.evidence
        assert path.read_bytes() == replaced

    @pytest.mark.parametrize("data", [NEW, PLAIN], ids=["another UUID", "never started"])
    def test_it_is_not_started_for_a_run_that_left_the_other_one_off(
        self, rig: VmrunRig, journal: Journal, data: bytes
    ) -> None:
        path = file(rig, self.OLD)
        session = self.session(rig, journal, str(path))
        journal.begin("enable", session.target, session.vm, Power.RUNNING, session.backend.endpoint)
        path.write_bytes(data)
        engine.reach(self.session(rig, journal, str(path)), ON, MANNER)
        assert rig.see(str(path)).nested
        assert not rig.see(str(path)).running
