"""A run on a host is broken off at every one of its commands: nothing is lost, and one undo makes it good."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nestvirt import backends, engine
from nestvirt.backends.host import HostBackend
from nestvirt.backends.host.with_vm import WithHost
from nestvirt.engine import Session, Step
from nestvirt.errors import Busy, ChangeRejected, Error
from nestvirt.journal import Journal
from nestvirt.model import Status, Target, Vm
from tests.contract.basis import MANNER, OFF, ON
from tests.peers import memory
from tests.peers.scripted_host import ScriptedHost, lost

WEB, DB = (f"c0ffee00-0000-4000-8000-00000000000{n}" for n in (1, 2))
ZERO = {"/etc/modprobe.d/kvm.conf": "options kvm_amd nested=0\n"}
Interrupt = Callable[[int, bool], None]


class World:
    """A host that forbids nesting, beside a hypervisor whose VM runs on it."""

    def __init__(self, folder: Path, *, drained: bool, with_vm: bool, running: bool = True) -> None:
        folder.mkdir()
        self.vms = folder / "vms.json"
        state = {
            "power": "running" if running else "stopped",
            "nested": "off",
            "live": "off" if running else None,
        }
        self.vms.write_text(json.dumps({"own": {"name": "own", **state}}))
        self.journal = Journal(folder / "state")
        self.with_vm = with_vm
        self.host = ScriptedHost(dict(ZERO))
        if drained:
            self.host.vms = {WEB: True, DB: True}
        if with_vm:
            self.host.elsewhere = lambda: json.loads(self.vms.read_text())["own"]["power"] == "running"
        self.drain = "\n".join(self.host.vms)

    def session(self, endpoint: dict[str, str] | None = None) -> Session:
        """As one command line has it: the connection is its own."""
        if not self.with_vm:
            target = Target("host", "local")
            backend: Any = HostBackend(self.host, endpoint or {"drain": self.drain}, lambda: None)
        else:
            target = Target("memory", "own")
            below = endpoint or {"with_host": "local", "drain": self.drain}
            backend = WithHost(memory.MemoryBackend({"path": str(self.vms)}), below)
        found = backend.find(
            "3d1219c7c4c5404aaa1f6d2a48adfda4" if endpoint and not self.with_vm else target.name
        )
        return Session(backend, target, found, self.journal, "", timeout=0.2)

    def enable(self) -> Status:
        return engine.reach(self.session(), ON, MANNER).conclusion

    def undo(self) -> None:
        run = self.journal.find(None)
        engine.undo(self.session(dict(run.endpoint)), run, MANNER)

    def seen(self) -> str:
        vm = json.loads(self.vms.read_text())["own"]
        return self.host.seen() + f" {vm['power']} {vm['nested']}"


@pytest.fixture(autouse=True)
def nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.BACKENDS, *memory.REGISTRATION)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Makes worlds; the host that a VM's is composed with is the newest one's."""
    made: list[World] = []

    def connect(_target: Target, endpoint: dict[str, str]) -> HostBackend:
        return HostBackend(made[-1].host, endpoint, lambda: None)

    def make(**kind: bool) -> World:
        made.append(World(tmp_path / str(len(made)), **kind))
        return made[-1]

    monkeypatch.setattr(HostBackend, "connect", connect)
    return make


def once(at: int, after: bool, what: Callable[[], BaseException]) -> Interrupt:
    def interrupt(number: int, is_after: bool) -> None:
        if (number, is_after) == (at, after):
            raise what()

    return interrupt


def from_then_on(at: int, after: bool, what: Callable[[], BaseException]) -> Interrupt:
    def interrupt(number: int, is_after: bool) -> None:
        if (number, is_after) >= (at, after):
            raise what()

    return interrupt


KINDS = {
    "alone": {"drained": False, "with_vm": False},
    "two VMs drained": {"drained": True, "with_vm": False},
    "with a VM": {"drained": False, "with_vm": True},
    "with a VM that is off": {"drained": False, "with_vm": True, "running": False},
    "with a VM, two drained": {"drained": True, "with_vm": True},
}
WAYS: dict[str, tuple[Callable[..., Interrupt], Callable[[], BaseException]]] = {
    "one command is lost": (once, lost),
    "Ctrl-C": (once, KeyboardInterrupt),
    "the connection is lost for good": (from_then_on, lost),
}


@pytest.mark.parametrize("kind", KINDS)
def test_enabled_and_undone(make: Callable[..., World], kind: str) -> None:
    world = make(**KINDS[kind])
    before = world.seen()
    off = not KINDS[kind].get("running", True)  # then there is no guest to prove it
    assert world.enable() is (Status.UNKNOWN if off else Status.PASS)
    assert world.host.nested == "1"
    assert all(world.host.vms.values())
    if KINDS[kind]["drained"]:  # what has ended shuts nobody down who is not named again
        run = world.journal.find(None)
        endpoint = {name: value for name, value in run.endpoint.items() if name != "drain"}
        if KINDS[kind]["with_vm"]:
            assert engine.undo(world.session(endpoint), run, MANNER).blockers
            assert all(world.host.vms.values())
        endpoint["drain"] = f"vm100\n{DB}"  # by its name, and by its UUID
        engine.undo(world.session(endpoint), run, MANNER)
    else:
        world.undo()
    assert world.seen() == before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_broken_off_at_each_command(make: Callable[..., World], kind: str, way: str, after: bool) -> None:
    whole = make(**KINDS[kind])
    before = whole.seen()
    first = whole.host.commands
    whole.enable()
    done, last = whole.seen(), whole.host.commands
    assert last - first > 5
    interrupt, what = WAYS[way]
    for at in range(first, last):
        world = make(**KINDS[kind])
        world.host.interrupt = interrupt(at, after, what)
        with contextlib.suppress(Error, KeyboardInterrupt):
            world.enable()
        world.host.interrupt = lambda _number, _after: None
        run = next(iter(world.journal.runs()), None)
        if run is not None and run.outcome is None:
            world.undo()
        assert world.seen() in (before, done), f"command {at}"
        assert world.host.nested is not None


