"""The command line with the in-memory hypervisor among its backends: ``python -m tests.peers.memory_cli …``.

NESTVIRT_MEMORY_PATH is its file, NESTVIRT_MEMORY_BOOT the seconds of a boot; profiles may say both. With
NESTVIRT_MEMORY_DIE, the process kills itself when so many VMs have been asked to start; with
NESTVIRT_MEMORY_DIE_AT, before or after the line of that number of any record: "before 7".
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

from nestvirt import backends, settings
from nestvirt.cli import main
from nestvirt.fleet.record import FleetRecord
from nestvirt.journal import Record
from nestvirt.settings import Setting
from tests.peers import memory

_starts, _lines = itertools.count(1), itertools.count(1)


def register() -> None:
    """Make it known, with its settings."""
    backends.BACKENDS.setdefault(*memory.REGISTRATION)
    known = (Setting("path", ("NESTVIRT_MEMORY_PATH",)), Setting("boot", ("NESTVIRT_MEMORY_BOOT",)))
    settings.SETTINGS.setdefault("memory", known)


def _dying(start: Any, at: int) -> Any:
    def starting(*args: Any, **options: Any) -> None:
        if next(_starts) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        start(*args, **options)

    return starting


def _dying_at(write: Any, when: str, at: int) -> Any:
    def writing(*args: Any, **line: Any) -> None:
        now = next(_lines) == at
        if now and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        write(*args, **line)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    return writing


if __name__ == "__main__":
    register()
    if os.environ.get("NESTVIRT_MEMORY_DIE_AT"):
        when, line = os.environ["NESTVIRT_MEMORY_DIE_AT"].split()
        for record in (Record, FleetRecord):
            record._write = _dying_at(record._write, when, int(line))  # type: ignore[method-assign]
    if os.environ.get("NESTVIRT_MEMORY_DIE"):
        at = int(os.environ["NESTVIRT_MEMORY_DIE"])
        memory.MemoryBackend.start = _dying(memory.MemoryBackend.start, at)  # type: ignore[method-assign]
    main()
