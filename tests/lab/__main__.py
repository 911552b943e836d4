"""The lab by hand: python -m tests.lab build | up | down | status."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tests.lab.artifacts import artifacts
from tests.lab.cache import home
from tests.lab.libvirtd import LibvirtLab


def build() -> int:
    """Build what machines are booted from, if it has not been yet."""
    built = artifacts()
    for path in (built.kernel, built.initramfs):
        print(f"{path.stat().st_size / 1e6:6.1f} MB  {path}")
    return 0


def up() -> int:
    """Leave an isolated libvirtd running, and say how to connect to it."""
    lab = _running() or LibvirtLab()
    _note().write_text(str(lab.folder))
    print(lab.uri)
    return 0


def down() -> int:
    """End that libvirtd and its guests."""
    if lab := _running():
        lab.close()
    _note().unlink(missing_ok=True)
    return 0


def status() -> int:
    """Say what is built and what runs; 1 where no libvirtd does."""
    for folder in sorted(path for path in home().glob("*") if path.is_dir()):
        size = sum(path.lstat().st_size for path in folder.rglob("*"))
        print(f"{size / 1e6:6.1f} MB  {folder}")
    lab = _running()
    if lab is None:
        print("libvirtd: not running")
        return 1
    print(f"libvirtd: {lab.uri}, process {lab.pid}\n{lab.virsh('list', '--all')}".rstrip())
    return 0


def _note() -> Path:
    """Where it is written down which libvirtd `up` has left running."""
    return home() / "up"


def _running() -> LibvirtLab | None:
    if not _note().exists():
        return None
    folder = Path(_note().read_text())
    lab = LibvirtLab(folder)
    if lab.pid is not None:
        return lab
    shutil.rmtree(folder, ignore_errors=True)
    return None


def main() -> int:
    """Do what the command line asks for."""
    commands = {function.__name__: function for function in (build, up, down, status)}
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__.splitlines()[0])
    choices = parser.add_subparsers(dest="command", required=True, metavar=" | ".join(commands))
    for name, function in commands.items():
        choices.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
    return commands[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
