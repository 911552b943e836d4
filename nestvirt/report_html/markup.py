"""Elements as text. Whatever is put in is escaped; the result is HTML that is well-formed XML, too."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from nestvirt.printable import printable

SIZE_LIMIT = 20_000
"""Of one text of foreign origin: a setting's value may be a whole definition."""


NOTHING: Mapping[str, str | float | None] = {}


class Markup(str):
    """Text that is markup already, and is not escaped again."""

    __slots__ = ()


def el(tag: str, /, *children: str | None, of: Mapping[str, str | float | None] = NOTHING) -> Markup:
    """An element.

    Args:
        tag: of HTML or SVG.
        children: markup as it is, other text escaped; None is left out.
        of: its attributes; None is left out.
    """
    given = "".join(
        f' {key}="{escape(printable(str(value), SIZE_LIMIT))}"'
        for key, value in of.items()
        if value is not None
    )
    inside = "".join(child if isinstance(child, Markup) else text(child) for child in children if child)
    return Markup(f"<{tag}{given}>{inside}</{tag}>" if inside or tag not in VOID else f"<{tag}{given} />")


def text(foreign: str) -> Markup:
    """One line of text; a space at an end of it stays."""
    before, after = (" " if foreign[end : end + 1 or None] == " " else "" for end in (0, -1))
    return Markup(f"{before}{escape(printable(foreign, SIZE_LIMIT))}{after}")


def join(*parts: str | None) -> Markup:
    """Several, one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else text(part) for part in parts if part))


VOID = {"meta", "link", "br", "path", "circle", "rect", "line", "input"}
"""Those that are closed where they are opened."""
