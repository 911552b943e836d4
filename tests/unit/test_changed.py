"""Whether something was changed is told where a run ends in an error, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nestvirt import engine
from nestvirt.engine import Manner, Session, Step
from nestvirt.errors import ChangeRejected, ConnectionFailed, Error, PowerError
from nestvirt.fleet.running import fault
from nestvirt.journal import Journal
from nestvirt.model import Fleet, Goal, Row, Target
from nestvirt.report import error_fields
from nestvirt.report_fleet import row_to_json, summary_to_json, to_text
from playbooks.library import nestvirt as module
from tests.peers.memory import MemoryBackend


def never(_step: Step, _detail: str) -> None:
    """Nothing happens at any step."""


class Rig:
    """One VM, and an engine's run on it.

    Attributes:
        path: the VMs.
        backend: to be spoilt.
    """

    def __init__(self, folder: Path, **vm: object) -> None:
        self.path = folder / "vms.json"
        self.path.write_text(json.dumps({"id-a": {"name": "a", "power": "running", **vm}}))
        self.backend = MemoryBackend({"path": str(self.path)})
        vm_a = self.backend.find("a")
        journal = Journal(folder / "state")
        self._session = Session(self.backend, Target("memory", "a"), vm_a, journal, "memory:a")

    def reach(self, tell: Callable[[Step, str], None] = never) -> None:
        engine.reach(replace(self._session, tell=tell), Goal(), Manner(lambda _plan: None))

    def fails(self, tell: Callable[[Step, str], None] = never) -> Error:
        with pytest.raises(Error) as raised:
            self.reach(tell)
        return raised.value

    def faults(self, tell: Callable[[Step, str], None] = never) -> Error:
        """The row's error where it is a fault of our own that ends the run."""
        with pytest.raises(KeyError) as raised:
            self.reach(tell)
        return fault(raised.value)

    @property
    def nested(self) -> object:
        return json.loads(self.path.read_text())["id-a"].get("nested")


def test_interrupted_while_it_is_proven_it_has_its_change(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    def interrupting(step: Step, _detail: str) -> None:
        if step in (Step.WAIT, Step.PROBE, Step.LOOK):
            raise KeyboardInterrupt

    error = rig.fails(interrupting)
    assert (rig.nested, error.changed) == ("on", True)
    assert f"nestvirt undo {error.run}" in error.cure
    row = Row("memory:a", error)
    assert row.changed
    assert json.loads(summary_to_json(Fleet((row,))))["summary"]["changed"] == 1
    assert f"nestvirt undo {error.run}" in str(to_text(Fleet((row,))))
    told = {"target": "memory:a", "ending": "fail", "changed": row.changed, "report": None}
    said = module.row_of({**told, "error": error_fields(error)})
    assert (said["changed"], said["run"]) == (True, error.run)


def test_an_error_while_it_is_proven_comes_after_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)

    def gone(step: Step, _detail: str) -> None:
        if step in (Step.WAIT, Step.PROBE, Step.LOOK):
            raise ConnectionFailed("gone")

    error = rig.fails(gone)
    assert (rig.nested, error.changed) == ("on", True)


def test_what_could_not_be_put_back_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path, fragile=True)
    apply = rig.backend.apply

    def once(*args: object) -> None:
        monkeypatch.setattr(rig.backend, "apply", refused)
        apply(*args)  # type: ignore[arg-type]

    def refused(*_args: object) -> None:
        raise ChangeRejected("no more")

    monkeypatch.setattr(rig.backend, "apply", once)
    error = rig.fails()
    assert "is not put back" in error.message
    assert (rig.nested, error.changed) == ("on", True)
    assert f"nestvirt undo {error.run}" in error.cure


def test_what_is_only_off_still_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)

    def dead(*_args: object, **_options: object) -> None:
        raise PowerError("no power")

    monkeypatch.setattr(rig.backend, "start", dead)
    error = rig.fails()
    assert "is not put back" in error.message
    assert (rig.nested, error.changed) == (None, False)
    assert f"nestvirt undo {error.run}" in error.cure


def test_what_was_put_back_or_never_begun_is_not_changed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, fragile=True)
    error = rig.fails()
    assert (rig.nested, error.changed, error.run) == (None, False, None)
    assert not Row("memory:a", error).changed
    assert not Row("memory:a", ConnectionFailed("no answer")).changed


def test_a_fault_of_our_own_while_it_is_proven_comes_after_the_change(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    def forgetful(step: Step, _detail: str) -> None:
        if step in (Step.WAIT, Step.PROBE, Step.LOOK):
            raise KeyError("cpu")

    error = rig.faults(forgetful)
    assert (rig.nested, error.changed) == ("on", True)
    told = json.loads(row_to_json(Row("memory:a", error)))
    assert (told["changed"], told["error"]["kind"], told["error"]["run"]) == (True, "Fault", error.run)
    assert f"nestvirt undo {error.run}" in error.evidence
    assert f"to put a VM back: nestvirt undo {error.run}" in str(to_text(Fleet((Row("memory:a", error),))))


def test_a_fault_of_our_own_that_was_put_back_has_changed_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    def forgetful(step: Step, _detail: str) -> None:
        if step is Step.READ_BACK:
            raise KeyError("cpu")

    error = rig.faults(forgetful)
    assert (rig.nested, error.changed, error.run) == (None, False, None)
    assert "everything was put back" in error.evidence


def test_a_fault_of_our_own_in_putting_back_leaves_it_changed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    def forgetful(step: Step, _detail: str) -> None:
        if step in (Step.READ_BACK, Step.PUT_BACK):
            raise KeyError("cpu")

    error = rig.faults(forgetful)
    assert (rig.nested, error.changed) == ("on", True)
    assert f"nestvirt undo {error.run}" in error.evidence


def test_a_run_over_nothing_has_no_row_for_ansible_either() -> None:
    said = module.result_of({"fleet": []}, 3)
    assert (said["rows"], said["changed"], said["msg"]) == ([], False, "no target")
