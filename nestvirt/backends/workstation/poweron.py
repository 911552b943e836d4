"""What a VM was powered on with: VMware writes its whole configuration into ``vmware.log`` then.

A line there is ``… DICT   vhv.enable = "TRUE"``, below one that is ``… DICT --- CONFIGURATION PATH``.
"""

from __future__ import annotations

import re
from pathlib import Path

from nestvirt.backends.workstation.vmfile import content

LIMIT = 1 << 20
"""Bytes of the log that are read: the configuration is at its beginning."""

_HEADING = re.compile(rb"\bDICT\s+--- ([A-Z ]+)")
_ENTRY = re.compile(rb"\bDICT\s+([^\s=]+)\s*=\s*(.*)")


def recorded(log: Path, name: str) -> tuple[bool, str | None]:
    """Whether the log has the configuration, and what that said of a name; None where it was not set."""
    try:
        data = content(log, LIMIT)
    except (OSError, ValueError):  # the VM's configuration names it, and may say anything
        return False, None
    there = within = False
    value: str | None = None
    for line in data.splitlines():
        heading, entry = _HEADING.search(line), _ENTRY.search(line)
        if heading:
            within = heading[1].startswith(b"CONFIGURATION")
            there = there or within
        elif within and entry and entry[1].lower() == name.lower().encode():
            value = entry[2].decode("latin-1").strip().strip('"')
    return there, value
