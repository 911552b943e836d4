"""What a VM's cpu string means for the goal, and what it should be instead. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from nestvirt.backends.proxmox.cpu import (
    DEFAULT,
    FAMILIES,
    NESTED_FLAG,
    Cpu,
    is_custom,
    is_generic,
    shows_nesting,
    vendor_of,
)
from nestvirt.backends.proxmox.node import FLAGS
from nestvirt.backends.proxmox.situation import Situation
from nestvirt.model import Change, ColdBoot, Finding, Goal, Layer, Status

PLAIN = "x86-64-v2-AES"
"""The type without nesting that the GUI's wizard gives new VMs since PVE 8.0."""

_ARGS_SHOW = re.compile(r"(^|,)(\+?(vmx|svm)(=on)?|host|max)(,|$)")
_ARGS_HIDE = re.compile(r"(^|,)(-(vmx|svm)|(vmx|svm)=off)(,|$)")


def wanted(facts: Situation, goal: Goal) -> Change | None:
    """The change that brings the cpu string to the goal; None where it is there, or is not ours to make."""
    if facts.args_cpu is not None:
        return None
    now = facts.cpu
    after: str | None
    if goal.nested:
        if goal.cpu is not None:
            after = str(_chosen(now, goal.cpu))
        elif shows_nesting(now) or (shows_nesting(now) is None and is_custom(now.model)):
            return None
        else:
            model = now.model if is_custom(now.model) else "host"
            after = str(now.with_model(model).with_nested_flag(None))
    elif shows_nesting(now) is False:
        return None
    else:
        after = _without_nesting(facts, goal)
    before = facts.configured("cpu")
    return None if after == before else Change("cpu", before, after)


def _chosen(now: Cpu, model: str) -> Cpu:
    """Of that type; a vendor's needs the flag besides, which host and custom types do not."""
    plain = model in ("host", "max") or is_custom(model)
    return now.with_model(model).with_nested_flag(None if plain else "+")


def _without_nesting(facts: Situation, goal: Goal) -> str | None:
    """What was there before nestvirt enabled it, if that is known and has none; else the least change."""
    former = goal.former
    known = former is not None and former.setting == "cpu" and former.after == facts.configured("cpu")
    if former is not None and known and shows_nesting(Cpu.parse(former.before)) is False:
        return former.before
    if is_custom(facts.cpu.model) and f"+{NESTED_FLAG}" not in facts.cpu.flags:
        return facts.configured("cpu")  # only its definition tells, which is not ours to change
    unflagged = facts.cpu.with_nested_flag(None)
    if shows_nesting(unflagged) is False:
        return str(unflagged) or None
    if facts.node.offers_flag:
        return str(unflagged.with_nested_flag("-"))
    return str(unflagged.with_model(DEFAULT if facts.node.version < (8,) else PLAIN))


def is_pending(facts: Situation, goal: Goal) -> bool:
    """Whether the configuration is right, and the running VM has another CPU."""
    if not facts.running or "cpu" not in facts.pending or facts.args_cpu is not None:
        return False
    if wanted(facts, goal) is not None:
        return False
    live = shows_nesting(facts.live_cpu)
    return live is not goal.nested or (goal.cpu is not None and facts.live_cpu.model != goal.cpu)


