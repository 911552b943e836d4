"""What Vagrant says, read; and what it means. The answers were recorded with Vagrant 2.3.4."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest

from nestvirt import backends
from nestvirt.backends.vagrant import facts, status
from nestvirt.backends.vagrant.facts import MachineFacts
from nestvirt.backends.vagrant.project import Machine, Project, folder_and_machine, target_name
from nestvirt.backends.vagrant.status import Line, machines_of, parse
from nestvirt.cli.options import VMS, named, words_for
from nestvirt.errors import Busy, ConnectionFailed, Error, MissingExtra, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Change, Finding, Goal, Layer, Power, Status, Target, Vm
from tests.peers.vagrant_rig import STATUS, recited, reciting_program

NOWHERE = {"uri": "qemu+unix:///session?socket=/nonexistent"}
UNREACHED = (
    "1795581343,,ui,error,Error while connecting to Libvirt: Call to virConnectOpen failed\n"
    "1795581343,,error-exit,VagrantPlugins::ProviderLibvirt::Errors::FogLibvirtConnectionError,"
    "Error while connecting to Libvirt: Call to virConnectOpen failed: no socket%!(VAGRANT_COMMA) none\\nat"
    " all\n"
)
UNUSABLE = (
    "1795581343,,error-exit,Vagrant::Errors::ProviderNotUsable,The provider 'virtualbox' that was requested"
    " to back the machine\\n'a' is reporting that it isn't usable on this system.\n"
)
EARLY = (
    "Vagrant failed to initialize at a very early stage:\n\nThere is a syntax error in the following"
    " Vagrantfile.\n\n/x/Vagrantfile:1: syntax error, unexpected end-of-input\n"
)


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("VAGRANT_CWD", "VAGRANT_DOTFILE_PATH", "VAGRANT_VAGRANTFILE"):
        monkeypatch.delenv(variable, raising=False)
    folder = reciting_program(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder / "vagrant"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return recited(tmp_path / "lab", "libvirt", {"default": "52296acd"})


# --- machine-readable output


def test_commas_and_line_ends_are_unescaped() -> None:
    [*_, told] = parse(STATUS.format(name="web", provider="libvirt"))
    words = "The domain is running. To stop this machine, you can run\n`vagrant halt`."
    assert told == Line("web", "state-human-long", (words,))


def test_what_a_vagrantfile_prints_is_no_line() -> None:
    text = "hello, world\n\n12,no kind\n" + STATUS.format(name="a", provider="libvirt") + "bye,,,\n"
    assert [line.target for line in parse(text)] == ["a"] * 5


def test_lines_without_a_machine_and_without_words_are_read() -> None:
    assert parse("1,,ui,info,\n2,a,kind,x,y\n") == [
        Line("", "ui", ("info", "")),
        Line("a", "kind", ("x", "y")),
    ]


# --- which machine


def test_machines_are_those_of_the_vagrantfile(tmp_path: Path) -> None:
    project = Project.named(str(recited(tmp_path / "p", "libvirt", {"one": "id-1", "two": None})))
    machines = machines_of(project, NOWHERE)
    assert [(m.name, m.provider, m.alone) for m in machines] == [
        ("one", "libvirt", False),
        ("two", "libvirt", False),
    ]
    with pytest.raises(TargetError, match="more than one machine") as caught:
        project.chosen(machines)
    assert "one, two" in caught.value.evidence
    assert "--machine" in caught.value.cure
    assert project.identity(machines[0]) == "id-1"
    with pytest.raises(TargetError, match="has not made the machine two") as caught:
        project.identity(machines[1])
    assert "vagrant up two" in caught.value.cure


def test_a_folder_of_the_project_stands_for_it(folder: Path) -> None:
    (folder / "deeper").mkdir()
    project = Project.named(str(folder / "deeper"))
    assert project.vagrantfile == folder / "Vagrantfile"
    assert project.data == folder / ".vagrant"


def test_vagrants_own_variables_are_heeded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", "kept")
    monkeypatch.setenv("VAGRANT_VAGRANTFILE", "Other")
    with pytest.raises(TargetError, match="there is no Other in"):
        Project.named(str(folder))
    (folder / "Other").touch()
    project = Project.named(str(folder))
    assert (project.vagrantfile.name, project.data) == ("Other", folder / "kept")


@pytest.mark.parametrize("name", ["/nonexistent/place", "/nonexistent/place#web"])
def test_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(TargetError, match="no folder /nonexistent/place"):
        Project.named(name)


def test_folder_without_a_vagrantfile(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no Vagrantfile in"):
        Project.named(str(tmp_path))


# --- errors


@pytest.mark.parametrize(
    ("stdout", "stderr", "kind", "words"),
    [
        pytest.param(UNREACHED, "", ConnectionFailed, "no socket, none at all", id="hypervisor"),
        pytest.param(UNUSABLE, "", TargetError, "isn't usable on this system", id="provider"),
        pytest.param("", EARLY, TargetError, "There is a syntax error", id="Vagrantfile"),
        pytest.param("", "", TargetError, "ended with 1", id="without a word"),
    ],
)
def test_what_vagrant_complains_of_is_told_in_its_words(
    folder: Path, stdout: str, stderr: str, kind: type[Error], words: str
) -> None:
    (folder / "recorded").write_text(stdout)
    (folder / "recorded-stderr").write_text(stderr)
    (folder / "recorded-code").write_text("1")
    with pytest.raises(kind) as caught:
        machines_of(Project.named(str(folder)), NOWHERE)
    assert words in caught.value.evidence
    assert f"cd {folder} && vagrant status" in caught.value.cure


def test_without_vagrant_libvirts_own_name_is_a_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingExtra) as caught:
        machines_of(Project.named(str(folder)), NOWHERE)
    assert "--libvirt NAME" in caught.value.cure


def test_vagrant_that_hangs_is_given_up(folder: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(status, "TIMEOUT", 0.2)
    with pytest.raises(ConnectionFailed, match="did not end"):
        machines_of(Project.named(str(folder)), NOWHERE)


def test_vagrant_gets_a_copy_of_its_data_and_our_libvirt(folder: Path, program: Path) -> None:
    (folder / ".vagrant/plugins.json").write_text("{}")
    seen = folder / "seen"
    script = f'(cat "$VAGRANT_DOTFILE_PATH"/machines/default/libvirt/id "$VAGRANT_DOTFILE_PATH"/plugins.json; echo " $LIBVIRT_DEFAULT_URI $PWD"; rm -r "$VAGRANT_DOTFILE_PATH"/machines) >{seen}\n'  # noqa: E501
    program.write_text(f"#!/bin/sh\n{script}cat recorded\n")
    machines_of(Project.named(str(folder)), NOWHERE)
    assert seen.read_text() == f"52296acd{{}} {NOWHERE['uri']} {folder}\n"
    assert (folder / ".vagrant/machines/default/libvirt/id").read_text() == "52296acd"


@pytest.mark.parametrize(
    ("provider", "title", "line"),
    [
        ("virtualbox", "VirtualBox", "--nested-hw-virt"),
        ("vmware_desktop", "VMware Workstation and Fusion", "vhv.enable"),
        ("hyperv", "Hyper-V", "enable_virtualization_extensions = true"),
        ("docker", "docker", "inside the guest"),
    ],
)
def test_other_providers_are_refused_with_what_the_vagrantfile_can_do(
    tmp_path: Path, provider: str, title: str, line: str
) -> None:
    """Also where there is no libvirt at all, which is why the connection fails first."""
    folder = recited(tmp_path / "p", provider, {"default": "id-1"})
    with pytest.raises(TargetError, match=f"of {title} yet") as caught:
        backends.connect(Target("vagrant", str(folder)), NOWHERE)
    assert line in caught.value.cure


def test_libvirt_that_does_not_answer_is_called_so(folder: Path) -> None:
    for name in (str(folder), "/nonexistent", "52296acd"):
        with pytest.raises(ConnectionFailed):
            backends.connect(Target("vagrant", name), NOWHERE)


# --- the finding


@dataclass(frozen=True)
class Provided:
    """A provider's facts."""

    cpu: str | None = None
    fix: Change | None = None
    power: Power = Power.RUNNING
    busy: str = ""

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
    project = Project(Path("/lab"), Path("/lab/Vagrantfile"))
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
    for text in ("", "# libvirt.nested = true\n", "  #libvirt.nested = true", "v.nested = false"):
        *_, finding = judged(text, Goal(), provided, machine)
        assert (finding.check, finding.status) == ("vm-vagrantfile", Status.WARN)
        assert line in finding.cure


