"""What a vSphere VM's facts mean: one row a situation, findings and a plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nestvirt.backends.vsphere.facts import CHECKS, VmFacts
from nestvirt.backends.vsphere.setting import Nesting
from nestvirt.backends.vsphere.situation import Host
from nestvirt.model import Change, ColdBoot, Goal, Power, Status
from nestvirt.plan import make_plan

RIGHTS = frozenset(
    {
        "VirtualMachine.Config.AdvancedConfig",
        "VirtualMachine.Config.Settings",
        "VirtualMachine.Config.UpgradeVirtualHardware",
        "VirtualMachine.Interact.PowerOff",
        "VirtualMachine.Interact.PowerOn",
    }
)
LAME = Host("esx-old", nested=False)
RUNNING = VmFacts(
    name="web-01",
    who="ops@vsphere.local",
    guest_user="root",
    power=Power.RUNNING,
    connection="connected",
    readable=True,
    template=False,
    hardware="vmx-19",
    change_version="1",
    nesting=Nesting(False),
    capable=True,
    vbs=False,
    fault_tolerance="notConfigured",
    passthrough=(),
    question="",
    required=frozenset({"cpuid.SSE3"}),
    boot="2026-11-29",
    guest_id="debian12_64Guest",
    memory_snapshots=(),
    tools=True,
    privileges=RIGHTS,
    host=Host("esx1", nested=True),
    peers=(Host("esx2", nested=True),),
)
NESTED = replace(RUNNING, nesting=Nesting(True))
OLD = replace(RUNNING, hardware="vmx-08", capable=False)
BY_KEY = replace(RUNNING, nesting=Nesting(None, "vhv.enable", "TRUE"))
ON, OFF, UPGRADE = Goal(), Goal(nested=False), Goal(upgrade="vmx-13")
FORMER = Change("nestedHVEnabled", None, "true")

GOOD = {"host-nested-hv": "pass", "vm-cpu": "pass", "vm-agent": "pass"}
WITHDRAWN = {"vm-cpu": "pass", "vm-agent": "pass"}
ILL = {"vm-cpu": "fail"}


@dataclass(frozen=True)
class Row:
    """One situation, and what has to be said of it.

    Attributes:
        found: every finding: check id to status.
        after: the value of nestedHVEnabled that is planned; ... for no change.
        blocks: the checks that stand against the plan.
    """

    facts: VmFacts
    found: dict[str, str]
    after: object = ...
    blocks: tuple[str, ...] = ()
    goal: Goal = ON
    cold_boot: bool = False


def blocked(check: str, facts: VmFacts, goal: Goal = ON, **more: str) -> Row:
    """Nothing but that check stands against the usual plan."""
    found = {**(GOOD if goal.nested else WITHDRAWN), **ILL, check: "fail", **more}
    return Row(facts, found, "true" if goal.nested else "false", (check,), goal)


ROWS = {
    "off, to be on": Row(RUNNING, GOOD | ILL, "true"),
    "unset, to be on": Row(replace(RUNNING, nesting=Nesting()), GOOD | ILL, "true"),
    "on already": Row(NESTED, GOOD),
    "on by the key alone": Row(replace(BY_KEY, required=frozenset()), GOOD),
    "the key alone is off": Row(
        replace(RUNNING, nesting=Nesting(None, "VHV.Enable", "false"), required=frozenset()),
        GOOD | ILL,
        "true, VHV.Enable=TRUE",
    ),
    "the key contradicts": Row(
        replace(NESTED, nesting=Nesting(True, "vhv.enable", "FALSE")),
        GOOD | ILL,
        "true, vhv.enable=TRUE",
    ),
    "the key contradicts, to be off": Row(
        replace(NESTED, nesting=Nesting(False, "vhv.enable", "TRUE")),
        WITHDRAWN | ILL,
        "false, vhv.enable=FALSE",
        goal=OFF,
    ),
    "the key was set while it ran": Row(BY_KEY, GOOD | {"vm-cpu-pending": "fail"}, cold_boot=True),
    "and it was power-cycled": Row(replace(BY_KEY, required=frozenset({"cpuid.VMX", "cpuid.SSE3"})), GOOD),
    "the key was set while it was off": Row(
        replace(BY_KEY, power=Power.STOPPED, tools=False, required=frozenset()), GOOD
    ),
    "the key was cleared while it ran": Row(
        replace(BY_KEY, nesting=Nesting(None, "vhv.enable", "FALSE"), required=frozenset({"hv.capable"})),
        WITHDRAWN | {"vm-cpu-pending": "fail"},
        goal=OFF,
        cold_boot=True,
    ),
    "on, to be off": Row(NESTED, WITHDRAWN | ILL, "false", goal=OFF),
    "off already": Row(RUNNING, WITHDRAWN, goal=OFF),
    "to be off as it was": Row(NESTED, WITHDRAWN | ILL, None, goal=replace(OFF, former=FORMER)),
    "to be off, and changed since": Row(
        NESTED,
        WITHDRAWN | ILL,
        "false",
        goal=replace(OFF, former=replace(FORMER, after="true, vhv.enable=TRUE")),
    ),
    "the key alone, to be off": Row(
        replace(BY_KEY, required=frozenset()), WITHDRAWN | ILL, "vhv.enable=FALSE", goal=OFF
    ),
    "host cannot": blocked("host-nested-hv", replace(RUNNING, host=replace(LAME), capable=False)),
    "host is not to be read": Row(
        replace(RUNNING, host=None, peers=()), GOOD | ILL | {"host-nested-hv": "unknown"}, "true"
    ),
    "host does not tell": Row(
        replace(RUNNING, host=Host("esx1")), GOOD | ILL | {"host-nested-hv": "unknown"}, "true"
    ),
    "host does not matter to disable": Row(replace(NESTED, host=LAME), WITHDRAWN | ILL, "false", goal=OFF),
    "vSphere says the VM cannot": blocked("vm-nested-hv", replace(RUNNING, capable=False)),
    "its host is gone": blocked("vm-connected", replace(RUNNING, connection="disconnected")),
    "nothing is to be read": Row(
        replace(RUNNING, readable=False, nesting=Nesting(), hardware=""),
        GOOD | {"vm-connected": "fail", "vm-cpu": "unknown"},
        blocks=("vm-connected",),
    ),
    "a template": blocked("vm-template", replace(RUNNING, template=True, power=Power.STOPPED, tools=False)),
    "suspended": blocked("vm-suspended", replace(RUNNING, power=Power.SUSPENDED, tools=False)),
    "it asks": blocked("vm-question", replace(RUNNING, question="msg.uuid.altered: moved or copied?")),
    "Fault Tolerance": blocked("vm-fault-tolerance", replace(RUNNING, fault_tolerance="running")),
    "Fault Tolerance, nothing to do": Row(replace(RUNNING, fault_tolerance="running"), WITHDRAWN, goal=OFF),
    "a GPU": blocked("vm-passthrough", replace(RUNNING, passthrough=("PCI device 0",))),
    "VBS, to be off": blocked("vm-vbs", replace(NESTED, vbs=True), OFF),
    "VBS, to be on": Row(replace(RUNNING, vbs=True), GOOD | ILL, "true"),
    "too old": blocked("vm-hardware-version", OLD),
    "too old, and may be raised": Row(
        OLD,
        GOOD | ILL | {"vm-hardware-version": "fail", "vm-hardware-upgrade": "warn"},
        "true",
        goal=UPGRADE,
    ),
    "new enough, and might be raised": Row(
        RUNNING, GOOD | ILL | {"vm-hardware-version": "pass"}, "true", goal=UPGRADE
    ),
    "the oldest that will do": Row(replace(RUNNING, hardware="vmx-09"), GOOD | ILL, "true"),
    "no right to change": blocked(
        "vm-permission", replace(RUNNING, privileges=RIGHTS - {"VirtualMachine.Config.Settings"})
    ),
    "no right to stop": blocked(
        "vm-power-permission", replace(RUNNING, privileges=RIGHTS - {"VirtualMachine.Interact.PowerOff"})
    ),
    "no rights needed": Row(replace(NESTED, privileges=frozenset({"System.Read"})), GOOD),
    "rights unknown": Row(replace(RUNNING, privileges=None), GOOD | ILL, "true"),
    "a peer cannot": Row(
        replace(NESTED, peers=(LAME, Host("esx2", nested=True))), GOOD | {"vm-migration": "warn"}
    ),
    "a snapshot with memory": Row(
        replace(NESTED, memory_snapshots=("before",)), GOOD | {"vm-snapshot-memory": "warn"}
    ),
    "no Tools": Row(replace(NESTED, tools=False), GOOD | {"vm-agent": "warn"}),
    "no guest user": Row(replace(NESTED, guest_user=""), GOOD | {"vm-agent": "warn"}),
    "Windows": Row(replace(NESTED, guest_id="windows2019srv_64Guest"), GOOD | {"vm-agent": "warn"}),
}


@pytest.mark.parametrize("name", ROWS)
def test_situation(name: str) -> None:
    row = ROWS[name]
    findings = row.facts.judge(row.goal)
    plan = make_plan(findings)
    assert {f.check: str(f.status) for f in findings} == row.found
    assert len(findings) == len(row.found)
    changes = {change.setting: change for change in plan.changes}
    change = changes.pop("nestedHVEnabled", None)
    assert (... if change is None else change.after) == row.after
    assert change is None or change.before == row.facts.value("nestedHVEnabled")
    assert [c.after for c in changes.values()] == (
        [row.goal.upgrade] if row.facts is OLD and row.goal.upgrade else []
    )
    assert tuple(f.check for f in plan.blockers) == row.blocks
    assert plan.cold_boot is row.cold_boot
    assert all(f.evidence for f in findings)
    assert all(f.cure for f in findings if f.ill)


def test_every_check_is_in_a_row() -> None:
    assert {check for row in ROWS.values() for check in row.found} == set(CHECKS)


def test_the_version_is_raised_before_the_setting_is_written() -> None:
    changes = make_plan(OLD.judge(UPGRADE)).changes
    assert changes == (
        Change("config.version", "vmx-08", "vmx-13"),
        Change("nestedHVEnabled", "false", "true"),
    )
    assert [change.lasts for change in changes] == [True, False]
    [warning] = [f for f in OLD.judge(UPGRADE) if f.check == "vm-hardware-upgrade"]
    assert "cannot be undone" in warning.evidence


def test_what_is_raised_already_needs_no_change() -> None:
    raised = replace(OLD, hardware="vmx-13", nesting=Nesting(True), capable=True)
    assert make_plan(raised.judge(UPGRADE)).empty


@pytest.mark.parametrize(
    ("peers", "said"), [((Host("esx2", nested=True),), "migrate the VM to esx2"), ((), "firmware")]
)
def test_a_host_that_cannot_is_cured_by_one_that_can(peers: tuple[Host, ...], said: str) -> None:
    [first, *_] = replace(RUNNING, host=LAME, peers=peers).judge(ON)
    assert (first.check, first.status) == ("host-nested-hv", Status.FAIL)
    assert said in first.cure


def test_a_host_in_maintenance_mode_is_no_cure() -> None:
    peers = (Host("esx2", nested=True, usable=False),)
    [first, *_] = replace(RUNNING, host=LAME, peers=peers).judge(ON)
    assert "esx2" not in first.cure


def test_pending_names_what_was_read() -> None:
    [pending] = [f for f in BY_KEY.judge(ON) if f.check == "vm-cpu-pending"]
    assert "featureRequirement" in pending.evidence
    assert pending.fix == ColdBoot()


def test_windows_is_not_told_by_systeminfo() -> None:
    [agent] = [
        f for f in replace(NESTED, guest_id="windows2019srv_64Guest").judge(ON) if f.check == "vm-agent"
    ]
    assert "start a VM inside" in agent.cure
    assert "systeminfo" not in agent.cure
