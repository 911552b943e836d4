"""Where Hyper-V does not let a VM nest, only says that it does, or loses what it had."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nestvirt import engine
from nestvirt.engine import Manner, Step
from nestvirt.errors import ChangeRejected, PowerError
from nestvirt.journal import Journal
from nestvirt.model import Change, Goal, Power, Report, Status
from tests.contract.basis import MANNER, OFF, ON, agree
from tests.contract.runs import check, enable, found, session
from tests.peers.hyperv import Adapter
from tests.peers.hyperv.model import GIB, MIB, SHUTDOWN
from tests.peers.hyperv_rig import HyperVRig

DISCARD, UPGRADE, SPOOF = (
    Goal(discard_saved_state=True),
    Goal(upgrade_version=True),
    Goal(mac_spoofing=True),
)
INTEL = {"vendor": "GenuineIntel"}
DYNAMIC: dict[str, Any] = {"dynamic": True, "minimum": 768 * MIB, "startup": 4 * GIB, "maximum": 12 * GIB}
BLOCKED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "AMD on Windows Server 2019": ("host-build", {"build": 17763, "version": "9.0"}, {"version": "9.0"}),
    "a build before nesting": ("host-build", {"build": 10240, **INTEL}, {"expose": None}),
    "Windows Server 2012 R2": ("host-build", {"build": 9600, **INTEL}, {}),
    "the hypervisor is off": ("host-hypervisor-role", {"hypervisor": False}, {}),
    "an old version on Intel": ("vm-version", INTEL, {"version": "5.0"}),
    "an old version on AMD": ("vm-version", {}, {"version": "9.2"}),
    "saved": ("vm-suspended", {}, {"state": "Saved"}),
    "saved fast": ("vm-suspended", {}, {"state": "FastSaved"}),
    "its storage is away": ("vm-storage", {}, {"state": "OffCritical"}),
    "hibernated": ("vm-suspended", {}, {"state": "Hibernated"}),
    "paused": ("vm-suspended", {}, {"state": "Paused"}),
    "a replica": ("vm-replica", {}, {"replication": "Replica"}),
}


@pytest.fixture
def rig(hyperv: HyperVRig) -> HyperVRig:
    return hyperv


def set_host(rig: HyperVRig, **about: Any) -> None:
    for name, value in about.items():
        setattr(rig.host, name, value)


def undo(rig: HyperVRig, journal: Journal, name: str, run: str | None) -> Report:
    return engine.undo(session(rig, journal, name), journal.find(run), MANNER)


@pytest.mark.parametrize("ill", BLOCKED)
def test_what_excludes_nesting_is_said_with_its_cure_and_nothing_is_touched(
    rig: HyperVRig, journal: Journal, ill: str
) -> None:
    check_id, host, machine = BLOCKED[ill]
    set_host(rig, **host)
    name = rig.make(running=False)
    for field, value in machine.items():
        setattr(rig.machine(name), field, value)
    before, state = rig.see(name), rig.machine(name).state
    result = enable(rig, journal, name)
    finding = found(result, check_id)
    assert (result.conclusion, finding.status) == (Status.FAIL, Status.FAIL)
    assert finding in result.blockers
    assert finding.evidence
    assert finding.cure
    offered = [f.cure for f in result.findings if f.fix is not None]
    assert all(cure.startswith(f"first mend {check_id}") and "; then: nestvirt" in cure for cure in offered)
    assert (rig.see(name), rig.machine(name).state) == (before, state)
    assert (journal.runs(), rig.host.log) == ([], [])


# --- what is done only when it was asked for


def test_saved_state_is_discarded_only_when_asked_and_the_vm_is_said_to_be_off(
    rig: HyperVRig, journal: Journal
) -> None:
    name = rig.make()
    rig.suspend(name)
    assert "--discard-saved-state" in found(enable(rig, journal, name), "vm-suspended").cure
    dry = engine.reach(session(rig, journal, name), DISCARD, Manner(consent=agree, dry_run=True))
    assert "discard the saved state and write ExposeVirtualizationExtensions" in dry.remains[0]
    assert "lost" in found(dry, "vm-saved-state").evidence
    assert rig.machine(name).state == "Saved"

    result = enable(rig, journal, name, DISCARD)
    assert [change.setting for change in result.changes] == ["SavedState", "ExposeVirtualizationExtensions"]
    assert "is off now, as its saved state is gone" in result.remains[0]
    assert (rig.machine(name).state, rig.machine(name).expose) == ("Off", True)

    undone = undo(rig, journal, name, result.run)
    said = {f.status: f for f in undone.findings if f.check == "vm-restored"}
    assert "ExposeVirtualizationExtensions is exactly" in said[Status.PASS].evidence
    assert "SavedState is gone" in said[Status.WARN].evidence
    assert said[Status.WARN].cure == "none: what was discarded is gone"
    assert (rig.machine(name).state, rig.machine(name).expose) == ("Off", False)


def test_failure_after_the_saved_state_is_gone_says_so(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make()
    rig.suspend(name)

    def meddle(step: Step, detail: str) -> None:
        if (step, detail) == (Step.APPLY, "ExposeVirtualizationExtensions"):
            rig.machine(name).state = "Running"

    with pytest.raises(ChangeRejected) as caught:
        engine.reach(session(rig, journal, name, tell=meddle), DISCARD, MANNER)
    assert "but for SavedState is gone" in caught.value.cure


def test_mac_spoofing_is_turned_on_only_when_asked_and_where_it_is_off(
    rig: HyperVRig, journal: Journal
) -> None:
    adapters = [Adapter("A", spoofing=True), Adapter("B"), Adapter("C")]
    name = rig.make(running=False, adapters=adapters)
    before = rig.see(name)
    plain = enable(rig, journal, name)
    assert found(plain, "vm-mac-spoofing").status is Status.SKIP
    assert [adapter.spoofing for adapter in adapters] == [True, False, False]

    result = enable(rig, journal, name, SPOOF)
    assert [change.setting for change in result.changes] == [
        f"MacAddressSpoofing:{adapter.id}" for adapter in adapters[1:]
    ]
    assert [adapter.spoofing for adapter in adapters] == [True, True, True]
    undo(rig, journal, name, result.run)
    assert [adapter.spoofing for adapter in adapters] == [True, False, False]
    undo(rig, journal, name, plain.run)
    assert rig.see(name) == before


# --- previews of Windows Server 2016


def test_preview_gets_its_opt_out_first_and_undo_takes_both_back(rig: HyperVRig, journal: Journal) -> None:
    set_host(rig, build=14300, version="8.0", **INTEL)
    name = rig.make(running=False, version="8.0")
    before = rig.see(name)
    result = enable(rig, journal, name)
    assert [change.setting for change in result.changes] == [
        "VirtualizationBasedSecurityOptOut",
        "ExposeVirtualizationExtensions",
    ]
    undo(rig, journal, name, result.run)
    assert rig.see(name) == before


# --- others at work


@pytest.mark.parametrize("field", ["expose", "dynamic"])
def test_write_finds_what_was_changed_since_the_plan(rig: HyperVRig, journal: Journal, field: str) -> None:
    name = rig.make(running=False, **DYNAMIC)

    def meddle(step: Step, detail: str) -> None:
        setting = {"expose": "ExposeVirtualizationExtensions", "dynamic": "DynamicMemoryEnabled"}[field]
        if (step, detail) == (Step.APPLY, setting):
            setattr(rig.machine(name), field, field == "expose")

    with pytest.raises(ChangeRejected, match="changed by somebody else"):
        engine.reach(session(rig, journal, name, tell=meddle), ON, MANNER)
    assert getattr(rig.machine(name), field) is (field == "expose")


def test_adapter_that_was_removed_is_no_adapter_to_write(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False)
    now = session(rig, journal, name)
    change = Change(f"MacAddressSpoofing:{rig.machine(name).adapters[0].id}", "Off", "On")
    rig.machine(name).adapters.clear()
    with pytest.raises(ChangeRejected):
        now.backend.apply(now.vm, change)
    rig.machine(name).adapters.append(Adapter())
    with pytest.raises(ChangeRejected):
        now.backend.apply(now.vm, replace(change, before=None))


def test_vm_that_is_removed_midway_is_said_to_be_gone(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(running=False)

    def remove(step: Step, _detail: str) -> None:
        if step is Step.APPLY:
            rig.host.machines.clear()

    with pytest.raises(Exception, match="is not there any more"):
        engine.reach(session(rig, journal, name, tell=remove), ON, MANNER)


def test_guest_that_cannot_be_asked_is_said_so_beforehand(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make()
    rig.machine(name).services[SHUTDOWN] = False
    before = rig.see(name)
    assert found(check(rig, journal, name), "vm-shutdown-service").status is Status.WARN
    with pytest.raises(PowerError, match="cannot be asked") as caught:
        enable(rig, journal, name)
    assert "--force-off" in caught.value.cure
    assert rig.see(name) == before
    forced = Manner(consent=agree, force_off=True)
    result = engine.reach(session(rig, journal, name), ON, forced)
    assert result.conclusion is Status.PASS


def test_start_that_fails_has_the_hosts_words(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(quirk="fragile")
    with pytest.raises(PowerError) as caught:
        enable(rig, journal, name)
    assert "failed to start" in caught.value.evidence
    assert "put back" in caught.value.cure


# --- a running VM of Windows'


def test_vm_with_vms_in_it_is_not_disabled(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make()
    assert enable(rig, journal, name).conclusion is Status.PASS
    before = rig.see(name)
    result = engine.reach(session(rig, journal, name), OFF, MANNER)
    assert [f.check for f in result.blockers] == ["guest-kvm-users"]
    assert rig.see(name) == before


def test_power_of_a_saved_vm_is_not_the_runs_to_give(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make()
    rig.suspend(name)
    run = journal.find(enable(rig, journal, name, DISCARD).run)
    assert run.power is Power.SUSPENDED
    assert not rig.see(name).running


def test_setting_that_is_taken_and_not_kept_is_put_back_and_said(
    rig: HyperVRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = rig.make()
    before = rig.see(name)
    monkeypatch.setattr(rig.host, "set_expose", lambda _machine, _on: None)
    with pytest.raises(ChangeRejected, match="does not hold it") as caught:
        enable(rig, journal, name)
    assert "put back" in caught.value.cure
    assert rig.see(name).stored == before.stored
    assert rig.see(name).running


def test_cluster_that_does_not_show_its_role_stops_a_run_before_anything_is_touched(
    rig: HyperVRig, journal: Journal
) -> None:
    rig.host.cluster = "HVC"
    name = rig.make(group="Online")
    rig.host.modules.discard("FailoverClusters")
    before = rig.see(name)
    result = enable(rig, journal, name)
    assert [f.check for f in result.blockers] == ["vm-clustered"]
    assert "RSAT-Clustering-PowerShell" in found(result, "vm-clustered").cure
    assert rig.see(name) == before


def test_cluster_that_brings_a_vm_back_by_itself_is_no_stop(rig: HyperVRig, journal: Journal) -> None:
    """What was turned off behind the cluster's back comes back: so its resource is taken offline at once."""
    rig.host.cluster, rig.host.restarts = "HVC", 0.5
    name = rig.make(group="Online", guest_deaf=True)
    forced = Manner(consent=agree, force_off=True)
    now = replace(session(rig, journal, name), timeout=1.0)
    assert engine.reach(now, ON, forced).conclusion is Status.PASS
    assert (rig.machine(name).role, rig.machine(name).received) == ("Online", True)
    assert [line.partition(" ")[0] for line in rig.host.log] == [
        "InitiateShutdown",
        "Stop-VM",
        "Stop-ClusterResource",
        "Set-VMProcessor",
        "Start-ClusterGroup",
    ]


