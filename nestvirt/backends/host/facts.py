"""What a host's facts mean for nesting, and what would mend it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from nestvirt.backends.host.modprobe import FOLDERS, Word, file_after
from nestvirt.backends.host.situation import FLAGS, OTHERS, HostSituation, User
from nestvirt.model import Change, ColdBoot, Finding, Goal, Layer, Power, Status

CHECKS = {
    "host-cpu": "Has the host's CPU vmx or svm?",
    "host-module": "Is the host's kvm module there, and loaded?",
    "host-other-hypervisor": "Does another hypervisor hold the CPU?",
    "host-nested": "Does the host's kvm module let its VMs nest?",
    "host-nested-next-boot": "Will it let them nest after the next boot?",
    "host-initramfs": "Does the initramfs bring along a configuration of its own?",
    "host-writable": "Can the host's configuration be written?",
    "host-users": "Which VMs keep the kvm module from being loaded anew?",
    "host-paging": "Is second-level paging (EPT, NPT) in effect on the host?",
    "host-kvm-offers": "Does KVM itself offer vmx or svm to VMs? On a host, this is the proof.",
}
"""Check id to the question it asks."""

NAME = "zz-nestvirt.conf"
MARK = "# Written by nestvirt; nestvirt undo takes it back."
_HOST = Layer.HOST
_LOCKED = re.compile(r"disabled \(?by bios", re.IGNORECASE)
"""What the kernel says where the firmware has it off: arch/x86/kvm/vmx/vmx.c, svm/svm.c."""


def content(module: str, *, nested: bool) -> str:
    """The text of the drop-in."""
    return f"{MARK}\noptions {module} nested={int(nested)}\n"


def wanted(facts: HostSituation, goal: Goal) -> Change | None:
    """The drop-in that makes the next load of the module fit the goal; None where it does, or cannot be."""
    module = facts.module
    if module is None or facts.built_in or not facts.module_file or facts.install:
        return None
    deciding = facts.deciding
    if deciding is not None and deciding.on is None:
        return None  # a word that the module refuses to be loaded with, whatever comes after it
    coming = facts.next if facts.next is not None else facts.on  # what nobody has set is the default
    if (coming is goal.nested and not outdated(facts)) or (deciding is not None and not deciding.line):
        return None
    former = goal.former
    if former is not None and former.after == facts.configs.get(former.setting):
        return Change(former.setting, former.after, former.before)
    path = file_after(facts.configs, list(facts.words), NAME, MARK)
    change = Change(path, facts.configs.get(path), content(module, nested=goal.nested))
    return change if change.before != change.after else None


def outdated(facts: HostSituation) -> str:
    """What of modprobe.d the initramfs has otherwise, where it brings the module along; empty for nothing."""
    image, deciding = facts.image, facts.deciding
    if image is None or facts.module not in image.modules:
        return ""
    gone = image.configs - {path.rpartition("/")[2] for path in facts.configs}
    if gone:
        return f"it has {', '.join(sorted(gone))}, which is not there any more"
    if deciding is None or not deciding.line:
        return ""
    newer = deciding.path in image.newer
    here = deciding.path.rpartition("/")[2] in image.configs and not newer
    return "" if here else f"it has {'an older' if newer else 'no'} {deciding.path}"


def _host_cpu(facts: HostSituation, goal: Goal) -> Iterator[Finding]:
    if not goal.nested:
        return
    flag = FLAGS.get(facts.vendor or "")
    if flag is None or facts.machine != "x86_64":
        evidence = f"{facts.model or 'its CPU'} on {facts.machine}: only Intel's vmx and AMD's svm are known"
        yield Finding("host-cpu", _HOST, Status.FAIL, evidence, "use an x86_64 host of Intel or AMD")
    elif flag in facts.flags:
        yield Finding("host-cpu", _HOST, Status.PASS, f"{flag} in /proc/cpuinfo: {facts.model}")
    else:
        evidence = f"no {flag} in /proc/cpuinfo: {facts.model}"
        cure = "switch VT-x or AMD-V (SVM) on in the firmware; where it is itself a VM, enable nesting for it"
        yield Finding("host-cpu", _HOST, Status.FAIL, evidence, cure)


def _host_module(facts: HostSituation, goal: Goal) -> Iterator[Finding]:
    module = facts.module
    if module is None:
        return
    stuck = module in facts.loaded and facts.on is not goal.nested and not facts.loadable
    if not goal.nested and not stuck:
        return
    if facts.built_in:
        yield Finding("host-module", _HOST, Status.PASS, f"{module} is built into kernel {facts.kernel}")
    elif stuck:
        evidence = (
            f"{module} is loaded, and could not be loaded again: {_first(facts.install, facts.loading[-1:])}"
        )
        cure = f"reboot into the kernel that is installed, if it was updated; else see: modprobe -D {module}"
        yield Finding("host-module", _HOST, Status.FAIL, evidence, cure)
    elif module in facts.loaded:
        where = facts.module_file or "its file cannot be told"
        evidence = f"{module} is loaded: {where}"
        if not facts.blacklist:
            yield Finding("host-module", _HOST, Status.PASS, evidence)
            return
        evidence += f"; {facts.blacklist[-1]} keeps it from being loaded at the next boot"
        yield Finding("host-module", _HOST, Status.WARN, evidence, f"remove that line: blacklist {module}")
    elif facts.module_file and any(_LOCKED.search(line) for line in facts.said):
        evidence = f"{module} is not loaded; the kernel says: {facts.said[-1]}"
        cure = "switch VT-x or AMD-V (SVM) on in the firmware, and power the host off and on"
        yield Finding("host-module", _HOST, Status.FAIL, evidence, cure)
    elif facts.module_file:
        evidence = f"{module} is not loaded; it is at {facts.module_file}"
        evidence += f"; {facts.blacklist[-1]} has it on the blacklist" if facts.blacklist else ""
        if facts.loadable:
            cure = f"modprobe {module}; where that fails: dmesg | grep -i kvm"
            yield Finding("host-module", _HOST, Status.FAIL, evidence, cure, ColdBoot())
            return
        evidence += f", and modprobe would not load it: {_first(facts.install, facts.loading[-1:])}"
        cure = f"see what it does instead: modprobe -D {module}"
        yield Finding("host-module", _HOST, Status.FAIL, evidence, cure)
    else:
        evidence = f"kernel {facts.kernel} has no {module}: modinfo finds none"
        yield Finding("host-module", _HOST, Status.FAIL, evidence, "boot a kernel that has KVM's modules")


def _first(*of: Sequence[str]) -> str:
    return next((texts[0] for texts in of if texts), "modprobe says nothing")


def _host_other_hypervisor(facts: HostSituation, _goal: Goal) -> Iterator[Finding]:
    others = [module for module in OTHERS if module in facts.loaded]
    if others:
        names = ", ".join(f"{module} ({OTHERS[module]})" for module in others)
        evidence = f"/proc/modules has {names}: while its VMs run, KVM's cannot, and the reverse"
        cure = f"stop its VMs, then: modprobe -r {' '.join(others)}"
        yield Finding("host-other-hypervisor", _HOST, Status.WARN, evidence, cure)


def _host_nested(facts: HostFacts, goal: Goal) -> Iterator[Finding]:
    module = facts.module
    if module is None or facts.on is None:
        return
    evidence = f"{facts.parameter} is {facts.nested}; {_why(facts)}"
    if facts.on is goal.nested:
        yield Finding("host-nested", _HOST, Status.PASS, evidence)
        return
    change = wanted(facts, goal)
    by_hand = change is None and facts.next is not goal.nested
    if by_hand:
        by_file = facts.install or (facts.deciding is not None and facts.deciding.line)
        cure = "see host-nested-next-boot" if by_file else _command_line(facts, goal)
        yield Finding("host-nested", _HOST, Status.FAIL, evidence, cure)
        return
    in_the_way = change is None and facts.busy
    cure = "see host-users: VMs keep it from being loaded anew" if in_the_way else "nestvirt can change it"
    yield Finding("host-nested", _HOST, Status.FAIL, evidence, cure, change or ColdBoot())


def _why(facts: HostSituation) -> str:
    deciding = facts.deciding
    if deciding is None:
        return "no file and no word of the kernel's command line sets it"
    place = _place(facts, deciding)
    if deciding.on is facts.on:
        return f"{place} sets it"
    return f"{place} says nested={deciding.value}, and the module was loaded before that, or otherwise"


def _place(facts: HostSituation, word: Word) -> str:
    """Where it is written, with the file that the boot loader takes it from."""
    return str(word) if word.line or not facts.sources else f"{word}, from {' and '.join(facts.sources)}"


def _host_nested_next_boot(facts: HostSituation, goal: Goal) -> Iterator[Finding]:
    module, deciding = facts.module, facts.deciding
    if module is None or not (facts.module_file or facts.built_in):
        return
    coming = facts.next if facts.next is not None else facts.on
    if deciding is not None:
        evidence = f"{_place(facts, deciding)} says {module} nested={deciding.value}"
        overruled = [str(w) for w in facts.words[:-1] if w.on is not deciding.on]
        evidence += f"; it overrules {', '.join(overruled)}" if overruled else ""
    else:
        evidence = f"nothing sets {module} nested, so that the kernel's default counts"
    check = "host-nested-next-boot"
    if facts.install:
        evidence = f"{facts.install[-1]} is an install line: it says how {module} is loaded, and with what"
        cure = "remove it, or have it set nested as wanted; options lines may not count"
        yield Finding(check, _HOST, Status.UNKNOWN, evidence, cure)
        return
    if deciding is not None and deciding.on is None:
        evidence += f", which {module} refuses: it cannot be loaded with that"
        yield Finding(check, _HOST, Status.FAIL, evidence, f"write nested={int(goal.nested)} there")
        return
    if coming is goal.nested:
        yield Finding(check, _HOST, Status.PASS, evidence)
        return
    if coming is None:
        yield Finding(check, _HOST, Status.UNKNOWN, evidence, f"modprobe {module}, and look again")
        return
    change = wanted(facts, goal)
    cure = "nestvirt can change it" if change else _command_line(facts, goal)
    yield Finding(check, _HOST, Status.FAIL, evidence, cure, change)


def _command_line(facts: HostSituation, goal: Goal) -> str:
    """What to do about a kernel command line, which nestvirt does not edit."""
    word = f"{facts.module}.nested={int(goal.nested)}"
    deciding = facts.deciding
    what = f"replace what sets it by {word}" if deciding and not deciding.line else f"add {word}"
    if "proxmox-boot-tool" in facts.tools and "grub-mkconfig" not in facts.tools:
        where = "in /etc/kernel/cmdline, then: proxmox-boot-tool refresh"
    elif "grub-mkconfig" in facts.tools:
        where = "in GRUB_CMDLINE_LINUX of /etc/default/grub, then: update-grub (or grub2-mkconfig)"
    else:
        where = "in the boot entry's options line (systemd-boot: /boot/loader/entries/*.conf)"
    return f"{what} {where}; and reboot"


def _host_initramfs(facts: HostSituation, goal: Goal) -> Iterator[Finding]:
    image, module = facts.image, facts.module
    if image is None or module not in image.modules:
        return
    different = outdated(facts)
    if not different:
        evidence = f"{image.path} has {module} and its own copy of modprobe.d, as new as the files"
        yield Finding("host-initramfs", _HOST, Status.PASS, evidence)
        return
    evidence = f"{image.path} has {module}, and the next boot goes by the image: {different}"
    cure = " ".join(rebuild(facts)) or "rebuild the initramfs with the distribution's tool"
    yield Finding("host-initramfs", _HOST, Status.WARN, evidence, cure, wanted(facts, goal))


def rebuild(facts: HostSituation) -> list[str]:
    """The command that makes the running kernel's initramfs anew; empty where no tool for it is there.

    Debian, Ubuntu, Proxmox: update-initramfs(8). RHEL, Fedora, SUSE: dracut(8). Arch: mkinitcpio(8).
    """
    for tool, command in (
        ("update-initramfs", ["update-initramfs", "-u", "-k", facts.kernel]),
        ("dracut", ["dracut", "--force", "--kver", facts.kernel]),
        ("mkinitcpio", ["mkinitcpio", "-P"]),
    ):
        if tool in facts.tools:
            return command
    return []


def _host_writable(facts: HostSituation, goal: Goal) -> Iterator[Finding]:
    if not facts.writable and wanted(facts, goal) is not None:
        evidence = f"{FOLDERS[0]} cannot be written by this user: it is read-only, or only root's"
        cure = "log in as root, or as a user with sudo; as root: see findmnt -T /etc/modprobe.d"
        yield Finding("host-writable", _HOST, Status.FAIL, evidence, cure)


def _host_users(facts: HostFacts, goal: Goal) -> Iterator[Finding]:
    if facts.module is None or facts.built_in or facts.on is None or facts.on is goal.nested:
        return
    drained = [user for user in facts.users if user.key in facts.drain]
    evidence = f"{facts.module} is in use by {facts.busy}: it cannot be loaded anew until they are off"
    if facts.busy and facts.drain:
        cure = f"{out_of_the_way(facts)}; or leave --drain away: then it is configured, for when they are off"
        yield Finding("host-users", _HOST, Status.FAIL, evidence, cure)
    elif facts.busy:
        cure = f"{out_of_the_way(facts)}; and run enable again; or reboot the host when it suits"
        yield Finding("host-users", _HOST, Status.WARN, evidence, cure)
    elif drained:
        evidence = f"to load {facts.module} anew, {_listed(drained)} will be shut down, and started again"
        yield Finding("host-users", _HOST, Status.WARN, evidence, "none: that is what --drain was given for")


def out_of_the_way(facts: HostFacts) -> str:
    """What to do about VMs that use the module: by hand, or by nestvirt where it can."""
    others = [user for user in facts.users if user.key and user.key not in facts.drain]
    drains = "".join(f" --drain {shlex.quote(user.name or user.identity)}" for user in others)
    return f"shut them down, or add{drains}" if drains else "shut them down"


def _listed(users: Iterable[User]) -> str:
    return ", ".join(str(user) for user in users)


def _host_paging(facts: HostSituation, goal: Goal) -> Iterator[Finding]:
    if goal.nested and facts.paging in ("N", "0"):
        name = "ept" if facts.vendor == "intel" else "npt"
        evidence = f"/sys/module/{facts.module}/parameters/{name} is {facts.paging}: nested VMs are very slow"
        evidence += f"; {facts.paging_words[-1]} sets it" if facts.paging_words else ""
        yield Finding("host-paging", _HOST, Status.WARN, evidence, f"remove what sets {name}=0")


def _host_kvm_offers(facts: HostSituation, goal: Goal) -> Iterator[Finding]:
    check = "host-kvm-offers"
    if not goal.nested or not facts.on:
        return
    if facts.offers is None:
        cure = "install python3 on the host, and let this user open /dev/kvm"
        yield Finding(check, _HOST, Status.UNKNOWN, facts.offers_evidence or "KVM was not asked", cure)
    elif facts.offers:
        yield Finding(check, _HOST, Status.PASS, facts.offers_evidence)
    else:
        cure = "dmesg | grep -i kvm says what the module found when it was loaded"
        yield Finding(check, _HOST, Status.FAIL, facts.offers_evidence, cure)


_QUESTIONS: tuple[Callable[[HostFacts, Goal], Iterator[Finding]], ...] = (
    _host_cpu,
    _host_module,
    _host_other_hypervisor,
    _host_nested,
    _host_nested_next_boot,
    _host_initramfs,
    _host_writable,
    _host_users,
    _host_paging,
    _host_kvm_offers,
)


@dataclass(frozen=True)
class HostFacts(HostSituation):
    """One host, which judges itself; see Facts.

    Its power is that of its kvm module: loaded or not.

    Attributes:
        drain: keys of the VMs that are to be shut down while the module is loaded anew.
    """

    drain: tuple[str, ...] = ()

    @property
    def power(self) -> Power:
        """See Facts."""
        return Power.STOPPED if self.on is None else Power.RUNNING

    @property
    def waiting(self) -> str:
        """See Facts: VMs that were drained, and do not run."""
        up = {user.key for user in self.users}
        return ", ".join(key for key in self.drain if key not in up)

    @property
    def busy(self) -> str:
        """See Facts: who keeps the module from being unloaded, beside the VMs to drain."""
        others = [user for user in self.users if user.key not in self.drain]
        count = self.loaded.get(self.module or "", 0)
        if self.built_in:
            return "the kernel itself, which it is built into"
        if others or self.users:
            return _listed(others)
        return f"{count} that this user may not see" if count else ""

    def has(self, change: Change) -> bool:
        """See Facts: whether what is in effect is what the file says for the next time."""
        texts = {content(self.module or "", nested=on): on for on in (True, False)}
        return change.after in texts and texts[change.after] is self.on

    @property
    def parameter(self) -> str:
        """The setting that is the module's parameter in effect: its path in sysfs (kernel, module_param)."""
        return f"/sys/module/{self.module}/parameters/nested"

    def loaded_with(self, *, on: bool) -> str:
        """The parameter as it reads then: kvm_intel's is a bool, kvm_amd's an int."""
        return {"intel": "NY"}.get(self.vendor or "", "01")[on]

    def value(self, setting: str) -> str | None:
        """See Facts: the text of a file; or the parameter in effect, None while the module is not loaded."""
        return self.nested if setting == self.parameter else self.configs.get(setting)

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """See Facts."""
        return tuple(finding for question in _QUESTIONS for finding in question(self, goal))
