"""A Proxmox VM that is well, and changes to it, for the rows of test_proxmox_facts.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nestvirt.backends.proxmox.facts import VmFacts
from nestvirt.backends.proxmox.node import Node, NodeCpu

RIGHTS = frozenset({"VM.Audit", "VM.Config.CPU", "VM.PowerMgmt", "VM.GuestAgent.Unrestricted"})
AMD = NodeCpu("amd", "AMD EPYC 7543", frozenset({"svm", "npt", "aes"}), "x86_64")
OLDER_AMD = NodeCpu("amd", "AMD EPYC 7401", frozenset({"svm", "npt"}), "x86_64")
INTEL = NodeCpu("intel", "Intel Xeon Gold", frozenset({"vmx", "ept", "aes"}), "x86_64")
LOCKED = NodeCpu("amd", "AMD EPYC 7543", frozenset({"npt", "aes"}), "x86_64")
ARM = NodeCpu(None, "Neoverse-N1", frozenset({"fp", "asimd"}), "aarch64")
NODE = Node("pve1", AMD, (9, 2, 11), True, frozenset({"pve1"}), frozenset({"pve1"}))

RUNNING = VmFacts(
    vmid="100",
    who="ops@pve!nestvirt",
    node=NODE,
    members={},
    live={"cpu": "host", "agent": "1", "ostype": "l26"},
    pending={},
    digest="d1",
    running=True,
    qmp_status="running",
    pid="4711",
    lock="",
    template=False,
    ha=None,
    agent=True,
    memory_snapshots=(),
    privileges=RIGHTS,
    start_warnings=(),
)


def running(cpu: str | None, pending: Any = RUNNING, **live: str) -> VmFacts:
    """A running VM with that cpu; ``pending`` where another one is waiting, None for a removal."""
    options = {**RUNNING.live, **live}
    options.pop("cpu")
    if cpu is not None:
        options["cpu"] = cpu
    waiting = {} if pending is RUNNING else {"cpu": pending}
    return replace(RUNNING, live=options, pending=waiting)


def stopped(cpu: str | None, pending: Any = RUNNING, **live: str) -> VmFacts:
    """The same, off."""
    return replace(running(cpu, pending, **live), running=False, qmp_status="stopped", pid=None)


def on(node: Node, facts: VmFacts) -> VmFacts:
    """The same VM on another node."""
    return replace(facts, node=node)
