"""All VMs of a cluster: one question for all, one for each one's configuration, and one for each that runs.

The cluster's own list has a VM that is paused as one that runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from nestvirt.backends.base import Listed, nesting_of
from nestvirt.backends.proxmox import cpu_checks
from nestvirt.backends.proxmox.api import Api, Refused, is_elsewhere, vm_path
from nestvirt.backends.proxmox.cluster import Cluster
from nestvirt.backends.proxmox.facts import Surroundings, VmFacts, uuid_of, vm_facts
from nestvirt.backends.proxmox.node import Node
from nestvirt.errors import AccessDenied, ConnectionFailed
from nestvirt.model import Finding, Goal, Power, Vm
from nestvirt.printable import printable

AT_ONCE = 8
"""Requests under way at the same time."""


def listed(api: Api, cluster: Cluster) -> Iterator[Listed]:
    """Every VM that this user may see, in the order of their numbers."""
    vms = sorted(cluster.vms(), key=lambda row: int(row["vmid"]))
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        # Of its node, only the name counts: no nesting is concluded from the node's CPU here.
        yield from pool.map(lambda row: _one(api, row, Node(str(row["node"]), None, cluster.version)), vms)


def _one(api: Api, row: Mapping[str, Any], node: Node) -> Listed:
    vmid = str(row["vmid"])
    labels = {
        "id": (vmid,),
        "node": (node.name,),
        "pool": (str(row["pool"]),) if row.get("pool") else (),
        "tag": tuple(tag for tag in re.split(r"[;, ]+", str(row.get("tags") or "")) if tag),
    }
    title = printable(str(row.get("name") or f"VM {vmid}"), 200)
    power = Power.RUNNING if row.get("status") == "running" else Power.STOPPED
    try:
        rows = api.get(vm_path(node.name, vmid, "pending"))
        state = api.get(vm_path(node.name, vmid, "status/current")) if power is Power.RUNNING else {}
        state = {"status": row.get("status", "unknown"), **state}
        facts = vm_facts(vmid, api.who, rows, state, Surroundings(node, {}, (), None), ())
    except (AccessDenied, ConnectionFailed) as error:
        elsewhere = isinstance(error, Refused) and is_elsewhere(error)
        note = "it has moved, or was removed, a moment ago"
        note = note if elsewhere else f"{error.message}: {error.evidence}"
        return Listed(
            Vm(f"{vmid}@{api.address}", title), vmid, power, "unknown", labels, printable(note, 300)
        )
    vm = Vm(f"{vmid}@{uuid_of(rows) or api.address}", title)
    note = "a template" if facts.template else ""
    if facts.lock == "suspended":
        note = "suspended: its memory is saved on disk"
    return Listed(vm, vmid, facts.power, nesting_of(partial(_of_cpu, facts)), labels, note)


def _of_cpu(facts: VmFacts, goal: Goal) -> list[Finding]:
    return [*cpu_checks.vm_cpu(facts, goal), *cpu_checks.vm_cpu_pending(facts, goal)]
