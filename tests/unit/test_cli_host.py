"""The command line with a host: what goes with what, what is shown, what reaches the backend."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nestvirt import api, backends, cli, settings
from nestvirt.backends import AUTO
from nestvirt.backends.host import HostBackend
from nestvirt.backends.host.with_vm import WithHost
from nestvirt.cli.enable import enable
from nestvirt.journal import Journal, Record
from nestvirt.model import Change, Power, Target, Vm
from tests.peers.memory import MemoryBackend
from tests.peers.scripted_host import IDENTITY, ScriptedHost

WEB = "c0ffee00-0000-4000-8000-000000000001"
ZERO = {"/etc/modprobe.d/kvm.conf": "options kvm_amd nested=0\n"}


class Libvirt(MemoryBackend):
    """A hypervisor in a file, in libvirt's place."""

    asked: Mapping[str, str] = {}

    @classmethod
    def connect(cls, target: Target, endpoint: Mapping[str, str]) -> Any:
        cls.asked = endpoint
        backend = cls({"path": endpoint["uri"]})
        backend.endpoint = {"uri": endpoint["uri"]}
        return backend


class Done(NamedTuple):
    """How a command ended, and what it printed on stdout and stderr."""

    code: object
    output: str


Nestvirt = Callable[[str], Done]


