"""A VM that runs where this vCenter or host cannot see it: on a silent host, or beside its registration."""

from __future__ import annotations

import pytest

from nestvirt import engine
from nestvirt.engine import Step
from nestvirt.errors import ChangeRejected, Error, PowerError, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Status
from tests.contract.basis import MANNER, ON
from tests.contract.runs import check, enable, found, session
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import EsxiRig, VSphereRig

HOST = "DC0_C0_H0"


@pytest.fixture
def rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter)


@pytest.mark.parametrize("running", [True, False])
def test_vm_of_a_host_that_is_silent_is_left_alone(rig: VSphereRig, journal: Journal, running: bool) -> None:
    name = rig.make(running=running)
    rig.lab.lose(HOST)
    before = rig.see(name)
    result = enable(rig, journal, name)
    finding = found(result, "vm-connected")
    assert (result.conclusion, finding.status) == (Status.FAIL, Status.FAIL)
    assert f"{HOST} is notResponding" in finding.evidence
    assert f"connect {HOST} again" in finding.cure
    assert rig.see(name) == before
    assert journal.runs() == []


def test_guest_that_cannot_be_asked_there_is_told_with_the_same_cure(
    rig: VSphereRig, journal: Journal
) -> None:
    name = rig.make(nested=True)
    rig.lab.lose(HOST)
    finding = found(check(rig, journal, name), "guest-kvm-run")
    assert "HostNotConnected" in finding.evidence
    assert "connect that host" in finding.cure


def test_it_is_not_taken_back_there_either_and_can_be_later(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    before = rig.see(name)
    run = journal.find(enable(rig, journal, name).run)
    rig.lab.lose(HOST)
    result = engine.undo(session(rig, journal, name), run, MANNER)
    assert [f.check for f in result.blockers] == ["vm-connected"]
    assert rig.see(name).nested
    rig.lab.set_host(HOST, {"runtime.connectionState": "connected"})
    rig.lab.set(name, {"runtime.connectionState": "connected"})
    engine.undo(session(rig, journal, name), run, MANNER)
    assert rig.see(name).stored == before.stored


@pytest.mark.parametrize("step", [Step.STOP, Step.APPLY, Step.START])
def test_host_that_falls_silent_under_way_is_named_by_vspheres_words(
    rig: VSphereRig, journal: Journal, step: Step
) -> None:
    name = rig.make()

    def lose(now: Step, _detail: str) -> None:
        if now is step:
            rig.lab.lose(HOST)

    with pytest.raises(Error) as caught:
        engine.reach(session(rig, journal, name, tell=lose), ON, MANNER)
    assert "HostNotConnected" in caught.value.evidence
    assert ("connect that host" if step is Step.STOP else "nestvirt undo") in caught.value.cure
    assert journal.runs()[0].outcome in (None, "put-back")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("disconnected", "bring its host back"),
        ("inaccessible", "no other host has the VM registered"),
        ("orphaned", "where it is registered now"),
        ("invalid", "restore it"),
    ],
)
def test_each_state_of_its_connection_has_its_cure(
    rig: VSphereRig, journal: Journal, state: str, words: str
) -> None:
    name = rig.make(running=False)
    rig.lab.set(name, {"runtime.connectionState": state})
    finding = found(check(rig, journal, name), "vm-connected")
    assert f"calls the VM {state}: " in finding.evidence
    assert words in finding.cure


def test_vm_that_another_host_runs_beside_its_registration_here(esxi: VSphere, journal: Journal) -> None:
    """Both have it on a datastore that they share; to this one it is off, and its files are locked."""
    rig = EsxiRig(esxi)
    name = rig.make(running=False, elsewhere=True)
    before = rig.see(name)
    with pytest.raises(ChangeRejected) as caught:
        enable(rig, journal, name)
    assert f"{name}.vmx since it is locked" in caught.value.evidence
    assert "another host" in caught.value.cure
    assert rig.see(name) == before
    assert [run.outcome for run in journal.runs()] == ["put-back"]


def test_vm_that_another_host_starts_meanwhile(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()

    def start_there(step: Step, _detail: str) -> None:
        if step is Step.START:
            rig.lab.switch(name, elsewhere=True)
        if step is Step.PUT_BACK:
            rig.lab.switch(name, elsewhere=False)

    before = rig.see(name)
    with pytest.raises(PowerError, match="did not start") as caught:
        engine.reach(session(rig, journal, name, tell=start_there), ON, MANNER)
    assert "FileLocked" in caught.value.evidence
    assert "another host" in caught.value.cure
    assert (rig.see(name).stored, rig.see(name).running) == (before.stored, True)


def test_vm_that_was_moved_off_this_esxi_host(esxi: VSphere, journal: Journal) -> None:
    rig = EsxiRig(esxi)
    name = rig.make(running=False)
    rig.lab.remove(name)
    with pytest.raises(TargetError, match="shows no VM") as caught:
        session(rig, journal, name)
    assert "moved to another host" in caught.value.cure
