"""SSH with a program named ``ssh`` of our own on PATH: it notes how it is called, and does as it is told."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nestvirt.errors import GuestUnreachable, SettingsError
from nestvirt.guest.channel import NOT_FOUND, OUTPUT_LIMIT, Completed
from nestvirt.guest.ssh import SshChannel, destination_of

SSH = """\
#!{python} -I
import json, os, sys, time
with open({calls!r}, "a") as calls:
    print(json.dumps({{"argv": sys.argv[1:], "stdin": sys.stdin.read(), "pid": os.getpid()}}), file=calls)
{behaviour}
"""
FLOOD = """
while True:
    os.write({fd}, b"x" * 65536)
"""


class FakeSsh:
    """The program, and the calls that it noted."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "ssh"
        self.calls_file = folder / "calls"

    def behave(self, code: str) -> None:
        text = SSH.format(python=sys.executable, calls=str(self.calls_file), behaviour=code)
        self.program.write_text(text, encoding="utf-8")
        self.program.chmod(0o755)

    @property
    def calls(self) -> list[dict[str, object]]:
        if not self.calls_file.exists():  # killed before it came to that
            return []
        return [json.loads(line) for line in self.calls_file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSsh:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    fake = FakeSsh(tmp_path)
    fake.behave("")
    return fake


def test_a_program_runs_to_its_end(ssh: FakeSsh) -> None:
    ssh.behave("print('out'); print('err', file=sys.stderr); sys.exit(3)")
    done = SshChannel("admin@web-01").run(["prog"], stdin=b"data\n", timeout=60)
    assert done == Completed(3, b"out\n", b"err\n")
    assert ssh.calls[0]["stdin"] == "data\n"


@pytest.mark.parametrize(
    "argument",
    [
        "",
        " ",
        "a b",
        "'",
        '"',
        "; rm -rf /",
        "$(reboot)",
        "`reboot`",
        "a\nb",
        "*",
        "~",
        "\\",
        "-x",
        "漢 ß",
        "#",
        "&&",
    ],
)
def test_an_argument_stays_one_argument(ssh: FakeSsh, argument: str) -> None:
    SshChannel("web-01").run(["printf", "%s", argument, "end"], timeout=60)
    argv = ssh.calls[0]["argv"]
    assert isinstance(argv, list)
    # What sshd does with it: it hands the string to a shell.
    seen = subprocess.run(
        ["sh", "-c", f"set -- {argv[-1]}; printf '%s\\0' \"$@\""], capture_output=True, check=True
    )
    assert seen.stdout.decode().split("\0")[:-1] == ["printf", "%s", argument, "end"]


@pytest.mark.parametrize("destination", ["web-01", "admin@web-01", "-oProxyCommand=reboot", "--", "a b"])
def test_the_destination_is_never_an_option(ssh: FakeSsh, destination: str) -> None:
    SshChannel(destination, ["-F", "a config"]).run(["true"], timeout=60)
    argv = ssh.calls[0]["argv"]
    assert isinstance(argv, list)
    assert argv[-3:] == ["--", destination, "true"]
    assert argv[argv.index("-F") + 1] == "a config"
    assert "BatchMode=yes" in argv


def test_ssh_failing_itself_is_unreachable_in_its_own_words(ssh: FakeSsh) -> None:
    ssh.behave(
        "sys.stderr.write('ssh: connect to host web-01 port 22: Connection refused\\n'); sys.exit(255)"
    )
    with pytest.raises(GuestUnreachable) as caught:
        SshChannel("admin@web 01").run(["true"], timeout=60)
    assert caught.value.evidence == "ssh: connect to host web-01 port 22: Connection refused"
    assert shlex.quote("admin@web 01") in caught.value.cure


@pytest.mark.parametrize("code", [1, 126, NOT_FOUND, 254])
def test_other_codes_are_the_programs_own(ssh: FakeSsh, code: int) -> None:
    ssh.behave(f"sys.exit({code})")
    assert SshChannel("web-01").run(["true"], timeout=60).code == code


@pytest.mark.parametrize("fd", [1, 2], ids=["stdout", "stderr"])
def test_a_flood_is_cut_and_its_program_killed(ssh: FakeSsh, fd: int) -> None:
    ssh.behave(FLOOD.format(fd=fd))
    done = SshChannel("web-01").run(["true"], timeout=60)
    assert done.truncated
    assert max(len(done.stdout), len(done.stderr)) == OUTPUT_LIMIT
    assert not Path(f"/proc/{ssh.calls[0]['pid']}").exists()


def test_output_of_just_the_limit_is_whole(ssh: FakeSsh) -> None:
    ssh.behave(f"sys.stdout.write('x' * {OUTPUT_LIMIT})")
    done = SshChannel("web-01").run(["true"], timeout=60)
    assert (len(done.stdout), done.truncated, done.code) == (OUTPUT_LIMIT, False, 0)


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param("time.sleep(600)", id="silent"),
        pytest.param("os.close(1); os.close(2); time.sleep(600)", id="closes its output and stays"),
        pytest.param("while True: print('.', flush=True); time.sleep(0.05)", id="trickles"),
    ],
)
def test_the_deadline_holds_and_leaves_nothing_behind(ssh: FakeSsh, behaviour: str) -> None:
    ssh.behave(behaviour)
    with pytest.raises(GuestUnreachable, match="within"):
        SshChannel("web-01").run(["true"], timeout=1.5)
    for call in ssh.calls:
        assert not Path(f"/proc/{call['pid']}").exists()


