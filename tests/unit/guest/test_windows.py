"""A Windows guest is judged by what runs in it; what it says is bounded, and a lie proves nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.errors import GuestUnreachable
from nestvirt.guest import verify, windows
from nestvirt.guest.verify import Probed
from nestvirt.guest.windows_answer import ANSWER_LIMIT
from nestvirt.model import PROOF, Finding, Layer, Report, Status
from tests.unit.guest.windows_answers import HYPERV, STARTED, hidden, hyperv, plain, processors, vm, written

FAILED = {"id": 41, "level": 2}


def judged(answer: object) -> Probed:
    return windows.judge_answer(written(answer), channel="powershell-direct")


def finding(probed: Probed, check: str) -> Finding:
    [found] = [f for f in probed.findings if f.check == check]
    return found


def conclusion(probed: Probed) -> Status:
    return Report("x", probed.findings, proof=probed.proof).conclusion


ANSWERS = {
    "plain": plain(),
    "without": plain(processors=hidden()),
    "hyperv": hyperv(),
    "failed": hyperv(events=[FAILED], vms=[], workers=[]),
    "blind": {"schema_version": 1, "unread": {}},
    "nothing-told": {"schema_version": 1},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_question_is_answered_once_and_ills_say_what_now(name: str) -> None:
    probed = judged(ANSWERS[name])
    checks = [f.check for f in probed.findings]
    assert len(set(checks)) == len(checks)
    assert set(checks) <= {*verify.CHECKS, *windows.CHECKS}
    assert {PROOF, "guest-hypervisor", "guest-cpu-flag", "guest-kvm-users", *windows.CHECKS} <= set(checks)
    assert all(f.evidence for f in probed.findings)
    assert all(f.cure for f in probed.findings if f.ill)
    assert {f.layer for f in probed.findings} == {Layer.GUEST}
    assert probed.proof.channel == "powershell-direct"


# --- works: only where something nested runs


def test_vm_that_runs_inside_is_the_proof() -> None:
    """Although the CPU shows no extensions: the guest's own hypervisor hides what it holds."""
    probed = judged(hyperv())
    assert (probed.proof.verdict, probed.proof.cause) == ("works", None)
    assert probed.proof.numbers == {"kvm_users": 1}
    assert "inner" in finding(probed, PROOF).evidence
    assert finding(probed, "guest-cpu-flag").status is Status.PASS
    assert finding(probed, "guest-paging").status is Status.PASS
    assert finding(probed, "guest-firmware").status is Status.PASS
    assert finding(probed, "guest-own-hypervisor").status is Status.PASS
    assert conclusion(probed) is Status.PASS


def test_vm_of_wsl_is_the_proof() -> None:
    """Hyper-V does not list it: it has a worker process of its own."""
    probed = judged(hyperv(features=["VirtualMachinePlatform"], vms=None, workers=[5]))
    assert probed.proof.verdict == "works"
    assert "WSL" in finding(probed, PROOF).evidence


def test_vms_of_both_kinds_are_told_apart_and_counted() -> None:
    probed = judged(hyperv(vms=[vm("a", 1), vm("b", 2)], workers=[1, 2, 3]))
    assert probed.proof.numbers == {"kvm_users": 3}
    assert finding(probed, "guest-kvm-users").evidence.startswith("VMs run inside: a, b, a VM that")


def test_vms_that_run_say_more_than_a_log_that_was_cleared() -> None:
    probed = judged(hyperv(vms=[vm("a", 1)], workers=[1, 2], events=[]))
    assert probed.proof.numbers == {"kvm_users": 2}
    assert finding(probed, "guest-cpu-flag").status is Status.PASS


def test_vm_without_a_process_does_not_run_whether_or_not_processes_could_be_read() -> None:
    probed = judged(hyperv(vms=[vm("x", 0)], workers=None, unread={"workers": "Denied"}))
    assert probed.proof.verdict == "not-proven"


def test_many_vms_are_told_in_few_words() -> None:
    probed = judged(hyperv(vms=[vm(f"vm{n}", n) for n in range(1, 31)], workers=list(range(1, 31))))
    assert "vm5 and 25 more" in finding(probed, PROOF).evidence


@pytest.mark.parametrize(
    "machine",
    [vm("just-started", 4711, milliseconds=0), vm("no-process", 0), vm("process-gone", 4712)],
    ids=lambda machine: str(machine["name"]),
)
def test_vm_that_does_not_run_yet_is_no_proof(machine: dict[str, Any]) -> None:
    probed = judged(hyperv(vms=[machine], workers=[] if machine["process"] else [4711], events=[]))
    assert probed.proof.verdict == "not-proven"
    assert conclusion(probed) is Status.UNKNOWN


def test_process_of_that_name_is_no_proof_without_a_hypervisor() -> None:
    probed = judged(plain(workers=[7]))
    assert probed.proof.verdict == "not-proven"
    assert probed.proof.numbers == {"kvm_users": 0}


