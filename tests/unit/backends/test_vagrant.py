"""What Vagrant says, read; and what it means. The answers were recorded with Vagrant 2.3.4."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from nestvirt import backends
from nestvirt.backends.base import VM, Place
from nestvirt.backends.vagrant import VagrantBackend, status
from nestvirt.backends.vagrant.project import Project, folder_and_machine, target_name
from nestvirt.backends.vagrant.status import Line, machines_of, parse
from nestvirt.cli.options import VMS, named, words_for
from nestvirt.errors import Busy, ConnectionFailed, Error, MissingExtra, TargetError
from nestvirt.journal import Journal
from nestvirt.model import Power, Target, Vm
from tests.lab import wait_for
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


@pytest.mark.parametrize("kind", ["below", "absolute"])
def test_data_is_where_the_search_ended_not_where_the_named_file_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (folder / "conf").mkdir()
    (folder / "conf/Vagrantfile").touch()
    place = folder if kind == "absolute" else Path()
    monkeypatch.setenv("VAGRANT_VAGRANTFILE", str(place / "conf/Vagrantfile"))
    project = Project.named(str(folder))
    assert (project.vagrantfile, project.data) == (folder / "conf/Vagrantfile", folder / ".vagrant")


def test_home_of_a_user_that_is_not_there_is_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", "~nobody-here/data")
    assert Project.named(str(folder)).data == folder / "~nobody-here/data"


@pytest.mark.parametrize("name", ["/nonexistent/place", "/nonexistent/place#web"])
def test_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(TargetError, match="no folder /nonexistent/place"):
        Project.named(name)


def test_folder_without_a_vagrantfile(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no Vagrantfile in"):
        Project.named(str(tmp_path))


@pytest.mark.parametrize("name", ["n" * 300, f"lab/{'n' * 300}"])
def test_folder_that_may_not_be_looked_into(folder: Path, name: str) -> None:
    """A name too long stands for whatever the kernel refuses: root, as tests may be, is refused little."""
    with pytest.raises(TargetError, match="cannot be looked into") as caught:
        Project.named(target_name(str(folder.parent / name), None))
    assert "File name too long" in caught.value.evidence


def test_vagrantfile_that_may_not_be_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAGRANT_VAGRANTFILE", "n" * 300)
    with pytest.raises(TargetError, match="cannot be looked into"):
        Project.named(str(folder))


def test_folder_that_is_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TargetError, match="no folder"):
        Project.named(target_name(str(tmp_path / "loop"), None))


def test_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(TargetError, match="cannot be looked into"):
        target_name(".", None)
    monkeypatch.chdir(tmp_path)


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


def test_what_to_do_can_be_pasted_where_the_folder_has_a_space(tmp_path: Path) -> None:
    folder = recited(tmp_path / "my lab", "libvirt", {"default": None})
    project = Project.named(str(folder))
    [machine] = machines_of(project, NOWHERE)
    with pytest.raises(TargetError) as caught:
        project.identity(machine)
    assert caught.value.cure.endswith(f": cd '{folder}' && vagrant up")
    (folder / "recorded-code").write_text("1")
    with pytest.raises(TargetError) as caught:
        machines_of(project, NOWHERE)
    assert caught.value.cure.endswith(f": cd '{folder}' && vagrant status")


def test_data_folder_that_cannot_be_copied(folder: Path, tmp_path: Path) -> None:
    (folder / ".vagrant").rename(tmp_path / "old")
    (folder / ".vagrant").symlink_to(".vagrant")
    with pytest.raises(TargetError, match="data cannot be copied") as caught:
        machines_of(Project.named(str(folder)), NOWHERE)
    assert "symbolic links" in caught.value.evidence


def test_program_that_is_none(folder: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program.write_text("no script, and no program")
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(MissingExtra) as caught:
        machines_of(Project.named(str(folder)), NOWHERE)
    assert "format" in caught.value.evidence


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


@pytest.mark.parametrize("ending", [subprocess.TimeoutExpired("vagrant", 1), KeyboardInterrupt()])
def test_what_vagrant_started_ends_with_it(
    folder: Path, program: Path, monkeypatch: pytest.MonkeyPatch, ending: BaseException
) -> None:
    """The packages of its maker have a launcher, whose child is the Vagrant that works."""
    os.mkfifo(folder / "started")
    program.write_text("#!/bin/sh\nsleep 600 &\necho $! >started\nwait\n")
    children: list[int] = []

    def end(_process: object, **_options: object) -> tuple[str, str]:
        children.append(int((folder / "started").read_text()))
        raise ending

    monkeypatch.setattr(subprocess.Popen, "communicate", end)
    with pytest.raises((ConnectionFailed, KeyboardInterrupt)):
        machines_of(Project.named(str(folder)), NOWHERE)
    wait_for(lambda: _has_ended(children[0]), 10, "Vagrant's child to end")


def _has_ended(process: int) -> bool:
    """Also where nobody has asked yet how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_words_are_not_buried_in_vagrants_log(
    folder: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAGRANT_LOG", "debug")
    program.write_text('#!/bin/sh\necho "log: ${VAGRANT_LOG-none}" >&2\nexit 1\n')
    with pytest.raises(TargetError) as caught:
        machines_of(Project.named(str(folder)), NOWHERE)
    assert caught.value.evidence == "log: none"


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


def test_host_is_the_hypervisors_to_tell() -> None:
    class Hypervisor:
        kind = VM
        endpoint = NOWHERE

        def host_of(self, vm: Vm) -> Place:
            return Place(f"the host of {vm.name}", "local")

    hypervisor: Any = Hypervisor()
    assert VagrantBackend(hypervisor).host_of(Vm("uuid", "web")) == Place("the host of web", "local")


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
