"""Situations to judge: hosts, and VMs on them that are off, running or emulated."""

from __future__ import annotations

from dataclasses import replace

from nestvirt.backends.libvirt.domain import HostFacts, HostModel
from nestvirt.backends.libvirt.facts import DomainFacts
from nestvirt.model import Power
from tests.unit.backends.domains import custom, domain, features, mode

MODELS = {
    "EPYC": "AMD",
    "EPYC-Rome": "AMD",
    "Dhyana": "Hygon",
    "Skylake-Client": "Intel",
    "Nehalem": "Intel",
    "qemu64": "unknown",
}
LISTED, DISABLED, UNTOLD = HostModel({"svm": True}), HostModel({"svm": False}), HostModel({"npt": True})
IMPLIED = HostModel({"npt": True}, frozenset({"npt", "svm"}))  # its base model, EPYC, contains svm
LACKING = HostModel({"npt": True}, frozenset({"npt"}))
INTEL = HostFacts(
    "Intel", True, "Y", "/sys/module/kvm_intel/parameters/nested", HostModel({"vmx": True}), MODELS
)
AMD = HostFacts("AMD", True, "1", "/sys/module/kvm_amd/parameters/nested", LISTED, MODELS)
REMOTE = replace(AMD, nested=None, nested_source="")
TCG = HostFacts("Intel", False, None, "", IMPLIED, MODELS)

PASSED = mode("host-passthrough", check="none")
# What a running domain shows of it, as libvirt 9 prints it: expanded, and check='full'.
LIVE_WITH = custom("EPYC-Rome", check="full", svm="require", x2apic="require", hypervisor="require")
LIVE_WITHOUT = custom("EPYC-Rome", check="full", svm="disable", x2apic="require", hypervisor="require")
BOTH = f"<cpu mode='host-model'>{features(svm='require')}{features(svm='require')}\n  </cpu>"


def stopped(cpu: str = PASSED, host: HostFacts = AMD, **domain_fields: str) -> DomainFacts:
    """A VM that is switched off."""
    return DomainFacts(
        "qemu:///system", "web-01", Power.STOPPED, domain(cpu, **domain_fields), None, host, False, ()
    )


def running(cpu: str, live: str, host: HostFacts = AMD, **domain_fields: str) -> DomainFacts:
    """A running VM: what its definition says, and what it runs with."""
    facts = stopped(cpu, host, **domain_fields)
    return replace(facts, power=Power.RUNNING, live=domain(live, **domain_fields))


def emulated(cpu: str) -> DomainFacts:
    """A VM of QEMU's emulation."""
    return stopped(cpu, TCG, kind="qemu")
