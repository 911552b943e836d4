"""An operator's shell: nestvirt commands typed at the lab's libvirt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.rig import Seen
from tests.peers.libvirt_rig import LibvirtRig

NESTVIRT = str(Path(sys.executable).with_name("nestvirt"))


class Shell:
    """Types nestvirt commands at the lab's libvirt."""

    def __init__(self, rig: LibvirtRig, state: Path) -> None:
        self.rig = rig
        self.state = state
        self.environment = {
            **os.environ,
            "LIBVIRT_DEFAULT_URI": rig.lab.uri,
            "NESTVIRT_STATE_DIR": str(state),
            "NESTVIRT_CONFIG": os.devnull,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command under way; no terminal, as in a script."""
        return subprocess.Popen(
            [NESTVIRT, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def until_it_says(self, process: subprocess.Popen[str], words: str) -> None:
        """Read stderr until a step is told."""
        assert process.stderr is not None
        for line in process.stderr:
            if words in line:
                return
        pytest.fail(f"it ended without saying {words!r}")


def same_configuration(one: Seen, other: Seen) -> bool:
    return (one.stored, one.running) == (other.stored, other.running)
