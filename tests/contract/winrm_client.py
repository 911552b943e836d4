"""Pywinrm as it is, and a program that echoes, for the tests of the WinRM peer."""

from __future__ import annotations

from typing import Any

from winrm.protocol import Protocol

from tests.peers.winrm.accounts import Account
from tests.peers.winrm.command import Invocation, Result
from tests.peers.winrm.server import OPS, Endpoint

OTHER = Account("LAB\\other", "other-secret-6", "other@LAB.TEST")
OUTSIDER = Account("LAB\\outsider", "outsider-secret-7", "outsider@LAB.TEST", remote=False)
POWERSHELL = "powershell.exe"


def echo(invocation: Invocation) -> Result:
    """Says how it was started; what is to fail, fails."""
    assert invocation.stdin != b"fail"
    words = [invocation.user, invocation.command, *invocation.arguments, invocation.stdin.decode()]
    return Result("\n".join(words).encode(), b"some words", 7)


def client(host: Endpoint, transport: str = "ntlm", *, tls: bool = True, **options: Any) -> Protocol:
    """Pywinrm, which trusts the host's CA."""
    known = {
        "endpoint": host.https_url if tls else host.http_url,
        "transport": transport,
        "username": OPS.name,
        "password": OPS.password,
        "ca_trust_path": host.certificates.ca_file,
        "proxy": None,
    }
    return Protocol(**{**known, **options})


def run(
    protocol: Protocol,
    command: str = POWERSHELL,
    arguments: tuple[str, ...] = (),
    *,
    stdin: tuple[bytes, ...] = (),
    direct: bool = True,
) -> tuple[bytes, bytes, int]:
    """A shell, a command in it, its output, and the end of the shell."""
    shell = protocol.open_shell(codepage=65001)
    try:
        started = protocol.run_command(
            shell, command, arguments, console_mode_stdin=not stdin, skip_cmd_shell=direct
        )
        for number, part in enumerate(stdin, 1):
            protocol.send_command_input(shell, started, part, end=number == len(stdin))
        return protocol.get_command_output(shell, started)
    finally:
        protocol.close_shell(shell, close_session=False)
