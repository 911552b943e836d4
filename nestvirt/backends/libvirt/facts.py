"""What was read about a libvirt domain and its host, and what it means. Pure; needs no libvirt."""

from __future__ import annotations

import difflib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.cpu_xml import Cpu
from nestvirt.model import Change, ColdBoot, Finding, Goal, Layer, Power, Status

CHECKS = {
    "host-kvm": "Does the host offer KVM for this VM?",
    "host-nested": "Does the host's kvm module let its VMs nest?",
    "vm-arch": "Is the VM an x86 one?",
    "vm-type": "Is the VM run by KVM, or emulated?",
    "vm-persistent": "Does the VM have a definition that outlives its power-off?",
    "vm-suspended": "Is the VM paused?",
    "vm-managed-save": "Would a saved state bring the old CPU back?",
    "vm-cpu-choice": "Can the CPU that was asked for work here?",
    "vm-cpu": "Does the definition show the guest vmx or svm?",
    "vm-cpu-feature": "Are vmx and svm listed once, and for the right vendor?",
    "vm-cpu-pending": "Has the running VM the CPU of its definition?",
    "vm-snapshot-memory": "Do snapshots with memory hold the old CPU?",
    "vm-agent": "Is there a guest agent to look inside with?",
}
"""Check id to the question it asks."""

_TCG_MODEL = "EPYC"  # the plainest AMD model with svm; TCG emulates svm and no vmx (QEMU target/i386/cpu.c)
_VENDOR_FEATURE = {"AMD": "svm", "Hygon": "svm", "Intel": "vmx"}
_MAY_BE_AMD = ("AMD", "Hygon", "unknown", "")
_X86 = ("x86_64", "i686")


@dataclass(frozen=True)
class HostFacts:
    """The host, as far as libvirt and, for a local one, /sys show it. None: could not be read.

    Attributes:
        vendor: the CPU's vendor in libvirt's words: AMD, Intel.
        kvm: whether libvirt offers KVM for the domain's architecture.
        nested: the kvm module's own ``nested`` parameter, as it prints it.
        nested_source: where that was read.
        host_model: feature policies of libvirt's host-model.
        models: named models to their vendor: under KVM those that libvirt calls usable, under TCG all.
    """

    vendor: str | None
    kvm: bool
    nested: str | None
    nested_source: str
    host_model: dict[str, str] | None
    models: dict[str, str] | None


@dataclass(frozen=True)
class DomainFacts:
    """One domain.

    Attributes:
        inactive: the persistent definition's XML, without secrets; None for a transient domain.
        live: the running domain's XML, or None.
        model_features: what libvirt expands the definition's named model to, or None.
    """

    name: str
    power: Power
    inactive: str | None
    live: str | None
    host: HostFacts
    managed_save: bool
    memory_snapshots: tuple[str, ...]
    model_features: frozenset[str] | None = None

    def value(self, setting: str) -> str | None:
        """See Facts. The one setting is ``cpu``, the element's exact text."""
        if setting != "cpu":
            raise ValueError(f"libvirt has no setting {setting!r}")
        return cpu_xml.split(self.inactive)[1] if self.inactive is not None else None

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """See Facts."""
        return tuple(finding for question in _QUESTIONS for finding in question(self, goal))

    @property
    def root(self) -> ET.Element:
        """The definition as a tree; the live one where there is no other."""
        return ET.fromstring(self.inactive or self.live or "<domain/>")  # noqa: S314 - libvirt's own output

    @property
    def emulated(self) -> bool:
        """True where QEMU interprets the guest's instructions (TCG) instead of KVM."""
        return self.root.get("type") == "qemu"

    @property
    def feature(self) -> str | None:
        """The CPU flag that means nesting here: vmx or svm; None where the vendor is unknown."""
        return "svm" if self.emulated else _VENDOR_FEATURE.get(self.host.vendor or "")

    @property
    def cpu(self) -> Cpu:
        """The configured CPU."""
        return Cpu.parse(self.value("cpu"))

    def shows(self, cpu: Cpu) -> bool | None:
        """Does that CPU show the guest the feature? None: it cannot be told from here."""
        if self.feature is None:
            return None
        stated = cpu.states(self.feature)
        if stated is not None:
            return stated
        if cpu.mode == "host-model":
            policies = self.host.host_model
            return None if policies is None else policies.get(self.feature) in ("require", "force")
        if cpu.mode == "custom" and cpu.model == self.cpu.model and self.model_features is not None:
            return self.feature in self.model_features
        return False if cpu.mode == "" else None


