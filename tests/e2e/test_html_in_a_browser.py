"""The HTML report as a browser sees it: quiet, sorted by a click; in the dark, on paper and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nestvirt import report_html, report_list
from nestvirt.backends.base import Listed
from nestvirt.model import Fleet, Power, Row, Vm
from nestvirt.report_list import Entry, Inventory
from tests.lab import LabError, need
from tests.peers.browser import Browser
from tests.unit.fleets import FLEET, hostile, proven

ROWS = "Array.from(document.querySelectorAll('table.sortable tbody tr'))"
VISIBLE = f"{ROWS}.filter((row) => row.checkVisibility()).map((row) => row.cells[1].textContent)"
CLICK = "document.querySelectorAll('table.sortable th button')[{}].click()"


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    try:
        browser = Browser()
    except LabError as error:
        need(error, "the browser cannot be brought up")
        raise
    with browser:
        yield browser


@pytest.fixture
def browser(started: Browser, tmp_path: Path) -> Browser:
    """With the fleet's page open."""
    more = tuple(Row(f"libvirt:w{n}", proven(f"libvirt:w{n}"), n / 4) for n in (10, 9, 100))
    show(started, tmp_path, Fleet((*FLEET.rows, *more), "enable"))
    return started


def show(browser: Browser, folder: Path, fleet: Fleet) -> None:
    page = folder / "fleet.html"
    page.write_text(report_html.fleet_to_html(fleet, "2026-01-31 10:15 UTC"), encoding="utf-8")
    browser.look()
    browser.open(page)


def column(browser: Browser, number: int) -> list[str]:
    values: list[str] = browser.run(f"{ROWS}.map((row) => row.cells[{number}].textContent)")
    return values


def test_the_page_asks_for_nothing_and_nothing_complains(browser: Browser, tmp_path: Path) -> None:
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [
        (tmp_path / "fleet.html").as_uri()
    ]


def test_hostile_words_run_nothing(browser: Browser, tmp_path: Path) -> None:
    script = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    show(browser, tmp_path, hostile(script))
    assert "owned" not in browser.run("document.title.replace(/'owned'/g, '')")
    assert browser.run("document.images.length") == 0
    assert browser.run("document.scripts.length") == 1
    assert browser.complaints == []


def test_a_script_that_is_not_its_own_is_refused(browser: Browser) -> None:
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.owned = 1'}))"
    )
    assert browser.run("window.owned") is None
    assert any("Content Security Policy" in said for said in browser.complaints)


def test_a_click_sorts_by_value_and_another_turns_it(browser: Browser) -> None:
    browser.run(CLICK.format(5))
    took = [float(value or 0) for value in column(browser, 5)]
    assert took == sorted(took)
    browser.run(CLICK.format(5))
    assert [float(value or 0) for value in column(browser, 5)] == sorted(took, reverse=True)
    browser.run(CLICK.format(1))
    names = [name for name in column(browser, 1) if name.startswith("libvirt:w") and "web" not in name]
    assert names == ["libvirt:w9", "libvirt:w10", "libvirt:w100"]
    browser.run(CLICK.format(0))
    assert column(browser, 0)[:3] == ["fail", "fail", "fail"]
    assert browser.run("document.querySelectorAll('th[aria-sort]').length") == 1


def test_the_filter_leaves_the_rows_that_have_all_words(browser: Browser) -> None:
    browser.run(
        "{const box = document.querySelector('input'); box.value = 'fail LAB'; "
        "box.dispatchEvent(new Event('input'))}"
    )
    assert browser.run(VISIBLE) == ["proxmox@lab:100 (worker-3)", "proxmox@lab:101"]


def test_a_row_leads_to_its_target_and_opens_it(browser: Browser) -> None:
    opened = "document.getElementById('t0').open"
    assert browser.run(opened) is False
    browser.run("document.querySelector('a[href=\"#t0\"]').click()")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    browser.run("dispatchEvent(new HashChangeEvent('hashchange'))")
    assert browser.run(opened) is True


def test_paper_shows_every_target_and_no_field(browser: Browser) -> None:
    closed = "document.querySelectorAll('details.target:not([open])').length"
    before = browser.run(closed)
    assert before > 0
    browser.look(medium="print")
    assert browser.run("document.querySelector('.find').checkVisibility()") is False
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(closed) == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(closed) == before


def luminance(browser: Browser, what: str, of: str = "body") -> float:
    colour: list[float] = browser.run(
        f"getComputedStyle(document.querySelector('{of}')).{what}.match(/[0-9.]+/g).map(Number)"
    )
    parts: list[float] = [c / 255 for c in colour[:3]]
    linear: list[float] = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["pass", "plan", "unknown", "not-begun"])
