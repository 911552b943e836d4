"""``nestvirt explain``: every check's runbook, in a checkout and as it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from docs import generate
from nestvirt import report, report_html, runbooks
from nestvirt.cli import cli
from nestvirt.model import Report
from tests.unit.fleets import blocked, failing, planned, proven

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BUILD = PROJECT["tool"]["hatch"]["build"]["targets"]
PROGRAM = [sys.executable, "-c", "from nestvirt.cli import main; main()", "explain"]


def explain(*args: str) -> str:
    done = CliRunner().invoke(cli, ["explain", *args])
    assert done.exit_code == 0
    return done.output


def test_every_check_has_its_question_and_its_runbook() -> None:
    assert runbooks.questions() == generate.checks()
    for check, question in generate.checks().items():
        text = runbooks.section(check)
        assert [
            p for p in ("**Symptom", "**What was read", "**Why it", "ure.", "**Proof") if p not in text
        ] == []
        assert not [p for p in ("\n## ", "<a id", "](") if p in text.replace("](https://", "")]
        assert f"\n  {check} " in explain()
        assert question in explain()


def test_it_is_printed_as_it_is_written() -> None:
    shown = explain("vm-cpu")
    assert shown.startswith("# vm-cpu\n\nDoes the definition show the guest vmx or svm?\n\n**Symptom.**")
    assert "`host-build`." in shown  # a link to another runbook's page
    assert "([kubevirt#10508](https://github.com/kubevirt/kubevirt/issues/10508)," in shown
    assert "the role (docs/howto/enable-vsphere.md#rights)" in explain("vm-connected")


def test_on_a_terminal_it_is_set() -> None:
    ours, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    subprocess.run([*PROGRAM, "guest-container"], stdout=terminal, env=environment, check=True, timeout=60)
    os.close(terminal)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "\x1b[1mSymptom.\x1b[0m" in shown
    assert "docker run" not in shown.partition("Cure")[0]
    assert "**" not in shown


@pytest.mark.parametrize(
    ("typed", "near"), [("vm-cpuu", "vm-cpu"), ("kvm-run", "guest-kvm-run"), ("\x1b[2J", "all")]
)
def test_what_is_no_check_is_a_usage_error_with_what_is_near(typed: str, near: str) -> None:
    done = CliRunner().invoke(cli, ["explain", typed])
    assert done.exit_code == 2
    assert near in done.output
    assert "\x1b" not in done.output


def test_ids_complete() -> None:
    typed = {
        "_NESTVIRT_COMPLETE": "bash_complete",
        "COMP_WORDS": "nestvirt explain vm-cpu",
        "COMP_CWORD": "2",
    }
    program = Path(sys.executable).with_name("nestvirt")
    done = subprocess.run([program], env={**os.environ, **typed}, capture_output=True, text=True, timeout=60)
    offered = [line.partition(",")[2] for line in done.stdout.splitlines()]
    assert offered == [check for check in generate.checks() if check.startswith("vm-cpu")]
    assert len(offered) > 1


def test_an_installed_nestvirt_has_them_beside_it(tmp_path: Path) -> None:
    """As the wheel is laid out: the package, and what pyproject.toml puts into it; no docs/ far and wide."""
    shutil.copytree(ROOT / "nestvirt", tmp_path / "nestvirt", ignore=shutil.ignore_patterns("__pycache__"))
    for source, to in BUILD["wheel"]["force-include"].items():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / to, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, tmp_path / to)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {PROGRAM[2]}"
    for args in ((), ("cluster-api",)):
        done = subprocess.run([sys.executable, "-c", code, "explain", *args], capture_output=True, timeout=60)
        assert done.stdout.decode() == explain(*args)
    code = code.replace("from", "import nestvirt; assert nestvirt.__file__.startswith(sys.path[0]); from", 1)
    assert subprocess.run([sys.executable, "-c", code, "explain"], capture_output=True).returncode == 0
    assert set(BUILD["sdist"]["include"]) >= {"docs", "nestvirt"}  # of which a wheel is built, too


@pytest.mark.parametrize(
    ("result", "check"),
    [
        (failing("libvirt:a"), "vm-cpu"),
        (blocked("libvirt:a"), "vm-lock"),
        (planned("libvirt:a"), None),
        (proven("libvirt:a"), None),
    ],
)
def test_a_report_says_where_to_read_on(result: Report, check: str | None) -> None:
    text, page = report.to_text(result).plain, report_html.to_html(result, "now")
    assert ("nestvirt explain" in text) == ("nestvirt explain" in page) == (check is not None)
    if check is not None:
        assert text.endswith(f"\n\nwhy, and what else may help: nestvirt explain {check}")
        assert f"nestvirt explain {check}</code>" in page
