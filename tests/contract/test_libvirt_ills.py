"""libvirt, its daemon, QEMU and the agent in a bad way: what only they can do to a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from nestvirt import backends
from nestvirt.backends.base import Backend
from nestvirt.errors import GuestUnreachable, PowerError, SettingsError, TargetError
from nestvirt.model import Change, Finding, Goal, Power, Target, Vm
from tests.lab import wait_for
from tests.lab.libvirtd import LibvirtLab
from tests.peers.libvirt_rig import UP, LibvirtRig


@pytest.fixture
def rig(libvirt_lab: LibvirtLab) -> Iterator[LibvirtRig]:
    rig = LibvirtRig(libvirt_lab)
    yield rig
    rig.remove_all()


def opened(rig: LibvirtRig, name: str) -> tuple[Backend, Vm]:
    backend = backends.connect(Target("libvirt", name), rig.endpoint)
    return backend, backend.find(name)


def found(backend: Backend, vm: Vm, check: str) -> list[Finding]:
    return [finding for finding in backend.read(vm).judge(Goal()) if finding.check == check]


def test_qemu_that_hangs_is_given_up_and_its_power_can_be_cut(rig: LibvirtRig) -> None:
    name = rig.make()
    backend, vm = opened(rig, name)
    with rig.frozen(name):
        begun = time.monotonic()
        with pytest.raises(PowerError) as caught:
            backend.stop(vm, timeout=4)
        assert time.monotonic() - begun < 15
        assert "still hangs" in caught.value.evidence
        assert "--force-off" in caught.value.cure
        assert backend.read(vm).power is Power.RUNNING
        backend.power_off(vm)
        assert backend.read(vm).power is Power.STOPPED


def test_qemu_that_hangs_when_it_starts_is_ended_and_may_be_started_otherwise(rig: LibvirtRig) -> None:
    name = rig.make(nested=True, running=False, quirk="hanging")
    backend, vm = opened(rig, name)
    with pytest.raises(PowerError, match="did not start"):
        backend.start(vm, timeout=3)
    facts = backend.read(vm)
    assert facts.power is Power.STOPPED
    before = facts.value("cpu")
    assert before is not None
    backend.apply(vm, Change("cpu", before, before.replace("require", "disable")))
    backend.start(vm, timeout=30)
    assert backend.read(vm).power is Power.RUNNING


def test_daemon_that_is_restarted_is_connected_to_again(rig: LibvirtRig) -> None:
    name = rig.make()
    backend, vm = opened(rig, name)
    channel = backend.channel(vm)
    assert channel is not None
    before = backend.read(vm).value("cpu")
    assert before is not None

    rig.restart_daemon()
    channel.ping(timeout=30)
    rig.restart_daemon()
    assert backend.read(vm).power is Power.RUNNING
    rig.restart_daemon()
    backend.apply(vm, Change("cpu", before, before.replace("disable", "require")))
    rig.restart_daemon()
    backend.stop(vm, timeout=60)
    rig.restart_daemon()
    backend.start(vm, timeout=60)
    assert rig.see(name).nested
    assert rig.see(name).running


def test_agent_of_a_closed_connection_is_out_of_reach(rig: LibvirtRig) -> None:
    name = rig.make()
    backend, vm = opened(rig, name)
    channel = backend.channel(vm)
    assert channel is not None
    backend.close()
    with pytest.raises(GuestUnreachable) as caught:
        channel.ping(timeout=0.2)
    assert "was closed" in caught.value.evidence


def test_agent_that_refuses_to_shut_down_is_followed_by_the_power_button(
    rig: LibvirtRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import libvirt_qemu

    really = libvirt_qemu.qemuAgentCommand

    def refusing(domain: Any, command: str, timeout: int, flags: int) -> str:
        return str(really(domain, command.replace("guest-shutdown", "guest-nothing"), timeout, flags))

    name = rig.make()
    backend, vm = opened(rig, name)
    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", refusing)
    begun = time.monotonic()
    backend.stop(vm, timeout=30)
    assert time.monotonic() - begun < 6
    assert not rig.see(name).running


def test_agent_that_obeys_in_words_only_is_followed_by_the_power_button(
    rig: LibvirtRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import libvirt_qemu

    name = rig.make()
    backend, vm = opened(rig, name)
    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", lambda *_: '{"return": {}}')
    backend.stop(vm, timeout=30)
    assert not rig.see(name).running


def test_vm_that_restarts_when_it_is_shut_down_is_told_and_its_cure_cures(rig: LibvirtRig) -> None:
    name = rig.make()
    rig.lab.virsh("set-lifecycle-action", name, "poweroff", "restart", "--live", "--config")
    backend, vm = opened(rig, name)
    (finding,) = found(backend, vm, "vm-poweroff-action")
    boots = rig.lab.console(name).count(UP)
    rig.lab.virsh("shutdown", name, "--mode", "acpi")
    wait_for(lambda: rig.lab.console(name).count(UP) > boots, 60, "the guest to boot again")
    assert rig.see(name).running
    rig.run_in_a_shell(finding.cure)
    assert found(backend, vm, "vm-poweroff-action") == []


def test_paused_vm_is_resumed_by_its_cure(rig: LibvirtRig) -> None:
    name = rig.make()
    rig.suspend(name)
    backend, vm = opened(rig, name)
    (finding,) = found(backend, vm, "vm-suspended")
    rig.run_in_a_shell(finding.cure)
    assert backend.read(vm).power is Power.RUNNING


def test_vm_suspended_by_its_guest_is_woken_by_its_cure(rig: LibvirtRig) -> None:
    name = rig.make()
    rig.lab.virsh("dompmsuspend", name, "mem")
    wait_for(lambda: rig.lab.virsh("domstate", name).strip() == "pmsuspended", 30, "the guest to sleep")
    backend, vm = opened(rig, name)
    (finding,) = found(backend, vm, "vm-suspended")
    assert "power management" in finding.evidence
    rig.run_in_a_shell(finding.cure)
    wait_for(lambda: backend.read(vm).power is Power.RUNNING, 30, "the guest to wake")


def test_host_model_under_emulation_has_the_svm_of_its_base_model(rig: LibvirtRig) -> None:
    """libvirt's host-model of QEMU's emulation is EPYC, which contains svm, so that it does not list it."""
    name = rig.make(running=False)
    rig.lab.define(name, svm=False, cpu_xml="<cpu mode='host-model' check='none'/>")
    backend, vm = opened(rig, name)
    assert [str(f.status) for f in found(backend, vm, "vm-cpu")] == ["pass"]
    rig.lab.start(name)
    live = rig.lab.virsh("dumpxml", name)
    assert "policy='disable' name='svm'" not in live


def test_digit_that_is_no_number_is_no_vm(rig: LibvirtRig) -> None:
    rig.make()
    with pytest.raises(TargetError):
        opened(rig, "²")


@pytest.mark.parametrize("uri", ["qemu+ssh://[::1/system", "http://[bad", "http://me:hunter2@[bad"])
def test_what_is_no_uri_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError) as caught:
        backends.connect(Target("libvirt", "x"), {"uri": uri})
    assert "hunter2" not in f"{caught.value.message}{caught.value.evidence}{caught.value.cure}"
