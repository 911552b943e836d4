"""What the probe's run may do: hang, die, take its time; and what is made of it."""

import fcntl
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nestvirt.guest import probe
from tests.unit.guest.answers import evidence, judged_well, status
from tests.unit.guest.machines import AMD, MISC, Files, build
from tests.unit.guest.runs import Step, played


def test_errno_of_a_refused_step(tmp_path: Path) -> None:
    def busy() -> Iterator[Step]:
        yield "api", "12"
        raise OSError(16, "Device or resource busy")

    answer = probe.examine(str(build(tmp_path, AMD)), work=busy)
    assert answer["cause"] == "kvm-busy"
    assert "Device or resource busy" in evidence(answer, "guest-kvm-create")


def test_a_hung_run_is_ended(tmp_path: Path) -> None:
    told = tmp_path / "pid"

    def hang() -> Iterator[Step]:
        yield from played(upto="run")()
        told.write_text(str(os.getpid()))
        time.sleep(600)

    answer = probe.examine(str(build(tmp_path / "root", AMD)), work=hang, deadline=0.5)
    assert (answer["verdict"], answer["cause"]) == ("off", "hung")
    assert status(answer, "guest-kvm-run") == "fail"
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


def test_a_crashed_run_claims_nothing(tmp_path: Path) -> None:
    def crash() -> Iterator[Step]:
        yield "api", "12"
        os.kill(os.getpid(), signal.SIGKILL)

    answer = probe.examine(str(build(tmp_path, AMD)), work=crash)
    assert (answer["verdict"], answer["cause"]) == ("unknown", "crashed")
    judged_well(answer)


def test_python_without_ctypes_claims_nothing(tmp_path: Path) -> None:
    def bare() -> Iterator[Step]:
        yield from played(upto="run")()
        raise ImportError("No module named '_ctypes'")

    answer = probe.examine(str(build(tmp_path, AMD)), work=bare)
    assert (answer["verdict"], answer["cause"]) == ("unknown", "not-run")
    assert "_ctypes" in evidence(answer, "guest-kvm-run")
    judged_well(answer)


# --- after the proof


def late(how: str, at: str) -> Callable[[], Iterator[Step]]:
    """A run that goes wrong after the proof, at a step."""

    def run() -> Iterator[Step]:
        yield from played(upto=at)()
        if how == "hung":
            time.sleep(30)
        os.kill(os.getpid(), signal.SIGKILL)

    return run


@pytest.mark.parametrize("how", ["hung", "crashed"])
@pytest.mark.parametrize(
    ("at", "check"),
    [
        ("nests", "guest-kvm-speed"),
        ("loops_per_s", "guest-kvm-speed"),
        ("exit_ns", "guest-kvm-exit-latency"),
    ],
)
def test_what_breaks_off_after_the_proof_is_open(tmp_path: Path, how: str, at: str, check: str) -> None:
    answer = probe.examine(str(build(tmp_path, AMD)), work=late(how, at), deadline=0.3)
    assert (answer["verdict"], answer["cause"]) == ("unknown", how)
    assert status(answer, "guest-kvm-run") == "pass"
    assert [f["check"] for f in answer["findings"] if f["status"] in ("unknown", "fail")] == [check]
    assert "after guest code ran rightly" in answer["summary"]
    judged_well(answer)


def test_a_hang_after_a_speed_that_tells_emulation(tmp_path: Path) -> None:
    slow = played(("loops_per_s", 0.8e6), upto="exit_ns")
    run = lambda: iter([*slow(), ("broken", ("hung", "played"))])  # noqa: E731
    answer = probe.examine(str(build(tmp_path, AMD)), work=run)
    assert (answer["verdict"], answer["cause"]) == ("works-emulated", "emulated")
    judged_well(answer)


# --- the child


def test_a_parent_that_ignores_its_children(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert probe.examine(str(build(tmp_path / "well", AMD)), work=played())["verdict"] == "works"
        hung = probe.examine(str(build(tmp_path / "hung", AMD)), work=late("hung", "run"), deadline=0.3)
        assert hung["cause"] == "hung"
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("call", ["pipe", "fork"])
def test_no_process_to_spare_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse() -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    open_before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, call, refuse)
    answer = probe.examine(str(build(tmp_path, AMD)), work=played())
    assert (answer["verdict"], answer["cause"]) == ("unknown", "crashed")
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    judged_well(answer)


def test_the_child_is_ended_when_the_parent_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[int] = []
    fork = os.fork

    def forked() -> int:
        children.append(fork())
        return children[-1]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fork", forked)
    monkeypatch.setattr(select, "select", interrupted)
    with pytest.raises(KeyboardInterrupt):
        probe.examine(str(build(tmp_path, AMD)), work=late("hung", "run"))
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


# --- speed


class Processor:
    """A clock that runs on while guest code does: so much for each entry, and for each loop."""

    def __init__(self, entry: float, rate: float) -> None:
        self.now, self.entry, self.rate, self.most = 0.0, entry, rate, 0.0

    def spin(self, count: int) -> None:
        self.most = max(self.most, self.entry + count / self.rate)
        self.now += self.entry + count / self.rate

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("entry", "rate", "verdict", "latency"),
    [
        (9e-6, 0.8e6, "works-emulated", "pass"),
        (9e-6, 500e6, "works", "pass"),
        (1.6e-3, 500e6, "works", "warn"),
        (20e-3, 500e6, "works", "warn"),
        (200e-3, 500e6, "works", "warn"),
        (1.6e-3, 0.8e6, "works-emulated", "warn"),
    ],
)
def test_slow_exits_are_not_emulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: float, rate: float, verdict: str, latency: str
) -> None:
    guest, native = Processor(entry, rate), Processor(1e-6, 4500e6)
    rates = {}
    for name, processor in (("loops_per_s", guest), ("native_loops_per_s", native)):
        monkeypatch.setattr(time, "perf_counter", processor.perf_counter)
        rates[name] = probe._loops_per_s(processor.spin)
        assert processor.now < probe.DEADLINE / 2
    monkeypatch.undo()
    assert 0.9 < rates["loops_per_s"] / rate < 1.1
    run = played(*rates.items(), ("exit_ns", entry * 1e9))
    answer = probe.examine(str(build(tmp_path, AMD)), work=run)
    assert answer["verdict"] == verdict
    assert status(answer, "guest-kvm-exit-latency") == latency