def crashed_with_its_vms_off(make: Callable[..., World], *, with_vm: bool) -> World:
    """A world whose run has lost its host right after the drained VMs went off."""
    world = make(drained=True, with_vm=with_vm)

    def interrupt(_number: int, _after: bool) -> None:
        if not any(world.host.vms.values()):
            raise lost()

    world.host.interrupt = interrupt
    with pytest.raises(Error):
        world.enable()
    world.host.interrupt = lambda _number, _after: None
    assert not any(world.host.vms.values())
    return world


@pytest.mark.parametrize("with_vm", [False, True])
def test_a_second_run_does_not_forget_vms_that_a_dead_one_has_shut_down(
    make: Callable[..., World], with_vm: bool
) -> None:
    world = crashed_with_its_vms_off(make, with_vm=with_vm)
    world.drain = ""
    with pytest.raises(ChangeRejected) as caught:
        world.enable()
    assert "nestvirt undo" in caught.value.cure
    world.undo()
    assert all(world.host.vms.values())
    assert world.enable() is Status.FAIL  # for they run, and were not named


def test_an_undo_that_cannot_start_a_vm_leaves_its_run_open(make: Callable[..., World]) -> None:
    world = crashed_with_its_vms_off(make, with_vm=False)
    world.host.broken = {WEB}
    with pytest.raises(Error) as caught:
        world.undo()
    assert "start" in caught.value.evidence
    assert world.host.vms == {WEB: False, DB: True}
    assert world.journal.find(None).outcome is None
    world.host.broken = set()
    world.undo()
    assert all(world.host.vms.values())


@pytest.mark.parametrize("with_vm", [False, True])
def test_a_vm_that_does_not_shut_down_leaves_all_as_it_was(
    make: Callable[..., World], with_vm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nestvirt.backends.host.DRAIN_SECONDS", 0.2)
    world = make(drained=True, with_vm=with_vm)
    before = world.seen()
    world.host.deaf = {DB}
    with pytest.raises(Error, match="did not shut down"):
        world.enable()
    assert world.seen() == before
    world.host.vms[DB] = False  # it has listened after all
    run = next(iter(world.journal.runs()))
    if run.outcome is None:
        world.undo()
        assert world.seen() == before
    else:
        assert with_vm  # there nothing was written, and the run has ended


def test_disabled_and_undone(make: Callable[..., World]) -> None:
    world = make(**KINDS["alone"])
    world.host.files, world.host.nested = {}, "1"
    before = world.seen()
    assert engine.reach(world.session(), OFF, MANNER).conclusion is Status.PASS
    assert world.host.nested == "0"
    assert engine.reach(world.session(), ON, MANNER).conclusion is Status.PASS
    assert world.host.nested == "1"
    world.undo()
    assert world.host.nested == "0"
    run = world.journal.runs()[-1]
    engine.undo(world.session(dict(run.endpoint) or {"again": "1"}), run, MANNER)
    assert world.seen() == before


def test_undo_leaves_a_module_that_vms_use_and_says_so(make: Callable[..., World]) -> None:
    world = make(**KINDS["two VMs drained"])
    world.enable()
    run = world.journal.find(None)
    report = engine.undo(world.session({"again": "1"}), run, MANNER)
    assert "load the kvm module of node1 anew" in report.remains[0]
    assert (world.host.files, world.host.nested) == (ZERO, "1")
    assert all(world.host.vms.values())


def test_undo_shuts_nobody_down_who_was_not_named(make: Callable[..., World]) -> None:
    world = make(drained=False, with_vm=True)
    assert world.enable() is Status.PASS
    world.host.vms = {WEB: True}
    done = world.seen()
    run = world.journal.find(None)
    report = engine.undo(world.session(dict(run.endpoint)), run, MANNER)
    assert [finding.check for finding in report.blockers] == ["host-users"]
    assert world.seen() == done


def test_two_runs_at_once_on_one_host_are_kept_apart(make: Callable[..., World]) -> None:
    world = make(drained=False, with_vm=True)
    session = world.session()
    lock = world.journal.lock("host", Vm(session.backend.endpoint["host_id"], "node1"))
    with lock, pytest.raises(Busy):
        engine.reach(session, ON, MANNER)
    assert world.enable() is Status.PASS


@pytest.mark.parametrize("kind", KINDS)
def test_check_and_dry_run_write_nothing(make: Callable[..., World], kind: str) -> None:
    world = make(**KINDS[kind])
    before = world.seen()
    engine.check(world.session(), ON)
    planned = engine.reach(world.session(), ON, replace(MANNER, dry_run=True))
    assert "/etc/modprobe.d/zz-nestvirt.conf" in [change.setting for change in planned.changes]
    assert world.seen() == before
    assert not world.journal.runs()


def test_file_that_somebody_else_has_written_meanwhile_is_respected(make: Callable[..., World]) -> None:
    world = make(**KINDS["alone"])
    ours = "/etc/modprobe.d/zz-nestvirt.conf"

    def meddle(step: Step, _detail: str) -> None:
        if step is Step.APPLY:
            world.host.files[ours] = "# kvm, mine\n"

    with pytest.raises(ChangeRejected, match="somebody else"):
        engine.reach(replace(world.session(), tell=meddle), ON, MANNER)
    assert world.host.files == {**ZERO, ours: "# kvm, mine\n"}
    assert world.host.nested == "0"
