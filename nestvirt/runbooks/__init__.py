"""The runbooks: of each check what it asks, what it reads, why it fails, and the cure.

An installed nestvirt has the pages beside this file, a checkout has them in docs/.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
LAYERS = ("host", "vm", "guest", "cluster")
"""Each has a page; a check's id begins with its layer."""

_DOCS = HERE.parents[1] / "docs"
_ROW = re.compile(r"^\| \[`([a-z-]+)`]\(\S+\) \| (.*) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)]\(([^)\s]+)\)")


def questions() -> dict[str, str]:
    """Every check id to the question it asks, in the order of the chain."""
    return dict(_ROW.findall(_page("checks")))


def section(check: str) -> str:
    """The runbook of a check, in Markdown that leads nowhere but to other checks, and to the internet.

    Args:
        check: one of ``questions``.
    """
    _, _, rest = _page(check.partition("-")[0]).partition(f"\n## `{check}`\n")
    text, *_ = re.split(r'^(?:<a id="[^"]*"></a>\n)?## ', rest, maxsplit=1, flags=re.MULTILINE)
    return re.sub(r'<a id="[^"]*"></a>\n?', "", _LINK.sub(_said, text)).strip()


def _said(link: re.Match[str]) -> str:
    """A link to where there is no page: the words, and of another page than a runbook where it is."""
    words, to = link.groups()
    if to.startswith("https://"):
        return link[0]
    return f"{words} (docs/{to.removeprefix('../')})" if to.startswith("../") else words


def _page(name: str) -> str:
    shipped = HERE / f"{name}.md"
    of_checkout = _DOCS / ("reference" if name == "checks" else "runbooks") / f"{name}.md"
    return (shipped if shipped.is_file() else of_checkout).read_text(encoding="utf-8")
