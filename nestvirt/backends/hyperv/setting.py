"""The settings that nestvirt writes, by the names of Hyper-V's cmdlets, and their values as text. Pure.

vm.ps1 writes the same texts: they are what a plan and the journal hold, and what is compared
before a write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from nestvirt.model import SAVED_STATE

VERSION = "Version"
DYNAMIC_MEMORY = "DynamicMemoryEnabled"
OPT_OUT = "VirtualizationBasedSecurityOptOut"
EXPOSE = "ExposeVirtualizationExtensions"
MAC_SPOOFING = "MacAddressSpoofing"
"""Of one adapter: ``MacAddressSpoofing:<adapter>``."""

_ADAPTER = re.compile(rf"{MAC_SPOOFING}:([\w-]{{1,64}})")
_STATIC = re.compile(r"false, startup=\d{1,16}")
_DYNAMIC = re.compile(r"true, minimum=(\d{1,16}), startup=(\d{1,16}), maximum=(\d{1,16})")


@dataclass(frozen=True)
class Order:
    """One setting to be written, as apply.ps1 takes it.

    Attributes:
        value: what the cmdlet gets; sizes in bytes.
        adapter: of which adapter; empty where it is the VM's own.
    """

    value: dict[str, Any] = field(default_factory=dict)
    adapter: str = ""

    @classmethod
    def parse(cls, setting: str, after: str | None) -> Order:
        """Read a setting and the text of its new value.

        Raises:
            ValueError: there is no such setting, or it has no such value.
        """
        if setting == SAVED_STATE and after is None:
            return cls()
        if setting == VERSION and after is not None and re.fullmatch(r"\d{1,3}\.\d{1,3}", after):
            return cls({"version": after})
        adapter = _ADAPTER.fullmatch(setting)
        if adapter and after in ("On", "Off"):
            return cls({"word": after}, adapter[1])
        if setting in (DYNAMIC_MEMORY, OPT_OUT, EXPOSE) and after is not None:
            dynamic = _DYNAMIC.fullmatch(after) if setting == DYNAMIC_MEMORY else None
            if dynamic:
                minimum, startup, maximum = map(int, dynamic.groups())
                return cls({"enabled": True, "minimum": minimum, "startup": startup, "maximum": maximum})
            if setting == DYNAMIC_MEMORY and _STATIC.fullmatch(after):
                return cls({"enabled": False})  # the size stays what it is
            if setting != DYNAMIC_MEMORY and after in ("true", "false"):
                return cls({"enabled": after == "true"})
        raise ValueError(f"not a value of {setting}: {after!r}")
