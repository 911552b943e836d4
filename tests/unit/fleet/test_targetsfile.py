"""The fleet file: what it says, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestvirt.errors import SettingsError
from nestvirt.fleet.targetsfile import read

FILE = """\
[groups.workers]
targets = ["libvirt:node-1", "proxmox@lab: tag=k8s-worker"]

[groups.all]
groups = ["workers"]
targets = ["vsphere:db", "libvirt:node-1"]

[targets."libvirt:node-1"]
ssh = "admin@{name}"
ssh_config = "ssh/config"
node = "worker-1"
"""


def test_groups_hold_targets_and_groups_each_once(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FILE, encoding="utf-8")
    file = read(tmp_path / "fleet.toml")
    workers = ("libvirt:node-1", "proxmox@lab: tag=k8s-worker")
    assert file.chosen(["workers"]) == workers
    assert set(file.chosen(["all"])) == {*workers, "vsphere:db"}
    assert len(file.chosen([])) == 3


def test_what_is_to_be_known_of_a_target(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FILE, encoding="utf-8")
    details = read(tmp_path / "fleet.toml").details["libvirt:node-1"]
    config = str(tmp_path / "ssh/config")  # from the file's own folder, wherever nestvirt is run
    assert details == {"ssh": "admin@{name}", "ssh_config": config, "node": "worker-1"}


def test_without_groups_all_targets_are_one(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[targets."libvirt:a"]\nnode = "a"\n', encoding="utf-8")
    assert read(tmp_path / "fleet.toml").chosen([]) == ("libvirt:a",)


def test_an_unknown_group_is_told_beside_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FILE, encoding="utf-8")
    with pytest.raises(SettingsError, match="nope") as caught:
        read(tmp_path / "fleet.toml").chosen(["nope"])
    assert "workers, all" in caught.value.evidence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[groups", "TOML"),
        ("[group.a]\n", "group"),
        ("groups = 1\n", "no table"),
        ('[groups]\na = "b"\n', "no table"),
        ('[groups.a]\ntarget = ["x"]\n', "target"),
        ('[groups.a]\ntargets = "x"\n', "no list"),
        ("[groups.a]\ntargets = [1]\n", "no list"),
        ('[groups.a]\ntargets = [" "]\n', "no list"),
        ('[groups.a]\ngroups = ["b"]\n', "not there"),
        ('[groups.a]\ngroups = ["b"]\n[groups.b]\ngroups = ["a"]\n', "in itself"),
        ('[targets."libvirt:a"]\npassword = "x"\n', "password"),
        ('[targets."libvirt:a"]\nssh = 1\n', "ssh"),
        ('[targets."libvirt:a"]\nssh = "admin@{nam}"\n', "{nam}"),
        ('[targets."libvirt:a"]\nnode = "{name}.{domain}"\n', "{domain}"),
        ('[targets."libvirt:a"]\nnode = "{name"\n', "{name"),
    ],
)
def test_what_is_wrong_is_said_with_a_cure(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "fleet.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        read(tmp_path / "fleet.toml")
    assert words in caught.value.evidence
    assert caught.value.cure


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        read(tmp_path / "nope.toml")
