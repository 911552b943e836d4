"""The page around a report: one file that needs no other, and may load none."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from nestvirt import __version__
from nestvirt.report_html.markup import Markup, el, join

HERE = Path(__file__).parent


class Column:
    """A column of a table that can be sorted.

    Args:
        name: its heading.
        kind: a class for its cells: ``number``, ``name``, ``short``, ``word``, ``said`` or ``soft``.
    """

    def __init__(self, name: str, kind: str | None = None) -> None:
        self.name = name
        self.kind = kind


def page(title: str, heading: str, meta: str, *parts: Markup | None, made: str) -> str:
    """A whole document.

    Args:
        title: what it is about, and what it comes to; for the browser's tab.
        heading: the same on the page, where there may be less of it.
        meta: further words below it.
        made: when; it is told beside them, as the footer is a long way off, and on paper another sheet.
    """
    style, script = _own("page.css"), _own("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", of={"charset": "utf-8"}),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}" />'),
        el("meta", of={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", of={"name": "referrer", "content": "no-referrer"}),
        el("meta", of={"name": "generator", "content": f"nestvirt {__version__}"}),
        el("link", of={"rel": "icon", "href": "data:,"}),
        el("title", title),
        Markup(f"<style>{style}</style>"),
    )
    body = el(
        "body",
        el("header", el("h1", heading), el("p", "; ".join(filter(None, (meta, made))), of={"class": "soft"})),
        el("main", *parts),
        el("footer", f"Made by nestvirt {__version__}, {made}."),
        Markup(f"<script>{script}</script>"),
    )
    html = el("html", head, body, of={"lang": "en"})
    return f"<!DOCTYPE html>\n{html}"


@cache
def _own(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"sha256-{digest}"


def badge(kind: str, words: str | None = None) -> Markup:
    """A state, told by word and colour."""
    return el("span", words or kind.replace("-", " "), of={"class": f"badge {kind}"})


def tiles(of: Sequence[tuple[str, int, str]]) -> Markup:
    """Counts, each with its words and its kind."""
    return el(
        "ul",
        *(el("li", el("b", str(count)), words, of={"class": kind}) for words, count, kind in of),
        of={"class": "tiles"},
    )


def cell(content: str, key: float | str | None = None) -> tuple[Markup, str | None]:
    """A cell's content, and what it is sorted by where that is not its words."""
    inside = content if isinstance(content, Markup) else join(content)
    return inside, None if key is None else str(key)


def _beside(column: Column) -> str | None:
    """The heading of a cell that says nothing without it, for a window too narrow for columns."""
    return column.name if column.kind in ("number", "word") else None


def table(columns: Sequence[Column], rows: Sequence[Sequence[tuple[Markup, str | None]]]) -> Markup:
    """A table that is sorted by its headings, with a field to filter it where it is long."""
    head = el("tr", *(el("th", column.name, of={"scope": "col", "class": column.kind}) for column in columns))
    body = [
        el(
            "tr",
            *(
                el("td", content, of={"class": column.kind, "data-key": key, "data-head": _beside(column)})
                for column, (content, key) in zip(columns, row, strict=True)
            ),
        )
        for row in rows
    ]
    find = el("label", "Filter: ", el("input", of={"type": "search", "autocomplete": "off"}))
    return join(
        Markup(f'<p class="find" hidden="">{find}</p>') if len(rows) > 8 else None,
        el(
            "div",
            el("table", el("thead", head), el("tbody", *body), of={"class": "sortable"}),
            of={"class": "wide"},
        ),
    )
