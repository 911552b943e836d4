"""Where vSphere is, which certificates are known, and what its faults say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nestvirt.backends.vsphere import VsphereBackend, guest_of
from nestvirt.backends.vsphere.address import Address, Pins
from nestvirt.backends.vsphere.faults import refused, words_of
from nestvirt.backends.vsphere.inventory import plain
from nestvirt.errors import SettingsError
from nestvirt.model import Target

HERE = Address("vc", 443)
SHA1, SHA256 = "ab" * 20, "cd" * 32


@pytest.mark.parametrize(
    ("text", "port", "found", "shown"),
    [
        ("vc", None, Address("vc", 443), "https://vc"),
        ("VC.example.com", None, Address("vc.example.com", 443), "https://vc.example.com"),
        ("vc:8443", "443", Address("vc", 8443), "https://vc:8443"),
        ("vc", "8443", Address("vc", 8443), "https://vc:8443"),
        ("https://vc/", None, Address("vc", 443), "https://vc"),
        ("https://vc/sdk", None, Address("vc", 443), "https://vc"),
        ("https://vc/sdk/", None, Address("vc", 443), "https://vc"),
        ("https://vc/ui/", None, Address("vc", 443), "https://vc"),
        ("https://vc/ui/app/vm;nav=v/urn:vm-1/summary", None, Address("vc", 443), "https://vc"),
        ("https://proxy/vc/sdk", None, Address("proxy", 443, "/vc/sdk"), "https://proxy/vc/sdk"),
        ("https://[fe80::1]:444", None, Address("fe80::1", 444), "https://[fe80::1]:444"),
    ],
)
def test_address(text: str, port: str | None, found: Address, shown: str) -> None:
    assert Address.parse(text, port) == found
    assert str(found) == shown
    assert Address.parse(shown) == found


@pytest.mark.parametrize(
    "text",
    [
        "http://vc",
        "https://",
        "vc:s3cret",
        "ops:s3cret@vc",
        "https://a:b:c/",
        "vc:0",
        "vc:65536",
        "vc..example.com",
    ],
)
def test_what_is_none_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Address.parse(text)
    assert "s3cret" not in f"{caught.value.message}{caught.value.evidence}{caught.value.cure}"


@pytest.mark.parametrize("port", ["0", "70000", "-1", "x"])
def test_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match="address"):
        Address.parse("vc", port)


def test_without_an_address_the_cure_names_the_variables() -> None:
    with pytest.raises(SettingsError) as caught:
        VsphereBackend.connect(Target("vsphere", "x"), {})
    assert "VSPHERE_SERVER" in caught.value.cure


def known(tmp_path: Path, text: str) -> str:
    path = tmp_path / "known_hosts"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_known_hosts_pin_the_server_and_others(tmp_path: Path) -> None:
    path = known(tmp_path, f"\n# a comment\nvc:443 {SHA1.upper()}\nESX1 {SHA256}\n[fe80::1]:444 {SHA1}\n")
    pins = Pins.of({"known_hosts": path}, HERE)
    assert pins.own == SHA1
    assert pins.known == {("vc", 443): SHA1, ("esx1", 443): SHA256, ("fe80::1", 444): SHA1}


@pytest.mark.parametrize(
    ("beside", "own"),
    [({"ca_file": "ca"}, None), ({"insecure": "true"}, None), ({"fingerprint": SHA256}, SHA256)],
)
def test_what_was_said_of_the_server_itself_goes_before_the_file(
    tmp_path: Path, beside: dict[str, str], own: str | None
) -> None:
    assert Pins.of({"known_hosts": known(tmp_path, f"vc {SHA1}"), **beside}, HERE).own == own


def test_a_pin_holds_beside_insecure() -> None:
    assert Pins.of({"fingerprint": SHA1, "insecure": "true"}, HERE).own == SHA1


@pytest.mark.parametrize("text", [None, "vc:443 abcd"])
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, text: str | None) -> None:
    path = str(tmp_path / "none") if text is None else known(tmp_path, text)
    with pytest.raises(SettingsError):
        Pins.of({"known_hosts": path}, HERE)


def test_a_fault_tells_its_name_and_each_thing_once() -> None:
    fault = type("vim.fault.InvalidPowerState", (SimpleNamespace,), {})(
        msg="Powered on.\x1b[2J",
        faultMessage=[SimpleNamespace(message="no"), SimpleNamespace(message="no")],
        existingState="poweredOn",
    )
    assert words_of(fault) == "InvalidPowerState: Powered on. [2J; no; it is poweredOn"
    error = refused("ReconfigVM_Task", fault)
    assert (error.name, error.privilege) == ("InvalidPowerState", "")


def test_a_missing_privilege_is_named_in_the_cure() -> None:
    fault = type("vim.fault.NoPermission", (SimpleNamespace,), {})(
        privilegeId="VirtualMachine.Config.Settings"
    )
    error = refused("ReconfigVM_Task", fault)
    assert "VirtualMachine.Config.Settings" in error.evidence
    assert "VirtualMachine.Config.Settings" in error.cure


@pytest.mark.parametrize(
    ("name", "seen"), [("a%2fb", "a/b"), ("a%5Cb", "a\\b"), ("100%25", "100%"), ("%2525", "%25")]
)
def test_names_are_shown_as_people_wrote_them(name: str, seen: str) -> None:
    assert plain(name) == seen


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"guest_login": "root:a:b"}, ("root", "a:b")),
        ({"guest_login": "root:a", "guest_username": "alice"}, ("alice", "")),
        ({"guest_login": "root:a", "guest_username": "root"}, ("root", "a")),
        ({"guest_login": "root:a", "guest_password": "b"}, ("", "b")),
        ({"guest_login": "root:a", "guest_username": "alice", "guest_password": "b"}, ("alice", "b")),
        ({}, ("", "")),
    ],
)
def test_a_user_of_the_guest_gets_no_other_users_password(
    given: dict[str, str], used: tuple[str, str]
) -> None:
    assert guest_of(given) == used
