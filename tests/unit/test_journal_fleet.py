"""What the journal has of a run over many, and who answers for what has died."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nestvirt.journal import Journal
from tests.unit.test_journal import OTHER, begun, file_of, the


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def test_a_run_names_the_run_over_many_that_it_is_part_of(tmp_path: Path, journal: Journal) -> None:
    alone = begun(journal)
    assert the(journal).fleet == ""
    assert "fleet" not in json.loads(file_of(tmp_path, alone).read_text())
    journal.fleet = "20260131-101500-1a2b3c"
    part = begun(journal)
    assert {run.id: run.fleet for run in journal.runs()} == {alone.id: "", part.id: "20260131-101500-1a2b3c"}


def test_the_parts_of_a_run_over_many_are_found_and_one_that_is_ill_says_so(
    tmp_path: Path, journal: Journal
) -> None:
    begun(journal)
    journal.fleet = "20260131-101500-1a2b3c"
    ill, whole = begun(journal), begun(journal, OTHER)
    whole.end("applied")
    with file_of(tmp_path, ill).open("a") as file:
        file.write("{}\n")
    first, second = journal.parts(journal.fleet)
    assert (first[0].id, first[0].outcome, first[1]) == (whole.id, "applied", None)
    assert (second[0].id, second[0].fleet) == (ill.id, journal.fleet)
    assert str(file_of(tmp_path, ill)) in str(second[1])
    assert list(journal.parts("another")) == []


def test_what_died_is_answered_for_by_the_one_that_has_gone_on_with_it(journal: Journal) -> None:
    records = [begun(journal) for _ in range(4)]
    for record, outcome in zip(records, ["continued", "continued", "applied", "applied"], strict=True):
        record.end(outcome)
    runs = {run.id: run for run in journal.runs()}
    assert [journal.heir(runs[record.id]).id for record in records] == [
        *(records[2].id,) * 3,
        records[3].id,
    ]
