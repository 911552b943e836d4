"""A report as one HTML file, which loads nothing and can be mailed, archived and printed. Pure."""

from __future__ import annotations

from nestvirt.errors import Error
from nestvirt.model import Ending, Fleet, Report, Row
from nestvirt.printable import printable
from nestvirt.report import error_fields
from nestvirt.report_fleet import WORDS, reason, sentence, verdict, words
from nestvirt.report_html.markup import Markup, el, join
from nestvirt.report_html.page import Column, badge, cell, page, table, tiles
from nestvirt.report_html.target import of_error, of_report

MOST_DRAWN = 500
"""Of how many targets all is shown; those that are ill come before the others."""
OPEN = 10
"""Of how many that are ill it is shown from the start."""
_URGENCY = (Ending.FAIL, Ending.UNKNOWN, Ending.NOT_BEGUN, Ending.PLAN, Ending.PASS)
_COLUMNS = (
    Column("State"),
    Column("Target", "name"),
    Column("Kind", "word"),
    Column("What it comes to", "said"),
    Column("Exit, µs", "number"),
    Column("Took, s", "number"),
)


def to_html(report: Report, made: str) -> str:
    """One target's report."""
    row = Row(report.target, report)
    head = el("p", badge(row.ending), " ", words(row))
    return page(f"{report.target}: {row.ending}", report.target, "", head, of_report(report), made=made)


def error_to_html(error: Error, made: str) -> str:
    """An error in the place of a report."""
    return page(error.message, error.message, error_fields(error)["kind"], of_error(error), made=made)


def fleet_to_html(fleet: Fleet, made: str) -> str:
    """The table of all, and each with its chain."""
    urgent = sorted(enumerate(fleet.rows), key=lambda pair: _URGENCY.index(pair[1].ending))
    drawn = {number for number, row in urgent[:MOST_DRAWN] if row.outcome is not None}
    opened = {n for n, row in urgent[:OPEN] if row.ending in (Ending.FAIL, Ending.UNKNOWN)}
    rows = [_cells(row, n if n in drawn else None) for n, row in urgent]
    counts = [(WORDS[ending], count, ending.value) for ending, count in fleet.endings.items() if count]
    counts += [("changed", n, "") for n in [sum(row.changed for row in fleet.rows)] if n]
    left = sum(row.outcome is not None for row in fleet.rows) - len(drawn)
    said, took = sentence(fleet), f"{fleet.seconds:.1f} s" if fleet.seconds else ""
    dry = "dry run of " if fleet.endings[Ending.PLAN] and not fleet.stopped else ""
    return page(
        f"nestvirt: {dry}{said}",
        join(f"{dry}{said.partition(':')[0]} ", badge(verdict(fleet))),
        "; ".join(filter(None, (took, f"run {fleet.run}" if fleet.run else "", fleet.stopped))),
        tiles(counts),
        el("h2", "All targets"),
        table(_COLUMNS, rows),
        el("h2", "Each of them") if drawn else None,
        *(_target(fleet.rows[n], n, opened=n in opened) for n in sorted(drawn)),
        el("p", f"{left} more are not shown one by one; -o json has all.", of={"class": "soft"})
        if left
        else None,
        made=made,
    )


def _cells(row: Row, drawn: int | None) -> list[tuple[Markup, str | None]]:
    name = row.label
    proof = row.outcome.proof if isinstance(row.outcome, Report) else None
    exit_ns = proof.numbers.get("exit_ns") if proof else None
    return [
        cell(badge(row.ending, WORDS[row.ending]), _URGENCY.index(row.ending)),
        cell(name if drawn is None else el("a", name, of={"href": f"#t{drawn}"})),
        cell(row.target.partition(":")[0].partition("@")[0] if ":" in row.target else ""),
        cell(_brief(row)),
        cell(f"{exit_ns / 1000:.1f}" if exit_ns is not None else "", exit_ns if exit_ns is not None else -1),
        cell(f"{row.seconds:.1f}" if row.seconds else "", row.seconds),
    ]


def _brief(row: Row) -> Markup:
    why = reason(row)
    if why is None:
        return join(words(row))
    return join(el("code", why.name), f" {printable(why.evidence, 160)}")


def _target(row: Row, number: int, *, opened: bool) -> Markup:
    said = el("summary", badge(row.ending, WORDS[row.ending]), el("b", row.label), words(row))
    outcome = row.outcome
    inside = of_report(outcome) if isinstance(outcome, Report) else of_error(outcome) if outcome else None
    return el(
        "details",
        said,
        inside,
        of={"id": f"t{number}", "class": f"target {row.ending}", "open": "" if opened else None},
    )
