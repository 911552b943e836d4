"""VMs of Workstation as facts, made for tests of what they mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nestvirt.backends.workstation.dialect import Document
from nestvirt.backends.workstation.facts import VmxFacts
from nestvirt.backends.workstation.host import Host
from nestvirt.backends.workstation.locks import Holder, Life
from nestvirt.backends.workstation.situation import Control
from nestvirt.model import Finding, Goal

ON, OFF = Goal(nested=True), Goal(nested=False)
CONTROL = Control(("vmrun", "-T", "ws"), listed=False)
RUNNING = replace(CONTROL, listed=True)
VM = Holder("/vms/web/web.vmx.lck", 71, "vmware-vmx", Life.LIVE)
HOST = Host(module=True, flags=frozenset({"vmx", "ept"}))


def vmx(*lines: str, **facts: Any) -> VmxFacts:
    """A VM that is off, with these lines beside the usual ones; with other facts, if they are named."""
    usual = ['config.version = "8"', 'virtualHW.version = "19"', 'guestOS = "debian12-64"']
    usual = [line for line in usual if line.partition(" ")[0] not in " ".join(lines)]
    vm = VmxFacts(
        path="/vms/web/web.vmx",
        document=Document.parse("\n".join([*usual, *lines, ""]).encode()),
        holders=(),
        control=CONTROL,
        saved_state="",
        memory_snapshots=(),
        unwritable="",
        logged=False,
        powered_on_with=None,
        host=HOST,
    )
    return replace(vm, **facts)


def of(facts: VmxFacts, check: str, goal: Goal = ON) -> list[Finding]:
    """The findings of one check."""
    return [finding for finding in facts.judge(goal) if finding.check == check]