def test_vms_that_could_not_be_counted_are_not_called_none() -> None:
    probed = judged(hyperv(vms=None, workers=None, unread={"vms": "AccessDenied,X", "workers": "Y"}))
    assert probed.proof.numbers == {}
    assert finding(probed, "guest-kvm-users").status is Status.UNKNOWN
    assert "AccessDenied" in finding(probed, "guest-kvm-users").evidence


# --- off: the extensions are not visible


def test_guest_without_the_extensions() -> None:
    probed = judged(plain(processors=hidden()))
    assert (probed.proof.verdict, probed.proof.cause) == ("off", "no-cpu-flag")
    assert finding(probed, "guest-cpu-flag").status is Status.FAIL
    assert "power it off and on" in finding(probed, "guest-cpu-flag").cure
    assert finding(probed, PROOF).status is Status.SKIP
    assert conclusion(probed) is Status.FAIL


def test_one_processor_without_them_is_enough() -> None:
    assert judged(plain(processors=processors() + hidden())).proof.cause == "no-cpu-flag"


def test_hyperv_that_could_not_start_for_lack_of_them() -> None:
    probed = judged(hyperv(events=[FAILED], vms=[], workers=[]))
    assert probed.proof.cause == "no-cpu-flag"
    assert "event 41" in finding(probed, "guest-cpu-flag").evidence
    own = finding(probed, "guest-own-hypervisor")
    assert (own.status, own.cure) == (Status.WARN, "see guest-cpu-flag")


def test_event_of_an_error_is_no_start() -> None:
    probed = judged(hyperv(events=[{"id": 2, "level": 2}], vms=[], workers=[]))
    assert probed.proof.cause == "no-cpu-flag"


@pytest.mark.parametrize(
    "fields",
    [{"workers": [7]}, {"events": None, "unread": {"events": "LogDenied"}}],
    ids=["worker", "no-log"],
)
def test_extensions_are_not_called_absent_where_something_may_hold_them(fields: dict[str, Any]) -> None:
    """Nothing is installed that could: but a worker process runs, or the log is closed to this user."""
    probed = judged(plain(processors=hidden(), **fields))
    assert finding(probed, "guest-cpu-flag").status is Status.UNKNOWN
    assert probed.proof.verdict == "not-proven"


def test_failure_of_an_earlier_boot_counts_no_more() -> None:
    """Newest first: the log was read from a moment before this boot."""
    assert judged(hyperv(events=[STARTED, FAILED])).proof.verdict == "works"
    older = judged(hyperv(events=[FAILED, STARTED], vms=[], workers=[]))
    assert older.proof.cause == "no-cpu-flag"


@pytest.mark.parametrize("fields", [{"events": []}, {"events": None, "unread": {"events": "LogDenied"}}])
def test_hidden_extensions_are_no_lack_where_hyperv_may_hold_them(fields: dict[str, Any]) -> None:
    """The log may have been cleared, or may be closed to this user."""
    probed = judged(hyperv(vms=[], workers=[], **fields))
    flag = finding(probed, "guest-cpu-flag")
    assert flag.status is Status.UNKNOWN
    assert ("LogDenied" in flag.evidence) is ("unread" in fields)
    assert probed.proof.verdict == "not-proven"
    assert conclusion(probed) is Status.UNKNOWN


def test_processor_that_says_nothing_is_not_called_without_them() -> None:
    probed = judged(plain(processors=processors(extensions=None)))
    assert finding(probed, "guest-cpu-flag").status is Status.UNKNOWN
    assert finding(probed, "guest-paging").status is Status.SKIP
    assert finding(probed, "guest-firmware").status is Status.SKIP
    assert probed.proof.verdict == "not-proven"


# --- not proven: it could, and nothing runs


def test_extensions_alone_prove_nothing() -> None:
    probed = judged(plain())
    assert (probed.proof.verdict, probed.proof.cause) == ("not-proven", "not-proven")
    assert finding(probed, "guest-cpu-flag").status is Status.PASS
    assert "Install-WindowsFeature" in finding(probed, PROOF).cure
    assert finding(probed, "guest-own-hypervisor").status is Status.SKIP
    assert conclusion(probed) is Status.UNKNOWN


def test_client_installs_hyperv_in_its_own_way() -> None:
    os = {"caption": "Windows 11 Pro", "build": "22631", "server": False, "dep": True}
    assert "Enable-WindowsOptionalFeature" in finding(judged(plain(os=os)), PROOF).cure


def test_hyperv_that_runs_and_has_no_vm_wants_one_started() -> None:
    probed = judged(hyperv(vms=[], workers=[]))
    assert probed.proof.verdict == "not-proven"
    assert finding(probed, PROOF).cure.startswith("start a VM inside")


def test_installed_and_not_yet_restarted() -> None:
    own = finding(judged(plain(features=[HYPERV])), "guest-own-hypervisor")
    assert own.status is Status.WARN
    assert own.cure.startswith("restart the guest")


