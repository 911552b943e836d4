"""What a VM's own settings say for or against nesting, and what they should be instead. Pure.

Rules: https://learn.microsoft.com/virtualization/hyper-v-on-windows/user-guide/enable-nested-virtualization
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nestvirt.backends.hyperv.host_checks import AMD
from nestvirt.backends.hyperv.setting import (
    DYNAMIC_MEMORY,
    EXPOSE,
    MAC_SPOOFING,
    OPT_OUT,
    VERSION,
)
from nestvirt.backends.hyperv.situation import Situation, number_of
from nestvirt.model import SAVED_STATE, Change, Finding, Goal, Layer, Power, Status

OLDEST, OLDEST_ON_AMD, SURE_ON_AMD = (8, 0), (9, 3), (10, 0)
"""Configuration versions that nest. Of AMD's, Microsoft's pages say 9.3 in one place and 10.0 in another."""

ADVISED_MEMORY = 4 << 30
"""Bytes that Microsoft advises at least for a VM that runs VMs."""

FIRST_WITHOUT_OPT_OUT = 14393
"""Previews of Windows Server 2016 before it wanted VirtualizationBasedSecurityOptOut for nesting."""

_CHANGE = "nestvirt can change it"


def wanted(facts: Situation, goal: Goal) -> Change | None:
    """The change that brings the switch to the goal; None where it is there, or there is no switch."""
    now, after = facts.settings.get(EXPOSE), "true" if goal.nested else "false"
    return None if now in (after, None) else Change(EXPOSE, now, after)


def vm_suspended(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """A saved state keeps the old processor; it is discarded only where that was asked for by name."""
    check, layer = "vm-suspended", Layer.VM
    if facts.power is not Power.SUSPENDED:
        return
    evidence = f"the VM is {facts.state}: it would go on with the processor that it had"
    if facts.value(SAVED_STATE) is None:
        cure = "resume it (Resume-VM), or wait until it is saved; then run this again"
        if facts.state == "Hibernated":
            cure = "start it, shut it down, and run this again"
        yield Finding(check, layer, Status.FAIL, evidence, cure)
    elif goal.nested and goal.discard_saved_state:
        change = Change(SAVED_STATE, facts.value(SAVED_STATE), None)
        yield Finding(check, layer, Status.FAIL, evidence, _CHANGE, change)
        evidence = "what the guest had in its memory will be lost, as by a power cut; nobody can undo that"
        yield Finding("vm-saved-state", layer, Status.WARN, evidence, "start it and shut it down instead")
    else:
        cure = "start it, shut it down, and run this again"
        if goal.nested:
            cure += "; or give --discard-saved-state: what its guest has in memory is lost then"
        yield Finding(check, layer, Status.FAIL, evidence, cure)


def vm_version(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Raised only where that was asked for by name: nobody can take it back."""
    check, layer, version = "vm-version", Layer.VM, facts.version_number
    if not goal.nested:
        return
    amd = facts.host.cpu_vendor == AMD
    least = OLDEST_ON_AMD if amd else OLDEST
    evidence = f"configuration version {facts.version or 'not told'}, generation {facts.generation}"
    if version == (0, 0):
        yield Finding(check, layer, Status.UNKNOWN, evidence, "see Get-VM on the host; it needs 8.0 at least")
    elif version >= (SURE_ON_AMD if amd else least):
        evidence += ": new enough, and left so" if goal.upgrade_version else ": new enough"
        yield Finding(check, layer, Status.PASS, evidence)
    else:
        evidence += f"; nesting on {'AMD' if amd else 'Intel'} needs {least[0]}.{least[1]} or newer"
        if version >= least:
            evidence += ", and by another page of Microsoft's 10.0"
        yield from _too_old(facts, goal, evidence, Status.WARN if version >= least else Status.FAIL)


def _too_old(facts: Situation, goal: Goal, evidence: str, status: Status) -> Iterator[Finding]:
    check, layer, newest = "vm-version", Layer.VM, facts.host.version
    if number_of(newest) <= facts.version_number:
        evidence += f"; its host gives {newest or 'no version that it tells'}"
        cure = "move the VM to a host with a newer Windows, where Update-VMVersion can raise it"
        yield Finding(check, layer, status, evidence, cure)
    elif not goal.upgrade_version:
        cure = "run this again with --upgrade-version, when you have a backup: it cannot be undone"
        yield Finding(check, layer, status, evidence, cure)
    else:
        yield Finding(check, layer, status, evidence, _CHANGE, Change(VERSION, facts.version, newest))
        yield _upgrade(facts, goal)


