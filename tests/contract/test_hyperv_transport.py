"""Scripts over WinRM: each way to log in, round trips, deadlines, and what befalls a message on its way."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from winrm.protocol import Protocol

from nestvirt.backends.hyperv import shell
from nestvirt.backends.hyperv.faults import NoAnswer, ScriptFailed
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.errors import ConnectionFailed, Error
from tests.contract.winrm_hosts import LONG, Settings, answered
from tests.contract.winrm_hosts import host as host  # for every test here, too
from tests.contract.winrm_hosts import session as session
from tests.contract.winrm_hosts import settings as settings
from tests.lab.kdc import Kdc
from tests.peers.winrm.command import Result
from tests.peers.winrm.ills import Ill
from tests.peers.winrm.server import OPS, Endpoint

ONCE = ["Create", "Command", "Receive", "Delete"]
WAYS = ("ntlm", "credssp", "basic", "certificate")


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
