"""VMs of Hyper-V as facts, and as the scripts tell them, made for tests of what they mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nestvirt.backends.hyperv.direct import System
from nestvirt.backends.hyperv.facts import VmFacts
from nestvirt.backends.hyperv.situation import SHUTDOWN_SERVICE, Adapter, Group, Host, Service
from nestvirt.model import Finding, Goal

ON, OFF = Goal(), Goal(nested=False)
GUID, ADAPTER = "6f1e0f6c-5f43-4f3c-9c50-2f6d7c9f7d10", "B637F346-6A0E-4DEC-AF52-BD70CB80A21D"
INTEL = Host("HV01", 20348, "GenuineIntel", True, False, "10.0")
AMD = replace(INTEL, cpu_vendor="AuthenticAMD")
SETTINGS: dict[str, str | None] = {
    "SavedState": None,
    "Version": "10.0",
    "DynamicMemoryEnabled": "false, startup=8589934592",
    "VirtualizationBasedSecurityOptOut": "false",
    "ExposeVirtualizationExtensions": "false",
    f"MacAddressSpoofing:{ADAPTER}": "Off",
}
DYNAMIC = "true, minimum=536870912, startup=8589934592, maximum=17179869184"
RUNNING = VmFacts(
    host=INTEL,
    id=GUID,
    name="web-01",
    state="Running",
    version="10.0",
    generation=2,
    replication="None",
    group=None,
    memory=8 << 30,
    adapters=(Adapter(ADAPTER, "Network Adapter", False),),
    services={SHUTDOWN_SERVICE: Service(True, "Ok")},
    checkpoints=(),
    used=8 << 30,
    stop_action="ShutDown",
    heartbeat="OkApplicationsHealthy",
    system=System("Windows Server 2022 Datacenter", True),
    settings=SETTINGS,
    guest_user="Administrator",
)
ROLE = Group("HVC", "web-01", "Online")


def vm(facts: VmFacts = RUNNING, *, settings: dict[str, str | None] | None = None, **more: Any) -> VmFacts:
    """That VM with other facts, and with other settings beside the usual ones."""
    return replace(facts, **more, settings={**facts.settings, **(settings or {})})


NESTED = vm(settings={"ExposeVirtualizationExtensions": "true"})
SAVED = vm(state="Saved", settings={"SavedState": "saved"}, heartbeat="", services={})


def versioned(version: str, host: Host = INTEL) -> VmFacts:
    """A VM of that configuration version on that host."""
    return vm(host=host, version=version, settings={"Version": version})


def of(facts: VmFacts, check: str, goal: Goal = ON) -> list[Finding]:
    """The findings of one check."""
    return [finding for finding in facts.judge(goal) if finding.check == check]


def answer(**more: Any) -> dict[str, Any]:
    """What vm.ps1 says of a VM."""
    return {
        "host": {
            "name": "HV01",
            "build": "20348",
            "cpu_vendor": "GenuineIntel",
            "hypervisor": True,
            "vbs": 0,
            "version": "10.0",
        },
        "id": GUID,
        "name": "web-01",
        "state": "Off",
        "version": "10.0",
        "generation": 2,
        "replication": "None",
        "group": None,
        "memory": 8 << 30,
        "assigned": 0,
        "demand": 0,
        "stop_action": "Save",
        "adapters": [{"id": ADAPTER, "name": "Network Adapter", "spoofing": "Off"}],
        "services": [{"id": SHUTDOWN_SERVICE.upper(), "enabled": True, "status": "Ok"}],
        "checkpoints": [],
        "heartbeat": "",
        "kvp": [],
        "settings": SETTINGS,
        **more,
    }
