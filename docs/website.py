"""What the site has beside the pages in docs: the changelog, which stands at the repository's root."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add it as a page."""
    files.append(File.generated(config, CHANGELOG.name, content=CHANGELOG.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to it lead to that page."""
    return markdown.replace(f"](../{CHANGELOG.name})", f"]({CHANGELOG.name})")
