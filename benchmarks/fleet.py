"""Many VMs: a vCenter's thousand listed and planned, ten thousand rows in memory, a hundred boots at once.

``python -m benchmarks.fleet`` measures these alone.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.peak import taken
from benchmarks.proxmox import Count
from tests.peers.memory_fleet import MemoryFleet
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import VSphereRig

NESTVIRT = str(Path(sys.executable).with_name("nestvirt"))
MANY, ROWS = 1_000, 10_000
BOOTS, BOOT_SECONDS, PARALLEL = 100, 1.0, 20
IDEAL = BOOTS / PARALLEL * BOOT_SECONDS
LIST_AIM, PLAN_AIM, REQUESTS_AIM, PEAK_AIM, PARALLEL_AIM = 3.0, 5.0, 10, 150, 1.15


class Line(Protocol):
    """A figure."""

    def line(self) -> str:
        """One row of the table."""


@dataclass(frozen=True)
class Seconds:
    """A time, and what it should stay below."""

    name: str
    seconds: float
    aim: float

    def line(self) -> str:
        """One row of the table."""
        verdict = "ok" if self.seconds <= self.aim else "MISSED"
        return f"{self.name:<58} {self.seconds:>6.2f} s  aim {self.aim:.2f} s  {verdict}"


def of_a_vcenter(count: int, state: Path) -> Iterator[Line]:
    """list, and the plan of enable for all; with ten thousand VMs, what that takes of memory."""
    with VSphere(vms=count) as lab:
        rig = VSphereRig(lab, None)
        # Nobody to log in to guests as: else the plan also looks into those that need nothing.
        endpoint = {key: value for key, value in rig.endpoint.items() if not key.startswith("guest_")}
        own = {f"NESTVIRT_VSPHERE_{key.upper()}": value for key, value in endpoint.items()}
        environment = {**os.environ, **own, "NESTVIRT_STATE_DIR": str(state)}
        lab.clear()
        listing = taken([NESTVIRT, "list", "vsphere: *", "-q", "-o", "json"], environment)
        asked = sum(lab.counts().values())
        plan = [NESTVIRT, "enable", "vsphere: *", "--dry-run", "-q", "-o", "json"]
        planning = taken(plan, environment)
    if count > MANY:
        yield Count(f"peak memory of list, {count} VMs", round(listing[1]), PEAK_AIM, "MiB")
        yield Count(f"peak memory of enable --dry-run, {count} VMs", round(planning[1]), PEAK_AIM, "MiB")
        return
    yield Seconds(f"list of {count} VMs of one vCenter", listing[0], LIST_AIM)
    yield Count(f"list of {count} VMs of one vCenter", asked, REQUESTS_AIM)
    yield Seconds(f"enable --dry-run of {count} VMs of one vCenter", planning[0], PLAN_AIM)


def in_parallel(folder: Path) -> Line:
    """A hundred in-memory VMs that take a second to boot, twenty at once, beside what that takes at least."""
    fleet = MemoryFleet(folder)
    vms = {f"id-{n}": {"name": f"vm-{n}", "power": "running"} for n in range(BOOTS)}
    fleet.path.write_text(json.dumps(vms), encoding="utf-8")
    start = time.perf_counter()
    words = ("enable", "memory: *", "--yes", "-q", "--parallel", str(PARALLEL))
    done = fleet.run(*words, NESTVIRT_MEMORY_BOOT=str(BOOT_SECONDS))
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return Seconds(
        f"enable of {BOOTS} VMs, {PARALLEL} at once, {IDEAL:.0f} s at least", seconds, IDEAL * PARALLEL_AIM
    )


def figures() -> Iterator[Line]:
    """All of them."""
    with tempfile.TemporaryDirectory() as folder:
        yield from of_a_vcenter(MANY, Path(folder) / "state")
        yield in_parallel(Path(folder))
        yield from of_a_vcenter(ROWS, Path(folder) / "state")


if __name__ == "__main__":
    for figure in figures():
        print(figure.line(), flush=True)
