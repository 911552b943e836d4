"""Tasks that end late, or whose end nobody lets us see: nothing lands after it was put back."""

from __future__ import annotations

import os
import signal
import time

import pytest

from nestvirt import engine
from nestvirt.backends import vsphere
from nestvirt.backends.vsphere import tasks
from nestvirt.engine import Step
from nestvirt.errors import ChangeRejected, ConnectionFailed, Error, Interrupted
from nestvirt.journal import Journal
from nestvirt.model import Change, Goal
from tests.contract.basis import MANNER, ON
from tests.contract.runs import enable, session
from tests.lab import wait_for
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import ENOUGH, VSphereRig

UPGRADE = Goal(upgrade="vmx-13")
BOTH, LINE = "true, vhv.enable=TRUE", "vhv.enable=FALSE"


@pytest.fixture
def rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter, (*ENOUGH, "VirtualMachine.Config.UpgradeVirtualHardware"))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute is a fifth of a second."""
    monkeypatch.setattr(vsphere, "PATIENCE", 0.2)
    monkeypatch.setattr(tasks, "SETTLE", 0.2)


def press() -> None:
    """Ctrl-C, when the task runs."""
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("method", "running"),
    [("ReconfigVM_Task", False), ("ReconfigVM_Task", True), ("PowerOnMultiVM_Task", True)],
)
def test_ctrl_c_while_a_task_runs_waits_for_its_end_and_puts_back(
    rig: VSphereRig, journal: Journal, method: str, running: bool
) -> None:
    name = rig.make(running=running)
    before = rig.see(name)
    rig.lab.task_seconds(0.7)
    with rig.lab.upon(method, press), pytest.raises(Interrupted, match="everything was put back"):
        enable(rig, journal, name)
    time.sleep(0.8)
    after = rig.see(name)
    assert (after.stored, after.running) == (before.stored, running)
    assert [run.outcome for run in journal.runs()] == ["put-back"]


def test_ctrl_c_while_the_hardware_is_raised_tells_that_it_stays(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(hardware="vmx-08", running=False)
    rig.lab.task_seconds(0.7)
    with rig.lab.upon("UpgradeVM_Task", press), pytest.raises(Interrupted, match="vmx-13 stays"):
        enable(rig, journal, name, UPGRADE)
    assert rig.lab.see(name)["config"]["Version"] == "vmx-13"


@pytest.mark.usefixtures("hasty")
def test_task_that_ends_beyond_its_time_is_no_failure(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    rig.lab.task_seconds(0.4)
    assert enable(rig, journal, name).changes
    assert rig.see(name).nested


@pytest.mark.usefixtures("hasty")
def test_task_that_can_be_cancelled_is_and_then_nothing_lands(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    before = rig.see(name)
    rig.lab.task_seconds(1, cancelable=True)
    with pytest.raises(ConnectionFailed) as caught:
        enable(rig, journal, name)
    assert "everything was put back" in caught.value.cure
    time.sleep(1)
    assert rig.see(name) == before
    assert [run.outcome for run in journal.runs()] == ["put-back"]


@pytest.mark.usefixtures("hasty")
def test_task_that_cannot_be_ended_leaves_the_run_to_undo(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    before = rig.see(name)
    rig.lab.task_seconds(2)
    with pytest.raises(Error, match="not put back") as caught:
        enable(rig, journal, name)
    [run] = journal.runs()
    assert run.outcome is None
    assert f"nestvirt undo {run.id}" in caught.value.cure
    wait_for(lambda: rig.see(name).nested, 5, "the task to end")
    rig.lab.task_seconds(0)
    engine.undo(session(rig, journal, name), journal.find(run.id), MANNER)
    assert rig.see(name).stored == before.stored


def test_task_whose_name_got_lost_is_waited_for(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    rig.lab.task_seconds(0.5)
    rig.lab.break_at("ReconfigVM_Task", "after")
    assert enable(rig, journal, name).changes
    assert rig.see(name).nested
    assert rig.lab.counts()["ReconfigVM_Task"] == 1


def test_fault_while_its_end_is_awaited_is_not_the_tasks(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    rig.lab.task_seconds(0.5)

    def fail() -> None:
        rig.lab.fail("RetrievePropertiesEx", "NotSupported")

    with rig.lab.upon("ReconfigVM_Task", fail):
        assert enable(rig, journal, name).changes
    assert rig.see(name).nested


def test_second_task_of_a_change_that_is_refused_is_put_back(rig: VSphereRig, journal: Journal) -> None:
    """The first one has taken the line out by then."""
    name = rig.make(nested=None, key="FALSE", running=False)
    run = journal.find(enable(rig, journal, name).run)
    before = rig.see(name)
    now = session(rig, journal, name)
    rig.lab.fail("ReconfigVM_Task", "NotSupported", skip=1)
    with pytest.raises(Error) as caught:
        engine.undo(now, run, MANNER)
    assert not isinstance(caught.value, ChangeRejected)
    assert "nothing was written" not in caught.value.cure
    assert rig.see(name).stored == before.stored


def test_second_task_that_is_refused_for_the_moment_is_done_again(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(nested=True, key="TRUE", running=False)
    now = session(rig, journal, name)
    rig.lab.fail("ReconfigVM_Task", "ConcurrentAccess", skip=1)
    now.backend.apply(now.vm, Change("nestedHVEnabled", BOTH, LINE))
    assert now.backend.read(now.vm).value("nestedHVEnabled") == LINE


def test_what_cannot_be_undone_is_told_beside_what_can(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(hardware="vmx-08")

    def interrupt(step: Step, _detail: str) -> None:
        if step is Step.PROBE:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        engine.reach(session(rig, journal, name, tell=interrupt), UPGRADE, MANNER)
    assert "nestvirt undo" in caught.value.cure
    assert "config.version: vmx-13 stays, which nobody can undo" in caught.value.cure


@pytest.mark.parametrize("again", [False, True])
def test_fault_of_our_own_tells_how_things_stand(
    rig: VSphereRig, journal: Journal, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    name = rig.make()
    now = session(rig, journal, name)

    def fault(*_arguments: object) -> None:
        if again:
            monkeypatch.setattr(now.backend, "read", fault)
        raise LookupError

    monkeypatch.setattr(now.backend, "apply", fault)
    with pytest.raises(LookupError) as caught:
        engine.reach(now, ON, MANNER)
    [run] = journal.runs()
    [note] = caught.value.__notes__
    assert ("nestvirt undo" in note, run.outcome) == ((True, None) if again else (False, "put-back"))
    assert rig.see(name).running is not again
    assert not rig.see(name).nested
