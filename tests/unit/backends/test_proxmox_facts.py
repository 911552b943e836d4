"""What a Proxmox VM's facts mean: one row a situation, findings and a plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nestvirt.backends.proxmox.facts import CHECKS, VmFacts, agent_enabled
from nestvirt.backends.proxmox.node import flag_report, version_of
from nestvirt.model import Change, Goal, Power, Status
from nestvirt.plan import make_plan
from tests.unit.backends.proxmox_situations import (
    AMD,
    ARM,
    INTEL,
    LOCKED,
    NODE,
    OLDER_AMD,
    RIGHTS,
    RUNNING,
    on,
    running,
    stopped,
)

GOOD = {"host-cpu": "pass", "host-nested": "pass", "vm-cpu": "pass", "vm-agent": "pass"}
WITHDRAWN = {"vm-cpu": "pass", "vm-agent": "pass"}
ILL, WARNED = {"vm-cpu": "fail"}, {"vm-cpu": "warn"}
ON, OFF = Goal(), Goal(nested=False)
OLD = replace(NODE, version=(8, 4, 1), offers_flag=False, nesting_nodes=None)
FORMER = Change("cpu", "kvm64,hidden=1", "host")


@dataclass(frozen=True)
class Row:
    """One situation, and what has to be said of it.

    Attributes:
        found: every finding: check id to status.
        after: the value that is planned; ... for no change.
        blocks: the checks that stand against the plan.
    """

    facts: VmFacts
    found: dict[str, str]
    after: object = ...
    cold_boot: bool = False
    blocks: tuple[str, ...] = ()
    goal: Goal = ON


def other(found: dict[str, str], check: str, status: str) -> dict[str, str]:
    return found | {check: status}


def blocked(facts: VmFacts, check: str, after: object = ..., cpu: str = "pass") -> Row:
    return Row(facts, GOOD | {"vm-cpu": cpu, check: "fail"}, after, blocks=(check,))


PARAMETER = {value: on(replace(NODE, nested=value), RUNNING) for value in ("Y", "1", "N", "0")}
HA_STUCK = replace(running("kvm64"), ha="error")
NO_RIGHT = replace(running("kvm64"), privileges=RIGHTS - {"VM.Config.CPU"})
NO_POWER = replace(running("kvm64"), privileges=RIGHTS - {"VM.PowerMgmt"})
CLUSTER = {"pve2": AMD, "pve3": INTEL}

ROWS = {
    "host": Row(RUNNING, GOOD),
    "max": Row(running("max"), GOOD),
    "host with sub-options": Row(running("host,flags=+pcid,hidden=1"), GOOD),
    "cputype spelled out": Row(running("cputype=host"), GOOD),
    "host that hides it": Row(running("host,flags=+pcid;-nested-virt"), GOOD | ILL, "host,flags=+pcid"),
    "wizard's default": Row(running("x86-64-v2-AES"), GOOD | ILL, "host"),
    "not set": Row(running(None), GOOD | ILL, "host"),
    "sub-options alone": Row(running("hidden=1"), GOOD | ILL, "host,hidden=1"),
    "named model without the flag": Row(running("EPYC"), GOOD | ILL, "host"),
    "named model with it": Row(running("EPYC,flags=+nested-virt"), GOOD),
    "generic model with it": Row(running("x86-64-v3,flags=+nested-virt"), GOOD | WARNED, "host"),
    "custom model": Row(running("custom-lab"), GOOD | WARNED),
    "custom model with the flag": Row(running("custom-lab,flags=+nested-virt"), GOOD),
    "other sub-options stay": Row(
        running("x86-64-v2-AES,flags=+pcid;-pdpe1gb,hidden=1"),
        GOOD | ILL,
        "host,flags=+pcid;-pdpe1gb,hidden=1",
    ),
    "off": Row(stopped("kvm64"), GOOD | ILL, "host"),
    # pending
    "pending host": Row(running("kvm64", "host"), GOOD | {"vm-cpu-pending": "fail"}, cold_boot=True),
    "pending removal": Row(running("host", None), GOOD | ILL, "host"),
    "pending of another option": Row(
        replace(running("kvm64"), pending={"memory": "4096"}),
        GOOD | ILL | {"vm-pending-others": "warn"},
        "host",
    ),
    "pending of another option, nothing to do": Row(replace(RUNNING, pending={"memory": "4096"}), GOOD),
    "pending on a stopped VM": Row(stopped("kvm64", "host"), GOOD),
    # what the user asks for
    "asked for a vendor's model": Row(
        running("kvm64,hidden=1"), GOOD | ILL, "EPYC,hidden=1,flags=+nested-virt", goal=Goal(cpu="EPYC")
    ),
    "asked for what is there": Row(running("EPYC,flags=+nested-virt"), GOOD, goal=Goal(cpu="EPYC")),
    "asked for another than host": Row(RUNNING, GOOD | ILL, "EPYC,flags=+nested-virt", goal=Goal(cpu="EPYC")),
    "asked for a model pending": Row(
        running("host", "EPYC,flags=+nested-virt"),
        GOOD | {"vm-cpu-pending": "fail"},
        cold_boot=True,
        goal=Goal(cpu="EPYC"),
    ),
    "asked for a custom one": Row(running("kvm64"), GOOD | ILL, "custom-x", goal=Goal(cpu="custom-x")),
    "asked for a generic one": Row(
        running("kvm64"),
        GOOD | ILL | {"vm-cpu-choice": "warn"},
        "x86-64-v3,flags=+nested-virt",
        goal=Goal(cpu="x86-64-v3"),
    ),
    **{
        f"asked for {cpu}": Row(
            running("kvm64"),
            GOOD | ILL | {"vm-cpu-choice": "fail"},
            after,
            blocks=("vm-cpu-choice",),
            goal=Goal(cpu=cpu),
        )
        for cpu, after in {
            "EPIC": "EPIC,flags=+nested-virt",
            "EPYC-Roma": "EPYC-Roma,flags=+nested-virt",
            "epyc": "epyc,flags=+nested-virt",
            "HOST": "HOST,flags=+nested-virt",
            "Skylake-Server": "Skylake-Server,flags=+nested-virt",
            "host,flags=+vmx": "host,flags=+vmx,flags=+nested-virt",
        }.items()
    },
    "asked for a model on an older node": Row(
        on(OLD, running("kvm64")),
        GOOD | ILL | {"vm-cpu-choice": "fail", "host-nested": "unknown"},
        "EPYC,flags=+nested-virt",
        blocks=("vm-cpu-choice",),
        goal=Goal(cpu="EPYC"),
    ),
    "asked for a generic one on an older node": Row(
        on(OLD, running("kvm64")),
        GOOD | ILL | {"vm-cpu-choice": "fail", "host-nested": "unknown"},
        "x86-64-v3,flags=+nested-virt",
        blocks=("vm-cpu-choice",),
        goal=Goal(cpu="x86-64-v3"),
    ),
    "asked for one that nestvirt does not know": Row(
        running("kvm64"),
        GOOD | ILL | {"vm-cpu-choice": "warn"},
        "Zhaoxin-KX,flags=+nested-virt",
        goal=Goal(cpu="Zhaoxin-KX"),
    ),
    # what stands against it
    "template": blocked(replace(stopped("kvm64"), template=True), "vm-template", "host", "fail"),
    "locked": blocked(replace(RUNNING, lock="backup"), "vm-lock"),
    "hibernated": blocked(replace(stopped("host"), lock="suspended"), "vm-suspended"),
    "paused": blocked(replace(RUNNING, qmp_status="paused"), "vm-suspended"),
    "prelaunch": blocked(replace(RUNNING, qmp_status="prelaunch"), "vm-suspended"),
    "not run by KVM": blocked(running("host", kvm="0"), "vm-type"),
    "Arm VM": blocked(running("host", arch="aarch64"), "vm-arch"),
    "HA is stuck": blocked(HA_STUCK, "vm-ha", "host", "fail"),
    "HA migrates": blocked(replace(running("kvm64"), ha="migrate"), "vm-ha", "host", "fail"),
    "HA is well": Row(replace(running("kvm64"), ha="started"), GOOD | ILL | {"vm-ha": "warn"}, "host"),
    "no right to change": blocked(NO_RIGHT, "vm-permission", "host", "fail"),
    "no right, and nothing to change": Row(replace(RUNNING, privileges=frozenset({"VM.Audit"})), GOOD),
    "no right to power": blocked(NO_POWER, "vm-power-permission", "host", "fail"),
    "no right to power, and off": Row(
        replace(stopped("kvm64"), privileges=RIGHTS - {"VM.PowerMgmt"}), GOOD | ILL, "host"
    ),
    "args decide against it": blocked(running("host", args="-cpu kvm64,+x2apic -smbios type=0"), "vm-cpu"),
    "args decide for it": Row(running("kvm64", args="-device x -cpu 'host,kvm=off'"), GOOD),
    "args decide for it by flag": Row(running("kvm64", args="-cpu kvm64,+vmx"), GOOD),
    "args show and hide": blocked(running("host", args="-cpu host,-svm"), "vm-cpu"),
    "args without cpu": Row(running("host", args="-smbios type=1"), GOOD),
    # the node
    "node without the flag": blocked(on(replace(NODE, cpu=LOCKED), RUNNING), "host-cpu"),
    "Arm node": Row(
        on(replace(NODE, cpu=ARM), RUNNING),
        {"host-nested": "pass", "vm-arch": "fail", "vm-cpu": "pass", "vm-agent": "pass"},
        blocks=("vm-arch",),
    ),
    "node's CPU not this user's to read": Row(
        on(replace(NODE, cpu=None), RUNNING), {k: v for k, v in GOOD.items() if k != "host-cpu"}
    ),
    "parameter Y": Row(PARAMETER["Y"], GOOD),
    "parameter 1": Row(PARAMETER["1"], GOOD),
    "parameter N": blocked(PARAMETER["N"], "host-nested"),
    "parameter 0": blocked(PARAMETER["0"], "host-nested"),
    "parameter counts more than the report": blocked(on(replace(NODE, nested="N"), RUNNING), "host-nested"),
    "nothing reported": Row(
        on(replace(NODE, nesting_nodes=frozenset(), reporting_nodes=frozenset()), RUNNING),
        GOOD | {"host-nested": "unknown"},
    ),
    "reported without it": Row(
        on(replace(NODE, nesting_nodes=frozenset()), RUNNING), GOOD | {"host-nested": "unknown"}
    ),
    "another node reported": Row(
        on(replace(NODE, nesting_nodes=frozenset({"pve2"})), RUNNING), GOOD | {"host-nested": "unknown"}
    ),
    "older node": Row(on(OLD, RUNNING), GOOD | {"host-nested": "unknown"}),
    # warnings
    "memory snapshots": Row(
        replace(RUNNING, memory_snapshots=("s1",)), GOOD | {"vm-snapshot-memory": "warn"}
    ),
    "no agent": Row(replace(RUNNING, agent=False), GOOD | {"vm-agent": "warn"}),
    "Windows with host": Row(
        running("host", ostype="win11"), GOOD | {"vm-windows-host": "warn", "vm-agent": "warn"}
    ),
    "Windows that would get host": Row(
        running("kvm64", ostype="win10"),
        GOOD | ILL | {"vm-windows-host": "warn", "vm-agent": "warn"},
        "host",
    ),
    "Windows with a vendor's model": Row(
        running("EPYC,flags=+nested-virt", ostype="win11"), GOOD | {"vm-agent": "warn"}
    ),
    "start warned": Row(
        replace(RUNNING, start_warnings=("WARN: ignored",)), GOOD | {"vm-start-warnings": "warn"}
    ),
    "cluster of unlike nodes": Row(replace(RUNNING, members=CLUSTER), GOOD | {"vm-migration": "warn"}),
    "cluster with an older node": Row(
        replace(RUNNING, members={"pve2": OLDER_AMD}), GOOD | {"vm-migration": "warn"}
    ),
    "cluster with an older node, vendor's model": Row(
        replace(running("EPYC,flags=+nested-virt"), members={"pve2": OLDER_AMD}),
        GOOD | {"vm-migration": "pass"},
    ),
    "cluster of like nodes, one without nesting": Row(
        on(
            replace(NODE, reporting_nodes=frozenset({"pve1", "pve2"})),
            replace(RUNNING, members={"pve2": AMD}),
        ),
        GOOD | {"vm-migration": "warn"},
    ),
    "cluster of like nodes": Row(replace(RUNNING, members={"pve2": AMD}), GOOD | {"vm-migration": "pass"}),
    "cluster not read": Row(replace(RUNNING, members={"pve2": None}), GOOD | {"vm-migration": "warn"}),
    "protection is no obstacle": Row(running("kvm64", protection="1"), GOOD | ILL, "host"),
    # disable
    "off already": Row(running("x86-64-v2-AES"), WITHDRAWN, goal=OFF),
    "was never set": Row(running(None), WITHDRAWN, goal=OFF),
    "take it from host": Row(RUNNING, WITHDRAWN | ILL, "host,flags=-nested-virt", goal=OFF),
    "take it from host on an older node": Row(on(OLD, RUNNING), WITHDRAWN | ILL, "x86-64-v2-AES", goal=OFF),
    "take it from host on PVE 7": Row(
        on(replace(OLD, version=(7, 4)), RUNNING), WITHDRAWN | ILL, "kvm64", goal=OFF
    ),
    "take the flag": Row(
        running("EPYC,flags=+nested-virt;+aes"), WITHDRAWN | ILL, "EPYC,flags=+aes", goal=OFF
    ),
    "put back what was there": Row(
        RUNNING, WITHDRAWN | ILL, "kvm64,hidden=1", goal=replace(OFF, former=FORMER)
    ),
    "put back that it was not set": Row(
        RUNNING, WITHDRAWN | ILL, None, goal=replace(OFF, former=Change("cpu", None, "host"))
    ),
    "custom model, nothing known of before": Row(
        running("custom-x"), WITHDRAWN | {"vm-cpu": "unknown"}, goal=OFF
    ),
    "custom model, put back": Row(
        running("custom-x"),
        WITHDRAWN | WARNED,
        "kvm64",
        goal=replace(OFF, former=Change("cpu", "kvm64", "custom-x")),
    ),
    "custom model with the flag, taken": Row(
        running("custom-x,flags=+nested-virt"), WITHDRAWN | ILL, "custom-x,flags=-nested-virt", goal=OFF
    ),
    "what was there nested too": Row(
        RUNNING,
        WITHDRAWN | ILL,
        "host,flags=-nested-virt",
        goal=replace(OFF, former=Change("cpu", "max", "host")),
    ),
    "somebody has changed it since": Row(
        running("max"), WITHDRAWN | ILL, "max,flags=-nested-virt", goal=replace(OFF, former=FORMER)
    ),
    "disable is pending": Row(
        running("host", "kvm64"), WITHDRAWN | {"vm-cpu-pending": "fail"}, cold_boot=True, goal=OFF
    ),
    "args against disable": Row(
        running("kvm64", args="-cpu host"), WITHDRAWN | ILL, blocks=("vm-cpu",), goal=OFF
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_situation(name: str) -> None:
    row = ROWS[name]
    findings = row.facts.judge(row.goal)
    assert {f.check: f.status.value for f in findings} == row.found
    plan = make_plan(findings)
    assert [c.after for c in plan.changes] == ([] if row.after is ... else [row.after])
    assert [c.before for c in plan.changes] == ([] if row.after is ... else [row.facts.value("cpu")])
    assert plan.cold_boot is row.cold_boot
    assert tuple(f.check for f in plan.blockers) == row.blocks


@pytest.mark.parametrize("name", ROWS)
def test_every_ill_finding_has_evidence_and_a_cure(name: str) -> None:
    for finding in ROWS[name].facts.judge(ROWS[name].goal):
        assert finding.check in CHECKS
        assert finding.evidence
        assert bool(finding.cure) is finding.ill


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row.after, str)])
def test_no_vmx_or_svm_is_ever_written_by_itself(name: str) -> None:
    if "vmx" not in str(ROWS[name].goal.cpu):
        assert "vmx" not in str(ROWS[name].after)
        assert "svm" not in str(ROWS[name].after)


def test_every_check_is_seen() -> None:
    assert {check for row in ROWS.values() for check in row.found} == set(CHECKS)


def test_what_lacks_a_right_is_told_the_line_that_grants_it() -> None:
    [finding] = [f for f in NO_RIGHT.judge(ON) if f.check == "vm-permission"]
    assert finding.evidence == "ops@pve!nestvirt lacks VM.Config.CPU on /vms/100"
    assert "pveum role modify ROLE --privs VM.Config.CPU --append 1" in finding.cure
    assert "pveum acl list shows for ops@pve!nestvirt" in finding.cure


def test_older_nodes_are_told_the_way_by_a_custom_model() -> None:
    [finding] = [f for f in on(OLD, RUNNING).judge(Goal(cpu="EPYC")) if f.check == "vm-cpu-choice"]
    assert "cpu-models.conf" in finding.cure
    assert "flags +svm" in finding.cure
    assert "reported-model EPYC" in finding.cure


def test_power_of_every_state() -> None:
    assert RUNNING.power is Power.RUNNING
    assert stopped("host").power is Power.STOPPED
    assert replace(RUNNING, qmp_status="io-error").power is Power.SUSPENDED


def test_host_reads_as_the_flag_of_the_nodes_vendor() -> None:
    for cpu, flag in ((AMD, "svm"), (INTEL, "vmx"), (None, "vmx or svm")):
        [finding] = [f for f in on(replace(NODE, cpu=cpu), RUNNING).judge(ON) if f.check == "vm-cpu"]
        assert finding.status is Status.PASS
        assert finding.evidence == f"cpu: host shows the guest {flag}"


@pytest.mark.parametrize(
    ("option", "enabled"),
    [
        (None, False),
        ("0", False),
        ("1", True),
        ("1,fstrim_cloned_disks=1", True),
        ("enabled=1,type=virtio", True),
        ("enabled=0", False),
        ("fstrim_cloned_disks=1", False),
    ],
)
def test_agent_option(option: str | None, enabled: bool) -> None:
    assert agent_enabled(option) is enabled


@pytest.mark.parametrize(
    ("text", "numbers"), [("9.2.11", (9, 2, 11)), ("7.4-17", (7, 4, 17)), ("8.0~beta1", (8, 0, 1)), ("", ())]
)
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert version_of(text) == numbers


@pytest.mark.parametrize(
    ("rows", "report"),
    [
        ([], (False, None, frozenset())),
        ([{"name": "aes", "supported-on": ["a"]}], (False, None, frozenset({"a"}))),
        ([{"name": "nested-virt"}], (True, None, frozenset())),
        ([{"name": "nested-virt", "supported-on": []}], (True, frozenset(), frozenset())),
        ([{"name": "nested-virt", "supported-on": ["a"]}], (True, frozenset({"a"}), frozenset({"a"}))),
        (None, (False, None, frozenset())),
        (["nonsense"], (False, None, frozenset())),
    ],
)
def test_report_of_cpu_flags(rows: object, report: object) -> None:
    assert flag_report(rows) == report


def test_windows_is_not_told_by_systeminfo() -> None:
    [agent] = [f for f in running("host", ostype="win11").judge(ON) if f.check == "vm-agent"]
    assert "start a VM inside" in agent.cure
    assert "systeminfo" not in agent.cure