def test_of_a_clustered_guest_that_shut_down_nothing_more_is_stopped(
    rig: HyperVRig, journal: Journal
) -> None:
    """Its role is then online in part; all of it offline, Hyper-V would have no such VM any more."""
    rig.host.cluster, rig.host.restarts = "HVC", 0.5
    name = rig.make(group="Online")
    now = session(rig, journal, name)
    now.backend.stop(now.vm, timeout=30)
    assert (rig.machine(name).state, rig.machine(name).role) == ("Off", "PartialOnline")
    assert rig.host.log == [f"InitiateShutdown {name}"]


def test_guest_that_shuts_down_already_is_waited_for(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(guest_slow=1.0)
    rig.host.shut_down(rig.machine(name))
    assert enable(rig, journal, name).conclusion is Status.PASS
    assert f"InitiateShutdown {name}" not in rig.host.log


def test_guest_with_a_locked_screen_is_asked_once_and_told_so(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(guest_locked=True)
    before = rig.see(name)
    with pytest.raises(PowerError) as caught:
        enable(rig, journal, name)
    assert "32781" in caught.value.evidence
    assert "Stop-VM with -Force" in caught.value.cure
    assert rig.see(name) == before


def test_state_that_was_saved_since_is_not_the_one_that_was_lost(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    rig.suspend(name)
    run = enable(rig, journal, name, DISCARD).run
    rig.suspend(name)
    [finding] = undo(rig, journal, name, run).findings
    assert (finding.check, finding.status) == ("vm-restored", Status.WARN)
    assert "SavedState is gone" in finding.evidence
