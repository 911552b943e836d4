"""What was read of a Proxmox VM, and what it means. Pure; needs no Proxmox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nestvirt.backends.proxmox import cpu_checks, node_checks
from nestvirt.backends.proxmox.api import extend
from nestvirt.backends.proxmox.node import Node, NodeCpu
from nestvirt.backends.proxmox.situation import Situation
from nestvirt.errors import ConnectionFailed
from nestvirt.model import Finding, Goal, Layer, Power, Status

CHECKS = {
    "host-cpu": "Has the host's CPU vmx or svm?",
    "host-nested": "Does the host's kvm module let its VMs nest?",
    "vm-arch": "Is the VM an x86 one?",
    "vm-type": "Is the VM run by KVM, or emulated?",
    "vm-template": "Is it a VM, and not a template?",
    "vm-lock": "Is the VM free of locks?",
    "vm-suspended": "Is the VM paused?",
    "vm-ha": "Can the HA manager stop and start the VM?",
    "vm-cpu-choice": "Can the CPU that was asked for work here?",
    "vm-cpu": "Does the definition show the guest vmx or svm?",
    "vm-cpu-pending": "Has the running VM the CPU of its definition?",
    "vm-permission": "May this user change the VM's CPU?",
    "vm-power-permission": "May this user stop and start the VM?",
    "vm-pending-others": "Would a power cycle apply anything else that is pending?",
    "vm-start-warnings": "Did Proxmox warn when it started the VM?",
    "vm-migration": "Can other nodes receive the VM while it runs?",
    "vm-windows-host": "Does Windows suffer from the CPU type host?",
    "vm-snapshot-memory": "Do snapshots with memory hold the old CPU?",
    "vm-agent": "Is there a guest agent to look inside with?",
}
"""Check id to the question it asks."""

HA_BUSY = ("fence", "freeze", "migrate", "recovery", "relocate")
"""States of an HA resource that pass, and in which the manager carries out no request (ha-manager(1))."""


def _vm_arch(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    arch = facts.live.get("arch") or (facts.node.cpu.machine if facts.node.cpu else None)
    if arch not in (None, "x86_64"):
        evidence = f"its architecture is {arch}, for which Proxmox has no flag for nesting"
        yield Finding("vm-arch", Layer.VM, Status.FAIL, evidence, "nestvirt can help x86_64 VMs only")


def _vm_type(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.configured("kvm") == "0":
        evidence = "kvm: 0, so QEMU emulates this VM without KVM"
        yield Finding("vm-type", Layer.VM, Status.FAIL, evidence, f"qm set {facts.vmid} --delete kvm")


def _vm_template(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.template:
        cure = f"enable a clone of it: qm clone {facts.vmid} NEWID"
        yield Finding("vm-template", Layer.VM, Status.FAIL, "it is a template, which cannot be started", cure)


def _vm_lock(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.lock and facts.lock != "suspended":
        cure = (
            f"wait until the task that locks it has ended; if that has died, on the node: "
            f"qm unlock {facts.vmid}"
        )
        yield Finding("vm-lock", Layer.VM, Status.FAIL, f"the VM is locked ({facts.lock})", cure)


def _vm_suspended(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.lock == "suspended":
        evidence = "the VM is hibernated; the next start would bring back the CPU that it was saved with"
        cure = f"qm resume {facts.vmid} && qm shutdown {facts.vmid}"
        yield Finding("vm-suspended", Layer.VM, Status.FAIL, evidence, cure)
    elif facts.power is Power.SUSPENDED:
        evidence = f"QEMU's state is {facts.qmp_status}, so the guest can neither shut down nor be asked"
        yield Finding("vm-suspended", Layer.VM, Status.FAIL, evidence, f"qm resume {facts.vmid}")


def _vm_ha(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.ha is None:
        return
    if facts.ha == "error" or facts.ha in HA_BUSY:
        evidence = f"the HA manager has the VM in state {facts.ha}, in which it starts and stops nothing"
        cure = "wait until it has passed: ha-manager status"
        if facts.ha == "error":
            cure = (
                f"mend what the HA log names; then ha-manager set vm:{facts.vmid} --state disabled, which "
                "powers it off; when ha-manager status says so, the same with --state started"
            )
        yield Finding("vm-ha", Layer.VM, Status.FAIL, evidence, cure)
        return
    evidence = (
        f"the HA manager has the VM in state {facts.ha}, and is asked to stop and start it; it cuts the "
        "power of a guest that does not shut down in time"
    )
    cure = "give it more --timeout where its guest takes long; HA asks nobody for --force-off"
    yield Finding("vm-ha", Layer.VM, Status.WARN, evidence, cure)


def _vm_permission(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Only where something has to be done: nobody needs a right for what is so already."""
    if facts.privileges is None:
        return
    changes = cpu_checks.wanted(facts, goal) is not None
    if changes and "VM.Config.CPU" not in facts.privileges:
        yield _lacking(facts, "vm-permission", "VM.Config.CPU")
    cycles = changes or cpu_checks.is_pending(facts, goal)
    if cycles and facts.power is Power.RUNNING and "VM.PowerMgmt" not in facts.privileges:
        yield _lacking(facts, "vm-power-permission", "VM.PowerMgmt")


