"""enable on a real VM, and by its side the same by hand: virsh, the agent, the probe."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nestvirt.guest.verify import probe_source
from tests.lab.libvirtd import LibvirtLab

VM = "bench"


class EnableBench:
    """One VM, put back to "off and booted" before each measurement."""

    def __init__(self, nestvirt: str, state: Path) -> None:
        self._nestvirt = nestvirt
        self._state = state
        self._lab = LibvirtLab()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lab.close()

    def by_nestvirt(self) -> float:
        """Seconds of ``nestvirt enable``."""
        self._put_back()
        environment = {
            **os.environ,
            "LIBVIRT_DEFAULT_URI": self._lab.uri,
            "NESTVIRT_STATE_DIR": str(self._state),
        }
        command = [self._nestvirt, "enable", "--libvirt", VM, "--yes", "--quiet", "-o", "json"]
        start = time.perf_counter()
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        seconds = time.perf_counter() - start
        assert json.loads(done.stdout)["proof"]["verdict"] == "works"
        return seconds

    def by_virsh(self) -> float:
        """Seconds of the same steps by hand, without a plan, a journal, or a look at what was written."""
        self._put_back()
        virsh = self._lab.virsh
        edited = self._lab.folder / "edited.xml"
        start = time.perf_counter()
        edited.write_text(
            virsh("dumpxml", "--inactive", VM).replace("'disable' name='svm'", "'require' name='svm'")
        )
        virsh("shutdown", VM, "--mode", "agent")
        self._lab.wait_off(VM)
        virsh("define", str(edited))
        virsh("start", VM)
        self._lab.wait_agent(VM)
        answer = self._run_probe()
        seconds = time.perf_counter() - start
        assert answer["verdict"] == "works"
        return seconds

    def _put_back(self) -> None:
        self._lab.remove(VM)
        self._lab.define(VM, svm=False)
        self._lab.start(VM)
        self._lab.wait_agent(VM)

    def _run_probe(self) -> Any:
        source = base64.b64encode(probe_source().encode()).decode()
        arguments = {"path": "python3", "arg": ["-I", "-"], "input-data": source, "capture-output": True}
        pid = self._agent("guest-exec", arguments)["pid"]
        while not (status := self._agent("guest-exec-status", {"pid": pid}))["exited"]:
            time.sleep(0.02)
        return json.loads(base64.b64decode(status["out-data"]))

    def _agent(self, name: str, arguments: dict[str, Any]) -> Any:
        command = json.dumps({"execute": name, "arguments": arguments})
        return json.loads(self._lab.virsh("qemu-agent-command", VM, command))["return"]
