"""The probe in fifty guests over SSH: by ``nestvirt check`` of a fleet, and by Ansible, with as many at once.

All fifty are names of one real sshd on this machine, which runs the probe for each. ``python -m
benchmarks.ansible`` measures this alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.sshd import SSH_CONFIG, Sshd
from tests.peers.memory_fleet import MemoryFleet

HOSTS, AT_ONCE = 50, 10
PLAYBOOK = Path(__file__).parents[1] / "playbooks/guest_probe.yml"


class AnsibleBench:
    """Fifty hosts, as VMs of the in-memory hypervisor and as an inventory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sshd = Sshd()
        self._fleet = MemoryFleet(folder)
        self._names = [f"lab-{number:02}" for number in range(HOSTS)]

    def __enter__(self) -> Self:
        self._sshd.__enter__()
        server = self._sshd.config.parent
        values = {"folder": server, "port": self._sshd.port, "user": self._sshd.user}
        blocks = [SSH_CONFIG.format(host=name, **values) for name in self._names]
        text = "\n".join(blocks).replace("HostKeyAlias lab-", f"HostKeyAlias {self._sshd.host} #")
        config = self._folder / "ssh_config"
        config.write_text(text, encoding="utf-8")
        vms = {f"id-{n}": {"name": n, "power": "running", "nested": "on", "live": "on"} for n in self._names}
        self._fleet.path.write_text(json.dumps(vms), encoding="utf-8")
        tables = [f'[targets."memory:{n}"]\nssh = "{n}"\nssh_config = "{config}"\n' for n in self._names]
        (self._folder / "fleet.toml").write_text("\n".join(tables), encoding="utf-8")
        hosts: dict[str, object] = {name: {} for name in self._names}
        own = {"ansible_ssh_common_args": f"-F {config}", "ansible_python_interpreter": "/usr/bin/python3"}
        inventory = {"nestvirt_guests": {"hosts": hosts, "vars": own}}
        (self._folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sshd.close()

    def by_nestvirt(self) -> float:
        """Seconds of a check of all."""
        start = time.perf_counter()
        words = ("check", "--targets", str(self._folder / "fleet.toml"), "--parallel", str(AT_ONCE))
        done = self._fleet.run(*words, "-q", "-o", "json")
        seconds = time.perf_counter() - start
        rows = json.loads(done.stdout)["fleet"]
        reached = [row for row in rows if row["report"] and row["report"]["proof"]["channel"] == "ssh"]
        assert len(reached) == HOSTS, done.stdout
        return seconds

    def by_ansible(self) -> float:
        """Seconds of the playbook, with as many forks."""
        program = Path(sys.executable).with_name("ansible-playbook")
        environment = {**os.environ, "ANSIBLE_HOME": str(self._folder / "ansible"), "ANSIBLE_NOCOLOR": "1"}
        accepted = json.dumps({"nestvirt_accepted": [0, 1, 3]})
        words = [
            "-i",
            str(self._folder / "inventory.json"),
            "-f",
            str(AT_ONCE),
            "-e",
            accepted,
            str(PLAYBOOK),
        ]
        start = time.perf_counter()
        done = subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return seconds


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, AnsibleBench(Path(place)) as bench:
        ours, theirs = bench.by_nestvirt(), bench.by_ansible()
        print(
            f"probe in {HOSTS} guests: nestvirt {ours:.1f} s / Ansible {theirs:.1f} s = {ours / theirs:.2f}x"
        )
