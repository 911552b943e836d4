"""nestvirt enables nested virtualization and proves it by running code inside the guest.

For programs::

    import nestvirt

    report = nestvirt.check("libvirt:web-01")

See ``nestvirt.api``. Importing the package imports nothing else of it: a name is, when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nestvirt.api import Inside, check, enable, undo
    from nestvirt.errors import (
        AccessDenied,
        Busy,
        ChangeRejected,
        ConnectionFailed,
        Error,
        GuestUnreachable,
        Interrupted,
        JournalError,
        MissingExtra,
        PowerError,
        SettingsError,
        TargetError,
    )
    from nestvirt.model import Change, Finding, Goal, Layer, Plan, Proof, Report, Status, Target

__version__ = "0.1.0"

_MODULES = {
    "api": ("Inside", "check", "enable", "undo"),
    "errors": (
        "AccessDenied",
        "Busy",
        "ChangeRejected",
        "ConnectionFailed",
        "Error",
        "GuestUnreachable",
        "Interrupted",
        "JournalError",
        "MissingExtra",
        "PowerError",
        "SettingsError",
        "TargetError",
    ),
    "model": ("Change", "Finding", "Goal", "Layer", "Plan", "Proof", "Report", "Status", "Target"),
}
_HOME = {name: f"nestvirt.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "AccessDenied",
    "Busy",
    "Change",
    "ChangeRejected",
    "ConnectionFailed",
    "Error",
    "Finding",
    "Goal",
    "GuestUnreachable",
    "Inside",
    "Interrupted",
    "JournalError",
    "Layer",
    "MissingExtra",
    "Plan",
    "PowerError",
    "Proof",
    "Report",
    "SettingsError",
    "Status",
    "Target",
    "TargetError",
    "__version__",
    "check",
    "enable",
    "undo",
]


if not TYPE_CHECKING:  # or a type checker would take every name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'nestvirt' has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
