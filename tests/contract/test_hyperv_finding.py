"""Which VM a name means; who may ask; what answers cost, and what becomes of those that get lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from nestvirt import engine
from nestvirt.engine import Step
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Status
from tests.contract.basis import MANNER, ON
from tests.contract.runs import check, enable, session
from tests.peers.hyperv.model import Away
from tests.peers.hyperv_guest import LinuxGuest
from tests.peers.hyperv_rig import OUTSIDER, HyperVRig
from tests.peers.winrm.ills import Ill


@pytest.fixture
def rig(hyperv: HyperVRig) -> HyperVRig:
    return hyperv


# --- names


@pytest.mark.parametrize("name", ["*", "vm-*", "vm-0?", "[v]m-01", "vm-01\u200b", "vm-01 ", "vm-01\x00"])
def test_a_pattern_is_a_name_like_any_other(rig: HyperVRig, journal: Journal, name: str) -> None:
    rig.make(running=False)
    with pytest.raises(TargetError, match="has no VM") as caught:
        session(rig, journal, name)
    assert "vm-01" in caught.value.evidence


def test_a_vm_may_be_called_like_a_pattern(rig: HyperVRig, journal: Journal) -> None:
    rig.make(running=False)
    name = rig.make(running=False, name="vm-*")
    enable(rig, journal, name)
    assert [machine.expose for machine in rig.host.machines] == [False, True]


def test_case_is_no_difference_as_in_hyperv(rig: HyperVRig, journal: Journal) -> None:
    rig.make(running=False)
    assert session(rig, journal, "VM-01").vm.name == "vm-01"


def test_an_id_names_a_vm_with_and_without_its_host(rig: HyperVRig, journal: Journal) -> None:
    rig.make(running=False)
    identity = str(rig.machine("vm-01").id)
    for spelled in (
        identity,
        identity.upper(),
        f"{{{identity}}}",
        f"{identity}@HYPERV01",
        f"{identity}@hyperv01",
    ):
        vm = session(rig, journal, spelled).vm
        assert (vm.id, vm.name) == (f"{identity}@HYPERV01", "vm-01")


def test_an_id_of_another_host_is_not_taken_for_this_ones(rig: HyperVRig, journal: Journal) -> None:
    """Hyper-V Replica's copy has the id of its original."""
    rig.make(running=False)
    with pytest.raises(TargetError, match="is not this one") as caught:
        session(rig, journal, f"{rig.machine('vm-01').id}@HYPERV02")
    assert "HYPERV02" in caught.value.cure


