"""The VMs of many hypervisors and how each stands, as text, JSON or HTML. Pure: nothing is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nestvirt import __version__
from nestvirt.backends.base import Listed
from nestvirt.errors import Error
from nestvirt.printable import printable
from nestvirt.report import SCHEMA_VERSION, error_fields
from nestvirt.report_html.markup import Markup, el, join
from nestvirt.report_html.page import Column, badge, cell, page, table, tiles
from nestvirt.report_html.target import of_error

STATES = ("on", "pending", "off", "unknown")
SILENT = 3
"""The exit code of an error that says that a hypervisor did not answer."""
WORDS = {"pending": "set, but pending"}
STYLES = {"on": "green", "pending": "yellow", "off": "", "unknown": "magenta"}
_HEADINGS = ("TARGET", "POWER", "NESTING", "PROVEN", "NOTE")
_COLUMNS = (
    Column("Target", "name"),
    Column("VM", "short"),
    Column("Power", "word"),
    Column("Nesting"),
    Column("Proven", "word"),
    Column("Labels", "soft"),
    Column("Note", "soft"),
)


@dataclass(frozen=True)
class Entry:
    """A VM.

    Attributes:
        target: what check and enable take for it.
        drift: how what is configured and what is in effect differ; empty where they do not.
        proven: when guest code was last seen to run in it, ISO 8601 in UTC; None for never.
    """

    target: str
    listed: Listed
    drift: str = ""
    proven: str | None = None


@dataclass(frozen=True)
class Inventory:
    """All VMs that were found, and what could not be told, and of which ``backend[@profile]``."""

    entries: Sequence[Entry]
    errors: Sequence[tuple[str, Error]] = ()

    @property
    def exit_code(self) -> int:
        """1 where a name means no VM, or a listing failed; 3 where nobody answered; else 0."""
        codes = {error.exit_code for _, error in self.errors}
        return (SILENT if codes == {SILENT} else 1) if codes else 0

    @property
    def states(self) -> dict[str, int]:
        """How many VMs are in each state."""
        count = Counter(entry.listed.nesting for entry in self.entries)
        return {state: count[state] for state in STATES}  # type: ignore[index]


def to_json(inventory: Inventory) -> str:
    """One object; docs/reference/list.schema.json describes it."""
    whole = {
        **_head(),
        "vms": [_vm(entry) for entry in inventory.entries],
        "errors": [_failed(where, error) for where, error in inventory.errors],
        "summary": _summary(inventory),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


def to_jsonl(inventory: Inventory) -> Iterator[str]:
    """A line a VM, then one for each error, then the counts."""
    yield from (_line(_vm(entry)) for entry in inventory.entries)
    yield from (_line(_failed(where, error)) for where, error in inventory.errors)
    yield _line({"summary": _summary(inventory)})


def _line(row: dict[str, object]) -> str:
    return json.dumps({**_head(), **row}, ensure_ascii=False)


def _head() -> dict[str, object]:
    return {"schema_version": SCHEMA_VERSION, "nestvirt": __version__}


def _vm(entry: Entry) -> dict[str, object]:
    listed = entry.listed
    return {
        "target": entry.target,
        "id": listed.vm.id,
        "name": listed.vm.name,
        "power": listed.power,
        "nesting": listed.nesting,
        "drift": printable(entry.drift) or None,
        "proven": entry.proven,
        "labels": {key: [printable(value) for value in values] for key, values in listed.labels.items()},
        "note": printable(listed.note),
    }


def _failed(where: str, error: Error) -> dict[str, object]:
    return {"endpoint": where, "error": error_fields(error)}


def _summary(inventory: Inventory) -> dict[str, int]:
    return {"total": len(inventory.entries), **inventory.states, "errors": len(inventory.errors)}


def sentence(inventory: Inventory) -> str:
    """What there is: ``12 VMs: 3 on, 1 set, but pending, 8 off``."""
    total = len(inventory.entries)
    counts = [f"{count} {WORDS.get(state, state)}" for state, count in inventory.states.items() if count]
    counts += [f"{count} {what}" for what, count in _failures(inventory)]
    return f"{total} VM{'' if total == 1 else 's'}" + (f": {'; '.join(counts)}" if counts else "")


def _failures(inventory: Inventory) -> Iterator[tuple[str, int]]:
    """What could not be told, for people: who gave no answer, and what was wrong with a question."""
    silent = sum(error.exit_code == SILENT for _, error in inventory.errors)
    if silent:
        yield f"hypervisor{'' if silent == 1 else 's'} could not be asked", silent
    wrong = len(inventory.errors) - silent
    if wrong:
        yield f"error{'' if wrong == 1 else 's'}", wrong


def to_lines(inventory: Inventory) -> Iterator[tuple[str, str]]:
    """For people: lines with a style of rich's; the columns are as wide as they have to be."""
    rows = [_HEADINGS, *(_cells(entry) for entry in inventory.entries)]
    widths = [min(max(map(len, column)), 60) for column in zip(*rows, strict=True)]
    if inventory.entries:
        for number, row in enumerate(rows):
            line = "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True))
            style = STYLES[inventory.entries[number - 1].listed.nesting] if number else "bold"
            yield line.rstrip(), style
        yield "", ""
    yield sentence(inventory), "bold"
    for where, error in inventory.errors:
        yield "", ""
        yield f"{printable(where)}: {printable(error.message)}", "magenta"
        if error.evidence:
            yield f"  seen: {printable(error.evidence)}", ""
        if error.cure:
            yield f"  do this: {printable(error.cure)}", "cyan"


def _cells(entry: Entry) -> tuple[str, ...]:
    listed = entry.listed
    named = listed.vm.name if not entry.target.endswith(f":{listed.vm.name}") else ""
    notes = "; ".join(filter(None, (named, entry.drift, listed.note)))
    proven = entry.proven.replace("T", " ")[:16] if entry.proven else "never"
    nesting = WORDS.get(listed.nesting, listed.nesting)
    return (printable(entry.target, 200), listed.power.value, nesting, proven, printable(notes, 200))


def to_html(inventory: Inventory, made: str) -> str:
    """One page with a table that can be sorted and filtered."""
    counts = [(WORDS.get(state, state), count, state) for state, count in inventory.states.items() if count]
    counts += [(what, count, "fail") for what, count in _failures(inventory)]
    said = sentence(inventory)
    return page(
        f"nestvirt: {said}",
        said.partition(":")[0],
        "",
        tiles(counts),
        *(join(el("h2", where), of_error(error)) for where, error in inventory.errors),
        el("h2", "All VMs") if inventory.entries else None,
        table(_COLUMNS, [_row(entry) for entry in inventory.entries]) if inventory.entries else None,
        made=made,
    )


def _row(entry: Entry) -> list[tuple[Markup, str | None]]:
    listed = entry.listed
    labels = "; ".join(f"{key}={', '.join(values)}" for key, values in listed.labels.items() if values)
    return [
        cell(printable(entry.target, 200)),
        cell(listed.vm.name),
        cell(listed.power.value),
        cell(badge(listed.nesting, WORDS.get(listed.nesting)), STATES.index(listed.nesting)),
        cell(entry.proven.replace("T", " ")[:16] if entry.proven else "never", entry.proven or ""),
        cell(printable(labels, 300)),
        cell("; ".join(filter(None, (entry.drift, listed.note)))),
    ]
