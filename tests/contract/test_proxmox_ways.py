"""Proxmox without its HTTPS API: by pvesh on the node itself, and by pvesh over a real SSH on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from nestvirt import backends, engine
from nestvirt.errors import AccessDenied, ChangeRejected, ConnectionFailed, Error, PowerError
from nestvirt.journal import Journal
from nestvirt.model import Change, Status, Target
from tests.contract.basis import MANNER, OFF
from tests.contract.conformance import Conformance
from tests.contract.runs import enable, found, session
from tests.lab import LabError, need
from tests.lab.sshd import Sshd
from tests.peers.proxmox_rig import LocalRig
from tests.peers.pve_cpu import PVE_7, PVE_8, Release
from tests.peers.pve_node import NOISE, Node
from tests.peers.pve_server import Served

ANY = Target("proxmox", "any")


@pytest.fixture
def local(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRig:
    """On pve1 itself: its pvesh goes first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return LocalRig(served, Node(folder))


class TestProxmoxLocal(Conformance):
    """The whole suite once more."""

    @pytest.fixture
    def rig(self, local: LocalRig) -> LocalRig:
        return local


def test_warnings_on_stderr_are_no_failure(local: LocalRig, journal: Journal) -> None:
    local.node.be(local.served, noise=NOISE)
    name = local.make()
    before = local.see(name)
    result = enable(local, journal, name)
    assert result.conclusion is Status.PASS
    engine.undo(session(local, journal, name), journal.find(result.run), MANNER)
    assert local.see(name).stored == before.stored


def test_refusal_has_pveshs_own_words_and_nothing_was_written(local: LocalRig, journal: Journal) -> None:
    name = local.make(running=False)
    before = local.see(name)
    now = session(local, journal, name)
    with pytest.raises(ChangeRejected) as caught:
        now.backend.apply(now.vm, Change("cpu", "x86-64-v2-AES", "HOST"))
    assert "Built-in cputype 'HOST' is not defined" in caught.value.evidence
    assert local.see(name) == before


def test_failed_start_is_seen_though_its_upid_is_printed(local: LocalRig, journal: Journal) -> None:
    name = local.make(quirk="fragile")
    before = local.see(name)
    with pytest.raises(PowerError) as caught:
        enable(local, journal, name)
    assert "QEMU exited with code 1" in caught.value.evidence
    assert "microcode" in caught.value.evidence  # which only the task's log has
    assert local.see(name).stored == before.stored


def test_nested_parameter_is_read_on_the_node_itself(local: LocalRig, journal: Journal) -> None:
    local.pve.hosts["pve1"].nested = False
    name = local.make()
    before = local.see(name)
    result = enable(local, journal, name)
    assert [f.check for f in result.blockers] == ["host-nested"]
    assert local.see(name) == before


@pytest.mark.parametrize("release", [PVE_7, PVE_8], ids=lambda r: r.release)
def test_older_versions(local: LocalRig, journal: Journal, release: Release) -> None:
    """They have no listing of CPU flags, and other forms of exec."""
    name = local.make(cpu="kvm64")
    assert enable(local, journal, name).conclusion is Status.PASS
    assert local.vm(name).system.broken_pipes == 0
    assert engine.reach(session(local, journal, name), OFF, MANNER).conclusion is Status.PASS


