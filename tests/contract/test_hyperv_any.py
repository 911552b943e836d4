"""Whatever a host and a VM are like, and whichever answer gets lost: nothing is half done and undo is exact.

Hosts, VMs and wishes are made at random, by a seed that the test's name shows. WinRM is left out for speed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from nestvirt import engine, report
from nestvirt.backends import base
from nestvirt.backends.hyperv import HyperVBackend, answers, scripts
from nestvirt.backends.hyperv.faults import NoAnswer
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.engine import Manner, Session
from nestvirt.errors import Error
from nestvirt.journal import Journal
from nestvirt.model import Goal, Report, Target
from tests.contract.basis import agree
from tests.peers.hyperv import Adapter, Checkpoint, Host, Machine
from tests.peers.hyperv.model import GIB, RELEASED_BUILD, WITH_VERSIONS
from tests.peers.hyperv_guest import LinuxGuest
from tests.peers.hyperv_rig import HyperVRig
from tests.peers.pwsh import Invocation, PowerShell

SEEDS = range(80)
PATIENT, FORCED = Manner(consent=agree), Manner(consent=agree, force_off=True)


class InProcess:
    """A session whose host is this process.

    Args:
        losing: how often an answer gets lost, before or after the script has run; 0 to 1.
    """

    address = "https://hyperv01.lab.test:5986"

    def __init__(self, host: Host, dice: random.Random, losing: float = 0.0) -> None:
        self.shell = PowerShell(host)
        self.dice, self.losing, self.lost = dice, losing, 0

    def run(
        self,
        phase: str,
        data: Mapping[str, Any],
        *,
        secret: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> dict[str, Any]:
        """See HyperVSession."""
        assert timeout > 0
        loses = phase != "find" and self.dice.random() < self.losing
        self.lost += loses
        if loses and self.dice.random() < 0.5:
            raise NoAnswer("the request got lost", evidence="so the test has it", cure="ask again")
        made = scripts.invocation(phase, data, secret)
        ended = self.shell(Invocation("powershell.exe", made.arguments, made.stdin or b""))
        assert self.shell.unknown == []
        if loses:
            raise NoAnswer("the answer got lost", evidence="so the test has it", cure="ask again")
        return answers.parse(phase, ended.stdout, ended.stderr, ended.code)


def any_host(dice: random.Random) -> Host:
    pick = dice.choice
    host = Host(
        vendor=pick(["AuthenticAMD", "GenuineIntel"]),
        build=pick([9600, 10586, 14361, 14393, 17763, 20348, 20348, 20348, 20348, 26100]),
        version=pick(["8.0", "9.0", "10.0", "12.0"]),
        vbs=pick([None, 0, 2]),
        hypervisor=pick([True] * 9 + [None, False]),
    )
    if dice.random() < 0.3:
        host.cluster, host.restarts = "HVC", pick([None, 0.02, 5.0])
    return host


def any_vm(dice: random.Random, host: Host) -> Machine:
    """A VM in a state that Hyper-V lets it be in."""
    pick = dice.choice
    machine = Machine(
        "vm",
        version=pick(["5.0", "8.0", "9.0", "9.3", "10.0"]) if host.build >= WITH_VERSIONS else "5.0",
        dynamic=dice.random() < 0.4,
        minimum=pick([GIB, 2 * GIB]),
        startup=pick([2 * GIB, 4 * GIB]),
        maximum=pick([4 * GIB, 8 * GIB]),
        adapters=[Adapter(spoofing=dice.random() < 0.5) for _ in range(pick([0, 1, 1, 2, 3]))],
        checkpoints=[Checkpoint("before", pick(["Off", "Saved"]))] if dice.random() < 0.5 else [],
        replication=pick(["None"] * 6 + ["Primary", "Replica"]),
        state=pick(
            ["Off", "Off", "Running", "Running", "Running", "Saved", "Paused", "FastSaved", "OffCritical"]
        ),
        rolls_back=dice.random() < 0.7,
        broken=dice.random() < 0.1,
    )
    machine.expose = not machine.dynamic and host.nests(machine) and dice.random() < 0.4
    machine.opt_out = machine.expose and host.build < RELEASED_BUILD
    machine.fragile = not machine.expose and dice.random() < 0.2
    guest = machine.guest
    guest.system, guest.inner = pick(["windows", "linux"]), False
    guest.deaf, guest.listens = dice.random() < 0.1, dice.random() < 0.9
    if machine.state == "Running":
        machine.received, machine.boots = machine.expose, 1
    if host.cluster:
        machine.group = "Online" if machine.state == "Running" else pick(["Offline", "Failed"])
    host.machines.append(machine)
    return machine


def any_goal(dice: random.Random) -> Goal:
    saved, spoofing, upgrade = (dice.random() < 0.4 for _ in range(3))
    nested = dice.random() < 0.85
    return Goal(nested, discard_saved_state=saved, mac_spoofing=spoofing, upgrade_version=upgrade)


class Case:
    """One host with its one VM, and what is wanted of it."""

    def __init__(self, seed: int, folder: Path, losing: float = 0.0) -> None:
        dice = random.Random(seed)  # noqa: S311 - nobody's secret
        self.host = any_host(dice)
        self.vm = any_vm(dice, self.host)
        self.goal, self.manner = any_goal(dice), dice.choice([PATIENT, PATIENT, FORCED])
        self.before, self.ran = self.vm.stored(), self.vm.state == "Running"
        self.link = InProcess(self.host, dice, losing)
        self.journal = Journal(folder / "state")
        self.by_ssh = dice.random() < 0.7

    def machine(self, name: str) -> Machine:
        """As a rig's."""
        assert name == self.vm.name
        return self.vm

    def session(self) -> Session:
        backend = HyperVBackend(cast("HyperVSession", self.link), {})
        ssh = LinuxGuest(cast("HyperVRig", self), "vm") if self.by_ssh else None
        target, vm = Target("hyperv", "vm"), backend.find("vm")
        return Session(backend, target, vm, self.journal, "--hyperv vm", ssh=ssh, timeout=0.3)

    def reach(self) -> Report | Error:
        """What comes of it; either can be shown."""
        try:
            made = engine.reach(self.session(), self.goal, self.manner)
        except Error as error:
            return error
        assert report.to_json(made)
        return made

    def undo(self, run: str | None) -> Report:
        """Once answers come again, and the VM stops and starts."""
        self.link.losing = 0.0
        self.vm.broken = self.vm.fragile = self.vm.guest.deaf = False
        self.vm.guest.listens = True
        return engine.undo(self.session(), self.journal.find(run), FORCED)

    def is_as_before(self) -> bool:
        """But for the version, which nobody can take back, and a saved state that was to be lost."""
        self.host.tick()
        same = {**self.vm.stored(), "version": ""} == {**self.before, "version": ""}
        return same and (not self.ran or self.runs())

    def runs(self) -> bool:
        """Whether it does, and its cluster knows."""
        self.host.tick()
        return self.vm.state == "Running" and self.vm.group in ("", "Online")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.005)


