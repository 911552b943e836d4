"""What a Hyper-V host goes on with when the process that began it is dead: nothing lands after an undo."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nestvirt import engine
from nestvirt.backends.hyperv import scripts
from nestvirt.engine import Step
from nestvirt.errors import Busy
from nestvirt.journal import Journal
from nestvirt.model import Status
from tests.contract.basis import MANNER
from tests.contract.runs import enable, session
from tests.peers.hyperv.model import Machine
from tests.peers.hyperv_rig import HyperVLab, HyperVRig
from tests.peers.winrm.command import Invocation

SECONDS = 1.0
"""That a script takes to begin, or a guest to shut down: enough for an undo to begin meanwhile."""


@pytest.fixture
def rig(hyperv_lab: HyperVLab) -> HyperVRig:
    return HyperVRig(hyperv_lab)


@pytest.fixture
def killing(rig: HyperVRig, tmp_path: Path) -> Iterator[Killing]:
    with Killing(rig, tmp_path) as made:
        yield made


class Killing:
    """Runs enable in a process of its own, which is killed at a moment that the host sees."""

    def __init__(self, rig: HyperVRig, folder: Path) -> None:
        self._rig, self._folder = rig, folder
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Killing:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Do it, once."""
        if self._process is not None:
            self._process.kill()

    def enable(self, name: str) -> None:
        """Run it to its end."""
        job = {
            "backend": self._rig.backend,
            "endpoint": dict(self._rig.endpoint),
            "name": name,
            "step": "NONE",
            "state": str(self._folder / "state"),
            "timeout": 30,
        }
        command = [sys.executable, "-m", "tests.contract.killed", json.dumps(job)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        _, told = self._process.communicate(timeout=60)
        assert self._process.returncode == -signal.SIGKILL, told

    def enable_until_script(self, name: str, **given: str) -> None:
        """Kill it as PowerShell is started for a script with that data; what it is to do it does later."""

        def begins(invocation: Invocation) -> float:
            data = scripts.given(invocation.arguments[-1])
            if not given.items() <= data.items():
                return 0.0
            self._rig.lab.begins = lambda _invocation: 0.0
            self.kill()
            return SECONDS

        self._rig.lab.begins = begins
        self.enable(name)

    def enable_until_asked(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kill it right after its guest was asked to shut down."""
        host = self._rig.host
        shut_down = host.shut_down

        def asked(machine: Machine) -> None:
            shut_down(machine)
            self.kill()

        with monkeypatch.context() as patch:
            patch.setattr(host, "shut_down", asked)
            self.enable(name)


def undo_and_look_later(rig: HyperVRig, journal: Journal, name: str) -> tuple[list[str], Any]:
    """Undo the newest run; what it was waited for, and the VM when everything must have landed."""
    waited: list[str] = []

    def tell(step: Step, detail: str) -> None:
        if step is Step.LINGER:
            waited.append(detail)

    report = engine.undo(session(rig, journal, name, tell=tell), journal.find(None), MANNER)
    assert report.conclusion is Status.PASS
    time.sleep(2 * SECONDS)
    after = rig.see(name)
    return waited, (after.stored, after.running)


@pytest.mark.parametrize("cluster", ["", "HVC"])
def test_undo_waits_for_a_guest_that_was_asked_to_shut_down(
    rig: HyperVRig, journal: Journal, killing: Killing, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    """It goes down when the process is dead, and is to be started again."""
    rig.host.cluster = cluster
    name = rig.make(guest_slow=SECONDS, group="Offline" if cluster else "")
    before = rig.see(name)
    killing.enable_until_asked(name, monkeypatch)
    waited, after = undo_and_look_later(rig, journal, name)
    assert waited == ["a script of an earlier run (shutdown)"]
    assert after == (before.stored, True)
    assert rig.see(name).boot != before.boot


@pytest.mark.parametrize(
    "given",
    [{"action": "shutdown"}, {"setting": "ExposeVirtualizationExtensions"}, {"action": "start"}],
    ids=["shutdown", "write", "start"],
)
def test_undo_waits_for_a_script_of_a_killed_run(
    rig: HyperVRig, journal: Journal, killing: Killing, given: dict[str, str]
) -> None:
    """PowerShell takes its time to begin."""
    name = rig.make(guest_inner=False)
    before = rig.see(name)
    killing.enable_until_script(name, **given)
    waited, after = undo_and_look_later(rig, journal, name)
    assert waited == [f"a script of an earlier run ({next(iter(given.values()))})"]
    assert after == (before.stored, True)


def test_another_enable_waits_too_and_completes(rig: HyperVRig, journal: Journal, killing: Killing) -> None:
    name = rig.make()
    killing.enable_until_script(name, setting="ExposeVirtualizationExtensions")
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert (rig.see(name).nested, rig.see(name).running) == (True, True)
    assert [run.state for run in journal.runs()] == ["applied", "continued"]


def test_script_for_another_vm_is_not_waited_for(
    rig: HyperVRig, journal: Journal, killing: Killing, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, other = rig.make(running=False), rig.make(guest_slow=SECONDS)
    enable(rig, journal, name)
    run = journal.find(None)
    killing.enable_until_asked(other, monkeypatch)
    told: list[Step] = []
    now = session(rig, journal, name, tell=lambda step, _detail: told.append(step))
    assert engine.undo(now, run, MANNER).conclusion is Status.PASS
    assert Step.LINGER not in told


@pytest.mark.parametrize("state", ["Stopping", "Starting"])
def test_vm_in_passing_that_does_not_end_in_time_is_named_and_nothing_is_touched(
    rig: HyperVRig, journal: Journal, state: str
) -> None:
    name = rig.make(running=False)
    enable(rig, journal, name)
    rig.machine(name).state = state
    before = rig.see(name)
    with pytest.raises(Busy) as caught:
        engine.undo(session(rig, journal, name, timeout=0.1), journal.find(None), MANNER)
    assert caught.value.evidence == f"the VM is {state}"
    assert rig.see(name) == before
