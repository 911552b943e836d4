"""What the nodes mean for nesting: the one that holds the VM, and those it might move to. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from nestvirt.backends.proxmox import cpu_checks
from nestvirt.backends.proxmox.cpu import Cpu, is_custom
from nestvirt.backends.proxmox.node import MODULES, NodeCpu
from nestvirt.backends.proxmox.situation import Situation
from nestvirt.model import Finding, Goal, Layer, Status


def host_cpu(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Whether the node's CPU can do it at all."""
    cpu, name = facts.node.cpu, facts.node.name
    if not goal.nested or cpu is None or cpu.machine not in (None, "x86_64"):
        return
    if cpu.can_nest:
        yield Finding("host-cpu", Layer.HOST, Status.PASS, f"{name} has {facts.flag}: {cpu.model}")
        return
    evidence = f"the CPU flags of {name} ({cpu.model}) have neither vmx nor svm"
    cure = (
        "switch VT-x or AMD-V (SVM) on in the node's firmware; where the node is itself a VM, enable nesting "
        "for it first"
    )
    yield Finding("host-cpu", Layer.HOST, Status.FAIL, evidence, cure)


def host_nested(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Whether the node's kvm module lets VMs nest. With it off, cpu: host starts without them, in silence."""
    node = facts.node
    if not goal.nested:
        return
    vendor = node.cpu.vendor if node.cpu else None
    check, layer = "host-nested", Layer.HOST
    if node.nested is not None:
        on = node.nested in ("Y", "1")
        evidence = f"the parameter nested of the kvm module on {node.name} is {node.nested}"
        cure = f"on {node.name}: nestvirt enable --host"
        yield Finding(check, layer, Status.PASS if on else Status.FAIL, evidence, "" if on else cure)
    elif node.nesting_nodes is not None and node.name in node.nesting_nodes:
        evidence = f"{node.name} reports nested-virt among the CPU flags that its KVM supports"
        yield Finding(check, layer, Status.PASS, evidence)
    else:
        file = f"/sys/module/{MODULES[vendor] if vendor else 'kvm_*'}/parameters/nested"
        cure = (
            f"on {node.name}: cat {file} (it should say Y or 1); or let nestvirt: --node-ssh root@{node.name}"
        )
        yield Finding(check, layer, Status.UNKNOWN, _unread(facts), cure)


def _unread(facts: Situation) -> str:
    node = facts.node
    if node.nested_unread:
        return node.nested_unread
    if node.nesting_nodes is None:
        return f"the API of {node.name} does not tell whether its kvm module lets VMs nest"
    if node.name in node.reporting_nodes:
        return (
            f"{node.name} reports its KVM's CPU flags, and nested-virt is not among them: it is off, or was "
            "switched on after pvestatd had made its report"
        )
    return f"{node.name} has not reported its KVM's CPU flags to the cluster"


def vm_migration(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Which of the cluster's nodes could still receive the VM while it runs."""
    if not goal.nested or not facts.members:
        return
    change = cpu_checks.wanted(facts, goal)
    model = Cpu.parse(change.after).model if change else facts.cpu.model
    own = facts.node.cpu
    alike, unlike, unread = [], [], []
    for name, cpu in sorted(facts.members.items()):
        if cpu is None or own is None:
            unread.append(name)
        elif _can_receive(own, cpu, model) and not _reported_without(facts, name):
            alike.append(name)
        else:
            unlike.append(f"{name} ({cpu.model})")
    if own is None or (not alike and not unlike):
        evidence = f"not known, to which of {', '.join(unread)} it can move while it runs"
        cure = "to see it, have Sys.Audit on /nodes; a VM that is off can move to any of them"
        yield Finding("vm-migration", Layer.VM, Status.WARN, evidence, cure)
        return
    words = [f"by their CPUs, with cpu {model} it can move while it runs to: {', '.join(alike) or 'none'}"]
    words += [f"not to: {', '.join(unlike)}"] if unlike else []
    words += [f"not known of: {', '.join(unread)} (reading a node's CPU needs Sys.Audit)"] if unread else []
    words += ["not while VMs run inside it"]
    if not unlike and not unread:
        yield Finding("vm-migration", Layer.VM, Status.PASS, "; ".join(words))
        return
    cure = "move it while it is off, or use a type that all nodes have (--cpu MODEL)"
    yield Finding("vm-migration", Layer.VM, Status.WARN, "; ".join(words), cure)


def _reported_without(facts: Situation, name: str) -> bool:
    """Whether that node reports its KVM's flags, and nested-virt is not among them."""
    nesting = facts.node.nesting_nodes
    return nesting is not None and name in facts.node.reporting_nodes and name not in nesting


def _can_receive(own: NodeCpu, other: NodeCpu, model: str) -> bool:
    """A vendor's type moves within the vendor; host and custom ones want all that the guest sees here."""
    if own.vendor != other.vendor or not other.can_nest:
        return False
    return (model not in ("host", "max") and not is_custom(model)) or own.flags <= other.flags
