"""What came of many targets, as text for people, or JSON for programs. Pure: nothing is read or printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from nestvirt import __version__
from nestvirt.errors import Error, Fault, Interrupted
from nestvirt.model import Ending, Fleet, Report, Row, Status
from nestvirt.printable import printable
from nestvirt.report import SCHEMA_VERSION, error_fields, fields, headline

if TYPE_CHECKING:  # as in report.py
    from rich.text import Text

DETAILED = 10
"""Of how many targets that are ill in the same way the text tells all; JSON and HTML tell all of all."""
TARGET_WIDTH = 12, 44
EXIT_CODES = {Ending.FAIL: 1, Ending.UNKNOWN: 3, Ending.NOT_BEGUN: 3}
WORDS = {ending: ending.value.replace("-", " ") for ending in Ending}
STYLES = {
    Ending.PASS: "green",
    Ending.PLAN: "yellow",
    Ending.FAIL: "bold red",
    Ending.UNKNOWN: "magenta",
    Ending.NOT_BEGUN: "dim",
}


class Reason(NamedTuple):
    """Why a target is not as it should be.

    Attributes:
        name: the check's id, or the error's kind.
    """

    name: str
    evidence: str
    cure: str


def exit_code(fleet: Fleet) -> int:
    """130 stopped; 70 a fault of our own; 1 something fails; 3 could not find out of all; 0 all pass."""
    outcomes = [row.outcome for row in fleet.rows]
    for kind in (Interrupted, Fault):
        if any(isinstance(outcome, kind) for outcome in outcomes):
            return kind.exit_code
    return EXIT_CODES.get(verdict(fleet), 0)


def verdict(fleet: Fleet) -> Ending:
    """The worst of all: a failure outweighs what could not be found out. None at all is unknown."""
    endings = fleet.endings
    if endings[Ending.FAIL]:
        return Ending.FAIL
    if endings[Ending.UNKNOWN] or endings[Ending.NOT_BEGUN] or not fleet.rows:
        return Ending.UNKNOWN
    return Ending.PLAN if endings[Ending.PLAN] else Ending.PASS


def reason(row: Row) -> Reason | None:
    """What to cure first; None where nothing is ill, or nothing was begun."""
    outcome = row.outcome
    if isinstance(outcome, Error):
        evidence = ": ".join(filter(None, (outcome.message, outcome.evidence)))
        return Reason(error_fields(outcome)["kind"], printable(evidence), printable(outcome.cure))
    if outcome is None or row.ending in (Ending.PASS, Ending.PLAN):
        return None
    unknown = (f for f in outcome.findings if f.status is Status.UNKNOWN)
    found = outcome.first_broken or next(unknown, None)
    return Reason(found.check, printable(found.evidence), printable(found.cure)) if found else None


def words(row: Row) -> str:
    """What came of it, on one line."""
    outcome = row.outcome
    if isinstance(outcome, Error):
        said = f"{error_fields(outcome)['kind']}: {outcome.message}"
    elif outcome is None:
        said = row.note or WORDS[row.ending]
    elif outcome.planned:
        said = "; ".join(line.partition("; it ")[2] or line for line in outcome.remains) or headline(outcome)
    else:
        changed = ", ".join(change.setting for change in outcome.changes)
        said = "; ".join(
            filter(None, (headline(outcome), f"changed: {changed}" if changed else "", row.note))
        )
    return printable(said, 300)


# --- JSON


def to_json(fleet: Fleet) -> Iterator[str]:
    """The fleet as one JSON object, in parts: docs/reference/fleet.schema.json describes it."""
    yield json.dumps({**_head(), **_summary(fleet)}, indent=2, ensure_ascii=False).removesuffix("\n}")
    yield ',\n  "fleet": ['
    for number, row in enumerate(fleet.rows):
        # No text of JSON has a line's end in it, so that lines can be moved to the right.
        shown = json.dumps(_row(row), indent=2, ensure_ascii=False).replace("\n", "\n    ")
        yield f"{',' if number else ''}\n    {shown}"
    yield "\n  ]\n}" if fleet.rows else "]\n}"


def row_to_json(row: Row) -> str:
    """One target as one line, for whoever reads while the others are still at work."""
    return json.dumps({**_head(), **_row(row)}, ensure_ascii=False)


def summary_to_json(fleet: Fleet) -> str:
    """The last of those lines: what all come to."""
    return json.dumps({**_head(), **_summary(fleet)}, ensure_ascii=False)


def _head() -> dict[str, object]:
    return {"schema_version": SCHEMA_VERSION, "nestvirt": __version__}


def _summary(fleet: Fleet) -> dict[str, object]:
    return {
        "command": fleet.command,
        "verdict": verdict(fleet),
        "run": fleet.run,
        "stopped": fleet.stopped or None,
        "seconds": round(fleet.seconds, 3),
        "summary": {
            "total": len(fleet.rows),
            **{ending.replace("-", "_"): count for ending, count in fleet.endings.items()},
            "changed": sum(row.changed for row in fleet.rows),
        },
    }


def _row(row: Row) -> dict[str, object]:
    outcome = row.outcome
    return {
        "target": row.target,
        "name": printable(row.name, 200) or None,
        "ending": row.ending,
        "changed": row.changed,
        "seconds": round(row.seconds, 3),
        "note": printable(row.note),
        "report": fields(outcome) if isinstance(outcome, Report) else None,
        "error": error_fields(outcome) if isinstance(outcome, Error) else None,
    }


# --- text


def alone(fleet: Fleet) -> Report | None:
    """The report of a single target, which people are shown as any report; None where a table tells more."""
    if len(fleet.rows) != 1 or not isinstance(fleet.rows[0].outcome, Report):
        return None
    [row], outcome = fleet.rows, fleet.rows[0].outcome
    stopped = f"the run was stopped: {fleet.stopped}" if fleet.stopped else ""
    return replace(outcome, target=row.label, remains=(*outcome.remains, *filter(None, (row.note, stopped))))


def to_text(fleet: Fleet) -> Text:
    """For people: what all come to, a line for each, and for those that are ill why, and what to do."""
    from rich.text import Text

    text = Text()
    text.append(f"{sentence(fleet)}\n", style="bold")
    longest = max((len(row.label) for row in fleet.rows), default=0)
    width = min(max(TARGET_WIDTH[0], longest), TARGET_WIDTH[1])
    for row in fleet.rows:
        text.append(f"  {WORDS[row.ending].upper():<10}", style=STYLES[row.ending])
        text.append(f"{row.label:<{width}}  {words(row)}\n")
    for line, style in _ills(fleet):
        text.append(f"{line}\n", style=style)
    for line in _remains(fleet):
        text.append(f"\n{line}\n")
    text.rstrip()
    return text


def sentence(fleet: Fleet, by: Mapping[str, int] | None = None) -> str:
    """What all come to: ``check of 12 targets: 10 pass, 1 fail, 1 unknown (4.2 s)``.

    Args:
        by: how many there are of what, where that is not told by how they ended.
    """
    by = by or {WORDS[ending]: count for ending, count in fleet.endings.items()}
    counts = [f"{count} {word}" for word, count in by.items() if count]
    changed = sum(row.changed for row in fleet.rows)
    counts += [f"{changed} changed"] if changed else []
    things = "1 target" if len(fleet.rows) == 1 else f"{len(fleet.rows)} targets"
    took = f" ({fleet.seconds:.1f} s)" if fleet.seconds else ""
    return f"{fleet.command} of {things}: {', '.join(counts) or 'nothing to do'}{took}"


def _ills(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Lines with their style: the same ill together, the first few with all that is known."""
    alike: dict[str, list[tuple[Row, Reason]]] = {}
    for row in fleet.rows:
        why = reason(row)
        if why is not None:
            alike.setdefault(why.name, []).append((row, why))
    for name, rows in alike.items():
        yield f"\n{name}", "bold"
        for row, why in rows[:DETAILED]:
            yield f"  {row.label}: {why.evidence}", ""
            if why.cure:
                yield f"    do this: {why.cure}", "cyan"
        if len(rows) > DETAILED:
            yield f"  and {len(rows) - DETAILED} more (-o json or html tells all)", ""


def _remains(fleet: Fleet) -> Iterator[str]:
    if fleet.stopped:
        yield f"stopped: {printable(fleet.stopped)}"
    unfinished = fleet.endings[Ending.NOT_BEGUN] or any(
        isinstance(r.outcome, Interrupted) for r in fleet.rows
    )
    if fleet.down:
        yield f"{fleet.down} may be off still, which a run has shut down"
    if fleet.run and (unfinished or fleet.down):
        again = "undo" if fleet.command == "undo" else f"{fleet.command} --resume"
        yield f"to go on: nestvirt {again} {fleet.run}"
    undone = [r.outcome.run for r in fleet.rows if r.changed and r.outcome is not None and r.outcome.run]
    if undone and fleet.command != "undo":
        if fleet.run:
            yield f"to put all of it back: nestvirt undo {fleet.run}"
        more = f" (and so on: {len(undone)} runs, nestvirt undo --list)" if len(undone) > 1 else ""
        yield f"to put a VM back: nestvirt undo {undone[0]}{more}"
