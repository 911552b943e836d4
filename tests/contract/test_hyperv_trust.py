"""Whom nestvirt trusts to be a Hyper-V host, what it tells it, and what it never tells anybody."""

from __future__ import annotations

import base64
import json
import subprocess
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nestvirt.backends.hyperv.auth import Login
from nestvirt.backends.hyperv.session import HyperVSession
from nestvirt.errors import AccessDenied, ConnectionFailed, SettingsError
from tests.lab.kdc import Kdc
from tests.peers.winrm.accounts import Account
from tests.peers.winrm.command import Invocation, Result
from tests.peers.winrm.pki import Certificates
from tests.peers.winrm.server import OPS, Endpoint

Settings = Callable[..., dict[str, str]]
OTHER = ":".join(["AB"] * 32)
WITH_PASSWORD = ("ntlm", "credssp", "basic")


def nothing(_invocation: Invocation) -> Result:
    text = base64.b64encode(json.dumps({"ok": {}}).encode())
    return Result(b"NESTVIRT:" + text)


@pytest.fixture
def host(certificates: Certificates) -> Iterator[Endpoint]:
    with Endpoint(nothing, certificates) as made:
        yield made


@pytest.fixture
def settings(host: Endpoint) -> Settings:
    def make(**more: str) -> dict[str, str]:
        known = {"endpoint": host.https_url, "username": host.user, "password": host.password}
        return {name: value for name, value in {**known, **more}.items() if value}

    return make


def tried(given: dict[str, str]) -> None:
    session = HyperVSession(given)
    try:
        session.open()
    finally:
        session.close()


UNTRUSTED: dict[str, Callable[[Certificates], dict[str, str]]] = {
    "no CA": lambda _: {},
    "another CA": lambda certificates: {"ca_file": certificates.other_ca_file},
    "another certificate": lambda _: {"fingerprint": OTHER},
    "another certificate, by SHA-1": lambda _: {"fingerprint": OTHER[: 20 * 3 - 1]},
    "another certificate from the right CA": lambda certificates: {
        "ca_file": certificates.ca_file,
        "fingerprint": OTHER,
    },
    "another certificate, and insecure": lambda _: {"fingerprint": OTHER, "insecure": "true"},
}
TRUSTED: dict[str, Callable[[Certificates], dict[str, str]]] = {
    "by its CA": lambda certificates: {"ca_file": certificates.ca_file},
    "pinned": lambda certificates: {"fingerprint": certificates.fingerprint},
    "pinned, whoever signed it": lambda certificates: {
        "fingerprint": certificates.fingerprint,
        "ca_file": certificates.other_ca_file,
    },
    "insecure, as was said": lambda _: {"insecure": "true"},
}
ENVIRONMENTS = {
    "none": {},
    "its CA for others": {"REQUESTS_CA_BUNDLE": "ca_file", "CURL_CA_BUNDLE": "ca_file"},
    "another CA for others": {"REQUESTS_CA_BUNDLE": "other_ca_file", "CURL_CA_BUNDLE": "other_ca_file"},
}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
environments = pytest.mark.parametrize("environment", ENVIRONMENTS)


