"""Many targets as text and as JSON: what all come to, each one's line, and the exit code."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt import report, report_fleet
from nestvirt.cli.output import JsonLines, finish, finish_fleet
from nestvirt.errors import Busy, Fault, Interrupted
from nestvirt.model import Ending, Fleet, Report, Row
from tests.unit.fleets import DOWN, FLEET, FLEET_RUN, HOSTILE, ROWS, RUN, failing, fleet, hostile, proven

SCHEMAS = Path(__file__).parents[2] / "docs/reference"
SCHEMA = json.loads((SCHEMAS / "fleet.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def json_of(of: Fleet) -> str:
    return "".join(report_fleet.to_json(of))


def text_of(of: Fleet) -> str:
    return report_fleet.to_text(of).plain


# --- what it is called


@pytest.mark.parametrize(
    ("target", "name", "label"),
    [
        ("proxmox@dc1:102", "worker-3", "proxmox@dc1:102 (worker-3)"),
        ("proxmox@dc1:102", "", "proxmox@dc1:102"),
        ("libvirt:web-01", "web-01", "libvirt:web-01"),
        ("libvirt:web-01", "01", "libvirt:web-01 (01)"),
        ("vsphere:/DC0/vm/k8s/web-01", "web-01", "vsphere:/DC0/vm/k8s/web-01"),
        ("vmx:/vms/web-01/web-01.vmx", "web-01", "vmx:/vms/web-01/web-01.vmx"),
        ("host:ssh://root@node1", "node1", "host:ssh://root@node1"),
        ("hyperv:1-2-3", "\x1b[2J" + "x" * 300, "hyperv:1-2-3 ([2J" + "x" * 96 + "…)"),
    ],
)
def test_a_row_is_shown_with_what_its_users_call_the_vm(target: str, name: str, label: str) -> None:
    assert Row(target, name=name).label == label


# --- how it ended


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("proven", Ending.PASS),
        ("failing", Ending.FAIL),
        ("blocked", Ending.FAIL),
        ("planned", Ending.PLAN),
        ("down", Ending.UNKNOWN),
        ("no such", Ending.FAIL),
        ("earlier", Ending.PASS),
        ("not begun", Ending.NOT_BEGUN),
    ],
)
def test_how_a_row_ended(name: str, ending: Ending) -> None:
    assert ROWS[name].ending is ending
    assert fleet(name).endings[ending] == 1


@pytest.mark.parametrize(
    ("rows", "verdict", "code"),
    [
        (("proven", "earlier"), "pass", 0),
        (("proven", "planned"), "plan", 0),
        (("proven", "down"), "unknown", 3),
        (("proven", "not begun"), "unknown", 3),
        (("down", "failing", "proven"), "fail", 1),
        (("down", "blocked"), "fail", 1),
        (("proven", "no such"), "fail", 1),
        ((), "unknown", 3),
    ],
)
def test_the_worst_of_all_is_what_all_come_to(rows: tuple[str, ...], verdict: str, code: int) -> None:
    assert (report_fleet.verdict(fleet(*rows)), report_fleet.exit_code(fleet(*rows))) == (verdict, code)


def test_a_stop_and_a_fault_of_our_own_outweigh_a_failure() -> None:
    fault, stop = Row("libvirt:a", Fault("KeyError: 'cpu'")), Row("libvirt:b", Interrupted("stopped"))
    assert report_fleet.exit_code(Fleet((ROWS["failing"], fault))) == 70
    assert report_fleet.exit_code(Fleet((ROWS["failing"], fault, stop))) == 130
    assert (fault.ending, stop.ending) == (Ending.FAIL, Ending.UNKNOWN)


def test_only_what_this_run_did_has_changed() -> None:
    assert [name for name, row in ROWS.items() if row.changed] == ["proven"]


# --- JSON


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_has_the_reports_own_whole() -> None:
    own = json.loads((SCHEMAS / "report.schema.json").read_text(encoding="utf-8"))
    assert SCHEMA["$defs"]["report.schema.json"] == own


@pytest.mark.parametrize("of", [FLEET, *map(fleet, ROWS), Fleet(()), hostile()], ids=lambda of: of.command)
def test_json_is_as_the_schema_says(of: Fleet) -> None:
    fields = json.loads(json_of(of))
    VALIDATOR.validate(fields)
    assert fields["verdict"] == report_fleet.verdict(of)
    assert fields["summary"]["total"] == len(fields["fleet"]) == len(of.rows)


@pytest.mark.parametrize("of", [FLEET, Fleet(())], ids=["some", "none"])
def test_json_is_written_in_parts_as_if_at_once(of: Fleet) -> None:
    assert json_of(of) == json.dumps(json.loads(json_of(of)), indent=2, ensure_ascii=False)


def test_json_has_each_report_as_it_is_alone() -> None:
    fields = json.loads(json_of(FLEET))
    by_target = {row["target"]: row for row in fields["fleet"]}
    assert [by_target[name]["name"] for name in ("proxmox@lab:100", "libvirt:web-01")] == ["worker-3", None]
    assert by_target["libvirt:web-01"]["report"] == json.loads(report.to_json(proven("libvirt:web-01")))
    assert by_target["vsphere@east:web-03"]["report"] is None
    assert by_target["vsphere@east:web-03"]["error"]["kind"] == "ConnectionFailed"
    assert fields["summary"] == {
        "total": 8, "pass": 2, "plan": 1, "fail": 3, "unknown": 1, "not_begun": 1, "changed": 1,
    }  # fmt: skip


@pytest.mark.parametrize("row", [*FLEET.rows, *hostile().rows], ids=lambda row: str(row.ending))
def test_a_line_of_jsonl_is_as_the_schema_says(row: Row) -> None:
    line = report_fleet.row_to_json(row)
    assert "\n" not in line
    VALIDATOR.validate(json.loads(line))


def test_the_last_line_of_jsonl_is_as_the_schema_says() -> None:
    VALIDATOR.validate(json.loads(report_fleet.summary_to_json(FLEET)))


def _spoilt() -> Iterator[tuple[str, Any]]:
    whole = json.loads(json_of(FLEET))
    for field in whole:
        yield f"without {field}", {k: v for k, v in whole.items() if k != field}
    row = whole["fleet"][0]
    for field in row:
        yield f"a row without {field}", {**whole, "fleet": [{k: v for k, v in row.items() if k != field}]}
    wrong: list[dict[str, object]] = [{"ending": "good"}, {"seconds": -1}, {"surplus": 1}, {"report": {}}]
    for change in [*wrong, {"target": ""}]:
        yield f"a row with {change}", {**whole, "fleet": [row | change]}
    both = {**row, "error": {"kind": "Busy", "message": "busy", "evidence": "", "cure": ""}}
    yield "a report and an error", {**whole, "fleet": [both]}
    yield "another version", {**whole, "schema_version": 2}
    yield "a surplus field", {**whole, "surplus": 1}


SPOILT = dict(_spoilt())


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT.keys())
def test_the_schema_refuses_what_is_wrong(spoilt: Any) -> None:
    # Without its rows, what is left is the last line of jsonl, and right as that.
    assert VALIDATOR.is_valid(spoilt) is ("fleet" not in spoilt)


# --- text


def test_text_has_a_line_for_each_and_says_why_and_what_to_do() -> None:
    lines = [" ".join(line.split()) for line in text_of(FLEET).splitlines()]
    assert lines[0] == (
        "enable of 8 targets: 2 pass, 1 plan, 3 fail, 1 unknown, 1 not begun, 1 changed (17.5 s)"
    )
    assert lines[1:9] == [
        "PASS libvirt:web-01 ran guest code in the guest (by ssh): 9.5 µs an exit, 400.0 M loops/s; "
        "changed: cpu",
        "FAIL proxmox@lab:100 (worker-3) first broken link: vm-cpu",
        "FAIL proxmox@lab:101 nothing was done, because of: vm-lock",
        "PLAN vsphere:web-02 would write cpu and power-cycle the VM",
        "UNKNOWN vsphere@east:web-03 ConnectionFailed: vc1 does not answer",
        "FAIL libvirt:web-99 TargetError: there is no web-99",
        f"PASS libvirt:web-04 proven in run {FLEET_RUN}",
        "NOT BEGUN libvirt:web-05 3 had failed before",
    ]
    text = text_of(FLEET)
    assert "vm-lock\n  proxmox@lab:101: locked: backup\n    do this: wait for the backup\n" in text
    assert "vsphere@east:web-03: vc1 does not answer: connection refused\n    do this: start it\n" in text
    assert f"to go on: nestvirt enable --resume {FLEET_RUN}" in text
    assert f"to put all of it back: nestvirt undo {FLEET_RUN}\n" in text
    assert f"to put a VM back: nestvirt undo {RUN}" in text
    back = text_of(replace(FLEET, command="undo"))
    assert f"to go on: nestvirt undo {FLEET_RUN}" in back
    assert "back: nestvirt undo" not in back
    assert "to put all" not in text_of(replace(FLEET, rows=(ROWS["failing"],)))


def test_nothing_is_to_be_resumed_where_all_is_done() -> None:
    assert "--resume" not in text_of(replace(FLEET, rows=(ROWS["failing"], ROWS["proven"])))
    assert "--resume" in text_of(replace(FLEET, rows=(Row("libvirt:a", Interrupted("stopped")),)))


def test_while_a_vm_may_be_off_there_is_something_to_be_gone_on_with() -> None:
    ended = Fleet((ROWS["down"],), "enable", FLEET_RUN)
    assert "to go on" not in text_of(ended)
    text = text_of(replace(ended, down=1))
    assert "1 may be off still, which a run has shut down" in text
    assert f"to go on: nestvirt enable --resume {FLEET_RUN}" in text


def test_the_same_ill_of_many_is_told_of_a_few() -> None:
    many = Fleet(tuple(Row(f"libvirt:w{n}", failing(f"libvirt:w{n}")) for n in range(1000)))
    text = text_of(many)
    assert text.count("no svm") == report_fleet.DETAILED
    assert "and 990 more" in text
    assert text.count("FAIL") == 1000


def test_what_is_unknown_says_which_check() -> None:
    unknown = Row("libvirt:a", Report("libvirt:a", ()))
    assert report_fleet.reason(unknown) is None
    assert report_fleet.reason(Row("libvirt:a", Busy("busy", cure="wait"))) == ("Busy", "busy", "wait")


@given(st.text(max_size=100) | st.just(HOSTILE))
def test_no_foreign_text_controls_the_terminal(said: str) -> None:
    text = text_of(hostile(said))
    assert not [c for c in text if unicodedata.category(c).startswith("C") and c != "\n"]
    json.loads(json_of(hostile(said)))


# --- the command's output


@pytest.mark.parametrize("output", ["text", "json", "jsonl", "junit", "html"])
def test_every_form_is_printed_with_the_same_exit_code(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finish_fleet(FLEET, output) == 1
    assert "web-01" in capsys.readouterr().out or output == "jsonl"


def test_nagios_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish_fleet(FLEET, "nagios") == 2
    assert capsys.readouterr().out.startswith("NESTVIRT CRITICAL - ")


def test_a_line_is_written_as_each_ends(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines()
    for row in FLEET.rows:
        lines.tell(row)
        assert json.loads(capsys.readouterr().out)["target"] == row.target
    finish_fleet(FLEET, "jsonl")
    assert json.loads(capsys.readouterr().out)["summary"]["total"] == 8


def test_one_targets_jsonl_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(proven("libvirt:web-01"), "jsonl") == 0
    line = json.loads(capsys.readouterr().out)
    VALIDATOR.validate(line)
    assert (line["target"], line["ending"]) == ("libvirt:web-01", "pass")


def test_an_errors_json_is_as_the_schema_says() -> None:
    VALIDATOR.validate(json.loads(report.error_to_json(DOWN)))


# --- a single one


def test_a_single_target_is_told_as_any_report_is(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("proven", "blocked", "planned"):
        of = ROWS[name]
        assert isinstance(of.outcome, Report)
        code = finish_fleet(Fleet((of,)), "text")
        among_many = capsys.readouterr().out
        assert (finish(of.outcome, "text"), capsys.readouterr().out) == (code, among_many)


def test_what_is_to_be_known_of_a_single_ones_run_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    finish_fleet(replace(fleet("failing"), stopped="by Ctrl-C"), "text")
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("proxmox@lab:100 (worker-3): FAIL")
    assert "remains: the run was stopped: by Ctrl-C" in lines


@pytest.mark.parametrize("name", ["down", "no such", "earlier", "not begun"])
def test_a_single_one_without_a_report_has_its_row(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    finish_fleet(fleet(name), "text")
    assert capsys.readouterr().out.startswith("check of 1 target: ")