@pytest.mark.parametrize(
    "line", ["  v.nested = true", "libvirt.cpu_mode='host-passthrough'", "if x then v.nested=true end"]
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
    _, agent, _ = judged("", Goal(), Provided(), "web")
    assert agent.cure == (
        "cd /lab && vagrant ssh-config web > ssh.config && "
        "nestvirt check --vagrant /lab --machine web --ssh web --ssh-config ssh.config"
    )


def test_the_setting_is_libvirts() -> None:
    assert facts.SETTING == "cpu"


# --- one VM, named two ways


def test_records_and_locks_are_those_of_the_hypervisors_vm(tmp_path: Path) -> None:
    journal, plain = Journal(tmp_path), Vm("uuid", "lab_default")
    handed_over = replace(plain, hypervisor="libvirt")
    record = journal.begin("enable", Target("vagrant", "/lab"), handed_over, Power.RUNNING, {})
    [run] = journal.runs()
    assert run.vm == handed_over
    for backend, vm in (("libvirt", plain), ("vagrant", handed_over)):
        assert journal.unfinished(backend, vm) == run
        assert run.is_of("lab_default", backend)
    assert run.is_of("/lab", "vagrant")
    assert journal.unfinished("proxmox", plain) is None
    record.end("applied")
    with journal.lock("libvirt", plain), pytest.raises(Busy), journal.lock("vagrant", handed_over):
        pass


# --- the command line


def options(**given: str) -> dict[str, Any]:
    return dict.fromkeys((*VMS, "machine")) | given


@pytest.mark.parametrize("machine", [None, "web"])
@pytest.mark.parametrize("place", ["lab", "lab#1"])
def test_a_name_leads_back_to_its_options(tmp_path: Path, place: str, machine: str | None) -> None:
    folder = str(tmp_path / place)
    given = options(vagrant=folder, **({"machine": machine} if machine else {}))
    name = named(given)
    assert name is not None
    target = Target(*name)
    assert Target.parse(str(target)) == target
    assert folder_and_machine(target.name) == (Path(folder), machine)
    words = ["--vagrant", folder, *(["--machine", machine] if machine else [])]
    assert words_for("vagrant", target.name) == words


def test_relative_folder_is_recorded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert target_name(".", None) == str(tmp_path)


def test_machine_is_vagrants_alone() -> None:
    with pytest.raises(click.UsageError, match="--machine goes with --vagrant"):
        named(options(machine="web"))
    with pytest.raises(click.UsageError, match="--machine goes with --vagrant"):
        named(options(machine="web", libvirt="x"))
    assert words_for("libvirt", "x") == ["--libvirt", "x"]
