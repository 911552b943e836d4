"""The conformance suite against the in-memory hypervisor: the engine's own logic, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nestvirt import backends, engine
from nestvirt.engine import Manner, Step
from nestvirt.errors import Busy, Interrupted, JournalError
from nestvirt.journal import Journal
from nestvirt.model import Power
from tests.contract.conformance import MANNER, OFF, ON, Conformance, agree
from tests.contract.rig import Seen
from tests.peers import memory


class MemoryRig:
    """VMs in a JSON file, and the file itself as oracle."""

    backend = "memory"
    secret = "hunter2-in-the-definition"  # noqa: S105

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boots = 0
        self._write({})

    @property
    def endpoint(self) -> Mapping[str, str]:
        return {"path": str(self._path)}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        return {"path": str(self._path.with_name("nowhere"))}

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        yield {"path": str(self._path), "user": "guest"}

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "") -> str:
        vms = self._read()
        name = f"vm-{len(vms)}"
        vm: dict[str, Any] = {
            "name": name,
            "power": "running" if running else "stopped",
            "password": self.secret,
        }
        vms[f"id-{len(vms)}"] = vm
        if nested:
            vm |= {"nested": "on", "live": "on" if running else None}
        if quirk:
            vm[quirk] = True
        self._write(vms)
        return name

    def make_ambiguous(self) -> str:
        names = self.make(), self.make()
        vms = self._read()
        for vm in vms.values():
            vm["name"] = names[0]
        self._write(vms)
        return names[0]

    def see(self, name: str) -> Seen:
        [vm] = [vm for vm in self._read().values() if vm["name"] == name]
        stored = {key: value for key, value in vm.items() if key not in ("power", "live", "boots")}
        others = {key: value for key, value in stored.items() if key != "nested"}
        return Seen(
            json.dumps(stored, sort_keys=True),
            json.dumps(others, sort_keys=True),
            vm.get("nested") == "on",
            vm["power"] == "running",
            f"{vm['power']} {vm.get('live')}",
        )

    def suspend(self, name: str) -> None:
        self._update(name, power="suspended")

    def edit(self, name: str, *, nested: bool | None) -> None:
        self._update(name, nested={True: "on", False: "off", None: "maybe"}[nested])

    def reboot_inside(self, name: str) -> None:
        """Nothing comes of it: that is the point."""

    def _update(self, name: str, **fields: str) -> None:
        vms = self._read()
        for vm in vms.values():
            if vm["name"] == name:
                vm |= fields
        self._write(vms)

    def _read(self) -> dict[str, dict[str, Any]]:
        vms: dict[str, dict[str, Any]] = json.loads(self._path.read_text(encoding="utf-8"))
        return vms

    def _write(self, vms: dict[str, dict[str, Any]]) -> None:
        self._path.write_text(json.dumps(vms), encoding="utf-8")


class TestMemory(Conformance):
    """The suite's shortest member, and the pattern for the next."""

    @pytest.fixture
    def rig(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryRig:
        monkeypatch.setitem(backends.BACKENDS, *memory.REGISTRATION)
        return MemoryRig(tmp_path / "hypervisor.json")

    def test_killed_twice_and_gone_on_with_the_last_run_owes_all_and_takes_all_back(
        self, rig: MemoryRig, journal: Journal, tmp_path: Path
    ) -> None:
        name = rig.make()
        before = rig.see(name)
        self.kill_at(rig, name, Step.START, tmp_path)
        self.kill_at(rig, name, Step.START, tmp_path)
        result = engine.reach(self.session(rig, journal, name), ON, MANNER)
        assert [run.state for run in journal.runs()] == ["applied", "continued", "continued"]
        assert result.run == journal.find(None).id
        assert [(change.before, change.after) for change in result.changes] == [(None, "on")]
        rig._update(name, power="stopped")  # by its owner
        engine.undo(self.session(rig, journal, name), journal.find(None), MANNER)
        assert rig.see(name).stored == before.stored
        assert not rig.see(name).running
        with pytest.raises(JournalError, match="no run to undo"):
            journal.find(None)

    @pytest.mark.parametrize("named", [0, 1], ids=["the newer", "the older"])
    def test_runs_that_died_one_after_another_are_undone_as_one(
        self, rig: MemoryRig, journal: Journal, tmp_path: Path, named: int
    ) -> None:
        """As where the second one was killed before it had ended the first."""
        name = rig.make(quirk="fragile")
        before = rig.see(name)
        self.kill_at(rig, name, Step.START, tmp_path)
        session = self.session(rig, journal, name)
        session.journal.begin("enable", session.target, session.vm, Power.RUNNING, session.backend.endpoint)
        engine.undo(session, journal.runs()[named], MANNER)
        assert rig.see(name).stored == before.stored
        assert rig.see(name).running
        assert {run.state for run in journal.runs()} == {"undone"}

    def test_what_its_owner_changed_after_a_kill_is_not_put_back(
        self, rig: MemoryRig, journal: Journal, tmp_path: Path
    ) -> None:
        name = rig.make()
        self.kill_at(rig, name, Step.START, tmp_path)
        rig.edit(name, nested=False)

        def press(step: Step, _detail: str) -> None:
            if step is Step.START:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted):
            engine.reach(self.session(rig, journal, name, press), OFF, MANNER)
        assert json.loads(rig.see(name).stored)["nested"] == "off"
        assert rig.see(name).running

    def test_of_a_vm_that_another_run_works_on_no_plan_is_told(
        self, rig: MemoryRig, journal: Journal
    ) -> None:
        name = rig.make()
        busy: list[Step] = []

        def look(step: Step, _detail: str) -> None:
            if step in (Step.APPLY, Step.START):
                dry = Manner(consent=agree, dry_run=True)
                with pytest.raises(Busy):
                    engine.reach(self.session(rig, journal, name), ON, dry)
                with pytest.raises(Busy):
                    engine.undo(self.session(rig, journal, name), journal.find(None), dry)
                busy.append(step)

        engine.reach(self.session(rig, journal, name, look), ON, MANNER)
        assert busy == [Step.APPLY, Step.START]
