"""Hyper-V's settings: Terraform's names, flags that say the opposite, where secrets may go, the guest's."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nestvirt import settings
from nestvirt.backends.hyperv.address import Address
from nestvirt.cli import cli
from nestvirt.errors import SettingsError
from tests.unit.test_settings_proxmox import Memory, environment
from tests.unit.test_settings_proxmox import config as config  # for every test here, too
from tests.unit.test_settings_proxmox import ring as ring

URL = "https://hv1.example.com"
PASSWORD = "s3cret"  # noqa: S105 - not one
TERRAFORM = {
    "HYPERV_HOST": "hv1.example.com",
    "HYPERV_PORT": "5986",
    "HYPERV_USER": "LAB\\ops",
    "HYPERV_PASSWORD": PASSWORD,
    "HYPERV_HTTPS": "true",
    "HYPERV_USE_NTLM": "true",
    "HYPERV_INSECURE": "true",
}


def resolved(profile: str | None = None, **options: str | None) -> settings.Endpoint:
    return settings.resolve("hyperv", profile, options)


def test_terraforms_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, **TERRAFORM)
    assert resolved().values == {
        "endpoint": "hv1.example.com",
        "port": "5986",
        "username": "LAB\\ops",
        "password": PASSWORD,
        "insecure": "true",
    }
    assert PASSWORD not in repr(resolved())


def test_terraforms_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(
        monkeypatch, HYPERV_CACERT_PATH="/ca.pem", HYPERV_CERT_PATH="/c.pem", HYPERV_KEY_PATH="/k.pem"
    )
    assert resolved().values == {"ca_file": "/ca.pem", "cert_file": "/c.pem", "key_file": "/k.pem"}


def test_our_names_count_before_terraforms(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {
        "NESTVIRT_HYPERV_ENDPOINT": URL,
        "NESTVIRT_HYPERV_PORT": "444",
        "NESTVIRT_HYPERV_USERNAME": "me",
        "NESTVIRT_HYPERV_PASSWORD": "mine",
        "NESTVIRT_HYPERV_INSECURE": "false",
    }
    environment(monkeypatch, **TERRAFORM, **ours)
    wanted = {"endpoint": URL, "port": "444", "username": "me", "password": "mine"}
    assert resolved().values == wanted


@pytest.mark.parametrize(("variable", "name"), [("HYPERV_HTTPS", "plain_http"), ("HYPERV_USE_NTLM", "basic")])
def test_what_terraform_turns_off_is_the_opposite(
    monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    environment(monkeypatch, **{variable: "false"})
    assert resolved().values == {name: "true"}
    environment(monkeypatch, **{variable: "true"})
    assert resolved().values == {}


@pytest.mark.parametrize(("endpoint", "unverified"), [("hv1", True), (URL, True), ("http://hv1", False)])
def test_nothing_verifies_the_certificate_only_where_there_is_one(endpoint: str, *, unverified: bool) -> None:
    values = {"endpoint": endpoint, "insecure": "true"}
    assert settings.unverified(values) is unverified
    assert not settings.unverified({**values, "plain_http": "true"})
    assert not settings.unverified({**values, "fingerprint": "AB"})


def test_fingerprint_counts_before_terraforms_insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, **TERRAFORM)
    assert "insecure" not in resolved(fingerprint="AB").values


def test_profile_may_have_all_of_it(config: Path) -> None:
    lines = [
        "[profiles.lab]",
        'backend = "hyperv"',
        f'endpoint = "{URL}"',
        'transport = "kerberos"',
        "port = 444",
        'guest_username = "Administrator"',
    ]
    config.write_text("\n".join(lines), encoding="utf-8")
    assert resolved("lab").values == {
        "endpoint": URL,
        "transport": "kerberos",
        "port": "444",
        "guest_username": "Administrator",
    }
    assert resolved("lab", transport="ntlm").values["transport"] == "ntlm"


@pytest.mark.parametrize("endpoint", [URL, "hv1", "http://hv1"])
def test_password_is_looked_for_in_the_keyring_also_where_only_messages_are_encrypted(
    ring: Memory, endpoint: str
) -> None:
    ring.held = {"hyperv:password": "p", "hyperv:guest_password": "g"}
    values = resolved(endpoint=endpoint, username="ops", guest_username="Administrator").values
    assert (values["password"], values["guest_password"]) == ("p", "g")


@pytest.mark.parametrize("transport", ["kerberos", "certificate", "Kerberos"])
def test_no_password_is_asked_for_where_none_is_taken(ring: Memory, transport: str) -> None:
    ring.held = {"hyperv:password": "p"}
    values = resolved(endpoint=URL, username="ops", transport=transport).values
    assert "password" not in values
    assert ring.asked == []
    assert not settings.lacks_password("hyperv", values)


@pytest.mark.parametrize("endpoint", [URL, "http://hv1"])
def test_missing_password_can_be_asked_for(endpoint: str) -> None:
    values = resolved(endpoint=endpoint, username="ops").values
    assert settings.lacks_password("hyperv", values)
    assert not settings.lacks_password("hyperv", {**values, "password": "p"})
    assert not settings.lacks_password("hyperv", {"username": "ops"})


@pytest.mark.parametrize("other", ["https://hv1.example.com:5986", "hv1.example.com", f"{URL}/wsman"])
def test_undo_finds_the_password_of_the_same_host(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    environment(monkeypatch, HYPERV_HOST=other, HYPERV_PASSWORD=PASSWORD)
    found = settings.resolve("hyperv", None, {}, {"endpoint": URL, "username": "ops"})
    assert (found.values["endpoint"], found.values["password"]) == (URL, PASSWORD)


def test_undo_sends_no_password_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, HYPERV_HOST="moved", HYPERV_PASSWORD=PASSWORD)
    with pytest.raises(SettingsError, match="for another address") as caught:
        settings.resolve("hyperv", None, {}, {"endpoint": URL, "username": "ops"})
    assert PASSWORD not in f"{caught.value.evidence}{caught.value.cure}"


def test_undo_does_not_find_plain_http_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded address says how it is spoken to."""
    environment(monkeypatch, HYPERV_HTTPS="false")
    values = settings.resolve("hyperv", None, {}, {"endpoint": URL}).values
    assert Address.parse(values["endpoint"], plain="plain_http" in values).secure


@pytest.mark.parametrize("vm", [["--libvirt", "web-01"], ["--vsphere", "web-01"], ["--proxmox", "100"]])
def test_transport_is_an_option_of_hyperv_alone(vm: list[str]) -> None:
    result = CliRunner().invoke(cli, ["check", *vm, "--transport", "ntlm"])
    assert (result.exit_code, "--transport goes with --hyperv" in " ".join(result.stderr.split())) == (
        2,
        True,
    )


def test_transport_is_one_of_those_there_are() -> None:
    result = CliRunner().invoke(cli, ["check", "--hyperv", "web-01", "--transport", "telnet"])
    assert (result.exit_code, "kerberos" in result.stderr) == (2, True)
