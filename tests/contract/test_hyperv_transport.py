"""Scripts over WinRM: each way to log in, round trips, deadlines, and what befalls a message on its way."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from winrm.protocol import Protocol

from nestvirt.backends.hyperv import shell, wire
from nestvirt.backends.hyperv.faults import NoAnswer, ScriptFailed
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.errors import AccessDenied, ConnectionFailed, Error
from tests.lab.kdc import Kdc
from tests.peers.winrm.command import Invocation, Result
from tests.peers.winrm.ills import Ill
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import OPS, Endpoint

ONCE = ["Create", "Command", "Receive", "Delete"]
WAYS = ("ntlm", "credssp", "basic", "certificate")
LONG = {"names": ["\u00e4" * 8000]}
Settings = Callable[..., dict[str, str]]


def answered(answer: object) -> Result:
    text = base64.b64encode(json.dumps(answer).encode()).decode()
    return Result(f"Something else\r\nNESTVIRT:{text}\r\n".encode())


def size(invocation: Invocation) -> Result:
    """What is behind the service: it tells how much it has read."""
    return answered({"ok": {"read": len(invocation.stdin)}})


@pytest.fixture
def host(certificates: Certificates) -> Iterator[Endpoint]:
    with Endpoint(size, certificates) as made:
        yield made
        assert made.failures == []


@pytest.fixture
def settings(host: Endpoint) -> Settings:
    def make(**more: str) -> dict[str, str]:
        known = {"endpoint": host.https_url, "ca_file": host.certificates.ca_file}
        files = {"cert_file": host.certificates.client_cert, "key_file": host.certificates.client_key}
        return {**known, **files, "username": host.user, "password": host.password, **more}

    return make


@pytest.fixture
def session(settings: Settings) -> Iterator[HyperVSession]:
    made = HyperVSession(settings())
    yield made
    made.close()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is awaited has to come quickly."""
    monkeypatch.setattr(shell, "ANSWER", 0.5)
    monkeypatch.setattr(shell, "GRACE", 0.0)
    monkeypatch.setattr(shell, "OPERATION", 1)


def run(given: Mapping[str, str], **data: Any) -> dict[str, Any]:
    session = HyperVSession(given)
    try:
        return session.run("read", data)
    finally:
        session.close()


# --- ways in


@pytest.mark.parametrize("way", WAYS)
def test_every_way_works_over_https(host: Endpoint, settings: Settings, way: str) -> None:
    assert run(settings(transport=way)) == {"read": 0}
    assert host.round_trips == ONCE
    assert {(trip.way, trip.tls) for trip in host.trips} == {(way, True)}
    assert host.open == {}


@pytest.mark.parametrize("way", ["ntlm", "credssp"])
def test_over_http_every_message_is_encrypted(host: Endpoint, settings: Settings, way: str) -> None:
    assert run(settings(transport=way, endpoint=host.http_url)) == {"read": 0}
    assert host.round_trips == ONCE
    assert {(trip.way, trip.tls, trip.encrypted) for trip in host.trips} == {(way, False, True)}


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize("principal", [OPS.principal, ""], ids=["named", "the ticket's"])
def test_kerberos_works_with_a_ticket_and_no_password(
    host: Endpoint, settings: Settings, kdc: Kdc, *, secure: bool, principal: str
) -> None:
    kdc.login(OPS.principal)
    url = host.https_url if secure else host.http_url
    assert run(settings(transport="kerberos", endpoint=url, username=principal, password="")) == {"read": 0}
    assert host.round_trips == ONCE
    assert {(trip.way, trip.encrypted) for trip in host.trips} == {("kerberos", not secure)}


def test_shell_is_opened_early_where_that_is_asked_for(host: Endpoint, session: HyperVSession) -> None:
    session.open()
    session.open()
    assert host.round_trips == ["Create"]
    session.run("read", {})
    session.close()
    session.close()
    assert host.round_trips == ONCE


def test_one_shell_serves_several_scripts(host: Endpoint, session: HyperVSession) -> None:
    for _ in range(3):
        session.run("read", {})
    session.close()
    assert host.round_trips == ["Create", *(["Command", "Receive"] * 3), "Delete"]
    assert host.requests == len(host.round_trips) + 2  # to log in, once


def test_closed_session_says_so(host: Endpoint, session: HyperVSession) -> None:
    session.close()
    with pytest.raises(ConnectionFailed, match="closed"):
        session.run("read", {})
    assert host.requests == 0


# --- what is sent


def test_script_is_on_the_command_line_where_it_has_room(host: Endpoint, session: HyperVSession) -> None:
    session.run("read", {"name": "x"})
    (invocation,) = host.invocations
    assert invocation.command == "powershell.exe"
    assert invocation.arguments[:3] == ("-NoProfile", "-NonInteractive", "-EncodedCommand")
    sent = base64.b64decode(invocation.arguments[3]).decode("utf-16-le")
    assert sent.startswith("$nestvirtData = '")


