"""What is said on stderr while many VMs are worked on."""

from __future__ import annotations

import pytest

from nestvirt.cli.fleet_progress import Screen


def test_a_second_ctrl_c_promises_no_more_than_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    """One that has its change is not put back any more: see engine._InPlace."""
    screen = Screen(quiet=False, tell=lambda _row: None)
    screen.stopping(2, at_once=False)
    screen.stopping(2, at_once=True)
    once, twice = capsys.readouterr().err.splitlines()
    assert once.endswith("2 under way are finished; Ctrl-C once more stops them, too")
    assert twice.endswith("is put back, or, where only the proof is missing, left as it is")