def _lacking(facts: Situation, check: str, privilege: str) -> Finding:
    path = f"/vms/{facts.vmid}"
    return Finding(
        check,
        Layer.VM,
        Status.FAIL,
        f"{facts.who} lacks {privilege} on {path}",
        extend(facts.who, path, privilege),
    )


def _vm_pending_others(facts: Situation, goal: Goal) -> Iterator[Finding]:
    others = {key: value for key, value in facts.pending.items() if key != "cpu"}
    if others and (cpu_checks.wanted(facts, goal) or cpu_checks.is_pending(facts, goal)):
        shown = ", ".join(f"{key}: {_brief(facts.live.get(key))} -> {_brief(v)}" for key, v in others.items())
        cure = f"look at them first: qm pending {facts.vmid}; drop one: qm set {facts.vmid} --revert NAME"
        evidence = f"a power cycle applies what else is pending: {shown}"
        yield Finding("vm-pending-others", Layer.VM, Status.WARN, evidence, cure)


def _brief(value: str | None) -> str:
    if value is None:
        return "not set"
    return value if len(value) <= 40 else f"{value[:39]}…"


def _vm_start_warnings(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.start_warnings:
        evidence = "the task that started it warned: " + "; ".join(facts.start_warnings[:5])
        cure = "see what it says; on a node without vmx or svm, nested-virt is ignored"
        yield Finding("vm-start-warnings", Layer.VM, Status.WARN, evidence, cure)


def _vm_snapshot_memory(facts: Situation, goal: Goal) -> Iterator[Finding]:
    if facts.memory_snapshots and goal.nested:
        names = ", ".join(facts.memory_snapshots[:5])
        evidence = (
            f"snapshots with memory: {names}; rolling back to one brings back the CPU it was taken with"
        )
        cure = "take new snapshots after enabling"
        yield Finding("vm-snapshot-memory", Layer.VM, Status.WARN, evidence, cure)


def _vm_agent(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.windows:
        cure = (
            "start a VM inside; beforehand, in its PowerShell: (Get-CimInstance Win32_Processor)."
            "VMMonitorModeExtensions is True where it sees vmx or svm, unless its own Hyper-V or VBS runs"
        )
        evidence = f"ostype {facts.live.get('ostype')}: nestvirt's probe runs on Linux"
        yield Finding("vm-agent", Layer.VM, Status.WARN, evidence, cure)
    elif facts.agent:
        yield Finding("vm-agent", Layer.VM, Status.PASS, "the guest agent's channel is configured")
    else:
        cure = (
            f"qm set {facts.vmid} --agent 1, install qemu-guest-agent in the guest, and power-cycle it; "
            "or use --ssh USER@HOST"
        )
        yield Finding("vm-agent", Layer.VM, Status.WARN, "the VM has no guest agent configured", cure)


_QUESTIONS = (
    node_checks.host_cpu,
    node_checks.host_nested,
    _vm_arch,
    _vm_type,
    _vm_template,
    _vm_lock,
    _vm_suspended,
    _vm_ha,
    cpu_checks.vm_cpu_choice,
    cpu_checks.vm_cpu,
    cpu_checks.vm_cpu_pending,
    _vm_permission,
    _vm_pending_others,
    _vm_start_warnings,
    node_checks.vm_migration,
    cpu_checks.vm_windows_host,
    _vm_snapshot_memory,
    _vm_agent,
)


@dataclass(frozen=True)
class VmFacts(Situation):
    """One VM, which judges itself; see Facts."""

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """See Facts."""
        return tuple(finding for question in _QUESTIONS for finding in question(self, goal))


@dataclass(frozen=True)
class Surroundings:
    """What does not change while nestvirt works on a VM, and is read once for each connection."""

    node: Node
    members: Mapping[str, NodeCpu | None]
    memory_snapshots: tuple[str, ...]
    privileges: frozenset[str] | None


def vm_facts(
    vmid: str, who: str, rows: object, status: object, around: Surroundings, warnings: tuple[str, ...]
) -> VmFacts:
    """Put a VM's facts together.

    Args:
        vmid: its number.
        who: the user or token in whose name it was read.
        rows: the answer of ``/pending``: rows of key, value (live), pending, delete.
        status: the answer of ``/status/current``.
        around: what was read before.
        warnings: what the task said that started it last, in this run.

    Raises:
        ConnectionFailed: the answers are not of their form.
    """
    if not isinstance(rows, list) or not isinstance(status, Mapping) or "status" not in status:
        raise ConnectionFailed(
            f"Proxmox's answer about VM {vmid} is not the one that was asked for",
            evidence=f"its configuration is a {type(rows).__name__}, its state a {type(status).__name__}",
            cure="see that nothing stands between that changes answers; then run this again",
        )
    live, pending = _options(rows)
    state = status
    ha = state.get("ha")
    managed = isinstance(ha, Mapping) and ha.get("managed") in (1, "1", True)
    return VmFacts(
        vmid=vmid,
        who=who,
        node=around.node,
        members=around.members,
        live=live,
        pending=pending,
        digest=live.pop("digest", ""),
        running=state.get("status") == "running",
        qmp_status=str(state.get("qmpstatus", state.get("status", "unknown"))),
        pid=str(state["pid"]) if state.get("pid") else None,
        lock=str(state.get("lock") or live.get("lock") or ""),
        template=live.get("template") in ("1", "true") or state.get("template") in (1, "1", True),
        ha=str(ha.get("state", "managed")) if managed and isinstance(ha, Mapping) else None,
        agent=agent_enabled(live.get("agent")),
        memory_snapshots=around.memory_snapshots,
        privileges=around.privileges,
        start_warnings=warnings,
    )


def _options(rows: list[object]) -> tuple[dict[str, str], dict[str, str | None]]:
    """The configuration live and pending, of the rows of ``/pending``."""
    live: dict[str, str] = {}
    pending: dict[str, str | None] = {}
    for row in rows:
        if not isinstance(row, Mapping) or "key" not in row:
            continue
        key = str(row["key"])
        if row.get("value") is not None:
            live[key] = str(row["value"])
        if row.get("delete"):
            pending[key] = None
        elif row.get("pending") is not None:
            pending[key] = str(row["pending"])
    return live, pending


def uuid_of(rows: object) -> str:
    """The VM's own identity: the uuid in its option smbios1, which a clone does not share; empty for none."""
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and row.get("key") == "smbios1":
            found = re.search(r"(?:^|,)uuid=([0-9a-fA-F-]{36})(?:,|$)", str(row.get("value", "")))
            return found[1].lower() if found else ""
    return ""


def agent_enabled(option: str | None) -> bool:
    """Whether the option agent is on: ``1``, ``1,fstrim_cloned_disks=1``, ``enabled=1,type=virtio``."""
    parts = (option or "").split(",")
    return any(re.fullmatch(r"(enabled=)?(1|true|yes|on)", part) for part in parts)
