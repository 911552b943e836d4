"""Running the playbooks with the real ansible-core, as a user does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLAYBOOKS = ROOT / "playbooks"
PROGRAMS = Path(sys.executable).parent
SECONDS = 240
RECAP = re.compile(r"^(\S+) +: (ok=.*)$", re.MULTILINE)
SYSTEM_PYTHON = "/usr/bin/python3"
"""What a machine has, and not the environment that Ansible itself is in."""

Inventory = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Group to its hosts to their variables."""


@dataclass(frozen=True)
class Played:
    """A playbook's end.

    Attributes:
        text: what it printed, stderr too.
    """

    code: int
    text: str

    def of(self, host: str) -> tuple[int, int]:
        """How many tasks have changed something on a host, and how many failed, by the recap."""
        counts = dict(RECAP.findall(self.text)).get(host, "")
        found = dict(re.findall(r"(\w+)=(\d+)", counts))
        return int(found["changed"]), int(found["failed"])

    @property
    def hosts(self) -> set[str]:
        """Those that were come to."""
        return {host for host, _ in RECAP.findall(self.text)}


class Ansible:
    """Ansible with nothing of this user's; its folder has the inventory and the reports.

    Args:
        folder: its own.
        variables: of all hosts.
    """

    def __init__(self, folder: Path, **variables: object) -> None:
        self.folder = folder
        self.reports = folder / "reports"
        self.variables = {"nestvirt_reports": str(self.reports), **variables}

    def play(self, playbook: str, inventory: Inventory, *more: str) -> Played:
        """Run one, with further words of ``ansible-playbook``."""
        groups = {group: {"hosts": dict(hosts)} for group, hosts in inventory.items()}
        listed = self.folder / "inventory.json"
        listed.write_text(json.dumps({"all": {"vars": self.variables, "children": groups}}), encoding="utf-8")
        return self.run("ansible-playbook", "-i", str(listed), str(PLAYBOOKS / playbook), *more)

    def run(self, program: str, *words: str) -> Played:
        """Run one of Ansible's programs."""
        done = subprocess.run(
            [str(PROGRAMS / program), *words],
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        return Played(done.returncode, done.stdout)

    def report(self, host: str, command: str) -> Any:
        """What was kept of a host's run."""
        return json.loads((self.reports / f"{host}.{command}.json").read_text(encoding="utf-8"))

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ANSIBLE_", "NESTVIRT_"))}
        own = {
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            # No process that outlives the run.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_SSH_TRANSFER_METHOD": "piped",  # the lab's sshds have no sftp
            "ANSIBLE_PYTHON_INTERPRETER": SYSTEM_PYTHON,
        }
        return inherited | own | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
