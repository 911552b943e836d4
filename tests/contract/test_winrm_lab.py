"""The WinRM peer against pywinrm as it is: who comes in, and who does not."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from typing import Any

import kerberos
import pytest
import requests
from requests_credssp.exceptions import NTStatusException
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.vendor.requests_kerberos.exceptions import KerberosExchangeError

from tests.contract.winrm_client import OTHER, OUTSIDER, POWERSHELL, client, echo, run
from tests.lab.kdc import Kdc
from tests.peers.winrm import gss
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import OPS, Endpoint


@pytest.fixture
def host(certificates: Certificates) -> Iterator[Endpoint]:
    with Endpoint(echo, certificates, accounts=(OPS, OTHER, OUTSIDER)) as made:
        yield made


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
