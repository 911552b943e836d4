"""What a domain's CPU means for nesting, and which CPU would serve. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from nestvirt.backends.libvirt import cpu_xml
from nestvirt.backends.libvirt.cpu_xml import Cpu
from nestvirt.backends.libvirt.domain import Domain, virsh
from nestvirt.model import Change, ColdBoot, Finding, Goal, Layer, Status

_TCG_MODEL = "EPYC"  # the plainest AMD model with svm; TCG emulates svm and no vmx (QEMU target/i386/cpu.c)
_MAY_BE_AMD = ("AMD", "Hygon", "unknown", "")


def vm_cpu_choice(facts: Domain, goal: Goal) -> Iterator[Finding]:
    """Can the CPU that was asked for work here?"""
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
        all_of_them = virsh(facts.uri, "domcapabilities", "--virttype", facts.platform.virt_type)
        cure = f"near to it: {', '.join(near)}; all: {all_of_them}"
    elif models is not None and facts.emulated and models[goal.cpu] not in _MAY_BE_AMD:
        why = f"QEMU emulates AMD's svm only, and {goal.cpu} is a model of {models[goal.cpu]}"
        cure = "leave --cpu out, or name an AMD model such as --cpu EPYC"
    if why:
        yield Finding("vm-cpu-choice", Layer.VM, Status.FAIL, why, cure)


def vm_cpu(facts: Domain, goal: Goal) -> Iterator[Finding]:
    """Does the definition show the guest vmx or svm, once and for the right vendor?"""
    if facts.inactive is None or facts.feature is None:
        return
    feature, cpu = facts.feature, facts.cpu
    if not goal.nested:
        yield _vm_cpu_off(facts, goal, feature)
        return
    fix = Change("cpu", facts.value("cpu"), _wanted(facts, goal, feature))
    status, words = _shown(facts, goal, feature)
    evidence = f"{_describe(cpu)} {words}"
    yield Finding("vm-cpu", Layer.VM, status, evidence, fix=None if status is Status.PASS else fix)
    other = next(f for f in cpu_xml.NESTING_FEATURES if f != feature)
    if cpu.doubled or cpu.policy(other) in ("require", "force"):
        flaw = "vmx or svm is listed twice" if cpu.doubled else f"{other} belongs to another vendor's CPUs"
        evidence = f"{flaw}: libvirt refuses that, or drops it in silence"
        yield Finding("vm-cpu-feature", Layer.VM, Status.FAIL, evidence, fix=fix)


def _shown(facts: Domain, goal: Goal, feature: str) -> tuple[Status, str]:
    cpu = facts.cpu
    shown = facts.shows(cpu)
    startable = not facts.emulated or (cpu.mode != "host-passthrough" and _amd(facts, cpu))
    if shown is False or (shown is None and not startable):
        return Status.FAIL, f"does not show the guest {feature}"
    if not startable:
        return Status.FAIL, "cannot start in QEMU's emulation"
    if _other_choice(cpu, goal):
        return Status.FAIL, f"is not the {goal.cpu} that was asked for"
    if shown is None:
        return Status.WARN, f"may not show the guest {feature}: libvirt does not tell"
    return Status.PASS, f"shows the guest {feature}"


def _vm_cpu_off(facts: Domain, goal: Goal, feature: str) -> Finding:
    shown, described = facts.shows(facts.cpu), _describe(facts.cpu)
    if shown is False and facts.cpu.mode:
        return Finding("vm-cpu", Layer.VM, Status.PASS, f"{described} hides {feature} from the guest")
    current, former = facts.value("cpu"), goal.former
    after: str | None = cpu_xml.disabled(current, feature)
    if former is not None and former.setting == "cpu" and former.after == current:
        before = Cpu.parse(former.before)
        if before.mode and facts.shows(before) is False:
            after = former.before  # exactly what was there before nestvirt enabled it
    fix = Change("cpu", current, after)
    words = "shows the guest" if shown else "may show the guest"
    return Finding("vm-cpu", Layer.VM, Status.FAIL, f"{described} {words} {feature}", fix=fix)


def vm_cpu_pending(facts: Domain, goal: Goal) -> Iterator[Finding]:
    """Has the running VM the CPU of its definition?"""
    if facts.live is None or facts.inactive is None or facts.feature is None:
        return
    live = Cpu.parse(cpu_xml.split(facts.live)[1])
    configured, running = facts.shows(facts.cpu), facts.shows(live)
    if configured is goal.nested and running is (not goal.nested):
        has = "has no" if goal.nested else "still has"
        evidence = f"the definition is right, but the running VM {has} {facts.feature} ({_describe(live)})"
        evidence += "; it takes a power cycle, and a reboot inside the guest is none"
        yield Finding("vm-cpu-pending", Layer.VM, Status.FAIL, evidence, fix=ColdBoot())


def _wanted(facts: Domain, goal: Goal, feature: str) -> str:
    current, cpu = facts.value("cpu"), facts.cpu
    check = "none" if facts.emulated else None
    choice = goal.cpu
    if choice is None and facts.emulated:
        # TCG cannot pass the host's CPU through, so the model stays if it is one that can have svm.
        choice = cpu.model if cpu.mode == "custom" and cpu.model and _amd(facts, cpu) else _TCG_MODEL
    elif choice is None:
        shown = facts.shows(cpu)
        stays = facts.implies(cpu) if shown is None else shown
        choice = (stays and (cpu.model or cpu.mode)) or "host-passthrough"
    if choice in ("host-passthrough", "host-model", "maximum"):
        return cpu_xml.enabled(current, feature, mode=choice, check=check)
    return cpu_xml.enabled(current, feature, mode="custom", model=choice, check=check)


def _other_choice(cpu: Cpu, goal: Goal) -> bool:
    return goal.cpu is not None and goal.cpu not in (cpu.mode, cpu.model)


def _amd(facts: Domain, cpu: Cpu) -> bool:
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
