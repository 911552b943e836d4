"""What the facts about a libvirt domain mean. Pure; needs no libvirt."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from nestvirt.backends.libvirt.cpu_checks import vm_cpu, vm_cpu_choice, vm_cpu_pending
from nestvirt.backends.libvirt.domain import MODULE, Domain, agent_state, virsh
from nestvirt.model import Finding, Goal, Layer, Power, Status

CHECKS = {
    "host-kvm": "Does the host offer KVM for this VM?",
    "host-nested": "Does the host's kvm module let its VMs nest?",
    "vm-arch": "Is the VM an x86 one?",
    "vm-type": "Is the VM run by KVM, or emulated?",
    "vm-persistent": "Does the VM have a definition that outlives its power-off?",
    "vm-suspended": "Is the VM paused?",
    "vm-poweroff-action": "Does the VM stay off when its guest shuts down?",
    "vm-managed-save": "Would a saved state bring the old CPU back?",
    "vm-cpu-choice": "Can the CPU that was asked for work here?",
    "vm-cpu": "Does the definition show the guest vmx or svm?",
    "vm-cpu-feature": "Are vmx and svm listed once, and for the right vendor?",
    "vm-cpu-pending": "Has the running VM the CPU of its definition?",
    "vm-snapshot-memory": "Do snapshots with memory hold the old CPU?",
    "vm-agent": "Is there a guest agent to look inside with?",
}
"""Check id to the question it asks."""

_X86 = ("x86_64", "i686")
_AGENT_CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


def _host_kvm(facts: Domain, goal: Goal) -> Iterator[Finding]:
    if facts.emulated or not goal.nested:
        return
    status = Status.PASS if facts.host.kvm else Status.FAIL
    words = "offers" if facts.host.kvm else "does not offer"
    yield Finding(
        "host-kvm",
        Layer.HOST,
        status,
        f"libvirt's capabilities: the host {words} KVM for {facts.platform.arch} guests",
        "" if facts.host.kvm else "on the host: nestvirt check; when it is cured, restart libvirtd",
    )


def _host_nested(facts: Domain, goal: Goal) -> Iterator[Finding]:
    if facts.emulated or not goal.nested or facts.feature is None:
        return
    module = MODULE[facts.feature]
    on = facts.host.host_model.has(facts.feature)
    if facts.host.nested is not None:
        on = facts.host.nested in ("Y", "1")
        evidence = f"{facts.host.nested_source} is {facts.host.nested}"
    elif on is not None:
        evidence = f"libvirt's domain capabilities: host-model has {'' if on else 'no '}{facts.feature}"
    else:
        evidence = f"neither {module}'s parameter nor libvirt's domain capabilities tell"
        cure = f"on the host: cat /sys/module/{module}/parameters/nested"
        yield Finding("host-nested", Layer.HOST, Status.UNKNOWN, evidence, cure)
        return
    cure = "on the host: nestvirt enable --host"
    status = Status.PASS if on else Status.FAIL
    yield Finding("host-nested", Layer.HOST, status, evidence, "" if on else cure)


def _vm_arch(facts: Domain, _goal: Goal) -> Iterator[Finding]:
    if facts.platform.arch not in _X86:
        evidence = f"the definition's architecture is {facts.platform.arch}"
        yield Finding(
            "vm-arch", Layer.VM, Status.FAIL, evidence, "nestvirt's libvirt backend knows x86 VMs only"
        )


def _vm_type(facts: Domain, _goal: Goal) -> Iterator[Finding]:
    kind = facts.platform.virt_type
    evidence = f"<domain type='{kind}'>"
    if kind == "kvm":
        if facts.feature is None:
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


def _vm_persistent(facts: Domain, _goal: Goal) -> Iterator[Finding]:
    if facts.inactive is None:
        evidence = "the VM is transient: it has no definition that outlives its power-off"
        dump = virsh(facts.uri, "dumpxml", "--inactive", "--security-info", facts.name)
        cure = f"keep it: {dump} > vm.xml && {virsh(facts.uri, 'define', 'vm.xml')}"
        yield Finding("vm-persistent", Layer.VM, Status.FAIL, evidence, cure)


def _vm_suspended(facts: Domain, _goal: Goal) -> Iterator[Finding]:
    if facts.power is Power.SUSPENDED:
        state = "suspended by its guest's power management" if facts.pm_suspended else "paused"
        evidence = f"the VM is {state}, so its guest can neither shut down nor be asked"
        cure = virsh(facts.uri, "dompmwakeup" if facts.pm_suspended else "resume", facts.name)
        yield Finding("vm-suspended", Layer.VM, Status.FAIL, evidence, cure)


def _vm_poweroff_action(facts: Domain, _goal: Goal) -> Iterator[Finding]:
    action = ET.fromstring(facts.live or "<domain/>").findtext("on_poweroff", "destroy")  # noqa: S314 - libvirt's own output
    if action != "destroy":
        evidence = f"<on_poweroff>{action}</on_poweroff>: the VM does not stay off when it is shut down"
        cure = virsh(
            facts.uri, "set-lifecycle-action", facts.name, "poweroff", "destroy", "--live", "--config"
        )
        yield Finding("vm-poweroff-action", Layer.VM, Status.FAIL, evidence, cure)


def _vm_managed_save(facts: Domain, _goal: Goal) -> Iterator[Finding]:
    if facts.managed_save:
        evidence = "there is a managed save; the next start would bring back the CPU that it was saved with"
        start, shutdown = (virsh(facts.uri, command, facts.name) for command in ("start", "shutdown"))
        cure = f"{start} && {shutdown}"
        yield Finding("vm-managed-save", Layer.VM, Status.FAIL, evidence, cure)


def _vm_snapshot_memory(facts: Domain, goal: Goal) -> Iterator[Finding]:
    if facts.memory_snapshots and goal.nested:
        names = ", ".join(facts.memory_snapshots[:5])
        evidence = f"snapshots with memory: {names}; reverting to one brings back the CPU it was taken with"
        yield Finding(
            "vm-snapshot-memory", Layer.VM, Status.WARN, evidence, "take new snapshots after enabling"
        )


def _vm_agent(facts: Domain, _goal: Goal) -> Iterator[Finding]:
    state = agent_state(facts.live or facts.inactive)
    if state == "connected" or (state is not None and facts.live is None):
        where = "connected" if facts.live else "configured"
        yield Finding("vm-agent", Layer.VM, Status.PASS, f"the guest agent's channel is {where}")
    elif state is None:
        attach = virsh(facts.uri, "attach-device", facts.name, "agent.xml", "--config")
        cure = f'echo "{_AGENT_CHANNEL}" > agent.xml && {attach}'
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
    _vm_poweroff_action,
    _vm_managed_save,
    vm_cpu_choice,
    vm_cpu,
    vm_cpu_pending,
    _vm_snapshot_memory,
    _vm_agent,
)


@dataclass(frozen=True)
class DomainFacts(Domain):
    """One domain, which judges itself; see Facts."""

    def judge(self, goal: Goal) -> tuple[Finding, ...]:
        """See Facts."""
        return tuple(finding for question in _QUESTIONS for finding in question(self, goal))
