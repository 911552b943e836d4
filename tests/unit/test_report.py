"""A report as text and as JSON, whatever a hypervisor or a guest has put into it."""

from __future__ import annotations

import io
import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nestvirt import errors, report
from nestvirt.cli.output import stdout_console
from nestvirt.errors import Error
from nestvirt.model import PROOF, Change, Finding, Goal, Layer, Proof, Report, Status
from nestvirt.printable import printable

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs/reference/report.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\x00\u202e\u2028\U000e0041[red]\\[/]:boom:" * 3
CPU = Change("cpu", "<cpu mode='custom'>\n  <model>ä</model>\n</cpu>", "<cpu mode='host-passthrough'/>")
RUN = "20260131-101500-1a2b3c"


def proven(verdict: str = "works", channel: str = "ssh", **numbers: float) -> Proof:
    return Proof(verdict, None if verdict == "works" else "emulated", channel, numbers)


def of(*findings: str, **fields: Any) -> Report:
    """A report with findings written as "check status"."""
    found = []
    for words in findings:
        check, status = words.split()
        layer, ill = Layer(check.partition("-")[0]), status in ("warn", "fail", "unknown")
        found.append(Finding(check, layer, Status(status), f"{check} was seen", "mend it" if ill else ""))
    return Report("libvirt:web-01", tuple(found), **fields)


def on(subject: str, status: Status = Status.FAIL, evidence: str = "no /dev/kvm") -> Finding:
    """A node's finding."""
    cure = "" if status is Status.PASS else f"mend {evidence}"
    return Finding("cluster-node-kvm", Layer.CLUSTER, status, evidence, cure, subject=subject)


REPORTS = {
    "proven": of("host-kvm pass", "vm-cpu pass", f"{PROOF} pass", proof=proven(exit_ns=9.5, loops_per_s=4e8)),
    "failed": of("host-nested fail", "vm-cpu fail", "vm-agent warn", "guest-kvm-run unknown"),
    "unknown": of("vm-cpu pass", f"{PROOF} unknown", proof=Proof("unknown", "guest-unreachable", "none")),
    "not proven": of(f"{PROOF} unknown", proof=Proof("not-proven", "not-proven", "ssh")),
    "emulated": of(f"{PROOF} pass", "guest-kvm-speed fail", proof=proven("works-emulated")),
    "enabled": of(f"{PROOF} pass", proof=proven(), changes=(CPU,), run=RUN, remains=("power-cycle it",)),
    "disabled": of("vm-cpu pass", "guest-withdrawn pass", changes=(CPU,), run=RUN, goal=Goal(nested=False)),
    "undone": of("vm-restored pass", changes=(Change("cpu", CPU.after, CPU.before),), run=RUN, goal=None),
    "a setting that was not there": of(
        "vm-restored pass", changes=(Change("cpu", None, "<cpu/>"),), run=RUN, goal=None
    ),
    "asked": of(f"{PROOF} pass", proof=proven(channel="powershell-direct", kvm_users=2)),
    "nothing found": of(),
    "cluster": of(
        "cluster-api pass", "cluster-pod-kata pass", goal=None, summary="kata-qemu runs on 3 nodes"
    ),
    "cluster failed": of("cluster-api pass", "cluster-node-kvm fail", goal=None),
    "cluster refused": of("cluster-node-kvm fail", goal=None, blockers=(on("w1"), on("w2"))),
    "skips": of("guest-device skip", "guest-vhost skip", f"{PROOF} pass", proof=proven(channel="local")),
}
each_report = pytest.mark.parametrize("result", REPORTS.values(), ids=REPORTS.keys())


def text_of(result: Report) -> str:
    return report.to_text(result).plain


# --- JSON


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@each_report
def test_json_is_as_the_schema_says(result: Report) -> None:
    fields = json.loads(report.to_json(result))
    VALIDATOR.validate(fields)
    assert fields["verdict"] == result.conclusion
    assert fields["first_broken"] == (result.first_broken.check if result.first_broken else None)
    assert [f["check"] for f in fields["findings"]] == [f.check for f in result.findings]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param({"verdict": "perfect"}, id="verdict"),
        pytest.param({"surprise": 1}, id="a further field"),
        pytest.param({"schema_version": 2}, id="version"),
        pytest.param({"findings": [{"check": "vm-cpu"}]}, id="half a finding"),
        pytest.param({"first_broken": "vm-cpu"}, id="broken, but passed"),
        pytest.param({"run": "yesterday"}, id="run"),
    ],
)
def test_the_schema_refuses_what_is_wrong(spoil: dict[str, object]) -> None:
    fields = json.loads(report.to_json(REPORTS["proven"])) | spoil
    assert not VALIDATOR.is_valid(fields)


ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Error)]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_errors_json_is_as_the_schema_says(kind: type[Error]) -> None:
    fields = json.loads(report.error_to_json(kind("it broke", evidence=HOSTILE, cure="mend it")))
    VALIDATOR.validate(fields)
    assert fields["error"]["kind"] == kind.__name__
    assert fields["error"]["evidence"].isprintable()


