"""What a run over many writes down of itself as it goes. What cannot be written costs no report."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from nestvirt.errors import Error, JournalError
from nestvirt.fleet.record import FleetRecord, FleetRuns
from nestvirt.fleet.running import Tell, Work
from nestvirt.fleet.selection import Member
from nestvirt.model import Ending, Report, Row
from nestvirt.printable import printable

NAMED = 5
"""So many are named whose endings could not be written."""


@dataclass
class Recording:
    """A run's record, as the run itself keeps it.

    Attributes:
        down: those that are off, and were not to be; is looked at anew each time.
        again: whether an earlier run is gone on with.
        lost: whose endings could not be written.
        failure: why not, or why the run could not be closed.
    """

    runs: FleetRuns
    record: FleetRecord
    down: Set[str]
    again: bool = False
    lost: list[str] = field(default_factory=list)
    failure: JournalError | None = None

    def around(self, carry_out: Work) -> Work:
        """The work, with what is done written down before and after it."""

        def work(member: Member, tell: Tell) -> Report:
            self.record.begun(member.written)
            ending, run = Ending.FAIL, None
            try:
                report = carry_out(member, tell)
                ending, run = Row(member.written, report).ending, report.run
                return report
            except Error as error:
                run = error.run
                raise
            finally:
                self.ended(member.written, ending, run)

        return work

    def ended(self, written: str, ending: Ending, run: str | None = None) -> None:
        """Note how it ended. Where that cannot be written, the user still has to know what came of it."""
        try:
            self.record.ended(written, ending, run, down=written in self.down)
        except JournalError as error:
            self.lost.append(written)
            self.failure = error

    def settled(self, rows: Iterable[Row]) -> None:
        """Note how those ended for which nothing had to be done, or nothing could be.

        What cannot even be planned now, where a run is gone on with, is left to be gone on with another time.
        """
        for row in rows:
            later = self.again and isinstance(row.outcome, Error)
            if row.ending not in (Ending.PLAN, Ending.NOT_BEGUN) and not later:
                self.ended(row.target, row.ending)

    def close(self) -> None:
        """Note that the run came to its end, if each of its targets did."""
        try:
            self.runs.end(self.record)
        except JournalError as error:
            self.failure = error

    @property
    def said(self) -> str:
        """What could not be written, for people; empty where all was."""
        if self.failure is None:
            return ""
        names = ", ".join(printable(name, 100) for name in self.lost[:NAMED])
        more = f" and {len(self.lost) - NAMED} more" if len(self.lost) > NAMED else ""
        what = f"what came of {names}{more}" if self.lost else "its end"
        return f"{what} is not in the record of run {self.record.id}: {self.failure.evidence}"
