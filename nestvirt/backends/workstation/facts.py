"""What was read of a VM of Workstation or Fusion, and what it means. Pure; needs no VMware."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nestvirt.backends.workstation.dialect import written
from nestvirt.backends.workstation.locks import Holder, Life
from nestvirt.backends.workstation.situation import SETTING, Situation, shows
from nestvirt.model import POWER_RIGHT, Change, ColdBoot, Finding, Goal, Layer, Power, Status

CHECKS = {
    "host-cpu": "Has the host's CPU vmx or svm?",
    "host-paging": "Is second-level paging (EPT, NPT) in effect on the host?",
    "host-vmmon": "Is VMware's own kernel module loaded on this machine?",
    "vm-arch": "Is the VM an x86 one?",
    "vm-encrypted": "Can the VM's configuration be read, or is it encrypted?",
    "vm-hardware-version": "Is the VM's hardware version new enough to nest?",
    "vm-permission": "May this user change the VM's CPU?",
    "vm-lock": "Is the VM free of locks?",
    "vm-lock-stale": "Did a process that is gone leave a lock behind?",
    "vm-suspended": "Is the VM paused?",
    "vm-cpu": "Does the definition show the guest vmx or svm?",
    "vm-cpu-pending": "Has the running VM the CPU of its definition?",
    "vm-power-permission": "May this user stop and start the VM?",
    "vm-snapshot-memory": "Do snapshots with memory hold the old CPU?",
    "vm-agent": "Is there a guest agent to look inside with?",
}
"""Check id to the question it asks."""

OLDEST = 9
"""The first hardware version with nesting: that of Workstation 9, Fusion 5 and ESXi 5.1."""

ENCRYPTED = ("encryption.keySafe", "encryption.data", "encryptedVM.guid")
"""Settings of which an encrypted configuration has at least one; a partly encrypted one has others, too."""

_BOX = "Processors > Virtualize Intel VT-x/EPT or AMD-V/RVI"


def encrypted(facts: Situation) -> list[str]:
    """The settings that say so; then what else is in the file says nothing of what is not."""
    return [name for name in ENCRYPTED if facts.document.get(name) is not None]


def _host(facts: Situation, goal: Goal) -> Iterator[Finding]:
    host, layer = facts.host, Layer.HOST
    if host is None or not goal.nested:
        return
    if not host.module or host.flags is None:
        evidence = "there is no /dev/vmmon: no VM of VMware can run on this machine as it is"
        cure = "if it is to run here: sudo modprobe vmmon, or sudo vmware-modconfig --console --install-all"
        yield Finding("host-vmmon", layer, Status.WARN, evidence, cure)
        return
    yield Finding("host-vmmon", layer, Status.PASS, "/dev/vmmon is there")
    flag = next((flag for flag in ("vmx", "svm") if flag in host.flags), None)
    if flag is None:
        evidence = "neither vmx nor svm in /proc/cpuinfo"
        cure = "switch VT-x or AMD-V (SVM) on in the firmware; in a VM, enable nesting for that one first"
        yield Finding("host-cpu", layer, Status.FAIL, evidence, cure)
        return
    yield Finding("host-cpu", layer, Status.PASS, f"{flag} in /proc/cpuinfo")
    paging = "ept" if flag == "vmx" else "npt"
    if paging not in host.flags:
        evidence = f"/proc/cpuinfo shows {flag} without {paging}, which VMware wants for a VM that nests"
        cure = "another host: the CPU is too old, or this machine is itself a VM that was given none"
        yield Finding("host-paging", layer, Status.FAIL, evidence, cure)


def _vm_arch(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    guest = facts.document.get("guestOS") or ""
    if guest.lower().startswith("arm"):
        evidence = f'guestOS = "{guest}"; {SETTING} is for x86 CPUs'
        yield Finding("vm-arch", Layer.VM, Status.FAIL, evidence, "nestvirt can help x86 VMs only")


def _vm_encrypted(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    found = encrypted(facts)
    if found:
        evidence = f"the configuration is encrypted, wholly or in part: it has {', '.join(found)}"
        cure = f"change it in VMware's own window, which asks for the password: {_BOX}"
        yield Finding("vm-encrypted", Layer.VM, Status.FAIL, evidence, cure)


def _vm_hardware_version(facts: Situation, goal: Goal) -> Iterator[Finding]:
    said = facts.document.get("virtualHW.version")
    if not goal.nested or encrypted(facts):
        return
    check, layer = "vm-hardware-version", Layer.VM
    if said is None or not said.isdecimal():
        evidence = f"virtualHW.version is {'not set' if said is None else said!r}"
        yield Finding(check, layer, Status.UNKNOWN, evidence, "open the VM in VMware once, which sets it")
    elif int(said) < OLDEST:
        evidence = f'virtualHW.version = "{said}"; nesting takes {OLDEST} or later'
        upgrade = facts.control.line("upgradevm", facts.path) if facts.control else "VM > Manage > Change"
        upgrade += "" if facts.control else " Hardware Compatibility"
        cure = f"copy the VM's folder first, for there is no way back; then: {upgrade}"
        yield Finding(check, layer, Status.FAIL, evidence, cure)


def _vm_permission(facts: Situation, goal: Goal) -> Iterator[Finding]:
    if wanted(facts, goal) is not None:
        yield from _unwritable(facts)


def _unwritable(facts: Situation) -> Iterator[Finding]:
    if facts.unwritable:
        cure = "run nestvirt as the VM's own user, or give this one the right to write there"
        yield Finding("vm-permission", Layer.VM, Status.FAIL, facts.unwritable, cure)


def _vm_lock(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    others = facts.others
    if others:
        live = [holder for holder in others if holder.life is Life.LIVE]
        if live:
            cure = "close the VM there (its tab in Workstation, its window in Fusion); then run this again"
        else:
            cure = "shut it down there; if no machine runs it any more: rm -r " + shlex.quote(
                others[0].folder
            )
        evidence = "; ".join(_described(holder) for holder in others[:3])
        yield Finding("vm-lock", Layer.VM, Status.FAIL, evidence, cure)
    if facts.left_behind:
        evidence = f"{_described(facts.left_behind[0])}; VMware takes it away at the next start"
        yield Finding("vm-lock-stale", Layer.VM, Status.WARN, evidence, "none is needed")


def _described(holder: Holder) -> str:
    process = f"process {holder.pid}" + (f" ({holder.process})" if holder.process else "")
    if holder.life is Life.LIVE:
        return f"{process} has it open: {holder.folder}"
    if holder.life is Life.DEAD:
        return f"{process}, which is gone, has left {holder.folder}"
    who = process if holder.pid else "somebody"
    where = "of another machine, or outside this container,"
    return f"{holder.folder}: {who} {where} holds it, or did so before a crash"


def _vm_suspended(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.power is Power.SUSPENDED:
        evidence = f"it is suspended ({facts.saved_state}), and will come back with the CPU it was saved with"
        cure = "resume it, and shut it down from within"
        if facts.control:
            start = facts.control.line("start", facts.path, "nogui")
            cure = f"{start}; when it is up: {facts.control.line('stop', facts.path, 'soft')}"
        yield Finding("vm-suspended", Layer.VM, Status.FAIL, evidence, cure)


def wanted(facts: Situation, goal: Goal) -> Change | None:
    """The change that brings the setting to the goal; None where it is there, or cannot be known."""
    if encrypted(facts):
        return None
    before, defined = facts.value(SETTING), facts.document.definitions(SETTING)
    if len(defined) < 2 and facts.nested is goal.nested:
        return None
    name = defined[-1].spelling if defined else SETTING
    after: str | None = written(name, "TRUE" if goal.nested else "FALSE")
    former = goal.former
    if not goal.nested and former is not None and former.setting == SETTING and former.after == before:
        # What was there before nestvirt enabled it, if that had no nesting, and was no fault itself.
        earlier = facts.document.with_text(SETTING, former.before)
        if shows(earlier.get(SETTING)) is False and len(earlier.definitions(SETTING)) < 2:
            after = former.before
    return Change(SETTING, before, after)


def _vm_cpu(facts: Situation, goal: Goal) -> Iterator[Finding]:
    if encrypted(facts):
        return
    defined = facts.document.definitions(SETTING)
    lines = ", ".join(map(str, facts.document.numbers(SETTING)))
    if not defined:
        evidence = f"{SETTING} is not set, and the guest gets neither vmx nor svm"
    elif len(defined) > 1:
        evidence = f"{SETTING} is set {len(defined)} times (lines {lines}): VMware calls such a file corrupt"
    else:
        does = {True: "shows", False: "does not show", None: "is neither TRUE nor FALSE, and may not show"}
        value = facts.document.get(SETTING)
        evidence = f'{SETTING} = "{value}" (line {lines}) {does[facts.nested]} the guest vmx or svm'
    change = wanted(facts, goal)
    if change is None:
        yield Finding("vm-cpu", Layer.VM, Status.PASS, evidence)
    else:
        yield Finding("vm-cpu", Layer.VM, Status.FAIL, evidence, "nestvirt can change it", change)


def _vm_cpu_pending(facts: Situation, goal: Goal) -> Iterator[Finding]:
    if wanted(facts, goal) is not None or facts.live is not (not goal.nested):
        return
    evidence = (
        f"the file is right, but the VM was powered on {'with' if facts.live else 'without'} nesting "
        "(vmware.log). A reboot inside the guest does not apply it. VMware may write the file anew when the "
        "VM is shut down; if the line is gone then, run this again"
    )
    received = Change(SETTING, written(SETTING, str(facts.live).upper()), facts.value(SETTING))
    cure = "shut it down, and start it again"
    yield Finding("vm-cpu-pending", Layer.VM, Status.FAIL, evidence, cure, ColdBoot(received))


def _vm_power_permission(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Only where it would have to be stopped: nobody needs vmrun for what is so already."""
    if wanted(facts, goal) or facts.live is (not goal.nested):
        yield from _unstoppable(facts)


