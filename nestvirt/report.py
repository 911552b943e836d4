"""A report as text for people, or JSON for programs. Pure: nothing is read, nothing is printed."""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nestvirt import __version__
from nestvirt.errors import Error
from nestvirt.model import Change, Finding, Report, Status
from nestvirt.printable import printable

if TYPE_CHECKING:  # rich costs more to import than all of nestvirt; only text needs it
    from rich.text import Text

SCHEMA_VERSION = 1
FEW, MANY = 3, 10
MORE = "why, and what else may help"
STATUS_WIDTH, CHECK_WIDTH = 10, 23
NARROW, NARROWEST = 64, 30
"""Below how many columns evidence has no column of its own; and below how many it is not wrapped at all."""
EXIT_CODES = {Status.PASS: 0, Status.FAIL: 1, Status.UNKNOWN: 3}

_STYLES = {
    Status.PASS: "green",
    Status.WARN: "yellow",
    Status.FAIL: "bold red",
    Status.UNKNOWN: "magenta",
    Status.SKIP: "dim",
}


def exit_code(report: Report) -> int:
    """0 all pass, or a dry run whose plan can be carried out; 1 something fails; 3 could not find out."""
    return 0 if report.planned else EXIT_CODES[report.conclusion]


def to_json(report: Report) -> str:
    """The report as one JSON object; docs/reference/report.schema.json describes it."""
    return _dump(fields(report))


def fields(report: Report) -> dict[str, object]:
    """What its JSON is made of."""
    broken = report.first_broken
    return {
        "schema_version": SCHEMA_VERSION,
        "nestvirt": __version__,
        "target": report.target,
        "verdict": report.conclusion,
        "first_broken": broken.check if broken else None,
        "findings": [_finding(f) for f in report.findings],
        "changes": [{"setting": c.setting, "before": c.before, "after": c.after} for c in report.changes],
        "proof": vars(report.proof) if report.proof else None,
        "run": report.run,
        "power_cycled": report.cycled,
        "dry_run": report.planned,
        "remains": list(report.remains),
    }


def error_to_json(error: Error) -> str:
    """An error in the place of a report."""
    return _dump({"schema_version": SCHEMA_VERSION, "nestvirt": __version__, "error": error_fields(error)})


def error_fields(error: Error) -> dict[str, str]:
    """What an error's JSON is made of."""
    fields = {
        "kind": next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == Error.__module__),
        "message": error.message,
        "evidence": printable(error.evidence),
        "cure": error.cure,
    }
    return fields | ({"run": error.run} if error.run else {})


def _dump(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "check": finding.check,
        "subject": printable(finding.subject),
        "layer": finding.layer,
        "status": finding.status,
        "evidence": printable(finding.evidence),
        "cure": finding.cure,
    }


def to_text(report: Report, width: int | None = None) -> Text:
    """The report for people: the verdict, the chain, what was changed, and what remains.

    Args:
        width: columns of the terminal, to which long evidence is wrapped; None for one line each.
    """
    from rich.text import Text

    text = Text()
    text.append(f"{printable(report.target, 200)}: ", style="bold")
    verdict = "PLAN" if report.planned else report.conclusion.upper()
    text.append(verdict, style=_STYLES[Status.WARN if report.planned else report.conclusion])
    text.append(f"  {headline(report)}\n")
    for layer in dict.fromkeys(f.layer for f in report.findings):
        text.append(f"\n{layer}\n", style="bold")
        of_layer = grouped([f for f in report.findings if f.layer is layer])
        for group in of_layer:
            if group[0].status is not Status.SKIP:
                _append_group(text, group, width)
        skipped = [group for group in of_layer if group[0].status is Status.SKIP]
        for group in skipped if len(skipped) <= FEW else []:
            _append_group(text, group, width)
        if len(skipped) > FEW:
            names = ", ".join(group[0].check for group in skipped[:FEW])
            more = f"and {len(skipped) - FEW} more that could not be asked (-o json says why)"
            line = _hanging(f"  {'SKIP':<8}", f"{names}, {more}", STATUS_WIDTH, width)
            text.append(f"{line}\n", style=_STYLES[Status.SKIP])
    # What a VM's dry run would do is one sentence; a cluster's plan has neither run nor goal, and many lines.
    plan = report.remains if report.planned and report.run is None and report.goal is None else ()
    if plan:
        text.append("\nwould do:\n", style="bold")
        text.append("".join(f"{_hanging('  ', line, 2, width)}\n" for line in plan))
    if report.changes:
        text.append("\nchanges\n", style="bold")
        text.append_text(diff(report.changes))
    if report.run and report.changes and report.goal is not None and not report.planned:
        text.append(f"\n{_way_back(report)}\n")
    for line in () if plan else report.remains:
        text.append("\nremains: ", style="bold")
        text.append(printable(line))
    text.rstrip()
    check = explained(report)
    if check is not None:
        text.append("\n\n" + _hanging(f"{MORE}: ", f"nestvirt explain {check}", STATUS_WIDTH, width))
    return text


def explained(report: Report) -> str | None:
    """The check whose runbook its reader wants next; None where nothing fails."""
    if report.planned:
        return None
    ill = report.blockers[0] if report.blockers else report.first_broken
    return ill.check if ill is not None else None


