"""Each form of a report, from the command line itself: what is on stdout is of that form and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner

from nestvirt.cli import cli
from nestvirt.cli.options import FORMS
from nestvirt.cli.output import reporting_errors
from nestvirt.errors import ConnectionFailed


def _is_html(text: str) -> None:
    assert text.startswith("<!DOCTYPE html>\n")
    ElementTree.fromstring(text.partition("\n")[2])  # noqa: S314 - our own


def _is_junit(text: str) -> None:
    assert ElementTree.fromstring(text).tag == "testsuites"  # noqa: S314 - our own


def _is_a_line(text: str) -> None:
    assert text.count("\n") == 1
    json.loads(text)


def _is_a_plugins(text: str) -> None:
    assert text.startswith("NESTVIRT ")


READERS: dict[str, Callable[[str], object]] = {
    "text": str.splitlines,
    "json": json.loads,
    "jsonl": _is_a_line,
    "junit": _is_junit,
    "html": _is_html,
    "nagios": _is_a_plugins,
}


def test_every_form_has_its_reader() -> None:
    assert set(READERS) == set(FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_a_report_is_in_that_form(form: str, tmp_path: Path) -> None:
    """A saved machine that is an empty folder: no KVM, and the same answer every time."""
    result = CliRunner().invoke(cli, ["check", "--root", str(tmp_path), "-o", form], standalone_mode=False)
    assert result.exception is None
    READERS[form](result.stdout)
    usual = CliRunner().invoke(cli, ["check", "--root", str(tmp_path)], standalone_mode=False).return_value
    assert usual in (1, 3)
    assert result.return_value == ({1: 2, 3: 3}[usual] if form == "nagios" else usual)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "text"])
def test_an_error_is_in_that_form_too(form: str) -> None:
    @click.command()
    @click.option("-o", "output")
    @reporting_errors
    def command(output: str) -> None:
        raise ConnectionFailed("no answer", evidence="refused", cure="start it")

    result = CliRunner().invoke(command, ["-o", form], standalone_mode=False)
    assert isinstance(result.exception, ConnectionFailed)
    assert "no answer" in result.stdout
    READERS[form](result.stdout)
