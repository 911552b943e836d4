"""What a Vagrant machine's facts mean: would Vagrant take the setting back?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nestvirt.backends.vagrant import facts
from nestvirt.backends.vagrant.facts import MachineFacts
from nestvirt.backends.vagrant.project import Machine, Project
from nestvirt.model import Change, Finding, Goal, Layer, Power, Status
from nestvirt.plan import make_plan
from tests.unit.backends.situations import AMD, PASSED, stopped


@dataclass(frozen=True)
class Provided:
    """A provider's facts."""

    cpu: str | None = None
    fix: Change | None = None
    power: Power = Power.RUNNING
    busy: str = ""
    waiting: str = ""

    def has(self, change: Change) -> bool:
        return change == self.fix

    def value(self, _setting: str) -> str | None:
        return self.cpu

    def judge(self, _goal: Goal) -> list[Finding]:
        agent = Finding("vm-agent", Layer.VM, Status.WARN, "none", "attach one")
        return [Finding("vm-cpu", Layer.VM, Status.FAIL, "it has not", "enable", self.fix), agent]


PASSTHROUGH = "<cpu mode='host-passthrough' check='none'/>"
EPYC = "<cpu mode='custom'><model fallback='forbid'>EPYC</model><feature policy='require' name='svm'/></cpu>"
BY_VAGRANT = (
    "<cpu mode='host-model'><feature policy='optional' name='vmx'/>"
    "<feature policy='optional' name='svm'/></cpu>"
)


def judged(text: str, goal: Goal, provided: Provided, machine: str = "") -> list[Finding]:
    project = Project(Path("/lab"), Path("/lab"), Path("/lab/Vagrantfile"))
    of = Machine(project, machine or "default", "libvirt", alone=not machine)
    own = MachineFacts(provided, of, text)
    assert (own.power, own.busy) == (provided.power, provided.busy)
    return list(own.judge(goal))


@pytest.mark.parametrize(
    ("provided", "machine", "line"),
    [
        pytest.param(
            Provided(None, Change("cpu", None, PASSTHROUGH)),
            "",
            'Vagrant.configure("2") { |config| config.vm.provider(:libvirt) '
            '{ |libvirt| libvirt.nested = true; libvirt.cpu_mode = "host-passthrough" } }',
            id="what will be written",
        ),
        pytest.param(
            Provided(EPYC),
            "",
            'libvirt.nested = true; libvirt.cpu_mode = "custom"; libvirt.cpu_model = "EPYC" }',
            id="what is there",
        ),
        pytest.param(
            Provided("<cpu mode='host-model'/>"), "", 'libvirt.cpu_mode = "host-model" }', id="host-model"
        ),
        pytest.param(Provided(), "", 'libvirt.cpu_mode = "host-passthrough" }', id="no CPU"),
        pytest.param(
            Provided(PASSTHROUGH),
            "o'ne",
            "config.vm.define('o\\'ne') { |m| m.vm.provider(:libvirt) {",
            id="of many",
        ),
        pytest.param(
            Provided("<cpu><model>a&quot;; exit</model></cpu>"), "", 'cpu_mode = "custom" }', id="no code"
        ),
    ],
)
def test_file_that_does_not_ask_is_warned_of_with_the_line_to_add(
    provided: Provided, machine: str, line: str
) -> None:
    comments = ("# libvirt.nested = true\n", "  #libvirt.nested = true", "v.memory = 1 # v.nested = true")
    for text in ("", *comments, "v.nested = false", "puts 1 if v.nested == true"):
        *_, finding = judged(text, Goal(), provided, machine)
        assert (finding.check, finding.status) == ("vm-vagrantfile", Status.WARN)
        assert line in finding.cure


@pytest.mark.parametrize(
    "line",
    [
        "  v.nested = true",
        "libvirt.cpu_mode='host-passthrough'",
        "libvirt.cpu_mode = :'host-passthrough'",
        "if x then v.nested=true end",
        'v.title = "#{name}"; v.nested = true  # as it was',
    ],
)
def test_text_that_asks_proves_nothing_and_is_named(line: str) -> None:
    *_, finding = judged(f"# hello\n{line}\n", Goal(), Provided(PASSTHROUGH))
    assert (finding.check, finding.status) == ("vm-vagrantfile", Status.SKIP)
    assert "line 2 " in finding.evidence


def test_mark_of_vagrant_itself_passes() -> None:
    for text in ("", "v.nested = true"):
        *_, finding = judged(text, Goal(), Provided(BY_VAGRANT))
        assert (finding.check, finding.status) == ("vm-vagrantfile", Status.PASS)


def test_disable_warns_of_a_file_that_asks() -> None:
    for text, cpu in (("v.nested = true", EPYC), ("", BY_VAGRANT)):
        *_, finding = judged(text, Goal(nested=False), Provided(cpu))
        assert (finding.check, finding.status) == ("vm-vagrantfile", Status.WARN)
        assert "/lab/Vagrantfile" in finding.cure
    assert [f.check for f in judged("", Goal(nested=False), Provided(EPYC))] == ["vm-cpu", "vm-agent"]


def test_way_into_the_guest_is_vagrants() -> None:
    """Told as options, so that they join whatever else the command was given, such as --connect."""
    _, agent, _ = judged("", Goal(), Provided(), "web")
    assert agent.cure == (
        "look inside with --ssh web --ssh-config ssh.config, "
        "after: (cd /lab && vagrant ssh-config web) > ssh.config"
    )


def test_host_that_lacks_nesting_is_told_first_and_no_vagrantfile_helps_there() -> None:
    lacking = stopped(PASSED, replace(AMD, nested="0", nested_source="the parameter"))
    machine = Machine(Project(Path("/lab"), Path("/lab"), Path("/lab/Vagrantfile")), "default", "libvirt")
    findings = MachineFacts(lacking, machine, "").judge(Goal())
    broken = next(f for f in findings if f.status is Status.FAIL)
    assert (broken.check, broken.layer) == ("host-nested", Layer.HOST)
    assert "Vagrantfile" not in broken.cure
    assert [f.check for f in make_plan(findings).blockers] == ["host-nested"]


def test_the_setting_is_libvirts() -> None:
    assert facts.SETTING == "cpu"
