"""What every backend must do, one test a sentence. A peer joins with a rig; see test_memory.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestvirt import backends, engine, report
from nestvirt.engine import Manner, Step
from nestvirt.errors import (
    AccessDenied,
    ChangeRejected,
    ConnectionFailed,
    Error,
    PowerError,
    TargetError,
)
from nestvirt.journal import Journal
from nestvirt.model import Change, Plan, Status, Target
from tests.contract.basis import MANNER, OFF, ON, Tell, agree, quiet
from tests.contract.interruptions import Interruptions
from tests.contract.rig import Rig

__all__ = ["MANNER", "OFF", "ON", "Conformance", "Tell", "agree", "quiet"]


class Conformance(Interruptions):
    """The suite; a subclass provides the fixture ``rig``."""

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

    def test_no_secret_leaves_the_peer(self, rig: Rig, journal: Journal, tmp_path: Path) -> None:
        name = rig.make()
        assert rig.secret in rig.see(name).stored
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert rig.secret in rig.see(name).stored
        shown = [report.to_json(result), str(report.to_text(result))]
        kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file() and "state" in path.parts]
        assert kept
        assert not any(rig.secret in text for text in shown + kept)
