"""vSphere's settings: the names of Terraform, govc and Ansible, a user in the address, the guest's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nestvirt import settings
from nestvirt.errors import SettingsError
from tests.unit.test_settings_proxmox import Memory, environment, words
from tests.unit.test_settings_proxmox import config as config  # for every test here, too
from tests.unit.test_settings_proxmox import ring as ring

URL = "https://vc.example.com"
PASSWORD = "s3:c/r@t"  # noqa: S105 - not one
IN_URL = "https://ops%40vsphere.local:s3%3Ac%2Fr%40t@vc.example.com/sdk"
FAMILIES = {
    "terraform": {
        "VSPHERE_SERVER": URL,
        "VSPHERE_USER": "ops",
        "VSPHERE_PASSWORD": PASSWORD,
        "VSPHERE_ALLOW_UNVERIFIED_SSL": "true",
    },
    "govc": {"GOVC_URL": URL, "GOVC_USERNAME": "ops", "GOVC_PASSWORD": PASSWORD, "GOVC_INSECURE": "1"},
    "ansible": {
        "VMWARE_HOST": URL,
        "VMWARE_USER": "ops",
        "VMWARE_PASSWORD": PASSWORD,
        "VMWARE_VALIDATE_CERTS": "no",
    },
}


def resolved(profile: str | None = None, **options: str | None) -> settings.Endpoint:
    return settings.resolve("vsphere", profile, options)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_programs_names_are_read(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    environment(monkeypatch, **FAMILIES[family])
    wanted = {"endpoint": URL, "username": "ops", "password": PASSWORD, "insecure": "true"}
    assert resolved().values == wanted


@pytest.mark.parametrize("address", [IN_URL, IN_URL.removeprefix("https://")])
def test_a_user_in_the_address_is_taken_apart_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    environment(monkeypatch, GOVC_URL=address)
    found = resolved()
    assert found.values["endpoint"].removeprefix("https://") == "vc.example.com/sdk"
    assert (found.values["username"], found.values["password"]) == ("ops@vsphere.local", PASSWORD)
    assert set(found.sources.values()) == {"GOVC_URL"}


def test_what_is_beside_the_address_counts_before_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, GOVC_URL=IN_URL, GOVC_USERNAME="other", NESTVIRT_VSPHERE_PASSWORD="ours")  # noqa: S106
    assert (resolved().values["username"], resolved().values["password"]) == ("other", "ours")


def test_the_user_in_an_address_goes_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, GOVC_URL=IN_URL)
    assert resolved(endpoint="https://elsewhere").values == {"endpoint": "https://elsewhere"}
    assert resolved(endpoint="vc.example.com:443").values["password"] == PASSWORD


def test_undo_finds_the_password_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, GOVC_URL=IN_URL)
    found = settings.resolve("vsphere", None, {}, {"endpoint": URL, "username": "ops@vsphere.local"})
    assert (found.values["endpoint"], found.values["password"]) == (URL, PASSWORD)


def test_undo_sends_a_password_to_the_recorded_address_only(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, GOVC_URL="https://elsewhere/sdk", GOVC_PASSWORD=PASSWORD)
    with pytest.raises(SettingsError, match="for another address") as caught:
        settings.resolve("vsphere", None, {}, {"endpoint": URL})
    assert PASSWORD not in words(caught.value)


@pytest.mark.parametrize("where", ["option", "file"])
def test_a_password_in_an_address_that_others_can_read_is_refused(config: Path, where: str) -> None:
    if where == "file":
        config.write_text(f'[defaults.vsphere]\nendpoint = "{IN_URL}"', encoding="utf-8")
    with pytest.raises(SettingsError, match="has a password in it") as caught:
        resolved(endpoint=IN_URL if where == "option" else None)
    assert "s3" not in words(caught.value)


def test_a_user_alone_may_be_in_an_option() -> None:
    assert resolved(endpoint="ops@vc").values == {"endpoint": "vc", "username": "ops"}


def test_of_two_programs_that_name_an_address_only_the_firsts_settings_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment(
        monkeypatch, VSPHERE_SERVER=URL, GOVC_URL="https://other", GOVC_PASSWORD=PASSWORD, VMWARE_USER="ops"
    )
    assert resolved().values == {"endpoint": URL}


def test_what_is_set_for_no_address_does_not_go_to_another_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    terraform = {name: value for name, value in FAMILIES["terraform"].items() if value != URL}
    environment(monkeypatch, **terraform, GOVC_URL=URL, GOVC_USERNAME="me", GOVC_PASSWORD="mine")  # noqa: S106
    wanted = {"endpoint": URL, "username": "me", "password": "mine"}
    assert resolved().values == wanted
    recorded = {"endpoint": URL, "username": "me"}
    assert settings.resolve("vsphere", None, {}, recorded).values == wanted
    assert resolved(endpoint="vc.example.com").values == {**wanted, "endpoint": "vc.example.com"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["option", "variable", "profile"])
def test_what_is_set_for_another_address_is_left_out(
    config: Path, monkeypatch: pytest.MonkeyPatch, family: str, where: str
) -> None:
    there = "https://elsewhere"
    config.write_text(f'[profiles.lab]\nbackend = "vsphere"\nendpoint = "{there}"', encoding="utf-8")
    environment(monkeypatch, **FAMILIES[family])
    if where == "variable":
        environment(monkeypatch, NESTVIRT_VSPHERE_ENDPOINT=there)
    found = resolved("lab" if where == "profile" else None, endpoint=there if where == "option" else None)
    assert found.values == {"endpoint": there}


@pytest.mark.parametrize("family", FAMILIES)
def test_of_several_programs_the_one_of_the_named_address_counts(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    for name, variables in FAMILIES.items():
        moved = {n: f"https://{name}" if value == URL else value for n, value in variables.items()}
        environment(monkeypatch, **moved)
    _, username, password, _ = FAMILIES[family]
    environment(monkeypatch, **{username: "me", password: "mine"})
    values = resolved(endpoint=f"{family}:443").values
    assert (values["username"], values["password"]) == ("me", "mine")


def test_what_is_set_for_no_address_goes_to_the_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, GOVC_URL="https://other", GOVC_PASSWORD="theirs", VSPHERE_PASSWORD="mine")  # noqa: S106
    assert resolved(endpoint=URL).values == {"endpoint": URL, "password": "mine"}


def test_ca_files_are_a_list_of_paths_that_hold_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    environment(monkeypatch, GOVC_TLS_CA_CERTS=f"a.pem{os.pathsep}/b.pem")
    assert resolved().values["ca_file"] == f"{tmp_path / 'a.pem'}{os.pathsep}/b.pem"


def test_pins_of_govc_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment(monkeypatch, GOVC_THUMBPRINT="AB", GOVC_TLS_KNOWN_HOSTS=str(tmp_path))
    assert resolved().values == {"fingerprint": "AB", "known_hosts": str(tmp_path)}


# --- the guest's user


def test_the_guests_login_of_govc_is_read_and_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, GOVC_GUEST_LOGIN=f"root:{PASSWORD}")
    assert resolved().values == {"guest_login": f"root:{PASSWORD}"}
    assert PASSWORD not in repr(resolved())


def test_both_passwords_are_looked_for_in_the_keyring(ring: Memory) -> None:
    ring.held = {"vsphere:password": "p", "vsphere:guest_password": "g"}
    values = resolved(endpoint=URL, username="ops", guest_username="root").values
    assert (values["password"], values["guest_password"]) == ("p", "g")


def test_the_keyring_is_asked_for_what_is_missing_only(monkeypatch: pytest.MonkeyPatch, ring: Memory) -> None:
    environment(monkeypatch, VSPHERE_PASSWORD="p")  # noqa: S106
    assert "guest_password" not in resolved(endpoint=URL, username="ops").values
    assert ring.asked == []
    resolved(endpoint=URL, username="ops", guest_username="root")
    assert ring.asked == ["vsphere:guest_password"]


def test_the_guests_password_is_not_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, NESTVIRT_VSPHERE_GUEST_PASSWORD="g")  # noqa: S106
    values = resolved(endpoint=URL, username="ops").values
    assert settings.lacks_password("vsphere", values)
    assert not settings.lacks_password("vsphere", {**values, "password": "p"})
