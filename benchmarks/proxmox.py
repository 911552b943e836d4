"""What Proxmox is asked: the number of requests, and the time they take beside the bare requests."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from nestvirt import backends
from nestvirt.model import Target
from tests.peers.proxmox_rig import ProxmoxRig
from tests.peers.pve_server import serve

FACTS_AIM, ENABLE_AIM = 6, 10


@dataclass(frozen=True)
class Count:
    """A number, and what it should stay below."""

    name: str
    number: int
    aim: int
    unit: str = "requests"

    def line(self) -> str:
        """One row of the table."""
        verdict = "ok" if self.number <= self.aim else "MISSED"
        return f"{self.name:<58} {self.number:>6} {self.unit}  aim {self.aim}  {verdict}"


class ProxmoxBench:
    """A peer with one running VM that does not nest."""

    def __init__(self, nestvirt: str, state: Path) -> None:
        self._nestvirt = nestvirt
        self._state = state
        self._serving = serve()

    def __enter__(self) -> Self:
        self._rig = ProxmoxRig(self._serving.__enter__())
        self._name = self._rig.make()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.__exit__(kind, error, trace)

    def counts(self) -> list[Count]:
        """Facts of one VM; and enable, less those and less what only waits."""
        traffic = self._rig.pve.traffic
        backend = backends.connect(Target("proxmox", self._name), self._rig.endpoint)
        traffic.clear()
        backend.read(backend.find(self._name))
        facts = traffic.counts.total() - traffic.count("GET", "/cluster/resources")  # less the search for it
        backend.close()
        traffic.clear()
        self._enable()
        # Each reading of facts asks for the state once; that is no waiting.
        waiting = traffic.polls - traffic.count("GET", "/pending")
        beside = traffic.counts.total() - facts - waiting
        return [
            Count("Proxmox: facts of one VM", facts, FACTS_AIM),
            Count("Proxmox: enable beside facts and polling", beside, ENABLE_AIM),
        ]

    def by_nestvirt(self) -> float:
        """Seconds to connect, to find a VM, and to read its facts."""
        start = time.perf_counter()
        backend = backends.connect(Target("proxmox", self._name), self._rig.endpoint)
        backend.read(backend.find(self._name))
        backend.close()
        return time.perf_counter() - start

    def by_requests(self) -> float:
        """Seconds of the same requests without anything that reads their answers."""
        vmid = self._rig.vm(self._name).vmid
        vm, node = f"nodes/pve1/qemu/{vmid}", "nodes/pve1"
        paths = ["version", "cluster/resources", f"{vm}/pending", f"{vm}/status/current", f"{vm}/snapshot"]
        paths += [
            f"access/permissions?path=/vms/{vmid}",
            f"{node}/capabilities/qemu/cpu-flags",
            f"{node}/status",
        ]
        start = time.perf_counter()
        with requests.Session() as session:
            session.headers["Authorization"] = f"PVEAPIToken={self._rig.token}"
            for path in paths:
                url = f"{self._rig.served.url}/api2/json/{path}"
                session.get(url, verify=self._rig.served.ca_file, timeout=30).raise_for_status()
        return time.perf_counter() - start

    def _enable(self) -> None:
        environment = {
            **os.environ,
            "NESTVIRT_PROXMOX_ENDPOINT": self._rig.served.url,
            "NESTVIRT_PROXMOX_CA_FILE": self._rig.served.ca_file,
            "NESTVIRT_PROXMOX_API_TOKEN": self._rig.token,
            "NESTVIRT_STATE_DIR": str(self._state),
        }
        command = [self._nestvirt, "enable", "--proxmox", self._name, "--yes", "--quiet", "-o", "json"]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        assert json.loads(done.stdout)["proof"]["verdict"] == "works"
