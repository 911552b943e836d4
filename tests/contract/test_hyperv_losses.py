"""What a VM of Hyper-V may lose by nesting: memory, what checkpoints hold, the version that it had."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nestvirt import engine
from nestvirt.engine import Step
from nestvirt.errors import ChangeRejected
from nestvirt.journal import Journal
from nestvirt.model import Goal, Report, Status
from tests.contract.basis import MANNER, ON
from tests.contract.runs import check, enable, found, session
from tests.peers.hyperv import Checkpoint
from tests.peers.hyperv.model import GIB, MIB
from tests.peers.hyperv_rig import HyperVRig

UPGRADE = Goal(upgrade_version=True)
DYNAMIC: dict[str, Any] = {"dynamic": True, "minimum": 768 * MIB, "startup": 4 * GIB, "maximum": 12 * GIB}


@pytest.fixture
def rig(hyperv: HyperVRig) -> HyperVRig:
    return hyperv


def undo(rig: HyperVRig, journal: Journal, name: str, run: str | None) -> Report:
    return engine.undo(session(rig, journal, name), journal.find(run), MANNER)


def test_old_version_is_raised_only_when_asked_and_undo_leaves_it(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(version="9.0", running=False)
    assert "--upgrade-version" in found(enable(rig, journal, name), "vm-version").cure
    result = enable(rig, journal, name, UPGRADE)
    assert [change.setting for change in result.changes] == ["Version", "ExposeVirtualizationExtensions"]
    assert (rig.machine(name).version, rig.machine(name).expose) == ("10.0", True)
    undone = undo(rig, journal, name, result.run)
    assert undone.conclusion is Status.PASS
    assert [f.status for f in undone.findings] == [Status.PASS, Status.WARN]
    assert "Version: 10.0 stays" in undone.findings[1].evidence
    assert (rig.machine(name).version, rig.machine(name).expose) == ("10.0", False)


def test_checkpoints_lose_their_memory_to_a_version_only_when_asked(rig: HyperVRig, journal: Journal) -> None:
    saved = Checkpoint("while it ran")
    name = rig.make(version="9.0", running=False, checkpoints=[saved, Checkpoint("off", "Off")])
    before = rig.see(name)
    refused = enable(rig, journal, name, UPGRADE)
    assert [f.check for f in refused.blockers] == ["vm-version-upgrade"]
    assert rig.see(name) == before
    result = enable(rig, journal, name, replace(UPGRADE, discard_saved_state=True))
    assert [change.setting for change in result.changes] == ["Version", "ExposeVirtualizationExtensions"]
    assert (rig.machine(name).version, saved.state) == ("10.0", "Off")


def test_vm_that_somebody_saves_meanwhile_keeps_its_state(rig: HyperVRig, journal: Journal) -> None:
    """Update-VMVersion would discard it without a word."""
    name = rig.make(version="9.0", running=False)

    def save(step: Step, detail: str) -> None:
        if (step, detail) == (Step.APPLY, "Version"):
            rig.suspend(name)

    with pytest.raises(ChangeRejected) as caught:
        engine.reach(session(rig, journal, name, tell=save), UPGRADE, MANNER)
    assert "while the VM is off, and not saved" in caught.value.cure
    assert (rig.machine(name).state, rig.machine(name).version) == ("Saved", "9.0")


def test_version_that_hyper_v_only_warns_of_is_told_in_its_words(rig: HyperVRig, journal: Journal) -> None:
    """As in a cluster whose nodes are of several versions."""
    name = rig.make(version="9.0", running=False, upgradable=False)
    before = rig.see(name)
    with pytest.raises(ChangeRejected, match="left Version") as caught:
        enable(rig, journal, name, UPGRADE)
    assert "latest version supported here" in caught.value.evidence
    assert rig.see(name) == before


def test_dynamic_memory_goes_first_and_undo_gives_it_back_in_full(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(**DYNAMIC, guest_role=False)
    before = rig.see(name)
    result = enable(rig, journal, name)
    assert [change.setting for change in result.changes] == [
        "DynamicMemoryEnabled",
        "ExposeVirtualizationExtensions",
    ]
    machine = rig.machine(name)
    assert (machine.dynamic, machine.startup, machine.received) == (False, 4 * GIB, True)
    undo(rig, journal, name, result.run)
    assert rig.see(name).stored == before.stored
    assert rig.see(name).running


def test_dynamic_memory_that_somebody_has_changed_since_is_left(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False, **DYNAMIC)
    run = enable(rig, journal, name).run
    machine = rig.machine(name)
    machine.dynamic, machine.maximum = True, 6 * GIB
    before = rig.see(name)
    with pytest.raises(ChangeRejected, match="DynamicMemoryEnabled was changed by somebody else"):
        undo(rig, journal, name, run)
    assert rig.see(name) == before


def test_fixed_size_that_was_raised_since_is_left(rig: HyperVRig, journal: Journal) -> None:
    """As nestvirt itself advises."""
    name = rig.make(running=False, **{**DYNAMIC, "startup": 1 * GIB})
    run = enable(rig, journal, name).run
    rig.machine(name).startup = 8 * GIB
    before = rig.see(name)
    with pytest.raises(ChangeRejected, match="DynamicMemoryEnabled was changed by somebody else") as caught:
        undo(rig, journal, name, run)
    assert f"startup={8 * GIB}" in caught.value.evidence
    assert rig.see(name) == before


def test_memory_that_the_guest_will_miss_is_told_beforehand(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(**DYNAMIC, demand=10 * GIB)
    said = found(check(rig, journal, name), "vm-memory").evidence
    assert "uses 10240 MB now, and will have the 4096 MB" in said


def test_setting_that_a_start_rolls_back_without_a_word_is_seen(rig: HyperVRig, journal: Journal) -> None:
    """As where somebody turns dynamic memory on again before the VM starts."""
    name = rig.make()

    def meddle(step: Step, _detail: str) -> None:
        if step is Step.START:
            rig.machine(name).dynamic = True

    result = engine.reach(session(rig, journal, name, tell=meddle), ON, MANNER)
    assert result.conclusion is Status.FAIL
    assert found(result, "vm-cpu").status is Status.FAIL
    assert found(result, "vm-dynamic-memory").status is Status.FAIL
    assert rig.see(name).running


def test_little_memory_is_warned_of(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False, startup=2 * GIB)
    assert found(check(rig, journal, name), "vm-memory").status is Status.WARN


def test_vm_that_its_host_cannot_save_is_warned_of(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False)
    assert found(check(rig, journal, name), "vm-stop-action").status is Status.WARN
    rig.machine(name).stop_action = "ShutDown"
    assert not [f for f in check(rig, journal, name).findings if f.check == "vm-stop-action"]


def test_checkpoints_are_named(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False, checkpoints=[Checkpoint("before the upgrade")])
    finding = found(check(rig, journal, name), "vm-checkpoints")
    assert finding.status is Status.WARN
    assert "before the upgrade" in finding.evidence
    rig.machine(name).checkpoints[0].automatic = True
    assert not [f for f in check(rig, journal, name).findings if f.check == "vm-checkpoints"]
