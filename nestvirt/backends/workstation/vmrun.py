"""``vmrun``, VMware's own program for the power of a VM. It comes with Workstation and with Fusion.

It is never given a password: it takes one as an argument (``-gp``), which every user of a machine can read.
So what it can do inside guests is not used.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from nestvirt.errors import AccessDenied, ConnectionFailed, SettingsError
from nestvirt.guest.ssh import run_bounded
from nestvirt.printable import printable

SECONDS = 30.0
"""For what asks and changes nothing."""

FUSION, WORKSTATION, PLAYER = "fusion", "ws", "player"

PROC = Path("/proc")

_ORDERS = ("start", "stop", "reset", "suspend", "pause", "unpause")
_INSTALLED = (
    "/usr/bin/vmrun",
    "/Applications/VMware Fusion.app/Contents/Public/vmrun",
    "/Applications/VMware Fusion.app/Contents/Library/vmrun",
)
_LISTED = re.compile(r"[^\n:]*: *\d+ *(\n|$)")


class Refused(Exception):
    """It said no, in the words of this exception."""


class Vmrun:
    """The program, for one product of this machine.

    Args:
        program: its path.
        product: ``ws``, ``fusion`` or ``player``.
    """

    def __init__(self, program: str, product: str) -> None:
        self.program = program
        self.product = product

    @classmethod
    def found(cls, settings: Mapping[str, str]) -> Self | None:
        """The one that the settings name, else that of this machine; None where there is none.

        Raises:
            SettingsError: what is named is not there, or the product is none.
        """
        product = settings.get("product") or (FUSION if sys.platform == "darwin" else WORKSTATION)
        if product not in (FUSION, WORKSTATION, PLAYER):
            raise SettingsError(
                f"VMware has no product {product!r}",
                evidence="vmrun -T takes ws, fusion or player",
                cure="set NESTVIRT_VMX_PRODUCT to one of these, or not at all",
            )
        named = settings.get("vmrun")
        if named and not Path(named).is_file():
            raise SettingsError(
                "the vmrun that is named is not there",
                evidence=named,
                cure="set NESTVIRT_VMX_VMRUN to its path, or not at all",
            )
        program = named or shutil.which("vmrun") or next((p for p in _INSTALLED if Path(p).is_file()), None)
        return None if program is None else cls(program, product)

    def ask(self, *words: str, timeout: float = SECONDS) -> str:
        """Run a command, and return what it prints.

        Raises:
            Refused: with the reason, also where no answer came in time.
            AccessDenied: this user may not run it.
        """
        try:
            done = run_bounded([self.program, "-T", self.product, *words], b"", timeout)
        except subprocess.TimeoutExpired:
            raise Refused(f"vmrun {words[0]} gave no answer within {timeout:.0f} s") from None
        except PermissionError as error:
            raise AccessDenied(
                "this user may not run vmrun", evidence=str(error), cure="run nestvirt as the VM's own user"
            ) from error
        except OSError as error:
            raise Refused(str(error)) from error
        output = done.stdout.decode(errors="replace")
        if done.code != 0:
            told = printable(output or done.stderr.decode(errors="replace"), 300)
            raise Refused(told or f"vmrun {words[0]} ended with {done.code}")
        return output

    def running(self) -> tuple[str, ...]:
        """The paths of the VMs that run, as VMware knows them.

        Raises:
            ConnectionFailed: it does not tell.
            AccessDenied: this user may not ask.
        """
        try:
            output = self.ask("list")
        except Refused as error:
            told = str(error)
            if re.search(r"permission", told, re.IGNORECASE):
                cure = "run nestvirt as the user whose VMs these are"
                raise AccessDenied("vmrun lists no VMs to this user", evidence=told, cure=cure) from error
            raise self._silent(told) from error
        if _LISTED.match(output) is None:
            raise self._silent(f"it printed: {printable(output, 200)}")
        return tuple(line.strip("\r") for line in output.split("\n")[1:] if line.strip())

    def _silent(self, told: str) -> ConnectionFailed:
        return ConnectionFailed(
            f"{self.program} does not tell which VMs run",
            evidence=told,
            cure=f"make this work first: {self.program} -T {self.product} list",
        )


def orders() -> Iterator[tuple[str, Sequence[str]]]:
    """What processes of vmrun do to VMs at this moment: such a one outlives the process that began it.

    Yields:
        What it does, for people, and the words of its command.
    """
    for pid, words in _of_proc() if PROC.is_dir() else _of_ps():
        order = next((word for word in words if word in _ORDERS), None)
        if order is not None and any(
            Path(word).name == "vmrun" for word in words[:2]
        ):  # a script's is second
            yield f"vmrun {order} (process {pid})", words


def _of_proc() -> Iterator[tuple[str, Sequence[str]]]:
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it went, or is hidden
            yield folder.name, (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")


def _of_ps() -> Iterator[tuple[str, Sequence[str]]]:
    """Where there is no /proc; here blanks in a path part words, too."""
    try:
        told = subprocess.run(
            ["ps", "-axww", "-o", "pid=,args="], capture_output=True, check=False, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in told.stdout.decode(errors="replace").splitlines():
        pid, *words = line.split()
        yield pid, words
