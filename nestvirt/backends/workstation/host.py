"""What of this machine matters for VMs of Workstation: its CPU, and VMware's kernel module. Reads only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CPUINFO, VMMON = "proc/cpuinfo", "dev/vmmon"

_FLAGS = re.compile(r"^(?:vmx )?flags\s*:(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Host:
    """This machine, where it is a Linux one.

    Attributes:
        module: whether VMware's module vmmon is loaded.
        flags: of the CPU, those of "vmx flags" too; None where they were not read.
    """

    module: bool
    flags: frozenset[str] | None


def read_host(root: Path = Path("/")) -> Host | None:
    """Read what Linux tells; None on another system.

    Without VMware's module no VM runs here, so that what the CPU can do is not asked.
    """
    try:
        text = (root / CPUINFO).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if not (root / VMMON).exists():
        return Host(module=False, flags=None)
    flags = frozenset(flag for found in _FLAGS.finditer(text) for flag in found[1].split())
    return Host(module=True, flags=flags)
