"""What was read of a vSphere VM, and what it means. Pure; needs no vSphere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nestvirt.backends.vsphere import nesting_checks
from nestvirt.backends.vsphere.nesting_checks import wanted
from nestvirt.backends.vsphere.situation import Situation
from nestvirt.model import Change, Finding, Goal, Layer, Power, Status

CHECKS = {
    "host-nested-hv": "Can the ESXi host give its VMs nesting?",
    "vm-connected": "Does vSphere reach the VM's host and files?",
    "vm-template": "Is it a VM, and not a template?",
    "vm-suspended": "Is the VM paused?",
    "vm-question": "Does the VM wait for an answer?",
    "vm-fault-tolerance": "Is the VM free of Fault Tolerance, which excludes nesting?",
    "vm-passthrough": "Is the VM free of the host's PCI devices, which exclude nesting?",
    "vm-vbs": "Does Windows' virtualization-based security depend on nesting?",
    "vm-hardware-version": "Is the VM's hardware version new enough to nest?",
    "vm-hardware-upgrade": "Is it known that a raised hardware version stays?",
    "vm-nested-hv": "Does vSphere say that this very VM can nest?",
    "vm-cpu": "Does the definition show the guest vmx or svm?",
    "vm-cpu-pending": "Has the running VM the CPU of its definition?",
    "vm-permission": "May this user change the VM's CPU?",
    "vm-power-permission": "May this user stop and start the VM?",
    "vm-migration": "Can other nodes receive the VM while it runs?",
    "vm-snapshot-memory": "Do snapshots with memory hold the old CPU?",
    "vm-agent": "Is there a guest agent to look inside with?",
}
"""Check id to the question it asks."""

_CONFIG = ("VirtualMachine.Config.Settings", "VirtualMachine.Config.CPUCount")
_POWER = ("VirtualMachine.Interact.PowerOff", "VirtualMachine.Interact.PowerOn")

_UNREACHED = {
    "disconnected": (
        "its host does not answer, so that nobody can tell how the VM is now",
        "bring its host back; then run this again",
    ),
    "inaccessible": (
        "its files cannot be read: the datastore is away, or another host holds them",
        "bring the datastore back, and see that no other host has the VM registered, too, and runs it",
    ),
    "orphaned": (
        "its host does not have it registered any more; another one may, and run it",
        "name it where it is registered now; where it is gone for good, remove it here, and register it anew",
    ),
    "invalid": (
        "its .vmx is there, and makes no sense to its host",
        "look at the .vmx on its datastore, and restore it from a backup",
    ),
}
"""What runtime.connectionState means beside connected, and what to do."""


def _vm_connected(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    check, layer, host = "vm-connected", Layer.VM, facts.host
    if (
        host is not None
        and host.connection != "connected"
        and facts.connection in ("connected", "disconnected")
    ):
        evidence = f"its host {host.name} is {host.connection}, so that nobody can tell how the VM is now"
        cure = (
            f"connect {host.name} again (its menu: Connection > Connect), or wait until HA has started the "
        )
        cure += "VM on another host; then run this again"
        yield Finding(check, layer, Status.FAIL, evidence, cure)
    elif facts.connection != "connected":
        evidence, cure = _UNREACHED.get(facts.connection, _UNREACHED["disconnected"])
        evidence = f"vSphere calls the VM {facts.connection}: {evidence}"
        yield Finding(check, layer, Status.FAIL, evidence, cure)
    elif not facts.readable:
        evidence = "vSphere shows no configuration of it"
        cure = "give this user System.Read on the VM (the role Read-only has it)"
        yield Finding(check, layer, Status.FAIL, evidence, cure)


def _vm_template(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.template:
        cure = "enable a VM that is deployed from it; or convert it to a VM, enable that, and convert it back"
        yield Finding("vm-template", Layer.VM, Status.FAIL, "it is a template, which cannot be started", cure)


def _vm_suspended(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.power is Power.SUSPENDED:
        evidence = "the VM is suspended; it would resume with the CPU that it was suspended with"
        yield Finding("vm-suspended", Layer.VM, Status.FAIL, evidence, "resume it, then run this again")


def _vm_question(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.question:
        evidence = f"it does nothing until somebody answers: {facts.question}"
        cure = "answer it in the vSphere Client (the VM's Summary), then run this again"
        yield Finding("vm-question", Layer.VM, Status.FAIL, evidence, cure)


def _vm_permission(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Only where something has to be done: nobody needs a right for what is so already."""
    changes = (wanted(facts, goal), nesting_checks.upgrade(facts, goal))
    yield from _forbidding(facts, [change for change in changes if change is not None])


