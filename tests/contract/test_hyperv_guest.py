"""The ways into a Hyper-V guest: Windows by PowerShell Direct, Linux by SSH; and what each of them proves."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nestvirt import backends, engine, report
from nestvirt.backends.hyperv import direct
from nestvirt.engine import Session, Step
from nestvirt.journal import Journal
from nestvirt.model import PROOF, Finding, Goal, Report, Status, Target
from tests.contract.basis import MANNER, OFF, ON, Tell, quiet
from tests.contract.runs import found
from tests.peers.hyperv import Guest
from tests.peers.hyperv.model import HEARTBEAT
from tests.peers.hyperv_guest import LinuxGuest
from tests.peers.hyperv_rig import HyperVLab, HyperVRig
from tests.unit.guest.windows_answers import written

LINUX: dict[str, Any] = {"guest_system": "linux", "guest_name": "Debian GNU/Linux 12"}
PASSWORD = Guest().password


@pytest.fixture
def rig(hyperv_lab: HyperVLab) -> HyperVRig:
    return HyperVRig(hyperv_lab)


@contextmanager
def opened(
    rig: HyperVRig,
    journal: Journal,
    name: str,
    *,
    endpoint: Mapping[str, str] | None = None,
    tell: Tell = quiet,
    ssh: bool = False,
    timeout: float = 30,
) -> Iterator[Session]:
    """A session whose shell is closed afterwards, as the command line does."""
    target = Target(rig.backend, name)
    backend = backends.connect(target, rig.endpoint if endpoint is None else endpoint)
    try:
        way = LinuxGuest(rig, name) if ssh else None
        vm = backend.find(name)
        yield Session(backend, target, vm, journal, f"--hyperv {name}", ssh=way, timeout=timeout, tell=tell)
    finally:
        backend.close()


def check(rig: HyperVRig, journal: Journal, name: str, **how: Any) -> Report:
    with opened(rig, journal, name, **how) as session:
        return engine.check(session, ON)


def reach(rig: HyperVRig, journal: Journal, name: str, goal: Goal, **how: Any) -> Report:
    with opened(rig, journal, name, **how) as session:
        return engine.reach(session, goal, MANNER)


def verdict(result: Report) -> tuple[str, str | None, str]:
    assert result.proof is not None
    return result.proof.verdict, result.proof.cause, result.proof.channel


def without(rig: HyperVRig, *names: str, **instead: str) -> dict[str, str]:
    """The endpoint, less some of its settings, or with others."""
    return {key: value for key, value in rig.endpoint.items() if key not in names} | instead


# --- what is proven


def test_windows_whose_own_vm_runs_is_proven(rig: HyperVRig, journal: Journal) -> None:
    steps: list[Step] = []
    name = rig.make(nested=True)
    result = check(rig, journal, name, tell=lambda step, _detail: steps.append(step))
    assert result.conclusion is Status.PASS
    assert verdict(result) == ("works", None, "powershell-direct")
    assert "inner" in found(result, PROOF).evidence
    assert str(report.to_text(result)).startswith(f"hyperv:{name}: PASS  saw 1 VM run in the guest")
    assert Step.LOOK in steps
    assert Step.PROBE not in steps


def test_enabling_a_running_vm_is_proven_in_the_same_run(rig: HyperVRig, journal: Journal) -> None:
    result = reach(rig, journal, rig.make(), ON)
    assert result.conclusion is Status.PASS
    assert verdict(result) == ("works", None, "powershell-direct")


def test_windows_without_hyperv_is_not_proven(rig: HyperVRig, journal: Journal) -> None:
    result = check(rig, journal, rig.make(nested=True, guest_role=False))
    assert verdict(result) == ("not-proven", "not-proven", "powershell-direct")
    assert result.conclusion is Status.UNKNOWN
    assert found(result, "guest-cpu-flag").status is Status.PASS
    assert "Install-WindowsFeature" in found(result, PROOF).cure


@pytest.mark.parametrize(("vendor", "event"), [("GenuineIntel", 41), ("AuthenticAMD", 42)])
def test_windows_that_sees_no_extensions(rig: HyperVRig, journal: Journal, vendor: str, event: int) -> None:
    rig.host.vendor = vendor
    result = check(rig, journal, rig.make(guest_vbs=2))
    assert verdict(result) == ("off", "no-cpu-flag", "powershell-direct")
    assert result.first_broken == found(result, "vm-cpu")
    assert f"event {event}" in found(result, "guest-cpu-flag").evidence
    assert found(result, "guest-vbs").status is Status.PASS


def test_hyperv_that_runs_and_has_no_vm_running_is_not_proven(rig: HyperVRig, journal: Journal) -> None:
    result = check(rig, journal, rig.make(nested=True, guest_inner=False))
    assert verdict(result) == ("not-proven", "not-proven", "powershell-direct")
    assert found(result, "guest-own-hypervisor").status is Status.PASS
    assert found(result, PROOF).cure.startswith("start a VM inside")


def test_vm_of_wsl_proves_it(rig: HyperVRig, journal: Journal) -> None:
    others = {"msvm_computersystem": [], "processes": [("vmwp", 77)]}
    result = check(rig, journal, rig.make(nested=True, guest_other=others))
    assert verdict(result) == ("works", None, "powershell-direct")
    assert "WSL" in found(result, PROOF).evidence


def test_disabling_is_refused_while_a_vm_runs_inside(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    before = rig.see(name)
    result = reach(rig, journal, name, OFF)
    assert [f.check for f in result.blockers] == ["guest-kvm-users"]
    assert "inner" in result.blockers[0].evidence
    assert rig.see(name) == before


@pytest.mark.parametrize("role", [True, False], ids=["hyperv-inside", "no-hyperv-inside"])
def test_disabling_is_proven_where_none_does(rig: HyperVRig, journal: Journal, *, role: bool) -> None:
    result = reach(rig, journal, rig.make(nested=True, guest_role=role, guest_inner=False), OFF)
    assert found(result, "guest-withdrawn").status is Status.PASS
    assert result.conclusion is Status.PASS


# --- which way is taken, and why not the other


def test_linux_is_entered_by_ssh_and_the_report_says_so(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(nested=True, **LINUX)
    result = check(rig, journal, name, ssh=True)
    assert verdict(result) == ("works", None, "ssh")
    assert "PowerShell Direct leads into Windows alone" in found(result, "vm-agent").evidence
    assert rig.machine(name).guest.tried == []


def test_ssh_that_was_named_goes_before_powershell_direct(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(nested=True)
    assert verdict(check(rig, journal, name, ssh=True)) == ("works", None, "ssh")
    assert rig.machine(name).guest.tried == []


def test_linux_without_ssh_is_not_asked_and_the_cure_is_ssh(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(nested=True, **LINUX)
    result = check(rig, journal, name)
    assert result.conclusion is Status.UNKNOWN
    assert "Debian" in found(result, "vm-agent").evidence
    assert "--ssh" in found(result, "vm-agent").cure
    assert "--ssh" in found(result, PROOF).cure
    assert rig.machine(name).guest.tried == []


def test_guest_that_says_nothing_of_its_system_is_tried(rig: HyperVRig, journal: Journal) -> None:
    result = check(rig, journal, rig.make(nested=True, guest_name=""))
    assert verdict(result)[0] == "works"
    assert found(result, "vm-agent").status is Status.PASS


@pytest.mark.parametrize("lacking", ["guest_username", "guest_password"])
def test_without_a_user_of_the_guest_nobody_is_asked(rig: HyperVRig, journal: Journal, lacking: str) -> None:
    name = rig.make(nested=True)
    result = check(rig, journal, name, endpoint=without(rig, lacking))
    assert result.conclusion is Status.UNKNOWN
    assert found(result, "vm-agent").status is Status.WARN
    assert "NESTVIRT_HYPERV_GUEST_USERNAME" in found(result, "vm-agent").cure
    assert rig.machine(name).guest.tried == []


@pytest.mark.parametrize("state", ["Off", "Saved", "Paused"])
def test_guest_that_does_not_run_is_not_asked(rig: HyperVRig, journal: Journal, state: str) -> None:
    name = rig.make(nested=True, running=False)
    rig.machine(name).state = state
    result = check(rig, journal, name)
    assert "no code can run in it" in found(result, PROOF).evidence
    assert rig.machine(name).guest.tried == []


# --- when it does not work


def guest_finding(result: Report) -> Finding:
    """The one thing that is said of a guest that nobody could ask."""
    [finding] = [f for f in result.findings if f.check.startswith("guest-")]
    assert (finding.check, finding.status) == (PROOF, Status.UNKNOWN)
    assert finding.cure
    assert verdict(result)[:2] == ("unknown", "guest-unreachable")
    return finding


def test_wrong_password_is_tried_once_and_told(rig: HyperVRig, journal: Journal) -> None:
    name, wrong = rig.make(nested=True), "wr0ng-one"
    result = check(rig, journal, name, endpoint=without(rig, guest_password=wrong))
    finding = guest_finding(result)
    assert "refused its user Administrator" in finding.evidence
    assert "GUEST" in finding.cure
    assert wrong not in report.to_json(result)
    assert rig.machine(name).guest.tried == [wrong]


def test_guest_that_hangs_is_left_in_time(rig: HyperVRig, journal: Journal) -> None:
    finding = guest_finding(check(rig, journal, rig.make(nested=True, guest_hangs=True)))
    assert "did not answer by PowerShell Direct within 30 s" in finding.evidence


def test_guest_whose_heart_does_not_beat_is_not_logged_in_to(rig: HyperVRig, journal: Journal) -> None:
    name = rig.make(nested=True, guest_listens=False)
    result = check(rig, journal, name, timeout=0.5)
    assert "NoContact" in guest_finding(result).evidence
    assert "NoContact" in found(result, "vm-agent").evidence
    assert rig.machine(name).guest.tried == []


def test_service_that_does_not_listen_is_named(
    rig: HyperVRig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "SERVICE_PATIENCE", 0.3)
    name = rig.make(nested=True, guest_listens=False)
    rig.machine(name).services[HEARTBEAT] = False
    assert "vmicvmsession" in guest_finding(check(rig, journal, name)).cure


HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\u202e'; Remove-VM *; #"


@pytest.mark.parametrize(
    "answer",
    ["", "x", "[]", "{}", "\x00" * 100, HOSTILE, "9" * 200_000, '{"schema_version": 1, "vms": 7}'],
    ids=range(8),
)
def test_answer_of_no_sense_proves_nothing(rig: HyperVRig, journal: Journal, answer: str) -> None:
    result = check(rig, journal, rig.make(nested=True, guest_answer=answer))
    finding = guest_finding(result)
    assert finding.evidence.isprintable()
    assert len(finding.evidence) < 500


def test_what_a_guest_is_called_reaches_no_terminal(rig: HyperVRig, journal: Journal) -> None:
    names = [{"Caption": HOSTILE, "BuildNumber": HOSTILE, "ProductType": 3, "LastBootUpTime": None}]
    others = {"win32_operatingsystem": [{**names[0], "DataExecutionPrevention_Available": True}]}
    result = check(rig, journal, rig.make(nested=True, guest_name=HOSTILE + "Windows", guest_other=others))
    text = report.to_text(result).plain
    assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}
    assert "Remove-VM" in text
    assert len(rig.host.machines) == 1


def test_answer_that_claims_vms_below_no_hypervisor_is_a_lie(rig: HyperVRig, journal: Journal) -> None:
    lie = {
        "schema_version": 1,
        "machine": {"hypervisor_present": False, "manufacturer": "", "model": ""},
        "vms": [{"name": "x", "process": 1, "milliseconds": 1}],
    }
    name = rig.make(nested=True, guest_answer=written(lie).decode())
    assert "no hypervisor is present" in guest_finding(check(rig, journal, name)).evidence


# --- secrets


def test_guests_password_is_in_no_command_line_no_script_and_no_report(
    rig: HyperVRig, journal: Journal, hyperv_lab: HyperVLab, tmp_path: Path
) -> None:
    """A host keeps command lines and scripts in its event log (4688, 4104)."""
    name = rig.make()
    result = reach(rig, journal, name, ON)
    assert rig.machine(name).guest.tried == [PASSWORD]
    encoded = base64.b64encode(PASSWORD.encode()).decode()
    lines = [" ".join((run.command, *run.arguments)) for run in hyperv_lab.endpoint.invocations]
    scripts = [base64.b64decode(line.split()[-1]).decode("utf-16-le") for line in lines]
    for told in (*lines, *scripts, *hyperv_lab.shell.scripts, report.to_json(result)):
        assert PASSWORD not in told
        assert encoded not in told
    kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not [text for text in kept if PASSWORD in text or encoded in text]


def test_endpoint_that_is_recorded_has_no_password(rig: HyperVRig, journal: Journal) -> None:
    with opened(rig, journal, rig.make(nested=True)) as session:
        recorded = json.dumps(dict(session.backend.endpoint))
    assert PASSWORD not in recorded
    assert "Administrator" in recorded