# --- text


@pytest.mark.parametrize(("width", "column"), [(100, 34), (80, 34), (64, 34), (60, 10), (40, 10)])
def test_on_a_terminal_every_line_of_a_check_begins_below_the_one_before(width: int, column: int) -> None:
    said = replace(on("n1", evidence="is " * 60), cure="do " * 60)
    skipped = tuple(Finding(f"guest-{'x' * n}", Layer.GUEST, Status.SKIP, "") for n in (20, 21, 22, 23))
    shown = io.StringIO()
    Console(file=shown, width=width).print(
        report.to_text(Report("libvirt:a", (said, *skipped)), width), soft_wrap=False
    )
    checks = shown.getvalue().partition("\nwhy, and ")[0]
    lines = [line for line in checks.splitlines() if line]
    heads = ("libvirt:a", "cluster", "guest", "  FAIL", "  SKIP", f"{'':10}do this:", report.MORE)
    further = [len(line) - len(line.lstrip()) for line in lines if not line.startswith(heads)]
    assert set(further) == {column, 10}
    assert shown.getvalue().split().count("is") == 60


@each_report
def test_text_says_all_that_is_ill_and_what_to_do(result: Report) -> None:
    text = text_of(result)
    assert text.startswith(f"libvirt:web-01: {result.conclusion.upper()}")
    for found in result.findings:
        assert found.check in text
        assert found.evidence in text
    assert text.count("mend it") == sum(found.ill for found in result.findings)
    assert all(line in text for line in result.remains)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("proven", "ran guest code in the guest (by ssh): 0.0 µs an exit, 400.0 M loops/s"),
        ("asked", "PASS  saw 2 VMs run in the guest (by powershell-direct)"),
        ("failed", "first broken link: host-nested"),
        ("unknown", "not proven"),
        ("not proven", "not proven"),
        ("emulated", "first broken link: guest-kvm-speed"),
        ("enabled", f"to put it back: nestvirt undo {RUN}"),
        ("disabled", "nesting is gone"),
        ("undone", f"run {RUN} is undone"),
        ("a setting that was not there", "(not set)"),
        ("cluster", "PASS  kata-qemu runs on 3 nodes"),
        ("cluster failed", "first broken link: cluster-node-kvm"),
        ("cluster refused", "nothing was done, because of: cluster-node-kvm\n"),
        ("skips", "SKIP    guest-device            guest-device was seen"),
        ("skips", "ran guest code on this machine"),
    ],
)
def test_the_words(name: str, words: str) -> None:
    assert words in text_of(REPORTS[name])


@pytest.mark.parametrize("name", [name for name in REPORTS if name not in ("proven", "enabled", "skips")])
def test_only_a_proof_is_called_one(name: str) -> None:
    assert "ran guest code" not in text_of(REPORTS[name])


def test_what_is_the_same_on_many_nodes_is_said_once() -> None:
    nodes = [f"w{n}" for n in range(1, 201)]
    found = [on(node, Status.PASS, "guest code ran") for node in nodes]
    found[6:6] = [on("w201"), on("w202", evidence="blacklisted"), on("w203")]
    lines = text_of(Report("cluster lab", tuple(found), goal=None)).splitlines()
    assert lines[0] == "cluster lab: FAIL  first broken link: cluster-node-kvm (w201 and 2 more)"
    assert [" ".join(line.split()) for line in lines[3:]] == [
        "PASS cluster-node-kvm w1, w2, w3 and 197 more: guest code ran",
        "FAIL cluster-node-kvm w201, w203: no /dev/kvm",
        "do this: mend no /dev/kvm",
        "FAIL cluster-node-kvm w202: blacklisted",
        "do this: mend blacklisted",
        *("", "why, and what else may help: nestvirt explain cluster-node-kvm"),
    ]


def test_what_is_ill_is_named_longer() -> None:
    text = text_of(Report("cluster lab", tuple(on(f"w{n}") for n in range(1, 13)), goal=None))
    assert "w9, w10 and 2 more: no /dev/kvm" in text


