"""A report as the output of a monitoring plugin: Nagios, Icinga, Naemon, Checkmk. Pure.

After the Monitoring Plugins' guidelines: one line with the state and what it comes to, a bar, figures; then
as many lines as are useful; and the state is the exit code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import IntEnum

from nestvirt.errors import Error
from nestvirt.model import Ending, Fleet, Report, Row, Status
from nestvirt.printable import printable
from nestvirt.report import error_fields, headline
from nestvirt.report_fleet import sentence, words

SLOW_EXIT_US = 1000
"""From here on the probe warns of the exit latency, too."""
NAMED, LINES = 3, 200
"""Of how many the first line has the names; how many lines, and figures of targets, follow it."""


class State(IntEnum):
    """The states of a plugin, which are its exit codes, too."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_WORSE = (State.OK, State.WARNING, State.UNKNOWN, State.CRITICAL)
"""From the best to the worst, of several: one that fails must not hide behind one that was not asked."""
_CONCLUDED = {Status.FAIL: State.CRITICAL, Status.UNKNOWN: State.UNKNOWN}
_EARLIER = {Ending.PASS: State.OK, Ending.PLAN: State.WARNING, Ending.FAIL: State.CRITICAL}


def state(outcome: Report | Error | None) -> State:
    """Of one target: a warning where the report has one, or in a dry run that has something to do."""
    if isinstance(outcome, Report):
        if outcome.planned:
            return State.WARNING
        warned = any(finding.status is Status.WARN for finding in outcome.findings)
        return _CONCLUDED.get(outcome.conclusion, State.WARNING if warned else State.OK)
    if isinstance(outcome, Error):
        return State.CRITICAL if outcome.exit_code == 1 else State.UNKNOWN
    return State.UNKNOWN


def fleet_state(fleet: Fleet) -> State:
    """The worst of all; of none at all it is unknown."""
    return max(map(_row_state, fleet.rows), key=_WORSE.index, default=State.UNKNOWN)


def _row_state(row: Row) -> State:
    if row.outcome is None and row.earlier is not None:
        return _EARLIER.get(row.earlier, State.UNKNOWN)
    return state(row.outcome)


def to_nagios(report: Report) -> str:
    """One target's report; what is ill follows, one line each."""
    said = headline(report)
    if report.planned:
        said = "; ".join(report.remains) or said
    said = "; ".join(filter(None, (said, _warned(report))))
    found = [*report.blockers, *(f for f in report.findings if f.ill and f not in report.blockers)]
    more = [
        f"{f.status.upper()} {f.check}: {f.evidence}" + (f" - do this: {f.cure}" if f.cure else "")
        for f in found
    ]
    return _said(state(report), f"{report.target}: {said}", _figures(report), more)


def _warned(outcome: Report | Error | None) -> str:
    """Which checks make a warning of what has passed."""
    if not isinstance(outcome, Report) or outcome.planned or state(outcome) is not State.WARNING:
        return ""
    return f"{_few([f.check for f in outcome.findings if f.status is Status.WARN])} warned"


def error_to_nagios(error: Error) -> str:
    """An error in the place of a report."""
    more = [error.evidence, f"do this: {error.cure}" if error.cure else ""]
    return _said(state(error), f"{error_fields(error)['kind']}: {error.message}", [], more)


def fleet_to_nagios(fleet: Fleet) -> str:
    """All of them: how many are how, and a line for each that is not well."""
    ill = sorted(
        (row for row in fleet.rows if _row_state(row) is not State.OK),
        key=lambda row: -_WORSE.index(_row_state(row)),
    )
    states = list(map(_row_state, fleet.rows))
    counts = {each.name.lower(): states.count(each) for each in State}
    figures = [f"{name}={count};;;0;{len(states)}" for name, count in counts.items()]
    figures += [f"time={fleet.seconds:.3f}s;;;0;"] if fleet.seconds else []
    reports = [(row.target, row.outcome) for row in fleet.rows if isinstance(row.outcome, Report)]
    further = [figure for target, report in reports for figure in _figures(report, target)]
    named = f": {_few([row.label for row in ill])}" if ill else ""
    said = [
        ": ".join((row.label, "; ".join(filter(None, (words(row), _warned(row.outcome)))))) for row in ill
    ]
    more = [f"{_row_state(row).name} {line}" for row, line in zip(ill, said, strict=True)]
    return _said(fleet_state(fleet), sentence(fleet, counts) + named, figures, more, further[:LINES])


def _few(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - NAMED} more" if len(distinct) > NAMED else ""
    return ", ".join(distinct[:NAMED]) + more


def _figures(report: Report, of: str = "") -> list[str]:
    """The probe's figures as 'label'=value[unit];warn;crit;min;max; of one of many the exits alone."""
    numbers = report.proof.numbers if report.proof else {}
    figures = []
    if "exit_ns" in numbers:
        figures.append(f"{_label(of, 'exit_latency')}={numbers['exit_ns'] / 1000:.2f}us;{SLOW_EXIT_US};;0;")
    if "loops_per_s" in numbers and not of:
        figures.append(f"loops_per_s={numbers['loops_per_s']:.0f};;;0;")
    if "kvm_users" in numbers and not of:
        figures.append(f"kvm_users={numbers['kvm_users']:.0f};;;0;")
    return figures


def _label(of: str, name: str) -> str:
    """A label; in quotes where it is of a target, and without what would end it."""
    if not of:
        return name
    safe = re.sub(r"[^ -~]|[=|]", "_", printable(of, 200)).replace("'", "''")
    return f"'{safe} {name}'"


def _said(
    state: State, said: str, figures: Iterable[str], more: Sequence[str], further: Sequence[str] = ()
) -> str:
    """A bar stands before figures, and nowhere else: on the first line, and before the further ones."""
    lines = [_plain(line) for line in more if line]
    if len(lines) > LINES:
        lines[LINES:] = [f"and {len(lines) - LINES} more"]
    first = " | ".join(filter(None, (_plain(f"NESTVIRT {state.name} - {said}"), " ".join(figures))))
    if further:
        lines = lines or ["all:"]
        lines[-1] += f" | {further[0]}"
    return "\n".join([first, *lines, *further[1:]])


def _plain(text: str) -> str:
    return printable(text).replace("|", "¦")
