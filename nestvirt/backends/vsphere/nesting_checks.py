"""What stands for or against nesting in a VM's configuration, and what it should be instead. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from nestvirt.backends.vsphere.setting import KEY, SETTING, Nesting
from nestvirt.backends.vsphere.situation import Situation
from nestvirt.model import HARDWARE_VERSION, Change, ColdBoot, Finding, Goal, Layer, Power, Status

OLDEST_HARDWARE = 9
"""Of ESXi 5.1, the first in which a VM can have the setting."""

_WITHOUT_TOLERANCE = ("", "notConfigured")


def wanted(facts: Situation, goal: Goal) -> Change | None:
    """The change that brings the switch to the goal; None where it is there."""
    now = facts.nesting
    if now.enabled is goal.nested:
        return None
    after = now.turned(goal.nested).text
    former = goal.former
    known = former is not None and former.setting == SETTING and former.after == now.text
    if not goal.nested and former is not None and known and not Nesting.parse(former.before).enabled:
        after = former.before
    return None if after == now.text else Change(SETTING, now.text, after)


def upgrade(facts: Situation, goal: Goal) -> Change | None:
    """The raise of the hardware version, where that was asked for and is needed."""
    asked = goal.nested and goal.upgrade is not None and 0 < facts.version < OLDEST_HARDWARE
    return Change(HARDWARE_VERSION, facts.hardware, goal.upgrade) if asked else None


def privilege(change: Change) -> str:
    """What further privilege a change takes, beside that to configure the VM; empty for none."""
    if change.setting == HARDWARE_VERSION:
        return "VirtualMachine.Config.UpgradeVirtualHardware"
    before, after = Nesting.parse(change.before), Nesting.parse(change.after)
    unsets = before.field is not None and after.field is None  # by taking out the key
    keyed = unsets or before.name is not None or after.name is not None
    return "VirtualMachine.Config.AdvancedConfig" if keyed else ""


def host_nested_hv(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Whether the host can."""
    check, layer, host = "host-nested-hv", Layer.HOST, facts.host
    if not goal.nested:
        return
    if host is None or host.nested is None:
        evidence = f"{'the host' if host is None else host.name} does not tell capability.nestedHVSupported"
        cure = (
            "give this user System.Read on the host (the role Read-only has it); the proof in the guest tells"
        )
        yield Finding(check, layer, Status.UNKNOWN, evidence, cure)
    elif host.nested:
        evidence = f"{host.name}: capability.nestedHVSupported is true"
        yield Finding(check, layer, Status.PASS, evidence)
    else:
        able = [peer.name for peer in facts.peers if peer.nested and peer.usable]
        cure = "turn VT-x with EPT, or AMD-V with RVI, on in its firmware"
        cure = f"migrate the VM to {able[0]}, which can; or {cure}" if able else cure
        evidence = f"{host.name}: capability.nestedHVSupported is false"
        yield Finding(check, layer, Status.FAIL, evidence, cure)


