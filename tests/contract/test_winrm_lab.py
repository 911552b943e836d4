"""The WinRM peer against pywinrm as it is: that the peer is as strict as Windows, and as ill as it says."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kerberos
import pytest
import requests
from requests_credssp.exceptions import NTStatusException
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol
from winrm.vendor.requests_kerberos.exceptions import KerberosExchangeError

from tests.lab.kdc import Kdc
from tests.peers.winrm import gss
from tests.peers.winrm.accounts import Account
from tests.peers.winrm.command import Invocation, Result
from tests.peers.winrm.ills import Ill
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import OPS, Endpoint

OTHER = Account("LAB\\other", "other-secret-6", "other@LAB.TEST")
OUTSIDER = Account("LAB\\outsider", "outsider-secret-7", "outsider@LAB.TEST", remote=False)
POWERSHELL = "powershell.exe"


def echo(invocation: Invocation) -> Result:
    """Says how it was started; what is to fail, fails."""
    assert invocation.stdin != b"fail"
    words = [invocation.user, invocation.command, *invocation.arguments, invocation.stdin.decode()]
    return Result("\n".join(words).encode(), b"some words", 7)


@pytest.fixture
def host(certificates: Certificates) -> Iterator[Endpoint]:
    with Endpoint(echo, certificates, accounts=(OPS, OTHER, OUTSIDER)) as made:
        yield made


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


# --- who comes in

WAYS = [
    ("basic", True, "basic", False),
    ("ntlm", True, "ntlm", False),
    ("ntlm", False, "ntlm", True),
    ("credssp", True, "credssp", False),
    ("credssp", False, "credssp", True),
]


@pytest.mark.parametrize(("transport", "tls", "way", "encrypted"), WAYS)
def test_password_opens(host: Endpoint, transport: str, tls: bool, way: str, encrypted: bool) -> None:
    output = run(client(host, transport, tls=tls), arguments=("-NoProfile", "-File", "a b.ps1"))
    assert output == (f"{OPS.name}\n{POWERSHELL}\n-NoProfile\n-File\na\nb.ps1\n".encode(), b"some words", 7)
    assert host.round_trips == ["Create", "Command", "Receive", "Delete"]
    seen = {(trip.account, trip.way, trip.encrypted, trip.tls) for trip in host.trips}
    assert seen == {(OPS.name, way, encrypted, tls)}
    assert host.open == {}


@pytest.mark.parametrize("name", [OPS.name, "ops", OPS.principal, "lab\\OPS"])
def test_account_has_several_names(host: Endpoint, name: str) -> None:
    assert run(client(host, username=name))[0].startswith(b"LAB\\ops")


def test_certificate_opens(host: Endpoint) -> None:
    ours = host.certificates
    options: dict[str, Any] = {"cert_pem": ours.client_cert, "cert_key_pem": ours.client_key}
    assert run(client(host, "certificate", **options))[0].startswith(b"LAB\\ops")
    options = {"cert_pem": ours.other_client_cert, "cert_key_pem": ours.other_client_key}
    with pytest.raises(InvalidCredentialsError):
        run(client(host, "certificate", **options))
    assert {trip.way for trip in host.trips} == {"certificate"}


WRONG: dict[str, dict[str, Any]] = {
    "password": {"password": "not-this-one"},
    "user": {"username": "LAB\\nobody"},
    "another's password": {"password": OTHER.password},
}


@pytest.mark.parametrize(("transport", "tls", "way", "encrypted"), WAYS)
@pytest.mark.parametrize("wrong", WRONG)
def test_nobody_else_comes_in(
    host: Endpoint, transport: str, tls: bool, way: str, encrypted: bool, wrong: str
) -> None:
    with pytest.raises((InvalidCredentialsError, NTStatusException)):
        run(client(host, transport, tls=tls, **WRONG[wrong]))
    assert host.round_trips == []


def test_who_may_not_log_in_remotely_is_denied(host: Endpoint) -> None:
    with pytest.raises(WSManFaultError) as caught:
        run(client(host, username=OUTSIDER.name, password=OUTSIDER.password))
    assert caught.value.wsman_fault_code == 5
    assert host.open == {}


def test_unencrypted_messages_are_not_taken_over_http(host: Endpoint) -> None:
    with pytest.raises(WinRMTransportError, match="500"):
        run(client(host, tls=False, message_encryption="never"))
    with pytest.raises(InvalidCredentialsError):
        run(client(host, "basic", tls=False))
    assert host.round_trips == []


def test_scheme_that_is_not_offered_is_not_taken(certificates: Certificates) -> None:
    with Endpoint(echo, certificates, offers=("Negotiate",)) as host:
        with pytest.raises(InvalidCredentialsError):
            run(client(host, "basic"))
        run(client(host, "ntlm"))


def test_login_is_bound_to_its_tls_connection(host: Endpoint) -> None:
    with pytest.raises(InvalidCredentialsError):
        run(client(host, send_cbt=False))
    assert "bindings" in host.denials[-1]


def test_other_authority_is_not_the_clients(host: Endpoint) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        run(client(host, ca_trust_path=host.certificates.other_ca_file))
    assert host.requests == 0


def test_message_cannot_be_sent_twice(host: Endpoint) -> None:
    protocol = client(host, tls=False)
    shell = protocol.open_shell()
    transport = protocol.transport
    assert transport.session is not None
    assert transport.encryption is not None
    again = transport.encryption.prepare_encrypted_request(
        transport.session, host.http_url, host.trips[-1].text
    )
    statuses = [transport.session.send(again).status_code for _ in range(2)]
    assert statuses == [200, 400]
    assert len(host.open) == 2
    assert shell in host.open


# --- Kerberos


@pytest.mark.parametrize("tls", [True, False])
def test_ticket_opens(host: Endpoint, kdc: Kdc, tls: bool) -> None:
    kdc.login(OPS.principal)
    run(client(host, "kerberos", tls=tls, username=OPS.principal))
    assert {(trip.account, trip.way, trip.encrypted) for trip in host.trips} == {
        (OPS.name, "kerberos", not tls)
    }


def no_ticket(_kdc: Kdc) -> None:
    pass


def no_kdc(kdc: Kdc) -> None:
    kdc.login(OPS.principal)
    kdc.stop()


def other_clock(kdc: Kdc) -> None:
    kdc.login(OPS.principal)
    kdc.stop()
    kdc.start(ahead=900)


@pytest.mark.parametrize(
    ("ill", "number"), [(no_ticket, -1765328243), (no_kdc, -1765328228), (other_clock, -1765328347)]
)
def test_without_a_ticket_nobody_is_asked(
    host: Endpoint, kdc: Kdc, ill: Callable[[Kdc], None], number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    ill(kdc)
    with pytest.raises(KerberosExchangeError, match=f"{number}"):
        run(client(host, "kerberos", tls=False, username=OPS.principal))
    assert host.requests == 0


def test_ticket_is_bound_to_its_tls_connection(kdc: Kdc) -> None:
    kdc.login(OPS.principal)

    def token(binding: bytes) -> bytes:
        _, context = kerberos.authGSSClientInit("HTTP@127.0.0.1")
        bindings = kerberos.channelBindings(application_data=binding)
        kerberos.authGSSClientStep(context, "", channel_bindings=bindings)
        return base64.b64decode(kerberos.authGSSClientResponse(context))

    acceptor = gss.Acceptor(b"tls-server-end-point:this")
    acceptor.step(token(b"tls-server-end-point:this"))
    assert acceptor.principal == OPS.principal
    with pytest.raises(gss.Denied):
        gss.Acceptor(b"tls-server-end-point:this").step(token(b"tls-server-end-point:that"))


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


def refused(act: Callable[[], object]) -> int:
    with pytest.raises(WSManFaultError) as caught:
        act()
    assert caught.value.wsman_fault_code is not None
    return caught.value.wsman_fault_code


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


def test_shell_has_so_many_commands(host: Endpoint) -> None:
    host.shells.most_commands = 1
    host.ail(Ill.HANG, "Command")
    protocol = client(host)
    shell = protocol.open_shell()
    protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
    assert refused(lambda: protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)) == 2150859174


def test_large_request_is_refused(host: Endpoint) -> None:
    assert refused(lambda: run(client(host), stdin=(b"x" * 400_000,))) == 2150858801


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
    protocol = client(host, read_timeout_sec=2, operation_timeout_sec=1)
    shell = protocol.open_shell()
    host.ail(ill, "Command")
    with pytest.raises(kind):
        protocol.run_command(shell, POWERSHELL, skip_cmd_shell=True)
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