def _upgrade(facts: Situation, goal: Goal) -> Finding:
    """Update-VMVersion discards the memory that checkpoints have, which is as dear as the VM's own."""
    evidence = f"{facts.version} -> {facts.host.version} cannot be undone, by nestvirt or anybody"
    evidence += "; an older host takes the VM no more"
    cure, status = "take a backup, or export the VM, before you agree", Status.WARN
    saved = [checkpoint.name for checkpoint in facts.checkpoints if checkpoint.saved]
    if saved:
        evidence += f"; what the guest had in memory is lost in the checkpoints {listed(saved)}"
    if saved and not goal.discard_saved_state:
        status = Status.FAIL
        cure = "remove these checkpoints, or export the VM; or give --discard-saved-state, too"
    return Finding("vm-version-upgrade", Layer.VM, status, evidence, cure)


def listed(names: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def is_dynamic(facts: Situation) -> bool:
    """Whether dynamic memory is on."""
    return (facts.value(DYNAMIC_MEMORY) or "").startswith("true")


def vm_dynamic_memory(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Beside dynamic memory Hyper-V drops nesting without a word, or does not start the VM."""
    now = facts.value(DYNAMIC_MEMORY)
    if goal.nested and is_dynamic(facts):
        evidence = (
            f"dynamic memory is on; nesting needs a fixed size, which would be the {facts.memory >> 20} MB "
            "that the VM starts with"
        )
        change = Change(DYNAMIC_MEMORY, now, f"false, startup={facts.memory}")
        yield Finding("vm-dynamic-memory", Layer.VM, Status.FAIL, evidence, _CHANGE, change)


def vm_memory(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """What it starts with is what it has, once dynamic memory is off."""
    used = facts.used if is_dynamic(facts) else 0
    needed = max(used, ADVISED_MEMORY)
    if not goal.nested or facts.memory >= needed:
        return
    evidence = f"it has {facts.memory >> 20} MB (MemoryStartup); for VMs inside, 4 GB or more are advised"
    if facts.memory < used:
        evidence = (
            f"it uses {used >> 20} MB now, and will have the {facts.memory >> 20} MB that it starts with"
        )
    cure = f"first shut it down, and: Set-VMMemory with -StartupBytes {needed >> 20}MB"
    cure += "; it cannot be resized while VMs run inside"
    yield Finding("vm-memory", Layer.VM, Status.WARN, evidence, cure)


def vm_vbs_opt_out(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Only hosts that are previews of Windows Server 2016."""
    previews = 0 < facts.host.build < FIRST_WITHOUT_OPT_OUT
    if goal.nested and previews and facts.value(OPT_OUT) == "false" and wanted(facts, goal) is not None:
        evidence = f"Windows build {facts.host.build} takes nesting only with {OPT_OUT}, which is false"
        change = Change(OPT_OUT, "false", "true")
        yield Finding("vm-vbs-opt-out", Layer.VM, Status.FAIL, evidence, _CHANGE, change)


def vm_cpu(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Whether the switch is as the goal wants it."""
    check, layer, now = "vm-cpu", Layer.VM, facts.value(EXPOSE)
    if now is None:
        evidence = f"this host's Hyper-V knows no {EXPOSE}: no VM of it nests"
        status = Status.UNKNOWN if goal.nested else Status.PASS
        yield Finding(check, layer, status, evidence, "see host-build" if goal.nested else "")
        return
    change = wanted(facts, goal)
    evidence = f"{EXPOSE} is {now}: it {'shows' if now == 'true' else 'does not show'} the guest vmx or svm"
    if change is None:
        yield Finding(check, layer, Status.PASS, evidence)
    else:
        yield Finding(check, layer, Status.FAIL, evidence, _CHANGE, change)


def vm_mac_spoofing(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Offered, never forced: what runs inside may do with NAT, or with no network at all."""
    check, layer = "vm-mac-spoofing", Layer.VM
    closed = [adapter for adapter in facts.adapters if not adapter.spoofing]
    if not goal.nested or not facts.adapters:
        return
    if not closed:
        yield Finding(check, layer, Status.PASS, "MAC address spoofing is on: VMs inside can be bridged")
    elif not goal.mac_spoofing:
        names = ", ".join(adapter.name for adapter in closed[:5])
        evidence = f"MAC address spoofing is off on {names}: VMs inside reach the network by NAT alone"
        yield Finding(check, layer, Status.SKIP, evidence, "to bridge them: --mac-spoofing")
    else:
        for adapter in closed:
            evidence = f"MAC address spoofing is off on {adapter.name}"
            change = Change(f"{MAC_SPOOFING}:{adapter.id}", "Off", "On")
            yield Finding(check, layer, Status.FAIL, evidence, _CHANGE, change)
