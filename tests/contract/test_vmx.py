"""Workstation and Fusion: the whole suite on folders of VMs with a vmrun, and what is particular to power."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nestvirt import backends, engine
from nestvirt.backends.base import Lingering
from nestvirt.backends.workstation import locks, vmrun
from nestvirt.engine import Session, Step
from nestvirt.errors import ChangeRejected, ConnectionFailed, Error, PowerError, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Change, Status, Target
from tests.contract.basis import MANNER, OFF, ON, Basis, Tell, quiet
from tests.contract.cold import ColdConformance
from tests.contract.rig import Rig
from tests.lab import wait_for
from tests.peers.vmrun_rig import Guest, VmrunRig, machine_id

IMPATIENT = 4.0
"""Seconds: a guest of this peer that does not answer at once never does."""


class VmxBasis(Basis):
    """Looked into over SSH, as vmrun is given no guest's password."""

    @pytest.fixture
    def rig(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VmrunRig]:
        rig = VmrunRig(tmp_path / "vms")
        monkeypatch.chdir(rig.folder)
        yield rig
        rig.close()

    def session(
        self, rig: Rig, journal: Journal, name: str, tell: Tell = quiet, timeout: float = 0
    ) -> Session:
        session = super().session(rig, journal, name, tell, min(timeout, IMPATIENT))
        return replace(session, ssh=Guest(session.vm.id))


class TestVmx(VmxBasis, ColdConformance):
    """The whole suite."""


def lock(name: str, process: str, machine: str = "") -> Path:
    """Have a process hold the VM's lock."""
    folder = Path(f"{name}.lck")
    folder.mkdir(exist_ok=True)
    member = folder / "M00017.lck"
    member.write_text(f"{machine or machine_id()} {process} 1 X [ lc=1 ".ljust(512, "\0"))
    return folder


