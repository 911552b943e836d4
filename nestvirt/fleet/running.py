"""Many targets at once: bounded workers, batches, an end after too many failures, and the user's Ctrl-C."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from nestvirt.engine import Step
from nestvirt.errors import Error, Fault, Interrupted, Left
from nestvirt.fleet.selection import Member
from nestvirt.model import Ending, Report, Row, Vm

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ILL = (Ending.FAIL, Ending.UNKNOWN)
UNTOUCHED = "stopped before anything of it was touched"
AGAIN = "run it again at any time"
LOOK = 0.2
"""Seconds after which a wish to stop is noticed at the latest."""

Tell = Callable[[Step, str], None]
Work = Callable[[Member, Tell], Report]
"""What is done with one target; an Error that it raises is that target's row."""


@dataclass(frozen=True)
class Pace:
    """How fast, and how far.

    Attributes:
        parallel: how many targets are worked on at once; of one endpoint no more than its backend bears.
        batch: so many are begun together, and the next ones when all of these have ended; None: no batches.
        failures: after so many failed ones no more is begun, but for those that are off already; None: all
            are begun.
        failed: which count as such.
        failed_before: how many of them there were before anything was begun.
        down: those of the run that are off, and were not to be; each takes a place in a batch. Is looked at
            anew each time.
        reads: nothing is changed, so that who wants to stop twice need not wait for those under way.
    """

    parallel: int = 8
    batch: int | None = None
    failures: int | None = None
    failed: Callable[[Row], bool] = lambda row: row.ending in ILL
    failed_before: int = 0
    down: Set[str] = frozenset()
    reads: bool = False


class Watcher(Protocol):
    """Who is told what happens; called by one thread at a time."""

    def begun(self, member: Member) -> None:
        """It is being worked on."""

    def step(self, member: Member, step: Step, detail: str) -> None:
        """What is about to be done with it."""

    def ended(self, member: Member, row: Row) -> None:
        """What came of it."""

    def stopping(self, left: int, *, at_once: bool) -> None:
        """The user wants to stop, while so many are under way."""


@dataclass
class Stop:
    """The user's wish to stop. Once: no more is begun. Twice: those under way end at their next step.

    Attributes:
        left: threads were left alone that still wait for an answer; the process must not wait for them.
    """

    times: int = 0
    left: bool = False
    wake: queue.SimpleQueue[tuple[int, Row] | None] = field(default_factory=queue.SimpleQueue)
    _told: set[int] = field(default_factory=set)

    def press(self) -> None:
        """From a signal's handler, too: nothing here takes a lock."""
        self.times += 1
        self.wake.put(None)

    def news(self) -> tuple[int, Row] | None:
        """Which target has ended; None: the user wants to stop, once more.

        It is looked for again and again, as of two signals at once Python may notice none while it waits.
        """
        while True:
            with suppress(queue.Empty):
                return self.wake.get(timeout=LOOK)

    def interrupt(self, index: int) -> None:
        """At a step of a target: raise, once for each, so that the engine can put back in peace."""
        if self.times > 1 and index not in self._told:
            self._told.add(index)
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and the like for a wish to stop, where this is the thread that gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler not in (signal.SIG_IGN, None):  # as under nohup
                signal.signal(number, lambda _number, _frame: self.press())
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)


