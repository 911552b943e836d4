"""PowerShell Direct: which guests it leads into, how it waits, and what its failures mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from nestvirt.backends.hyperv import direct
from nestvirt.backends.hyperv.direct import PowerShellDirect, System, system_of, vm_agent, way_in
from nestvirt.backends.hyperv.faults import NoAnswer, ScriptFailed
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, GuestUnreachable
from nestvirt.guest.channel import Examiner
from nestvirt.guest.windows_answer import ANSWER_LIMIT
from nestvirt.model import Finding, Power, Status

GUID = "6f1f2c9a-0b8e-4f7e-9d2c-3c2f1c0a9b7d"
LINUX, WINDOWS = System("Ubuntu 24.04.1 LTS", False), System("Windows Server 2022 Datacenter", True)
SECRET = "gu3st-s3cret"  # noqa: S105

Answer = dict[str, Any] | Error


def item(name: str, data: str) -> str:
    """An entry as Msvm_KvpExchangeComponent has it."""
    return (
        '<INSTANCE CLASSNAME="Msvm_KvpExchangeDataItem"><PROPERTY NAME="Caption" TYPE="string"></PROPERTY>'
        f'<PROPERTY NAME="Data" TYPE="string"><VALUE>{data}</VALUE></PROPERTY>'
        f'<PROPERTY NAME="Name" TYPE="string"><VALUE>{name}</VALUE></PROPERTY>'
        '<PROPERTY NAME="Source" TYPE="uint16"><VALUE>2</VALUE></PROPERTY></INSTANCE>'
    )


def beat(heartbeat: str = "OkApplicationsHealthy", *kvp: str) -> dict[str, Any]:
    return {"state": "Running", "heartbeat": heartbeat, "kvp": list(kvp)}


def failed(type_: str, category: str = "OpenError", id_: str = "PSSessionStateBroken") -> ScriptFailed:
    return ScriptFailed("x", id=id_, category=category, type=type_, text="Die Anmeldeinformationen …")


REFUSED = failed("System.Management.Automation.Remoting.PSDirectException")
SILENT = failed("System.Management.Automation.Remoting.PSRemotingTransportException")


class Host:
    """A session with a host that answers each phase by a script of its own; the last answer stays."""

    def __init__(self, **phases: list[Answer]) -> None:
        self.phases = phases
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    def run(
        self,
        phase: str,
        data: Mapping[str, Any],
        *,
        secret: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> dict[str, Any]:
        self.asked.append((phase, dict(data), dict(secret or {})))
        answers = self.phases[phase]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Error):
            raise answer
        return answer

    @property
    def phases_asked(self) -> list[str]:
        return [phase for phase, _, _ in self.asked]


def guest(host: Host) -> PowerShellDirect:
    return PowerShellDirect(host, GUID, "Administrator", SECRET)


def refusal(act: Callable[[], object]) -> GuestUnreachable:
    with pytest.raises(GuestUnreachable) as caught:
        act()
    error = caught.value
    assert error.cure
    assert SECRET not in f"{error.message}{error.evidence}{error.cure}{error.__cause__}"
    return error


# --- what the guest says it is


@pytest.mark.parametrize(
    ("kvp", "system"),
    [
        ([], None),
        ([item("FullyQualifiedDomainName", "web-01")], None),
        ([item("OSName", "")], None),
        ([item("OSName", "Windows Server 2022 Datacenter"), item("OSPlatformId", "2")], WINDOWS),
        (
            [item("OSName", "Hyper-V Server 2019"), item("OSPlatformId", "2")],
            System("Hyper-V Server 2019", True),
        ),
        ([item("OSName", "Microsoft Windows 11 Pro")], System("Microsoft Windows 11 Pro", True)),
        ([item("OSName", "Ubuntu 24.04.1 LTS"), item("OSVersion", "6.8.0")], LINUX),
        ([item("OSName", "A &amp; B &lt;x&gt;")], System("A & B <x>", False)),
        ([item("OSName", "\x1b[2Jx\nWin")], System("[2Jx Win", False)),
        ([7, None, "<INSTANCE", item("OSName", "y" * 5000)], None),
        ([item("Name", "x")] * 100 + [item("OSName", "late")], None),
    ],
    ids=range(11),
)
def test_system_is_read_from_key_value_exchange(kvp: list[object], system: System | None) -> None:
    assert system_of(kvp) == system


# --- which ways there are


@pytest.mark.parametrize(
    ("power", "heartbeat", "system", "user", "told"),
    [
        (Power.RUNNING, "OkApplicationsHealthy", WINDOWS, "admin", Status.PASS),
        (Power.RUNNING, "OkApplicationsUnknown", None, "admin", Status.PASS),
        (Power.STOPPED, "", None, "admin", Status.PASS),
        (Power.RUNNING, "OkApplicationsHealthy", LINUX, "admin", Status.WARN),
        (Power.RUNNING, "OkApplicationsHealthy", WINDOWS, "", Status.WARN),
        (Power.STOPPED, "", None, "", Status.WARN),
        (Power.RUNNING, "NoContact", None, "admin", Status.WARN),
        (Power.RUNNING, "LostCommunication", WINDOWS, "admin", Status.WARN),
        (Power.RUNNING, "", WINDOWS, "admin", Status.WARN),
    ],
)
def test_report_says_which_way_there_is_and_why_not(
    power: Power, heartbeat: str, system: System | None, user: str, told: Status
) -> None:
    [finding] = list(vm_agent(power, heartbeat, system, user))
    assert (finding.check, finding.status) == ("vm-agent", told)
    assert finding.evidence
    assert bool(finding.cure) is (told is Status.WARN)


def agent(**fields: Any) -> Finding:
    given = {"power": Power.RUNNING, "heartbeat": "OkApplicationsHealthy", "system": None, "user": ""}
    [finding] = list(vm_agent(**{**given, **fields}))
    return finding


def test_cures_name_what_to_set() -> None:
    assert "NESTVIRT_HYPERV_GUEST_USERNAME" in agent().cure
    assert "--ssh" in agent().cure
    assert "Ubuntu" in agent(system=LINUX, user="x").evidence
    assert "--ssh" in agent(system=LINUX, user="x").cure
    assert "NoContact" in agent(heartbeat="NoContact").evidence


def test_way_in_is_for_windows_and_for_who_names_a_user() -> None:
    host, user = Host(), {"guest_username": "admin", "guest_password": SECRET}
    assert way_in(host, GUID, WINDOWS, {}) is None
    assert way_in(host, GUID, WINDOWS, {"guest_username": "admin"}) is None
    assert way_in(host, GUID, LINUX, user) is None
    for system in (WINDOWS, None):
        found = way_in(host, GUID, system, user)
        assert isinstance(found, Examiner)
    assert host.asked == []


# --- waiting for it


def test_guest_is_waited_for_by_its_heartbeat_and_no_password_is_tried() -> None:
    host = Host(heartbeat=[beat("NoContact"), beat("LostCommunication"), beat()])
    guest(host).ping(timeout=20)
    assert host.phases_asked == ["heartbeat"] * 3
    assert all(secret == {} for _, _, secret in host.asked)


def test_guest_whose_heart_does_not_beat_is_given_up() -> None:
    error = refusal(lambda: guest(Host(heartbeat=[beat("NoContact")])).ping(timeout=0.3))
    assert "NoContact" in error.evidence


def test_heartbeat_that_is_switched_off_is_not_waited_for() -> None:
    host = Host(heartbeat=[beat("Disabled")])
    guest(host).ping(timeout=20)
    assert host.phases_asked == ["heartbeat"]


def test_linux_is_not_waited_for() -> None:
    host = Host(heartbeat=[beat("OkApplicationsUnknown", item("OSName", "Debian GNU/Linux 12"))])
    error = refusal(lambda: guest(host).ping(timeout=20))
    assert "Debian" in error.evidence
    assert "--ssh" in error.cure
    assert host.phases_asked == ["heartbeat"]


@pytest.mark.parametrize("answer", [{}, {"kvp": "x", "heartbeat": 1}, {"kvp": [[]], "heartbeat": None}])
def test_heartbeat_of_no_sense_is_none(answer: dict[str, Any]) -> None:
    refusal(lambda: guest(Host(heartbeat=[answer])).ping(timeout=0.2))


# --- asking it


def test_guest_is_asked_with_its_users_password_beside_the_data() -> None:
    host = Host(direct=[{"answered": True, "said": '{"ä": 1}'}])
    assert guest(host).examine(timeout=30) == '{"ä": 1}'.encode()
    [(phase, data, secret)] = host.asked
    assert phase == "direct"
    assert data == {"id": GUID, "seconds": 30, "limit": ANSWER_LIMIT + 1}
    assert secret == {"username": "Administrator", "password": SECRET}


def test_wrong_password_is_tried_once_for_a_guest_may_lock_the_account() -> None:
    host = Host(direct=[REFUSED])
    error = refusal(lambda: guest(host).examine(timeout=30))
    assert host.phases_asked == ["direct"]
    assert "refused its user Administrator" in error.message
    assert "GUEST" in error.cure


def test_service_that_is_not_up_yet_is_tried_again() -> None:
    host = Host(direct=[SILENT, SILENT, {"answered": True, "said": "{}"}])
    assert guest(host).examine(timeout=30) == b"{}"
    assert host.phases_asked == ["direct"] * 3


def test_service_that_does_not_come_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "SERVICE_PATIENCE", 0.3)
    error = refusal(lambda: guest(Host(direct=[SILENT])).examine(timeout=30))
    assert "vmicvmsession" in error.cure


def test_guest_that_does_not_end_is_told_and_not_asked_again() -> None:
    host = Host(direct=[{"answered": False, "said": ""}])
    assert "did not answer" in refusal(lambda: guest(host).examine(timeout=7)).message
    assert host.phases_asked == ["direct"]


@pytest.mark.parametrize(
    "error",
    [
        failed("System.ArgumentException", "InvalidArgument", "InvalidVMState,InvokeCommandCommand"),
        NoAnswer("no answer", evidence="cut", cure="again"),
        ConnectionFailed("nobody", evidence="refused", cure="start it"),
        AccessDenied("no", evidence="401", cure="the right password"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("phase", ["heartbeat", "direct"])
def test_host_that_fails_meanwhile_proves_nothing(error: Error, phase: str) -> None:
    answers: dict[str, list[Answer]] = {phase: [error]}
    host = Host(**answers)
    act = guest(host).ping if phase == "heartbeat" else guest(host).examine
    assert refusal(lambda: act(timeout=20)).evidence
    assert host.phases_asked == [phase]