def _host_kvm(facts: DomainFacts, goal: Goal) -> Iterator[Finding]:
    if facts.emulated or not goal.nested:
        return
    status = Status.PASS if facts.host.kvm else Status.FAIL
    words = "offers" if facts.host.kvm else "does not offer"
    yield Finding(
        "host-kvm",
        Layer.HOST,
        status,
        f"libvirt's capabilities: the host {words} KVM for {facts.root.findtext('os/type') or 'hvm'} guests",
        "" if facts.host.kvm else "on the host: nestvirt check; when it is cured, restart libvirtd",
    )


def _host_nested(facts: DomainFacts, goal: Goal) -> Iterator[Finding]:
    if facts.emulated or not goal.nested or facts.feature is None:
        return
    module = "kvm_amd" if facts.feature == "svm" else "kvm_intel"
    policy = (facts.host.host_model or {}).get(facts.feature)
    if facts.host.nested is not None:
        on = facts.host.nested in ("Y", "1")
        evidence = f"{facts.host.nested_source} is {facts.host.nested}"
    elif policy is not None:
        on = policy in ("require", "force")
        evidence = f"libvirt's domain capabilities: host-model has {facts.feature} with policy {policy}"
    else:
        evidence = f"neither {module}'s parameter nor libvirt's domain capabilities tell"
        cure = f"on the host: cat /sys/module/{module}/parameters/nested"
        yield Finding("host-nested", Layer.HOST, Status.UNKNOWN, evidence, cure)
        return
    cure = (
        f"on the host, stop all VMs, then: echo 'options {module} nested=1' > /etc/modprobe.d/zz-nested.conf "
        f"&& modprobe -r {module} && modprobe {module}"
    )
    status = Status.PASS if on else Status.FAIL
    yield Finding("host-nested", Layer.HOST, status, evidence, "" if on else cure)


def _vm_arch(facts: DomainFacts, _goal: Goal) -> Iterator[Finding]:
    kind = facts.root.find("os/type")
    arch = kind.get("arch", "x86_64") if kind is not None else "x86_64"
    if arch not in _X86:
        evidence = f"the definition's architecture is {arch}"
        yield Finding(
            "vm-arch", Layer.VM, Status.FAIL, evidence, "nestvirt's libvirt backend knows x86 VMs only"
        )


def _vm_type(facts: DomainFacts, goal: Goal) -> Iterator[Finding]:
    kind = facts.root.get("type", "")
    evidence = f"<domain type='{kind}'>"
    if kind == "kvm":
        if facts.feature is None and goal.nested:
            cure = "on the host: grep -m1 vendor_id /proc/cpuinfo"
            vendor = facts.host.vendor or "none"
            yield Finding(
                "vm-type", Layer.VM, Status.UNKNOWN, f"{evidence}; the host's vendor is {vendor}", cure
            )
        else:
            yield Finding("vm-type", Layer.VM, Status.PASS, evidence)
    elif kind == "qemu":
        note = "; QEMU emulates this VM: nesting works with AMD's svm only, and slowly"
        cure = "on a host with KVM: virsh edit the domain and write type='kvm'"
        yield Finding("vm-type", Layer.VM, Status.WARN, evidence + note, cure)
    else:
        cure = "nestvirt can help VMs of QEMU and KVM only"
        yield Finding("vm-type", Layer.VM, Status.FAIL, evidence, cure)


def _vm_persistent(facts: DomainFacts, _goal: Goal) -> Iterator[Finding]:
    if facts.inactive is None:
        evidence = "the VM is transient: it has no definition that outlives its power-off"
        cure = (
            f"keep it: virsh dumpxml --inactive --security-info {facts.name} > vm.xml && virsh define vm.xml"
        )
        yield Finding("vm-persistent", Layer.VM, Status.FAIL, evidence, cure)


def _vm_suspended(facts: DomainFacts, _goal: Goal) -> Iterator[Finding]:
    if facts.power is Power.SUSPENDED:
        evidence = "the VM is paused, so its guest can neither shut down nor be asked"
        yield Finding("vm-suspended", Layer.VM, Status.FAIL, evidence, f"virsh resume {facts.name}")


