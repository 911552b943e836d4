"""A vCenter with ten thousand VMs: round trips and memory; and the time, beside a plain loop by pyvmomi."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

from pyVim import connect
from pyVmomi import vim

from benchmarks.proxmox import Count
from nestvirt import backends
from nestvirt.backends.vsphere import VsphereBackend
from nestvirt.model import Target
from tests.peers.vsphere import VSphere
from tests.peers.vsphere_rig import VSphereRig

PYVIM: Any = connect  # its stubs have no types
MANY = 10_000
NAME = "guest-07000"
TRIPS_AIM, PEAK_AIM = 5, 150

PEAK = """
import json, re, sys
from pathlib import Path
from nestvirt import backends
from nestvirt.model import Target
backend = backends.connect(Target("vsphere", "any"), json.loads(sys.stdin.read()))
backend.read(backend.find(sys.argv[1]))
listed = sum(1 for _ in backend.states())
backend.close()
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


class VSphereBench:
    """The peer with ten thousand VMs."""

    def __enter__(self) -> Self:
        self._lab = VSphere(vms=MANY)
        self._rig = VSphereRig(self._lab, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lab.close()

    def figures(self) -> list[Count]:
        """Round trips to find and read one VM; and the peak memory of that and of the whole listing."""
        self._lab.clear()
        self.find_by_nestvirt()
        trips = sum(self._lab.counts().values()) - self._lab.counts()["Logout"]
        given = json.dumps(dict(self._rig.endpoint))
        command = [sys.executable, "-c", PEAK, NAME]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
        return [
            Count(f"vSphere: one of {MANY} VMs, found and read", trips, TRIPS_AIM, "round trips"),
            Count(f"vSphere: peak memory, all {MANY} listed", int(done.stdout), PEAK_AIM, "MiB"),
        ]

    def find_by_nestvirt(self) -> float:
        """Seconds to connect, to find one VM, and to read its facts."""
        start = time.perf_counter()
        backend = backends.connect(Target("vsphere", NAME), self._rig.endpoint)
        backend.read(backend.find(NAME))
        backend.close()
        return time.perf_counter() - start

    def list_by_nestvirt(self) -> float:
        """Seconds to connect, and to list all VMs with their states."""
        start = time.perf_counter()
        backend = backends.connect(Target("vsphere", "any"), self._rig.endpoint)
        assert isinstance(backend, VsphereBackend)
        assert sum(1 for _ in backend.states()) >= MANY
        backend.close()
        return time.perf_counter() - start

    def find_by_loop(self) -> float:
        """Seconds of what pyvmomi's samples do: a view, a loop that compares names, then what is asked."""
        start = time.perf_counter()
        connection, vms = self._loop()
        vm = next(vm for vm in vms if vm.name == NAME)
        assert vm.config.nestedHVEnabled is not None
        assert vm.runtime.host.capability.nestedHVSupported
        PYVIM.Disconnect(connection)
        return time.perf_counter() - start

    def list_by_loop(self) -> float:
        """Seconds of such a loop that reads each VM's state."""
        start = time.perf_counter()
        connection, vms = self._loop()
        states = [(vm.name, vm.runtime.powerState, vm.config.nestedHVEnabled) for vm in vms]
        assert len(states) >= MANY
        PYVIM.Disconnect(connection)
        return time.perf_counter() - start

    def _loop(self) -> tuple[Any, Any]:
        host, _, port = self._lab.address.partition(":")
        context = ssl.create_default_context(cafile=self._lab.ca_file)
        login = {"user": self._lab.user, "pwd": self._lab.password, "sslContext": context}
        connection = PYVIM.SmartConnect(host=host, port=int(port), **login)
        content = connection.RetrieveContent()
        kinds = [vim.VirtualMachine]
        view = content.viewManager.CreateContainerView(content.rootFolder, kinds, True)
        return connection, view.view
