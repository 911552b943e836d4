"""A report as JUnit XML: what a CI system's parser finds in it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt import junit
from nestvirt.cli.output import finish, reporting_errors
from nestvirt.errors import ConnectionFailed
from nestvirt.model import Finding, Layer, Report, Status

KVM = "cluster-node-kvm"
RESULT = {
    Status.PASS: None,
    Status.WARN: None,
    Status.FAIL: "failure",
    Status.UNKNOWN: "error",
    Status.SKIP: "skipped",
}


def finding(
    status: Status, subject: str = "worker-1", evidence: str = "seen", cure: str = "mend it"
) -> Finding:
    return Finding(KVM, Layer.CLUSTER, status, evidence, cure, subject=subject)


def parsed(text: str) -> ElementTree.Element:
    suite = ElementTree.fromstring(text).find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    return suite


@pytest.mark.parametrize("status", Status)
def test_a_finding_is_a_testcase(status: Status) -> None:
    suite = parsed(junit.to_junit(Report("cluster lab", (finding(status),), goal=None)))
    case = suite[0]
    assert (case.get("classname"), case.get("name")) == ("nestvirt.cluster", f"{KVM} [worker-1]")
    found = [child.tag for child in case if child.tag != "system-out"]
    assert found == ([RESULT[status]] if RESULT[status] else [])
    said = ElementTree.tostring(case, encoding="unicode")
    assert "seen" in said
    assert ("mend it" in said) is (status is not Status.PASS)


def test_the_counts_are_those_of_the_cases() -> None:
    of = [*Status, Status.FAIL]
    suite = parsed(junit.to_junit(Report("cluster lab", tuple(map(finding, of)), goal=None)))
    assert suite.get("name") == "cluster lab"
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["6", "2", "1", "1"]


def test_a_finding_of_the_target_itself_has_no_subject() -> None:
    suite = parsed(junit.to_junit(Report("cluster lab", (finding(Status.PASS, subject=""),), goal=None)))
    assert suite[0].get("name") == KVM


def test_an_error_is_a_suite_that_could_not_run() -> None:
    suite = parsed(
        junit.error_to_junit(ConnectionFailed("no answer", evidence="refused <&>", cure="start it"))
    )
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    error = suite[0][0]
    assert (error.tag, error.get("message"), error.text) == ("error", "no answer", "refused <&>\nstart it")


@given(st.text(max_size=100))
def test_whatever_a_node_says_it_is_xml(said: str) -> None:
    hostile = said + "\x00\x1b]]>&<\ud800\ufffe"
    for status in Status:
        of = finding(status, hostile, hostile, hostile)
        text = junit.to_junit(Report(hostile, (of,), goal=None))
        assert parsed(text).get("tests") == "1"
        text.encode("utf-8")


def test_a_command_prints_it_and_keeps_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(Report("cluster lab", (finding(Status.UNKNOWN),), goal=None), "junit") == 3
    assert parsed(capsys.readouterr().out).get("errors") == "1"


def test_a_commands_error_is_printed_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    @reporting_errors
    def command(output: str) -> None:
        raise ConnectionFailed("no answer")

    with pytest.raises(ConnectionFailed):
        command(output="junit")
    assert parsed(capsys.readouterr().out).get("errors") == "1"
    with pytest.raises(ConnectionFailed):
        command(output="text")
    assert capsys.readouterr().out == ""
