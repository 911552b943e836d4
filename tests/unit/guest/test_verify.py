"""What a guest says of itself is judged strictly: a lie proves nothing, and brings nothing down."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.errors import GuestUnreachable
from nestvirt.guest import verify
from nestvirt.guest.channel import NOT_FOUND, Completed
from nestvirt.guest.verify import CHECKS, Probed, judge_answer, probe_guest
from nestvirt.model import PROOF, Layer, Report, Status

Answer = dict[str, Any]
Lie = Callable[[Answer], object]
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\x00\u202e\u2066\u2028\U000e0041\udcff"


def finding(check: str, status: str = "pass", **fields: object) -> Answer:
    return {"check": check, "status": status, "evidence": "seen", "cause": None, "cure": "", **fields}


def good() -> Answer:
    """The answer of a guest in which guest code ran."""
    return {
        "schema_version": 1,
        "probe": "1",
        "verdict": "works",
        "cause": None,
        "summary": "Virtual machines run here: guest code ran",
        "machine": {"arch": "x86_64", "kernel": "6.1.0", "vendor": "amd", "hypervisor": "kvm", "model": ""},
        "numbers": {"exit_ns": 32000, "loops_per_s": 400000000, "kvm_users": 0, "elapsed_ms": 12.5},
        "findings": [finding(check) for check in CHECKS],
    }


def with_findings(*findings: object, **fields: object) -> Answer:
    return {**good(), "findings": list(findings), **fields}


def changed(*changes: Answer, **fields: object) -> Answer:
    """The good answer, with those findings in the place of its own."""
    new = {f["check"]: f for f in changes}
    return with_findings(*(new.get(f["check"], f) for f in good()["findings"]), **fields)


def failing(check: str, cause: str) -> Answer:
    return changed(finding(check, "fail", cause=cause), finding(PROOF, "skip"), verdict="off", cause=cause)


def proof_status(probed: Probed) -> Status:
    """What a report concludes from the guest alone."""
    return Report("x", probed.findings, proof=probed.proof).conclusion


class Guest:
    """A channel into a guest that has some programs, each with one answer."""

    name = "fake"

    def __init__(self, **programs: Completed | GuestUnreachable) -> None:
        self.programs = programs
        self.started: list[list[str]] = []
        self.stdin = b""

    def ping(self, *, timeout: float) -> None:
        """It always answers."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        self.started.append(list(argv))
        self.stdin = stdin
        done = self.programs.get(argv[0].rpartition("/")[2].replace("-", "_"), Completed(NOT_FOUND, b"", b""))
        if isinstance(done, GuestUnreachable):
            raise done
        return done


def said(answer: object, code: int = 0) -> Completed:
    return Completed(code, json.dumps(answer).encode(), b"")


# --- the truth


def test_a_proof_is_a_proof() -> None:
    probed = judge_answer(good(), channel="ssh")
    assert proof_status(probed) is Status.PASS
    assert (probed.proof.verdict, probed.proof.cause, probed.proof.channel) == ("works", None, "ssh")
    assert probed.proof.numbers == good()["numbers"]
    assert {f.layer for f in probed.findings} == {Layer.GUEST}
    assert len(probed.findings) == len(good()["findings"])


@pytest.mark.parametrize(
    ("answer", "conclusion", "verdict"),
    [
        pytest.param(failing("guest-cpu-flag", "no-cpu-flag"), Status.FAIL, "off", id="off"),
        pytest.param(
            changed(finding("guest-kvm-speed", "fail"), verdict="works-emulated", cause="emulated"),
            Status.FAIL,
            "works-emulated",
            id="emulated",
        ),
        pytest.param(
            changed(finding(PROOF, "unknown"), verdict="unknown", cause="not-run"),
            Status.UNKNOWN,
            "unknown",
            id="unknown",
        ),
        pytest.param(
            changed(finding(PROOF, "skip"), verdict="unknown", cause="unsupported-arch"),
            Status.UNKNOWN,
            "unknown",
            id="unknown, and not asked",
        ),
        pytest.param(
            changed(finding("guest-kvm-exit-latency", "warn")), Status.PASS, "works", id="slow exits"
        ),
        pytest.param(
            changed(finding("guest-kvm-speed", "unknown"), verdict="unknown", cause="hung"),
            Status.UNKNOWN,
            "unknown",
            id="hung after the proof",
        ),
    ],
)
def test_other_honest_answers(answer: Answer, conclusion: Status, verdict: str) -> None:
    probed = judge_answer(answer, channel="ssh")
    assert (proof_status(probed), probed.proof.verdict) == (conclusion, verdict)
    assert any(f.check == PROOF for f in probed.findings)


