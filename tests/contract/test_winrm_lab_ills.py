"""The WinRM peer against pywinrm as it is: that it is as strict as Windows, and as ill as it says."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from winrm.exceptions import (
    WinRMError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)

from tests.contract.winrm_client import OTHER, OUTSIDER, POWERSHELL, client, echo, run
from tests.peers.winrm.accounts import Account
from tests.peers.winrm.command import Result
from tests.peers.winrm.ills import Ill
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import OPS, Endpoint


@pytest.fixture
def host(certificates: Certificates) -> Iterator[Endpoint]:
    with Endpoint(echo, certificates, accounts=(OPS, OTHER, OUTSIDER)) as made:
        yield made


# --- commands


def test_stdin_is_whole_where_it_is_a_pipe(host: Endpoint) -> None:
    output, _, _ = run(client(host), stdin=(b"x" * 50_000, b"y" * 50_000, b""))
    assert output.endswith(b"x" * 50_000 + b"y" * 50_000)
    assert host.round_trips.count("Send") == 3


def test_nobody_reads_from_the_console(host: Endpoint) -> None:
    protocol = client(host)
    shell = protocol.open_shell()
    host.ail(Ill.HANG, "Command")
    command = protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
    protocol.send_command_input(shell, command, b"words", end=True)
    assert host.invocations == []


def test_program_runs_without_being_asked_for_its_output(host: Endpoint) -> None:
    protocol = client(host)
    shell = protocol.open_shell()
    protocol.run_command(shell, POWERSHELL, ("-Version",), skip_cmd_shell=True)
    assert [one.arguments for one in host.invocations] == [("-Version",)]
    assert list(host.open) == [shell]


@pytest.mark.parametrize(
    ("script", "output"),
    [("x" * 3061, (b"", 7)), ("x" * 3062, (b"The command line is too long.\r\n", 1))],
)
def test_cmd_takes_what_run_ps_may_send_and_no_more(
    host: Endpoint, script: str, output: tuple[bytes, int]
) -> None:
    encoded = base64.b64encode(script.encode("utf-16-le")).decode()
    _, stderr, code = run(client(host), f"powershell -encodedcommand {encoded}", direct=False)
    assert (stderr.replace(b"some words", b""), code) == output


def test_windows_takes_more_and_not_everything(host: Endpoint) -> None:
    room = 32766 - len(POWERSHELL) - 1
    assert run(client(host), arguments=("x" * room,))[2] == 7
    with pytest.raises(WSManFaultError) as caught:
        run(client(host), arguments=("x" * (room + 1),))
    assert caught.value.wsman_fault_code == 206
    assert host.open == {}


def test_only_powershell_is_there(host: Endpoint) -> None:
    assert run(client(host), "del", direct=False)[1].startswith(b"'del' is not recognized")
    with pytest.raises(WSManFaultError) as caught:
        run(client(host), "cmd.exe")
    assert caught.value.wsman_fault_code == 2
    assert host.invocations == []


def test_what_cmd_would_read_into_a_line_is_a_failure_of_the_test(host: Endpoint) -> None:
    run(client(host), POWERSHELL, ("-File", "a&del"), direct=False)
    assert ["cmd.exe reads more into" in str(failure) for failure in host.failures] == [True]


def test_what_the_program_raises_is_kept(host: Endpoint) -> None:
    assert run(client(host), stdin=(b"fail",))[2] == 1
    assert [type(failure) for failure in host.failures] == [AssertionError]


def test_long_output_comes_in_parts(certificates: Certificates) -> None:
    text = bytes(range(256)) * 2000
    with Endpoint(lambda _invocation: Result(text, b"end"), certificates) as host:
        assert run(client(host)) == (text, b"end", 0)
    assert host.round_trips.count("Receive") == 5


def test_signal_ends_a_command(host: Endpoint) -> None:
    protocol = client(host)
    shell = protocol.open_shell()
    host.ail(Ill.HANG, "Command")
    command = protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
    protocol.cleanup_command(shell, command)
    assert host.shells.signals == [(command, False)]
    with pytest.raises(WSManFaultError):
        protocol.get_command_output(shell, command)


def test_several_clients_come_at_once(host: Endpoint) -> None:
    def one(account: Account) -> bytes:
        return run(client(host, tls=False, username=account.name, password=account.password))[0]

    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(one, [OPS, OTHER] * 8))
    assert [output.split(b"\n")[0].decode() for output in outputs] == [OPS.name, OTHER.name] * 8
    assert host.open == {}


# --- limits


def refused(act: Callable[[], object]) -> int | None:
    with pytest.raises(WSManFaultError) as caught:
        act()
    return caught.value.wsman_fault_code or caught.value.wmierror_code


def test_each_user_has_so_many_shells(host: Endpoint) -> None:
    host.shells.most = 2
    ours, others = client(host), client(host, username=OTHER.name, password=OTHER.password)
    first, _ = ours.open_shell(), ours.open_shell()
    assert refused(ours.open_shell) == 2150859173
    others.close_shell(others.open_shell())
    ours.close_shell(first)
    ours.open_shell()


def test_shell_is_its_owners(host: Endpoint) -> None:
    shell = client(host).open_shell()
    others = client(host, username=OTHER.name, password=OTHER.password)
    assert refused(lambda: others.run_command(shell, POWERSHELL, skip_cmd_shell=True)) == 2150858843
    assert refused(lambda: others.close_shell(shell)) == 2150858843
    assert list(host.open) == [shell]


def test_commands_that_have_ended_count_until_their_shell_is_closed(host: Endpoint) -> None:
    host.shells.most_operations = 1
    protocol = client(host)
    shell = protocol.open_shell()
    command = protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
    protocol.get_command_output(shell, command)
    protocol.cleanup_command(shell, command)
    assert refused(lambda: protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)) == 2150859174
    protocol.close_shell(shell)
    run(protocol)


def test_large_request_is_refused(host: Endpoint) -> None:
    assert refused(lambda: run(client(host), stdin=(b"x" * 400_000,))) == 2150858805


def test_windows_may_speak_german(host: Endpoint) -> None:
    host.german = True
    host.ail(Ill.DENIED)
    with pytest.raises(WSManFaultError, match="Zugriff verweigert"):
        client(host).open_shell()


# --- ills


def test_operation_may_take_too_long(host: Endpoint) -> None:
    protocol = client(host, operation_timeout_sec=1, read_timeout_sec=20)
    shell = protocol.open_shell()
    host.ail(Ill.HANG, "Command")
    command = protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
    with pytest.raises(WinRMOperationTimeoutError):
        protocol.get_command_output_raw(shell, command)


@pytest.mark.parametrize(
    ("ill", "number"), [(Ill.BUSY_SHELL, 2150859174), (Ill.GONE, 2150858843), (Ill.DENIED, 5)]
)
def test_fault_comes_instead(host: Endpoint, ill: Ill, number: int) -> None:
    protocol = client(host, tls=False)
    shell = protocol.open_shell()
    host.ail(ill, "Command")
    assert refused(lambda: protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)) == number
    assert host.invocations == []
    assert (shell in host.open) is (ill is not Ill.GONE)


SPOILT: dict[Ill, tuple[type[BaseException] | tuple[type[BaseException], ...], bool]] = {
    Ill.CUT: (requests.exceptions.ConnectionError, False),
    Ill.LOST: (requests.exceptions.ConnectionError, True),
    Ill.HALF: (requests.exceptions.ChunkedEncodingError, True),
    Ill.GARBAGE: (SyntaxError, True),
    Ill.BOMB: (SyntaxError, True),
    Ill.BUSY: (WinRMTransportError, False),
    Ill.STALL: (requests.exceptions.ReadTimeout, False),
}


@pytest.mark.parametrize("ill", SPOILT)
def test_answer_is_spoilt(host: Endpoint, ill: Ill) -> None:
    kind, done = SPOILT[ill]
    protocol = client(host)
    shell = protocol.open_shell()
    host.ail(ill, "Command")
    patience = protocol.transport.read_timeout_sec
    protocol.transport.read_timeout_sec = 1 if ill is Ill.STALL else patience
    with pytest.raises(kind):
        protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
    protocol.transport.read_timeout_sec = patience
    assert bool(host.invocations) is done
    protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
    assert len(host.invocations) == 1 + done


def test_answer_may_be_another_messages(host: Endpoint) -> None:
    protocol = client(host)
    shell = protocol.open_shell()
    host.ail(Ill.FOREIGN, "Delete")
    with pytest.raises(AssertionError):
        protocol.close_shell(shell)


def test_answer_may_be_unencrypted(host: Endpoint) -> None:
    """What pywinrm takes for good."""
    protocol = client(host, tls=False)
    host.ail(Ill.PLAIN, "Create")
    assert protocol.open_shell() in host.open
    assert host.trips[0].encrypted


def test_answer_may_be_endless(host: Endpoint) -> None:
    protocol = client(host, "basic")
    protocol.open_shell()
    assert protocol.transport.session is not None
    host.ail(Ill.HUGE, "Create")
    again = host.trips[-1].text
    session, trusted = protocol.transport.session, host.certificates.ca_file
    with session.post(host.https_url, data=again, stream=True, verify=trusted) as answer:
        assert answer.headers["Content-Length"] == str(2**40)
        assert len(next(answer.iter_content(2**20))) == 2**20


def test_command_may_write_without_end(host: Endpoint) -> None:
    protocol = client(host)
    shell = protocol.open_shell()
    host.ail(Ill.FLOOD, "Command")
    command = protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
    for _ in range(3):
        stdout, _, _, done = protocol.get_command_output_raw(shell, command)
        assert len(stdout) > 100_000
        assert not done


def test_http_may_send_the_client_elsewhere(host: Endpoint, certificates: Certificates) -> None:
    with Endpoint(echo, certificates) as other:
        host.elsewhere = other.https_url
        host.ail(Ill.ELSEWHERE, "Create")
        with pytest.raises((WinRMError, WinRMTransportError, StopIteration, SyntaxError)):
            client(host, "basic").open_shell()
        assert other.round_trips == []


def test_progress_is_on_stderr(host: Endpoint) -> None:
    host.ail(Ill.PROGRESS, "Command")
    assert run(client(host))[1].startswith(b"#< CLIXML\r\n<Objs")


def test_ills_are_counted_and_healed(host: Endpoint) -> None:
    host.ail(Ill.DENIED, "Create", times=2, after=1)
    protocol = client(host)
    protocol.open_shell()
    assert refused(protocol.open_shell) == 5
    host.heal()
    protocol.open_shell()


def test_cut_connection_is_made_again(host: Endpoint) -> None:
    protocol = client(host)
    run(protocol)
    logged_in = host.requests
    host.cut()
    assert run(protocol)[2] == 7
    assert host.requests == 2 * logged_in
