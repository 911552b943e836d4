"""A node's own programs, for the ways that run pvesh there: wrappers in a folder that goes first on PATH."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tests.peers.pve import NODE_USER
from tests.peers.pve_server import Served

NOISE = """perl: warning: Setting locale failed.
perl: warning: Please check that your locale settings:
\tLANGUAGE = (unset),
\tLC_ALL = "xx_XX.UTF-8"
    are supported and installed on your system.
"""
NO_CLUSTER = "ipcc_send_rec[1] failed: Connection refused\n" * 3

_WRAPPERS = {
    "pvesh": '#!/bin/sh\nexec {python} -I -S {script} {config} pvesh "$@"\n',
    "cat": """#!/bin/sh
case "$1" in /sys/module/kvm*) exec {python} -I -S {script} {config} cat "$@" ;; esac
exec {cat} "$@"
""",
    "hostname": "#!/bin/sh\necho {name}\n",
    "sudo": """#!/bin/sh
if [ -e {folder}/password ]; then echo 'sudo: a password is required' >&2; exit 1; fi
[ "$1" = -n ] && shift
exec "$@"
""",
}


class Node:
    """The programs of one node.

    Attributes:
        folder: goes first on PATH.
    """

    def __init__(self, folder: Path, name: str = "pve1") -> None:
        self.folder = folder
        self._config = folder / "pvesh.json"
        values = {
            "python": sys.executable,
            "script": Path(__file__).with_name("pvesh.py"),
            "config": self._config,
            "cat": shutil.which("cat"),
            "name": name,
            "folder": folder,
        }
        for program, text in _WRAPPERS.items():
            path = folder / program
            path.write_text(text.format(**values), encoding="utf-8")
            path.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)

    @contextmanager
    def needing_a_password(self) -> Iterator[None]:
        """Run by somebody who is not root, and whom sudo asks for a password."""
        mark = self.folder / "password"
        mark.touch()
        with patch("os.geteuid", return_value=1000):
            yield
        mark.unlink()

    def be(self, served: Served, *, noise: str = "", ill: str = "") -> None:
        """Belong to this cluster.

        Args:
            noise: what every command writes to stderr besides.
            ill: what every command fails with.
        """
        token = f"{NODE_USER}={served.pve.node_secret}"
        config = {"port": str(served.pve.plain_port), "token": token, "noise": noise, "ill": ill}
        self._config.write_text(json.dumps(config), encoding="utf-8")