def test_what_broke_off_after_the_proof_says_so() -> None:
    late = finding("guest-kvm-speed", "unknown", cure="look at dmesg")
    answer = changed(late, verdict="unknown", cause="hung", summary="no answer in 8 s")
    (proof,) = (f for f in judge_answer(answer, channel="ssh").findings if f.check == PROOF)
    assert (proof.status, proof.cure) == (Status.UNKNOWN, "look at dmesg")
    assert "no answer in 8 s" in proof.evidence


# --- lies


def without(field: str) -> Lie:
    return lambda a: {name: value for name, value in a.items() if name != field}


def saying(check: str, status: str) -> Lie:
    return lambda a: changed(finding(check, status))


PASSED, FAILED = finding(PROOF), finding("guest-module", "fail")
READ = with_findings(
    finding("guest-cpu-flag"), finding(PROOF, "unknown"), verdict="unknown", cause="not-proven"
)
LIES: dict[str, Lie] = {
    "no object": lambda a: [a],
    "null": lambda a: None,
    "a bare word": lambda a: "works",
    "empty": lambda a: {},
    "works without the proof": lambda a: with_findings(*[f for f in a["findings"] if f["check"] != PROOF]),
    "works with a skipped proof": saying(PROOF, "skip"),
    "works with an unknown proof": saying(PROOF, "unknown"),
    "works with nothing": lambda a: with_findings(),
    "works with a failure": saying("guest-module", "fail"),
    "works with the proof alone": lambda a: with_findings(PASSED),
    "works with one check missing": lambda a: with_findings(*a["findings"][:-1]),
    **{
        f"works with {status} of {subject}": saying(f"guest-kvm-{subject}", status)
        for subject in ("api", "create", "vcpu", "speed")
        for status in ("skip", "unknown", "warn")
    },
    "works with an open end": saying("guest-kvm-exit-latency", "unknown"),
    "emulated, and not run": lambda a: changed(
        finding(PROOF, "skip"), finding("guest-kvm-speed", "fail"), verdict="works-emulated", cause="emulated"
    ),
    "emulated at full speed": lambda a: changed(FAILED, verdict="works-emulated", cause="emulated"),
    "off for no reason": lambda a: changed(finding(PROOF, "skip"), verdict="off", cause="hung"),
    "no flag, and another failure": lambda a: failing("guest-module", "no-cpu-flag"),
    "no flag, said by nothing": lambda a: changed(
        finding(PROOF, "unknown"), verdict="unknown", cause="no-cpu-flag"
    ),
    "no flag, and guest code ran": lambda a: changed(
        finding("guest-cpu-flag", "fail"), verdict="off", cause="no-cpu-flag"
    ),
    "unknown with a failure": lambda a: changed(
        FAILED, finding(PROOF, "unknown"), verdict="unknown", cause="not-run"
    ),
    "unknown, but proven": lambda a: a | {"verdict": "unknown", "cause": "hung"},
    "unknown with one check missing": lambda a: with_findings(
        *[f for f in changed(finding(PROOF, "unknown"))["findings"] if f["check"] != "guest-vhost"],
        verdict="unknown",
        cause="not-run",
    ),
    "a shell's reading from Python": lambda a: READ,
    "works with a cause": lambda a: a | {"cause": "no-cpu-flag"},
    "off, but proven": lambda a: a | {"verdict": "off", "cause": "hung"},
    "the proof, and the contrary": lambda a: with_findings(PASSED, finding(PROOF, "unknown")),
    "a failure after hundreds of findings": lambda a: with_findings(
        PASSED, *[finding(f"guest-{n}") for n in range(500)], FAILED
    ),
    "another schema": lambda a: a | {"schema_version": 2},
    "a schema of text": lambda a: a | {"schema_version": "1"},
    "unknown verdict": lambda a: a | {"verdict": "perfect"},
    "verdict with an escape": lambda a: a | {"verdict": "works\x1b[2J"},
    "verdict in a list": lambda a: a | {"verdict": ["works"]},
    "cause of prose": lambda a: a | {"cause": "All is well"},
    "findings are an object": lambda a: a | {"findings": {}},
    "a finding is a word": lambda a: with_findings(PASSED, "works"),
    "a check of the host": lambda a: with_findings(PASSED, finding("host-nested")),
    "a check of the VM": lambda a: with_findings(PASSED, finding("vm-cpu")),
    "a check with an escape": lambda a: with_findings(PASSED, finding("guest-kvm-api\x1b[8m")),
    "an unheard-of check": lambda a: with_findings(PASSED, finding("guest-soul")),
    "a check with a line end": lambda a: with_findings(finding(f"{PROOF}\n")),
    "a check in a list": lambda a: with_findings(PASSED, finding("") | {"check": [PROOF]}),
    "unknown status": lambda a: with_findings(finding(PROOF, "PASS!")),
    "status in a list": lambda a: with_findings(PASSED, finding("guest-module") | {"status": ["pass"]}),
    "evidence is a number": lambda a: with_findings(finding(PROOF, evidence=42)),
    "cure is a list": lambda a: with_findings(finding(PROOF, cure=["rm"])),
    "numbers are a list": lambda a: a | {"numbers": []},
    "a negative number": lambda a: a | {"numbers": {"exit_ns": -1}},
    "a boolean number": lambda a: a | {"numbers": {"exit_ns": True}},
    "a number of text": lambda a: a | {"numbers": {"exit_ns": "1"}},
    "NaN": lambda a: a | {"numbers": {"exit_ns": math.nan}},
    "infinity": lambda a: a | {"numbers": {"exit_ns": math.inf}},
    "no float is so big": lambda a: a | {"numbers": {"exit_ns": 10**400}},
    "a number's name is prose": lambda a: a | {"numbers": {"exit ns\x1b": 1}},
    "hundreds of numbers": lambda a: a | {"numbers": {f"n{n}": n for n in range(500)}},
    **{
        f"no {field}": without(field)
        for field in ("schema_version", "verdict", "cause", "findings", "numbers")
    },
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lie_proves_nothing(lie: Lie) -> None:
    for probed in (
        judge_answer(lie(good()), channel="ssh"),
        probe_guest(Guest(python3=said(lie(good()))), timeout=5),
    ):
        assert proof_status(probed) is Status.UNKNOWN
        (only,) = probed.findings
        assert (only.check, only.status) == (PROOF, Status.UNKNOWN)
        assert only.evidence
        assert only.cure
        assert probed.proof.verdict == "unknown"


@pytest.mark.parametrize(
    "text", [HOSTILE, HOSTILE * 100_000, "x" * 1_000_000], ids=["escapes", "many", "1 MB"]
)
@pytest.mark.parametrize("place", ["evidence", "cure", "summary"])
def test_foreign_text_becomes_one_bounded_printable_line(text: str, place: str) -> None:
    if place == "summary":
        answer = changed(finding(PROOF, "skip"), summary=text, verdict="unknown", cause="not-run")
    else:
        answer = changed(finding(PROOF, **{place: text}))
    assert len(judge_answer(answer, channel="ssh").findings) == len(CHECKS)
    for found in judge_answer(answer, channel="ssh").findings:
        for line in (found.evidence, found.cure):
            assert line.isprintable()
            assert len(line) <= 1000


NO_ANSWERS = {
    "nothing": Completed(0, b"", b""),
    "no JSON": Completed(0, b"works", b""),
    "invalid UTF-8": Completed(0, json.dumps(good()).encode() + b"\xff", b""),
    "UTF-16": Completed(0, json.dumps(good()).encode("utf-16"), b""),
    "half an answer": Completed(0, json.dumps(good()).encode()[:-20], b""),
    "an answer and more": Completed(0, json.dumps(good()).encode() * 2, b""),
    "truncated by the channel": Completed(0, json.dumps(good()).encode(), b"", truncated=True),
    "too big": Completed(0, json.dumps(good()).encode() + b" " * verify.ANSWER_LIMIT, b""),
    "very deep": Completed(0, b"[" * 100_000 + b"]" * 100_000, b""),
    "a huge integer": Completed(0, b'{"numbers": ' + b"9" * 5000 + b"}", b""),
    "a traceback": Completed(1, b"", b"Traceback (most recent call last):\n\x1b[31mSyntaxError"),
    "killed": Completed(128, b"", b""),
}


@pytest.mark.parametrize("done", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_no_answer_proves_nothing(done: Completed) -> None:
    probed = probe_guest(Guest(python3=done, sh=said(good())), timeout=5)
    assert proof_status(probed) is Status.UNKNOWN
    assert probed.findings[0].evidence.isprintable()
    assert probed.findings[0].cure


def test_no_depth_of_nesting_is_an_exception() -> None:
    for depth in range(0, 1100, 3):
        answer = json.dumps(changed(finding(PROOF, "skip"), summary=0, verdict="unknown", cause="not-run"))
        deep = answer.replace('"summary": 0', f'"summary": {"[" * depth}{"]" * depth}')
        assert deep != answer
        assert proof_status(probe_guest(Guest(python3=Completed(3, deep.encode(), b"")), timeout=5)) is (
            Status.UNKNOWN
        )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(("works", "pass", PROOF)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_no_json_is_an_exception(value: object) -> None:
    assert proof_status(judge_answer(value, channel="ssh")) is Status.UNKNOWN


@given(st.sampled_from(sorted(good())), JSON)
def test_one_field_of_anything_never_makes_a_failure_or_an_exception(field: str, value: object) -> None:
    probed = judge_answer({**good(), field: value}, channel="ssh")
    assert proof_status(probed) in (Status.PASS, Status.UNKNOWN)
    if proof_status(probed) is Status.PASS:
        assert field in ("probe", "machine", "summary", "numbers") or value == good()[field]


@given(st.sampled_from(("check", "status", "evidence", "cure", "cause")), JSON)
def test_a_proof_of_anything_is_none(field: str, value: object) -> None:
    others = (f for f in good()["findings"] if f["check"] != PROOF)
    probed = judge_answer(with_findings(*others, {**finding(PROOF), field: value}), channel="ssh")
    if proof_status(probed) is Status.PASS:
        assert field in ("evidence", "cure", "cause") or value == finding(PROOF)[field]
        assert all(f.evidence.isprintable() and f.cure.isprintable() for f in probed.findings)


# --- the way in

OFF = with_findings(
    finding("guest-cpu-flag", "fail"), finding(PROOF, "skip"), verdict="off", cause="no-cpu-flag"
)


@pytest.mark.parametrize(
    ("programs", "last", "script", "verdict"),
    [
        pytest.param({"python3": said(good())}, "python3", "probe.py", "works", id="python3"),
        pytest.param(
            {"platform_python": said(good()), "sh": said(READ)},
            "/usr/libexec/platform-python",
            "probe.py",
            "works",
            id="RHEL 8's own Python",
        ),
        pytest.param({"sh": said(READ, 3)}, "sh", "reading.sh", "not-proven", id="a shell only"),
        pytest.param({}, "sh", "reading.sh", "unknown", id="nothing at all"),
    ],
)
def test_which_program_reads_the_probe(
    programs: dict[str, Completed | GuestUnreachable], last: str, script: str, verdict: str
) -> None:
    guest = Guest(**programs)
    probed = probe_guest(guest, timeout=5)
    assert guest.started[-1][0] == last
    assert guest.stdin == (verify._HERE / script).read_bytes()
    assert (probed.proof.verdict, probed.proof.channel) == (verdict, "fake")


def test_a_shells_reading_can_fail_and_never_prove() -> None:
    assert proof_status(probe_guest(Guest(sh=said(READ, 3)), timeout=5)) is Status.UNKNOWN
    assert proof_status(probe_guest(Guest(sh=said(OFF, 1)), timeout=5)) is Status.FAIL
    emulated = changed(finding("guest-kvm-speed", "fail"), verdict="works-emulated", cause="emulated")
    for lie in (good(), with_findings(PASSED), emulated, changed(FAILED, verdict="off", cause="hung")):
        probed = probe_guest(Guest(sh=said(lie)), timeout=5)
        assert (proof_status(probed), probed.proof.verdict) == (Status.UNKNOWN, "unknown")


def test_modules_are_loaded_only_where_that_is_asked() -> None:
    for wanted in (False, True):
        guest = Guest(python3=said(good()))
        probe_guest(guest, timeout=5, load_modules=wanted)
        assert ("--load-modules" in guest.started[0]) is wanted


def test_an_unreachable_guest_is_unknown_in_its_own_words() -> None:
    error = GuestUnreachable("the agent blocks guest-exec", evidence="it is disabled", cure="allow it")
    probed = probe_guest(Guest(python3=error), timeout=5)
    assert proof_status(probed) is Status.UNKNOWN
    assert probed.findings[0].evidence == "the agent blocks guest-exec: it is disabled"
    assert probed.findings[0].cure == "allow it"


def test_a_guest_that_nobody_asked_is_unknown() -> None:
    probed = verify.not_reached("it is stopped", "start it")
    assert (proof_status(probed), probed.proof.channel) == (Status.UNKNOWN, "none")
