"""What a monitor reads: the plugin guidelines' one line, figures, further lines, and state."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestvirt import cli, nagios
from nestvirt.cli.output import finish, plugin_code
from nestvirt.errors import AccessDenied, Busy, Error, SettingsError, TargetError
from nestvirt.model import PROOF, Ending, Fleet, Report, Row
from nestvirt.nagios import State
from tests.unit.fleets import DOWN, FLEET, HOSTILE, blocked, failing, fleet, found, hostile, planned, proven

FIGURE = re.compile(
    r"(?P<label>'(?:[^'=|]|'')+'|[^'=| ]+)=(?P<value>-?[0-9.]+)(?P<unit>s|us|ms|%|B|KB|MB|TB|c)?"
    r"(?:;(?P<warn>[0-9.:~@]*))?(?:;(?P<crit>[0-9.:~@]*))?(?:;(?P<min>[0-9.]*))?(?:;(?P<max>[0-9.]*))?"
)
"""'label'=value[UOM];[warn];[crit];[min];[max] of the Monitoring Plugins' development guidelines."""


def read(said: str) -> tuple[str, list[str], list[str]]:
    """As a monitor does: the first line, the further lines, and the figures, each of them well-formed."""
    head, *rest = said.split("\n")
    first, _, figures = head.partition("|")
    lines: list[str] = []
    while rest:
        line, bar, more = rest.pop(0).partition("|")
        lines.append(line.rstrip())
        if bar:
            figures += " ".join(["", more, *rest])
            break
    assert "|" not in figures
    matches = list(FIGURE.finditer(figures))
    assert " ".join(match[0] for match in matches).split() == figures.split()
    return first.rstrip(), lines, [match[0] for match in matches]


@pytest.mark.parametrize(
    ("report", "state"),
    [
        pytest.param(proven("libvirt:a"), State.OK, id="proven"),
        pytest.param(proven("libvirt:a", "host-nested-next-boot warn"), State.WARNING, id="warned"),
        pytest.param(proven("libvirt:a", "host-cpu unknown"), State.OK, id="unread, but proven"),
        pytest.param(planned("libvirt:a"), State.WARNING, id="something to do"),
        pytest.param(failing("libvirt:a"), State.CRITICAL, id="broken"),
        pytest.param(blocked("libvirt:a"), State.CRITICAL, id="blocked"),
        pytest.param(Report("libvirt:a", (found(f"{PROOF} unknown"),)), State.UNKNOWN, id="not found out"),
    ],
)
def test_the_state_is_the_exit_code(report: Report, state: State, capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(report, "nagios") == state
    first, _, _ = read(capsys.readouterr().out.rstrip("\n"))
    assert first.startswith(f"NESTVIRT {state.name} - libvirt:a: ")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DOWN, State.UNKNOWN),
        (AccessDenied("refused"), State.UNKNOWN),
        (TargetError("no such"), State.UNKNOWN),
        (SettingsError("no such"), State.UNKNOWN),
        (Busy("busy"), State.CRITICAL),
    ],
)
def test_an_error_is_no_proof_of_a_failure(error: Error, state: State) -> None:
    assert nagios.state(error) is state
    assert nagios.error_to_nagios(error).startswith(f"NESTVIRT {state.name} - {type(error).__name__}: ")


def test_the_figures_of_one() -> None:
    first, lines, figures = read(nagios.to_nagios(proven("libvirt:a")))
    assert "ran guest code in the guest (by ssh)" in first
    assert figures == ["exit_latency=9.50us;1000;;0;", "loops_per_s=400000000;;;0;", "kvm_users=1;;;0;"]
    assert lines == []


def test_what_is_ill_follows_with_its_cure() -> None:
    first, lines, figures = read(nagios.to_nagios(failing("libvirt:a")))
    assert first == "NESTVIRT CRITICAL - libvirt:a: first broken link: vm-cpu"
    assert lines == ["FAIL vm-cpu: no svm - do this: mend it"]
    assert figures == []


def test_the_first_line_names_what_warned() -> None:
    warned = proven("libvirt:a", "host-nested-next-boot warn", "vm-agent warn")
    assert "host-nested-next-boot, vm-agent warned" in read(nagios.to_nagios(warned))[0]


def test_of_many_a_line_names_what_warned() -> None:
    warned = Row("libvirt:a", proven("libvirt:a", "vm-agent warn"))
    _, lines, _ = read(nagios.fleet_to_nagios(Fleet((warned,))))
    assert lines[0].startswith("WARNING libvirt:a: ran guest code")
    assert lines[0].endswith("; vm-agent warned")