def test_long_data_goes_another_way(host: Endpoint, session: HyperVSession) -> None:
    assert session.run("read", LONG)["read"] > 32767
    assert host.round_trips == ["Create", "Command", *(["Send"] * 2), "Receive"]
    data = host.invocations[0].stdin.split(b"\n")[0]
    assert json.loads(base64.b64decode(data)) == LONG


def test_secrets_are_on_no_command_line_and_in_no_script(host: Endpoint, session: HyperVSession) -> None:
    secret = "t0p \u00e4 'secret'"  # noqa: S105
    session.run("read", {"name": "x"}, secret={"password": secret})
    (invocation,) = host.invocations
    written = base64.b64encode(secret.encode())
    assert written not in b"".join(trip.text for trip in host.trips if trip.operation == "Command")
    data, secrets, *script = invocation.stdin.split(b"\n")
    assert secrets == b"password:" + written
    assert json.loads(base64.b64decode(data)) == {"name": "x", "secret": None}
    assert written not in b"\n".join(script)


@pytest.mark.parametrize("secret", [None, {"password": "x"}])
def test_hostile_data_changes_nothing_but_the_data(
    host: Endpoint, session: HyperVSession, secret: dict[str, str] | None
) -> None:
    for name in ("a", '"; Remove-VM *; #', "$(Stop-Computer)", "'\n`\u2019\u2018&|<>%PATH%"):
        session.run("read", {"name": name}, secret=secret)
    scripts = set()
    for invocation in host.invocations:
        sent = base64.b64decode(invocation.arguments[3]).decode("utf-16-le")
        lines = (invocation.stdin.decode() or sent).split("\n")
        scripts.add("\n".join(lines[2 if invocation.stdin else 1 :]))
    assert len(scripts) == 1


# --- what a script answers


@pytest.mark.parametrize(
    "stdout",
    [
        b"",
        b"NESTVIRT:",
        b"NESTVIRT:!!!\n",
        b"NESTVIRT:AAAA\n",
        b"NESTVIRT:e30=\nNESTVIRT:e30=\n",
        b"\xff" * 9,
    ],
)
def test_nonsense_is_told_as_such(host: Endpoint, session: HyperVSession, stdout: bytes) -> None:
    host.shells.program = lambda _: Result(stdout, b"oh\x1b[2J no", 1)
    with pytest.raises(Error) as caught:
        session.run("read", {})
    assert type(caught.value) is Error
    assert f"{caught.value.message}{caught.value.evidence}".isprintable()
    assert caught.value.cure


def test_error_of_powershell_is_told_by_its_id(host: Endpoint, session: HyperVSession) -> None:
    told = {
        "id": "InvalidState,X",
        "category": "InvalidOperation",
        "type": "T",
        "message": "Ung\u00fcltig\x1b[",
    }
    host.shells.program = lambda _: answered({"error": {**told, "hresult": -2146233088}})
    with pytest.raises(ScriptFailed) as caught:
        session.run("read", {})
    error = caught.value
    assert (error.id, error.category, error.type) == ("InvalidState,X", "InvalidOperation", "T")
    assert error.hresult == -2146233088
    assert error.text == "Ung\u00fcltig ["
    assert error.evidence.isprintable()


def test_progress_on_stderr_is_no_answer(host: Endpoint, session: HyperVSession) -> None:
    host.ail(Ill.PROGRESS)
    assert session.run("read", {}) == {"read": 0}


def test_answer_that_takes_several_messages_is_put_together(host: Endpoint, session: HyperVSession) -> None:
    names = ["x" * 1000] * 1000
    host.shells.program = lambda _: answered({"ok": {"names": names}})
    assert session.run("read", {}) == {"names": names}
    assert host.round_trips.count("Receive") > 1


# --- time


def test_command_that_takes_longer_than_an_operation_is_asked_again(
    host: Endpoint, session: HyperVSession
) -> None:
    host.ail(Ill.TIMED_OUT, "Receive", times=3)
    assert session.run("read", {}) == {"read": 0}
    assert host.round_trips == ["Create", "Command", *(["Receive"] * 4)]


def test_command_that_never_ends_is_terminated_in_its_time(host: Endpoint, session: HyperVSession) -> None:
    host.ail(Ill.HANG, "Command")
    with pytest.raises(NoAnswer, match="in time"):
        session.run("read", {}, timeout=1)
    assert [ended for _, ended in host.shells.signals] == [False]
    assert session.run("read", {}) == {"read": 0}
    session.close()
    assert host.open == {}


