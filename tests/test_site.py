"""The documentation as a site: no warning, no link that leads nowhere, nothing loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
LINKS_LOADED = {"stylesheet", "icon", "preload", "modulepreload", "manifest"}


def build(folder: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, env=quiet)


class Read(HTMLParser):
    """A page's anchors, links, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attrs}
        self.anchors |= {of[name] for name in ("id", "name") if name in of}
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        if tag in LOADING and LOADING[tag] in of:
            self.loaded.append(of[LOADING[tag]])
        if tag == "link" and set(of.get("rel", "").split()) & LINKS_LOADED:
            self.loaded.append(of["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert "WARNING" not in done.stderr
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Read]:
    return {path: Read(path) for path in site.rglob("*.html")}


def test_every_page_is_there(pages: dict[Path, Read], site: Path) -> None:
    written = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert written | {Path("CHANGELOG.html")} <= {path.relative_to(site) for path in pages}
    assert not list(site.rglob("*.py"))


def test_the_schemas_are_there_to_be_fetched(site: Path) -> None:
    schemas = {path.name for path in (ROOT / "docs/reference").glob("*.json")}
    assert schemas == {path.name for path in (site / "reference").glob("*.json")}


def _broken(pages: dict[Path, Read], site: Path) -> Iterator[str]:
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link) or path.name == "404.html":
                continue
            where, _, anchor = unquote(link).partition("#")
            target = (path.parent / where).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                yield f"{path.relative_to(site)}: {link}"


def test_every_link_leads_somewhere(pages: dict[Path, Read], site: Path) -> None:
    assert sum(len(page.links) for page in pages.values()) > 1000
    assert list(_broken(pages, site)) == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Read], site: Path) -> None:
    for path, page in pages.items():
        assert page.loaded
        assert not [link for link in page.loaded if re.match(r"(https?:)?//", link)], path
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"url\(\s*['\"]?https?:", styles)


def test_a_runbook_has_its_anchor_on_the_site(pages: dict[Path, Read], site: Path) -> None:
    from docs.generate import checks

    for check in checks():
        page = pages[site / f"runbooks/{check.partition('-')[0]}.html"]
        assert check in page.anchors


def test_a_list_is_shown_as_one(site: Path) -> None:
    """A list without an empty line before it is a paragraph with dashes on the site, and a list elsewhere."""
    dashes = re.compile(r"<p>(?:(?!</p>).)*\n(?:- |\d+\. |\| )", re.DOTALL)
    assert [p for p in site.rglob("*.html") if dashes.search(p.read_text(encoding="utf-8"))] == []


def test_a_broken_link_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[nowhere](nowhere.md) [here](#not-here)", encoding="utf-8")
    own = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    text = re.sub(r"^nav:\n(?:  .*\n)+|^hooks: .*\n", "", own, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(text, encoding="utf-8")
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "#not-here" in done.stderr
