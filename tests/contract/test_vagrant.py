"""Vagrant: the whole suite on VMs whose Vagrant recites, and what matters with the real one on libvirt."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestvirt import backends, engine
from nestvirt.backends import vagrant
from nestvirt.backends.vagrant import facts
from nestvirt.engine import Session, Step
from nestvirt.errors import Busy, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Finding, Report, Status, Target
from tests.contract.basis import Basis
from tests.contract.conformance import MANNER, OFF, ON, Conformance
from tests.contract.rig import Rig
from tests.contract.test_memory import MemoryRig
from tests.lab.libvirtd import LibvirtLab
from tests.peers import memory
from tests.peers.vagrant_rig import RecitedRig, VagrantRig, reciting_program


class TestRecited(Conformance):
    """Vagrant's part is recorded, the provider is the in-memory one: so that all of it takes seconds."""

    @pytest.fixture
    def rig(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecitedRig:
        monkeypatch.setitem(backends.BACKENDS, *memory.REGISTRATION)
        monkeypatch.setattr(vagrant, "HYPERVISOR", "memory")
        monkeypatch.setattr(facts, "SETTING", "nested")
        monkeypatch.setenv("PATH", str(reciting_program(tmp_path / "bin")), prepend=os.pathsep)
        (tmp_path / "projects").mkdir()
        return RecitedRig(MemoryRig(tmp_path / "hypervisor.json"), tmp_path / "projects")

    def test_unknown_vm_is_named_beside_what_there_is(self, rig: Rig, journal: Journal) -> None:
        name = rig.make(running=False)
        with pytest.raises(TargetError) as caught:
            self.session(rig, journal, f"{name}#nobody")
        assert "nobody" in caught.value.message
        assert "default" in caught.value.evidence
        assert "--machine" in caught.value.cure

    def kill_at(self, rig: Rig, name: str, step: Step, tmp_path: Path) -> None:
        """In a child that has the same peer in memory."""

        def die(now: Step, _detail: str) -> None:
            if now is step:
                os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if child == 0:
            try:
                engine.reach(self.session(rig, Journal(tmp_path / "state"), name, die), ON, MANNER)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def add_to_vagrantfile(name: str, warned: Finding) -> None:
    """Do what the cure says."""
    _, _, line = warned.cure.partition("/Vagrantfile: ")
    with (Path(name.partition("#")[0]) / "Vagrantfile").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def of_vagrant(report: Report) -> Finding:
    [finding] = [f for f in report.findings if f.check == "vm-vagrantfile"]
    return finding


class TestVagrant(Basis):
    """Real Vagrant with vagrant-libvirt; its VMs are those of the lab."""

    @pytest.fixture
    def rig(
        self, libvirt_lab: LibvirtLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[VagrantRig]:
        monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant.d"))
        rig = VagrantRig(libvirt_lab, tmp_path)
        yield rig
        rig.remove_all()

    test_ambiguous_name_is_refused = Conformance.test_ambiguous_name_is_refused
    test_no_answer_is_connection_failed = Conformance.test_no_answer_is_connection_failed
    test_refused_user_is_access_denied = Conformance.test_refused_user_is_access_denied

    def test_vagrant_takes_the_setting_back_unless_its_file_has_the_line(
        self, rig: VagrantRig, journal: Journal
    ) -> None:
        name = rig.make()
        before = rig.see(name)
        enabled = engine.reach(self.session(rig, journal, name), ON, MANNER)
        warned = of_vagrant(enabled)
        assert (enabled.conclusion, warned.status) == (Status.PASS, Status.WARN)
        assert rig.see(name).nested
        assert rig.see(name).others == before.others

        assert ",state,running" in rig.vagrant(name, "status", "--machine-readable")
        rig.vagrant(name, "halt")
        assert not rig.see(name).running
        rig.vagrant(name, "up")
        assert not rig.see(name).nested

        add_to_vagrantfile(name, warned)
        rig.lab.virsh("destroy", rig.domain(name))
        rig.vagrant(name, "up")
        rig.lab.wait_agent(rig.domain(name))
        kept = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert (kept.conclusion, kept.changes) == (Status.PASS, ())
        assert of_vagrant(kept).status is Status.PASS

    def test_one_machine_of_many_is_named(self, rig: VagrantRig, journal: Journal) -> None:
        folder = rig.project(machines=("one", "two"))
        rig.vagrant(str(folder), "up", "two")
        with pytest.raises(TargetError, match="has not made the machine one") as caught:
            self.session(rig, journal, f"{folder}#one")
        assert "vagrant up one" in caught.value.cure
        name = f"{folder}#two"
        rig.lab.virsh("destroy", rig.domain(name))
        add_to_vagrantfile(name, of_vagrant(engine.reach(self.session(rig, journal, name), ON, MANNER)))
        rig.vagrant(str(folder), "up", "two")
        rig.lab.virsh("destroy", rig.domain(name))
        assert rig.see(name).nested
        checked = engine.check(self.session(rig, journal, name), ON)
        assert of_vagrant(checked).status is Status.PASS

    def test_disable_warns_where_the_file_would_bring_it_back(
        self, rig: VagrantRig, journal: Journal
    ) -> None:
        name = rig.make(nested=True, running=False)
        disabled = engine.reach(self.session(rig, journal, name), OFF, MANNER)
        assert "policy='disable' name='svm'" in rig.see(name).stored
        assert of_vagrant(disabled).status is Status.WARN
        assert "libvirt.nested = true" in of_vagrant(disabled).evidence
        assert not rig.see(name).nested

    def test_it_is_the_same_vm_for_libvirt(self, rig: VagrantRig, journal: Journal, tmp_path: Path) -> None:
        name = rig.make(running=False)
        before = rig.see(name)
        session = self.session(rig, journal, name)
        domain = Target("libvirt", rig.domain(name))
        backend = backends.connect(domain, rig.endpoint)
        other = Session(backend, domain, backend.find(domain.name), journal, "", timeout=60)
        with journal.lock("vagrant", session.vm), pytest.raises(Busy):
            engine.reach(other, ON, MANNER)
        run = engine.reach(session, ON, MANNER).run
        assert run is not None
        assert journal.find(None, domain.name, "libvirt").id == run
        [change] = engine.reach(other, OFF, MANNER).changes
        assert change.before == journal.find(run).steps[0].kept
        assert not rig.see(name).nested
        assert rig.see(name).others == before.others

    def test_undo_needs_no_project(self, rig: VagrantRig, journal: Journal) -> None:
        name = rig.make(running=False)
        before = rig.see(name)
        run = journal.find(engine.reach(self.session(rig, journal, name), ON, MANNER).run)
        (Path(name) / "Vagrantfile").unlink()
        backend = backends.connect(run.target, run.endpoint)
        session = Session(backend, run.target, backend.find(run.vm.id), journal, "")
        assert engine.undo(session, run, MANNER).conclusion is Status.PASS
        assert rig.see(name) == before

    def test_looking_leaves_no_trace_in_the_project(self, rig: VagrantRig, journal: Journal) -> None:
        """Vagrant's own ``status`` would forget the machine here."""
        name = rig.make(running=False)
        other = rig.project()
        text = (Path(name) / "Vagrantfile").read_text(encoding="utf-8")
        (Path(name) / "Vagrantfile").write_text(text.replace(rig.lab.uri, "test:///default"))
        before = _files(Path(name))
        engine.check(self.session(rig, journal, name), ON)
        with pytest.raises(TargetError):
            self.session(rig, journal, str(other))
        assert _files(Path(name)) == before
        assert [file.name for file in other.iterdir()] == ["Vagrantfile"]
        rig.vagrant(name, "status")
        assert _files(Path(name)) != before
        rig.lab.remove(rig.domain(name))

    def test_libvirt_without_the_vm_is_called_so(self, rig: VagrantRig, journal: Journal) -> None:
        name = rig.make(running=False)
        rig.lab.remove(rig.domain(name))
        with pytest.raises(TargetError, match="is not there") as caught:
            self.session(rig, journal, name)
        assert "--connect" in caught.value.cure

    def test_vagrantfile_that_cannot_be_read_is_told_in_vagrants_words(
        self, rig: VagrantRig, journal: Journal
    ) -> None:
        folder = rig.project()
        (folder / "Vagrantfile").write_text('raise "its own words"', encoding="utf-8")
        with pytest.raises(TargetError) as caught:
            self.session(rig, journal, str(folder))
        assert "its own words" in caught.value.evidence
        assert "vagrant status" in caught.value.cure


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
