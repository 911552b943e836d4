"""What vCenter goes on with when the process that began it is dead: nothing of it lands after an undo."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nestvirt import engine
from nestvirt.backends.vsphere import tasks
from nestvirt.engine import Step
from nestvirt.errors import Busy, ConnectionFailed, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Change, Status
from tests.contract.basis import MANNER
from tests.contract.runs import enable, session
from tests.lab import wait_for
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import EsxiRig, VSphereRig

SECONDS = 1.0
"""Of a task: enough for the process to be killed, and for the undo to begin."""


@pytest.fixture
def rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter)


def kill_in(rig: VSphereRig, name: str, method: str, tmp_path: Path, *, cancelable: bool = False) -> None:
    """Run enable in a process of its own, and kill that as soon as vCenter has begun a task for it."""
    job = {
        "backend": rig.backend,
        "endpoint": dict(rig.endpoint),
        "name": name,
        "step": "NONE",
        "timeout": 30,
    }
    command = [
        sys.executable,
        "-m",
        "tests.contract.killed",
        json.dumps({**job, "state": str(tmp_path / "state")}),
    ]
    rig.lab.task_seconds(SECONDS, cancelable=cancelable)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with rig.lab.upon(method, process.kill):
        _, told = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, told


def undo_and_look_later(rig: VSphereRig, journal: Journal, name: str) -> tuple[list[str], tuple[str, bool]]:
    """Undo the newest run; return what it was waited for, and the VM when everything must have landed."""
    waited: list[str] = []

    def tell(step: Step, detail: str) -> None:
        if step is Step.LINGER:
            waited.append(detail)
        if not detail.startswith("Datacenter.powerOnVm"):  # what the undo itself begins is done at once
            rig.lab.task_seconds(0)

    report = engine.undo(session(rig, journal, name, tell=tell), journal.find(None), MANNER)
    assert report.conclusion is Status.PASS
    time.sleep(2 * SECONDS)
    after = rig.see(name)
    return waited, (after.stored, after.running)


@pytest.mark.parametrize("running", [False, True])
def test_undo_waits_for_what_a_killed_run_has_left_at_work(
    rig: VSphereRig, journal: Journal, tmp_path: Path, running: bool
) -> None:
    name = rig.make(running=running)
    before = rig.see(name)
    kill_in(rig, name, "ReconfigVM_Task", tmp_path)
    [waited], after = undo_and_look_later(rig, journal, name)
    assert after == (before.stored, running)
    assert waited.startswith("VirtualMachine.reconfigure for vcsim (task-")


def test_undo_waits_for_a_start_that_the_datacenter_begins_first(
    rig: VSphereRig, journal: Journal, tmp_path: Path
) -> None:
    name = rig.make()
    before = rig.see(name)
    kill_in(rig, name, "PowerOnMultiVM_Task", tmp_path)
    [first, second], after = undo_and_look_later(rig, journal, name)
    assert after == (before.stored, True)
    names = first.split()[0], second.split()[0]
    assert names == ("Datacenter.powerOnVm", "Datacenter.ExecuteVmPowerOnLRO")


def test_undo_waits_for_a_guest_that_was_asked_to_shut_down(
    rig: VSphereRig, journal: Journal, tmp_path: Path
) -> None:
    """It goes down when the process is dead, and is to be started again."""
    name = rig.make(shutdown=SECONDS)
    before = rig.see(name)
    kill_in(rig, name, "ShutdownGuest", tmp_path)
    rig.lab.task_seconds(0)
    [waited], after = undo_and_look_later(rig, journal, name)
    assert after == (before.stored, True)
    assert waited == "its guest (shuttingDown)"


def test_undo_waits_on_an_esxi_host_by_itself(esxi: VSphere, journal: Journal, tmp_path: Path) -> None:
    rig = EsxiRig(esxi)
    name = rig.make()
    before = rig.see(name)
    kill_in(rig, name, "PowerOnVM_Task", tmp_path)
    [waited], after = undo_and_look_later(rig, journal, name)
    assert after == (before.stored, True)
    assert waited.startswith("VirtualMachine.powerOn for")


def test_task_that_goes_while_it_is_looked_at_is_no_vm_that_is_gone(
    rig: VSphereRig, journal: Journal
) -> None:
    """vSphere forgets tasks that have ended after a while."""
    name = rig.make(running=False)
    enable(rig, journal, name)
    now = session(rig, journal, name)
    rig.lab.fail("RetrievePropertiesEx", "ManagedObjectNotFound")
    assert engine.undo(now, journal.find(None), MANNER).conclusion is Status.PASS
    enable(rig, journal, name)
    now = session(rig, journal, name)
    rig.lab.remove(name)
    with pytest.raises(TargetError, match="not there any more"):
        engine.undo(now, journal.find(None), MANNER)


def test_another_enable_waits_too_and_completes(rig: VSphereRig, journal: Journal, tmp_path: Path) -> None:
    name = rig.make()
    kill_in(rig, name, "ReconfigVM_Task", tmp_path)
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.see(name).running
    assert rig.lab.counts()["ReconfigVM_Task"] == 1


def test_task_that_does_not_end_in_time_is_named_and_nothing_is_touched(
    rig: VSphereRig, journal: Journal, tmp_path: Path
) -> None:
    name = rig.make(running=False)
    before = rig.see(name)
    kill_in(rig, name, "ReconfigVM_Task", tmp_path, cancelable=True)
    with pytest.raises(Busy) as caught:
        engine.undo(session(rig, journal, name, timeout=0.1), journal.find(None), MANNER)
    assert "VirtualMachine.reconfigure for vcsim (task-" in caught.value.evidence
    assert "wait for its end" in caught.value.cure
    assert [run.state for run in journal.runs()] == ["interrupted"]
    wait_for(lambda: rig.see(name).nested, 5, "the task to end")
    rig.lab.task_seconds(0)
    _, after = undo_and_look_later(rig, journal, name)
    assert after == (before.stored, False)


def test_task_that_may_be_somebody_elses_is_not_cancelled(
    rig: VSphereRig, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the answer to our own request got lost, each task of the VM may be ours, or not."""
    monkeypatch.setattr(tasks, "SETTLE", 0.1)
    name = rig.make(running=False)
    kill_in(rig, name, "ReconfigVM_Task", tmp_path, cancelable=True)
    now = session(rig, journal, name)
    rig.lab.break_at("ReconfigVM_Task", "before")
    with pytest.raises(ConnectionFailed, match="still at work"):
        now.backend.apply(now.vm, Change("nestedHVEnabled", "false", "true"))
    assert "CancelTask" not in rig.lab.counts()
    wait_for(lambda: rig.see(name).nested, 5, "the task to end")
