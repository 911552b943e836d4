"""A raised hardware version stays: what a failed run, a run that died, undo and disable make of it."""

from __future__ import annotations

import pytest

from nestvirt import engine
from nestvirt.engine import Step
from nestvirt.errors import Interrupted, PowerError
from nestvirt.journal import Journal
from nestvirt.model import Change, Goal, Power, Status
from tests.contract.basis import MANNER, OFF
from tests.contract.runs import enable, found, session
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import ENOUGH, VSphereRig

UPGRADE = Goal(upgrade="vmx-13")


@pytest.fixture
def rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter, (*ENOUGH, "VirtualMachine.Config.UpgradeVirtualHardware"))


def version(rig: VSphereRig, name: str) -> str:
    return str(rig.lab.see(name)["config"]["Version"])


def test_vm_that_does_not_start_then_is_put_back_but_for_its_version_and_started(
    rig: VSphereRig, journal: Journal
) -> None:
    name = rig.make(hardware="vmx-08", quirk="fragile")
    with pytest.raises(PowerError) as caught:
        enable(rig, journal, name, UPGRADE)
    assert "but for config.version: vmx-13 stays" in caught.value.cure
    assert (rig.see(name).nested, rig.see(name).running, version(rig, name)) == (False, True, "vmx-13")


def test_ctrl_c_between_the_two_leaves_the_version_alone(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(hardware="vmx-08")

    def press(step: Step, detail: str) -> None:
        if (step, detail) == (Step.APPLY, "nestedHVEnabled"):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="vmx-13 stays"):
        engine.reach(session(rig, journal, name, tell=press), UPGRADE, MANNER)
    assert (rig.see(name).nested, rig.see(name).running, version(rig, name)) == (False, True, "vmx-13")


def test_undo_of_such_a_run_puts_nesting_back_and_says_what_stays(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(hardware="vmx-08")
    run = enable(rig, journal, name, UPGRADE).run
    result = engine.undo(session(rig, journal, name), journal.find(run), MANNER)
    restored = {f.status: f for f in result.findings if f.check == "vm-restored"}
    assert "nestedHVEnabled is exactly" in restored[Status.PASS].evidence
    assert "config.version: vmx-13 stays" in restored[Status.WARN].evidence
    assert (restored[Status.WARN].cure, result.conclusion) == ("none: it cannot be lowered", Status.PASS)
    assert (rig.see(name).nested, rig.see(name).running, version(rig, name)) == (False, True, "vmx-13")
    assert [r.outcome for r in journal.runs()] == ["undone"]


def test_disable_after_such_a_run_takes_nesting_alone_away(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(hardware="vmx-08")
    enable(rig, journal, name, UPGRADE)
    result = engine.reach(session(rig, journal, name), OFF, MANNER)
    assert (result.conclusion, rig.see(name).nested, version(rig, name)) == (Status.PASS, False, "vmx-13")


def test_undo_of_a_run_that_died_gives_the_power_back_and_tells_what_stays(
    rig: VSphereRig, journal: Journal
) -> None:
    name = rig.make(hardware="vmx-08")
    opened = session(rig, journal, name)
    backend, vm = opened.backend, opened.vm
    record = journal.begin("enable", opened.target, vm, Power.RUNNING, backend.endpoint)
    backend.stop(vm, timeout=30)
    change = Change("config.version", "vmx-08", "vmx-13")
    record.intend(change)
    backend.apply(vm, change)
    result = engine.undo(session(rig, journal, name), journal.find(None), MANNER)
    restored = found(result, "vm-restored")
    assert (restored.status, restored.cure) == (Status.WARN, "none: it cannot be lowered")
    assert (rig.see(name).running, version(rig, name)) == (True, "vmx-13")