def test_the_first_line_of_a_dry_run_says_what_it_would_do() -> None:
    assert "it would write cpu and power-cycle the VM" in read(nagios.to_nagios(planned("libvirt:a")))[0]


def test_many_are_counted_and_the_ill_have_a_line_each() -> None:
    first, lines, figures = read(nagios.fleet_to_nagios(FLEET))
    assert first.startswith("NESTVIRT CRITICAL - enable of 8 targets: 2 ok, 1 warning, 2 critical, 3 unknown")
    assert first.endswith("proxmox@lab:100 (worker-3), proxmox@lab:101, vsphere@east:web-03 and 3 more")
    assert figures == [
        "ok=2;;;0;8",
        "warning=1;;;0;8",
        "critical=2;;;0;8",
        "unknown=3;;;0;8",
        "time=17.500s;;;0;",
        "'libvirt:web-01 exit_latency'=9.50us;1000;;0;",
    ]
    assert [line.partition(":")[0] for line in lines] == [
        "CRITICAL proxmox@lab",
        "CRITICAL proxmox@lab",
        "UNKNOWN vsphere@east",
        "UNKNOWN libvirt",
        "UNKNOWN libvirt",
        "WARNING vsphere",
    ]


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        (("proven", "earlier"), State.OK),
        (("proven", "planned"), State.WARNING),
        (("planned", "down"), State.UNKNOWN),
        (("down", "failing"), State.CRITICAL),
        (("proven", "not begun"), State.UNKNOWN),
        ((), State.UNKNOWN),
    ],
)
def test_a_failure_is_not_hidden_by_what_was_not_asked(rows: tuple[str, ...], state: State) -> None:
    assert nagios.fleet_state(fleet(*rows)) is state


@pytest.mark.parametrize(
    ("ending", "state"),
    [(Ending.PASS, State.OK), (Ending.FAIL, State.CRITICAL), (Ending.UNKNOWN, State.UNKNOWN)],
)
def test_how_a_row_ended_before_counts(ending: Ending, state: State) -> None:
    assert nagios.fleet_state(Fleet((Row("libvirt:a", earlier=ending),))) is state


def test_figures_of_one_healthy_fleet_stand_after_a_line() -> None:
    _, lines, figures = read(nagios.fleet_to_nagios(fleet("proven")))
    assert (lines, len(figures)) == (["all:"], 5)


def test_there_is_an_end_to_the_lines_and_to_the_figures() -> None:
    well = tuple(Row(f"libvirt:p{n}", proven(f"libvirt:p{n}")) for n in range(1000))
    many = Fleet((*(Row(f"libvirt:w{n}", failing(f"libvirt:w{n}")) for n in range(1000)), *well))
    _, lines, figures = read(nagios.fleet_to_nagios(many))
    assert len(figures) == 4 + nagios.LINES
    assert len(lines) == nagios.LINES + 1
    assert lines[-1] == "and 800 more"


@given(st.text(max_size=100) | st.just(HOSTILE) | st.just("a'b=c|d\ne"))
def test_whatever_others_say_it_stays_in_form(said: str) -> None:
    for of in (nagios.fleet_to_nagios(hostile(said)), nagios.error_to_nagios(Busy(said, evidence=said))):
        first, _, _ = read(of)
        assert re.match(r"NESTVIRT (OK|WARNING|CRITICAL|UNKNOWN) - ", first)
    for row in hostile(said).rows:
        if isinstance(row.outcome, Report):
            read(nagios.to_nagios(replace(row.outcome, target=said)))


@pytest.mark.parametrize(
    "words", [["-o", "nagios"], ["-onagios"], ["-qo", "nagios"], ["--output", "nagios"], ["--output=nagios"]]
)
def test_a_run_without_a_report_is_unknown(words: list[str]) -> None:
    assert plugin_code(2, ["check", *words, "--nope"]) == 3


@pytest.mark.parametrize(
    "words", [["check", "nagios"], ["check", "-o", "json", "nagios"], ["--foo", "nagios"]]
)
def test_other_forms_keep_their_code(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert plugin_code(2, words, "said") == 2
    assert capsys.readouterr().out == ""


def test_a_wrong_option_is_unknown_to_a_monitor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nestvirt", "check", "--nope", "-o", "nagios"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3
    assert capsys.readouterr().out.startswith("NESTVIRT UNKNOWN - No such option")
