"""A report as a page: well-formed, loading nothing, and inert whatever a hypervisor or a guest has said."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt import report_html
from nestvirt.cli.output import finish
from nestvirt.errors import ConnectionFailed
from nestvirt.model import Fleet, Report, Row
from nestvirt.report_html import markup
from tests.unit.fleets import DOWN, FLEET, HOSTILE, ROWS, RUN, blocked, failing, fleet, found, hostile, proven

MADE = "2026-01-31 10:15 UTC"


def parsed(page: str) -> ElementTree.Element:
    """The page, which has to be well-formed XML, too: nothing is left open, and nothing ambiguous."""
    doctype, _, rest = page.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)  # noqa: S314 - our own


def page_of(report: Report) -> ElementTree.Element:
    return parsed(report_html.to_html(report, MADE))


def words_of(element: ElementTree.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


class Strict(HTMLParser):
    """HTML's own rules for what is open and what is closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        assert len({name for name, _ in attrs}) == len(attrs)
        assert tag not in markup.VOID
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        assert tag in markup.VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def strict(page: str) -> Counter[str]:
    """How many of each element there are."""
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser.tags


PAGES = {
    "fleet": report_html.fleet_to_html(FLEET, MADE),
    "one": report_html.to_html(proven("libvirt:web-01"), MADE),
    "error": report_html.error_to_html(DOWN, MADE),
    "hostile": report_html.fleet_to_html(hostile(), MADE),
    "empty": report_html.fleet_to_html(Fleet(()), MADE),
}
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())


# --- the file


@each_page
def test_a_page_is_well_formed(page: str) -> None:
    assert strict(page)["title"] >= 1
    assert parsed(page).find("head/title") is not None


@each_page
def test_a_page_loads_nothing(page: str) -> None:
    root = parsed(page)
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("src", "style", "action", "srcdoc", "xlink:href", "ping")
            if name == "href":
                assert value == "data:," or re.fullmatch(r"#t\d+", value)
    assert {element.tag for element in root.iter()}.isdisjoint(
        {"iframe", "img", "object", "embed", "form", "use"}
    )
    style = root.findtext("head/style") or ""
    assert "@import" not in style
    assert "url(" not in style


