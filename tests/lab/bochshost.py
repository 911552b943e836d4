"""A KVM host of Intel's kind: the lab's guest in Bochs, which emulates VMX; its agent is on a serial line.

It is smaller than the AMD host (tests.lab.kvmhost), and slow. kvm_intel, kmod and modprobe.d in it are real.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from nestvirt.backends.libvirt.agent import AgentChannel
from nestvirt.errors import GuestUnreachable
from nestvirt.guest.channel import Completed
from tests.lab import Closing, LabError, wait_for
from tests.lab.artifacts import OURS, artifacts
from tests.lab.boot import BOOT_SECONDS, in_bochs
from tests.lab.cpio import Entry, pack
from tests.lab.debian import unpacked
from tests.lab.machines import HASWELL, Bochs

COMMAND_SECONDS = 120
UP = "lab> up"


class BochsHost(Closing):
    """The host, booted; a context manager, which ends what it started.

    Attributes:
        name: its hostname.
        channel: runs programs on it, as root.
        folder: what it is booted from, and its console.
    """

    name = "intel-host"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nv-bochs-host-"))
        self._ended = contextlib.ExitStack()
        self._ended.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self._power_on()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Pull the plug, and remove its folder."""
        self._ended.close()

    def sh(self, script: str, stdin: bytes = b"") -> str:
        """What a shell script prints.

        Raises:
            LabError: it failed.
        """
        done = self.channel.run(["sh", "-euc", script], stdin=stdin, timeout=COMMAND_SECONDS)
        if done.code != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise LabError(f"on {self.name}: {script}: exit {done.code}: {said}")
        return done.stdout.decode(errors="replace")

    @property
    def nested(self) -> str:
        """The parameter of kvm_intel that is in effect: Y or N."""
        return self.sh("cat /sys/module/kvm_intel/parameters/nested").strip()

    def console(self) -> str:
        """What the host has written to its serial console."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "serial").read_text(errors="replace")
        return ""

    def _power_on(self) -> None:
        guest = artifacts()
        shutil.copyfile(guest.kernel, self.folder / "vmlinuz")
        (self.folder / "initrd").write_bytes(guest.initramfs.read_bytes() + pack(self._additions()))
        # Bochs calls, and we listen: a port that it listened on could be taken meanwhile.
        listener = self._ended.enter_context(socket.create_server(("127.0.0.1", 0)))
        com2 = f"enabled=true, mode=socket-client, dev=127.0.0.1:{listener.getsockname()[1]}"
        command = in_bochs(self.folder, Bochs(HASWELL), "console=ttyS0 quiet panic=-1", com2)
        with (self.folder / "emulator.log").open("wb") as log:
            self._bochs = subprocess.Popen(
                # Ends with this process, however that ends.
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TERM": "linux"},  # its display needs no terminal then
            )
        self._ended.callback(self._bochs.wait)
        self._ended.callback(self._bochs.kill)
        wait_for(self._is_up, BOOT_SECONDS, f"{self.name} to boot")
        listener.settimeout(0)  # it has called long since
        line_to_agent = self._ended.enter_context(listener.accept()[0])
        self.channel: AgentChannel = _Patient(AgentLine(line_to_agent).send)
        self.channel.ping(timeout=COMMAND_SECONDS)

    def _additions(self) -> list[Entry]:
        # busybox' shell takes its own modprobe and modinfo, whatever the PATH says; this one goes by the
        # PATH, where kmod's come first.
        dash = unpacked("host-shell", ["dash"]) / "bin/dash"
        return [
            Entry("etc/hostname", f"{self.name}\n".encode()),
            Entry("etc/machine-id", f"{uuid.uuid4().hex}\n".encode()),
            Entry("nv/run", (OURS / "bochshost").read_bytes()),
            Entry.program("usr/bin/sh", dash.read_bytes()),
        ]

    def _is_up(self) -> bool:
        if self._bochs.poll() is not None:
            log = (self.folder / "emulator.log").read_text(errors="replace")
            raise LabError(f"{self.name} went off: {(log + self.console())[-500:]!r}")
        return UP in self.console()


class _Patient(AgentChannel):
    """Bochs is some hundred times slower than a host, and more on a busy machine: so are its deadlines."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """See Channel."""
        return super().run(argv, stdin=stdin, timeout=timeout * 6)


class AgentLine:
    """A guest agent at the other end of a stream of bytes.

    What it has not answered in time it may answer later, so that each command follows a guest-sync of its own
    number: answers before that one's are stale.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._received = b""
        self._numbers = count(1)

    def send(self, command: str, timeout: float) -> str:
        """Hand the agent one command, and return its answer; see nestvirt.backends.libvirt.agent.Send."""
        deadline = time.monotonic() + timeout
        number = next(self._numbers)
        sync = json.dumps({"execute": "guest-sync", "arguments": {"id": number}})
        try:
            self._line.settimeout(timeout)
            self._line.sendall(f"{sync}\n{command}\n".encode())
            while json.loads(self._answer(deadline)) != {"return": number}:
                pass
            answer = self._answer(deadline)
        except (OSError, ValueError) as error:
            raise GuestUnreachable("the agent does not answer", evidence=str(error), cure="none") from error
        if "error" in json.loads(answer):
            raise GuestUnreachable("the agent refuses", evidence=answer, cure="none")
        return answer

    def _answer(self, deadline: float) -> str:
        while b"\n" not in self._received:
            self._line.settimeout(max(0.1, deadline - time.monotonic()))
            received = self._line.recv(1 << 16)
            if not received:
                raise ConnectionError("the line is cut")
            self._received += received
        answer, _, self._received = self._received.partition(b"\n")
        return answer.decode()
