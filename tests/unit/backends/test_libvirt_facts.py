"""What a libvirt domain's facts mean: one row a situation, whole domains in, findings and a plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.facts import CHECKS, DomainFacts, HostFacts, agent_state
from nestvirt.model import Change, ColdBoot, Goal, Power, Status
from nestvirt.plan import make_plan
from tests.unit.backends.domains import NUMA, TOPOLOGY, custom, domain, features, mode

MODELS = {
    "EPYC": "AMD",
    "EPYC-Rome": "AMD",
    "Dhyana": "Hygon",
    "Skylake-Client": "Intel",
    "Nehalem": "Intel",
    "qemu64": "unknown",
}
INTEL = HostFacts("Intel", True, "Y", "/sys/module/kvm_intel/parameters/nested", {"vmx": "require"}, MODELS)
AMD = HostFacts("AMD", True, "1", "/sys/module/kvm_amd/parameters/nested", {"svm": "require"}, MODELS)
REMOTE = replace(AMD, nested=None, nested_source="")
TCG = HostFacts("Intel", False, None, "", {}, MODELS)

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
NOT_ON_HOST = {"host-nested": "fail"}

PASSED = mode("host-passthrough", check="none")
# What a running domain shows of it, as libvirt 9 prints it: expanded, and check='full'.
LIVE_WITH = custom("EPYC-Rome", check="full", svm="require", x2apic="require", hypervisor="require")
LIVE_WITHOUT = custom("EPYC-Rome", check="full", svm="disable", x2apic="require", hypervisor="require")


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


def stopped(cpu: str = PASSED, host: HostFacts = AMD, **domain_fields: str) -> DomainFacts:
    """A VM that is switched off."""
    return DomainFacts("web-01", Power.STOPPED, domain(cpu, **domain_fields), None, host, False, ())


def running(cpu: str, live: str, host: HostFacts = AMD, **domain_fields: str) -> DomainFacts:
    """A running VM: what its definition says, and what it runs with."""
    facts = stopped(cpu, host, **domain_fields)
    return replace(facts, power=Power.RUNNING, live=domain(live, **domain_fields))


def emulated(cpu: str) -> DomainFacts:
    """A VM of QEMU's emulation."""
    return stopped(cpu, TCG, kind="qemu")


BOTH = f"<cpu mode='host-model'>{features(svm='require')}{features(svm='require')}\n  </cpu>"

