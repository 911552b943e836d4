"""The man page: groff has nothing to say against it, and it has every command, option and variable."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from docs import man
from nestvirt import settings
from nestvirt.cli import COMMANDS, cli
from tests.lab import LabError, need

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/nestvirt.1"


@pytest.fixture(scope="module")
def shown() -> str:
    """As a reader has it before him, one line of words."""
    try:
        words = ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=1000n", str(PAGE)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        need(LabError("groff is not installed"), "the man page cannot be formatted")
        raise error
    assert done.stderr == ""
    return " ".join(done.stdout.replace("\u2010", "-").split())


def test_groff_accepts_it_without_a_warning(shown: str) -> None:
    assert shown.startswith("NESTVIRT(1)")
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert section in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_options_and_examples(name: str, shown: str) -> None:
    command = cli.get_command(click.Context(cli, info_name="nestvirt"), name)
    assert command is not None
    section = shown.partition(f"NESTVIRT {name.upper()} ")[2]
    assert section
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.opts[-1] in section
            assert " ".join((option.help or "").split()) in section
    for example in re.findall(r"^\s*(nestvirt .*)$", command.help or "", re.MULTILINE):
        assert " ".join(example.split()) in section


def test_every_exit_code_is_there() -> None:
    text = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    assert [code for code, _ in man.EXIT_STATUS] == re.findall(r"^\| (\d+) \|", text, re.MULTILINE)


def test_every_variable_is_there(shown: str) -> None:
    known = {name for of in settings.SETTINGS.values() for setting in of for name in setting.variables}
    assert known
    assert [name for name in sorted(known) if name not in shown] == []


@pytest.mark.parametrize("text", [".so /etc/passwd", "'br", "a\\fBb", "--dry-run", "it's `x` ~ ^", "é…"])
def test_words_are_words(text: str) -> None:
    """Nothing in a help text is taken for a request of roff's."""
    page = f".TH X 1\n.SH NAME\n{man._text(text)}\n"
    try:
        words = ["groff", "-man", "-ww", "-Tutf8", "-P-cbou"]
        done = subprocess.run(words, input=page, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        need(LabError("groff is not installed"), "the man page cannot be formatted")
        raise error
    assert done.stderr == ""
    assert text in done.stdout


def test_the_package_brings_it_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"docs/reference/nestvirt.1": "share/man/man1/nestvirt.1"}