class Runner:
    """One pass over a fleet.

    Args:
        members: in the order in which they are begun.
        work: what is done with each, in a worker's thread.
        vms: what each name means, as far as the work has found it by now.
    """

    def __init__(
        self,
        members: Sequence[Member],
        work: Work,
        pace: Pace,
        watcher: Watcher,
        stop: Stop,
        vms: Mapping[str, Vm] | None = None,
    ) -> None:
        self._members = members
        self._work = work
        self._pace = pace
        self._watcher = watcher
        self._stop = stop
        self._vms = vms if vms is not None else {}
        self._watching = threading.Lock()
        self._waiting: dict[int, deque[int]] = {}  # by endpoint, so that one that is busy holds up no other
        for index, member in enumerate(members):
            self._waiting.setdefault(id(member.endpoint), deque()).append(index)
        self._under_way: Counter[int] = Counter()  # by endpoint
        self._busy: set[int] = set()
        self._batch: set[str] = set()  # begun in it
        self._failed = pace.failed_before
        self._rows: dict[int, Row] = {}

    def run(self) -> list[Row]:
        """All rows, in the order of the members; those not begun say why."""
        pool = ThreadPoolExecutor(max_workers=self._pace.parallel)
        try:
            with self._stop.listening():
                while self._begin(pool):
                    ended = self._stop.news()
                    if ended is not None:
                        self._end(*ended)
                    elif self._pace.reads and self._stop.times > 1:
                        self._leave()
                    else:
                        self._tell_stopping()
        finally:
            pool.shutdown(wait=not self._stop.left)
        held = f"{len(self._pace.down)} of the run may be off still, and --batch allows no more"
        note = self.why_no_more() or (held if self._pace.batch and self._pace.down else UNTOUCHED)
        return [self._rows.get(i) or self._row(m, note=note) for i, m in enumerate(self._members)]

    def _row(
        self, member: Member, outcome: Report | Error | None = None, seconds: float = 0.0, note: str = ""
    ) -> Row:
        vm = self._vms.get(member.written, member.vm)
        return Row(member.written, outcome, seconds, note=note, name=vm.name if vm is not None else "")

    def why_no_more(self) -> str:
        """Why nothing more is begun; empty where it is."""
        if self._stop.times:
            return "the run was stopped before"
        if self._pace.failures is not None and self._failed >= self._pace.failures:
            return f"{self._failed} had failed already"
        return ""

    def _begin(self, pool: ThreadPoolExecutor) -> bool:
        """Begin what may be begun now; whether anything is under way."""
        if not self._busy:
            self._batch.clear()
        while not self._stop.times and len(self._busy) < self._pace.parallel:
            heads = [waiting[0] for waiting in self._waiting.values() if waiting]
            free = [i for i in heads if self._may_begin(self._members[i])]
            if not free:
                break
            index = min(free)
            at = id(self._members[index].endpoint)
            self._waiting[at].popleft()
            self._under_way[at] += 1
            self._busy.add(index)
            self._batch.add(self._members[index].written)
            pool.submit(self._one, index)
        return bool(self._busy)

    def _may_begin(self, member: Member) -> bool:
        """Whether there is room; however many have failed, who is off is given its power back."""
        wanted = member.written in self._pace.down or not self.why_no_more()
        return wanted and self._room_at(member) and self._room_for(member)

    def _room_for(self, member: Member) -> bool:
        """Whether the batch has; who is off already takes no more than it has."""
        if self._pace.batch is None:
            return True
        others = set() if member.written in self._pace.down else set(self._pace.down) - self._batch
        return len(self._batch) + len(others) < self._pace.batch

    def _room_at(self, member: Member) -> bool:
        endpoint = member.endpoint
        return endpoint is None or self._under_way[id(endpoint)] < endpoint.limit

    def _end(self, index: int, row: Row) -> None:
        member = self._members[index]
        self._rows[index] = row
        self._busy.remove(index)
        self._under_way[id(member.endpoint)] -= 1
        self._failed += self._pace.failed(row)
        with self._watching:
            self._watcher.ended(member, row)

    def _leave(self) -> None:
        """Wait for none of those under way, of which nothing has to be put back."""
        self._stop.left = bool(self._busy)
        for index in sorted(self._busy):
            self._end(index, self._row(self._members[index], Interrupted(UNTOUCHED, cure=AGAIN)))

    def _tell_stopping(self) -> None:
        if self._busy and self._stop.times <= 2:
            with self._watching:
                self._watcher.stopping(len(self._busy), at_once=self._stop.times > 1)

    def _one(self, index: int) -> None:
        """In a worker's thread: one target, whatever comes of it."""
        begin, member = time.monotonic(), self._members[index]

        def tell(step: Step, detail: str) -> None:
            self._stop.interrupt(index)
            with self._watching:
                self._watcher.step(member, step, detail)

        outcome: Report | Error
        try:
            with self._watching:
                self._watcher.begun(member)
            outcome = self._work(member, tell)
        except Error as error:
            outcome = error
        except KeyboardInterrupt:  # of Stop, before the engine had anything to put back
            outcome = Interrupted(UNTOUCHED, cure=AGAIN)
        except Exception as bug:  # noqa: BLE001 - one target's fault does not end the others' work
            outcome = fault(bug)
        outcome = _light(outcome)
        self._stop.wake.put((index, self._row(member, outcome, time.monotonic() - begin)))


def fault(bug: Exception) -> Fault:
    """A fault of our own as the row of its target; what was raised is its cause, with the traceback."""
    notes = getattr(bug, "__notes__", [])
    error = Fault(
        "this is a fault in nestvirt",
        evidence=f"{type(bug).__name__}: {bug}" + "".join(f"; {note}" for note in notes),
        cure="set NESTVIRT_DEBUG=1, run it again for this one alone, and report what it prints",
    )
    for left in [note for note in notes if isinstance(note, Left)]:
        error.changed, error.run = left.changed, left.run
    error.__cause__ = bug
    return error


def _light(outcome: Report | Error) -> Report | Error:
    """Without the frames that a deliberate error holds: ten thousand of them would hold everything read."""
    if isinstance(outcome, Error) and not isinstance(outcome, Fault):
        return outcome.with_traceback(None)
    return outcome
