"""Where Proxmox's secrets may go, and by what its certificate is verified."""

from __future__ import annotations

from pathlib import Path

import keyring
import pytest

from nestvirt import settings
from nestvirt.errors import SettingsError
from tests.unit.test_settings_proxmox import SECRET, URL, environment
from tests.unit.test_settings_proxmox import config as config  # for every test here, too


@pytest.mark.parametrize("where", ["profile", "environment"])
def test_a_secret_that_is_for_another_address_is_not_sent_to_the_recorded_one(
    config: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "profile":
        text = f'[profiles.lab]\nbackend = "proxmox"\nendpoint = "https://moved"\napi_token = "{SECRET}"'
        config.write_text(text, encoding="utf-8")
    else:
        environment(monkeypatch, PROXMOX_VE_ENDPOINT="https://moved", PROXMOX_VE_API_TOKEN=SECRET)
    profile = "lab" if where == "profile" else None
    with pytest.raises(SettingsError, match="for another address") as caught:
        settings.resolve("proxmox", profile, {}, {"endpoint": URL})
    assert "--connect https://moved" in caught.value.cure
    assert SECRET not in f"{caught.value.evidence}{caught.value.cure}"
    chosen = settings.resolve("proxmox", profile, {"endpoint": "https://moved"}, {"endpoint": URL})
    assert chosen.values["endpoint"] == "https://moved"


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n", " "])
def test_a_line_end_is_no_part_of_a_secret(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    environment(monkeypatch, PROXMOX_VE_ENDPOINT=URL, PROXMOX_VE_API_TOKEN=f"{SECRET}{ending}")
    assert settings.resolve("proxmox", None, {}).values["api_token"] == SECRET


def test_a_ca_file_said_above_an_insecure_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, PROXMOX_VE_ENDPOINT=URL, PROXMOX_VE_INSECURE="true")
    assert "insecure" not in settings.resolve("proxmox", None, {"ca_file": "ca.pem"}).values
    assert "insecure" in settings.resolve("proxmox", None, {}).values


@pytest.mark.parametrize("error", [ImportError, RuntimeError, AttributeError, OSError])
def test_a_broken_keyring_is_none(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(_service: str, _user: str) -> str:
        raise error("broken")

    monkeypatch.setattr(keyring, "get_password", fail)
    environment(monkeypatch, PROXMOX_VE_ENDPOINT=URL)
    assert "api_token" not in settings.resolve("proxmox", None, {}).values
