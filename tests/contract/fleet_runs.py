"""Runs over many VMs of the in-memory hypervisor, and what is to be looked at after their undo."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.peers.memory_fleet import COMMAND, MemoryFleet


def definitions(path: Path) -> str:
    """All that there is of the VMs, but for what every start changes."""
    vms = json.loads(path.read_text(encoding="utf-8"))
    kept = {n: {k: v for k, v in vm.items() if k not in ("boots", "live")} for n, vm in vms.items()}
    return json.dumps(kept, indent=1, sort_keys=True)


def in_effect(fleet: MemoryFleet) -> bool:
    """Whether what runs does so with what is configured."""
    return all(vm.get("live") == vm.get("nested") for vm in fleet.vms().values() if vm["power"] == "running")


def fleet_runs(fleet: MemoryFleet) -> list[dict[str, Any]]:
    """Those that undo --list tells of, newest first."""
    told: list[dict[str, Any]] = json.loads(fleet.run("undo", "--list", "-o", "json").stdout)["fleet_runs"]
    return told


def run_of(fleet: MemoryFleet, command: str = "enable") -> str:
    """The id of the newest run of that command."""
    return str(next(run["run"] for run in fleet_runs(fleet) if run["command"] == command))


def enabled(fleet: MemoryFleet, *args: str, **variables: str) -> str:
    """The id of an enable of all."""
    fleet.run("enable", "memory: *", "--yes", "--parallel", "1", *args, **variables)
    return run_of(fleet)


@contextmanager
def asked(fleet: MemoryFleet, *args: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that waits for its user's answer, and the terminal for that."""
    master, terminal = os.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, *args],
            env=fleet.environment(),
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stderr is not None
            said = ""
            while "Change 3 of 3?" not in said:
                more = running.stderr.read(1)
                assert more, said
                said += more
            yield running, master
    finally:
        os.close(master)
        os.close(terminal)


def edit(fleet: MemoryFleet, name: str, **fields: Any) -> None:
    vms = json.loads(fleet.path.read_text())
    vms[f"id-{name}"] |= fields
    fleet.path.write_text(json.dumps(vms))