def test_big_input_meets_a_program_that_reads_none(ssh: FakeSsh) -> None:
    ssh.program.write_text("#!/bin/sh\necho hello\n", encoding="utf-8")
    done = SshChannel("web-01").run(["true"], stdin=b"x" * 4_000_000, timeout=60)
    assert done.stdout == b"hello\n"


def test_without_an_ssh_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuestUnreachable, match="no ssh program") as caught:
        SshChannel("web-01").ping(timeout=60)
    assert "install" in caught.value.cure


def test_ping_tries_again_until_the_guest_lets_it_in(ssh: FakeSsh) -> None:
    ssh.behave(f"sys.exit(0 if len(open({str(ssh.calls_file)!r}).readlines()) > 1 else 255)")
    SshChannel("web-01").ping(timeout=60)
    assert len(ssh.calls) == 2


def test_ping_gives_up_at_the_deadline(ssh: FakeSsh) -> None:
    ssh.behave("sys.stderr.write('Connection refused'); sys.exit(255)")
    with pytest.raises(GuestUnreachable) as caught:
        SshChannel("web-01").ping(timeout=0.5)
    assert caught.value.evidence == "Connection refused"


def test_a_wrong_host_key_is_not_tried_again(ssh: FakeSsh) -> None:
    ssh.behave("sys.stderr.write('Host key verification failed.'); sys.exit(255)")
    with pytest.raises(GuestUnreachable) as caught:
        SshChannel("web-01").ping(timeout=600)
    assert "Host key" in caught.value.evidence
    assert len(ssh.calls) == 1


@pytest.mark.parametrize(
    ("address", "destination", "options"),
    [
        ("ssh://root@pve1", "root@pve1", []),
        ("ssh://PVE-Alias", "PVE-Alias", []),
        ("ssh://root@pve1:2222", "root@pve1", ["-p", "2222"]),
        ("ssh://root@[2001:db8::1]:22", "root@2001:db8::1", ["-p", "22"]),
        ("ssh://root@[2001:db8::1]", "root@2001:db8::1", []),
    ],
)
def test_address_is_read_as_it_is_written(address: str, destination: str, options: list[str]) -> None:
    assert destination_of(address) == (destination, options)


@pytest.mark.parametrize(
    "address", ["ssh://", "ssh://root:hunter2@pve1", "ssh://pve1/etc", "ssh://root@pve1:hunter2"]
)
def test_address_that_cannot_be_used_is_refused_without_its_secret(address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        destination_of(address)
    assert "hunter2" not in f"{caught.value.message}{caught.value.evidence}{caught.value.cure}"
