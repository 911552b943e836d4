"""VMs of the lab's KVM host: QEMU on its KVM with the host's CPU, as somebody starts it by hand."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.lab import LabError

VM_SECONDS = 240
MEMORY_MIB = 256  # the probe's own VM included

# $1: its name, $2: yes or no, whether it runs the probe. The archive appended is unpacked over the guest.
START = """
cd /var/lib/lab; mkdir -p /run/lab
[ -e /run/lab/initrd ] || cat initramfs.cpio vm.cpio >/run/lab/initrd
rm -f "/run/lab/$1.console"
qemu-system-x86_64 -name "$1" -accel kvm -cpu host -M q35 -m {memory} -nodefaults -display none \\
  -monitor none -no-reboot -kernel vmlinuz -initrd /run/lab/initrd \\
  -append "console=ttyS0 quiet panic=-1 nv.probe=$2" \\
  -serial "file:/run/lab/$1.console" -pidfile "/run/lab/$1.pid" -daemonize
"""

RUNNING = """
for file in /run/lab/*.pid; do
  if [ -e "$file" ] && [ -e "/proc/$(cat "$file")" ]; then basename "$file" .pid; fi
done
"""

# Its pid file goes when QEMU has closed everything, and with that the host's module is free.
STOP = """
kill "$(cat "/run/lab/$1.pid")"
while [ -e "/run/lab/$1.pid" ]; do sleep 0.1; done
"""

# Waits there: to ask again and again from here would cost the host more than the VM.
SEEN = """
timeout {seconds} sh -c "until grep -qs 'lab> end' '/run/lab/$1.console'; do sleep 0.2; done" || true
cat "/run/lab/$1.console"
"""


@dataclass(frozen=True)
class VmSeen:
    """What a VM says about itself.

    Attributes:
        svm: whether its CPU has svm.
        probe: what nestvirt's probe said in it, and None where the VM was not asked to run it.
    """

    svm: bool
    probe: dict[str, Any] | None


class HostVms:
    """The VMs; run() is what runs a shell script on the host."""

    def __init__(self, run: Callable[[str], str]) -> None:
        self._run = run

    def start(self, name: str, *, nested_probe: bool) -> None:
        """Start a VM, which boots for some seconds more."""
        self._with(START.format(memory=MEMORY_MIB), name, "yes" if nested_probe else "no")

    def running(self) -> list[str]:
        """The names of those that run."""
        return self._run(RUNNING).split()

    def stop(self, name: str) -> None:
        """End a VM, until nothing of it is left."""
        self._with(STOP, name)

    def stop_all(self) -> None:
        """End all that run."""
        for name in self.running():
            self.stop(name)

    def console(self, name: str) -> str:
        """What a VM has written to its serial console."""
        return self._with('cat "/run/lab/$1.console"', name)

    def seen(self, name: str) -> VmSeen:
        """Wait for what a VM says.

        Raises:
            LabError: it did not say it in time; the message has the end of its console.
        """
        console = self._with(SEEN.format(seconds=VM_SECONDS), name)
        if "lab> end" not in console:
            raise LabError(f"the VM {name} did not say everything; its console ends: {console[-1000:]}")
        said = {
            what: (int(code), text) for what, code, text in re.findall(r"lab> (\S+) (\d+) (\S*)", console)
        }
        probe = (
            json.loads(gzip.decompress(base64.b64decode(said["nestvirt"][1]))) if "nestvirt" in said else None
        )
        return VmSeen(said["svm"][0] == 0, probe)

    def _with(self, script: str, *args: str) -> str:
        return self._run(f"set -- {shlex.join(args)}\n{script}")
