"""What every backend must do, one test a sentence. A peer joins with a rig; see test_memory.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nestvirt import backends, engine, report
from nestvirt.engine import Manner, Session, Step
from nestvirt.errors import (
    AccessDenied,
    Busy,
    ChangeRejected,
    ConnectionFailed,
    Error,
    Interrupted,
    PowerError,
    TargetError,
)
from nestvirt.journal import Journal
from nestvirt.model import Change, Goal, Plan, Status, Target
from tests.contract.rig import Rig

ON, OFF = Goal(nested=True), Goal(nested=False)
CHANGING = [Step.STOP, Step.APPLY, Step.READ_BACK, Step.START]
Tell = Callable[[Step, str], None]


def agree(_plan: Plan) -> None:
    """Consent to everything."""


def quiet(_step: Step, _detail: str) -> None:
    """Show nothing."""


MANNER = Manner(consent=agree)


class Conformance:
    """The suite; a subclass provides the fixture ``rig``."""

    timeout = 60.0

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Journal:
        return Journal(tmp_path / "state")

    def session(
        self, rig: Rig, journal: Journal, name: str, tell: Tell = quiet, timeout: float = 0
    ) -> Session:
        target = Target(rig.backend, name)
        backend = backends.connect(target, rig.endpoint)
        vm = backend.find(name)
        return Session(
            backend,
            target,
            vm,
            journal,
            f"--{rig.backend} {name}",
            timeout=timeout or self.timeout,
            tell=tell,
        )

    def test_unknown_vm_is_named_beside_what_there_is(self, rig: Rig, journal: Journal) -> None:
        name = rig.make(running=False)
        with pytest.raises(TargetError) as caught:
            self.session(rig, journal, "no such VM")
        assert "no such VM" in caught.value.message
        assert name in caught.value.evidence
        assert caught.value.cure

    def test_ambiguous_name_is_refused(self, rig: Rig, journal: Journal) -> None:
        with pytest.raises(TargetError) as caught:
            self.session(rig, journal, rig.make_ambiguous())
        assert caught.value.cure

    def test_reading_changes_nothing(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()
        before = rig.see(name)
        engine.check(self.session(rig, journal, name), ON)
        assert rig.see(name) == before

    def test_every_ill_finding_says_why_and_what_now(self, rig: Rig, journal: Journal) -> None:
        result = engine.check(self.session(rig, journal, rig.make()), ON)
        assert result.conclusion is Status.FAIL
        assert result.first_broken is not None
        assert result.first_broken.check == "vm-cpu"
        assert [f for f in result.findings if f.ill]
        assert all(f.evidence and f.cure for f in result.findings if f.ill)

    def test_enabling_is_seen_by_the_oracle_and_proven_in_the_guest(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        after = rig.see(name)
        assert result.conclusion is Status.PASS
        assert result.proof is not None
        assert result.proof.verdict == "works"
        assert after.nested
        assert after.running
        assert after.boot != before.boot
        assert after.others == before.others

        again = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert (again.conclusion, again.changes, again.run) == (Status.PASS, (), None)
        assert rig.see(name) == after

    def test_stopped_vm_is_enabled_and_stays_off_unproven(self, rig: Rig, journal: Journal) -> None:
        name = rig.make(running=False)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert result.conclusion is Status.UNKNOWN
        assert rig.see(name).nested
        assert not rig.see(name).running

    def test_undo_restores_every_byte(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()
        before = rig.see(name)
        run = engine.reach(self.session(rig, journal, name), ON, MANNER).run
        result = engine.undo(self.session(rig, journal, name), journal.find(run), MANNER)
        assert result.conclusion is Status.PASS
        assert rig.see(name).stored == before.stored
        assert rig.see(name).running
        with pytest.raises(Error, match="no run to undo"):
            journal.find(None)

    def test_undo_refuses_what_somebody_else_has_changed_since(self, rig: Rig, journal: Journal) -> None:
        name = rig.make(running=False)
        run = engine.reach(self.session(rig, journal, name), ON, MANNER).run
        rig.edit(name, nested=None)
        foreign = rig.see(name)
        with pytest.raises(ChangeRejected) as caught:
            engine.undo(self.session(rig, journal, name), journal.find(run), MANNER)
        assert "somebody else" in caught.value.message
        assert rig.see(name) == foreign

    def test_undoing_what_the_running_vm_never_received_needs_no_power_cycle(
        self, rig: Rig, journal: Journal
    ) -> None:
        name = rig.make()
        before = rig.see(name)
        run = engine.reach(self.session(rig, journal, name), ON, Manner(consent=agree, restart=False)).run
        result = engine.undo(self.session(rig, journal, name), journal.find(run), MANNER)
        assert (result.conclusion, result.remains) == (Status.PASS, ())
        assert rig.see(name) == before

    def test_suspended_vm_blocks_undo_too(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()
        run = engine.reach(self.session(rig, journal, name), ON, MANNER).run
        rig.suspend(name)
        before = rig.see(name)
        result = engine.undo(self.session(rig, journal, name), journal.find(run), MANNER)
        assert [f.check for f in result.blockers] == ["vm-suspended"]
        assert rig.see(name) == before
        assert journal.find(None).id == run

    def test_disable_takes_nesting_away_and_the_guest_agrees(self, rig: Rig, journal: Journal) -> None:
        name = rig.make(nested=True)
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), OFF, MANNER)
        assert result.conclusion is Status.PASS
        assert [f.check for f in result.findings if f.check.startswith("guest-")] == ["guest-withdrawn"]
        assert not rig.see(name).nested
        assert rig.see(name).others == before.others

    def test_disable_puts_back_what_was_there_before_enable(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()
        before = rig.see(name)
        engine.reach(self.session(rig, journal, name), ON, MANNER)
        result = engine.reach(self.session(rig, journal, name), OFF, MANNER)
        assert result.conclusion is Status.PASS
        assert rig.see(name).stored == before.stored

    def test_check_dry_run_and_declining_leave_no_trace(
        self, rig: Rig, journal: Journal, tmp_path: Path
    ) -> None:
        name = rig.make()
        before = rig.see(name)
        engine.check(self.session(rig, journal, name), ON)
        result = engine.reach(self.session(rig, journal, name), ON, Manner(consent=agree, dry_run=True))
        assert len(result.changes) == 1
        assert rig.see(name) == before
        assert not (tmp_path / "state").exists()

        def decline(_plan: Plan) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.reach(self.session(rig, journal, name), ON, Manner(consent=decline))
        assert rig.see(name) == before
        assert journal.runs() == []

    def test_no_restart_leaves_it_pending_and_says_what_remains(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, Manner(consent=agree, restart=False))
        assert result.remains
        assert result.conclusion is Status.FAIL
        assert result.first_broken is not None
        assert result.first_broken.check == "vm-cpu-pending"
        assert rig.see(name).nested
        assert rig.see(name).boot == before.boot

    def test_set_but_not_power_cycled_is_told_apart_even_after_a_reboot_inside(
        self, rig: Rig, journal: Journal
    ) -> None:
        name = rig.make()
        rig.edit(name, nested=True)
        rig.reboot_inside(name)
        result = engine.check(self.session(rig, journal, name), ON)
        assert result.first_broken is not None
        assert result.first_broken.check == "vm-cpu-pending"
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert (result.conclusion, result.changes) == (Status.PASS, ())

    def test_suspended_vm_blocks(self, rig: Rig, journal: Journal) -> None:
        name = rig.make()
        rig.suspend(name)
        before = rig.see(name)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert result.conclusion is Status.FAIL
        assert result.first_broken is not None
        assert result.first_broken.check == "vm-suspended"
        assert rig.see(name) == before

    def test_deaf_guest_is_left_running_unless_force_is_allowed(self, rig: Rig, journal: Journal) -> None:
        name = rig.make(quirk="deaf")
        before = rig.see(name)
        with pytest.raises(PowerError) as caught:
            engine.reach(self.session(rig, journal, name, timeout=4), ON, MANNER)
        assert "--force-off" in caught.value.cure
        assert rig.see(name) == before
        result = engine.reach(
            self.session(rig, journal, name, timeout=20), ON, Manner(consent=agree, force_off=True)
        )
        assert result.conclusion is Status.PASS
        assert rig.see(name).boot != before.boot

    def test_vm_that_does_not_start_with_it_is_put_back_and_started(self, rig: Rig, journal: Journal) -> None:
        name = rig.make(quirk="fragile")
        before = rig.see(name)
        with pytest.raises(PowerError) as caught:
            engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert caught.value.evidence
        assert "put back" in caught.value.cure
        assert rig.see(name).stored == before.stored
        assert rig.see(name).running
        assert [r.outcome for r in journal.runs()] == ["put-back"]

    def test_value_that_the_peer_refuses_is_rejected_and_nothing_written(
        self, rig: Rig, journal: Journal
    ) -> None:
        name = rig.make(running=False)
        before = rig.see(name)
        session = self.session(rig, journal, name)
        [change] = engine.reach(session, ON, Manner(consent=agree, dry_run=True)).changes
        with pytest.raises(ChangeRejected) as caught:
            session.backend.apply(session.vm, Change(change.setting, change.before, "<nonsense a='b'/>"))
        assert caught.value.evidence
        assert rig.see(name) == before

    def test_change_by_somebody_else_midway_is_respected(self, rig: Rig, journal: Journal) -> None:
        name = rig.make(nested=False)

        def meddle(step: Step, _detail: str) -> None:
            if step is Step.APPLY:
                rig.edit(name, nested=True)

        with pytest.raises(ChangeRejected):
            engine.reach(self.session(rig, journal, name, meddle), ON, MANNER)
        assert rig.see(name).nested
        assert rig.see(name).running

    def test_no_answer_is_connection_failed(self, rig: Rig) -> None:
        with pytest.raises(ConnectionFailed) as caught:
            backends.connect(Target(rig.backend, "any"), rig.dead_endpoint)
        assert caught.value.evidence
        assert caught.value.cure

    def test_refused_user_is_access_denied(self, rig: Rig) -> None:
        with rig.forbidden() as endpoint, pytest.raises(AccessDenied) as caught:
            backends.connect(Target(rig.backend, "any"), endpoint)
        assert caught.value.cure

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
        checked = engine.check(self.session(rig, journal, name), ON)
        [warning] = [f for f in checked.findings if f.check == "vm-run-interrupted"]
        assert runs[0].id in warning.cure
        assert ("left the VM off" in warning.evidence) is not rig.see(name).running
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

    def test_no_secret_leaves_the_peer(self, rig: Rig, journal: Journal, tmp_path: Path) -> None:
        name = rig.make()
        assert rig.secret in rig.see(name).stored
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert rig.secret in rig.see(name).stored
        shown = [report.to_json(result), str(report.to_text(result))]
        kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file() and "state" in path.parts]
        assert kept
        assert not any(rig.secret in text for text in shown + kept)

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