def _unstoppable(facts: Situation) -> Iterator[Finding]:
    if facts.power is not Power.RUNNING or facts.listed:
        return
    if facts.control is None:
        evidence = "the VM runs, and there is no vmrun here to stop it with"
        cure = "shut it down, and run this again; or name vmrun in NESTVIRT_VMX_VMRUN"
    else:
        evidence = f"the VM runs, and is not among those of {facts.control.line('list')}"
        cure = "run nestvirt as the user who started it; or shut it down, and run this again"
    yield Finding(POWER_RIGHT, Layer.VM, Status.FAIL, evidence, cure)


def _vm_snapshot_memory(facts: Situation, goal: Goal) -> Iterator[Finding]:
    if facts.memory_snapshots and goal.nested:
        names = ", ".join(facts.memory_snapshots[:5])
        evidence = f"snapshots with memory: {names}; going back to one brings back the CPU it was taken with"
        cure = "take new snapshots after enabling"
        yield Finding("vm-snapshot-memory", Layer.VM, Status.WARN, evidence, cure)


def _vm_agent(facts: Situation, _goal: Goal) -> Iterator[Finding]:
    if facts.power is Power.RUNNING:
        evidence = (
            "VMware Tools are not used: vmrun takes the guest's password as an argument, which every user of "
            "this machine can read"
        )
        address = facts.control.address if facts.control else ""
        cure = f"look inside over SSH: --ssh USER@{address or 'HOST'}"
        yield Finding("vm-agent", Layer.VM, Status.WARN, evidence, cure)


_QUESTIONS = (
    _host,
    _vm_arch,
    _vm_encrypted,
    _vm_hardware_version,
    _vm_permission,
    _vm_lock,
    _vm_suspended,
    _vm_cpu,
    _vm_cpu_pending,
    _vm_power_permission,
    _vm_snapshot_memory,
    _vm_agent,
)


@dataclass(frozen=True)
class VmxFacts(Situation):
    """One VM, which judges itself; see Facts."""

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """See Facts."""
        return tuple(finding for question in _QUESTIONS for finding in question(self, goal))

    def forbids(self, changes: Sequence[Change]) -> tuple[Finding, ...]:
        """See Guarded."""
        return (*_unwritable(self), *_unstoppable(self)) if changes else ()
