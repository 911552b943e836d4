"""powershell.exe as a WinRM service starts it."""

from __future__ import annotations

import base64

import pytest

from tests.peers.pwsh import Invocation, PowerShell, Result

OPTIONS = ("-NoProfile", "-NonInteractive", "-EncodedCommand")


def run(shell: PowerShell, source: str, stdin: bytes = b"") -> Result:
    encoded = base64.b64encode(source.encode("utf-16-le")).decode()
    return shell(Invocation("powershell.exe", (*OPTIONS, encoded), stdin))


@pytest.fixture
def shell() -> PowerShell:
    return PowerShell()


def test_what_it_writes(shell: PowerShell) -> None:
    assert run(shell, "'one'; 2; $null = 3") == Result(b"one\r\n2\r\n")
    assert run(shell, "[Console]::Out.WriteLine('ä')") == Result("ä\r\n".encode())


def test_its_standard_input(shell: PowerShell) -> None:
    assert run(shell, "@($input).Count; @($input)[1]", b"a\r\nb\n") == Result(b"2\r\nb\r\n")


def test_its_exit_code(shell: PowerShell) -> None:
    assert run(shell, "exit 3; 'never'") == Result(code=3)


def test_an_error_that_nobody_catches_is_xml(shell: PowerShell) -> None:
    ended = run(shell, "throw '<boo>'; 'never'")
    assert (ended.stdout, ended.code) == (b"", 1)
    assert ended.stderr.startswith(b"#< CLIXML\r\n<Objs ")
    assert b"&lt;boo&gt;" in ended.stderr


def test_so_is_what_is_no_script(shell: PowerShell) -> None:
    ended = run(shell, "if (")
    assert ended.code == 1
    assert b"ParserError" in ended.stderr


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("cmd.exe", ("/c", "dir")),
        ("powershell.exe", ("-Command", "Get-VM")),
        ("powershell.exe", ("-EncodedCommand",)),
    ],
)
def test_another_way_to_start_it_is_not_known(
    shell: PowerShell, command: str, arguments: tuple[str, ...]
) -> None:
    assert shell(Invocation(command, arguments)).code == 70
    assert len(shell.unknown) == 1


def test_what_a_script_uses_and_nobody_knows_is_kept_for_the_tests_end(shell: PowerShell) -> None:
    assert run(shell, "try { Get-Cat } catch { 'caught' }").stdout == b""
    assert shell.unknown == ["the cmdlet Get-Cat"]


def test_an_encoding_that_is_none_is_an_error(shell: PowerShell) -> None:
    assert shell(Invocation("powershell.exe", ("-EncodedCommand", "?"))).code == 1
    assert shell.unknown == []
