"""Clusters of which only the nodes are played, by a scripted kubectl on the PATH: each is the VM of its name.

What is asked of them here, no real control plane lets a test do: to be another cluster, or not to be Ready.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab import wait_for
from tests.peers.memory_fleet import MemoryFleet

PROGRAM = """\
#!{python} -I
import fcntl, json, os, sys, time
from pathlib import Path
state_file, calls = Path({state!r}), Path({calls!r})
words, context = [], None
given = iter(sys.argv[1:])
for word in given:
    if word in ("--context", "--kubeconfig"):
        context = next(given) if word == "--context" else (next(given), context)[1]
    elif not word.startswith("--request-timeout"):
        words.append(word)
noted = calls.open("a")
fcntl.flock(noted, fcntl.LOCK_EX)  # one after the other
state = json.loads(state_file.read_text())
context = context or state["current"]
print(context + ":", *words, file=noted, flush=True)
def refuse(said):
    print(said, file=sys.stderr)
    sys.exit(1)
if words[:2] == ["config", "current-context"]:
    print(state["current"])
    sys.exit()
vms = {{vm["name"]: vm for vm in json.loads(Path({vms!r}).read_text()).values()}}
if state.get("away") or vms.get(state.get("serves"), {{}}).get("power") == "stopped":
    refuse("The connection to the server 127.0.0.1:6443 was refused - did you specify the right host?")
cluster = state["clusters"][context]
def node(name):
    vm = vms.get(name, {{}})
    ready = vm.get("power") == "running" and name not in state["unready"]
    return {{
        "metadata": {{"name": name, "uid": f"{{context}}-{{name}}"}},
        "spec": {{"unschedulable": name in cluster["cordoned"]}},
        "status": {{
            "conditions": [{{"type": "Ready", "status": str(ready)}}],
            "nodeInfo": {{"bootID": str(vm.get("boots", 0))}},
        }},
    }}
def save():
    scratch = state_file.with_suffix(".new")
    scratch.write_text(json.dumps(state))
    scratch.replace(state_file)
match words:
    case ["get", "--raw", path] if path.endswith("/namespaces/kube-system"):
        print(json.dumps({{"metadata": {{"name": "kube-system", "uid": f"uid-of-{{context}}"}}}}))
    case ["get", "--raw", path] if path.endswith("/nodes"):
        print(json.dumps({{"items": [node(name) for name in cluster["nodes"]]}}))
    case ["get", "--raw", path] if path.rpartition("/")[2] in cluster["nodes"]:
        print(json.dumps(node(path.rpartition("/")[2])))
    case ["get", *_]:
        refuse("Error from server (NotFound): nodes not found")
    case ["cordon", name]:
        cluster["cordoned"] = sorted({{*cluster["cordoned"], name}})
        save()
    case ["uncordon", name] if state.get("refuse"):
        refuse('Error from server (Forbidden): nodes is forbidden: User "x" cannot patch resource "nodes"')
    case ["uncordon", name]:
        cluster["cordoned"] = [each for each in cluster["cordoned"] if each != name]
        save()
    case ["drain", *_]:
        noted.close()
        while json.loads(state_file.read_text()).get("held"):
            time.sleep(0.05)
"""


class KubeNodes:
    """VMs of the in-memory hypervisor that are nodes; the current context is the first one.

    Attributes:
        fleet: the VMs, and the command line over them.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], contexts: tuple[str, ...] = ("prod",)) -> None:
        self.fleet = MemoryFleet(folder)
        for name in names:
            self.fleet.add(name)
        self._state, self._calls = folder / "clusters.json", folder / "calls"
        clusters = {context: {"nodes": names, "cordoned": []} for context in contexts}
        self._state.write_text(json.dumps({"current": contexts[0], "unready": [], "clusters": clusters}))
        program = folder / "bin" / "kubectl"
        program.parent.mkdir()
        text = PROGRAM.format(
            python=sys.executable, state=str(self._state), calls=str(self._calls), vms=str(self.fleet.path)
        )
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
        self.variables = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}

    @property
    def state(self) -> dict[str, Any]:
        """What the clusters are like."""
        held: dict[str, Any] = json.loads(self._state.read_text())
        return held

    def let(self, **fields: Any) -> None:
        """Have them be otherwise.

        Args:
            fields: current, unready, away, serves (whose VM has the API server), refuse (to uncordon), held
                (drains do not end).
        """
        scratch = self._state.with_suffix(".let")
        scratch.write_text(json.dumps({**self.state, **fields}))
        scratch.replace(self._state)

    def cordoned(self, context: str = "prod") -> list[str]:
        """The nodes that are cordoned."""
        return list(self.state["clusters"][context]["cordoned"])

    def done(self) -> list[str]:
        """What was done, in order: "prod: drain w1"."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        told = [" ".join(line.split()[:3]) for line in lines]
        return [line for line in told if line.split()[1] in ("cordon", "drain", "uncordon")]

    def drained(self) -> list[str]:
        """The nodes that were drained, in order."""
        return [line.split()[2] for line in self.done() if " drain " in line]

    def edit(self, name: str, **fields: Any) -> None:
        """Change a VM behind everybody's back."""
        vms = json.loads(self.fleet.path.read_text())
        vms[f"id-{name}"] |= fields
        self.fleet.path.write_text(json.dumps(vms))

    def until_down(self, name: str) -> None:
        """Wait until a VM is off."""
        self.until(lambda: self.fleet.vms()[name]["power"] == "stopped", f"{name} to be off")

    def until(self, seen: Callable[[], bool], what: str) -> None:
        """Wait for what is written by others, and may be read half-written."""

        def safely() -> bool:
            try:
                return seen()
            except ValueError:
                return False

        wait_for(safely, 30, what)
