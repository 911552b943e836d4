"""The facts about one VM as data, for all that judges them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nestvirt.backends.proxmox.cpu import Cpu
from nestvirt.backends.proxmox.node import FLAGS, Node, NodeCpu
from nestvirt.model import Change, Power

_ARGS_CPU = re.compile(r"(?:^|\s)-cpu[ =]+['\"]?(?P<cpu>[^\s'\"]+)")


@dataclass(frozen=True)
class Situation:
    """One VM as Proxmox tells it.

    Attributes:
        who: the user or token that asks, for the lines that grant it something.
        members: the cluster's other nodes that are online; None where a node's CPU could not be read.
        live: the configuration that the VM runs with, option to value.
        pending: what the next start brings; None for an option that it removes.
        digest: of the configuration file; a write that names another one is refused.
        qmp_status: QEMU's own state, such as running, paused, prelaunch.
        pid: QEMU's process; another one after each power-on.
        lock: why Proxmox keeps its hands off: backup, migrate, suspended and others; empty for no lock.
        ha: the state of its HA resource; None where HA does not manage it.
        privileges: on /vms/VMID; None where they could not be read.
    """

    vmid: str
    who: str
    node: Node
    members: Mapping[str, NodeCpu | None]
    live: Mapping[str, str]
    pending: Mapping[str, str | None]
    digest: str
    running: bool
    qmp_status: str
    pid: str | None
    lock: str
    template: bool
    ha: str | None
    agent: bool
    memory_snapshots: tuple[str, ...]
    privileges: frozenset[str] | None
    start_warnings: tuple[str, ...]

    busy = ""  # see Facts: a VM can always be power-cycled
    waiting = ""  # and nothing else is shut down for it

    @property
    def power(self) -> Power:
        """See Facts."""
        if not self.running:
            return Power.STOPPED
        return Power.RUNNING if self.qmp_status == "running" else Power.SUSPENDED

    def configured(self, option: str) -> str | None:
        """An option's value as of the next start: pending before live."""
        return self.pending[option] if option in self.pending else self.live.get(option)

    def has(self, change: Change) -> bool:
        """See Facts."""
        return self.running and self.live.get(change.setting) == change.after

    def value(self, setting: str) -> str | None:
        """See Facts."""
        return self.configured(setting)

    @property
    def cpu(self) -> Cpu:
        """The CPU as of the next start."""
        return Cpu.parse(self.configured("cpu"))

    @property
    def live_cpu(self) -> Cpu:
        """The CPU that a running VM has."""
        return Cpu.parse(self.live.get("cpu"))

    @property
    def args_cpu(self) -> str | None:
        """The ``-cpu`` in the option args, which comes last on QEMU's command line, and so decides."""
        found = [match["cpu"] for match in _ARGS_CPU.finditer(self.configured("args") or "")]
        return found[-1] if found else None

    @property
    def windows(self) -> bool:
        """Whether the guest is said to be Windows (qm.conf(5), ostype)."""
        return str(self.live.get("ostype", "")).startswith(("win", "w2k", "wxp", "wvista"))

    @property
    def flag(self) -> str:
        """vmx, svm, or both names where the node's vendor is not known."""
        vendor = self.node.cpu.vendor if self.node.cpu else None
        return FLAGS[vendor] if vendor else "vmx or svm"
