"""Workers: how many at once, when no more is begun, and what becomes of a wish to stop."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from nestvirt import backends
from nestvirt.backends.base import Kind
from nestvirt.engine import Step
from nestvirt.errors import ConnectionFailed, Error, Fault, Interrupted
from nestvirt.fleet.endpoints import Endpoint, Place
from nestvirt.fleet.running import Pace, Runner, Stop, Tell
from nestvirt.fleet.selection import Member
from nestvirt.model import Ending, Finding, Layer, Report, Row, Status, Target
from tests.peers import memory

PATIENCE = 30


def member(name: str, endpoint: Endpoint | None = None) -> Member:
    return Member(f"memory:{name}", Target("memory", name), endpoint)


def report(name: str, status: Status = Status.PASS) -> Report:
    finding = Finding("guest-kvm-run", Layer.GUEST, status, "seen")
    return Report(f"memory:{name}", (finding,))


@dataclass
class Seen:
    """A watcher that keeps what it is told."""

    events: list[tuple[str, str]] = field(default_factory=list)
    stops: list[tuple[int, bool]] = field(default_factory=list)

    def begun(self, member: Member) -> None:
        self.events.append(("begun", member.written))

    def step(self, member: Member, step: Step, detail: str) -> None:
        self.events.append((step.name, member.written))

    def ended(self, member: Member, row: Row) -> None:
        self.events.append(("ended", member.written))

    def stopping(self, left: int, *, at_once: bool) -> None:
        self.stops.append((left, at_once))


@dataclass
class Gauge:
    """Work that says how much of it was under way at once."""

    ill: Sequence[str] = ()
    now: int = 0
    most: int = 0
    order: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, member: Member, tell: Tell) -> Report:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.order.append(member.written)
        time.sleep(0.01)
        with self._lock:
            self.now -= 1
        name = member.written.partition(":")[2]
        return report(name, Status.FAIL if name in self.ill else Status.PASS)


def run(
    members: Sequence[Member], work: Callable[[Member, Tell], Report], pace: Pace, stop: Stop | None = None
) -> tuple[list[Row], Seen]:
    seen = Seen()
    return Runner(members, work, pace, seen, stop or Stop()).run(), seen


def test_rows_are_in_the_order_of_the_members_whatever_ends_first() -> None:
    def work(member: Member, tell: Tell) -> Report:
        time.sleep(0.05 if member.written == "memory:a" else 0)
        return report(member.written)

    rows, _ = run([member(name) for name in "abc"], work, Pace(parallel=3))
    assert [row.target for row in rows] == ["memory:a", "memory:b", "memory:c"]
    assert all(row.ending is Ending.PASS for row in rows)


def test_no_more_than_parallel_at_once() -> None:
    gauge = Gauge()
    run([member(str(i)) for i in range(20)], gauge, Pace(parallel=3))
    assert 1 < gauge.most <= 3


def test_no_more_of_an_endpoint_than_it_bears_and_it_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(backends.BACKENDS, *memory.REGISTRATION)
    monkeypatch.setattr(memory.MemoryBackend, "kind", Kind(parallel=1))
    slow, free = (Endpoint(Place("memory", profile), {}) for profile in ("slow", "free"))
    gauge, entered = Gauge(), threading.Event()

    def work(member: Member, tell: Tell) -> Report:
        if member.endpoint is free:
            entered.set()
        elif member.written == "memory:0":
            assert entered.wait(PATIENCE)  # the other endpoint's is begun while this one is busy
        return gauge(member, tell)

    members = [member("0", slow), member("1", slow), member("2", slow), member("3", free)]
    rows, _ = run(members, work, Pace(parallel=8))
    assert [row.ending for row in rows] == [Ending.PASS] * 4
    assert [name for name in gauge.order if name != "memory:3"] == ["memory:0", "memory:1", "memory:2"]


def test_a_batch_begins_when_the_one_before_has_ended() -> None:
    rows, seen = run([member(str(i)) for i in range(6)], Gauge(), Pace(parallel=8, batch=2))
    kinds = [kind for kind, _ in seen.events]
    assert [row.ending for row in rows] == [Ending.PASS] * 6
    for batch in range(3):
        assert sorted(kinds[batch * 4 : batch * 4 + 4]) == ["begun", "begun", "ended", "ended"]


def test_who_is_off_already_takes_a_place_in_each_batch_until_it_is_up() -> None:
    down, most = {"memory:0", "memory:1", "memory:elsewhere"}, 0
    lock = threading.Lock()

    def work(member: Member, tell: Tell) -> Report:
        nonlocal most
        with lock:
            down.add(member.written)
            most = max(most, len(down))
        time.sleep(0.01)
        with lock:
            down.discard(member.written)
        return report(member.written)

    rows, _ = run([member(str(i)) for i in range(6)], work, Pace(parallel=8, batch=3, down=down))
    assert [row.ending for row in rows] == [Ending.PASS] * 6
    assert most == 3


def test_no_batch_is_begun_where_as_many_are_off_still() -> None:
    down: set[str] = set()

    def work(member: Member, tell: Tell) -> Report:
        if member.written in ("memory:0", "memory:2"):
            down.add(member.written)
        return report(member.written)

    pace = Pace(parallel=8, batch=2, failures=9, down=down)
    rows, seen = run([member(str(i)) for i in range(6)], work, pace)
    assert [row.ending for row in rows[:3]] == [Ending.PASS] * 3
    assert [row.ending for row in rows[3:]] == [Ending.NOT_BEGUN] * 3
    assert rows[3].note == "2 of the run may be off still, and --batch allows no more"
    assert [name for kind, name in seen.events if kind == "begun"] == ["memory:0", "memory:1", "memory:2"]


def test_after_too_many_failures_no_more_is_begun() -> None:
    gauge = Gauge(ill=("1", "2"))
    rows, _ = run([member(str(i)) for i in range(6)], gauge, Pace(parallel=1, failures=2))
    assert [row.ending for row in rows[:3]] == [Ending.PASS, Ending.FAIL, Ending.FAIL]
    assert [row.ending for row in rows[3:]] == [Ending.NOT_BEGUN] * 3
    assert rows[3].note == "2 had failed already"
    assert len(gauge.order) == 3


def test_who_is_off_already_is_begun_however_many_have_failed_but_not_after_a_wish_to_stop() -> None:
    gauge, down = Gauge(ill=("0",)), {"memory:0", "memory:1"}
    pace = Pace(parallel=1, batch=2, failures=1, failed_before=1, down=down)
    rows, _ = run([member(str(i)) for i in range(3)], gauge, pace)
    assert gauge.order == ["memory:0", "memory:1"]
    assert (rows[2].ending, rows[2].note) == (Ending.NOT_BEGUN, "2 had failed already")
    stop = Stop()
    stop.press()
    rows, _ = run([member(str(i)) for i in range(3)], gauge, pace, stop)
    assert [row.ending for row in rows] == [Ending.NOT_BEGUN] * 3


def test_an_error_is_its_own_row() -> None:
    def work(member: Member, tell: Tell) -> Report:
        if member.written == "memory:b":
            raise ConnectionFailed("no answer", evidence="none", cure="start it")
        return report(member.written)

    rows, _ = run([member(name) for name in "abc"], work, Pace())
    assert [row.ending for row in rows] == [Ending.PASS, Ending.UNKNOWN, Ending.PASS]
    assert isinstance(rows[1].outcome, ConnectionFailed)
    assert rows[1].outcome.__traceback__ is None  # it would keep all that was read


def test_a_fault_of_ours_is_its_own_row_too_with_what_the_engine_noted() -> None:
    def work(member: Member, tell: Tell) -> Report:
        if member.written == "memory:b":
            bug = KeyError("oops")
            bug.add_note("everything was put back")
            raise bug
        return report(member.written)

    rows, _ = run([member(name) for name in "abc"], work, Pace())
    fault = rows[1].outcome
    assert isinstance(fault, Fault)
    assert "KeyError" in fault.evidence
    assert "everything was put back" in fault.evidence
    assert isinstance(fault.__cause__, KeyError)
    assert fault.__cause__.__traceback__ is not None
    assert [row.ending for row in rows] == [Ending.PASS, Ending.FAIL, Ending.PASS]


def test_once_stopped_those_under_way_are_finished_and_no_more_is_begun() -> None:
    stop = Stop()

    def work(member: Member, tell: Tell) -> Report:
        stop.press()
        tell(Step.APPLY, "cpu")  # nothing is raised at the first wish
        return report(member.written)

    rows, seen = run([member(name) for name in "abc"], work, Pace(parallel=1), stop)
    assert [row.ending for row in rows] == [Ending.PASS, Ending.NOT_BEGUN, Ending.NOT_BEGUN]
    assert "stopped" in rows[1].note
    assert seen.stops == [(1, False)]


def test_twice_stopped_the_engine_is_interrupted_at_its_next_step_and_puts_back_in_peace() -> None:
    stop, put_back = Stop(), []

    def work(member: Member, tell: Tell) -> Report:
        stop.press()
        stop.press()
        try:
            tell(Step.APPLY, "cpu")
        except KeyboardInterrupt as interrupt:
            tell(Step.PUT_BACK, "cpu")  # is not interrupted once more
            put_back.append(member.written)
            raise Interrupted("interrupted: everything was put back") from interrupt
        return report(member.written)

    rows, seen = run([member(name) for name in "ab"], work, Pace(parallel=1), stop)
    assert put_back == ["memory:a"]
    assert isinstance(rows[0].outcome, Interrupted)
    assert rows[1].ending is Ending.NOT_BEGUN
    assert seen.stops[-1] == (1, True)


def test_who_is_stopped_before_the_engine_has_begun_is_told_that_nothing_was_touched() -> None:
    stop = Stop()

    def work(member: Member, tell: Tell) -> Report:
        stop.press()
        stop.press()
        tell(Step.READ, "a")
        raise AssertionError("not reached")

    rows, _ = run([member("a")], work, Pace(), stop)
    assert isinstance(rows[0].outcome, Error)
    assert "nothing" not in rows[0].outcome.evidence
    assert "before anything of it was touched" in rows[0].outcome.message


def test_a_wish_to_stop_is_looked_for_although_nobody_was_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two signals at once, Python may notice none while a thread waits without an end."""
    stop, waits = Stop(), iter([True, True, False])

    class Asleep:
        def get(self, timeout: float | None = None) -> None:
            assert timeout is not None
            if next(waits):
                raise queue.Empty

    monkeypatch.setattr(stop, "wake", Asleep())
    assert stop.news() is None
    assert next(waits, None) is None
