"""What stands for or against nesting on a Hyper-V host. Pure.

Rules: https://learn.microsoft.com/virtualization/hyper-v-on-windows/user-guide/enable-nested-virtualization
"""

from __future__ import annotations

from collections.abc import Iterator

from nestvirt.backends.hyperv.situation import Situation
from nestvirt.model import Finding, Goal, Layer, Status

INTEL, AMD = "GenuineIntel", "AuthenticAMD"
FIRST_BUILD = 10565
"""The first Windows with nesting, for Intel alone; released as Windows 10 1607 and Windows Server 2016."""

FIRST_AMD_BUILD = 20348
"""Windows Server 2022; Windows 11 is 22000. No build in between was released."""


def host_hypervisor_role(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """That Hyper-V's own cmdlets answered shows the role; its hypervisor may be off all the same."""
    check, layer, host = "host-hypervisor-role", Layer.HOST, facts.host
    if not goal.nested:
        return
    if host.hypervisor is False:
        evidence = f"{host.name} has the role Hyper-V, and its hypervisor does not run (HypervisorPresent)"
        cure = (
            "turn virtualization on in the host's firmware, and on the host: bcdedit /set "
            "hypervisorlaunchtype auto; then restart it"
        )
        yield Finding(check, layer, Status.FAIL, evidence, cure)
        return
    evidence = f"{host.name} has the role Hyper-V"
    evidence += ", and its hypervisor runs" if host.hypervisor else ""
    evidence += "; virtualization-based security runs beside it" if host.vbs else ""
    yield Finding(check, layer, Status.PASS, evidence)


def host_build(facts: Situation, goal: Goal) -> Iterator[Finding]:
    """Intel since Windows Server 2016, AMD since Windows Server 2022 and Windows 11."""
    check, layer, host = "host-build", Layer.HOST, facts.host
    if not goal.nested:
        return
    evidence = f"{host.name}: Windows build {host.build or 'not told'}, CPU {host.cpu_vendor or 'not told'}"
    first = {INTEL: FIRST_BUILD, AMD: FIRST_AMD_BUILD}.get(host.cpu_vendor)
    if first is None or not host.build:
        cure = "none: Hyper-V nests on CPUs of Intel and AMD; the proof in the guest tells"
        yield Finding(check, layer, Status.UNKNOWN, evidence, cure)
    elif host.build >= first:
        yield Finding(check, layer, Status.PASS, evidence)
    elif host.cpu_vendor == AMD:
        evidence += f"; on AMD, Hyper-V nests from build {first} on (Windows Server 2022, Windows 11)"
        cure = "upgrade the host to Windows Server 2022 or Windows 11, or move the VM to a host that has it"
        yield Finding(check, layer, Status.FAIL, evidence, cure)
    else:
        evidence += f"; Hyper-V nests from build {first} on"
        cure = "upgrade the host to Windows Server 2016 or Windows 10 1607 at least"
        yield Finding(check, layer, Status.FAIL, evidence, cure)
