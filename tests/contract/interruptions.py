"""What every backend must survive: Ctrl-C, a kill and a lost connection at any step, two runs at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nestvirt import engine
from nestvirt.engine import Step
from nestvirt.errors import Busy, Error, Interrupted, PowerError
from nestvirt.journal import Journal
from nestvirt.model import Status
from tests.contract.basis import MANNER, OFF, ON, Basis
from tests.contract.rig import Rig

CHANGING = [Step.STOP, Step.APPLY, Step.READ_BACK, Step.START]


class Interruptions(Basis):
    """A part of the suite; a subclass provides the fixture ``rig``."""

    def test_two_runs_at_once_on_one_vm_the_second_refuses(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()
        second: list[Error] = []

        def intrude(step: Step, _detail: str) -> None:
            if step is Step.APPLY:
                with pytest.raises(Busy) as caught:
                    engine.reach(self.session(rig, journal, name), OFF, MANNER)
                second.append(caught.value)

        result = engine.reach(self.session(rig, journal, name, intrude), ON, MANNER)
        assert result.conclusion is Status.PASS
        assert len(second) == 1

    def test_who_looks_the_vm_up_midway_by_the_same_connection_disturbs_nothing(
        self, rig: Rig, journal: Journal
    ) -> None:
        name = rig.make()

        def look(step: Step, _detail: str) -> None:
            if step is Step.APPLY:
                session.backend.find(name)

        session = self.session(rig, journal, name, look)
        assert engine.reach(session, ON, MANNER).conclusion is Status.PASS

    @pytest.mark.parametrize("step", CHANGING, ids=lambda s: s.name.lower())
    def test_ctrl_c_at_any_step_puts_everything_back(self, rig: Rig, journal: Journal, step: Step) -> None:
        name = rig.make()
        before = rig.see(name)

        def press(now: Step, _detail: str) -> None:
            if now is step and not pressed:
                pressed.append(now)
                raise KeyboardInterrupt

        pressed: list[Step] = []
        with pytest.raises(Interrupted):
            engine.reach(self.session(rig, journal, name, press), ON, MANNER)
        assert pressed == [step]
        assert rig.see(name).stored == before.stored
        assert rig.see(name).running

    def test_ctrl_c_while_verifying_leaves_the_change_and_says_so(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()

        def press(now: Step, _detail: str) -> None:
            if now is Step.PROBE:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted, match="not proven"):
            engine.reach(self.session(rig, journal, name, press), ON, MANNER)
        assert rig.see(name).nested
        assert journal.find(None).outcome == "applied"

    @pytest.mark.parametrize("step", CHANGING, ids=lambda s: s.name.lower())
    def test_after_a_kill_at_any_step_undo_restores(
        self, rig: Rig, journal: Journal, tmp_path: Path, step: Step
    ) -> None:
        name = rig.make()
        before = rig.see(name)
        self.kill_at(rig, name, step, tmp_path)
        runs = journal.runs()
        assert [r.state for r in runs] == ["interrupted"]
        session = self.session(rig, journal, name)
        checked = engine.check(session, ON)
        [warning] = [f for f in checked.findings if f.check == "vm-run-interrupted"]
        assert runs[0].id in warning.cure
        assert (f"left {session.vm.name} off" in warning.evidence) is not rig.see(name).running
        engine.undo(self.session(rig, journal, name), journal.find(None), MANNER)
        assert rig.see(name).stored == before.stored
        assert rig.see(name).running
        with pytest.raises(Error, match="no run to undo"):
            journal.find(None)

    @pytest.mark.parametrize("step", [Step.APPLY, Step.START], ids=lambda s: s.name.lower())
    def test_after_a_kill_a_second_run_completes_and_owes_nothing(
        self, rig: Rig, journal: Journal, tmp_path: Path, step: Step
    ) -> None:
        name = rig.make()
        self.kill_at(rig, name, step, tmp_path)
        assert not rig.see(name).running
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert result.conclusion is Status.PASS
        assert rig.see(name).running
        assert "interrupted" not in [r.state for r in journal.runs()]

    def test_after_a_kill_a_second_run_that_fails_puts_back_what_the_first_one_did(
        self, rig: Rig, journal: Journal, tmp_path: Path
    ) -> None:
        name = rig.make(quirk="fragile")
        before = rig.see(name)
        self.kill_at(rig, name, Step.START, tmp_path)
        assert rig.see(name).nested
        with pytest.raises(PowerError) as caught:
            engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert "put back" in caught.value.cure
        assert not caught.value.changed
        assert rig.see(name).stored == before.stored
        assert rig.see(name).running
        with pytest.raises(Error, match="no run to undo"):
            journal.find(None)

    def test_after_a_kill_the_run_that_a_failed_second_one_names_restores(
        self, rig: Rig, journal: Journal, tmp_path: Path
    ) -> None:
        name = rig.make(quirk="fragile")
        before = rig.see(name)
        self.kill_at(rig, name, Step.START, tmp_path)

        def cut(step: Step, _detail: str) -> None:
            if step is Step.PUT_BACK:
                session.backend.close()

        session = self.session(rig, journal, name, cut)
        with pytest.raises(Error) as caught:
            engine.reach(session, ON, MANNER)
        run = caught.value.run
        assert caught.value.changed
        assert run is not None
        assert f"nestvirt undo {run}" in caught.value.cure
        engine.undo(self.session(rig, journal, name), journal.find(run), MANNER)
        assert rig.see(name).stored == before.stored
        assert rig.see(name).running
        with pytest.raises(Error, match="no run to undo"):
            journal.find(None)

    def test_lost_connection_midway_heals_on_a_second_run(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()

        def cut(step: Step, _detail: str) -> None:
            if step is Step.APPLY:
                session.backend.close()

        session = self.session(rig, journal, name, cut)
        with pytest.raises(Error) as caught:
            engine.reach(session, ON, MANNER)
        assert "nestvirt undo" in caught.value.cure
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert result.conclusion is Status.PASS
        assert rig.see(name).running

    def kill_at(self, rig: Rig, name: str, step: Step, tmp_path: Path) -> None:
        """Run enable in a process of its own that kills itself, as a power cut would, right before a step."""
        job = {
            "backend": rig.backend,
            "endpoint": dict(rig.endpoint),
            "name": name,
            "step": step.name,
            "state": str(tmp_path / "state"),
            "timeout": self.timeout,
        }
        command = [sys.executable, "-m", "tests.contract.killed", json.dumps(job)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == -signal.SIGKILL, done.stderr