def vm_fault_tolerance(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Fault Tolerance and nesting exclude each other."""
    if wanted(facts, goal) is not None and facts.fault_tolerance not in _WITHOUT_TOLERANCE:
        evidence = f"Fault Tolerance is {facts.fault_tolerance}; vSphere allows no nesting beside it"
        cure = (
            "turn Fault Tolerance off for this VM (its menu: Fault Tolerance > Turn Off), then run this again"
        )
        yield Finding("vm-fault-tolerance", Layer.VM, Status.FAIL, evidence, cure)


def vm_passthrough(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """PCI passthrough, vGPU too, and nesting exclude each other (Broadcom KB 437651)."""
    if goal.nested and facts.passthrough and wanted(facts, goal) is not None:
        evidence = (
            f"it has PCI devices of its host: {', '.join(facts.passthrough[:5])}; vSphere allows no nesting"
        )
        cure = "remove them from the VM, or leave nesting to a VM without"
        yield Finding("vm-passthrough", Layer.VM, Status.FAIL, evidence, cure)


def vm_vbs(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """VBS needs the very switch."""
    if not goal.nested and facts.vbs and wanted(facts, goal) is not None:
        evidence = "flags.vbsEnabled: Windows' virtualization-based security runs on what would be taken away"
        cure = "turn VBS off first (in Windows; then VM Options > Virtualization Based Security)"
        yield Finding("vm-vbs", Layer.VM, Status.FAIL, evidence, cure)


def vm_hardware_version(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Raised only where that was asked for by name: nobody can take it back."""
    check, layer = "vm-hardware-version", Layer.VM
    if goal.nested and goal.upgrade not in (None, facts.hardware) and facts.version >= OLDEST_HARDWARE:
        evidence = f"hardware version {facts.hardware} is new enough, and left so: not {goal.upgrade}"
        yield Finding(check, layer, Status.PASS, evidence)
    if not goal.nested or not 0 < facts.version < OLDEST_HARDWARE:
        return
    evidence = f"hardware version {facts.hardware}; nesting needs vmx-{OLDEST_HARDWARE:02} or newer"
    change = upgrade(facts, goal)
    if change is None:
        cure = "run this again with --upgrade-hardware, when you have a backup: it cannot be undone"
        yield Finding(check, layer, Status.FAIL, evidence, cure)
        return
    yield Finding(check, layer, Status.FAIL, evidence, "nestvirt can change it", change)
    evidence = f"{facts.hardware} -> {goal.upgrade} cannot be undone, by nestvirt or anybody"
    cure = "take a backup, or a snapshot while it is off, before you agree"
    yield Finding("vm-hardware-upgrade", layer, Status.WARN, evidence, cure)


def vm_nested_hv(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """What vSphere says of the VM, where host and hardware version are no reason."""
    able = facts.version >= OLDEST_HARDWARE and facts.host is not None and facts.host.nested
    if goal.nested and facts.capable is False and able and wanted(facts, goal) is not None:
        evidence = (
            f"capability.nestedHVSupported of the VM is false, with {facts.hardware} on a host that can"
        )
        cure = "look at its guest OS type and CPU masks (VM Options > Advanced); vSphere would refuse"
        yield Finding("vm-nested-hv", Layer.VM, Status.FAIL, evidence, cure)


def vm_cpu(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Whether the configuration is as the goal wants it."""
    check, layer, now = "vm-cpu", Layer.VM, facts.nesting
    if not facts.readable:
        evidence, cure = "its configuration could not be read", "see vm-connected"
        yield Finding(check, layer, Status.UNKNOWN, evidence, cure)
        return
    said = f"{SETTING} is {'not set' if now.field is None else str(now.field).lower()}"
    said += f", and {now.name} is {now.value!r}" if now.name is not None else ""
    change = wanted(facts, goal)
    if now.enabled is None:
        evidence = f"{said}: they contradict each other; which one counts, only the guest tells"
        yield Finding(check, layer, Status.FAIL, evidence, "nestvirt can change it", change)
        return
    evidence = f"{said}: it {'shows' if now.enabled else 'does not show'} the guest vmx or svm"
    if change is None:
        yield Finding(check, layer, Status.PASS, evidence)
    else:
        yield Finding(check, layer, Status.FAIL, evidence, "nestvirt can change it", change)


def vm_cpu_pending(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Only the key can be written while the VM runs; whether it runs with that, its features tell."""
    now = facts.nesting
    if now.name is None or wanted(facts, goal) is not None or facts.power is not Power.RUNNING:
        return
    if facts.received is None or facts.received is goal.nested:
        return
    evidence = (
        f"{KEY} was set while the VM ran, and it {'still requires' if facts.received else 'requires no'} "
        "cpuid.VMX or cpuid.SVM (runtime.featureRequirement). A reboot inside the guest does not apply it"
    )
    cure = "power-cycle it: shut it down, and power it on"
    yield Finding("vm-cpu-pending", Layer.VM, Status.FAIL, evidence, cure, ColdBoot())