each_seed = pytest.mark.parametrize("seed", SEEDS)


@each_seed
def test_a_run_is_whole_or_nothing_and_undo_is_exact(seed: int, tmp_path: Path) -> None:
    case = Case(seed, tmp_path)
    state = case.vm.state
    result = case.reach()
    if isinstance(result, Error):
        assert result.evidence
        assert result.cure
        assert case.is_as_before() or case.vm.broken
    elif result.blockers:
        assert (case.vm.stored(), case.vm.state) == (case.before, state)
    else:
        assert case.vm.expose is case.goal.nested
        assert case.runs() or not case.ran
        if result.run:
            undone = case.undo(result.run)
            assert undone.blockers or case.is_as_before()
    assert case.host.wrongs == []


@each_seed
def test_whichever_answer_gets_lost_undo_is_exact(seed: int, tmp_path: Path) -> None:
    case = Case(seed, tmp_path, losing=0.15)
    result = case.reach()
    run = None if isinstance(result, Error) else result.run
    if run or any(known.outcome in (None, "applied") for known in case.journal.runs()):
        undone = case.undo(run)
        assert undone.blockers or case.is_as_before()
    else:
        assert case.is_as_before() or case.vm.broken
    assert case.host.wrongs == []


def test_the_seeds_make_a_bit_of_everything(tmp_path: Path) -> None:
    """Else the tests above would not say much."""
    cases = [Case(seed, tmp_path) for seed in SEEDS]
    assert {case.vm.state for case in cases} >= {"Off", "Running", "Saved", "Paused", "OffCritical"}
    assert {bool(case.host.cluster) for case in cases} == {True, False}
    assert {case.vm.dynamic for case in cases} == {True, False}
    assert {case.host.vendor for case in cases} == {"AuthenticAMD", "GenuineIntel"}
