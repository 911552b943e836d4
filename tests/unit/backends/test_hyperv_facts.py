"""What a Hyper-V VM's facts mean: one row a situation, findings and a plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nestvirt.backends.hyperv.facts import CHECKS, VmFacts
from nestvirt.backends.hyperv.situation import SHUTDOWN_SERVICE, Checkpoint, Service
from nestvirt.model import Change, Goal, Power, Status
from nestvirt.plan import make_plan
from tests.unit.backends.hyperv_situations import (
    ADAPTER,
    AMD,
    DYNAMIC,
    INTEL,
    NESTED,
    OFF,
    ON,
    ROLE,
    RUNNING,
    SAVED,
    of,
    versioned,
    vm,
)

EXPOSE = "ExposeVirtualizationExtensions"
SPOOFING = f"MacAddressSpoofing:{ADAPTER}"
GOOD = {
    "host-hypervisor-role": "pass",
    "host-build": "pass",
    "vm-version": "pass",
    "vm-cpu": "pass",
    "vm-mac-spoofing": "skip",
    "vm-agent": "pass",
}
USUAL = {**GOOD, "vm-cpu": "fail"}
DISCARD, SPOOF, UPGRADE = (
    Goal(discard_saved_state=True),
    Goal(mac_spoofing=True),
    Goal(upgrade_version=True),
)
SPOOFED = vm(settings={SPOOFING: "On"}, adapters=(replace(RUNNING.adapters[0], spoofing=True),))


CHECKPOINTS = (Checkpoint("while it ran", saved=True), Checkpoint("before update"))


@dataclass(frozen=True)
class Row:
    """One situation, and what has to be said of it.

    Attributes:
        found: what is said beside the usual, or otherwise: check id to status; None for not said.
        plan: the settings that are planned, in order.
        blocks: the checks that stand against the plan.
    """

    facts: VmFacts
    found: dict[str, str | None]
    plan: tuple[str, ...] = (EXPOSE,)
    blocks: tuple[str, ...] = ()
    goal: Goal = ON


def blocked(check: str, facts: VmFacts, plan: tuple[str, ...] = (EXPOSE,), **more: str) -> Row:
    """That check stands against the plan."""
    return Row(facts, {check: "fail", **{k.replace("_", "-"): v for k, v in more.items()}}, plan, (check,))


QUIET: dict[str, str | None] = {check: None for check in GOOD if check not in ("vm-cpu", "vm-agent")}
ROWS = {
    "as usual": Row(RUNNING, {}),
    "nothing to do": Row(NESTED, {"vm-cpu": "pass"}, ()),
    "to be withdrawn": Row(NESTED, QUIET, goal=OFF),
    "withdrawn": Row(RUNNING, {**QUIET, "vm-cpu": "pass"}, (), goal=OFF),
    "off": Row(vm(state="Off"), {}),
    "hypervisor off": blocked("host-hypervisor-role", vm(host=replace(INTEL, hypervisor=False))),
    "hypervisor not to be known": Row(vm(host=replace(INTEL, hypervisor=None, vbs=None)), {}),
    "VBS on the host": Row(vm(host=replace(INTEL, vbs=True)), {}),
    "Server 2016": Row(vm(host=replace(INTEL, build=14393)), {}),
    "the first build": Row(
        vm(host=replace(INTEL, build=10565)),
        {"vm-vbs-opt-out": "fail"},
        ("VirtualizationBasedSecurityOptOut", EXPOSE),
    ),
    "too old a build": blocked(
        "host-build",
        vm(host=replace(INTEL, build=10240), settings={EXPOSE: None}),
        (),
        vm_cpu="unknown",
    ),
    "opted out already": Row(
        vm(host=replace(INTEL, build=14300), settings={"VirtualizationBasedSecurityOptOut": "true"}), {}
    ),
    "AMD": Row(vm(host=AMD), {}),
    "AMD on Server 2019": blocked("host-build", vm(host=replace(AMD, build=17763))),
    "AMD on Windows 11": Row(vm(host=replace(AMD, build=22000)), {}),
    "another CPU": Row(vm(host=replace(INTEL, cpu_vendor="Qualcomm")), {"host-build": "unknown"}),
    "no build": Row(vm(host=replace(INTEL, build=0)), {"host-build": "unknown"}),
    "version 8.0 on Intel": Row(versioned("8.0"), {}),
    "version 5.0 on Intel": blocked("vm-version", versioned("5.0")),
    "version 9.2 on AMD": blocked("vm-version", versioned("9.2", AMD)),
    "version 9.3 on AMD": Row(versioned("9.3", AMD), {"vm-version": "warn"}),
    "version 10.0 on AMD": Row(versioned("10.0", AMD), {}),
    "no version": Row(versioned(""), {"vm-version": "unknown"}),
    "version to be raised": Row(
        versioned("5.0"),
        {"vm-version": "fail", "vm-version-upgrade": "warn"},
        ("Version", EXPOSE),
        goal=UPGRADE,
    ),
    "version new enough to be left": Row(RUNNING, {}, goal=UPGRADE),
    "version that the host cannot raise": Row(
        versioned("5.0", replace(INTEL, version="5.0")),
        {"vm-version": "fail"},
        (EXPOSE,),
        ("vm-version",),
        UPGRADE,
    ),
    "version of a host that tells none": Row(
        versioned("5.0", replace(INTEL, version="")),
        {"vm-version": "fail"},
        (EXPOSE,),
        ("vm-version",),
        UPGRADE,
    ),
    "dynamic memory": Row(
        vm(settings={"DynamicMemoryEnabled": DYNAMIC}),
        {"vm-dynamic-memory": "fail"},
        ("DynamicMemoryEnabled", EXPOSE),
    ),
    "dynamic memory, nesting": Row(
        vm(NESTED, settings={"DynamicMemoryEnabled": DYNAMIC}),
        {"vm-cpu": "pass", "vm-dynamic-memory": "fail"},
        ("DynamicMemoryEnabled",),
    ),
    "little memory": Row(vm(memory=2 << 30), {"vm-memory": "warn"}),
    "saved": Row(SAVED, {"vm-suspended": "fail"}, (EXPOSE,), ("vm-suspended",)),
    "saved, to be discarded": Row(
        SAVED,
        {"vm-suspended": "fail", "vm-saved-state": "warn"},
        ("SavedState", EXPOSE),
        goal=DISCARD,
    ),
    "nothing saved to be discarded": Row(RUNNING, {}, goal=DISCARD),
    "storage away, off": blocked("vm-storage", vm(state="OffCritical")),
    "storage away, running": blocked("vm-storage", vm(state="RunningCritical")),
    "storage away, saved": Row(
        vm(SAVED, state="SavedCritical"),
        {"vm-storage": "fail", "vm-suspended": "fail", "vm-saved-state": "warn"},
        ("SavedState", EXPOSE),
        ("vm-storage",),
        DISCARD,
    ),
    "paused": Row(vm(state="Paused"), {"vm-suspended": "fail"}, (EXPOSE,), ("vm-suspended",), DISCARD),
    "spoofing asked for": Row(RUNNING, {"vm-mac-spoofing": "fail"}, (EXPOSE, SPOOFING), goal=SPOOF),
    "spoofing on": Row(SPOOFED, {"vm-mac-spoofing": "pass"}),
    "no adapter": Row(vm(adapters=()), {"vm-mac-spoofing": None}),
    "dynamic memory that its guest uses": Row(
        vm(settings={"DynamicMemoryEnabled": DYNAMIC}, used=12 << 30),
        {"vm-dynamic-memory": "fail", "vm-memory": "warn"},
        ("DynamicMemoryEnabled", EXPOSE),
    ),
    "memory of which its guest wants more": Row(vm(used=12 << 30), {}),
    "version to be raised, with checkpoints": Row(
        replace(versioned("5.0"), checkpoints=CHECKPOINTS[1:]),
        {"vm-version": "fail", "vm-version-upgrade": "warn", "vm-checkpoints": "warn"},
        ("Version", EXPOSE),
        goal=UPGRADE,
    ),
    "version to be raised, with saved checkpoints": Row(
        replace(versioned("5.0"), checkpoints=CHECKPOINTS),
        {"vm-version": "fail", "vm-version-upgrade": "fail", "vm-checkpoints": "warn"},
        ("Version", EXPOSE),
        ("vm-version-upgrade",),
        UPGRADE,
    ),
    "version to be raised, with saved checkpoints to lose": Row(
        replace(versioned("5.0"), checkpoints=CHECKPOINTS),
        {"vm-version": "fail", "vm-version-upgrade": "warn", "vm-checkpoints": "warn"},
        ("Version", EXPOSE),
        goal=replace(UPGRADE, discard_saved_state=True),
    ),
    "hibernated": Row(
        vm(state="Hibernated"), {"vm-suspended": "fail"}, (EXPOSE,), ("vm-suspended",), DISCARD
    ),
    "checkpoints": Row(vm(checkpoints=CHECKPOINTS), {"vm-checkpoints": "warn"}),
    "checkpoints of Hyper-V's own": Row(vm(checkpoints=(Checkpoint("x", automatic=True),)), {}),
    "saved where its host shuts down": Row(vm(stop_action="Save"), {"vm-stop-action": "warn"}),
    "saved where its host shuts down, to be withdrawn": Row(vm(NESTED, stop_action="Save"), QUIET, goal=OFF),
    "its cluster's to stop": Row(vm(stop_action="Save", group=ROLE), {"vm-clustered": "warn"}),
    "a replica": blocked("vm-replica", vm(state="Off", replication="Replica")),
    "an extended replica": blocked("vm-replica", vm(state="Off", replication="ExtendedReplica")),
    "replicated": Row(vm(replication="Primary"), {"vm-replica": "warn"}),
    "a replica that nests": Row(vm(NESTED, replication="Replica"), {"vm-cpu": "pass"}, ()),
    "clustered": Row(vm(group=ROLE), {"vm-clustered": "warn"}),
    "clustered, to be withdrawn": Row(vm(NESTED, group=ROLE), {**QUIET, "vm-clustered": "pass"}, goal=OFF),
    "clustered, role hidden": blocked("vm-clustered", vm(group=replace(ROLE, name="", cluster=""))),
    "clustered, role hidden, off": Row(
        vm(state="Off", group=replace(ROLE, name="")), {"vm-clustered": "warn"}
    ),
    "no shutdown service": Row(vm(services={}), {"vm-shutdown-service": "warn"}),
    "shutdown service off": Row(
        vm(services={SHUTDOWN_SERVICE: Service(False, "Ok")}), {"vm-shutdown-service": "warn"}
    ),
    "shutdown service silent": Row(
        vm(services={SHUTDOWN_SERVICE: Service(True, "NoContact")}), {"vm-shutdown-service": "warn"}
    ),
    "shutdown not needed": Row(vm(NESTED, services={}), {"vm-cpu": "pass"}, ()),
    "no guest user": Row(vm(guest_user=""), {"vm-agent": "warn"}),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_is_said_and_planned(row: Row) -> None:
    findings = row.facts.judge(row.goal)
    expected = {check: status for check, status in {**USUAL, **row.found}.items() if status is not None}
    assert {f.check: str(f.status) for f in findings} == expected
    plan = make_plan(findings)
    assert tuple(change.setting for change in plan.changes) == row.plan
    assert tuple(f.check for f in plan.blockers) == row.blocks
    assert all(f.evidence and f.cure for f in findings if f.ill)
    assert not plan.cold_boot


def test_every_question_is_asked_by_a_row() -> None:
    said = {finding.check for row in ROWS.values() for finding in row.facts.judge(row.goal)}
    assert said == set(CHECKS)


def test_dynamic_memory_goes_off_with_all_that_undo_needs_to_put_it_back() -> None:
    facts = vm(settings={"DynamicMemoryEnabled": DYNAMIC})
    [finding] = of(facts, "vm-dynamic-memory")
    assert finding.fix == Change("DynamicMemoryEnabled", DYNAMIC, "false, startup=8589934592")


def test_saved_state_names_its_option_and_what_it_costs() -> None:
    [finding] = of(SAVED, "vm-suspended")
    assert "--discard-saved-state" in finding.cure
    assert "lost" in finding.cure
    [finding] = of(SAVED, "vm-suspended", OFF)
    assert "--discard-saved-state" not in finding.cure
    [finding] = of(SAVED, "vm-suspended", DISCARD)
    assert finding.fix == Change("SavedState", "saved", None)


def test_version_names_its_option_and_that_nobody_can_undo_it() -> None:
    [finding] = of(versioned("5.0"), "vm-version")
    assert "--upgrade-version" in finding.cure
    assert "cannot be undone" in finding.cure
    [finding] = of(versioned("5.0"), "vm-version", UPGRADE)
    assert finding.fix == Change("Version", "5.0", "10.0")
    [finding] = of(versioned("9.3", AMD), "vm-version", UPGRADE)
    assert (finding.fix, finding.status) == (Change("Version", "9.3", "10.0"), Status.WARN)


def test_raising_a_version_names_the_checkpoints_that_lose_their_memory_and_its_option() -> None:
    facts = replace(versioned("5.0"), checkpoints=CHECKPOINTS)
    for goal in (UPGRADE, replace(UPGRADE, discard_saved_state=True)):
        [finding] = of(facts, "vm-version-upgrade", goal)
        assert "while it ran" in finding.evidence
        assert "before update" not in finding.evidence
    [finding] = of(facts, "vm-version-upgrade", UPGRADE)
    assert "--discard-saved-state" in finding.cure


def test_memory_that_will_be_missing_is_named_with_its_size() -> None:
    [finding] = of(vm(settings={"DynamicMemoryEnabled": DYNAMIC}, used=12 << 30), "vm-memory")
    assert "uses 12288 MB now, and will have the 8192 MB" in finding.evidence
    assert "-StartupBytes 12288MB" in finding.cure
    [finding] = of(vm(memory=2 << 30), "vm-memory")
    assert "-StartupBytes 4096MB" in finding.cure


def test_hibernated_vm_has_a_cure_that_hyper_v_takes() -> None:
    [finding] = of(vm(state="Hibernated"), "vm-suspended", DISCARD)
    assert finding.cure.startswith("start it")


def test_cluster_is_told_what_nesting_takes_from_it() -> None:
    [finding] = of(vm(group=ROLE), "vm-clustered")
    assert "no live migration" in finding.evidence


def test_every_closed_adapter_is_a_change_of_its_own() -> None:
    two = tuple(replace(RUNNING.adapters[0], id=name, name=name, spoofing=name == "C") for name in "ABC")
    fixes = [finding.fix for finding in of(vm(adapters=two), "vm-mac-spoofing", SPOOF)]
    assert fixes == [Change(f"MacAddressSpoofing:{name}", "Off", "On") for name in "AB"]


@pytest.mark.parametrize(
    ("state", "power"),
    [
        ("Off", Power.STOPPED),
        ("OffCritical", Power.STOPPED),
        ("Running", Power.RUNNING),
        ("RunningCritical", Power.RUNNING),
        ("Starting", Power.RUNNING),
        ("Stopping", Power.RUNNING),
        ("Saved", Power.SUSPENDED),
        ("FastSaved", Power.SUSPENDED),
        ("SavedCritical", Power.SUSPENDED),
        ("Saving", Power.SUSPENDED),
        ("Paused", Power.SUSPENDED),
        ("PausedCritical", Power.SUSPENDED),
    ],
)
def test_states(state: str, power: Power) -> None:
    assert vm(state=state).power is power
