"""A report as JUnit XML: what a CI system's parser finds in it."""

from __future__ import annotations

import re
import tracemalloc
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt import junit
from nestvirt.cli.output import finish, reporting_errors
from nestvirt.errors import ConnectionFailed
from nestvirt.model import Finding, Fleet, Layer, Report, Row, Status
from tests.unit.fleets import FLEET, ROWS, fleet, hostile, proven

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
    assert (case.get("classname"), case.get("name")) == ("nestvirt.cluster lab.cluster", f"{KVM} [worker-1]")
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


# --- many


def suites(text: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text))  # noqa: S314 - our own


def test_many_are_a_suite_each() -> None:
    found = suites("".join(junit.fleet_to_junit(FLEET)))
    assert [suite.get("name") for suite in found] == [row.label for row in FLEET.rows]
    counts = {
        suite.get("name"): (suite.get("failures"), suite.get("errors"), suite.get("skipped"))
        for suite in found
    }
    assert counts["libvirt:web-01"] == ("0", "0", "0")
    assert counts["proxmox@lab:100 (worker-3)"] == ("1", "0", "0")
    assert counts["vsphere@east:web-03"] == ("0", "1", "0")
    assert counts["libvirt:web-04"] == ("0", "0", "0")
    assert counts["libvirt:web-05"] == ("0", "0", "1")


def test_no_two_testcases_of_many_are_one_to_a_reader_that_knows_no_suites() -> None:
    alike = [Row(f"libvirt:web.{n}", proven(f"libvirt:web.{n}")) for n in range(3)]
    down = [Row(f"vsphere:db-{n}", ConnectionFailed("no answer")) for n in range(3)]
    root = ElementTree.fromstring("".join(junit.fleet_to_junit(Fleet((*alike, *down)))))  # noqa: S314 - our own
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(names)) == len(names) == int(root.get("tests", ""))
    assert names[0] == ("nestvirt.libvirt:web.0.host", "host-nested")
    assert names[-1] == ("nestvirt.vsphere:db-2.run", "run")


def test_a_target_alone_has_the_names_that_it_has_among_many() -> None:
    (alone,) = suites(junit.to_junit(proven("libvirt:web-01")))
    (among,) = suites("".join(junit.fleet_to_junit(fleet("proven"))))
    assert [case.attrib for case in alone] == [case.attrib for case in among]


def test_what_a_dry_run_would_do_has_passed() -> None:
    (suite,) = suites("".join(junit.fleet_to_junit(fleet("planned"))))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    assert "would write cpu" in ElementTree.tostring(suite, encoding="unicode")


def test_the_counts_of_all_are_the_sums() -> None:
    root = ElementTree.fromstring("".join(junit.fleet_to_junit(FLEET)))  # noqa: S314 - our own
    for name in ("tests", "failures", "errors"):
        assert int(root.get(name, "")) == sum(int(suite.get(name, "")) for suite in root)
    assert root[0].get("time") == "12.250"


def test_the_counts_of_all_are_known_before_any_suite_is_made() -> None:
    for one in (*ROWS.values(), *hostile().rows):
        root = ElementTree.fromstring("".join(junit.fleet_to_junit(Fleet((one,)))))  # noqa: S314 - our own
        assert [root.get(n) for n in ("tests", "failures", "errors")] == [
            root[0].get(n) for n in ("tests", "failures", "errors")
        ]


def test_of_very_many_no_more_than_one_suite_is_held_at_once() -> None:
    many = Fleet((ROWS["proven"],) * 3000)
    tracemalloc.start()
    size = sum(map(len, junit.fleet_to_junit(many)))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < size / 10


def test_whatever_others_say_of_many_it_is_xml() -> None:
    assert len(suites("".join(junit.fleet_to_junit(hostile())))) == 3


# --- what Jenkins' xUnit plugin, the strictest reader, takes: its junit-10.xsd in our words

ALLOWED: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "skipped", "timestamp", "hostname", "id", "package"},
        {"testcase", "system-out"},
    ),
    "testcase": ({"name"}, {"time", "classname"}, {"skipped", "error", "failure", "system-out"}),
    **dict.fromkeys(("skipped", "error", "failure"), (set(), {"type", "message"}, set())),
    "system-out": (set(), set(), set()),
}
SECONDS = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


@pytest.mark.parametrize(
    "text",
    [
        junit.to_junit(Report("cluster lab", tuple(map(finding, Status)), goal=None)),
        junit.error_to_junit(ConnectionFailed("no answer", evidence="refused")),
        "".join(junit.fleet_to_junit(FLEET)),
        "".join(junit.fleet_to_junit(hostile())),
    ],
    ids=["report", "error", "fleet", "hostile"],
)
def test_the_strictest_reader_takes_it(text: str) -> None:
    root = ElementTree.fromstring(text)  # noqa: S314 - our own
    assert root.tag == "testsuites"
    for element in root.iter():
        needed, optional, children = ALLOWED[element.tag]
        assert needed <= set(element.attrib) <= needed | optional
        assert {child.tag for child in element} <= children
        if element.tag == "testsuite":
            assert SECONDS.fullmatch(element.get("time", "0"))
