"""Where vSphere does not let a VM nest, only says that it does, or has two settings at odds."""

from __future__ import annotations

from typing import Any

import pytest

from nestvirt import engine
from nestvirt.engine import Manner, Step
from nestvirt.errors import ChangeRejected, ConnectionFailed, Error, PowerError
from nestvirt.journal import Journal
from nestvirt.model import Goal, Status
from tests.contract.basis import MANNER, OFF, ON, agree
from tests.contract.runs import check, enable, found, session
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import ENOUGH, EsxiRig, VSphereRig

PASSTHROUGH = {"_type": "VirtualPCIPassthrough", "key": 13000}
BLOCKED: dict[str, dict[str, Any]] = {
    "vm-fault-tolerance": {"runtime.faultToleranceState": "running"},
    "vm-passthrough": {"config.hardware.device+": PASSTHROUGH},
    "vm-hardware-version": {"config.version": "vmx-08"},
    "vm-template": {"config.template": True},
    "vm-nested-hv": {"capability.nestedHVSupported": False},
    "vm-connected": {"runtime.connectionState": "inaccessible"},
}


@pytest.fixture
def rig(vcenter: VSphere) -> VSphereRig:
    return VSphereRig(vcenter)


@pytest.mark.parametrize("ill", BLOCKED)
def test_what_excludes_nesting_is_said_with_its_cure_and_nothing_is_touched(
    rig: VSphereRig, journal: Journal, ill: str
) -> None:
    name = rig.make(running=False)
    rig.lab.set(name, BLOCKED[ill])
    before = rig.see(name)
    result = enable(rig, journal, name)
    finding = found(result, ill)
    assert (result.conclusion, finding.status) == (Status.FAIL, Status.FAIL)
    assert finding.evidence
    assert finding.cure
    assert rig.see(name) == before
    assert journal.runs() == []