ROWS = {
    # Under KVM, by the definition alone
    "host-passthrough": Row(stopped(PASSED), KVM_GOOD),
    "host-passthrough on Intel": Row(stopped(PASSED, INTEL), KVM_GOOD),
    "maximum": Row(stopped(mode("maximum")), KVM_GOOD),
    "no cpu element": Row(stopped(""), KVM_GOOD | ILL, changes=1),
    "a model without the flag": Row(stopped(custom("EPYC", check="partial")), KVM_GOOD | ILL, changes=1),
    "a model, flag required": Row(stopped(custom("EPYC", svm="require")), KVM_GOOD),
    "a model, flag optional": Row(stopped(custom("EPYC", svm="optional")), KVM_GOOD | ILL, changes=1),
    "a model that has the flag": Row(
        replace(stopped(custom("EPYC")), model_features=frozenset({"svm", "npt"})), KVM_GOOD
    ),
    "a model that lacks the flag": Row(
        replace(stopped(custom("qemu64")), model_features=frozenset({"npt"})), KVM_GOOD | ILL, changes=1
    ),
    "svm disabled": Row(stopped(custom("EPYC", svm="disable")), KVM_GOOD | ILL, changes=1),
    "vmx disabled": Row(stopped(mode("host-passthrough", vmx="disable"), INTEL), KVM_GOOD | ILL, changes=1),
    "flag of the other vendor only": Row(
        stopped(custom("EPYC", vmx="require")), KVM_GOOD | ILL | {"vm-cpu-feature": "fail"}, changes=1
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
        stopped(f"<cpu mode='custom'><model>EPYC</model>{TOPOLOGY}{NUMA}</cpu>"), KVM_GOOD | ILL, changes=1
    ),
    # host-model is what libvirt makes of it
    "host-model shows it": Row(stopped(mode("host-model")), KVM_GOOD),
    "host-model hides it": Row(
        stopped(mode("host-model"), replace(AMD, host_model={"svm": "disable"})), KVM_GOOD | ILL, changes=1
    ),
    "host-model does not mention it": Row(
        stopped(mode("host-model"), replace(AMD, host_model={"npt": "require"})), KVM_GOOD | ILL, changes=1
    ),
    "host-model is not told": Row(
        stopped(mode("host-model"), replace(AMD, host_model=None)), KVM_GOOD | ILL, changes=1
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
        stopped(PASSED, replace(REMOTE, host_model={"svm": "disable"})),
        KVM_GOOD | NOT_ON_HOST,
        blockers=("host-nested",),
    ),
    "remote, nothing is told": Row(
        stopped(PASSED, replace(REMOTE, host_model=None)), KVM_GOOD | {"host-nested": "unknown"}
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


def _planned(facts: DomainFacts, goal: Goal | None = None) -> cpu_xml.Cpu:
    (change,) = make_plan(facts.judge(goal or Goal())).changes
    return cpu_xml.Cpu.parse(change.after)


@pytest.mark.parametrize(
    ("facts", "cpu", "chosen"),
    [
        pytest.param(stopped(""), None, ("host-passthrough", None), id="KVM: the host's CPU"),
        pytest.param(
            stopped(custom("EPYC")), None, ("host-passthrough", None), id="KVM: in place of a model"
        ),
        pytest.param(
            stopped(custom("EPYC", svm="require", vmx="require")),
            None,
            ("custom", "EPYC"),
            id="a good model stays",
        ),
        pytest.param(stopped(BOTH), None, ("host-model", None), id="a good host-model stays"),
        pytest.param(emulated(""), None, ("custom", "EPYC"), id="TCG: an AMD model"),
        pytest.param(
            emulated(custom("EPYC-Rome", check="none")),
            None,
            ("custom", "EPYC-Rome"),
            id="TCG: an AMD model stays",
        ),
        pytest.param(emulated(custom("Nehalem")), None, ("custom", "EPYC"), id="TCG: an Intel model goes"),
        pytest.param(emulated(PASSED), None, ("custom", "EPYC"), id="TCG: host-passthrough goes"),
        pytest.param(stopped(), "EPYC-Rome", ("custom", "EPYC-Rome"), id="--cpu MODEL"),
        pytest.param(stopped(), "host-model", ("host-model", None), id="--cpu host-model"),
        pytest.param(stopped(""), "maximum", ("maximum", None), id="--cpu maximum"),
    ],
)
def test_the_cpu_that_is_planned(facts: DomainFacts, cpu: str | None, chosen: tuple[str, str | None]) -> None:
    planned = _planned(facts, Goal(cpu=cpu))
    assert (planned.mode, planned.model) == chosen


def test_under_tcg_libvirt_is_told_not_to_ask_the_hosts_cpu() -> None:
    (change,) = make_plan(emulated(custom("EPYC", check="partial")).judge(Goal())).changes
    assert change.after is not None
    assert "check='none'" in change.after


@pytest.mark.parametrize(
    ("asked", "near"), [("EPIC", "EPYC"), ("skylake-client", "Skylake-Client"), ("?", "Dhyana")]
)
def test_an_unknown_model_is_answered_with_known_ones(asked: str, near: str) -> None:
    findings = stopped().judge(Goal(cpu=asked))
    (choice,) = [finding for finding in findings if finding.check == "vm-cpu-choice"]
    assert near in choice.cure


def test_a_pending_change_is_cured_by_a_power_cycle_only() -> None:
    (pending,) = [f for f in running(PASSED, LIVE_WITHOUT).judge(Goal()) if f.check == "vm-cpu-pending"]
    assert pending.fix == ColdBoot()
    assert "reboot" in pending.evidence + pending.cure


def test_two_findings_share_one_change() -> None:
    findings = stopped(custom("EPYC", vmx="require")).judge(Goal())
    assert [isinstance(f.fix, Change) for f in findings].count(True) == 2
    assert len(make_plan(findings).changes) == 1


@pytest.mark.parametrize(
    ("xml", "state"),
    [
        pytest.param(domain(agent="connected"), "connected", id="connected"),
        pytest.param(domain(agent="disconnected"), "disconnected", id="disconnected"),
        pytest.param(domain(agent=""), "disconnected", id="no state"),
        pytest.param(domain(agent=None), None, id="no channel"),
        pytest.param(
            domain().replace("org.qemu.guest_agent.0", "com.redhat.spice.0"), None, id="another channel"
        ),
        pytest.param(None, None, id="no domain"),
    ],
)
def test_agent_state(xml: str | None, state: str | None) -> None:
    assert agent_state(xml) == state


def test_only_the_cpu_is_a_setting() -> None:
    assert stopped().value("cpu") == PASSED
    with pytest.raises(ValueError, match="memory"):
        stopped().value("memory")