def _vm_managed_save(facts: DomainFacts, _goal: Goal) -> Iterator[Finding]:
    if facts.managed_save:
        evidence = "there is a managed save; the next start would bring back the CPU that it was saved with"
        cure = f"virsh start {facts.name}, and when it has booted: virsh shutdown {facts.name}"
        yield Finding("vm-managed-save", Layer.VM, Status.FAIL, evidence, cure)


def _vm_cpu_choice(facts: DomainFacts, goal: Goal) -> Iterator[Finding]:
    if goal.cpu is None or not goal.nested:
        return
    why = cure = ""
    models = facts.host.models
    if goal.cpu in ("host-passthrough", "host-model", "maximum"):
        if facts.emulated and goal.cpu == "host-passthrough":
            why = "QEMU's emulation (type='qemu') refuses to start with host-passthrough"
            cure = "leave --cpu out, or name an AMD model such as --cpu EPYC"
    elif models is not None and goal.cpu not in models:
        near = difflib.get_close_matches(goal.cpu, models, n=3) or sorted(models)[:5]
        why = f"libvirt calls no model {goal.cpu!r} usable here"
        cure = f"near to it: {', '.join(near)}; all: virsh domcapabilities"
    elif models is not None and facts.emulated and models[goal.cpu] not in _MAY_BE_AMD:
        why = f"QEMU emulates AMD's svm only, and {goal.cpu} is a model of {models[goal.cpu]}"
        cure = "leave --cpu out, or name an AMD model such as --cpu EPYC"
    if why:
        yield Finding("vm-cpu-choice", Layer.VM, Status.FAIL, why, cure)


def _vm_cpu(facts: DomainFacts, goal: Goal) -> Iterator[Finding]:
    if facts.inactive is None or facts.feature is None:
        return
    feature, cpu = facts.feature, facts.cpu
    shown = facts.shows(cpu)
    if not goal.nested:
        yield from _vm_cpu_off(facts, feature, shown)
        return
    unstartable = facts.emulated and (cpu.mode == "host-passthrough" or not _amd(facts, cpu))
    met = shown is True and not unstartable and not _other_choice(cpu, goal)
    if met:
        yield Finding("vm-cpu", Layer.VM, Status.PASS, f"{_describe(cpu)} shows the guest {feature}")
    else:
        what = (
            "cannot start in QEMU's emulation"
            if unstartable and shown
            else f"does not show the guest {feature}"
        )
        if shown and not unstartable:
            what = f"is not the {goal.cpu} that was asked for"
        fix = Change("cpu", facts.value("cpu"), _wanted(facts, goal, feature))
        yield Finding("vm-cpu", Layer.VM, Status.FAIL, f"{_describe(cpu)} {what}", fix=fix)
    other = next(f for f in cpu_xml.NESTING_FEATURES if f != feature)
    if cpu.doubled or cpu.policy(other) in ("require", "force"):
        flaw = "vmx or svm is listed twice" if cpu.doubled else f"{other} belongs to another vendor's CPUs"
        fix = Change("cpu", facts.value("cpu"), _wanted(facts, goal, feature))
        evidence = f"{flaw}: libvirt refuses that, or drops it in silence"
        yield Finding("vm-cpu-feature", Layer.VM, Status.FAIL, evidence, fix=fix)


def _vm_cpu_off(facts: DomainFacts, feature: str, shown: bool | None) -> Iterator[Finding]:
    if shown is False and facts.cpu.mode:
        yield Finding(
            "vm-cpu", Layer.VM, Status.PASS, f"{_describe(facts.cpu)} hides {feature} from the guest"
        )
        return
    fix = Change("cpu", facts.value("cpu"), cpu_xml.disabled(facts.value("cpu"), feature))
    words = "shows the guest" if shown else "may show the guest"
    yield Finding("vm-cpu", Layer.VM, Status.FAIL, f"{_describe(facts.cpu)} {words} {feature}", fix=fix)


