"""Foreign text made safe to show: what hypervisors and guests say is data, never terminal control."""

import unicodedata


def printable(text: str, limit: int = 1000) -> str:
    """One line without control, format or unassigned characters, at most ``limit`` characters long."""
    if len(text) <= limit and text.isprintable():
        return " ".join(text.split())
    kept = "".join(
        " " if unicodedata.category(c).startswith(("C", "Zl", "Zp")) else c for c in text[: limit * 4]
    )
    line = " ".join(kept.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
