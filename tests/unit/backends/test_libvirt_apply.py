"""What may be believed when a definition was to be written: was it, or was it not?"""

from __future__ import annotations

import pytest

from nestvirt.backends.libvirt import LibvirtBackend
from nestvirt.backends.libvirt.connection import Connection
from nestvirt.backends.libvirt.cpu_xml import split
from nestvirt.errors import AccessDenied, ChangeRejected, ConnectionFailed, Error
from nestvirt.model import Change, Vm
from tests.unit.backends.domains import domain, mode
from tests.unit.backends.fakes import FakeConnection, FakeLibvirt, FakeLibvirtError

VM = Vm("6695eb01-f6a4-8304-79aa-97f2502e193f", "web 01")
OLD, NEW = mode("host-model"), mode("host-passthrough")
BEFORE, AFTER = domain(OLD), domain(NEW)
CHANGE = Change("cpu", OLD, NEW)
READ, DEFINE, READ_BACK, RESTORE = 1, 2, 3, 4

LOST = [
    pytest.param(FakeLibvirtError("client socket is closed", 1, 7), id="closed"),
    pytest.param(FakeLibvirtError("End of file while reading data: Input/output error", 38, 7), id="eof"),
    pytest.param(FakeLibvirtError("Cannot recv data: Connection reset by peer", 38, 7), id="reset"),
    pytest.param(FakeLibvirtError("received hangup event on socket", 39, 13), id="rpc"),
]


def refusal(words: str = "unsupported configuration: CPU", code: int = 67) -> FakeLibvirtError:
    return FakeLibvirtError(words, code)


def backend(*connections: FakeConnection | FakeLibvirtError) -> LibvirtBackend:
    return LibvirtBackend(Connection(FakeLibvirt(*connections), "qemu:///system"), {"uri": "qemu:///system"})


def restless(xml: str) -> str:
    """A libvirt that changes the memory, too."""
    return xml.replace("196608", "196609")


def test_it_is_written() -> None:
    connection = FakeConnection(BEFORE)
    backend(connection).apply(VM, CHANGE)
    assert connection.stored == AFTER


def test_a_refusal_wrote_nothing() -> None:
    connection = FakeConnection(BEFORE, {DEFINE: refusal()})
    with pytest.raises(ChangeRejected, match="refused") as caught:
        backend(connection).apply(VM, CHANGE)
    assert caught.value.evidence == "unsupported configuration: CPU"


def test_another_value_than_was_planned_from_is_left_alone() -> None:
    connection = FakeConnection(AFTER)
    with pytest.raises(ChangeRejected, match="somebody else"):
        backend(connection).apply(VM, CHANGE)
    assert connection.stored == AFTER


@pytest.mark.parametrize("lost", LOST)
def test_a_connection_lost_while_writing_is_no_refusal(lost: FakeLibvirtError) -> None:
    with pytest.raises(ConnectionFailed):
        backend(FakeConnection(BEFORE, {DEFINE: lost})).apply(VM, CHANGE)


@pytest.mark.parametrize("lost", LOST)
def test_a_connection_lost_before_writing_is_opened_anew(lost: FakeLibvirtError) -> None:
    second = FakeConnection(BEFORE)
    backend(FakeConnection(BEFORE, {READ: lost}), second).apply(VM, CHANGE)
    assert second.stored == AFTER


@pytest.mark.parametrize("lost", LOST)
def test_a_connection_lost_after_writing_is_opened_anew(lost: FakeLibvirtError) -> None:
    first, second = FakeConnection(BEFORE, {READ_BACK: lost}), FakeConnection(AFTER)
    backend(first, second).apply(VM, CHANGE)


def test_a_connection_that_cannot_be_opened_anew_failed() -> None:
    closed = FakeLibvirtError("client socket is closed", 1, 7)
    refused = FakeLibvirtError("Failed to connect socket: Connection refused", 38, 7)
    with pytest.raises(ConnectionFailed, match="cannot connect"):
        backend(FakeConnection(BEFORE, {READ: closed}), refused).apply(VM, CHANGE)


def test_what_fails_after_writing_is_no_refusal() -> None:
    connection = FakeConnection(BEFORE, {READ_BACK: refusal()})
    with pytest.raises(Error, match="cannot be read back") as caught:
        backend(connection).apply(VM, CHANGE)
    assert type(caught.value) is Error
    assert "dumpxml --inactive 'web 01'" in caught.value.cure


def test_what_changed_more_than_the_cpu_is_put_back() -> None:
    connection = FakeConnection(BEFORE, keeping=restless)
    with pytest.raises(ChangeRejected, match="more of web 01 than its CPU") as caught:
        backend(connection).apply(VM, CHANGE)
    assert connection.stored == BEFORE
    assert caught.value.cure.endswith("virsh -c qemu:///system edit 'web 01'")


def test_what_changed_more_and_cannot_be_put_back_is_no_refusal() -> None:
    connection = FakeConnection(BEFORE, {RESTORE: refusal()}, keeping=restless)
    with pytest.raises(Error, match="refused its former definition") as caught:
        backend(connection).apply(VM, CHANGE)
    assert type(caught.value) is Error
    assert split(connection.stored)[1] == NEW


def test_a_closed_connection_stays_closed() -> None:
    opened = backend(FakeConnection(BEFORE), FakeConnection(BEFORE))
    opened._connection._handle.close = lambda: None
    opened.close()
    with pytest.raises(ConnectionFailed, match="was closed"):
        opened.apply(VM, CHANGE)


def test_denied_by_the_rules_of_libvirt_is_access_denied_wherever() -> None:
    connection = FakeConnection(BEFORE, {DEFINE: refusal("access denied", 88)})
    with pytest.raises(AccessDenied):
        backend(connection).apply(VM, CHANGE)


def test_permission_denied_is_about_libvirt_when_connecting_only() -> None:
    with pytest.raises(AccessDenied):
        backend(FakeLibvirtError("Failed to connect socket: Permission denied", 38, 7))
    connection = FakeConnection(BEFORE, {DEFINE: refusal("Could not open '/disk': Permission denied", 1)})
    with pytest.raises(ChangeRejected):
        backend(connection).apply(VM, CHANGE)


def test_the_error_handler_runs_no_bytecode() -> None:
    """Else a pending Ctrl-C is raised inside libvirt's C, and ends as a SystemError."""
    libvirt = FakeLibvirt(FakeConnection(BEFORE))
    Connection(libvirt, "qemu:///system")
    assert libvirt.handler is not None
    handler, context = libvirt.handler
    assert not hasattr(handler, "__code__")
    handler(context, (1, 2, "words"))
