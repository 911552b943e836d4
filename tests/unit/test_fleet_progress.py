"""What is said on stderr while many VMs are worked on."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestvirt.cli.fleet_progress import Screen
from nestvirt.cli.output import Progress
from nestvirt.cli.session import Chosen, settings_for
from nestvirt.model import Target


def test_a_second_ctrl_c_promises_no_more_than_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    """One that has its change is not put back any more: see engine._InPlace."""
    screen = Screen(quiet=False, tell=lambda _row: None)
    screen.stopping(2, at_once=False)
    screen.stopping(2, at_once=True)
    once, twice = capsys.readouterr().err.splitlines()
    assert once.endswith("2 under way are finished; Ctrl-C once more stops them, too")
    assert twice.endswith("is put back, or, where only the proof is missing, left as it is")


def test_how_a_hypervisor_is_reached_is_said_once_and_each_source_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("NESTVIRT_PROXMOX_NODE_SSH", "PROXMOX_VE_API_TOKEN", "NESTVIRT_PROXMOX_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "config.toml"
    file.write_text(
        '[profiles.dc1]\nbackend = "proxmox"\nendpoint = "https://pve1:8006"\nusername = "a@pam"\n'
        'ca_file = "/etc/ca.pem"\n'
    )
    monkeypatch.setenv("NESTVIRT_CONFIG", str(file))
    monkeypatch.setenv("NESTVIRT_PROXMOX_PASSWORD", "x")
    progress = Progress(quiet=False)
    for name in ("100", "101"):
        settings_for(Chosen(), Target("proxmox", name, "dc1"), progress)
    assert capsys.readouterr().err == (
        "nestvirt: connecting to proxmox@dc1; "
        f"the endpoint, username and ca_file are from profile dc1 in {file}, "
        "the password is from NESTVIRT_PROXMOX_PASSWORD\n"
    )
