"""Which VMs there are on this machine: what VMware's own library names, its usual folders, and what runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nestvirt.backends.workstation import vmfile

INVENTORIES = (
    "~/.vmware/inventory.vmls",
    "~/Library/Application Support/VMware Fusion/vmInventory",
)
FOLDERS = ("~/vmware", "~/Virtual Machines", "~/Virtual Machines.localized", "~/Documents/Virtual Machines")
LIMIT = 4 << 20
"""Bytes of a library: some ten thousand VMs."""

_CONFIG = re.compile(rb'^\s*vmlist\d+\.config\s*=\s*"([^"\r\n]+)"', re.MULTILINE | re.IGNORECASE)


def files(running: Iterable[str]) -> list[Path]:
    """The .vmx files of all VMs that are known, each once; one that is not there any more is none.

    Args:
        running: those that vmrun lists.
    """
    found: dict[Path, None] = {}
    for path in (*map(Path, running), *_named(), *_lying_about()):
        if path.suffix.lower() == vmfile.SUFFIX and path.is_file():
            found[path.resolve()] = None
    return sorted(found)


def _named() -> Iterator[Path]:
    """What the library of Workstation, or Fusion, names."""
    for inventory in INVENTORIES:
        try:
            text = vmfile.content(_at_home(inventory), LIMIT)
        except OSError:
            continue  # this user has none
        yield from (Path(os.fsdecode(found)) for found in _CONFIG.findall(text))


def _lying_about() -> Iterator[Path]:
    """What is in the folders that VMware offers for new VMs: each VM in a folder, or bundle, of its own."""
    for folder in FOLDERS:
        yield from _at_home(folder).glob(f"*/*{vmfile.SUFFIX}")


def _at_home(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - leaves it as it is where there is no home
