"""A record that cannot be read stands in the way of what it may be about, and of nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nestvirt.cli.runs import list_runs
from nestvirt.errors import JournalError
from nestvirt.fleet.record import FleetRuns
from nestvirt.journal import Journal
from tests.unit.test_journal import OTHER, VM, applied, begun, file_of


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def spoil(path: Path, *, whole: bool = False) -> None:
    """Its last line, or all of it."""
    path.write_text("{}\n" if whole else path.read_text() + '{"event": "dance"}\n')


def test_a_run_is_undone_beside_an_older_record_that_is_ill(tmp_path: Path, journal: Journal) -> None:
    spoil(file_of(tmp_path, applied(journal)))
    newest = applied(journal, OTHER)
    assert journal.find(None).id == newest.id
    assert journal.find(None, OTHER.id).id == newest.id
    with pytest.raises(JournalError, match="cannot be read"):
        journal.find(None, VM.id)


def test_where_a_newer_record_is_ill_the_run_is_to_be_named_unless_that_is_another_vms(
    tmp_path: Path, journal: Journal
) -> None:
    older, ill = applied(journal), applied(journal, OTHER)
    spoil(file_of(tmp_path, ill))
    with pytest.raises(JournalError, match="which run is the newest") as caught:
        journal.find(None)
    assert str(file_of(tmp_path, ill)) in caught.value.evidence
    assert caught.value.cure.endswith(f"nestvirt undo {older.id}")
    assert journal.find(older.id).id == journal.find(None, VM.id).id == older.id
    with pytest.raises(JournalError, match="there is no run to undo") as caught:
        journal.find(None, "nobody")


def test_the_list_has_it_as_a_row(
    tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, ill, well = applied(journal), begun(journal), applied(journal, OTHER)
    spoil(file_of(tmp_path, lost), whole=True)
    spoil(file_of(tmp_path, ill))
    assert list_runs(journal, FleetRuns(tmp_path), "json") == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [(row["run"], row["state"]) for row in rows] == [
        (well.id, "applied"),
        (ill.id, "unreadable"),
        (lost.id, "unreadable"),
    ]
    assert [row["target"] for row in rows] == ["libvirt@lab:web-01", "libvirt@lab:web-01", None]
    assert list_runs(journal, FleetRuns(tmp_path), "text", VM.id, "libvirt") == 0
    shown = capsys.readouterr().out
    assert re.search(rf"{lost.id} +\? +\? +\? +unreadable", shown)
    assert re.search(rf"{ill.id} .* unreadable", shown)