def test_hypervisor_that_is_switched_off_at_boot() -> None:
    own = finding(judged(plain(features=[HYPERV], events=[{"id": 5, "level": 2}])), "guest-own-hypervisor")
    assert "event 5" in own.evidence
    assert "hypervisorlaunchtype" in own.cure


@pytest.mark.parametrize(
    ("field", "check"), [("firmware", "guest-firmware"), ("slat", "guest-paging")], ids=["firmware", "slat"]
)
def test_what_else_hyperv_needs_of_the_cpu(field: str, check: str) -> None:
    said: dict[str, Any] = {field: False}
    probed = judged(plain(processors=processors(**said)))
    assert finding(probed, check).status is Status.WARN
    assert probed.proof.verdict == "not-proven"
    assert (
        finding(judged(plain(processors=processors(**{**said, field: None}))), check).status is Status.UNKNOWN
    )


@pytest.mark.parametrize(
    ("status", "told"), [(0, Status.SKIP), (1, Status.WARN), (2, Status.PASS)], ids=["off", "set", "runs"]
)
def test_vbs_is_told_and_proves_nothing(status: int, told: Status) -> None:
    """The hypervisor underneath gives it to VMs that cannot nest."""
    probed = judged(plain(vbs={"status": status, "running": [2]}, processors=hidden()))
    assert finding(probed, "guest-vbs").status is told
    assert probed.proof.verdict == "off"


# --- lies, and nonsense


def nonsense(answer: bytes) -> Finding:
    probed = windows.judge_answer(answer, channel="powershell-direct")
    [found] = probed.findings
    assert (probed.proof.verdict, probed.proof.cause) == ("unknown", "guest-unreachable")
    assert (found.check, found.status) == (PROOF, Status.UNKNOWN)
    assert found.cure
    return found


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"1",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"schema_version": 2}',
        b" " * (ANSWER_LIMIT + 1),
        written(plain(processors={"extensions": True})),
        written(plain(processors=[{"extensions": True}])),
        written(plain(processors=processors(extensions="True"))),
        written(plain(processors=processors(extensions=1))),
        written(plain(machine={"hypervisor_present": 1, "manufacturer": "", "model": ""})),
        written(plain(vbs={"status": True, "running": []})),
        written(plain(vbs={"status": -1, "running": []})),
        written(plain(features=["a"] * 513)),
        written(plain(events=[41])),
        written(hyperv(workers=[1.5])),
        written(hyperv(vms=[vm("x", 1 << 70)])),
        written(hyperv(vms=["inner"])),
        written(plain(unread=[])),
    ],
    ids=range(22),
)
def test_what_is_no_answer_proves_nothing(answer: bytes) -> None:
    assert len(nonsense(answer).evidence) < 400


def test_answer_that_is_too_long_is_not_read() -> None:
    assert "64 KiB" in nonsense(written(plain()) + b" " * ANSWER_LIMIT).evidence


def test_vms_without_any_hypervisor_are_a_contradiction() -> None:
    lie = hyperv(machine={"hypervisor_present": False, "manufacturer": "x", "model": "y"})
    assert "no hypervisor is present" in nonsense(written(lie)).evidence


def test_control_characters_of_the_guest_reach_no_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\r\n\u202e\u2028"
    probed = judged(
        hyperv(
            vms=[vm(hostile + "inner", 4711)],
            os={"caption": hostile, "build": hostile, "server": True, "dep": True},
            machine={"hypervisor_present": True, "manufacturer": hostile, "model": hostile},
            features=[hostile],
            unread={hostile: hostile},
        )
    )
    told = "".join(f"{f.evidence}{f.cure}" for f in probed.findings)
    assert not set(told) & {"\x1b", "\x07", "\r", "\n", "\u202e", "\u2028"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(plain())), JSON, max_size=4))
def test_no_answer_brings_it_down(fields: dict[str, Any]) -> None:
    probed = judged({**plain(), **fields})
    assert probed.proof.verdict != "works" or fields.keys() & {"vms", "workers", "events"}


# --- the way in


class Examiner:
    name = "fake"

    def __init__(self, answer: bytes | GuestUnreachable) -> None:
        self.answer = answer

    def ping(self, *, timeout: float) -> None:
        """It always answers."""

    def examine(self, *, timeout: float) -> bytes:
        if isinstance(self.answer, GuestUnreachable):
            raise self.answer
        return self.answer


def test_guest_is_asked_by_its_examiner() -> None:
    probed = windows.look_inside(Examiner(written(hyperv())), timeout=1)
    assert (probed.proof.verdict, probed.proof.channel) == ("works", "fake")


def test_guest_that_does_not_let_us_proves_nothing() -> None:
    refusal = GuestUnreachable("refused", evidence="wrong password", cure="the right one")
    probed = windows.look_inside(Examiner(refusal), timeout=1)
    assert (probed.proof.verdict, probed.proof.cause) == ("unknown", "guest-unreachable")
    assert probed.findings[0].evidence == "refused: wrong password"
    assert probed.findings[0].cure == "the right one"
