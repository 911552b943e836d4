"""What is planned, and what a person is told to do."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.domain import agent_state
from nestvirt.backends.libvirt.facts import DomainFacts
from nestvirt.model import Change, ColdBoot, Goal, Power
from nestvirt.plan import make_plan
from tests.unit.backends.domains import custom, domain, mode
from tests.unit.backends.situations import (
    AMD,
    BOTH,
    IMPLIED,
    LIVE_WITH,
    LIVE_WITHOUT,
    PASSED,
    emulated,
    running,
    stopped,
)


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
        pytest.param(
            stopped(mode("host-model"), replace(AMD, host_model=IMPLIED)),
            None,
            ("host-model", None),
            id="host-model stays where it only has to ask for what it implies",
        ),
        pytest.param(
            replace(stopped(custom("EPYC")), model_features=frozenset({"svm"})),
            None,
            ("custom", "EPYC"),
            id="and so does a model",
        ),
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


AWKWARD = "O'Brien's VM; reboot"
QUOTED = shlex.quote(AWKWARD)
URI = "qemu+ssh://root@node1/system?keyfile=/a b"
VIRSH = f"virsh -c {shlex.quote(URI)}"


@pytest.mark.parametrize(
    ("facts", "check", "cure"),
    [
        pytest.param(
            replace(running(PASSED, LIVE_WITH), power=Power.SUSPENDED),
            "vm-suspended",
            f"{VIRSH} resume {QUOTED}",
            id="paused",
        ),
        pytest.param(
            replace(running(PASSED, LIVE_WITH), power=Power.SUSPENDED, pm_suspended=True),
            "vm-suspended",
            f"{VIRSH} dompmwakeup {QUOTED}",
            id="suspended by its guest",
        ),
        pytest.param(
            replace(stopped(), managed_save=True),
            "vm-managed-save",
            f"{VIRSH} start {QUOTED} && {VIRSH} shutdown {QUOTED}",
            id="managed save",
        ),
        pytest.param(
            replace(running(PASSED, LIVE_WITH), inactive=None),
            "vm-persistent",
            f"keep it: {VIRSH} dumpxml --inactive --security-info {QUOTED} > vm.xml && {VIRSH} define vm.xml",
            id="transient",
        ),
        pytest.param(
            running(PASSED, LIVE_WITH, on_poweroff="restart"),
            "vm-poweroff-action",
            f"{VIRSH} set-lifecycle-action {QUOTED} poweroff destroy --live --config",
            id="restarts",
        ),
        pytest.param(
            replace(stopped(), inactive=domain(PASSED, agent=None)),
            "vm-agent",
            "echo \"<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\" "
            f"> agent.xml && {VIRSH} attach-device {QUOTED} agent.xml --config",
            id="no agent channel",
        ),
    ],
)
def test_a_cure_can_be_pasted_into_a_shell(facts: DomainFacts, check: str, cure: str) -> None:
    findings = replace(facts, uri=URI, name=AWKWARD).judge(Goal())
    assert [f.cure for f in findings if f.check == check] == [cure]


def test_the_usable_models_are_listed_by_the_same_libvirt() -> None:
    (choice,) = [f for f in replace(stopped(), uri=URI).judge(Goal(cpu="?")) if f.check == "vm-cpu-choice"]
    assert choice.cure.endswith(f"all: {VIRSH} domcapabilities --virttype kvm")


def test_only_the_cpu_is_a_setting() -> None:
    assert stopped().value("cpu") == PASSED
    with pytest.raises(ValueError, match="memory"):
        stopped().value("memory")
