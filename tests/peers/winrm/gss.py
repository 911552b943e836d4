"""The server's side of Kerberos, by the system's libgssapi: pykerberos has only the client's."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from functools import cache
from typing import Any

from tests.lab import LabError

COMPLETE, CONTINUE = 0, 1
NO_CHANNEL = 0
HEADER, DATA, PADDING, ALLOCATE = 2, 1, 9, 0x00010000
MECHANISM_ERROR, ROUTINE_ERROR = 2, 1


class Denied(Exception):
    """The client's ticket, or its message, is not taken."""


class _Buffer(ctypes.Structure):
    _fields_ = (("length", c_size_t), ("value", c_void_p))


class _Part(ctypes.Structure):
    _fields_ = (("type", c_uint32), ("buffer", _Buffer))


class _Bindings(ctypes.Structure):
    _fields_ = (
        ("initiator_type", c_uint32),
        ("initiator", _Buffer),
        ("acceptor_type", c_uint32),
        ("acceptor", _Buffer),
        ("application", _Buffer),
    )


@cache
def _library() -> Any:
    try:
        return ctypes.CDLL("libgssapi_krb5.so.2")
    except OSError as error:
        raise LabError(f"no Kerberos: {error}") from error


def _buffer(content: bytes) -> _Buffer:
    return _Buffer(len(content), ctypes.cast(c_char_p(content), c_void_p))


class Acceptor:
    """One client's way in; the service's key is in the keytab that KRB5_KTNAME names.

    Args:
        binding: what ties it to the TLS connection around it; empty where there is none.

    Attributes:
        complete: whether the client is in.
        principal: who it is then.
    """

    def __init__(self, binding: bytes = b"") -> None:
        self._binding = binding
        self._context = c_void_p()
        self.complete = False
        self.principal = ""

    def step(self, token: bytes) -> bytes:
        """Take a token; return the answer.

        Raises:
            Denied: the ticket is not for us, not valid, or for another connection.
        """
        library, minor, flags = _library(), c_uint32(), c_uint32()
        name, answer, given = c_void_p(), _Buffer(), _buffer(token)
        nothing = _Buffer(0, None)
        bindings = _Bindings(NO_CHANNEL, nothing, NO_CHANNEL, nothing, _buffer(self._binding))
        major = library.gss_accept_sec_context(
            byref(minor),
            byref(self._context),
            None,
            byref(given),
            byref(bindings) if self._binding else None,
            byref(name),
            None,
            byref(answer),
            byref(flags),
            None,
            None,
        )
        if major not in (COMPLETE, CONTINUE):
            raise Denied(_reason(major, minor.value))
        self.complete = major == COMPLETE
        if self.complete:
            self.principal = _display(name)
        return _taken(answer)

    def wrap(self, message: bytes) -> tuple[bytes, bytes]:
        """Encrypt; return the header and the rest."""
        parts = (_Part * 3)(
            _Part(HEADER | ALLOCATE, _Buffer(0, None)),
            _Part(DATA, _Buffer(0, None)),
            _Part(PADDING | ALLOCATE, _Buffer(0, None)),
        )
        scratch = ctypes.create_string_buffer(message, len(message) or 1)  # it is encrypted where it is
        parts[1].buffer = _Buffer(len(message), ctypes.cast(scratch, c_void_p))
        library, minor, state = _library(), c_uint32(), c_int()
        major = library.gss_wrap_iov(byref(minor), self._context, 1, 0, byref(state), parts, 3)
        if major != COMPLETE:
            raise Denied(_reason(major, minor.value))
        header, data, padding = (ctypes.string_at(part.buffer.value, part.buffer.length) for part in parts)
        library.gss_release_iov_buffer(byref(minor), parts, 3)
        return header, data + padding

    def unwrap(self, header: bytes, data: bytes) -> bytes:
        """Decrypt.

        Raises:
            Denied: it was not encrypted by this client, for us, or not in this order.
        """
        first = ctypes.create_string_buffer(header, len(header) or 1)
        second = ctypes.create_string_buffer(data, len(data) or 1)
        parts = (_Part * 3)(
            _Part(HEADER, _Buffer(len(header), ctypes.cast(first, c_void_p))),
            _Part(DATA, _Buffer(len(data), ctypes.cast(second, c_void_p))),
            _Part(PADDING, _Buffer(0, None)),
        )
        minor, state, quality = c_uint32(), c_int(), c_uint32()
        major = _library().gss_unwrap_iov(byref(minor), self._context, byref(state), byref(quality), parts, 3)
        if major != COMPLETE or not state.value:
            raise Denied(_reason(major, minor.value))
        return ctypes.string_at(parts[1].buffer.value, parts[1].buffer.length)

    def close(self) -> None:
        """Give back what the library keeps."""
        _library().gss_delete_sec_context(byref(c_uint32()), byref(self._context), None)


def _display(name: c_void_p) -> str:
    shown, minor = _Buffer(), c_uint32()
    _library().gss_display_name(byref(minor), name, byref(shown), None)
    _library().gss_release_name(byref(minor), byref(name))
    return _taken(shown).decode()


def _taken(buffer: _Buffer) -> bytes:
    content = ctypes.string_at(buffer.value, buffer.length) if buffer.length else b""
    _library().gss_release_buffer(byref(c_uint32()), byref(buffer))
    return content


def _reason(major: int, minor: int) -> str:
    texts = []
    for code, kind in ((major, ROUTINE_ERROR), (minor, MECHANISM_ERROR)):
        shown, status, more = _Buffer(), c_uint32(), c_uint32()
        _library().gss_display_status(byref(status), c_uint32(code), kind, None, byref(more), byref(shown))
        texts.append(_taken(shown).decode(errors="replace"))
    return ": ".join(texts)
