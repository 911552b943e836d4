"""Targets are read back as they are written; reports conclude from what was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt.errors import TargetError
from nestvirt.model import PROOF, Finding, Goal, Layer, Report, Status, Target

ON, OFF = Goal(), Goal(nested=False)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("libvirt:web-01", Target("libvirt", "web-01")),
        ("libvirt@lab:web-01", Target("libvirt", "web-01", "lab")),
        ("libvirt@lab.eu-1_a:web", Target("libvirt", "web", "lab.eu-1_a")),
        ("libvirt:a:b@c", Target("libvirt", "a:b@c")),
        ("libvirt: a\nb ", Target("libvirt", " a\nb ")),
    ],
)
def test_a_target_is_read_and_written(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert str(target) == text


@pytest.mark.parametrize(
    "text", ["", "web-01", "libvirt:", ":web-01", "libvirt@:web", "Libvirt:web", "@lab:web"]
)
def test_what_is_no_target_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(TargetError) as caught:
        Target.parse(text)
    assert repr(text) in caught.value.message
    assert "libvirt:web-01" in caught.value.cure


@given(
    st.from_regex(r"[a-z]+", fullmatch=True),
    st.text(min_size=1),
    st.none() | st.from_regex(r"[\w.-]+", fullmatch=True),
)
def test_every_target_comes_back(backend: str, name: str, profile: str | None) -> None:
    target = Target(backend, name, profile)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize("profile", ["my lab", "a:b", "a@b", ""])
def test_a_profile_that_could_not_be_read_back_is_refused(profile: str) -> None:
    with pytest.raises(TargetError):
        Target("libvirt", "web-01", profile)


@pytest.mark.parametrize("status", list(Status))
def test_what_is_ill(status: Status) -> None:
    ill = Finding("vm-cpu", Layer.VM, status, "seen").ill
    assert ill is (status in (Status.FAIL, Status.WARN, Status.UNKNOWN))


def finding(words: str) -> Finding:
    check, status = words.split()
    return Finding(check, Layer(check.partition("-")[0]), Status(status), "seen")


@pytest.mark.parametrize(
    ("goal", "findings", "conclusion", "first_broken"),
    [
        pytest.param(ON, [f"{PROOF} pass"], Status.PASS, None, id="proven"),
        pytest.param(ON, [f"{PROOF} unknown"], Status.UNKNOWN, None, id="unproven"),
        pytest.param(
            ON, ["vm-agent warn", f"{PROOF} pass"], Status.PASS, None, id="a warning breaks nothing"
        ),
        pytest.param(
            ON,
            ["host-nested unknown", f"{PROOF} pass"],
            Status.PASS,
            None,
            id="what ran outweighs what is unread",
        ),
        pytest.param(
            ON,
            ["vm-cpu-pending fail", f"{PROOF} pass"],
            Status.FAIL,
            "vm-cpu-pending",
            id="a failure outweighs all",
        ),
        pytest.param(
            ON,
            ["guest-device fail", "vm-cpu fail", "vm-type fail", "host-nested fail", "cluster-x fail"],
            Status.FAIL,
            "host-nested",
            id="the outermost link is the first",
        ),
        pytest.param(
            ON,
            ["guest-device fail", "vm-type fail", "vm-cpu fail"],
            Status.FAIL,
            "vm-type",
            id="then the order found",
        ),
        pytest.param(
            OFF,
            ["host-nested unknown", f"{PROOF} pass"],
            Status.UNKNOWN,
            None,
            id="a proof is not what off wants",
        ),
        pytest.param(OFF, ["vm-cpu pass", "guest-withdrawn skip"], Status.PASS, None, id="withdrawn"),
        pytest.param(None, ["vm-restored pass"], Status.PASS, None, id="undone"),
        pytest.param(None, ["vm-restored fail"], Status.FAIL, "vm-restored", id="not undone"),
        pytest.param(
            None, ["vm-restored unknown", f"{PROOF} pass"], Status.UNKNOWN, None, id="undone, perhaps"
        ),
    ],
)
def test_a_reports_conclusion(
    goal: Goal | None, findings: list[str], conclusion: Status, first_broken: str | None
) -> None:
    report = Report("libvirt:web-01", tuple(map(finding, findings)), goal=goal)
    broken = report.first_broken
    assert (report.conclusion, broken.check if broken else None) == (conclusion, first_broken)
