"""This machine as a channel: programs are run here."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from nestvirt.errors import GuestUnreachable
from nestvirt.guest.channel import NOT_FOUND, Completed
from nestvirt.guest.ssh import run_bounded


class LocalChannel:
    """See Channel."""

    name = "local"

    def ping(self, *, timeout: float) -> None:
        """This machine answers; see Channel."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """Run a program here; see Channel."""
        try:
            return run_bounded(argv, stdin, timeout)
        except (FileNotFoundError, PermissionError) as error:
            return Completed(NOT_FOUND, b"", str(error).encode())
        except subprocess.TimeoutExpired as error:
            raise GuestUnreachable(
                f"{argv[0]} did not end within {timeout:.0f} s",
                evidence=str(error)[:200],
                cure="look at what this machine is busy with",
            ) from error