def test_machine_without_pvesh_is_no_proxmox_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("env", "sudo", "sh"):
        (tmp_path / program).symlink_to("/usr/bin/env" if program == "env" else "/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(ConnectionFailed, match="pvesh"):
        backends.connect(ANY, {"endpoint": "local"})


# --- over SSH


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bin")


@pytest.fixture(scope="module")
def sshd(bin_folder: Path) -> Iterator[Sshd]:
    """A node: who logs in finds its pvesh."""
    server = Sshd(path=f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    try:
        server.__enter__()
    except (LabError, OSError) as error:
        need(error, "sshd cannot be brought up")
        raise
    yield server
    server.close()


class SshRig(LocalRig):
    """From elsewhere, over SSH."""

    def __init__(self, served: Served, node: Node, sshd: Sshd) -> None:
        super().__init__(served, node)
        self.sshd = sshd

    @property
    def endpoint(self) -> Mapping[str, str]:
        return {"endpoint": f"ssh://{self.sshd.user}@{self.sshd.host}", "ssh_config": str(self.sshd.config)}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        return {**self.endpoint, "endpoint": f"ssh://{self.sshd.user}@127.0.0.1:1"}


@pytest.fixture
def ssh(served: Served, bin_folder: Path, sshd: Sshd) -> SshRig:
    return SshRig(served, Node(bin_folder), sshd)


def test_ssh_enables_proves_and_undoes_amid_noise(ssh: SshRig, journal: Journal) -> None:
    ssh.node.be(ssh.served, noise=NOISE)
    name = ssh.make()
    before = ssh.see(name)
    result = enable(ssh, journal, name)
    assert result.conclusion is Status.PASS
    assert found(result, "host-nested").status is Status.PASS
    assert ssh.see(name).nested
    engine.undo(session(ssh, journal, name), journal.find(result.run), MANNER)
    assert ssh.see(name).stored == before.stored


def test_ssh_failed_start_is_put_back(ssh: SshRig, journal: Journal) -> None:
    name = ssh.make(quirk="fragile")
    before = ssh.see(name)
    with pytest.raises(PowerError) as caught:
        enable(ssh, journal, name)
    assert "QEMU exited with code 1" in caught.value.evidence
    assert ssh.see(name).stored == before.stored
    assert ssh.see(name).running


def test_ssh_unknown_host_key_is_refused(ssh: SshRig, tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text(ssh.sshd.config.read_text().replace(str(ssh.sshd.known_hosts), str(tmp_path / "none")))
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(ANY, {**ssh.endpoint, "ssh_config": str(config)})
    assert "verification failed" in caught.value.evidence
    assert ssh.pve.traffic.others == 0


def test_ssh_no_answer_is_connection_failed(ssh: SshRig) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        backends.connect(ANY, ssh.dead_endpoint)
    assert caught.value.cure


def test_ssh_refused_key_is_access_denied(ssh: SshRig, tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text(ssh.sshd.config.read_text().replace(str(ssh.sshd.identity), str(tmp_path / "none")))
    with pytest.raises(AccessDenied), _no_agent():
        backends.connect(ANY, {**ssh.endpoint, "ssh_config": str(config)})


def test_ssh_refusal_of_pvesh_is_not_taken_for_a_lost_connection(ssh: SshRig, journal: Journal) -> None:
    """Both end with 255: ssh where it fails, and pvesh where it is refused something."""
    name = ssh.make(running=False)
    now = session(ssh, journal, name)
    with pytest.raises(ChangeRejected) as caught:
        now.backend.apply(now.vm, Change("cpu", "x86-64-v2-AES", "host,flags=+vmx"))
    assert "must be a subset of" in caught.value.evidence


def test_node_ssh_reads_the_parameter_beside_the_https_api(ssh: SshRig, journal: Journal) -> None:
    """cpu: host on a node with nested off starts without it, and without a word: so it is not tried."""
    ssh.pve.hosts["pve1"].nested = False
    ssh.pve.hosts["pve1"].reports = False
    name = ssh.make()
    before = ssh.see(name)
    over = {
        **super(LocalRig, ssh).endpoint,
        "node_ssh": f"{ssh.sshd.user}@{ssh.sshd.host}",
        "ssh_config": str(ssh.sshd.config),
    }
    result = enable(ssh, journal, name, endpoint=over)
    assert [f.check for f in result.blockers] == ["host-nested"]
    assert "--with-host" in result.blockers[0].cure
    assert ssh.see(name) == before


@contextmanager
def _no_agent() -> Iterator[None]:
    """An SSH agent of the person who runs the tests would know other keys."""
    saved = os.environ.pop("SSH_AUTH_SOCK", None)
    try:
        yield
    finally:
        if saved is not None:
            os.environ["SSH_AUTH_SOCK"] = saved


def test_errors_of_a_way_are_nestvirts_own() -> None:
    for endpoint in ("ssh://", "ssh://u:p@host", "http://pve:8006", "https://", "ssh://host/path"):
        with pytest.raises(Error) as caught:
            backends.connect(ANY, {"endpoint": endpoint, "api_token": "a@pve!b=c"})
        assert caught.value.exit_code == 2
        assert caught.value.cure