def vm_cpu_choice(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Whether a CPU type that the user named can nest on this node."""
    plain = re.fullmatch(r"[\w.-]+", goal.cpu or "", re.ASCII) is not None
    if goal.cpu is None or (plain and (goal.cpu in ("host", "max") or is_custom(goal.cpu))):
        return
    layer, check = Layer.VM, "vm-cpu-choice"
    owner = vendor_of(goal.cpu)
    node_vendor = facts.node.cpu.vendor if facts.node.cpu else None
    if not plain:
        evidence = f"--cpu {goal.cpu}: it takes a type alone; the sub-options that are there are kept"
        cure = "name the type only: nestvirt adds +nested-virt where it is needed (+vmx and +svm are refused)"
        yield Finding(check, layer, Status.FAIL, evidence, cure)
    elif owner is None and not is_generic(goal.cpu):
        yield _unknown_type(goal.cpu)
    elif owner is not None and node_vendor not in (None, owner):
        evidence = f"{goal.cpu} is a CPU of {owner}, and {facts.node.name} has one of {node_vendor}"
        yield Finding(check, layer, Status.FAIL, evidence, "name host, or a type of the node's own vendor")
    elif facts.node.offers_flag is False:
        evidence = f"qemu-server on {facts.node.name} does not know the flag {NESTED_FLAG} (9.0.27 has it)"
        yield Finding(
            check, layer, Status.FAIL, evidence, _custom_way(goal.cpu, owner or node_vendor or "amd")
        )
    elif owner is None:
        evidence = f"{goal.cpu} is no vendor's CPU: with {NESTED_FLAG} the flag shows, and VMs do not start"
        yield Finding(check, layer, Status.WARN, evidence, f"better host, or a type near {_near_node(facts)}")


def _custom_way(model: str, vendor: str) -> str:
    flag = FLAGS[vendor]
    return (
        f"use host; or, as root on a node, define a custom model in /etc/pve/virtual-guest/cpu-models.conf: "
        f"'cpu-model: nested' with the lines 'flags +{flag}' and 'reported-model {model}', and name it: "
        f"--cpu custom-nested"
    )


def _unknown_type(model: str) -> Finding:
    """A slip of the pen is refused before the VM is stopped for it; of what is new, Proxmox decides."""
    names = {name.lower(): name for name in (*" ".join(FAMILIES.values()).split(), "host", "max")}
    near = [names[name] for name in difflib.get_close_matches(model.lower(), names, n=3, cutoff=0.7)]
    evidence = f"nestvirt knows no built-in CPU type {model}; types are case-sensitive"
    if near:
        cure = f"did you mean {' or '.join(near)}?"
        return Finding("vm-cpu-choice", Layer.VM, Status.FAIL, evidence, cure)
    cure = "Proxmox will refuse it if there is none; see the list in the GUI: VM > Hardware > Processors"
    return Finding("vm-cpu-choice", Layer.VM, Status.WARN, evidence, cure)


def _near_node(facts: Situation) -> str:
    return facts.node.cpu.model if facts.node.cpu else "the node's own CPU"


def vm_cpu(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Whether the guest of the configured CPU sees vmx or svm, as the goal wants it."""
    layer, check = Layer.VM, "vm-cpu"
    if facts.args_cpu is not None:
        yield _args_decide(facts, goal)
        return
    shown = facts.configured("cpu")
    setting = f"cpu: {shown}" if shown is not None else f"cpu is not set, which is {DEFAULT}, and"
    shows = shows_nesting(facts.cpu)
    change = wanted(facts, goal)
    if shows is None and is_custom(facts.cpu.model) and change is None:
        name = facts.cpu.model.removeprefix("custom-")
        evidence = f"{setting} is a custom model; only its definition says whether it shows {facts.flag}"
        cure = f"look into /etc/pve/virtual-guest/cpu-models.conf for 'cpu-model: {name}' and its flags"
        # What is there, the guest can prove; what is not there, nobody.
        status = Status.WARN if goal.nested else Status.UNKNOWN
        yield Finding(check, layer, status, evidence, cure)
        return
    if shows is None:
        evidence = f"{setting} shows the guest {facts.flag}, but no VM starts in it: it is no vendor's CPU"
    else:
        verb = "shows" if shows else "does not show"
        evidence = f"{setting} {verb} the guest {facts.flag}"
    if change is None:
        status = Status.WARN if shows is None else Status.PASS
        cure = "better: --cpu host" if shows is None else ""
        yield Finding(check, layer, status, evidence, cure)
        return
    if goal.nested and goal.cpu is not None and shows:
        evidence += f"; asked for was --cpu {goal.cpu}"
    status = Status.WARN if shows is None else Status.FAIL
    yield Finding(check, layer, status, evidence, "nestvirt can change it", change)


def _args_decide(facts: Situation, goal: Goal) -> Finding:
    args = facts.args_cpu or ""
    shows = bool(_ARGS_SHOW.search(args)) and not _ARGS_HIDE.search(args)
    evidence = f"args has -cpu {args}, which overrides the option cpu, and "
    evidence += f"{'shows' if shows else 'does not show'} the guest {facts.flag}"
    if shows is goal.nested:
        return Finding("vm-cpu", Layer.VM, Status.PASS, evidence)
    cure = f"as root on the node, take -cpu out of the args of: qm config {facts.vmid}; then run this again"
    return Finding("vm-cpu", Layer.VM, Status.FAIL, evidence, cure)


def vm_cpu_pending(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Whether the running VM has the CPU that is configured."""
    if is_pending(facts, goal):
        runs = facts.live.get("cpu") or f"{DEFAULT}, the default"
        evidence = (
            f"cpu: {facts.configured('cpu') or 'not set'} is pending; the VM still runs with {runs}. "
            "A reboot inside the guest does not apply it"
        )
        cure = f"power-cycle it: qm shutdown {facts.vmid} && qm start {facts.vmid}"
        received = Change("cpu", facts.live.get("cpu"), facts.configured("cpu"))
        yield Finding("vm-cpu-pending", Layer.VM, Status.FAIL, evidence, cure, ColdBoot(received))


def vm_windows_host(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Windows guests and the type host."""
    change = wanted(facts, goal)
    model = Cpu.parse(change.after).model if change else facts.cpu.model
    if goal.nested and facts.windows and model in ("host", "max"):
        evidence = (
            f"ostype {facts.live.get('ostype')} with cpu {model}: it can make Windows slow (mitigations), "
            "and Windows 11 with VBS may not boot once it sees nesting"
        )
        vendor = facts.node.cpu.vendor if facts.node.cpu else None
        types = {"amd": "EPYC", "intel": "Skylake-Server"}.get(vendor or "", "EPYC or Skylake-Server")
        cure = f"prefer a type of the node's vendor: --cpu {types}, or near it; keep a backup"
        yield Finding("vm-windows-host", Layer.VM, Status.WARN, evidence, cure)