def _vm_cpu_pending(facts: DomainFacts, goal: Goal) -> Iterator[Finding]:
    if facts.live is None or facts.inactive is None or facts.feature is None:
        return
    live = Cpu.parse(cpu_xml.split(facts.live)[1])
    configured, running = facts.shows(facts.cpu), facts.shows(live)
    if configured is goal.nested and running is (not goal.nested):
        has = "has no" if goal.nested else "still has"
        evidence = f"the definition is right, but the running VM {has} {facts.feature} ({_describe(live)})"
        evidence += "; it takes a power cycle, and a reboot inside the guest is none"
        yield Finding("vm-cpu-pending", Layer.VM, Status.FAIL, evidence, fix=ColdBoot())


def _vm_snapshot_memory(facts: DomainFacts, goal: Goal) -> Iterator[Finding]:
    if facts.memory_snapshots and goal.nested:
        names = ", ".join(facts.memory_snapshots[:5])
        evidence = f"snapshots with memory: {names}; reverting to one brings back the CPU it was taken with"
        yield Finding(
            "vm-snapshot-memory", Layer.VM, Status.WARN, evidence, "take new snapshots after enabling"
        )


def _vm_agent(facts: DomainFacts, _goal: Goal) -> Iterator[Finding]:
    state = agent_state(facts.live or facts.inactive)
    if state == "connected" or (state is not None and facts.live is None):
        where = "connected" if facts.live else "configured"
        yield Finding("vm-agent", Layer.VM, Status.PASS, f"the guest agent's channel is {where}")
    elif state is None:
        cure = f"virsh attach-device {facts.name} agent.xml --config, with an org.qemu.guest_agent.0 channel"
        yield Finding("vm-agent", Layer.VM, Status.WARN, "the VM has no guest agent channel", cure)
    else:
        cure = "install and start qemu-guest-agent in the guest, or use --ssh USER@HOST"
        yield Finding("vm-agent", Layer.VM, Status.WARN, "the guest agent has not connected", cure)


_QUESTIONS = (
    _host_kvm,
    _host_nested,
    _vm_arch,
    _vm_type,
    _vm_persistent,
    _vm_suspended,
    _vm_managed_save,
    _vm_cpu_choice,
    _vm_cpu,
    _vm_cpu_pending,
    _vm_snapshot_memory,
    _vm_agent,
)


def agent_state(domain: str | None) -> str | None:
    """The QEMU guest agent's channel in a domain's XML: connected, disconnected, or None for no channel."""
    if domain is None:
        return None
    for target in ET.fromstring(domain).iterfind("devices/channel/target"):  # noqa: S314 - libvirt's own output
        if target.get("name") == "org.qemu.guest_agent.0":
            return target.get("state", "disconnected")
    return None


def _wanted(facts: DomainFacts, goal: Goal, feature: str) -> str:
    current, cpu = facts.value("cpu"), facts.cpu
    check = "none" if facts.emulated else None
    choice = goal.cpu
    if choice is None and facts.emulated:
        # TCG cannot pass the host's CPU through, so the model stays if it is one that can have svm.
        choice = cpu.model if cpu.mode == "custom" and cpu.model and _amd(facts, cpu) else _TCG_MODEL
    elif choice is None:
        choice = (
            cpu.mode if facts.shows(cpu) and cpu.mode in ("host-model", "maximum") else "host-passthrough"
        )
        if facts.shows(cpu) and cpu.mode == "custom":
            choice = cpu.model
    if choice in ("host-passthrough", "host-model", "maximum"):
        return cpu_xml.enabled(current, feature, mode=choice, check=check)
    return cpu_xml.enabled(current, feature, mode="custom", model=choice, check=check)


def _other_choice(cpu: Cpu, goal: Goal) -> bool:
    return goal.cpu is not None and goal.cpu not in (cpu.mode, cpu.model)


def _amd(facts: DomainFacts, cpu: Cpu) -> bool:
    """Can this CPU have svm in QEMU's emulation? Only a named model of another vendor cannot."""
    if cpu.mode != "custom" or cpu.model is None or cpu.model == cpu_xml.DEFAULT_MODEL:
        return True
    return (facts.host.models or {}).get(cpu.model, "AMD") in _MAY_BE_AMD


def _describe(cpu: Cpu) -> str:
    if not cpu.mode:
        return "the definition names no <cpu>, and QEMU's default"
    said = [f"model {cpu.model}"] if cpu.model else []
    said += [f"{name} policy '{policy}'" for name, policy in cpu.policies]
    return f"<cpu mode='{cpu.mode}'>" + (f" with {', '.join(said)}" if said else "")
