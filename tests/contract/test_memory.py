"""The conformance suite against the in-memory hypervisor: the engine's own logic, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nestvirt import backends
from tests.contract.conformance import Conformance
from tests.contract.rig import Seen
from tests.peers import memory


class MemoryRig:
    """VMs in a JSON file, and the file itself as oracle."""

    backend = "memory"
    secret = "hunter2-in-the-definition"  # noqa: S105

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boots = 0
        self._write({})

    @property
    def endpoint(self) -> Mapping[str, str]:
        return {"path": str(self._path)}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        return {"path": str(self._path.with_name("nowhere"))}

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        yield {"path": str(self._path), "user": "guest"}

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "") -> str:
        vms = self._read()
        name = f"vm-{len(vms)}"
        vm: dict[str, Any] = {
            "name": name,
            "power": "running" if running else "stopped",
            "password": self.secret,
        }
        vms[f"id-{len(vms)}"] = vm
        if nested:
            vm |= {"nested": "on", "live": "on" if running else None}
        if quirk:
            vm[quirk] = True
        self._write(vms)
        return name

    def make_ambiguous(self) -> str:
        names = self.make(), self.make()
        vms = self._read()
        for vm in vms.values():
            vm["name"] = names[0]
        self._write(vms)
        return names[0]

    def see(self, name: str) -> Seen:
        [vm] = [vm for vm in self._read().values() if vm["name"] == name]
        stored = {key: value for key, value in vm.items() if key not in ("power", "live", "boots")}
        others = {key: value for key, value in stored.items() if key != "nested"}
        return Seen(
            json.dumps(stored, sort_keys=True),
            json.dumps(others, sort_keys=True),
            vm.get("nested") == "on",
            vm["power"] == "running",
            f"{vm['power']} {vm.get('live')}",
        )

    def suspend(self, name: str) -> None:
        self._update(name, power="suspended")

    def edit(self, name: str, *, nested: bool | None) -> None:
        self._update(name, nested={True: "on", False: "off", None: "maybe"}[nested])

    def reboot_inside(self, name: str) -> None:
        """Nothing comes of it: that is the point."""

    def _update(self, name: str, **fields: str) -> None:
        vms = self._read()
        for vm in vms.values():
            if vm["name"] == name:
                vm |= fields
        self._write(vms)

    def _read(self) -> dict[str, dict[str, Any]]:
        vms: dict[str, dict[str, Any]] = json.loads(self._path.read_text(encoding="utf-8"))
        return vms

    def _write(self, vms: dict[str, dict[str, Any]]) -> None:
        self._path.write_text(json.dumps(vms), encoding="utf-8")


class TestMemory(Conformance):
    """The suite's shortest member, and the pattern for the next."""

    @pytest.fixture
    def rig(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryRig:
        monkeypatch.setitem(backends.BACKENDS, *memory.REGISTRATION)
        return MemoryRig(tmp_path / "hypervisor.json")