def _way_back(report: Report) -> str:
    """How the changes are taken back, and what nobody takes back."""
    lasting = [f"{change.stays}, which nobody can undo" for change in report.changes if change.lasts]
    undo = [] if len(lasting) == len(report.changes) else [f"to put it back: nestvirt undo {report.run}"]
    return "; ".join((*undo, *lasting))


def headline(report: Report) -> str:
    """What it comes to, in a few words: the first broken link, or what was proven."""
    proof, broken = report.proof, report.first_broken
    if report.planned:
        return "dry run: nothing was touched"
    if report.blockers:
        return f"nothing was done, because of: {', '.join(dict.fromkeys(f.check for f in report.blockers))}"
    if broken is not None and proof is not None and proof.verdict == "works-emulated":
        words = f"works-emulated: guest code runs, too slowly for ordinary VMs{_figures(proof.numbers)}"
        return f"first broken link: {broken.check} ({words})"
    if broken is not None:
        alike = [f for f in report.findings if f.check == broken.check and f.status is Status.FAIL]
        where = f" ({_subjects(alike, 1)})" if broken.subject else ""
        return f"first broken link: {broken.check}{where}"
    if report.conclusion is Status.UNKNOWN:
        return "not proven: see what is unknown below"
    if proof is not None and proof.verdict == "works":
        where = "on this machine" if proof.channel == "local" else f"in the guest (by {proof.channel})"
        seen = int(proof.numbers.get("kvm_users", 0))
        if proof.numbers.keys() == {"kvm_users"}:  # it was asked, and no code was run
            return f"saw {seen} VM{'s' if seen > 1 else ''} run {where}"
        return f"ran guest code {where}{_figures(proof.numbers)}"
    if report.summary:
        return printable(report.summary)
    if report.goal is None:
        return f"run {report.run} is undone"
    if not report.goal.nested:
        return "nesting is gone"
    asked = any(f.check == "host-kvm-offers" and f.status is Status.PASS for f in report.findings)
    return "KVM lets the VMs of this host nest" if asked else ""


def _figures(numbers: dict[str, float]) -> str:
    figures = []
    if "exit_ns" in numbers:
        figures.append(f"{numbers['exit_ns'] / 1000:.1f} µs an exit")
    if "loops_per_s" in numbers:
        figures.append(f"{numbers['loops_per_s'] / 1e6:.1f} M loops/s")
    return f": {', '.join(figures)}" if figures else ""


def grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """The findings, those together that say the same of several subjects; in the order of each's first."""
    groups: dict[object, list[Finding]] = {}
    for number, f in enumerate(findings):
        alone = None if f.subject else number
        groups.setdefault((f.check, f.status, f.evidence, f.cure, alone), []).append(f)
    return list(groups.values())


def _subjects(findings: Sequence[Finding], most: int) -> str:
    """Whom they are about: up to ``most`` by name, the others counted."""
    names = list(dict.fromkeys(f.subject for f in findings if f.subject))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return printable(", ".join(names[:most])) + more


def _append_group(text: Text, group: Sequence[Finding], width: int | None) -> None:
    finding = group[0]
    whom = _subjects(group, MANY if finding.ill else FEW)
    evidence = f"{whom}: {printable(finding.evidence)}" if whom else finding.evidence
    text.append(f"  {finding.status.upper():<8}", style=_STYLES[finding.status])
    text.append(f"{_beside(finding.check, evidence, width)}\n")
    if finding.cure and finding.ill:
        text.append(f"{'':{STATUS_WIDTH}}{_beside('do this:', finding.cure, width)}\n", style="cyan")


def _beside(label: str, line: str, width: int | None) -> str:
    """What follows a status: a label, and foreign text, in a column of its own where there is room."""
    start = " " * STATUS_WIDTH
    if width is None or width >= NARROW:
        before, indent = f"{start}{label:<{CHECK_WIDTH}} ", STATUS_WIDTH + CHECK_WIDTH + 1
    else:
        before, indent = f"{start}{label.removesuffix(':')}: ", STATUS_WIDTH
    return _hanging(before, line, indent, width).removeprefix(start)


def _hanging(before: str, line: str, indent: int, width: int | None) -> str:
    """Foreign text behind ``before``; its further lines begin at a column."""
    if width is None or width < NARROWEST:
        return before + printable(line)
    # A command is to be copied: it is broken between words only.
    return textwrap.fill(
        printable(line),
        width,
        initial_indent=before,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def diff(changes: Sequence[Change]) -> Text:
    """The changes: ``cpu: kvm64 -> host``, or a unified diff where the setting is a longer text."""
    from rich.text import Text

    text = Text()
    for change in changes:
        before, after = (
            ["(not set)"] if v is None else [_shown(line) for line in v.splitlines()]
            for v in (change.before, change.after)
        )
        if len(before) == len(after) == 1:
            text.append(f"  {change.setting}: ").append(before[0], "red").append(" -> ")
            text.append(f"{after[0]}\n", "green")
            continue
        text.append(f"  {change.setting}\n")
        for line in list(difflib.unified_diff(before, after, n=20, lineterm=""))[3:]:
            style = {"-": "red", "+": "green"}.get(line[:1], "")
            text.append(f"  {line}\n", style=style)
    return text


def _shown(line: str) -> str:
    """A line of foreign text, safe to show, with its indentation."""
    return "".join(c if c.isprintable() else " " for c in line)
