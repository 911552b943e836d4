"""VMs of Workstation as folders, a vmrun that acts on them, and the files' bytes as oracle."""

from __future__ import annotations

import base64
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path

from nestvirt.guest.channel import Completed
from tests.contract.rig import Seen
from tests.peers.guest_answers import NO_FLAG, WORKS, probe_answer

LINE = re.compile(rb"(?i)(?:\A|(?<=[\r\n]))[ \t]*vhv\.enable[ \t]*=[^\r\n]*(?:\r\n|\r|\n|\Z)")
"""What the oracle takes for a line of the setting; it is not the product's own reader."""

TEMPLATE = """\
#!/usr/bin/vmware
.encoding = "windows-1252"
config.version = "8"
virtualHW.version = "19"
displayName = "caf\xe9 {name}"
guestOS = "debian12-64"
numvcpus = "2"
memsize = "2048"
  scsi0.present=TRUE   # by hand
annotation = "says |22hello|22|0Atwice"
{nested}guestinfo.password = "{secret}"
checkpoint.vmState = ""
cleanShutdown = "TRUE"
"""


def machine_id() -> str:
    """This machine in a lock: 32 bits for its name, 64 for a network card."""
    name = reduce(lambda value, byte: value * 33 + byte, socket.gethostname().encode(), 5381)
    raw = struct.pack("<IQ", name % 2**32, 0x563412290C00)
    return base64.b64encode(raw).decode().replace("/", "-")


class VmrunRig:
    """Each VM is a folder below ``folder``, and its name the path of its .vmx."""

    backend = "vmx"
    secret = "hunter2-in-guestinfo"  # noqa: S105

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("vmrun"), self.bin)
        (self.bin / "vmware-vmx").symlink_to("/bin/sleep")
        (self.bin / "machine").write_text(machine_id())
        (self.bin / "running").touch()
        self.has_vmrun = True  # set it to False for a machine without; PATH has none, either
        self._numbers = itertools.count(1)

    @property
    def endpoint(self) -> Mapping[str, str]:
        return {"vmrun": str(self.bin / "vmrun")} if self.has_vmrun else {}

    @property
    def dead_endpoint(self) -> Mapping[str, str]:
        dead = self.bin / "dead"
        dead.write_text("#!/bin/sh\necho 'Error: Unable to connect to host.'\nexit 255\n")
        dead.chmod(0o755)
        return {"vmrun": str(dead)}

    @contextmanager
    def forbidden(self) -> Iterator[Mapping[str, str]]:
        (self.bin / "vmrun").chmod(0o644)
        yield self.endpoint
        (self.bin / "vmrun").chmod(0o755)

    def make(self, *, nested: bool = False, running: bool = True, quirk: str = "") -> str:
        name = f"vm-{next(self._numbers)}"
        vmx = self.folder / name / f"{name}.vmx"
        vmx.parent.mkdir()
        line = 'vhv.enable = "TRUE"\n' if nested else ""
        vmx.write_text(TEMPLATE.format(name=name, nested=line, secret=self.secret), encoding="cp1252")
        (vmx.parent / "quirks").write_text(quirk)
        if running:
            self.vmrun("start", vmx, "nogui")
        return str(vmx)

    def make_ambiguous(self) -> str:
        vmx = Path(self.make(running=False))
        shutil.copy(vmx, vmx.with_name("another.vmx"))
        return str(vmx.parent)

    def vmrun(self, *words: object) -> None:
        """Do by hand what nestvirt has others do."""
        subprocess.run([self.bin / "vmrun", "-T", "ws", *map(str, words)], check=True, capture_output=True)

    def see(self, name: str) -> Seen:
        data, boots = Path(name).read_bytes(), Path(name).with_name("boots")
        lines = LINE.findall(data)
        return Seen(
            data.decode("latin-1"),
            LINE.sub(b"", data).decode("latin-1"),
            len(lines) == 1 and b'"true"' in lines[0].lower(),
            Path(f"{name}.lck").is_dir(),
            boots.read_text() if boots.exists() else "",
        )

    def suspend(self, name: str) -> None:
        self.vmrun("suspend", name)

    def edit(self, name: str, *, nested: bool | None) -> None:
        word = {True: b"TRUE", False: b"FALSE", None: b"perhaps"}[nested]
        data = LINE.sub(b"", Path(name).read_bytes())
        Path(name).write_bytes(data + b'vhv.enable = "' + word + b'"\n')

    def reboot_inside(self, name: str) -> None:
        """The VM's process stays, and with it what it was powered on with."""

    def close(self) -> None:
        """End the processes of VMs that still run."""
        for member in self.folder.glob("*/*.vmx.lck/M51843.lck"):
            with suppress(ProcessLookupError):
                os.kill(int(re.findall(r" (\d+)-", member.read_text())[0]), signal.SIGTERM)


class Guest:
    """A way into a VM's guest, in the place of SSH: it has the flag if the VM was powered on with it."""

    name = "ssh"

    def __init__(self, vmx: str) -> None:
        self._log = Path(vmx).with_name("vmware.log")

    def ping(self, *, timeout: float) -> None:
        assert timeout > 0

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        assert argv[0] == "python3"
        assert stdin
        told = self._log.read_bytes().lower()
        inside = WORKS if b'dict   vhv.enable = "true"' in told else NO_FLAG
        return Completed(0, probe_answer(inside).encode(), b"")
