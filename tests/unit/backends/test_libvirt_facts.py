"""What a libvirt domain's facts mean: one row a situation, whole domains in, findings and a plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.domain import HostModel
from nestvirt.backends.libvirt.facts import CHECKS, DomainFacts
from nestvirt.model import Goal, Power, Status
from nestvirt.plan import make_plan
from tests.unit.backends.domains import NUMA, TOPOLOGY, custom, domain, mode
from tests.unit.backends.situations import (
    AMD,
    BOTH,
    DISABLED,
    IMPLIED,
    INTEL,
    LACKING,
    LIVE_WITH,
    LIVE_WITHOUT,
    PASSED,
    REMOTE,
    UNTOLD,
    emulated,
    running,
    stopped,
)

KVM_GOOD = {
    "host-kvm": "pass",
    "host-nested": "pass",
    "vm-type": "pass",
    "vm-cpu": "pass",
    "vm-agent": "pass",
}
TCG_GOOD = {"vm-type": "warn", "vm-cpu": "pass", "vm-agent": "pass"}
WITHDRAWN = {"vm-type": "pass", "vm-cpu": "pass", "vm-agent": "pass"}
ILL = {"vm-cpu": "fail"}
UNSURE = {"vm-cpu": "warn"}
NOT_ON_HOST = {"host-nested": "fail"}

ON, OFF = Goal(), Goal(nested=False)


@dataclass(frozen=True)
class Row:
    """One situation, and what has to be said of it.

    Attributes:
        found: every finding: check id to status.
        plan: how many changes; whether a power cycle; which checks block.
    """

    facts: DomainFacts
    found: dict[str, str]
    changes: int = 0
    cold_boot: bool = False
    blockers: tuple[str, ...] = ()
    goal: Goal = ON


ROWS = {
    # Under KVM, by the definition alone
    "host-passthrough": Row(stopped(PASSED), KVM_GOOD),
    "host-passthrough on Intel": Row(stopped(PASSED, INTEL), KVM_GOOD),
    "maximum": Row(stopped(mode("maximum")), KVM_GOOD),
    "no cpu element": Row(stopped(""), KVM_GOOD | ILL, changes=1),
    "a model that libvirt does not expand": Row(stopped(custom("EPYC")), KVM_GOOD | UNSURE, changes=1),
    "a model, flag required": Row(stopped(custom("EPYC", svm="require")), KVM_GOOD),
    "a model, flag optional": Row(stopped(custom("EPYC", svm="optional")), KVM_GOOD),
    "a model, flag optional, and the host has none": Row(
        stopped(custom("EPYC", svm="optional"), replace(AMD, host_model=LACKING)), KVM_GOOD | ILL, changes=1
    ),
    "a model, flag optional, and the host is not told": Row(
        stopped(custom("EPYC", svm="optional"), replace(AMD, host_model=HostModel())),
        KVM_GOOD | UNSURE,
        changes=1,
    ),
    "passed through, flag optional": Row(stopped(mode("host-passthrough", svm="optional")), KVM_GOOD),
    "a model that implies the flag": Row(
        replace(stopped(custom("EPYC")), model_features=frozenset({"svm", "npt"})),
        KVM_GOOD | UNSURE,
        changes=1,
    ),
    "a model that lacks the flag": Row(
        replace(stopped(custom("qemu64")), model_features=frozenset({"npt"})), KVM_GOOD | ILL, changes=1
    ),
    "svm disabled": Row(stopped(custom("EPYC", svm="disable")), KVM_GOOD | ILL, changes=1),
    "vmx disabled": Row(stopped(mode("host-passthrough", vmx="disable"), INTEL), KVM_GOOD | ILL, changes=1),
    "flag of the other vendor only": Row(
        stopped(custom("EPYC", vmx="require")), KVM_GOOD | UNSURE | {"vm-cpu-feature": "fail"}, changes=1
    ),
    "flags of both vendors": Row(
        stopped(custom("EPYC", svm="require", vmx="require")),
        KVM_GOOD | {"vm-cpu-feature": "fail"},
        changes=1,
    ),
    "flags of both vendors, one optional": Row(
        stopped(custom("EPYC", svm="require", vmx="optional")), KVM_GOOD
    ),
    "flag doubled": Row(stopped(BOTH), KVM_GOOD | {"vm-cpu-feature": "fail"}, changes=1),
    "topology and NUMA": Row(
        stopped(f"<cpu mode='custom'><model>EPYC</model>{TOPOLOGY}{NUMA}</cpu>"), KVM_GOOD | UNSURE, changes=1
    ),
    # host-model is what libvirt makes of it
    "host-model shows it": Row(stopped(mode("host-model")), KVM_GOOD),
    "host-model hides it": Row(
        stopped(mode("host-model"), replace(AMD, host_model=DISABLED)), KVM_GOOD | ILL, changes=1
    ),
    "host-model does not mention it": Row(
        stopped(mode("host-model"), replace(AMD, host_model=UNTOLD)), KVM_GOOD | UNSURE, changes=1
    ),
    "host-model implies it": Row(
        stopped(mode("host-model"), replace(AMD, host_model=IMPLIED)), KVM_GOOD | UNSURE, changes=1
    ),
    "host-model implies it, and it is asked for": Row(
        stopped(mode("host-model", svm="require"), replace(AMD, host_model=IMPLIED)), KVM_GOOD
    ),
    "host-model lacks it": Row(
        stopped(mode("host-model"), replace(AMD, host_model=LACKING)), KVM_GOOD | ILL, changes=1
    ),
    "host-model is not told": Row(
        stopped(mode("host-model"), replace(AMD, host_model=HostModel())), KVM_GOOD | UNSURE, changes=1
    ),
    # The host
    "nested=0": Row(
        stopped(PASSED, replace(AMD, nested="0")), KVM_GOOD | NOT_ON_HOST, blockers=("host-nested",)
    ),
    "nested=N": Row(
        stopped(PASSED, replace(INTEL, nested="N")), KVM_GOOD | NOT_ON_HOST, blockers=("host-nested",)
    ),
    "nested=0 and a wrong cpu": Row(
        stopped("", replace(AMD, nested="0")),
        KVM_GOOD | NOT_ON_HOST | ILL,
        changes=1,
        blockers=("host-nested",),
    ),
    "remote, host-model has it": Row(stopped(PASSED, REMOTE), KVM_GOOD),
    "remote, host-model disables it": Row(
        stopped(PASSED, replace(REMOTE, host_model=DISABLED)),
        KVM_GOOD | NOT_ON_HOST,
        blockers=("host-nested",),
    ),
    "remote, host-model implies it": Row(stopped(PASSED, replace(REMOTE, host_model=IMPLIED)), KVM_GOOD),
    "remote, host-model lacks it": Row(
        stopped(PASSED, replace(REMOTE, host_model=LACKING)),
        KVM_GOOD | NOT_ON_HOST,
        blockers=("host-nested",),
    ),
    "remote, host-model does not mention it": Row(
        stopped(PASSED, replace(REMOTE, host_model=UNTOLD)), KVM_GOOD | {"host-nested": "unknown"}
    ),
    "remote, nothing is told": Row(
        stopped(PASSED, replace(REMOTE, host_model=HostModel())), KVM_GOOD | {"host-nested": "unknown"}
    ),
    "no KVM": Row(
        stopped(PASSED, replace(AMD, kvm=False)), KVM_GOOD | {"host-kvm": "fail"}, blockers=("host-kvm",)
    ),
    "unknown vendor": Row(
        stopped(PASSED, replace(AMD, vendor=None)),
        {"host-kvm": "pass", "vm-type": "unknown", "vm-agent": "pass"},
    ),
    # Running
    "running with it": Row(running(PASSED, LIVE_WITH), KVM_GOOD),
    "set, but not power-cycled": Row(
        running(PASSED, LIVE_WITHOUT), KVM_GOOD | {"vm-cpu-pending": "fail"}, cold_boot=True
    ),
    "set, but runs with QEMU's default": Row(
        running(PASSED, ""), KVM_GOOD | {"vm-cpu-pending": "fail"}, cold_boot=True
    ),
    "running with what cannot be told": Row(running(PASSED, custom("EPYC-Rome", check="full")), KVM_GOOD),
    "running without": Row(running(custom("EPYC", svm="disable"), LIVE_WITHOUT), KVM_GOOD | ILL, changes=1),
    "running, agent silent": Row(
        running(PASSED, LIVE_WITH, agent="disconnected"), KVM_GOOD | {"vm-agent": "warn"}
    ),
    "no agent channel": Row(
        replace(stopped(), inactive=domain(PASSED, agent=None)), KVM_GOOD | {"vm-agent": "warn"}
    ),
    "stopped, the channel has no state": Row(stopped(agent=""), KVM_GOOD),
    # What stands against it
    "paused": Row(
        replace(running(PASSED, LIVE_WITH), power=Power.SUSPENDED),
        KVM_GOOD | {"vm-suspended": "fail"},
        blockers=("vm-suspended",),
    ),
    "restarts when it shuts down": Row(
        running(PASSED, LIVE_WITH, on_poweroff="restart"),
        KVM_GOOD | {"vm-poweroff-action": "fail"},
        blockers=("vm-poweroff-action",),
    ),
    "off, and would restart when it shuts down": Row(stopped(PASSED, on_poweroff="restart"), KVM_GOOD),
    "managed save": Row(
        replace(stopped(), managed_save=True),
        KVM_GOOD | {"vm-managed-save": "fail"},
        blockers=("vm-managed-save",),
    ),
    "memory snapshots": Row(
        replace(stopped(), memory_snapshots=("before", "after")), KVM_GOOD | {"vm-snapshot-memory": "warn"}
    ),
    "transient": Row(
        replace(running(PASSED, LIVE_WITH), inactive=None),
        {name: status for name, status in KVM_GOOD.items() if name != "vm-cpu"} | {"vm-persistent": "fail"},
        blockers=("vm-persistent",),
    ),
    "aarch64": Row(stopped(arch="aarch64"), KVM_GOOD | {"vm-arch": "fail"}, blockers=("vm-arch",)),
    "32-bit x86": Row(stopped(arch="i686"), KVM_GOOD),
    "a Xen domain": Row(stopped(kind="xen"), KVM_GOOD | {"vm-type": "fail"}, blockers=("vm-type",)),
    # QEMU's emulation has svm, and never vmx
    "TCG, svm required": Row(emulated(custom("EPYC", check="none", svm="require")), TCG_GOOD),
    "TCG, qemu64 with svm": Row(emulated(custom("qemu64", check="none", svm="require")), TCG_GOOD),
    "TCG, svm disabled": Row(
        emulated(custom("EPYC", check="none", svm="disable")), TCG_GOOD | ILL, changes=1
    ),
    "TCG, no cpu element": Row(emulated(""), TCG_GOOD | ILL, changes=1),
    "TCG, an Intel model": Row(emulated(custom("Nehalem", check="none")), TCG_GOOD | ILL, changes=1),
    "TCG, an Intel model with svm": Row(
        emulated(custom("Nehalem", check="none", svm="require")), TCG_GOOD | ILL, changes=1
    ),
    "TCG, an Intel model with vmx": Row(
        emulated(custom("Nehalem", check="none", vmx="require")),
        TCG_GOOD | ILL | {"vm-cpu-feature": "fail"},
        changes=1,
    ),
    "TCG, host-passthrough": Row(emulated(PASSED), TCG_GOOD | ILL, changes=1),
    "TCG, maximum": Row(emulated(mode("maximum", check="none")), TCG_GOOD),
    "TCG, host-model implies it": Row(emulated(mode("host-model")), TCG_GOOD),
    "TCG, a model that implies it": Row(
        replace(emulated(custom("EPYC", check="none")), model_features=frozenset({"svm"})), TCG_GOOD
    ),
    # The CPU that was asked for
    "--cpu a known model": Row(stopped(), KVM_GOOD | ILL, changes=1, goal=Goal(cpu="EPYC")),
    "--cpu the present model": Row(stopped(custom("EPYC", svm="require")), KVM_GOOD, goal=Goal(cpu="EPYC")),
    "--cpu host-model": Row(stopped(), KVM_GOOD | ILL, changes=1, goal=Goal(cpu="host-model")),
    "--cpu an unknown model": Row(
        stopped(),
        KVM_GOOD | ILL | {"vm-cpu-choice": "fail"},
        changes=1,
        blockers=("vm-cpu-choice",),
        goal=Goal(cpu="EPIC"),
    ),
    "--cpu, and libvirt tells no models": Row(
        stopped(host=replace(AMD, models=None)), KVM_GOOD | ILL, changes=1, goal=Goal(cpu="EPIC")
    ),
    "--cpu host-passthrough under TCG": Row(
        emulated(custom("EPYC", check="none", svm="require")),
        TCG_GOOD | ILL | {"vm-cpu-choice": "fail"},
        changes=1,
        blockers=("vm-cpu-choice",),
        goal=Goal(cpu="host-passthrough"),
    ),
    "--cpu an Intel model under TCG": Row(
        emulated(custom("EPYC", check="none", svm="require")),
        TCG_GOOD | ILL | {"vm-cpu-choice": "fail"},
        changes=1,
        blockers=("vm-cpu-choice",),
        goal=Goal(cpu="Nehalem"),
    ),
    "--cpu an AMD model under TCG": Row(emulated(""), TCG_GOOD | ILL, changes=1, goal=Goal(cpu="EPYC-Rome")),
    # Without nesting
    "off: passed through": Row(stopped(), WITHDRAWN | ILL, changes=1, goal=OFF),
    "off: already": Row(stopped(custom("EPYC", svm="disable")), WITHDRAWN, goal=OFF),
    "off: a model that leaves it open": Row(stopped(custom("EPYC")), WITHDRAWN | ILL, changes=1, goal=OFF),
    "off: no cpu element": Row(stopped(""), WITHDRAWN | ILL, changes=1, goal=OFF),
    "off: nested=0 blocks nothing": Row(
        stopped(host=replace(AMD, nested="0")), WITHDRAWN | ILL, changes=1, goal=OFF
    ),
    "off: still running with it": Row(
        running(LIVE_WITHOUT, LIVE_WITH), WITHDRAWN | {"vm-cpu-pending": "fail"}, cold_boot=True, goal=OFF
    ),
    "off: host-model implies it": Row(
        stopped(mode("host-model"), replace(AMD, host_model=IMPLIED)), WITHDRAWN | ILL, changes=1, goal=OFF
    ),
    "off: unknown vendor": Row(
        stopped(PASSED, replace(AMD, vendor=None)), {"vm-type": "unknown", "vm-agent": "pass"}, goal=OFF
    ),
    "off: TCG without a cpu element": Row(
        emulated(""), WITHDRAWN | ILL | {"vm-type": "warn"}, changes=1, goal=OFF
    ),
}
each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


@each_row
def test_findings(row: Row) -> None:
    found = [(finding.check, str(finding.status)) for finding in row.facts.judge(row.goal)]
    assert sorted(found) == sorted(row.found.items())
    assert {check for check, _ in found} <= set(CHECKS)


@each_row
def test_plan(row: Row) -> None:
    plan = make_plan(row.facts.judge(row.goal))
    assert (len(plan.changes), plan.cold_boot, tuple(f.check for f in plan.blockers)) == (
        row.changes,
        row.cold_boot,
        row.blockers,
    )


@each_row
def test_every_finding_says_why_and_every_ill_one_what_to_do(row: Row) -> None:
    for finding in row.facts.judge(row.goal):
        assert finding.evidence
        assert bool(finding.cure or finding.fix) is finding.ill
        assert finding.ill or finding.fix is None


@each_row
def test_a_fix_starts_from_the_exact_present_text(row: Row) -> None:
    for change in make_plan(row.facts.judge(row.goal)).changes:
        assert (change.setting, change.before) == ("cpu", cpu_xml.split(row.facts.inactive or "")[1])
        assert change.after != change.before


# A choice that cannot work is never carried out, so nothing has to hold after it.
POSSIBLE = [pytest.param(row, id=name) for name, row in ROWS.items() if "vm-cpu-choice" not in row.blockers]


@pytest.mark.parametrize("row", POSSIBLE)
def test_after_the_fix_nothing_is_left_to_change(row: Row) -> None:
    plan = make_plan(row.facts.judge(row.goal))
    fixed = row.facts
    for change in plan.changes:
        assert fixed.inactive is not None
        fixed = replace(fixed, inactive=cpu_xml.replaced(fixed.inactive, change.after))
    again = fixed.judge(row.goal)
    assert make_plan(again).changes == ()
    assert make_plan(again).blockers == plan.blockers
    if not plan.blockers and not any(f.status is Status.UNKNOWN for f in again):
        assert {f.check: f.status for f in again}["vm-cpu"] is Status.PASS
