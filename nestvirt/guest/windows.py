"""Judge what a Windows guest says of itself, where the probe, which speaks to /dev/kvm, cannot run.

Nesting is proven where a VM is seen to run inside. A CPU that shows its extensions is no proof.
What Windows tells of the CPU: https://learn.microsoft.com/en-us/windows/win32/cimwin32prov/win32-processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nestvirt.errors import GuestUnreachable
from nestvirt.guest.channel import Examiner
from nestvirt.guest.verify import Probed, not_reached
from nestvirt.guest.windows_answer import Said, read_answer
from nestvirt.model import PROOF, Finding, Layer, Proof, Status
from nestvirt.printable import printable

CHECKS = {
    "guest-own-hypervisor": "Windows: does the guest's own hypervisor run?",
    "guest-vbs": "Windows: does virtualization-based security run?",
}
"""Check id to the question it asks, beside those of the probe that Windows can answer as well."""

EXPOSE = "give this VM nested virtualization on its hypervisor, then power it off and on"
_SHOWN = 5
_RESTART = (
    "restart the guest; if it does not start then, as administrator: bcdedit /set hypervisorlaunchtype auto"
)
_LOOK = "look into the guest by hand, as administrator: Get-CimInstance Win32_Processor | Format-List *"
_CLIENT = "Enable-WindowsOptionalFeature -Online -FeatureName Microsoft-Hyper-V -All"
_SERVER = "Install-WindowsFeature Hyper-V -IncludeManagementTools -Restart"


def look_inside(examiner: Examiner, *, timeout: float) -> Probed:
    """Let a guest tell of itself, and judge it; where it does not, nothing is proven.

    Args:
        examiner: the way in.
        timeout: seconds for its answer.
    """
    try:
        return judge_answer(examiner.examine(timeout=timeout), channel=examiner.name)
    except GuestUnreachable as error:
        return not_reached(f"{error.message}: {error.evidence}", error.cure, examiner.name)


def judge_answer(answer: bytes, *, channel: str) -> Probed:
    """Read a guest's answer strictly, and judge it.

    Returns:
        Verdict ``works`` where a VM runs inside, ``off`` where the CPU shows no extensions, else
        ``not-proven``; one UNKNOWN finding where it is no such answer, or contradicts itself.
    """
    try:
        said = read_answer(answer)
    except ValueError as error:
        why = f"the guest's answer is not that of its reading: {printable(str(error), 200)}"
        return not_reached(why, _LOOK, channel)
    findings = tuple(finding for ask in _QUESTIONS for finding in ask(said))
    numbers = {} if said.running is None else {"kvm_users": float(len(said.running))}
    if said.running:
        proof = Proof("works", None, channel, numbers)
    elif any(f.check == "guest-cpu-flag" and f.status is Status.FAIL for f in findings):
        proof = Proof("off", "no-cpu-flag", channel, numbers)
    else:
        proof = Proof("not-proven", "not-proven", channel, numbers)
    return Probed(proof, findings)


def _guest(check: str, status: Status, evidence: str, cure: str = "") -> Finding:
    return Finding(check, Layer.GUEST, status, evidence, cure)


def _unread(said: Said, check: str, part: str, what: str) -> Finding:
    evidence = f"{what} could not be read: {said.unread.get(part, 'it was not told')}"
    return _guest(check, Status.UNKNOWN, evidence, "use an administrator of the guest; or " + _LOOK)


def _hypervisor(said: Said) -> Iterator[Finding]:
    check = "guest-hypervisor"
    if said.machine is None:
        yield _unread(said, check, "machine", "Win32_ComputerSystem")
        return
    present = "true" if said.machine.hypervisor else "false"
    evidence = f"{said.machine.maker} {said.machine.model}; HypervisorPresent is {present}; {said.os}"
    yield _guest(check, Status.PASS, evidence)


def _cpu_flag(said: Said) -> Iterator[Finding]:
    """While its own hypervisor runs, Windows calls the extensions absent: that one holds them."""
    check, flag = "guest-cpu-flag", "Win32_Processor: VMMonitorModeExtensions"
    if said.own:
        yield _guest(check, Status.PASS, "the guest's own hypervisor runs, and it needs vmx or svm")
    elif said.extensions:
        yield _guest(check, Status.PASS, f"{flag} is true")
    elif said.extensions is None:
        yield _unread(said, check, "processors", flag)
    elif said.own is None:
        evidence = (
            f"{flag} is false, as it also is while the guest's own hypervisor runs; and the System log "
        )
        evidence += f"does not say whether one does{': ' if 'events' in said.unread else ''}"
        evidence += said.unread.get("events", "")
        yield _guest(check, Status.UNKNOWN, evidence, _LOOK)
    else:
        failed = f"; its own hypervisor did not start (event {said.failure})" if said.failure else ""
        yield _guest(check, Status.FAIL, f"{flag} is false: neither vmx nor svm{failed}", EXPOSE)


def _firmware(said: Said) -> Iterator[Finding]:
    check, flag = "guest-firmware", "Win32_Processor: VirtualizationFirmwareEnabled"
    if said.own:
        yield _guest(check, Status.PASS, "the guest's own hypervisor runs")
    elif not said.extensions:
        yield _guest(check, Status.SKIP, "not asked: the CPU is not known to have the extensions")
    elif said.firmware is None:
        yield _unread(said, check, "processors", flag)
    elif said.firmware:
        yield _guest(check, Status.PASS, f"{flag} is true")
    else:
        cure = "power the VM off and on; if that does not help, update its host"
        yield _guest(check, Status.WARN, f"{flag} is false: the virtual firmware has locked them", cure)


def _paging(said: Said) -> Iterator[Finding]:
    check, flag = "guest-paging", "Win32_Processor: SecondLevelAddressTranslationExtensions"
    if said.own:
        yield _guest(check, Status.PASS, "the guest's own hypervisor runs, and it needs EPT or NPT")
    elif not said.extensions:
        yield _guest(check, Status.SKIP, "not asked: the CPU is not known to have the extensions")
    elif said.slat is None:
        yield _unread(said, check, "processors", flag)
    elif said.slat:
        yield _guest(check, Status.PASS, f"{flag} is true")
    else:
        cure = "give the VM a host whose CPU has EPT or NPT: Hyper-V inside does not start without"
        yield _guest(check, Status.WARN, f"{flag} is false", cure)


def _own_hypervisor(said: Said) -> Iterator[Finding]:
    check = "guest-own-hypervisor"
    installed = ", ".join(said.features or ())
    if said.own:
        yield _guest(check, Status.PASS, f"it runs{f'; installed: {installed}' if installed else ''}")
    elif said.features is None:
        yield _unread(said, check, "features", "Win32_OptionalFeature")
    elif not said.features:
        yield _guest(check, Status.SKIP, "neither Hyper-V nor the Virtual Machine Platform is installed")
    elif "events" in said.unread:
        yield _unread(said, check, "events", f"installed: {installed}; whether its hypervisor has started")
    else:
        evidence = f"installed: {installed}; "
        if said.failure:
            evidence += f"it did not start: event {said.failure} of Microsoft-Windows-Hyper-V-Hypervisor"
        else:
            evidence += "nothing says that it has started since the guest booted"
        cure = "see guest-cpu-flag" if said.failure and said.extensions is False else _RESTART
        yield _guest(check, Status.WARN, evidence, cure)


def _vbs(said: Said) -> Iterator[Finding]:
    """In a VM the hypervisor underneath can give it without nesting, so that it proves none."""
    check = "guest-vbs"
    if said.vbs is None:
        yield _unread(said, check, "vbs", "Win32_DeviceGuard")
    elif said.vbs == 2:
        yield _guest(check, Status.PASS, "it runs; it needs no nesting in a VM, and proves none")
    elif said.vbs == 1:
        cure = "msinfo32 in the guest says what it lacks"
        yield _guest(check, Status.WARN, "it is configured, and does not run", cure)
    else:
        yield _guest(check, Status.SKIP, "it is not configured")


def _users(said: Said) -> Iterator[Finding]:
    check = "guest-kvm-users"
    if said.running is None:
        yield _unread(said, check, "vms", "which VMs run inside")
    elif said.running:
        yield _guest(check, Status.PASS, f"VMs run inside: {_few(said.running)}")
    else:
        yield _guest(check, Status.PASS, "no VM runs inside")


def _proof(said: Said) -> Iterator[Finding]:
    if said.running:
        evidence = f"VMs run inside, on the guest's own hypervisor: {_few(said.running)}"
        yield _guest(PROOF, Status.PASS, evidence)
    elif said.extensions is False and said.own is False:
        yield _guest(PROOF, Status.SKIP, "not asked: an earlier link is broken")
    else:
        install = _SERVER if said.server else _CLIENT
        start = "start a VM inside (Hyper-V's, or wsl.exe with WSL 2), then check again"
        cure = start if said.features else f"in the guest, as administrator: {install}; then {start}"
        yield _guest(PROOF, Status.UNKNOWN, "not proven: no VM was seen to run inside", cure)


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


_QUESTIONS: tuple[Callable[[Said], Iterator[Finding]], ...] = (
    _hypervisor,
    _cpu_flag,
    _firmware,
    _paging,
    _own_hypervisor,
    _vbs,
    _users,
    _proof,
)