def test_words_stand_out_in_the_light_and_in_the_dark(browser: Browser, scheme: str, state: str) -> None:
    browser.look(scheme=scheme)
    ground = luminance(browser, "backgroundColor")
    assert (ground < 0.1) is (scheme == "dark")
    for words, below in (
        ("body", ground),
        (f".badge.{state}", luminance(browser, "backgroundColor", ".wide")),
    ):
        light, dark = sorted((luminance(browser, "color", words), below), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # what WCAG asks of text


@pytest.mark.parametrize("width", [1100, 420])
def test_nothing_runs_out_of_the_window(browser: Browser, width: int) -> None:
    browser.look(width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [360, 600])
def test_in_a_narrow_window_nothing_is_cut_off_and_words_keep_their_size(
    browser: Browser, width: int
) -> None:
    browser.look(width=width)
    wide = "Array.from(document.querySelectorAll('.wide')).filter((w) => w.checkVisibility())"
    assert browser.run(f"{wide}.filter((w) => w.scrollWidth > w.clientWidth).length") == 0
    words = "document.querySelector('details[open] .link text')"
    assert browser.run(f"{words}.getScreenCTM().a") == pytest.approx(1, abs=0.01)
    first = f"{ROWS}[0].getBoundingClientRect()"
    assert browser.run(f"{first}.height") < 120
    shown = f"{ROWS}[0].querySelector('.badge').getBoundingClientRect()"
    assert 0 <= browser.run(f"{shown}.left") < browser.run(f"{shown}.right") < width
    assert browser.run(f"getComputedStyle({ROWS}.at(-1).cells[5], '::before').content") == '"Took, s: "'


def test_in_a_narrow_window_a_machine_is_below_the_one_before(browser: Browser) -> None:
    parts = "document.querySelector('details[open] .chain').children"
    tops = f"Array.from({parts}, (part) => part.getBoundingClientRect().top)"
    browser.look(width=400)
    assert len(set(browser.run(tops))) == len(browser.run(tops)) > 1
    browser.look(width=1200)
    assert len(set(browser.run(tops))) == 1


@pytest.mark.parametrize("of", ["fleet", "hostile", "list"])
def test_paper_has_room_for_all_and_no_word_is_larger_than_the_main_text(
    browser: Browser, tmp_path: Path, of: str
) -> None:
    if of == "hostile":
        show(browser, tmp_path, hostile("a" * 300))
    if of == "list":
        show_list(browser, tmp_path)
    browser.look(width=688, medium="print")  # A4 with its margins
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.documentElement.scrollWidth") <= 688
    wide = "Array.from(document.querySelectorAll('.wide'))"
    assert browser.run(f"{wide}.filter((w) => w.scrollWidth > w.clientWidth + 1).length") == 0
    size = "(element) => parseFloat(getComputedStyle(element).fontSize)"
    main = browser.run(f"({size})(document.body)")
    secondary = "Array.from(document.querySelectorAll('.soft, code, pre, td'))"
    assert browser.run(f"Math.max(...{secondary}.map({size}))") <= main
    scale = "Array.from(document.querySelectorAll('.chain svg'), (svg) => svg.getScreenCTM().a * 14)"
    assert max(browser.run(scale), default=0) <= main


def test_on_paper_no_name_is_broken_inside_a_word(browser: Browser, tmp_path: Path) -> None:
    show_list(browser, tmp_path)
    browser.look(width=688, medium="print")
    broken = browser.run("""Array.from(document.querySelectorAll('tbody td')).flatMap((cell) => {
        const text = cell.firstChild, range = document.createRange(), words = [];
        if (!text || text.nodeType !== Node.TEXT_NODE) return words;
        for (const found of text.data.matchAll(/[^\\s-]+/g)) {
          range.setStart(text, found.index);
          range.setEnd(text, found.index + found[0].length);
          if (range.getClientRects().length > 1) words.push(found[0]);
        }
        return words;
    })""")
    assert broken == []


@pytest.mark.parametrize("width", [360, 800, 1200, 1600])
def test_of_the_list_of_vms_no_column_is_cut_off(browser: Browser, tmp_path: Path, width: int) -> None:
    show_list(browser, tmp_path)
    browser.look(width=width)
    assert browser.run("document.querySelector('.wide').scrollWidth") <= browser.run(
        "document.querySelector('.wide').clientWidth"
    )
    assert browser.run("document.querySelector('tbody td:last-child').clientWidth") >= 150


def show_list(browser: Browser, folder: Path) -> None:
    """The page of ``list``."""
    labels = {"id": ("100",), "node": ("pve-rack-12",), "pool": ("production",), "tag": ("k8s-worker", "a")}
    entries = [
        Entry(
            f"proxmox@datacentre-east:{number}",
            Listed(
                Vm(str(number), f"k8s-worker-{number}.east"), str(number), Power.SUSPENDED, "pending", labels
            ),
            drift="what is configured takes effect at its next power cycle only",
            proven="2026-11-29T12:00:00+00:00",
        )
        for number in range(100, 112)
    ]
    page = folder / "list.html"
    page.write_text(report_list.to_html(Inventory(entries), "2026-01-31 10:15 UTC"), encoding="utf-8")
    browser.open(page)


def test_the_words_of_the_picture_fit_into_their_frames(browser: Browser) -> None:
    wide = browser.run(
        "Array.from(document.querySelectorAll('details[open] .link')).filter((link) => "
        "link.querySelector('text').getBoundingClientRect().right > "
        "link.querySelector('.pill').getBoundingClientRect().right - 4).map((link) => link.textContent)"
    )
    assert wide == []
