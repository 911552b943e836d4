"""Many VMs of the in-memory hypervisor, and the command line run over them in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT = 120
COMMAND = [sys.executable, "-m", "tests.peers.memory_cli"]


class MemoryFleet:
    """VMs in a file, and a user whose configuration and state are in the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "hypervisor.json"
        self.state = folder / "state"
        self.path.write_text("{}", encoding="utf-8")
        (folder / "config.toml").touch()

    def add(self, name: str, *, running: bool = True, path: Path | None = None, **fields: Any) -> str:
        """Make a VM; its id is id-NAME. Fields: fragile, deaf, tags, nested, live, power."""
        path = path or self.path
        vms = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        vms[f"id-{name}"] = {"name": name, "power": "running" if running else "stopped", **fields}
        path.write_text(json.dumps(vms), encoding="utf-8")
        return f"memory:{name}"

    def vms(self) -> dict[str, dict[str, Any]]:
        """The oracle: name to what the hypervisor has of a VM."""
        held = json.loads(self.path.read_text(encoding="utf-8"))
        return {vm["name"]: vm for vm in held.values()}

    def environment(self, **variables: str) -> dict[str, str]:
        """What its user's processes have."""
        own = {
            "NESTVIRT_MEMORY_PATH": str(self.path),
            "NESTVIRT_STATE_DIR": str(self.state),
            "NESTVIRT_CONFIG": str(self.folder / "config.toml"),
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("NESTVIRT_")}
        return {**inherited, **own, **variables}

    def run(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it, without a terminal."""
        return subprocess.run(
            [*COMMAND, *args],
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def begin(self, *args: str, **variables: str) -> subprocess.Popen[str]:
        """The same, to be waited for."""
        return subprocess.Popen(
            [*COMMAND, *args],
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rows(self, *args: str, **variables: str) -> Mapping[str, dict[str, Any]]:
        """Target to its row, of ``-o json``."""
        done = self.run(*args, "-o", "json", **variables)
        told = json.loads(done.stdout)
        return {row["target"]: {**row, **(row["report"] or {})} for row in told["fleet"]}
