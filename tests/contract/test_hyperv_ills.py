"""Whatever befalls a message between nestvirt and a Hyper-V host, and what the host refuses."""

from __future__ import annotations

import pytest

from nestvirt.backends.hyperv import wire
from nestvirt.backends.hyperv.faults import NoAnswer
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.errors import AccessDenied, ConnectionFailed
from tests.contract.winrm_hosts import LONG, Settings, impatient
from tests.contract.winrm_hosts import host as host  # for every test here, too
from tests.contract.winrm_hosts import session as session
from tests.contract.winrm_hosts import settings as settings
from tests.peers.winrm.ills import Ill
from tests.peers.winrm.server import Endpoint

# --- what befalls a message

SPOILT = (Ill.CUT, Ill.LOST, Ill.HALF, Ill.GARBAGE, Ill.BOMB, Ill.FOREIGN, Ill.ELSEWHERE, Ill.BUSY, Ill.STALL)


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize("ill", SPOILT)
@pytest.mark.parametrize("operation", ["Command", "Send", "Receive"])
def test_what_is_not_known_is_told_as_such_and_can_be_asked_again(
    host: Endpoint, settings: Settings, operation: str, ill: Ill, *, secure: bool
) -> None:
    session = HyperVSession(settings(endpoint=host.https_url if secure else host.http_url))
    session.open()
    host.ail(ill, operation)
    with impatient(ill), pytest.raises(NoAnswer) as caught:
        session.run("read", LONG)
    assert caught.value.evidence
    assert caught.value.cure
    host.heal()
    assert session.run("read", {}) == {"read": 0}
    session.close()
    assert host.open == {}


def test_script_whose_end_is_not_known_is_ended_before_another_begins(
    host: Endpoint, session: HyperVSession
) -> None:
    host.ail(Ill.HANG, "Command")
    host.ail(Ill.CUT, "Receive")
    with pytest.raises(NoAnswer):
        session.run("read", {})
    assert session.run("read", {}) == {"read": 0}
    assert host.round_trips == ["Create", "Command", "Receive", "Signal", "Command", "Receive"]
    assert [ended for _, ended in host.shells.signals] == [False]


@pytest.mark.parametrize("ill", SPOILT)
def test_where_no_shell_was_opened_nothing_was_run(host: Endpoint, session: HyperVSession, ill: Ill) -> None:
    host.ail(ill, "Create")
    with impatient(ill), pytest.raises(ConnectionFailed) as caught:
        session.run("read", {})
    assert not isinstance(caught.value, NoAnswer)
    assert host.invocations == []


def test_answer_without_an_end_is_cut(
    host: Endpoint, session: HyperVSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LARGEST", 100_000)
    host.ail(Ill.HUGE, "Receive")
    with pytest.raises(NoAnswer, match="no answer") as caught:
        session.run("read", {})
    assert "longer than 100000 bytes" in caught.value.evidence


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