def test_json_says_of_whom() -> None:
    fields = json.loads(report.to_json(Report("cluster lab", (on("w1/kata-qemu"),), goal=None)))
    VALIDATOR.validate(fields)
    assert fields["findings"][0]["subject"] == "w1/kata-qemu"


def test_findings_without_a_subject_are_not_thrown_together() -> None:
    twice = Finding("vm-snapshot-memory", Layer.VM, Status.WARN, "one has", "drop it")
    assert text_of(Report("libvirt:x", (twice, twice))).count("one has") == 2


def test_what_was_undone_is_not_offered_for_undoing() -> None:
    assert "nestvirt undo" not in text_of(REPORTS["undone"])


def test_a_diff_shows_what_changes() -> None:
    lines = [line.strip() for line in report.diff([CPU]).plain.splitlines()]
    assert lines == [
        "cpu",
        "-<cpu mode='custom'>",
        "-  <model>ä</model>",
        "-</cpu>",
        "+<cpu mode='host-passthrough'/>",
    ]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("x86-64-v2-AES", "host", "cpu: x86-64-v2-AES -> host"),
        (None, "host", "cpu: (not set) -> host"),
        ("host", None, "cpu: host -> (not set)"),
    ],
)
def test_a_diff_of_a_short_value_is_a_line(before: str | None, after: str | None, line: str) -> None:
    assert report.diff([Change("cpu", before, after)]).plain == f"  {line}\n"


@given(st.text(max_size=200) | st.just(HOSTILE))
def test_no_foreign_text_controls_the_terminal(said: str) -> None:
    layer = Layer.GUEST
    found = tuple(Finding(f"guest-{status}", layer, status, said, said, subject=said) for status in Status)
    changes = (Change("cpu", said, said + "x"),)
    result = Report(said or "x", found, changes, proven(), RUN, (said,), summary=said)
    text = text_of(result)
    assert not [c for c in text if unicodedata.category(c).startswith("C") and c != "\n"]
    shown = io.StringIO()
    Console(file=shown, highlight=False, emoji=False, markup=False, no_color=True).print(
        report.to_text(result)
    )
    assert "\x1b" not in shown.getvalue()
    fields = json.loads(report.to_json(result))
    assert all(f["evidence"].isprintable() and f["subject"].isprintable() for f in fields["findings"])
    assert fields["changes"][0]["before"] == said


@each_report
def test_without_a_terminal_there_is_no_escape(result: Report, capsys: pytest.CaptureFixture[str]) -> None:
    stdout_console().print(report.to_text(result))
    shown = capsys.readouterr().out
    assert shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("no_color", [True, False])
def test_no_color_is_honoured_on_a_terminal(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    Console(file=shown, force_terminal=True).print(report.to_text(REPORTS["failed"]))
    assert ("\x1b[1;31m" in shown.getvalue()) is not no_color


def test_the_plan_of_a_cluster_is_one_list_before_what_it_changes() -> None:
    plan = ("helm install kata-deploy", "label 2 nodes")
    changes = (Change("DaemonSet", "a", "b"),)
    text = text_of(of("cluster-api pass", goal=None, planned=True, changes=changes, remains=plan))
    assert "\nwould do:\n  helm install kata-deploy\n  label 2 nodes\n\nchanges\n  DaemonSet: a -> b" in text
    assert "remains:" not in text


def test_what_a_vms_dry_run_says_is_a_sentence() -> None:
    text = text_of(of("vm-cpu pass", planned=True, changes=(CPU,), remains=("dry run, it would write cpu",)))
    assert "remains: dry run, it would write cpu" in text
    assert "would do:" not in text


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("proven", 0),
        ("enabled", 0),
        ("disabled", 0),
        ("undone", 0),
        ("failed", 1),
        ("emulated", 1),
        ("unknown", 3),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    assert report.exit_code(REPORTS[name]) == code


RAISED = Change("config.version", "vmx-08", "vmx-13")


def test_what_cannot_be_undone_is_not_offered_for_undoing() -> None:
    text = text_of(replace(REPORTS["enabled"], changes=(RAISED,)))
    assert "nestvirt undo" not in text
    assert "config.version: vmx-13 stays, which nobody can undo" in text


def test_of_a_run_that_did_both_the_rest_is_offered_for_undoing() -> None:
    text = text_of(replace(REPORTS["enabled"], changes=(RAISED, *REPORTS["enabled"].changes)))
    assert "nestvirt undo" in text
    assert "config.version: vmx-13 stays, which nobody can undo" in text


@given(st.text(max_size=80))
def test_what_is_printable_already_stays_as_it_is(said: str) -> None:
    """The short way of printable() and the long one come to the same."""
    padded = said + "\x00"
    assert printable(said) == printable(padded)
