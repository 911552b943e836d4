"""What there is to see of one target: its chain, what breaks it, its changes, and all that was found."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from html import escape

from nestvirt.errors import Error
from nestvirt.model import Change, Finding, Proof, Report
from nestvirt.printable import printable
from nestvirt.report import MORE, explained, grouped
from nestvirt.report_html.chain import chain
from nestvirt.report_html.markup import SIZE_LIMIT, Markup, el, join
from nestvirt.report_html.page import badge

SUBJECTS, LINES, BLOCKERS = 20, 200, 10
"""Of how many all is shown; JSON has the rest."""


def of_report(report: Report) -> Markup:
    """All of one report."""
    return join(
        chain(report),
        *_in_the_way(report),
        _proof(report.proof) if report.proof else None,
        *_changes(report),
        *(el("p", el("b", "remains: "), line) for line in report.remains),
        _findings(report.findings) if report.findings else None,
    )


def of_error(error: Error) -> Markup:
    """What happened, what was seen, what to do now."""
    return el(
        "div",
        el("p", el("b", error.message)),
        el("p", el("code", printable(error.evidence))) if error.evidence else None,
        el("p", error.cure, of={"class": "cure"}) if error.cure else None,
        of={"class": f"first {'unknown' if error.exit_code == 3 else 'fail'}"},
    )


def _in_the_way(report: Report) -> list[Markup]:
    check = explained(report)
    more = el("p", f"{MORE}: ", el("code", f"nestvirt explain {check}"), of={"class": "soft"})
    if report.blockers:
        few = list(dict.fromkeys(report.blockers))[:BLOCKERS]
        return [*(_first(found, "Nothing was done, because of") for found in few), more]
    broken = report.first_broken
    return [_first(broken, "First broken link"), *([more] if check else [])] if broken is not None else []


def _first(found: Finding, words: str) -> Markup:
    of = f" ({printable(found.subject)})" if found.subject else ""
    return el(
        "div",
        el("p", el("b", f"{words}: "), el("code", found.check), of),
        el("p", printable(found.evidence)),
        el("p", found.cure, of={"class": "cure"}) if found.cure else None,
        of={"class": "first fail"},
    )


def _proof(proof: Proof) -> Markup:
    """What the probe says, with its figures."""
    numbers = proof.numbers
    said = [f"Probe, by {proof.channel}: {proof.verdict}", f"cause {proof.cause}" if proof.cause else ""]
    if "exit_ns" in numbers:
        said.append(f"{numbers['exit_ns'] / 1000:.1f} µs an exit")
    if "loops_per_s" in numbers:
        said.append(f"{numbers['loops_per_s'] / 1e6:.1f} M loops/s in its guest")
    if {"loops_per_s", "native_loops_per_s"} <= set(numbers):
        said.append(f"{numbers['native_loops_per_s'] / 1e6:.1f} M outside")
    return el("p", ", ".join(filter(None, said)), of={"class": "soft"})


def _changes(report: Report) -> list[Markup]:
    if not report.changes:
        return []
    heading = "Would be changed" if report.planned else "Changed"
    parts = [el("h3", heading), *map(_change, report.changes)]
    lasts = any(change.lasts for change in report.changes)
    if report.run and report.goal is not None and not report.planned and not lasts:
        parts.append(
            el("p", "to put it back: ", el("code", f"nestvirt undo {report.run}"), of={"class": "soft"})
        )
    return parts


def _change(change: Change) -> Markup:
    before, after = (
        ["(not set)"] if value is None else [_line(line) for line in value.splitlines()]
        for value in (change.before, change.after)
    )
    lines = [f"-{before[0]}", f"+{after[0]}"] if len(before) == len(after) == 1 else _diff(before, after)
    shown = [_span(line) for line in lines[:LINES]]
    more = [f"… and {len(lines) - LINES} lines more"] if len(lines) > LINES else []
    return join(el("p", el("code", change.setting)), el("pre", Markup("\n".join(shown + more))))


def _diff(before: Sequence[str], after: Sequence[str]) -> list[str]:
    return list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:]


def _span(line: str) -> str:
    kind = {"-": "del", "+": "add"}.get(line[:1])
    return f'<span class="{kind}">{escape(line)}</span>' if kind else escape(line)


def _line(line: str) -> str:
    """A line of foreign text, with its indentation."""
    return "".join(c if c.isprintable() else " " for c in line[:SIZE_LIMIT])


def _findings(findings: Sequence[Finding]) -> Markup:
    groups = grouped(findings)
    ill = sum(group[0].ill for group in groups)
    rows = [
        el(
            "tr",
            el("td", badge(group[0].status)),
            el("td", el("code", group[0].check)),
            el("td", *_said(group)),
        )
        for group in groups
    ]
    head = el("tr", *(el("th", name, of={"scope": "col"}) for name in ("State", "Check", "Evidence")))
    words = f"All {len(groups)} findings" + (f", {ill} of them ill" if ill else "")
    return el(
        "details",
        el("summary", words),
        el("div", el("table", el("thead", head), el("tbody", *rows)), of={"class": "wide"}),
        of={"class": "findings"},
    )


def _said(group: Sequence[Finding]) -> list[Markup | None]:
    first, names = group[0], list(dict.fromkeys(f.subject for f in group if f.subject))
    more = f" and {len(names) - SUBJECTS} more" if len(names) > SUBJECTS else ""
    whom = (
        el("b", f"{', '.join(printable(name, 100) for name in names[:SUBJECTS])}{more}: ") if names else None
    )
    cure = el("p", first.cure, of={"class": "cure"}) if first.cure and first.ill else None
    return [whom, join(printable(first.evidence)), cure]
