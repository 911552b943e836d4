"""The conformance suite against libvirt on QEMU TCG, and what only libvirt has."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nestvirt import backends, engine
from nestvirt.backends.libvirt import connection
from nestvirt.engine import Manner
from nestvirt.errors import ConnectionFailed, SettingsError
from nestvirt.journal import Journal
from nestvirt.model import PROOF, Goal, Status, Target
from tests.contract.conformance import MANNER, OFF, ON, Conformance, agree
from tests.lab import wait_for
from tests.lab.libvirtd import LibvirtLab, cpu
from tests.peers.libvirt_rig import LibvirtRig


class TestLibvirt(Conformance):
    """A VM of real QEMU with a real agent."""

    @pytest.fixture
    def rig(self, libvirt_lab: LibvirtLab) -> Iterator[LibvirtRig]:
        rig = LibvirtRig(libvirt_lab)
        yield rig
        rig.remove_all()

    def test_found_by_uuid_and_by_id_too(self, rig: LibvirtRig, journal: Journal) -> None:
        name = rig.make()
        for other in ("domuuid", "domid"):
            session = self.session(rig, journal, rig.lab.virsh(other, name).strip())
            assert session.vm.name == name

    def test_managed_save_blocks_for_it_would_bring_the_old_cpu_back(
        self, rig: LibvirtRig, journal: Journal
    ) -> None:
        name = rig.make()
        rig.lab.virsh("managedsave", name)
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert result.first_broken is not None
        assert result.first_broken.check == "vm-managed-save"
        assert rig.see(name) == before

    def test_transient_vm_is_refused(self, rig: LibvirtRig, journal: Journal) -> None:
        name = rig.make()
        rig.lab.virsh("undefine", name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert result.first_broken is not None
        assert result.first_broken.check == "vm-persistent"

    def test_vmx_on_an_intel_model_is_dropped_in_silence_and_called_so(
        self, rig: LibvirtRig, journal: Journal
    ) -> None:
        name = rig.make(running=False)
        rig.lab.define(
            name,
            svm=False,
            cpu_xml=cpu("Nehalem", svm=False).replace("'disable' name='svm'", "'require' name='vmx'"),
        )
        rig.lab.start(name)
        rig.lab.wait_agent(name)
        checked = engine.check(self.session(rig, journal, name), ON)
        assert checked.first_broken is not None
        assert checked.first_broken.check == "vm-cpu"
        enabled = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert enabled.conclusion is Status.PASS
        assert ">EPYC<" in rig.see(name).stored

    def test_host_passthrough_that_emulation_cannot_start_is_mended(
        self, rig: LibvirtRig, journal: Journal
    ) -> None:
        name = rig.make(running=False)
        rig.lab.define(name, svm=False, cpu_xml="<cpu mode='host-passthrough' check='none'/>")
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert [c.setting for c in result.changes] == ["cpu"]
        rig.lab.start(name)
        rig.lab.wait_agent(name)
        assert engine.check(self.session(rig, journal, name), ON).conclusion is Status.PASS

    def test_default_cpu_is_judged_by_what_libvirt_expands_it_to(
        self, rig: LibvirtRig, journal: Journal
    ) -> None:
        """libvirt writes QEMU's default, qemu64, where a definition names no CPU; and that one has svm."""
        name = rig.make(running=False)
        rig.lab.define(name, svm=False, cpu_xml="")
        rig.lab.start(name)
        rig.lab.wait_agent(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert (result.conclusion, result.changes) == (Status.PASS, ())

    def test_named_model_that_libvirt_does_not_know_blocks_with_near_names(
        self, rig: LibvirtRig, journal: Journal
    ) -> None:
        name = rig.make(running=False)
        result = engine.reach(self.session(rig, journal, name), Goal(cpu="EPIC"), MANNER)
        assert result.first_broken is not None
        assert result.first_broken.check == "vm-cpu-choice"
        assert "EPYC" in result.first_broken.cure

    def test_named_model_is_used(self, rig: LibvirtRig, journal: Journal) -> None:
        name = rig.make()
        result = engine.reach(self.session(rig, journal, name), Goal(cpu="EPYC-Rome"), MANNER)
        assert result.conclusion is Status.PASS
        assert ">EPYC-Rome<" in rig.see(name).stored

    @pytest.mark.parametrize(
        ("agent", "words", "evidence"),
        [
            ("noexec", "", "guest-exec"),
            ("liar", "", "not the probe's"),
            ("flood", "", "more than"),
            ("mute", "", "did not answer"),
            ("none", "", "did not answer"),
            ("real", "nv.python=no", "no guest code was run"),
        ],
    )
    def test_guest_that_cannot_be_trusted_or_asked_is_unproven(
        self, rig: LibvirtRig, journal: Journal, agent: str, words: str, evidence: str
    ) -> None:
        name = rig.make(nested=True, agent=agent, words=words)
        result = engine.check(self.session(rig, journal, name, timeout=20), ON)
        [proof] = [f for f in result.findings if f.check == PROOF]
        assert result.conclusion is Status.UNKNOWN
        assert proof.status is Status.UNKNOWN
        assert evidence in proof.evidence
        assert proof.evidence.isprintable()

    def test_disable_refuses_while_a_vm_runs_inside_the_guest(
        self, rig: LibvirtRig, journal: Journal
    ) -> None:
        name = rig.make(nested=True)
        script = (
            "import fcntl,time;k=open('/dev/kvm','r+b',0);v=fcntl.ioctl(k,0xAE01,0);print(v);time.sleep(600)"
        )
        command = {"execute": "guest-exec", "arguments": {"path": "python3", "arg": ["-c", script]}}
        rig.lab.virsh("qemu-agent-command", name, json.dumps(command))
        session = self.session(rig, journal, name)
        wait_for(
            lambda: "kvm_users" in _numbers(session) and _numbers(session)["kvm_users"] > 0, 30, "a nested VM"
        )
        before = rig.see(name)
        result = engine.reach(session, OFF, MANNER)
        assert result.first_broken is not None
        assert result.first_broken.check == "guest-kvm-users"
        assert rig.see(name) == before

    def test_module_that_is_not_loaded_is_named_and_loaded_only_when_asked(
        self, rig: LibvirtRig, journal: Journal
    ) -> None:
        name = rig.make(nested=True, words="nv.modules=no")
        session = self.session(rig, journal, name)
        result = engine.check(session, ON)
        assert result.proof is not None
        assert result.proof.cause == "module-not-loaded"
        loading = engine.Session(**{**vars(session), "load_modules": True})
        assert engine.check(loading, ON).conclusion is Status.PASS

    def test_definition_never_read_back_by_libvirt_is_enabled_all_the_same(
        self, rig: LibvirtRig, journal: Journal
    ) -> None:
        """libvirt sorts devices when it reads a definition again; that is no change of ours."""
        name = rig.make(running=False)
        rig.lab.define(name, svm=False)
        result = engine.reach(self.session(rig, journal, name), ON, Manner(consent=agree))
        assert [c.setting for c in result.changes] == ["cpu"]


@contextmanager
def hung(lab: LibvirtLab) -> Iterator[None]:
    """The daemon takes connections and requests, and answers none."""
    pid = lab.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_daemon_that_hangs_is_given_up(libvirt_lab: LibvirtLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt itself would wait for ever, both for a connection and for an answer."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 2.0)
    monkeypatch.setattr(connection, "KEEPALIVE", (1, 2))
    target, endpoint = Target("libvirt", "x"), {"uri": libvirt_lab.uri}
    backend = backends.connect(target, endpoint)
    with hung(libvirt_lab):
        with pytest.raises(ConnectionFailed) as caught:
            backends.connect(target, endpoint)
        assert "no answer" in caught.value.evidence
        with pytest.raises(ConnectionFailed):
            backend.find("x")


def test_uri_with_a_password_is_refused_before_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        backends.connect(Target("libvirt", "x"), {"uri": "qemu+ssh://root:hunter2@192.0.2.1/system"})
    assert "hunter2" not in f"{caught.value.message}{caught.value.evidence}{caught.value.cure}"


def _numbers(session: engine.Session) -> dict[str, float]:
    proof = engine.check(session, ON).proof
    return proof.numbers if proof else {}