@each_page
def test_a_pages_policy_allows_its_own_style_and_script_alone(page: str) -> None:
    root = parsed(page)
    policy = next(meta.get("content", "") for meta in root.iter("meta") if meta.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy
    for directive, tag in (("style-src", "style"), ("script-src", "script")):
        elements = list(root.iter(tag))
        assert len(elements) == 1
        digest = base64.b64encode(hashlib.sha256((elements[0].text or "").encode()).digest()).decode()
        assert rules[directive] == f"'sha256-{digest}'"


@each_page
def test_ids_are_given_once_and_links_lead_to_them(page: str) -> None:
    root = parsed(page)
    ids = Counter(element.get("id") for element in root.iter() if element.get("id"))
    assert set(ids.values()) <= {1}
    assert {a.get("href", "")[1:] for a in root.iter("a")} <= set(ids)


@given(st.text(max_size=60) | st.just(HOSTILE))
def test_whatever_others_say_adds_no_element(said: str) -> None:
    page = report_html.fleet_to_html(hostile(said), MADE)
    parsed(page)
    tags = strict(page)
    assert (tags["script"], tags["style"], tags["img"]) == (1, 1, 0)
    page.encode("utf-8")


def test_foreign_words_are_shown_as_they_are() -> None:
    said = "<b>\"'&amp;</b>"
    root = page_of(Report("libvirt:a", (found("vm-cpu fail", said, said),)))
    assert words_of(root).count(said) >= 3


@given(st.text(max_size=60), st.text(max_size=60))
def test_an_element_escapes_what_it_is_given(inside: str, attribute: str) -> None:
    made = ElementTree.fromstring(markup.el("p", inside, of={"title": attribute}))  # noqa: S314
    assert len(made) == 0
    assert set(made.attrib) == {"title"}


# --- the fleet


def rows_of(root: ElementTree.Element) -> list[list[str]]:
    table = next(t for t in root.iter("table") if t.get("class") == "sortable")
    return [[words_of(cell) for cell in row] for row in table.findall("tbody/tr")]


def test_the_table_has_a_row_for_each_target() -> None:
    named = {row[1]: row for row in rows_of(parsed(PAGES["fleet"]))}
    rows = [named[row.label] for row in FLEET.rows]
    assert rows[0] == [
        "pass",
        "libvirt:web-01",
        "libvirt",
        "ran guest code in the guest (by ssh): 9.5 µs an exit, 400.0 M loops/s; changed: cpu",
        "9.5",
        "12.2",
    ]
    assert rows[1][:4] == ["fail", "proxmox@lab:100 (worker-3)", "proxmox", "vm-cpu no svm"]
    assert rows[4][:4] == [
        "unknown",
        "vsphere@east:web-03",
        "vsphere",
        "ConnectionFailed vc1 does not answer: connection refused",
    ]
    assert [row[0] for row in rows] == [
        "pass", "fail", "fail", "plan", "unknown", "fail", "pass", "not begun",
    ]  # fmt: skip


def test_states_sort_by_urgency_and_figures_by_value() -> None:
    root = parsed(PAGES["fleet"])
    table = next(t for t in root.iter("table") if t.get("class") == "sortable")
    keys = [[cell.get("data-key") for cell in row] for row in table.findall("tbody/tr")]
    urgency = sorted((int(row[0] or ""), words[0]) for row, words in zip(keys, rows_of(root), strict=True))
    assert list(dict.fromkeys(word for _, word in urgency)) == [
        "fail",
        "unknown",
        "not begun",
        "plan",
        "pass",
    ]
    assert (keys[-2][4], keys[0][4]) == ("9500.0", "-1")


def test_the_tiles_count() -> None:
    tiles = next(ul for ul in parsed(PAGES["fleet"]).iter("ul") if ul.get("class") == "tiles")
    assert [words_of(tile) for tile in tiles] == [
        "2 pass", "1 plan", "3 fail", "1 unknown", "1 not begun", "1 changed",
    ]  # fmt: skip


def test_the_ill_are_on_top_and_else_the_order_is_the_commands() -> None:
    assert [row[0] for row in rows_of(parsed(PAGES["fleet"]))] == [
        *("fail", "fail", "fail", "unknown", "not begun", "plan", "pass", "pass"),
    ]


@pytest.mark.parametrize(
    ("of", "dry"),
    [(fleet("proven", "planned"), True), (fleet("proven", "down"), False), (FLEET, False)],
    ids=["planned", "done", "stopped while it was planned"],
)
def test_a_dry_runs_heading_says_that_it_was_one(of: Fleet, dry: bool) -> None:
    root = parsed(report_html.fleet_to_html(of, MADE))
    for said in (root.findtext("head/title") or "", words_of(next(root.iter("h1")))):
        assert ("dry run of " in said) is dry


def test_what_is_ill_is_open_and_the_rest_is_closed() -> None:
    targets = [d for d in parsed(PAGES["fleet"]).iter("details") if "target" in (d.get("class") or "")]
    by_name = {d.findtext("summary/b"): "open" in d.attrib for d in targets}
    assert by_name == {
        "libvirt:web-01": False,
        "proxmox@lab:100 (worker-3)": True,
        "proxmox@lab:101": True,
        "vsphere:web-02": False,
        "vsphere@east:web-03": True,
        "libvirt:web-99": True,
    }


def test_of_very_many_the_ill_are_shown_first() -> None:
    many = [Row(f"libvirt:w{n}", proven(f"libvirt:w{n}")) for n in range(report_html.MOST_DRAWN)]
    root = parsed(report_html.fleet_to_html(Fleet((*many, ROWS["failing"], ROWS["down"])), MADE))
    names = [d.findtext("summary/b") for d in root.iter("details") if "target" in (d.get("class") or "")]
    assert len(names) == report_html.MOST_DRAWN
    assert names[-2:] == ["proxmox@lab:100 (worker-3)", "vsphere@east:web-03"]
    assert len(rows_of(root)) == report_html.MOST_DRAWN + 2
    assert "2 more are not shown one by one" in words_of(root)


def test_the_date_is_at_the_top() -> None:
    for page in PAGES.values():
        assert MADE in words_of(parsed(page).find("body/header") or ElementTree.Element("none"))


def test_a_figure_has_its_heading_beside_it_for_a_narrow_window() -> None:
    table = next(t for t in parsed(PAGES["fleet"]).iter("table") if t.get("class") == "sortable")
    heads = [cell.get("data-head") for cell in table.findall("tbody/tr")[0]]
    assert heads == [None, None, "Kind", None, "Exit, µs", "Took, s"]


# --- one target


def test_a_target_says_what_is_broken_and_what_to_do() -> None:
    said = words_of(page_of(failing("libvirt:a")))
    assert "First broken link: vm-cpu no svm mend it" in said
    assert "Nothing was done, because of: vm-lock" in words_of(page_of(blocked("libvirt:a")))


def test_all_that_stands_in_the_way_is_told() -> None:
    both = (found("vm-lock fail", "locked"), found("vm-ha fail", "in error"))
    said = words_of(page_of(Report("libvirt:a", both, blockers=both)))
    assert "because of: vm-lock locked mend it Nothing was done, because of: vm-ha in error mend it" in said


def test_a_target_shows_its_changes_and_how_they_are_undone() -> None:
    root = page_of(proven("libvirt:a"))
    lines = "".join(next(root.iter("pre")).itertext()).splitlines()
    assert "+<cpu mode='host-passthrough'/>" in lines
    assert "-  <model>EPYC</model>" in lines
    assert f"nestvirt undo {RUN}" in words_of(root)


def test_all_findings_are_there() -> None:
    root = page_of(proven("libvirt:a", "guest-vhost warn", "host-cpu unknown"))
    details = next(d for d in root.iter("details") if d.get("class") == "findings")
    assert words_of(details).startswith("All 6 findings, 2 of them ill")
    assert words_of(details).count("mend it") == 2


def test_the_same_of_many_nodes_is_one_row() -> None:
    nodes = tuple(found("cluster-node-kvm fail", "no /dev/kvm", subject=f"w{n}") for n in range(100))
    root = page_of(Report("cluster lab", nodes, goal=None))
    details = next(d for d in root.iter("details") if d.get("class") == "findings")
    assert "w18, w19 and 80 more: no /dev/kvm mend it" in words_of(details)


def test_an_error_is_told_with_its_evidence_and_cure() -> None:
    said = words_of(parsed(PAGES["error"]))
    assert "vc1 does not answer" in said
    assert "connection refused start it" in said


# --- the command's output


def test_a_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(failing("libvirt:a"), "html") == 1
    assert "First broken link" in words_of(parsed(capsys.readouterr().out.rstrip("\n")))


def test_an_error_with_nothing_but_a_message_is_a_page_too() -> None:
    parsed(report_html.error_to_html(ConnectionFailed("no"), MADE))
    parsed(report_html.fleet_to_html(fleet("down", "not begun"), MADE))
