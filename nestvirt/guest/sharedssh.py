"""One SSH connection for all commands on a node, in place of a login for each.

OpenSSH's own connection sharing (ssh_config(5), ControlMaster): a client in the background holds the
connection, and the others speak through its socket. Without it each command makes a connection of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

SECONDS_TO_LOG_IN = 30.0
IDLE_SECONDS = 120


class SharedSsh:
    """A connection that others can use.

    Args:
        destination: ``user@host``.
        options: further ssh options, such as ``("-F", "ssh_config")``.

    Attributes:
        sharing: the options that make an ssh to the same destination use it.
    """

    def __init__(self, destination: str, options: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nestvirt-"))  # 0700; a socket's path has to be short
        socket = f"ControlPath={self._folder}/s"
        self.sharing = ["-o", socket, "-o", "ControlMaster=no"]
        end = ["ssh", *options, "-o", socket, "-O", "exit", "--", destination]
        self._finish = weakref.finalize(self, _end, end, self._folder)  # at the latest when Python ends
        batch = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]
        batch += ["-o", f"ControlPersist={IDLE_SECONDS}"]  # nestvirt may be killed
        # -f: into the background once it has logged in. Where it cannot, the first command says why.
        _call(["ssh", "-M", "-N", "-f", *batch, *options, "-o", socket, "--", destination])

    def close(self) -> None:
        """End the connection; a second time it does nothing."""
        self._finish()


def _end(command: list[str], folder: Path) -> None:
    _call(command)
    shutil.rmtree(folder, ignore_errors=True)


def _call(command: list[str]) -> None:
    none = subprocess.DEVNULL  # a pipe would stay open in the client that goes into the background
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=none, stdout=none, stderr=none, check=False, timeout=SECONDS_TO_LOG_IN)