def test_interrupted_command_is_terminated_and_its_shell_closed(
    host: Endpoint, session: HyperVSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    host.ail(Ill.HANG, "Command")
    monkeypatch.setattr(Protocol, "get_command_output_raw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.run("read", {})
    session.close()
    assert host.round_trips == ["Create", "Command", "Signal", "Delete"]
    assert host.open == {}


def test_flood_is_stopped(host: Endpoint, session: HyperVSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "OUTPUT", 500_000)
    host.ail(Ill.FLOOD, "Command")
    with pytest.raises(Error, match="too much"):
        session.run("read", {})
    assert len(host.shells.signals) == 1


# --- what befalls a message

SPOILT = (Ill.CUT, Ill.LOST, Ill.HALF, Ill.GARBAGE, Ill.BOMB, Ill.FOREIGN, Ill.ELSEWHERE, Ill.BUSY, Ill.STALL)


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize("ill", SPOILT)
@pytest.mark.parametrize("operation", ["Command", "Send", "Receive"])
def test_what_is_not_known_is_told_as_such_and_can_be_asked_again(
    host: Endpoint, settings: Settings, hurry: None, operation: str, ill: Ill, *, secure: bool
) -> None:
    session = HyperVSession(settings(endpoint=host.https_url if secure else host.http_url))
    host.ail(ill, operation)
    with pytest.raises(NoAnswer) as caught:
        session.run("read", LONG)
    assert caught.value.evidence
    assert caught.value.cure
    host.heal()
    assert session.run("read", {}) == {"read": 0}
    session.close()
    assert host.open == {}


@pytest.mark.parametrize("ill", SPOILT)
def test_where_no_shell_was_opened_nothing_was_run(
    host: Endpoint, session: HyperVSession, hurry: None, ill: Ill
) -> None:
    host.ail(ill, "Create")
    with pytest.raises(ConnectionFailed) as caught:
        session.run("read", {})
    assert not isinstance(caught.value, NoAnswer)
    assert host.invocations == []


def test_answer_without_an_end_is_cut(
    host: Endpoint, session: HyperVSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LARGEST", 100_000)
    host.ail(Ill.HUGE, "Receive")
    with pytest.raises(NoAnswer, match="no answer"):
        session.run("read", {})


@pytest.mark.parametrize("way", ["ntlm", "credssp"])
def test_plain_answer_to_an_encrypted_message_is_refused(
    host: Endpoint, settings: Settings, way: str
) -> None:
    session = HyperVSession(settings(endpoint=host.http_url, transport=way))
    host.ail(Ill.PLAIN, "Receive")
    with pytest.raises(NoAnswer, match="not as WinRM"):
        session.run("read", {})
    session.close()


@pytest.mark.parametrize("way", ["ntlm", "credssp"])
@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
def test_connection_that_was_closed_meanwhile_is_opened_anew(
    host: Endpoint, settings: Settings, way: str, *, secure: bool
) -> None:
    session = HyperVSession(settings(endpoint=host.https_url if secure else host.http_url, transport=way))
    session.run("read", {})
    host.cut()
    assert session.run("read", {}) == {"read": 0}
    host.cut()
    session.close()
    assert host.round_trips == ["Create", *(["Command", "Receive"] * 2), "Delete"]
    assert all(trip.tls or trip.encrypted for trip in host.trips)


def test_shell_that_idled_too_long_is_opened_anew(host: Endpoint, session: HyperVSession) -> None:
    session.run("read", {})
    host.ail(Ill.GONE, "Command")
    assert session.run("read", {}) == {"read": 0}
    assert len(host.invocations) == 2


def test_shell_that_goes_away_under_a_script_is_told(host: Endpoint, session: HyperVSession) -> None:
    host.ail(Ill.GONE, "Receive")
    with pytest.raises(NoAnswer, match="closed the shell"):
        session.run("read", {})
    assert session.run("read", {}) == {"read": 0}


# --- what the host refuses


@pytest.mark.parametrize("german", [False, True])
def test_quota_of_shells_is_told_with_its_cure(
    host: Endpoint, session: HyperVSession, *, german: bool
) -> None:
    host.german, host.shells.most = german, 0
    with pytest.raises(ConnectionFailed, match="quota") as caught:
        session.run("read", {})
    assert "quota" in caught.value.cure


def test_quota_of_operations_is_free_again_in_another_shell(host: Endpoint, session: HyperVSession) -> None:
    """Windows counts what went on in a shell until the shell is closed."""
    host.shells.most_operations = 3
    for _ in range(7):
        session.run("read", {})
    assert len(host.invocations) == 7
    assert host.round_trips.count("Create") > 1
    session.close()
    assert host.open == {}


def test_quota_of_operations_that_stays_is_told_and_nothing_was_run(
    host: Endpoint, session: HyperVSession
) -> None:
    host.ail(Ill.BUSY_SHELL, "Command", times=2)
    with pytest.raises(ConnectionFailed, match="quota") as caught:
        session.run("read", {})
    assert not isinstance(caught.value, NoAnswer)
    session.close()
    assert host.open == {}


@pytest.mark.parametrize("german", [False, True])
def test_user_who_may_not_use_winrm_is_told_of_the_groups(
    host: Endpoint, session: HyperVSession, *, german: bool
) -> None:
    host.german = german
    host.ail(Ill.DENIED, "Create")
    with pytest.raises(AccessDenied) as caught:
        session.run("read", {})
    assert "configSDDL" in caught.value.cure
    assert host.user in caught.value.message


def test_message_that_is_too_large_for_the_host_is_told(host: Endpoint, session: HyperVSession) -> None:
    host.shells.largest = 2000
    with pytest.raises(ConnectionFailed, match="refused: Command"):
        session.run("read", {})
