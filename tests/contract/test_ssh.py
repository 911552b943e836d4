"""SshChannel against a real sshd on loopback, with this machine as the guest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestvirt.errors import GuestUnreachable
from nestvirt.guest import verify
from nestvirt.guest.ssh import SshChannel
from tests.lab import LabError, need
from tests.lab.sshd import Sshd


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    """A server that lets the current user in."""
    server = Sshd()
    try:
        server.__enter__()
    except (LabError, OSError) as error:
        need(error, "sshd cannot be brought up")
        raise
    yield server
    server.close()


def test_probe_over_ssh_says_what_it_says_here(sshd: Sshd) -> None:
    channel = SshChannel(sshd.host, ("-F", str(sshd.config)))
    channel.ping(timeout=10)
    there, here = verify.probe_guest(channel, timeout=30), verify.probe_here()
    assert there.proof.channel == "ssh"
    assert (there.proof.verdict, there.proof.cause) == (here.proof.verdict, here.proof.cause)
    assert [(f.check, f.status) for f in there.findings] == [(f.check, f.status) for f in here.findings]


def test_arguments_arrive_as_they_are(sshd: Sshd) -> None:
    hostile = ["a b", "$(id)", ";reboot", "'", '"', "\n", "*", "-n", ""]
    script = "import sys; sys.stdout.write(repr(sys.argv[1:])); sys.stdout.write(sys.stdin.read())"
    channel = SshChannel(sshd.host, ("-F", str(sshd.config)))
    done = channel.run([sys.executable, "-c", script, *hostile], stdin=b"<data>", timeout=20)
    assert done.stdout.decode() == f"{hostile!r}<data>"
    assert channel.run(["no-such-program"], timeout=20).code == 127


def test_unknown_host_key_is_refused_at_once(sshd: Sshd, tmp_path: Path) -> None:
    options = ("-F", str(sshd.config), "-o", f"UserKnownHostsFile={tmp_path}/none")
    with pytest.raises(GuestUnreachable) as caught:
        SshChannel(sshd.host, options).ping(timeout=20)
    assert "verification failed" in caught.value.evidence
    assert caught.value.cure


def test_wrong_key_is_refused_and_nothing_asks_for_a_password(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text(sshd.config.read_text().replace(str(sshd.identity), str(tmp_path / "none")))
    with pytest.raises(GuestUnreachable) as caught:
        SshChannel(sshd.host, ("-F", str(config), "-o", "IdentityAgent=none")).run(["true"], timeout=20)
    assert "Permission denied" in caught.value.evidence
