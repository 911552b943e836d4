"""VMs by name, path, UUID and moref; and what is asked of a vCenter with ten thousand of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from nestvirt import backends, engine
from nestvirt.backends.vsphere import VsphereBackend
from nestvirt.errors import Error, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Power, Status, Target
from tests.contract.basis import MANNER
from tests.contract.runs import enable, session
from tests.lab import LabError, need
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import VSphereRig

MANY, PEAK_MIB = 10_000, 150


@pytest.fixture
def rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter)


def test_each_of_its_names_means_it(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(folder="production/web servers", running=False)
    seen = rig.lab.see(name)
    uuids = [seen["config"]["InstanceUuid"], seen["config"]["Uuid"]]
    path = f"/DC0/vm/production/web servers/{name}"
    by_name = session(rig, journal, name).vm
    assert by_name.name == name
    for spelling in (path, path.lstrip("/"), *uuids, uuids[0].upper(), seen["moref"], by_name.id):
        assert session(rig, journal, spelling).vm == by_name, spelling


def test_name_of_several_lists_them_with_paths_and_each_path_means_one(
    rig: VSphereRig, journal: Journal
) -> None:
    name = rig.make(folder="production", running=False)
    rig.lab.make(name, folder="test", running=False)
    paths = [f"/DC0/vm/{folder}/{name}" for folder in ("production", "test")]
    with pytest.raises(TargetError) as caught:
        session(rig, journal, name)
    assert all(path in caught.value.evidence for path in paths)
    assert "path" in caught.value.cure
    found = {session(rig, journal, path).vm for path in paths}
    assert len(found) == 2


def test_record_means_the_vm_under_any_later_name_and_folder(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    run = journal.find(enable(rig, journal, name).run)
    rig.lab.set(name, {"name": "renamed", "config.name": "renamed"})
    again = session(rig, journal, run.vm.id)
    assert again.vm.name == "renamed"
    assert engine.undo(again, run, MANNER).conclusion is Status.PASS
    assert not rig.see("renamed").nested


def test_record_of_a_vm_that_is_gone_does_not_mean_its_successor(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    recorded = session(rig, journal, name).vm.id
    rig.lab.remove(name)
    rig.lab.make(name, running=False)
    with pytest.raises(TargetError):
        session(rig, journal, recorded)


def test_record_of_a_vm_does_not_mean_its_copy_with_the_same_uuid(rig: VSphereRig, journal: Journal) -> None:
    """On an ESXi host a VM that was copied by hand has it."""
    name, copy = rig.make(running=False), rig.make(running=False)
    uuid = rig.lab.see(name)["config"]["InstanceUuid"]
    rig.lab.set(copy, {"config.instanceUuid": uuid})
    run = journal.find(enable(rig, journal, name).run)
    assert session(rig, journal, run.vm.id).vm.name == name
    with pytest.raises(TargetError, match="2 VMs"):
        session(rig, journal, uuid)
    rig.lab.remove(name)
    with pytest.raises(TargetError, match="not there any more") as caught:
        session(rig, journal, run.vm.id)
    assert f"/DC0/vm/{copy} (" in caught.value.evidence


def test_path_of_a_name_with_a_slash_is_shown_as_it_is_taken(rig: VSphereRig, journal: Journal) -> None:
    for folder in ("one", "another"):
        rig.lab.make("web%2f1", folder=folder, running=False)
    with pytest.raises(TargetError) as caught:
        session(rig, journal, "web/1")
    assert "/DC0/vm/one/web%2f1 (" in caught.value.evidence
    assert session(rig, journal, "/DC0/vm/one/web%2f1").vm.id


def test_vm_that_is_deleted_under_way_is_told_so(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    now = session(rig, journal, name)
    now.backend.read(now.vm)
    rig.lab.remove(name)
    with pytest.raises(TargetError) as caught:
        now.backend.read(now.vm)
    assert caught.value.cure


def test_name_goes_before_the_same_as_anothers_moref(rig: VSphereRig, journal: Journal) -> None:
    """It is what its user has chosen, and who means the other has further names for it."""
    other = rig.make(running=False)
    moref = rig.lab.see(other)["moref"]
    rig.lab.make(moref, running=False)
    assert session(rig, journal, moref).vm.name == moref
    assert session(rig, journal, f"/DC0/vm/{other}").vm.name == other


# --- ten thousand


@pytest.fixture(scope="module")
def crowd() -> Iterator[VSphereRig]:
    """A vCenter of a size that is met."""
    try:
        lab = VSphere(vms=MANY)
    except (LabError, OSError) as error:
        need(error, "the vSphere peer cannot be brought up")
        raise
    with lab:
        yield VSphereRig(lab, None)


@pytest.mark.parametrize("name", ["guest-07000", "/DC0/vm/guest-07000"])
def test_one_of_ten_thousand_is_found_and_read_in_five_round_trips(crowd: VSphereRig, name: str) -> None:
    crowd.lab.clear()
    backend = backends.connect(Target("vsphere", name), crowd.endpoint)
    facts = backend.read(backend.find(name))
    assert facts.power is Power.RUNNING
    counts = crowd.lab.counts()
    assert sum(counts.values()) <= 5, counts
    backend.close()


def test_all_ten_thousand_are_listed_with_their_states_in_one_paged_query(crowd: VSphereRig) -> None:
    backend = backends.connect(Target("vsphere", "any"), crowd.endpoint)
    assert isinstance(backend, VsphereBackend)
    crowd.lab.clear()
    states = {state.name: state for state in backend.states()}
    counts = crowd.lab.counts()
    backend.close()
    made = [states[f"guest-{number:05}"] for number in range(MANY)]
    assert [state.nested for state in made] == [number % 3 == 0 for number in range(MANY)]
    assert [state.power is Power.RUNNING for state in made] == [number % 2 == 0 for number in range(MANY)]
    assert counts["RetrievePropertiesEx"] == 1
    assert 9 <= counts["ContinueRetrievePropertiesEx"] <= 11, counts
    assert sum(counts.values()) <= 13, counts


# VmHWM begins with the program; getrusage's figure has what the process that started it had, too.
PEAK = """
import json, re, sys
from nestvirt import backends
from nestvirt.model import Target
backend = backends.connect(Target("vsphere", "any"), json.loads(sys.stdin.read()))
backend.read(backend.find("guest-07000"))
listed = sum(1 for _ in backend.states())
backend.close()
print(listed, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def test_ten_thousand_take_no_more_memory_than_is_promised(crowd: VSphereRig) -> None:
    """In a process of its own: this one has loaded much else."""
    given = json.dumps(dict(crowd.endpoint))
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    listed, kib = map(int, done.stdout.split())
    assert listed >= MANY
    assert kib / 1024 <= PEAK_MIB


def test_unknown_name_among_ten_thousand_is_answered_briefly(crowd: VSphereRig) -> None:
    backend = backends.connect(Target("vsphere", "any"), crowd.endpoint)
    with pytest.raises(Error) as caught:
        backend.find("guest-0700")
    assert "guest-07" in caught.value.evidence
    assert len(caught.value.evidence) < 2000
    backend.close()
