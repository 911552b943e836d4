"""Calls that libvirt itself has no deadline for."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from nestvirt.backends.libvirt import LibvirtBackend
from nestvirt.backends.libvirt.connection import Connection
from nestvirt.errors import ConnectionFailed, MissingExtra
from nestvirt.model import Target
from tests.unit.backends.fakes import FakeConnection, FakeLibvirt, FakeLibvirtError


@pytest.fixture
def connection() -> Connection:
    return Connection(FakeLibvirt(FakeConnection("<domain/>")), "qemu:///system")


@pytest.fixture
def interrupt() -> Iterator[threading.Timer]:
    """A Ctrl-C in a while; by a signal of its own, for a worker of pytest ignores the real one."""

    def press(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, press)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    yield timer
    timer.cancel()
    signal.signal(signal.SIGUSR1, before)


def fail() -> None:
    raise FakeLibvirtError("no")


def test_what_ends_in_time_gives_its_result(connection: Connection) -> None:
    assert connection.within(5, lambda: "done") == "done"


def test_what_fails_in_time_raises_the_same(connection: Connection) -> None:
    with pytest.raises(FakeLibvirtError, match="no"):
        connection.within(5, fail)


def test_what_hangs_is_given_up(connection: Connection) -> None:
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        connection.within(0.05, threading.Event().wait)


def test_at_a_ctrl_c_what_was_begun_is_seen_through(
    connection: Connection, interrupt: threading.Timer
) -> None:
    """Else the VM that is put back would be started by the very call that was interrupted."""
    release, done = threading.Event(), threading.Event()

    def start() -> None:
        release.wait()
        done.set()

    threading.Timer(0.4, release.set).start()
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        connection.within(60, start)
    assert done.is_set()


def test_at_a_ctrl_c_a_connection_attempt_is_left_alone(
    connection: Connection, interrupt: threading.Timer
) -> None:
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        connection.within(3600, threading.Event().wait, abandon=True)


def test_cure_of_a_failed_connection_can_be_pasted_into_a_shell() -> None:
    refused = FakeLibvirtError("Failed to connect socket: Connection refused", 38, 7)
    with pytest.raises(ConnectionFailed) as caught:
        Connection(FakeLibvirt(refused), "qemu+unix:///session?socket=/a b&c")
    assert caught.value.cure.endswith("virsh -c 'qemu+unix:///session?socket=/a b&c' list")


def test_missing_package_is_installed_from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(MissingExtra) as caught:
        LibvirtBackend.connect(Target("libvirt", "x"), {"uri": "qemu:///system"})
    assert "in nestvirt's checkout: pip install '.[libvirt]'" in caught.value.cure