def test_waiting_for_an_answer_blocks_and_shows_the_question(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    question = {"id": "1", "text": "msg.uuid.altered: moved or copied?"}
    rig.lab.set(name, {"runtime.question": question})
    result = enable(rig, journal, name)
    assert "moved or copied?" in found(result, "vm-question").evidence
    assert result.conclusion is Status.FAIL


def test_host_that_cannot_is_named_with_one_that_can(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    for host in ("DC0_C0_H0", "DC0_C0_H1"):
        rig.lab.set_host(host, {"capability.nestedHVSupported": False})
    result = enable(rig, journal, name)
    finding = found(result, "host-nested-hv")
    assert finding.status is Status.FAIL
    assert "DC0_C0_H0" in finding.evidence
    assert "DC0_C0_H2" in finding.cure
    assert not rig.see(name).nested
    rig.lab.move(name, "DC0_C0_H2")
    assert enable(rig, journal, name).conclusion is Status.PASS


def test_host_that_does_not_tell_is_no_reason_against_it(rig: VSphereRig, journal: Journal) -> None:
    """Unset is unknown, and not no."""
    name = rig.make(running=False)
    rig.lab.set_host("DC0_C0_H0", {"capability.nestedHVSupported": None})
    assert found(check(rig, journal, name), "host-nested-hv").status is Status.UNKNOWN


def test_hosts_that_it_can_move_to_no_more_are_named_with_the_evc_mode(
    rig: VSphereRig, journal: Journal
) -> None:
    name = rig.make()
    rig.lab.set_host("DC0_C0_H1", {"capability.nestedHVSupported": False})
    rig.lab.set_host("DC0_C0_H0", {"summary.currentEVCModeKey": "intel-broadwell"})
    finding = found(check(rig, journal, name), "vm-migration")
    assert finding.status is Status.WARN
    assert "cannot move to DC0_C0_H1" in finding.evidence
    assert "DC0_C0_H2" in finding.evidence
    assert "intel-broadwell" in finding.evidence


def test_vbs_forbids_to_take_nesting_away_and_not_to_give_it(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    rig.lab.set(name, {"config.flags.vbsEnabled": True})
    before = rig.see(name)
    result = engine.reach(session(rig, journal, name), OFF, MANNER)
    assert found(result, "vm-vbs").status is Status.FAIL
    assert rig.see(name) == before
    assert check(rig, journal, name).conclusion is Status.PASS


def test_snapshots_with_memory_are_warned_of_and_others_are_not(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    rig.lab.snapshot(name, "disks only", memory=False)
    assert [f for f in check(rig, journal, name).findings if f.check == "vm-snapshot-memory"] == []
    rig.lab.snapshot(name, "before the upgrade", memory=True)
    finding = found(check(rig, journal, name), "vm-snapshot-memory")
    assert finding.status is Status.WARN
    assert "before the upgrade" in finding.evidence
    assert "disks only" not in finding.evidence


def test_old_hardware_is_raised_only_when_asked_and_by_name(rig: VSphereRig, journal: Journal) -> None:
    rig.lab.privileges(*ENOUGH, "VirtualMachine.Config.UpgradeVirtualHardware")
    name = rig.make(hardware="vmx-08")
    refused = enable(rig, journal, name)
    assert "--upgrade-hardware" in found(refused, "vm-hardware-version").cure
    assert rig.lab.see(name)["config"]["Version"] == "vmx-08"
    result = enable(rig, journal, name, Goal(nested=True, upgrade="vmx-13"))
    assert result.conclusion is Status.PASS
    assert [change.setting for change in result.changes] == ["config.version", "nestedHVEnabled"]
    assert rig.lab.see(name)["config"]["Version"] == "vmx-13"
    assert rig.see(name).nested
    undone = engine.undo(session(rig, journal, name), journal.find(result.run), MANNER)
    assert {f.status for f in undone.findings if f.evidence.startswith("config.version")} == {Status.WARN}
    assert rig.lab.see(name)["config"]["Version"] == "vmx-13"
    assert not rig.see(name).nested


def test_upgrade_that_is_warned_of_is_warned_of_before_consent(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(hardware="vmx-08", running=False)
    manner = Manner(consent=agree, dry_run=True)
    planned = engine.reach(session(rig, journal, name), Goal(nested=True, upgrade="vmx-13"), manner)
    assert "cannot be undone" in found(planned, "vm-hardware-upgrade").evidence
    assert rig.lab.see(name)["config"]["Version"] == "vmx-08"


def test_success_that_had_no_effect_is_no_success(rig: VSphereRig, journal: Journal) -> None:
    """As reported: pyvmomi issue 629."""
    name = rig.make()
    before = rig.see(name)
    rig.lab.switch(name, noop=True)
    with pytest.raises(ChangeRejected) as caught:
        enable(rig, journal, name)
    assert "does not hold it" in caught.value.message
    assert rig.see(name).stored == before.stored
    assert rig.see(name).running


# --- the field nestedHVEnabled, and the line vhv.enable of the .vmx


def test_vm_that_nests_by_the_line_alone_is_read_as_such(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(nested=None, key="TRUE")
    result = enable(rig, journal, name)
    assert (result.conclusion, result.changes) == (Status.PASS, ())


@pytest.mark.parametrize(
    ("nested", "key"),
    [(True, "FALSE"), (False, "TRUE"), (False, "FALSE"), (None, "FALSE"), (None, None), (False, "false")],
)
def test_both_are_brought_into_line_and_undo_restores_both(
    rig: VSphereRig, journal: Journal, nested: bool | None, key: str | None
) -> None:
    name = rig.make(nested=nested, key=key)
    before = rig.see(name)
    run = enable(rig, journal, name)
    assert run.conclusion is Status.PASS
    config = rig.lab.see(name)["config"]
    keys = [option["Value"].upper() for option in config["ExtraConfig"] if option["Key"] == "vhv.enable"]
    assert config["NestedHVEnabled"] is True
    assert keys == ([] if key is None else ["TRUE"])
    engine.undo(session(rig, journal, name), journal.find(run.run), MANNER)
    assert rig.see(name).stored == before.stored


def test_unset_that_the_product_cannot_restore_is_false_and_counts_as_restored(
    rig: VSphereRig, journal: Journal
) -> None:
    name = rig.make(nested=None, keeps_false=True)
    run = enable(rig, journal, name).run
    result = engine.undo(session(rig, journal, name), journal.find(run), MANNER)
    assert result.conclusion is Status.PASS
    assert "reads false" in found(result, "vm-restored").evidence
    assert "exactly" not in found(result, "vm-restored").evidence
    assert not rig.see(name).nested


# --- others at work, and vSphere's own


def test_edit_of_something_else_midway_is_neither_lost_nor_in_the_way(
    rig: VSphereRig, journal: Journal
) -> None:
    """changeVersion moves with it: a write that knows the old one is refused (ConcurrentAccess)."""
    name = rig.make()

    def meddle(step: Step, _detail: str) -> None:
        if step is Step.APPLY:
            rig.lab.set(name, {"config.cpuHotAddEnabled": True})

    result = engine.reach(session(rig, journal, name, tell=meddle), ON, MANNER)
    assert result.conclusion is Status.PASS
    assert rig.lab.see(name)["config"]["CpuHotAddEnabled"] is True


def test_task_in_the_way_is_waited_for(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    other = {"type": "Task", "value": "task-1"}
    rig.lab.fail("ReconfigVM_Task", "TaskInProgress", times=2, task=other)
    assert enable(rig, journal, name).conclusion is Status.PASS


def test_tasks_that_take_time_are_waited_for(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    rig.lab.task_seconds(0.3)
    assert enable(rig, journal, name).conclusion is Status.PASS


PLACEMENT: dict[str, dict[str, Any]] = {
    "PowerOnMultiVM_Task": {"fault": "NoCompatibleHost", "message": "No host is compatible with the VM."},
    "PowerOnVM_Task": {
        "fault": "InsufficientMemoryResourcesFault",
        "message": "Insufficient memory resources.",
    },
}


@pytest.mark.parametrize("method", PLACEMENT)
def test_vm_that_vcenter_does_not_start_is_told_in_vcenters_words_and_put_back(
    rig: VSphereRig, journal: Journal, method: str
) -> None:
    name = rig.make()
    before = rig.see(name)
    rig.lab.fail(method, **PLACEMENT[method])
    with pytest.raises(PowerError) as caught:
        enable(rig, journal, name)
    assert PLACEMENT[method]["fault"] in caught.value.evidence
    assert PLACEMENT[method]["message"] in caught.value.evidence
    assert rig.see(name).stored == before.stored
    assert rig.see(name).running


def test_drs_that_only_recommends_is_followed(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    rig.lab.drs_manual()
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.lab.counts()["ApplyRecommendation"] == 1


def test_vm_without_tools_is_not_cut_off_unless_force_is_allowed(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(tools=False)
    before = rig.see(name)
    with pytest.raises(PowerError) as caught:
        enable(rig, journal, name)
    assert "--force-off" in caught.value.cure
    assert rig.see(name) == before
    manner = Manner(consent=agree, force_off=True)
    result = engine.reach(session(rig, journal, name, timeout=5), ON, manner)
    assert result.conclusion is Status.UNKNOWN
    assert found(result, "vm-agent").status is Status.WARN
    assert rig.see(name).nested


def test_missing_privilege_is_named_before_anything_is_touched(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make()
    before = rig.see(name)
    rig.lab.privileges("VirtualMachine.Interact.PowerOn", "VirtualMachine.Interact.PowerOff")
    finding = found(enable(rig, journal, name), "vm-permission")
    assert "VirtualMachine.Config" in finding.evidence
    assert finding.cure
    rig.lab.privileges("VirtualMachine.Config.Settings", "VirtualMachine.Config.AdvancedConfig")
    finding = found(check(rig, journal, name), "vm-power-permission")
    assert "VirtualMachine.Interact.PowerOff" in finding.evidence
    assert rig.see(name) == before


@pytest.mark.parametrize("what", ["a key", "the hardware"])
def test_missing_privilege_of_what_is_rare_is_named_before_the_shutdown(
    rig: VSphereRig, journal: Journal, what: str
) -> None:
    cases: dict[str, tuple[str, dict[str, Any], Goal]] = {
        "a key": ("AdvancedConfig", {"key": "FALSE"}, ON),
        "the hardware": ("UpgradeVirtualHardware", {"hardware": "vmx-08"}, Goal(upgrade="vmx-13")),
    }
    missing, vm, goal = cases[what]
    name = rig.make(**vm)
    before = rig.see(name)
    rig.lab.privileges(*(privilege for privilege in ENOUGH if missing not in privilege))
    result = enable(rig, journal, name, goal)
    assert f"VirtualMachine.Config.{missing}" in found(result, "vm-permission").cure
    assert rig.see(name) == before


@pytest.mark.parametrize(
    ("was", "is_to_be"), [({}, ON), ({"nested": True, "key": "TRUE"}, OFF)], ids=["enable", "disable"]
)
def test_right_to_undo_that_is_missing_is_named_before_the_shutdown(
    rig: VSphereRig, journal: Journal, was: dict[str, Any], is_to_be: Goal
) -> None:
    """The key is what is taken out so that nothing is set, and what a disable has to give back."""
    name = rig.make(**({"nested": None} | was))
    run = journal.find(engine.reach(session(rig, journal, name), is_to_be, MANNER).run)
    before = rig.see(name)
    rig.lab.clear()
    rig.lab.privileges(*(privilege for privilege in ENOUGH if "AdvancedConfig" not in privilege))
    result = engine.undo(session(rig, journal, name), run, MANNER)
    assert [f.check for f in result.blockers] == ["vm-permission"]
    assert "VirtualMachine.Config.AdvancedConfig" in result.blockers[0].cure
    assert (rig.see(name), journal.find(run.id).outcome) == (before, "applied")
    assert "ShutdownGuest" not in rig.lab.counts()
    rig.lab.privileges(*ENOUGH)
    assert engine.undo(session(rig, journal, name), run, MANNER).conclusion is Status.PASS


@pytest.mark.parametrize("running", [True, False])
def test_free_esxi_whose_api_only_reads_is_told_so(esxi: VSphere, journal: Journal, running: bool) -> None:
    rig = EsxiRig(esxi)
    name = rig.make(running=running)
    before = rig.see(name)
    words = "Current license or ESXi version prohibits execution of the requested operation."
    for method in ("ShutdownGuest", "ReconfigVM_Task"):
        esxi.fail(method, "RestrictedVersion", message=words, times=5)
    with pytest.raises(Error) as caught:
        enable(rig, journal, name)
    assert words in caught.value.evidence
    assert "free ESXi" in caught.value.cure
    assert rig.see(name) == before


def test_compressed_answer_is_neither_asked_for_nor_taken(rig: VSphereRig, journal: Journal) -> None:
    """A few bytes of it could become more than any memory holds."""
    name = rig.make()
    rig.lab.break_at("RetrievePropertiesEx", "packed", times=2)
    with pytest.raises(ConnectionFailed, match="not as vSphere does") as caught:
        check(rig, journal, name)
    assert "gzip" in caught.value.evidence
    assert "that take gzip" not in rig.lab.counts()


def test_refusal_that_nobody_could_see_coming_names_the_privilege(rig: VSphereRig, journal: Journal) -> None:
    name = rig.make(running=False)
    denied: dict[str, Any] = {
        "object": {"type": "VirtualMachine", "value": "vm-1"},
        "privilegeId": "VirtualMachine.Config.CPUCount",
    }
    rig.lab.fail("ReconfigVM_Task", "NoPermission", **denied)
    with pytest.raises(ChangeRejected) as caught:
        enable(rig, journal, name)
    assert "VirtualMachine.Config.CPUCount" in f"{caught.value.evidence} {caught.value.cure}"
    assert not rig.see(name).nested


@pytest.mark.parametrize("when", ["before", "after", "half", "garbled"])
@pytest.mark.parametrize(
    "method", ["ReconfigVM_Task", "ShutdownGuest", "PowerOnMultiVM_Task", "RetrievePropertiesEx"]
)
def test_connection_that_breaks_at_a_request_loses_nothing(
    rig: VSphereRig, journal: Journal, method: str, when: str
) -> None:
    """Whether the request was done is found out, and it is not done twice where that would hurt."""
    name = rig.make()
    rig.lab.break_at(method, when)
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.see(name).nested
    assert rig.see(name).running


@pytest.mark.parametrize("method", ["ReconfigVM_Task", "PowerOnMultiVM_Task"])
def test_page_of_somebody_else_in_place_of_an_answer_loses_nothing(
    rig: VSphereRig, journal: Journal, method: str
) -> None:
    """It is XML, and pyvmomi takes it for an answer with nothing in it."""
    name = rig.make()
    rig.lab.break_at(method, "foreign")
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert rig.see(name).nested
