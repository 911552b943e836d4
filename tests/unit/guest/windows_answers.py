"""What Windows guests say of themselves, as the reading inside them writes it."""

from __future__ import annotations

import json
from typing import Any

Answer = dict[str, Any]

STARTED = {"id": 2, "level": 4}
"""The event of a hypervisor that has started, with its scheduler."""

HYPERV = "Microsoft-Hyper-V"


def plain(**fields: object) -> Answer:
    """A server below Hyper-V with the extensions, and nothing installed that would use them."""
    return {
        "schema_version": 1,
        "os": {"caption": "Windows Server 2022 Datacenter", "build": "20348", "server": True, "dep": True},
        "machine": {
            "hypervisor_present": True,
            "manufacturer": "Microsoft Corporation",
            "model": "Virtual Machine",
        },
        "processors": processors(2),
        "vbs": {"status": 0, "running": []},
        "features": [],
        "events": [],
        "vms": None,
        "workers": [],
        "unread": {
            "vms": "HRESULT 0x8004100e,Microsoft.Management.Infrastructure.CimCmdlets.GetCimInstanceCommand"
        },
        **fields,
    }


def processors(count: int = 1, **fields: object) -> list[Answer]:
    one = {"manufacturer": "GenuineIntel", "extensions": True, "firmware": True, "slat": True, **fields}
    return [one] * count


def hidden() -> list[Answer]:
    """A CPU that shows nothing: the VM has no extensions, or the guest's own hypervisor holds them."""
    return processors(extensions=False, firmware=False, slat=False)


def hyperv(**fields: object) -> Answer:
    """Its own Hyper-V runs, and a VM inside."""
    running = {
        "processors": hidden(),
        "features": [HYPERV],
        "events": [STARTED],
        "vms": [vm("inner", 4711)],
        "workers": [4711],
        "unread": {},
    }
    return plain(**{**running, **fields})


def vm(name: str, process: int, milliseconds: int = 90_000) -> Answer:
    return {"name": name, "process": process, "milliseconds": milliseconds}


def written(answer: object) -> bytes:
    return json.dumps(answer).encode()