@pytest.fixture
def nestvirt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nestvirt:
    """Runs a command line in this process."""
    monkeypatch.setattr(cli, "_prepare", lambda: None)

    def run(words: str) -> Done:
        monkeypatch.setattr("sys.argv", ["nestvirt", *shlex.split(words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return Done(ended.value.code, " ".join((said.out + said.err).split()))

    return run


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedHost:
    """A host that forbids nesting, behind every address; and a VM of libvirt's, which is off."""
    for variable in [v for known in settings.SETTINGS.values() for s in known for v in s.variables]:
        monkeypatch.delenv(variable, raising=False)
    vms = tmp_path / "vms.json"
    vms.write_text(json.dumps({WEB: {"name": "web-01", "power": "stopped", "nested": "off", "live": None}}))
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", str(vms))
    monkeypatch.setenv("NESTVIRT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NESTVIRT_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch(mode=0o600)
    peer = ScriptedHost(dict(ZERO))
    monkeypatch.setattr(HostBackend, "connect", lambda _target, asked: HostBackend(peer, asked, lambda: None))
    monkeypatch.setitem(backends.BACKENDS, "libvirt", f"{__name__}:Libvirt")
    return peer


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("enable --libvirt web-01 --drain a", "--with-host"),
        ("disable --libvirt web-01 --drain a", "--with-host"),
        ("enable --host --drain ''", "empty name"),
        ("enable --host --drain a --no-restart", "--no-restart"),
        ("enable --libvirt web-01 --with-host --no-restart", "--no-restart"),
        ("enable --host --with-host ssh://root@node1", "--with-host goes with a VM"),
        ("enable --host --cpu host", "--cpu is for a VM"),
        ("enable --host --ssh root@node1", "not for --host"),
        ("check --host --load-modules", "not for --host"),
        ("check --host --connect qemu:///system", "--connect"),
        ("check --host --machine default", "--machine goes with --vagrant"),
        ("check --host local --libvirt web-01", "One VM at a time"),
        ("check --host ''", "empty name"),
    ],
)
def test_what_does_not_go_together_is_refused(
    nestvirt: Nestvirt, host: ScriptedHost, args: str, words: str
) -> None:
    done = nestvirt(args)
    assert done.code == 2, done.output
    assert words in done.output
    assert host.files == ZERO


@pytest.mark.parametrize(
    ("name", "words"), [("node1", "ssh://root@node1"), ("ssh://root:secret@node1", "holds no password")]
)
def test_what_is_no_host_is_a_clear_error(nestvirt: Nestvirt, name: str, words: str) -> None:
    done = nestvirt(f"check --host {name}")
    assert done.code == 2
    assert words in done.output
    assert "secret" not in done.output


def test_a_host_is_planned_enabled_and_undone(nestvirt: Nestvirt, host: ScriptedHost) -> None:
    planned = nestvirt("enable --host --dry-run")
    assert planned.code == 0
    assert "it would write /etc/modprobe.d/zz-nestvirt.conf and load the kvm module anew" in planned.output
    assert host.files == ZERO

    done = nestvirt("enable --host --yes")
    assert done.code == 0
    assert "host:local: PASS KVM lets the VMs of this host nest" in done.output
    assert host.nested == "1"
    undone = nestvirt("undo --yes")
    assert undone.code == 0
    assert "host PASS vm-restored /etc/modprobe.d/zz-nestvirt.conf is exactly" in undone.output
    assert (host.files, host.nested) == (ZERO, "0")


def test_the_vms_to_drain_are_named_in_the_plan_and_while_it_works(
    nestvirt: Nestvirt, host: ScriptedHost
) -> None:
    host.vms = {WEB: True}
    done = nestvirt("enable --host --yes --drain vm100")
    assert done.code == 0
    assert "mind host-users: to load kvm_amd anew, vm100 (pid 100) will be shut down" in done.output
    assert "stopping vm100 and the kvm module of node1" in done.output
    assert host.vms == {WEB: True}
    assert nestvirt("undo --yes --drain vm100").code == 0
    assert (host.files, host.nested, host.vms) == (ZERO, "0", {WEB: True})


def test_a_vm_in_the_way_is_named_with_the_option_that_drains_it(
    nestvirt: Nestvirt, host: ScriptedHost
) -> None:
    host.vms = {WEB: True}
    done = nestvirt("enable --host --yes")
    assert done.code == 1
    assert "add --drain vm100" in done.output
    assert "remains: load the kvm module of node1 anew" in done.output
    again = nestvirt("check --host")
    assert "see host-users" in again.output  # to enable once more would not help


def test_with_host_the_host_is_shown_apart_and_one_undo_takes_both_back(
    nestvirt: Nestvirt, host: ScriptedHost
) -> None:
    done = nestvirt("enable --libvirt web-01 --with-host local --yes")
    assert done.code == 3  # the VM is off: there is no guest to prove it in
    assert "on its host, local, which other VMs may run on:" in done.output
    assert "loading anew kvm_amd" in done.output
    assert host.nested == "1"
    run = Journal(settings.state_path()).find(None)
    assert (run.endpoint["with_host"], run.endpoint["host_id"]) == ("local", IDENTITY)
    assert nestvirt("undo --yes").code == 0
    assert (host.files, host.nested) == (ZERO, "0")


@pytest.mark.parametrize("backend", ["libvirt", "vagrant"])
def test_the_host_is_put_around_a_vms_backend_once(host: ScriptedHost, tmp_path: Path, backend: str) -> None:
    endpoint = {"uri": str(tmp_path / "vms.json"), "with_host": AUTO, "drain": "a"}
    assert isinstance(backends.connect(Target(backend, WEB), endpoint), WithHost)
    assert set(Libvirt.asked) == {"uri"}


def test_without_a_value_the_connection_says_where_the_host_is() -> None:
    [option] = [param for param in enable.params if param.name == "with_host"]
    assert vars(option)["flag_value"] == AUTO


def test_what_a_dead_run_has_shut_down_is_started_and_what_an_ended_one_had_is_left(
    nestvirt: Nestvirt, host: ScriptedHost
) -> None:
    def begin() -> Record:
        asked = {"drain": f"libvirt:{WEB}"}
        record = journal.begin("enable", Target("host", "local"), Vm(IDENTITY, "node1"), Power.RUNNING, asked)
        record.intend(Change("/etc/modprobe.d/zz-nestvirt.conf", None, "x"))
        return record

    host.vms = {WEB: False}
    journal = Journal(settings.state_path())
    begin()
    assert nestvirt("undo --yes").code == 0
    assert host.vms == {WEB: True}

    host.vms = {WEB: False}
    begin().end("applied")
    assert nestvirt("undo --yes").code == 0
    assert host.vms == {WEB: False}


@pytest.mark.parametrize("way", ["command", "python"])
def test_undo_of_one_that_died_after_a_dead_run_with_the_host_reaches_the_host(
    nestvirt: Nestvirt, host: ScriptedHost, way: str
) -> None:
    nestvirt("enable --libvirt web-01 --with-host local --yes")
    [record] = (settings.state_path() / "runs").iterdir()
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-1]))  # as if it had been killed
    journal = Journal(settings.state_path())
    run = journal.find(None)
    alone = {"uri": run.endpoint["uri"]}
    newest = journal.begin("enable", run.target, run.vm, Power.RUNNING, alone)
    if way == "command":
        assert nestvirt("undo --yes").code == 0
    else:
        api.undo(newest.id)
    assert (host.files, host.nested) == (ZERO, "0")
    assert {run.state for run in journal.runs()} == {"undone"}