@environments
@pytest.mark.parametrize("why", UNTRUSTED)
@pytest.mark.parametrize("way", ["ntlm", "basic", "certificate"])
def test_untrusted_host_is_refused_before_anything_is_sent(
    host: Endpoint, settings: Settings, why: str, environment: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in ENVIRONMENTS[environment].items():
        monkeypatch.setenv(name, getattr(host.certificates, file))
    files = {"cert_file": host.certificates.client_cert, "key_file": host.certificates.client_key}
    with pytest.raises(ConnectionFailed, match="certificate") as caught:
        tried(settings(transport=way, **files, **UNTRUSTED[why](host.certificates)))
    assert host.certificates.fingerprint in caught.value.evidence
    assert caught.value.cure
    assert host.requests == 0


@environments
@pytest.mark.parametrize("how", TRUSTED)
@pytest.mark.filterwarnings("error")
def test_trusted_host_is_used_whatever_the_environment_says(
    host: Endpoint, settings: Settings, how: str, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in ENVIRONMENTS[environment].items():
        monkeypatch.setenv(name, getattr(host.certificates, file))
    tried(settings(**TRUSTED[how](host.certificates)))
    assert host.round_trips == ["Create", "Delete"]


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
def test_no_proxy_stands_between(
    host: Endpoint, settings: Settings, monkeypatch: pytest.MonkeyPatch, *, secure: bool
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    url = host.https_url if secure else host.http_url
    tried(settings(endpoint=url, ca_file=host.certificates.ca_file))
    assert host.round_trips == ["Create", "Delete"]


def test_no_password_of_others_is_sent(
    host: Endpoint, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A .netrc would take the place of the certificate."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    files = {"cert_file": host.certificates.client_cert, "key_file": host.certificates.client_key}
    tried(settings(transport="certificate", ca_file=host.certificates.ca_file, **files))
    assert {trip.way for trip in host.trips} == {"certificate"}


def test_name_that_the_certificate_does_not_have_is_refused(host: Endpoint, settings: Settings) -> None:
    port = host.https_url.rpartition(":")[2]
    given = settings(endpoint=f"https://127.1:{port}", ca_file=host.certificates.ca_file)
    with pytest.raises(ConnectionFailed, match="not trusted"):
        tried(given)
    assert host.requests == 0


# --- who one is


@pytest.mark.parametrize("way", WITH_PASSWORD)
def test_wrong_password_is_told_once(host: Endpoint, settings: Settings, way: str) -> None:
    """Each try counts towards the account's lockout."""
    session = HyperVSession(settings(transport=way, password="wrong", ca_file=host.certificates.ca_file))  # noqa: S106
    with pytest.raises(AccessDenied) as caught:
        session.open()
    tries = host.requests
    session.close()
    assert host.user in caught.value.message
    assert caught.value.cure
    assert host.requests == tries
    assert len(host.denials) == (way != "credssp")
    assert host.trips == []


def test_password_that_was_changed_meanwhile_is_told_once(host: Endpoint, settings: Settings) -> None:
    session = HyperVSession(settings(ca_file=host.certificates.ca_file))
    session.run("read", {})
    host.accounts.accounts[0] = replace(host.accounts.accounts[0], password="another")  # noqa: S106
    host.cut()
    with pytest.raises(AccessDenied):
        session.run("read", {})
    session.close()
    assert len(host.denials) == 1


@pytest.mark.parametrize("way", ["ntlm", "credssp"])
def test_wrong_password_over_http_is_told_once(host: Endpoint, settings: Settings, way: str) -> None:
    with pytest.raises(AccessDenied):
        tried(settings(endpoint=host.http_url, transport=way, password="wrong"))  # noqa: S106
    assert len(host.denials) == (way != "credssp")
    assert host.trips == []


@pytest.mark.parametrize("way", ["basic", "certificate"])
def test_what_encrypts_nothing_does_not_go_over_http(host: Endpoint, settings: Settings, way: str) -> None:
    files = {"cert_file": host.certificates.client_cert, "key_file": host.certificates.client_key}
    with pytest.raises(SettingsError, match="HTTPS only"):
        tried(settings(endpoint=host.http_url, transport=way, **files))
    assert host.requests == 0


@pytest.mark.parametrize("way", ["ntlm", "credssp", "kerberos", "basic"])
def test_way_that_the_host_does_not_offer_is_told(
    settings: Settings, certificates: Certificates, kdc: Kdc, way: str
) -> None:
    kdc.login(OPS.principal)
    offers = ("Negotiate",) if way in ("basic", "credssp") else ("Basic",)
    with Endpoint(nothing, certificates, offers=offers) as host:
        given = settings(endpoint=host.https_url, transport=way, ca_file=certificates.ca_file)
        with pytest.raises(AccessDenied) as caught:
            tried(given if way != "kerberos" else {**given, "username": OPS.principal})
    assert way in f"{caught.value.message}{caught.value.evidence}"
    assert caught.value.cure


@pytest.mark.parametrize("way", WITH_PASSWORD)
@pytest.mark.parametrize("password", ["p\u00e4ss", "\u0440\u0443\u0441 \u20ac", "a'b\"c<&>%", "x" * 127])
def test_password_may_hold_any_character(certificates: Certificates, way: str, password: str) -> None:
    account = Account("LAB\\ops", password, "ops@LAB.TEST")
    with Endpoint(nothing, certificates, accounts=(account,)) as host:
        tried(
            {
                "endpoint": host.https_url,
                "username": account.name,
                "password": password,
                "transport": way,
                "ca_file": certificates.ca_file,
            }
        )
        assert host.round_trips == ["Create", "Delete"]


def test_certificate_of_nobody_is_refused(host: Endpoint, settings: Settings) -> None:
    stranger = {
        "cert_file": host.certificates.other_client_cert,
        "key_file": host.certificates.other_client_key,
    }
    with pytest.raises(AccessDenied, match="certificate") as caught:
        tried(settings(transport="certificate", ca_file=host.certificates.ca_file, **stranger))
    assert "certmapping" in caught.value.cure


def test_certificate_of_another_ca_is_refused(host: Endpoint, settings: Settings, tmp_path: Path) -> None:
    """The host says so while TLS is agreed on; it is not its own certificate that is wrong."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=stranger"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    known = {"cert_file": str(certificate), "key_file": str(key), "ca_file": host.certificates.ca_file}
    with pytest.raises(AccessDenied, match="certificate") as caught:
        tried(settings(transport="certificate", **known))
    assert "trust the certificate's CA" in caught.value.cure


def test_encrypted_key_is_refused_and_nobody_is_asked(
    host: Endpoint, settings: Settings, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", host.certificates.client_key]
    subprocess.run([*command, "-out", str(key)], check=True, capture_output=True)
    with pytest.raises(SettingsError, match="certificate cannot be used") as caught:
        tried(settings(transport="certificate", cert_file=host.certificates.client_cert, key_file=str(key)))
    assert "the key is encrypted" in caught.value.evidence


@pytest.mark.parametrize("missing", ["cert_file", "key_file"])
def test_missing_file_is_named(host: Endpoint, settings: Settings, missing: str) -> None:
    files = {"cert_file": host.certificates.client_cert, "key_file": host.certificates.client_key}
    with pytest.raises(SettingsError) as caught:
        tried(settings(transport="certificate", **{**files, missing: "/nowhere.pem"}))
    assert "/nowhere.pem" in caught.value.evidence


# --- Kerberos


@pytest.fixture
def by_kerberos(host: Endpoint, settings: Settings, kdc: Kdc) -> dict[str, str]:
    return settings(transport="kerberos", username="", password="", ca_file=host.certificates.ca_file)


def test_missing_ticket_is_told_with_its_cure(
    by_kerberos: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AccessDenied) as caught:
        tried(by_kerberos)
    assert "kinit" in caught.value.cure
    assert capfd.readouterr() == ("", "")


def test_missing_kdc_is_told_with_its_cure(by_kerberos: dict[str, str], kdc: Kdc) -> None:
    kdc.login(OPS.principal)
    kdc.stop()
    with pytest.raises(AccessDenied) as caught:
        tried(by_kerberos)
    assert "KDC" in caught.value.cure


def test_skewed_clock_is_told_with_its_cure(by_kerberos: dict[str, str], kdc: Kdc) -> None:
    kdc.login(OPS.principal)
    kdc.stop()
    kdc.start(ahead=3600)
    with pytest.raises(AccessDenied) as caught:
        tried(by_kerberos)
    assert "clocks" in caught.value.cure


def test_host_that_the_domain_does_not_know_is_told(by_kerberos: dict[str, str], kdc: Kdc) -> None:
    kdc.login(OPS.principal)
    url = by_kerberos["endpoint"].replace("127.0.0.1", "127.1")
    with pytest.raises(AccessDenied) as caught:
        tried({**by_kerberos, "endpoint": url, "insecure": "true"})
    assert "full name" in caught.value.cure


# --- nobody there


NOBODY = {
    "https://nobody.invalid": "see that the host's name is right",
    "http://nobody.invalid": "see that the host's name is right",
    "https://127.0.0.1:9": "winrm enumerate",
}


@pytest.mark.parametrize(("url", "cure"), NOBODY.items())
def test_nobody_there_is_told(settings: Settings, url: str, cure: str) -> None:
    with pytest.raises(ConnectionFailed, match="no answer") as caught:
        tried(settings(endpoint=url))
    assert caught.value.evidence
    assert cure in caught.value.cure


def test_tls_where_there_is_none_is_told(host: Endpoint, settings: Settings) -> None:
    with pytest.raises(ConnectionFailed, match="not as WinRM") as caught:
        tried(settings(endpoint=host.http_url.replace("http:", "https:")))
    assert "5986 for HTTPS" in caught.value.cure


# --- what nobody is told


def test_no_secret_is_in_an_error(host: Endpoint, settings: Settings) -> None:
    secret = "t0p-secret-password"  # noqa: S105
    for way in WITH_PASSWORD:
        given = settings(transport=way, password=secret, ca_file=host.certificates.ca_file)
        with pytest.raises(AccessDenied) as caught:
            tried(given)
        told = "".join(traceback.format_exception(caught.value))
        told += repr(vars(caught.value)) + repr(Login(way, "x", secret))
        assert secret not in told
        assert base64.b64encode(secret.encode()).decode() not in told


def test_wrong_password_is_in_no_log(
    host: Endpoint, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "t0p-secret-password"  # noqa: S105
    with caplog.at_level("DEBUG"), pytest.raises(AccessDenied):
        tried(settings(password=secret, transport="basic", ca_file=host.certificates.ca_file))
    assert secret not in caplog.text
    assert base64.b64encode(f"{host.user}:{secret}".encode()).decode() not in caplog.text