def _forbidding(facts: Situation, changes: Sequence[Change]) -> Iterator[Finding]:
    held = facts.privileges
    if held is None or not changes:
        return
    lacking: tuple[str, ...] = () if held & set(_CONFIG) else _CONFIG[:1]
    further = [nesting_checks.privilege(change) for change in changes]
    lacking += tuple(name for name in further if name and name not in held)
    if lacking:
        yield _lacking(facts, "vm-permission", lacking)
    missing = tuple(privilege for privilege in _POWER if privilege not in held)
    if missing and facts.power is Power.RUNNING:
        yield _lacking(facts, "vm-power-permission", missing)


def _lacking(facts: Situation, check: str, missing: tuple[str, ...]) -> Finding:
    names = " and ".join(missing)
    evidence = f"{facts.who} lacks {names} on {facts.name}"
    cure = f"add {names} to the user's role on the VM, or on a folder above it"
    return Finding(check, Layer.VM, Status.FAIL, evidence, cure)


def _vm_migration(facts: Situation, goal: Goal) -> Iterator[Finding]:
    lame = [peer.name for peer in facts.peers if peer.nested is False]
    if not goal.nested or not lame:
        return
    able = [peer.name for peer in facts.peers if peer.nested and peer.usable]
    evidence = f"with nesting it cannot move to {_few(lame)}, which cannot nest"
    evidence += f"; it can to {_few(able)}" if able else "; nor to any other host of the cluster"
    if facts.host is not None and facts.host.evc:
        evidence += f" (EVC: {facts.host.evc})"
    cure = "keep it to the hosts that can: a VM/Host rule of the cluster"
    yield Finding("vm-migration", Layer.VM, Status.WARN, evidence, cure)


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _vm_snapshot_memory(facts: Situation, goal: Goal) -> Iterator[Finding]:
    if facts.memory_snapshots and goal.nested:
        evidence = (
            f"snapshots with memory: {_few(list(facts.memory_snapshots))}; reverting to one resumes the CPU "
            "that it was taken with"
        )
        cure = "take new snapshots when it nests"
        yield Finding("vm-snapshot-memory", Layer.VM, Status.WARN, evidence, cure)


def _vm_agent(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    check, layer, warn = "vm-agent", Layer.VM, Status.WARN
    if facts.windows:
        evidence = f"guest OS {facts.guest_id}: nestvirt's probe runs on Linux"
        cure = (
            "start a VM inside; beforehand, in its PowerShell: (Get-CimInstance Win32_Processor)."
            "VMMonitorModeExtensions is True where it sees vmx or svm, unless its own Hyper-V or VBS runs"
        )
        yield Finding(check, layer, warn, evidence, cure)
    elif facts.power is Power.RUNNING and not facts.tools:
        evidence = "VMware Tools do not run in the guest: it can be neither shut down cleanly nor asked"
        cure = "install open-vm-tools in the guest; without: --force-off, and --ssh USER@HOST for the proof"
        yield Finding(check, layer, warn, evidence, cure)
    elif not facts.guest_user:
        evidence = "VMware Tools ask for a user of the guest, and none was given"
        cure = (
            "set NESTVIRT_VSPHERE_GUEST_USERNAME and NESTVIRT_VSPHERE_GUEST_PASSWORD, or GOVC_GUEST_LOGIN; "
            "or use --ssh USER@HOST"
        )
        yield Finding(check, layer, warn, evidence, cure)
    else:
        state = "run" if facts.tools else "are asked when the VM runs"
        yield Finding(check, layer, Status.PASS, f"VMware Tools {state}; guest user {facts.guest_user}")


_QUESTIONS = (
    nesting_checks.host_nested_hv,
    _vm_connected,
    _vm_template,
    _vm_suspended,
    _vm_question,
    nesting_checks.vm_fault_tolerance,
    nesting_checks.vm_passthrough,
    nesting_checks.vm_vbs,
    nesting_checks.vm_hardware_version,
    nesting_checks.vm_nested_hv,
    nesting_checks.vm_cpu,
    nesting_checks.vm_cpu_pending,
    _vm_permission,
    _vm_migration,
    _vm_snapshot_memory,
    _vm_agent,
)


@dataclass(frozen=True)
class VmFacts(Situation):
    """One VM, which judges itself; see Facts."""

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """See Facts."""
        return tuple(finding for question in _QUESTIONS for finding in question(self, goal))

    def forbids(self, changes: Sequence[Change]) -> tuple[Finding, ...]:
        """See Guarded."""
        return tuple(_forbidding(self, changes))