def test_a_blip_at_entry_does_not_make_an_emulated_guest_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Processor(5e-3, 0.8e6)

    def spin(count: int) -> None:
        guest.spin(count)
        if count > 1:
            guest.entry = 50e-6  # the runs that were to tell the cost of an entry were disturbed

    monkeypatch.setattr(time, "perf_counter", guest.perf_counter)
    assert probe._loops_per_s(spin) < 2 * 0.8e6


def test_a_busy_machine_does_not_make_a_quick_guest_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, calls = Processor(50e-6, 500e6), iter(range(10**6))

    def spin(count: int) -> None:
        guest.spin(count)
        if next(calls) % 3 < 2:
            guest.now += 16e-3  # two of three times somebody else had the processor

    monkeypatch.setattr(time, "perf_counter", guest.perf_counter)
    assert probe._loops_per_s(spin) > 0.9 * 500e6


def test_one_disturbed_count_does_not_make_a_quick_guest_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, disturbed = Processor(50e-6, 56e6), iter(range(3))

    def spin(count: int) -> None:
        guest.spin(count)
        if count == 8000 and next(disturbed, None) is not None:
            guest.now += 1.6e-3  # each of its first three times

    monkeypatch.setattr(time, "perf_counter", guest.perf_counter)
    assert probe._loops_per_s(spin) > 0.9 * 56e6


def test_exits_that_scatter_do_not_make_a_quick_guest_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, calls = Processor(0, 100e6), iter(range(10**6))

    def spin(count: int) -> None:
        guest.spin(count)
        guest.now += 0.3e-3 if next(calls) < 3 else 2e-3  # the first were lucky

    monkeypatch.setattr(time, "perf_counter", guest.perf_counter)
    assert probe._loops_per_s(spin) > 0.3 * 100e6


def test_exits_that_take_for_ever_are_not_all_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = Processor(0.1, 1e9)
    guest = probe._Guest.__new__(probe._Guest)
    monkeypatch.setattr(guest, "enter", lambda *_, **__: None)
    monkeypatch.setattr(guest, "run", processor.spin)
    monkeypatch.setattr(time, "perf_counter", processor.perf_counter)
    assert guest.exit_ns() == pytest.approx(0.1e9, rel=0.01)
    assert processor.now < 2


# --- exits


@pytest.mark.parametrize(
    ("reason", "detail", "words"),
    [
        (17, 3 << 32 | 1, "INTERNAL_ERROR, suberror: 0x1"),  # then the count of the data
        (9, 0x80000021_00000007, "FAIL_ENTRY, hardware reason: 0x8000002100000007"),
    ],
)
def test_a_wrong_exit_is_told_in_kvms_words(
    monkeypatch: pytest.MonkeyPatch, reason: int, detail: int, words: str
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: 0)
    guest: Any = probe._Guest.__new__(probe._Guest)
    guest.vcpu, guest.state = -1, bytearray(64)
    struct.pack_into("<I20xQ", guest.state, 8, reason, detail)
    with pytest.raises(probe._Broken) as broke:
        guest.run(probe.HLT)
    assert broke.value.args == ("entry-failed", f"KVM_EXIT {words}")


# --- who uses KVM


@pytest.mark.parametrize(
    ("files", "count", "words"),
    [
        ({}, 0, "users: none seen; refcnt: not told"),
        ({"/sys/module/kvm_amd/refcnt": "0\n"}, 0, "users: none seen; refcnt: 0"),
        ({"/sys/module/kvm_amd/refcnt": "3\n"}, 1, "refcnt 3, holders not visible to this user"),
        ({"/sys/module/kvm_amd/refcnt": "3\n", "/proc/7/comm": "qemu\n"}, 1, "users: 7 qemu; refcnt: 3"),
    ],
)
def test_users_of_kvm(tmp_path: Path, files: Files, count: int, words: str) -> None:
    root = build(tmp_path, AMD | files)
    if "/proc/7/comm" in files:
        (root / "proc/7/fd").mkdir()
        (root / "proc/7/fd/12").symlink_to("anon_inode:kvm-vm")
    answer = probe.examine(str(root))
    assert (answer["numbers"]["kvm_users"], evidence(answer, "guest-kvm-users")) == (count, words)


def test_the_probe_does_not_count_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = build(tmp_path, AMD | {"/proc/misc": MISC, "/sys/module/kvm_amd/refcnt": "0\n"})

    def opened(machine: Any) -> tuple[str, str]:
        (root / "sys/module/kvm_amd/refcnt").write_text("1\n")
        return "usable", "/dev/kvm"

    monkeypatch.setattr(probe._Machine, "find_node", opened)
    answer = probe.examine(str(root), work=played())
    assert (answer["numbers"]["kvm_users"], answer["verdict"]) == (0, "works")
