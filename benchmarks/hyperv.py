"""A Hyper-V host over WinRM: round trips of a reading and of an enable; the time, beside bare pywinrm."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from winrm.protocol import Protocol

from benchmarks.proxmox import Count
from nestvirt import backends
from nestvirt.backends.hyperv import scripts
from nestvirt.model import Target
from tests.peers.hyperv_rig import HyperVLab, HyperVRig
from tests.peers.winrm.command import Invocation
from tests.peers.winrm.pki import Certificates

FACTS_AIM, ENABLE_AIM = 4, 8
UNIT = "round trips"


class HyperVBench:
    """A peer with one running VM that does not nest, and one that is off."""

    def __init__(self, nestvirt: str, state: Path) -> None:
        self._nestvirt = nestvirt
        self._state = state
        self._certificates = Certificates()

    def __enter__(self) -> Self:
        self._lab = HyperVLab(self._certificates)
        self._rig = HyperVRig(self._lab)
        self._running, self._off = self._rig.make(), self._rig.make(running=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lab.close()
        self._certificates.close()

    def counts(self) -> list[Count]:
        """Each from the first message to the last, the shell's opening and closing among them."""
        self._lab.endpoint.forget()
        self.by_nestvirt()
        facts = len(self._lab.endpoint.round_trips)
        return [
            Count("Hyper-V: facts of one VM", facts, FACTS_AIM, UNIT),
            Count("Hyper-V: enable of a VM that is off", self._enable(self._off), ENABLE_AIM, UNIT),
            Count(
                "Hyper-V: enable of one that runs, beside waiting for it",
                self._enable(self._running),
                ENABLE_AIM,
                UNIT,
            ),
        ]

    def by_nestvirt(self) -> float:
        """Seconds to connect, to find a VM, and to read its facts."""
        start = time.perf_counter()
        backend = backends.connect(Target("hyperv", self._off), self._rig.endpoint)
        backend.read(backend.find(self._off))
        backend.close()
        return time.perf_counter() - start

    def by_pywinrm(self) -> float:
        """Seconds of the same script by pywinrm alone, its answer not looked at."""
        login, trust = self._rig.endpoint, self._rig.address["ca_file"]
        invocation = scripts.invocation("find", {"name": f"={self._off}", "id": ""})
        start = time.perf_counter()
        protocol = Protocol(
            self._lab.endpoint.https_url,
            "ntlm",
            login["username"],
            login["password"],
            ca_trust_path=trust,
            proxy=None,
        )
        shell = protocol.open_shell()
        command = protocol.run_command(shell, scripts.PROGRAM, invocation.arguments, skip_cmd_shell=True)
        assert b"NESTVIRT:eyJvayI6" in protocol.get_command_output(shell, command)[0]  # {"ok":
        protocol.close_shell(shell)
        return time.perf_counter() - start

    def _enable(self, name: str) -> int:
        """The round trips of ``nestvirt enable``, less those that wait: for the guest, or for more output."""
        self._lab.endpoint.forget()
        login = self._rig.endpoint
        environment = {
            **os.environ,
            "HYPERV_HOST": login["endpoint"],
            "HYPERV_CACERT_PATH": login["ca_file"],
            "HYPERV_USER": login["username"],
            "HYPERV_PASSWORD": login["password"],
            "NESTVIRT_HYPERV_GUEST_USERNAME": login["guest_username"],
            "NESTVIRT_HYPERV_GUEST_PASSWORD": login["guest_password"],
            "NESTVIRT_STATE_DIR": str(self._state),
        }
        command = [self._nestvirt, "enable", "--hyperv", name, "--yes", "--quiet", "-o", "json"]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        # Of a VM that is off there is no proof.
        assert done.returncode == (0 if name == self._running else 3)
        assert self._rig.machine(name).expose
        trips, ran = self._lab.endpoint.round_trips, self._lab.endpoint.invocations
        waiting = [each for each in ran if _waits(each)]
        again = trips.count("Receive") - len(ran)
        return len(trips) - again - sum(2 + bool(each.stdin) for each in waiting)


def _waits(invocation: Invocation) -> bool:
    """Whether it asks the guest for something, or looks what has become of it."""
    script = base64.b64decode(invocation.arguments[-1]).decode("utf-16-le")
    data = invocation.stdin.decode().partition("\n")[0] or script.split("'")[1]
    asked = json.loads(base64.b64decode(data)).get("action")
    inside = scripts.text("heartbeat") in script or scripts.text("direct") in invocation.stdin.decode()
    return inside or asked in ("shutdown", "look")