class TestPower(VmxBasis):
    """Who has the VM, and what vmrun says."""

    def test_running_vm_without_vmrun_is_a_blocker_with_its_cure(
        self, rig: VmrunRig, journal: Journal
    ) -> None:
        name = rig.make()
        rig.has_vmrun = False
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        [blocker] = result.blockers
        assert blocker.check == "vm-power-permission"
        assert "shut it down" in blocker.cure
        assert rig.see(name) == before

    def test_vm_that_is_off_needs_no_vmrun(self, rig: VmrunRig, journal: Journal) -> None:
        name = rig.make(running=False)
        rig.has_vmrun = False
        engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert rig.see(name).nested
        session = self.session(rig, journal, name)
        with pytest.raises(PowerError, match="cannot be stopped or started"):
            session.backend.start(session.vm, timeout=1)

    def test_vm_of_another_user_is_left_alone(self, rig: VmrunRig, journal: Journal) -> None:
        name = rig.make()
        (rig.bin / "running").write_text("")
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert [f.check for f in result.blockers] == ["vm-power-permission"]
        assert "vmrun -T ws list" in result.blockers[0].evidence
        assert rig.see(name) == before

    @pytest.mark.parametrize("running", [True, False])
    def test_vm_that_a_window_has_open_is_left_alone(
        self, rig: VmrunRig, journal: Journal, running: bool
    ) -> None:
        name = rig.make(running=running)
        lock(name, f"{os.getpid()}-0(vmware)")
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert [f.check for f in result.blockers] == ["vm-lock"]
        assert "close the VM there" in result.blockers[0].cure
        assert "vmware" in result.blockers[0].evidence
        assert rig.see(name) == before

    def test_lock_of_a_process_that_is_gone_is_a_warning(
        self, rig: VmrunRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(locks, "all_seen", lambda: True)
        name = rig.make(running=False)
        folder = lock(name, "4194304-77(vmware-vmx)")
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert [f.check for f in result.findings if f.check.startswith("vm-lock")] == ["vm-lock-stale"]
        assert rig.see(name).nested
        assert folder.is_dir()

    def test_running_vm_that_proc_hides_is_left_alone(
        self, rig: VmrunRig, journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        name = rig.make()
        rig.has_vmrun = False
        monkeypatch.setattr(locks, "PROC", tmp_path)
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert [f.check for f in result.blockers] == ["vm-power-permission"]
        assert rig.see(name) == before

    @pytest.mark.parametrize("machine", ["uuid=56-4d-00", "AAAAAAAAAAAAAAAA", "not base64"])
    def test_lock_of_another_machine_blocks(self, rig: VmrunRig, journal: Journal, machine: str) -> None:
        name = rig.make(running=False)
        folder = lock(name, "4194304-77(vmware-vmx)", machine)
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert [f.check for f in result.blockers] == ["vm-lock"]
        assert str(folder) in result.blockers[0].cure
        assert rig.see(name) == before

    @pytest.mark.parametrize("order", ["stop", "start"])
    def test_undo_waits_for_a_vmrun_that_a_killed_run_has_left(
        self, rig: VmrunRig, journal: Journal, tmp_path: Path, order: str
    ) -> None:
        """It is a process of its own, and shuts the VM down, or starts it, when nobody expects that."""
        name = rig.make()
        before = rig.see(name)
        quirks, asked = Path(name).with_name("quirks"), rig.bin / "asked"
        quirks.write_text("slow\n")
        asked.write_text("")
        job = {"backend": "vmx", "endpoint": dict(rig.endpoint), "name": name, "step": "NONE", "timeout": 30}
        job["state"] = str(tmp_path / "state")
        with subprocess.Popen([sys.executable, "-m", "tests.contract.killed", json.dumps(job)]) as process:
            wait_for(lambda: f" {order} {name}" in asked.read_text(), 30, f"vmrun {order}")
            process.kill()
        quirks.write_text("")
        waited: list[str] = []

        def tell(step: Step, detail: str) -> None:
            waited.extend([detail] if step is Step.LINGER else [])

        now = replace(self.session(rig, journal, name, tell), timeout=30)
        engine.undo(now, journal.find(None), MANNER)
        assert [told.partition(" (")[0] for told in waited] == [f"vmrun {order}"]
        time.sleep(1.5)
        assert (rig.see(name).stored, rig.see(name).running) == (before.stored, True)

    @pytest.mark.parametrize("proc", [True, False])
    def test_vmrun_of_another_vm_is_not_waited_for(
        self, rig: VmrunRig, journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proc: bool
    ) -> None:
        """Without /proc, as on a Mac, ps tells."""
        if not proc:
            monkeypatch.setattr(vmrun, "PROC", tmp_path / "none")
        name, other = rig.make(running=False), rig.make(running=False)
        program = tmp_path / "vmrun"
        program.write_text("#!/bin/sh\necho at work\nread -r _\n")
        program.chmod(0o755)
        sessions = {vm: self.session(rig, journal, vm) for vm in (name, other)}
        command = [str(program), "-T", "ws", "stop", name, "soft"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"at work\n"  # only now is its command line its own
            told = {
                vm: session.backend.at_work(session.vm)
                for vm, session in sessions.items()
                if isinstance(session.backend, Lingering)
            }
            process.communicate(b"\n")
        assert told == {name: f"vmrun stop (process {process.pid})", other: ""}
        assert isinstance(sessions[name].backend, Lingering)

    def test_vm_that_asks_a_question_is_put_back(self, rig: VmrunRig, journal: Journal) -> None:
        name = rig.make()
        Path(name).with_name("quirks").write_text("question\n")
        stored = rig.see(name).others

        with pytest.raises(Error, match="is not put back") as caught:
            engine.reach(self.session(rig, journal, name, timeout=1), ON, MANNER)
        assert "gave no answer within" in caught.value.evidence
        assert "nestvirt undo" in caught.value.cure
        seen = rig.see(name)
        assert (seen.nested, seen.running) == (False, False)
        assert seen.others == stored.replace('"FALSE"', '"TRUE"')
        Path(name).with_name("quirks").unlink()
        engine.undo(self.session(rig, journal, name), journal.find(None), MANNER)
        assert rig.see(name).running

    def test_line_that_vmware_writes_over_is_missed_and_told(self, rig: VmrunRig, journal: Journal) -> None:
        name = rig.make(quirk="overwrites")
        rig.edit(name, nested=True)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert result.first_broken is not None
        assert (result.conclusion, result.first_broken.check) == (Status.FAIL, "vm-cpu")
        again = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert again.conclusion is Status.PASS
        assert rig.see(name).nested

    def test_nothing_is_written_while_it_runs(self, rig: VmrunRig, journal: Journal) -> None:
        name = rig.make()
        before = rig.see(name)
        session = self.session(rig, journal, name)
        with pytest.raises(ChangeRejected, match="runs"):
            session.backend.apply(session.vm, Change("vhv.enable", None, 'vhv.enable = "TRUE"'))
        assert rig.see(name) == before

    def test_power_that_is_cut(self, rig: VmrunRig, journal: Journal) -> None:
        name = rig.make(quirk="deaf")
        session = self.session(rig, journal, name)
        session.backend.power_off(session.vm)
        session.backend.power_off(session.vm)
        assert not rig.see(name).running

    def test_vmrun_is_never_given_a_password(self, rig: VmrunRig, journal: Journal) -> None:
        name = rig.make()
        session = self.session(rig, journal, name)
        assert session.backend.channel(session.vm) is None
        checked = engine.check(replace(session, ssh=None), ON)
        [agent] = [f for f in checked.findings if f.check == "vm-agent"]
        assert agent.cure.endswith("--ssh USER@192.168.17.130")
        engine.reach(session, ON, MANNER)
        engine.reach(session, OFF, MANNER)
        asked = (rig.bin / "asked").read_text().splitlines()
        assert {line.split()[2] for line in asked} == {"list", "start", "stop", "getGuestIPAddress"}
        assert not [line for line in asked if " -g" in line or " -vp" in line]

    def test_vmrun_that_prints_nonsense_is_told_in_its_words(self, rig: VmrunRig) -> None:
        odd = rig.bin / "odd"
        odd.write_text("#!/bin/sh\necho 'hello \x1b[2J'\n")
        odd.chmod(0o755)
        with pytest.raises(ConnectionFailed) as caught:
            backends.connect(Target("vmx", "any"), {"vmrun": str(odd)})
        assert "hello" in caught.value.evidence
        assert "\x1b" not in caught.value.evidence
        assert f"{odd} -T ws list" in caught.value.cure

    def test_host_of_kvm_is_another_matter(self, rig: VmrunRig, journal: Journal) -> None:
        session = self.session(rig, journal, rig.make(running=False))
        with pytest.raises(TargetError, match="--with-host"):
            session.backend.host_of(session.vm)

    def test_record_has_nothing_but_the_line(self, rig: VmrunRig, journal: Journal, tmp_path: Path) -> None:
        name = rig.make(running=False)
        engine.reach(self.session(rig, journal, name), ON, MANNER)
        [record] = (tmp_path / "state/runs").iterdir()
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        assert lines[0]["endpoint"] == rig.endpoint
        assert lines[0]["vm"]["id"] == name
        assert [line.get("after") for line in lines if line["event"] == "change"] == ['vhv.enable = "TRUE"']
