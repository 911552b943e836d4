"""The command line with a .vmx file: from off, with one line that differs, and back to the same bytes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

from nestvirt.cli import cli
from nestvirt.errors import Error
from tests.peers.vmrun_rig import machine_id

DATA = (
    b'.encoding = "UTF-8"\r\nconfig.version = "8"\r\nvirtualHW.version = "19"\r\ndisplayName = "web-01"\r\n'
)
LINE = b'vhv.enable = "TRUE"\r\n'


@pytest.fixture
def vmx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A VM that is off, on a machine without vmrun; the present folder is that of the file."""
    for name in ("NESTVIRT_VMX_VMRUN", "NESTVIRT_VMX_PRODUCT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config.toml").touch(mode=0o600)
    monkeypatch.setenv("NESTVIRT_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("NESTVIRT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", "/nowhere")
    path = tmp_path / "vm" / "machine.vmx"
    path.parent.mkdir()
    path.write_bytes(DATA)
    monkeypatch.chdir(path.parent)
    return path


class Shown(NamedTuple):
    code: int
    stdout: str
    stderr: str


def nestvirt(*args: str) -> Shown:
    """Run it in this process; white space is made one blank, as a terminal's width breaks lines."""
    result = CliRunner().invoke(cli, args, standalone_mode=False)
    error, code, stderr = result.exception, result.return_value, result.stderr
    if isinstance(error, Error):
        code, stderr = error.exit_code, f"{stderr} {error.message}: {error.evidence}; {error.cure}"
    elif isinstance(error, click.ClickException):
        code, stderr = error.exit_code, error.message
    elif error is not None:
        raise error
    return Shown(code, " ".join(result.stdout.split()), " ".join(stderr.split()))


def report(*args: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(nestvirt(*args, "-o", "json").stdout)  # blanks mean nothing there
    return found


def test_one_line_differs_and_undo_gives_the_same_bytes_back(
    vmx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = nestvirt("enable", "--vmx", "machine.vmx", "--yes")
    assert shown.code == 3  # off, so that nothing can be proven
    assert f"nestvirt check --vmx {vmx}" in shown.stdout
    assert "(web-01): this will be changed" in shown.stderr
    assert vmx.read_bytes() == DATA + LINE
    monkeypatch.chdir(tmp_path)
    assert nestvirt("undo", "--vmx", "vm/machine.vmx", "--yes").code == 0
    assert vmx.read_bytes() == DATA
    assert "undone" in nestvirt("undo", "--list", "--vmx", str(vmx)).stdout


@pytest.mark.parametrize("one", ["machine.vmx", ".", "../link.vmx"])
@pytest.mark.parametrize("other", ["machine.vmx", ".", "../link.vmx"])
def test_undo_finds_the_run_whichever_way_the_file_is_named(vmx: Path, one: str, other: str) -> None:
    (vmx.parent.parent / "link.vmx").symlink_to(vmx)
    nestvirt("enable", "--vmx", one, "--yes")
    assert nestvirt("undo", "--vmx", other, "--yes").code == 0
    assert vmx.read_bytes() == DATA


def test_dry_run_says_what_it_would_do(vmx: Path) -> None:
    told = report("enable", "--vmx", ".", "--dry-run")
    change = {"setting": "vhv.enable", "before": None, "after": 'vhv.enable = "TRUE"'}
    assert (told["target"], told["changes"]) == (f"vmx:{vmx.parent}", [change])
    assert vmx.read_bytes() == DATA


def test_disable_takes_the_line_away(vmx: Path) -> None:
    nestvirt("enable", "--vmx", "machine.vmx", "--yes")
    assert nestvirt("disable", "--vmx", "machine.vmx", "--yes").code == 0
    assert vmx.read_bytes() == DATA


def hold(vmx: Path, machine: str, process: str) -> Path:
    """Its lock, as VMware writes it on the machine of that id."""
    folder = vmx.with_name("machine.vmx.lck")
    folder.mkdir()
    (folder / "M51843.lck").write_text(f"{machine} {process} 170 X [ lc=1".ljust(512, "\0"))
    return folder


@pytest.mark.parametrize(
    ("machine", "process"),
    [
        pytest.param("AQIDBAUGBwgJCgsM", "4321-98765(vmware-vmx)", id="Linux"),
        pytest.param("uuid=564d9cf0-1b2a-3c4d-5e6f-708192a3b4c5", "4194399-0", id="Mac"),
    ],
)
def test_vm_that_runs_on_another_machine_is_left_alone(vmx: Path, machine: str, process: str) -> None:
    """Both see one folder, such as of NFS; its file is that machine's as long as the VM runs."""
    folder = hold(vmx, machine, process)
    shown = nestvirt("enable", "--vmx", "machine.vmx", "--yes")
    assert shown.code == 1
    assert f"FAIL vm-lock {folder}: process {process.split('-')[0]}" in shown.stdout
    assert "of another machine" in shown.stdout
    assert f"shut it down there; if no machine runs it any more: rm -r {folder}" in shown.stdout
    assert vmx.read_bytes() == DATA
    shutil.rmtree(folder)
    nestvirt("enable", "--vmx", "machine.vmx", "--yes")
    assert vmx.read_bytes() == DATA + LINE
    hold(vmx, machine, process)
    assert nestvirt("undo", "--yes").code == 1
    assert vmx.read_bytes() == DATA + LINE


def test_vm_that_is_open_in_another_product_is_left_alone(vmx: Path) -> None:
    """That one may write the file, running or not: here it is a process of this machine, which is no VM."""
    hold(vmx, machine_id(), f"{os.getpid()}-0(vmplayer)")
    shown = nestvirt("enable", "--vmx", "machine.vmx", "--yes")
    assert shown.code == 1
    assert f"FAIL vm-lock process {os.getpid()} (vmplayer) has it open" in shown.stdout
    assert "do this: close the VM there" in shown.stdout
    assert vmx.read_bytes() == DATA


def test_file_that_is_gone_cannot_be_put_back(vmx: Path) -> None:
    nestvirt("enable", "--vmx", "machine.vmx", "--yes")
    vmx.unlink()
    shown = nestvirt("undo", "--yes")
    assert shown.code == 2
    assert "nothing left to put back" in shown.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["enable", "--vmx", "[datastore1] web/web.vmx"], 2, "--vsphere NAME"),
        (["enable", "--vmx", "/vmfs/volumes/a/web.vmx"], 2, "--vsphere NAME"),
        (["check", "--vmx", "missing.vmx"], 2, "there is no VM at"),
        (["enable", "--vmx", ""], 2, "empty name"),
        (["enable", "--vmx", "machine.vmx", "--cpu", "host"], 2, "--cpu does not go with --vmx"),
        (["enable", "--vmx", "machine.vmx", "--connect", "https://x"], 2, "not with --vmx"),
        (["enable", "--vmx", "machine.vmx", "--with-host", "--yes"], 2, "--with-host is for hosts of KVM"),
        (["check", "--vmx", "machine.vmx", "--libvirt", "x"], 2, "One VM at a time"),
    ],
)
def test_what_does_not_go(vmx: Path, args: list[str], code: int, words: str) -> None:
    shown = nestvirt(*args)
    assert (shown.code, words in shown.stderr) == (code, True)
    assert vmx.read_bytes() == DATA


def test_vmrun_of_a_setting_is_told_by_its_source(vmx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTVIRT_VMX_VMRUN", "no/such/vmrun")
    shown = nestvirt("check", "--vmx", "machine.vmx")
    assert shown.code == 2
    assert "the vmrun that is named is not there" in shown.stderr
    assert str(vmx.parent / "no/such/vmrun") in shown.stderr
