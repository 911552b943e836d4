"""A report as JUnit XML, which CI systems show as tests. Pure: nothing is read, nothing is printed.

There is no standard; what is written here is what the readers of Jenkins, GitLab and GitHub's actions have in
common: a testsuite with its counts, and a testcase a finding. GitLab and others know a testcase by its class
name and name alone, across all suites; so the target is in the class name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from nestvirt.errors import Error
from nestvirt.model import Finding, Fleet, Report, Row, Status
from nestvirt.printable import printable
from nestvirt.report_fleet import words

_VERDICTS = {Status.FAIL: "failure", Status.UNKNOWN: "error", Status.SKIP: "skipped"}
"""The element that says how a testcase ended; one without any has passed."""
_DECLARED = '<?xml version="1.0" encoding="UTF-8"?>\n'
"""Declared as a string is: whoever writes it down chooses the encoding, and that is UTF-8 here."""


def to_junit(report: Report) -> str:
    """The report as one testsuite: FAIL is a failure, UNKNOWN an error, a warning a pass with a note."""
    return _document([_suite(report.target, _tried(report, report.target))])


def fleet_to_junit(fleet: Fleet) -> Iterator[str]:
    """One testsuite a target, in parts; an error is a testcase of it that could not be carried out."""
    ended = Counter(verdict for row in fleet.rows for verdict in _ended(row))
    counts = {"tests": ended.total(), "failures": ended["failure"], "errors": ended["error"]}
    yield _DECLARED + "<testsuites" + "".join(f' {name}="{count}"' for name, count in counts.items()) + ">\n"
    for row in fleet.rows:
        suite = _suite(row.label, _cases(row), row.seconds)
        ElementTree.indent(suite, level=1)
        yield f"  {ElementTree.tostring(suite, encoding='unicode')}\n"
    yield "</testsuites>"


def _ended(row: Row) -> Iterator[str]:
    """How each testcase of it ended, before any of them is made."""
    outcome = row.outcome
    if isinstance(outcome, Report) and outcome.findings and not outcome.planned:
        yield from (_VERDICTS.get(finding.status, "") for finding in outcome.findings)
    elif isinstance(outcome, Error):
        yield "error"
    else:
        yield "skipped" if outcome is None and row.earlier is None else ""


def _cases(row: Row) -> list[ElementTree.Element]:
    outcome = row.outcome
    if isinstance(outcome, Report) and outcome.findings and not outcome.planned:
        return _tried(outcome, row.target)
    case = ElementTree.Element(
        "testcase", classname=_class(row.target, "run"), name="run", time=f"{row.seconds:.3f}"
    )
    if isinstance(outcome, Error):
        _say(case, "error", outcome.message, (outcome.evidence, outcome.cure))
    elif outcome is None and row.earlier is None:
        _say(case, "skipped", words(row), ())
    else:
        ElementTree.SubElement(case, "system-out").text = printable(words(row))
    return [case]


def error_to_junit(error: Error) -> str:
    """An error in the place of a report: a testsuite with one testcase, which could not be carried out."""
    case = ElementTree.Element("testcase", classname="nestvirt", name="run")
    _say(case, "error", error.message, (error.evidence, error.cure))
    return _document([_suite("nestvirt", [case])])


def _tried(report: Report, target: str) -> list[ElementTree.Element]:
    return [_case(finding, _class(target, finding.layer)) for finding in report.findings]


def _class(target: str, of: str) -> str:
    """Jenkins takes the last dot for the border between a package, here of the target, and a class."""
    return f"nestvirt.{printable(target)}.{of}"


def _case(finding: Finding, of_class: str) -> ElementTree.Element:
    of = f" [{printable(finding.subject)}]" if finding.subject else ""
    case = ElementTree.Element("testcase", classname=of_class, name=f"{finding.check}{of}", time="0")
    verdict = _VERDICTS.get(finding.status)
    if verdict:
        _say(case, verdict, finding.evidence, (finding.cure,))
    else:
        cure = f"do this: {printable(finding.cure)}" if finding.ill and finding.cure else ""
        lines = [f"{finding.status}: {printable(finding.evidence)}", cure]
        ElementTree.SubElement(case, "system-out").text = "\n".join(filter(None, lines))
    return case


def _say(case: ElementTree.Element, verdict: str, message: str, further: Iterable[str]) -> None:
    element = ElementTree.SubElement(case, verdict, message=printable(message))
    element.text = "\n".join(printable(line) for line in further if line)


def _suite(name: str, cases: list[ElementTree.Element], seconds: float = 0.0) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", _counts(cases) | {"name": printable(name)})
    if seconds:
        suite.set("time", f"{seconds:.3f}")
    suite.extend(cases)
    return suite


def _counts(cases: list[ElementTree.Element]) -> dict[str, str]:
    count = {verdict: sum(case.find(verdict) is not None for case in cases) for verdict in _VERDICTS.values()}
    return {
        "tests": str(len(cases)),
        "failures": str(count["failure"]),
        "errors": str(count["error"]),
        "skipped": str(count["skipped"]),
    }


def _document(of: list[ElementTree.Element]) -> str:
    counts = _counts([case for suite in of for case in suite])
    del counts["skipped"]  # which Jenkins' xUnit plugin allows a testsuite, and not all of them
    suites = ElementTree.Element("testsuites", counts)
    suites.extend(of)
    ElementTree.indent(suites)
    return _DECLARED + ElementTree.tostring(suites, encoding="unicode")
