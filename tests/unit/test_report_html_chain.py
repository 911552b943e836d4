"""The picture of one report's chain: what it shows, what is broken first, and what is behind it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from nestvirt.model import Goal, Layer, Proof, Report, Status
from nestvirt.report_html import chain
from tests import test_house
from tests.unit.fleets import blocked, failing, found, proven

SVG_STATES = {"pass", "warn", "fail", "unknown", "skip", "none", "later"}


def links(report: Report) -> dict[str, str]:
    """The drawn links by their words, and their state, as a reader of the picture sees them."""
    drawn = chain.chain(report)
    if not drawn:
        return {}
    picture = ElementTree.fromstring(drawn)  # noqa: S314
    groups = [g for g in picture.iter("g") if (g.get("class") or "").startswith("link ")]
    return {g.findtext("text") or "": (g.get("class") or "").removeprefix("link ") for g in groups}


def test_every_check_in_the_picture_exists() -> None:
    checks = {c for column in (*chain.COLUMNS, *chain.CLUSTER) for link in column.links for c in link.checks}
    assert checks <= set(test_house.checks())


def test_a_check_is_in_one_link() -> None:
    checks = [c for column in (*chain.COLUMNS, *chain.CLUSTER) for link in column.links for c in link.checks]
    assert len(checks) == len(set(checks))


def test_the_picture_shows_what_was_found() -> None:
    drawn = links(proven("libvirt:a", "guest-cpu-flag warn"))
    assert drawn["nesting allowed"] == drawn["setting is on"] == drawn["guest code ran"] == "pass"
    assert drawn["CPU flag"] == "warn"
    assert drawn["in effect"] == "none"
    assert all(state.split()[0] in SVG_STATES for state in drawn.values())


def test_the_picture_shows_where_it_breaks() -> None:
    drawn = links(failing("libvirt:a"))
    assert [words for words, state in drawn.items() if "broken" in state] == ["setting is on"]


@pytest.mark.parametrize("status", [Status.FAIL, Status.UNKNOWN])
def test_what_is_ill_and_of_no_link_is_drawn_by_its_name(status: Status) -> None:
    assert links(proven("libvirt:a", f"vm-lock {status}"))["vm-lock"].split()[0] == status


def test_what_blocks_is_drawn_as_broken() -> None:
    assert links(blocked("libvirt:a"))["vm-lock"] == "fail broken"


def test_of_a_paused_vm_the_pause_is_the_first_cross_and_the_setting_comes_later() -> None:
    paused = found("vm-suspended fail", "paused")
    drawn = links(Report("libvirt:a", (paused, found("vm-cpu fail")), blockers=(paused,)))
    assert (drawn["setting is on"], drawn["in effect"], drawn["vm-suspended"]) == (
        "later",
        "none",
        "fail broken",
    )


@pytest.mark.parametrize("blocked", [False, True], ids=["the first that fails", "what blocks"])
@pytest.mark.parametrize("check", sorted(test_house.checks()))
def test_the_first_cross_is_the_first_broken_link(check: str, blocked: bool) -> None:
    """All of the machine fails, or of all machines; and that check is the one to cure first."""
    first = found(f"{check} fail")
    cluster = first.layer is Layer.CLUSTER
    others = [found(f"{other} fail") for other in test_house.checks() if other != check]
    alike = [f for f in others if (f.layer is Layer.CLUSTER) is cluster]
    if blocked:
        report = Report("x", (*alike, first), blockers=(first,))
    else:
        report = Report("x", (first, *(f for f in alike if f.layer is first.layer)))
    assert report.first_broken == first
    crosses = [words for words, state in links(report).items() if state.startswith("fail")]
    frames = [words for words, state in links(report).items() if state.endswith(" broken")]
    asked = {link.words: link.checks for c in (*chain.COLUMNS, *chain.CLUSTER) for link in c.links}
    assert crosses[:1] == frames
    assert check in asked.get(frames[0], frames)


def test_what_is_behind_the_break_is_cut_off() -> None:
    picture = ElementTree.fromstring(chain.chain(failing("libvirt:a")))  # noqa: S314
    arrows = [drawn.get("class") for drawn in picture if (drawn.get("class") or "").startswith("arrow")]
    assert arrows == ["arrow", "arrow cut", "arrow cut"]


def machines(report: Report) -> list[str]:
    picture = ElementTree.fromstring(chain.chain(report))  # noqa: S314
    return [text.text or "" for text in picture.iter("text") if text.get("class") == "machine-name"]


@pytest.mark.parametrize(
    ("report", "names"),
    [
        pytest.param(failing("libvirt:a"), ["Host", "VM", "Guest", "VM in the guest"], id="a VM"),
        pytest.param(Report("host:local", (found("host-cpu pass"),)), ["Host"], id="a host"),
        pytest.param(
            Report("libvirt:a", (found("vm-cpu pass"),), goal=Goal(nested=False)), ["VM"], id="disabled"
        ),
        pytest.param(
            Report("this machine", (found("guest-device pass"),), proof=Proof("works", None, "local")),
            ["This machine", "VM in it"],
            id="this machine",
        ),
        pytest.param(
            Report("cluster lab", (found("cluster-api pass"),), goal=None),
            ["Cluster", "Nodes", "Kata", "Pods"],
            id="a cluster",
        ),
    ],
)
def test_the_picture_has_the_machines_that_matter(report: Report, names: list[str]) -> None:
    assert machines(report) == names


def test_the_picture_can_be_heard() -> None:
    picture = ElementTree.fromstring(chain.chain(failing("libvirt:a")))  # noqa: S314
    assert picture.get("role") == "img"
    assert "VM: fit to nest not asked, setting is on fail" in (picture.get("aria-label") or "")


def test_without_findings_there_is_no_picture() -> None:
    assert chain.chain(Report("libvirt:a", ())) == ""


@pytest.mark.parametrize("layer", Layer)
def test_the_worst_of_a_link_is_shown(layer: Layer) -> None:
    column = next(c for c in (*chain.COLUMNS, *chain.CLUSTER) if c.layer is layer)
    check = column.links[0].checks[0]
    report = Report("x", (found(f"{check} pass"), found(f"{check} fail"), found(f"{check} unknown")))
    assert links(report)[column.links[0].words].startswith("fail")