def test_two_of_one_name_are_told_apart_by_their_ids(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make_ambiguous()
    with pytest.raises(TargetError) as caught:
        session(rig, journal, name)
    for machine in rig.host.machines:
        assert str(machine.id) in caught.value.evidence
        assert session(rig, journal, str(machine.id)).vm.name == machine.name


def test_a_name_that_is_an_id_is_found_too(rig: HyperVRig, journal: Journal) -> None:
    name = "6f1e0f6c-5f43-4f3c-9c50-2f6d7c9f7d10"
    rig.make(running=False, name=name)
    assert session(rig, journal, name).vm.name == name


def test_a_renamed_vm_is_found_again_by_its_record(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False)
    now = session(rig, journal, name)
    rig.machine(name).name = "renamed"
    assert now.backend.find(now.vm.id).name == "renamed"
    assert engine.reach(now, ON, MANNER).changes


def test_many_are_listed_in_part(rig: HyperVRig, journal: Journal) -> None:
    for _ in range(30):
        rig.make(running=False)
    with pytest.raises(TargetError) as caught:
        session(rig, journal, "none")
    assert "and 10 more" in caught.value.evidence


def test_a_clustered_vm_belongs_to_its_cluster(rig: HyperVRig, journal: Journal) -> None:
    rig.host.cluster = "HVC"
    name = rig.make(running=False, group="Offline")
    vm = session(rig, journal, name).vm
    assert vm.id == f"{rig.machine(name).id}@HVC"
    rig.host.name = "HYPERV02"  # it has moved there
    assert session(rig, journal, vm.id).vm.id == vm.id


def test_a_vm_of_another_node_is_told_with_that_node(rig: HyperVRig, journal: Journal) -> None:
    away = Away("web-01", "HYPERV02", uuid4())
    rig.host.cluster, rig.host.elsewhere = "HVC", [Away("db-01", "HYPERV03"), away]
    for named in ("Web-01", f"{away.id}@HVC"):
        with pytest.raises(TargetError, match="is not on HYPERV01 now") as caught:
            session(rig, journal, named)
        assert "https://HYPERV02" in caught.value.cure


def test_a_vm_whose_configuration_is_offline_is_not_looked_for_on_the_node_that_has_it(
    rig: HyperVRig, journal: Journal
) -> None:
    rig.host.cluster = "HVC"
    name = rig.make(running=False, group="Offline", configuration="Failed")
    for named in (name, f"{rig.machine(name).id}@HVC"):
        with pytest.raises(TargetError, match="HYPERV01 does not show") as caught:
            session(rig, journal, named)
        assert f"the resource Virtual Machine Configuration {name} is Failed" in caught.value.evidence
        assert "Start-ClusterResource" in caught.value.cure


def test_a_clustered_vms_identity_is_the_same_for_whom_the_cluster_hides_its_role(
    rig: HyperVRig, journal: Journal
) -> None:
    rig.host.cluster = "HVC"
    name = rig.make(running=False, group="Offline")
    seen = session(rig, journal, name).vm
    rig.host.modules.discard("FailoverClusters")
    assert session(rig, journal, name).vm == seen
    assert session(rig, journal, seen.id).vm == seen


def test_a_record_of_before_the_vm_was_a_clusters_is_still_that_vms(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False)
    alone = session(rig, journal, name).vm
    run = enable(rig, journal, name).run
    rig.host.cluster, rig.machine(name).group = "HVC", "Offline"
    assert session(rig, journal, alone.id).vm == alone
    clustered = session(rig, journal, name).vm
    engine.undo(session(rig, journal, alone.id), journal.find(run), MANNER)
    assert rig.machine(name).expose is False
    rig.machine(name).group = ""
    assert session(rig, journal, clustered.id).vm == clustered


def test_a_vm_that_is_named_by_its_id_is_asked_for_alone(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False)
    session(rig, journal, str(rig.machine(name).id))
    assert rig.host.lists == 0


# --- who may ask


def test_who_is_no_hyperv_administrator_is_told_the_group(rig: HyperVRig, journal: Journal) -> None:
    rig.make(running=False)
    endpoint = {**rig.endpoint, "username": OUTSIDER.name, "password": OUTSIDER.password}
    with pytest.raises(AccessDenied) as caught:
        session(rig, journal, "vm-01", endpoint=endpoint)
    assert "Hyper-V Administrators" in caught.value.cure
    assert caught.value.evidence


def test_windows_without_hyperv_is_told_how_to_have_it(rig: HyperVRig, journal: Journal) -> None:
    rig.host.modules.discard("Hyper-V")
    with pytest.raises(Error, match="has no Hyper-V") as caught:
        session(rig, journal, "vm-01")
    assert "Install-WindowsFeature Hyper-V" in caught.value.cure


def test_host_whose_service_is_stopped_is_told_to_start_it(rig: HyperVRig, journal: Journal) -> None:
    rig.make(running=False)
    rig.host.service = False
    with pytest.raises(Error, match="management service") as caught:
        session(rig, journal, "vm-01")
    assert "Start-Service vmms" in caught.value.cure


def test_host_in_another_language_is_understood(rig: HyperVRig, journal: Journal) -> None:
    rig.lab.endpoint.german = True
    name = rig.make()
    assert enable(rig, journal, name).conclusion is Status.PASS


def test_another_products_get_vm_is_not_taken_for_hypervs(rig: HyperVRig, journal: Journal) -> None:
    """PowerCLI's; the fixture fails where a cmdlet was called before Hyper-V's module was imported."""
    rig.host.modules.add("VMware.VimAutomation.Core")
    name = rig.make()
    assert enable(rig, journal, name).conclusion is Status.PASS


# --- what it costs


def test_facts_take_four_round_trips(rig: HyperVRig, journal: Journal) -> None:
    rig.make(running=False)
    rig.lab.endpoint.forget()
    now = session(rig, journal, "vm-01")
    now.backend.read(now.vm)
    now.backend.close()
    assert rig.lab.endpoint.round_trips == ["Create", "Command", "Receive", "Delete"]


def test_enabling_a_stopped_vm_takes_eight(rig: HyperVRig, journal: Journal) -> None:
    rig.make(running=False)
    rig.lab.endpoint.forget()
    now = session(rig, journal, "vm-01")
    engine.reach(now, ON, MANNER)
    now.backend.close()
    assert rig.lab.endpoint.round_trips == ["Create", *["Command", "Receive"] * 3, "Delete"]


def test_enabling_a_running_vm_takes_eight_beside_waiting_for_it(rig: HyperVRig, journal: Journal) -> None:
    """Of the ten, two are what is waited with: the answers to the orders to shut down, and to start."""
    name = rig.make()
    rig.lab.endpoint.forget()
    now = replace(session(rig, journal, name), ssh=LinuxGuest(rig, name))
    assert engine.reach(now, ON, MANNER).conclusion is Status.PASS
    now.backend.close()
    assert rig.lab.endpoint.round_trips == ["Create", *["Command", "Receive"] * 4, "Delete"]


# --- answers that get lost


@pytest.mark.parametrize("step", [Step.STOP, Step.APPLY, Step.START])
@pytest.mark.parametrize(
    ("ill", "operation"), [(Ill.LOST, "Command"), (Ill.LOST, "Receive"), (Ill.HALF, "Receive")]
)
def test_answer_that_gets_lost_is_looked_for(
    rig: HyperVRig, journal: Journal, step: Step, ill: Ill, operation: str
) -> None:
    name = rig.make()

    def ail(now: Step, _detail: str) -> None:
        if now is step:
            rig.lab.endpoint.ail(ill, operation)

    result = engine.reach(session(rig, journal, name, tell=ail), ON, MANNER)
    assert result.conclusion is Status.PASS
    assert (rig.machine(name).expose, rig.machine(name).received) == (True, True)


def test_host_that_is_away_from_the_write_on_leaves_the_run_to_be_undone(
    rig: HyperVRig, journal: Journal
) -> None:
    name = rig.make()

    def ail(now: Step, _detail: str) -> None:
        if now is Step.APPLY:
            rig.lab.endpoint.ail(Ill.CUT, times=1000)

    with pytest.raises(Error) as caught:
        engine.reach(session(rig, journal, name, tell=ail), ON, MANNER)
    assert "nestvirt undo" in caught.value.cure
    rig.lab.endpoint.heal()
    engine.undo(session(rig, journal, name), journal.find(None), MANNER)
    assert (rig.machine(name).expose, rig.see(name).running) == (False, True)


def test_host_that_answers_nonsense_is_said_to(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False)
    rig.lab.endpoint.ail(Ill.GARBAGE, "Receive", times=1000)
    with pytest.raises(Error) as caught:
        check(rig, journal, name)
    assert caught.value.cure
    assert not isinstance(caught.value, TargetError)
    rig.lab.endpoint.heal()


def test_shell_that_was_idle_for_too_long_is_opened_anew(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False)
    now = session(rig, journal, name)
    rig.lab.endpoint.ail(Ill.GONE, "Command")
    assert engine.reach(now, ON, MANNER).changes
    assert rig.machine(name).expose


def test_wrong_ca_is_no_connection(rig: HyperVRig, journal: Journal) -> None:
    endpoint: dict[str, Any] = {**rig.endpoint, "ca_file": str(rig.lab.endpoint.certificates.other_ca_file)}
    with pytest.raises(ConnectionFailed) as caught:
        session(rig, journal, "vm-01", endpoint=endpoint)
    assert caught.value.cure
