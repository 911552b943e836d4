"""Watches: what is there, and each change of it, of several kinds at once.

A watch is a list and then a stream from that list's version on, as the API is made for; when a stream
ends (the API server restarts, or ends it), the list is read again and compared with what was told.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from nestvirt.errors import ConnectionFailed
from nestvirt.kata import answers
from nestvirt.kata.api import Object, Query, items, nonsense, parsed

if TYPE_CHECKING:
    from nestvirt.kata.kube import Kube

LISTED = "LISTED"
"""The change that tells that all that is there has been told."""
QUIET = "QUIET"
"""The change that tells that there was none for a while."""
LINE_LIMIT = 8 << 20
"""Bytes of one event; etcd holds no object that is longer than some MiB."""
PAUSE = 0.5
"""Seconds at least from one stream of a watch to its next."""

Told = tuple[str, str, Object]


def watch(
    kube: Kube, queries: Sequence[Query], *, timeout: float, quiet: float
) -> Generator[Told, None, None]:
    """Tell (kind, change, object) until the timeout; see Kube.watches."""
    deadline = time.monotonic() + timeout
    streams = [_Stream(kube, query, deadline) for query in queries]
    selector = selectors.DefaultSelector()
    try:
        while time.monotonic() < deadline:
            for stream in streams:
                if stream.process is None:
                    yield from stream.list()
                    selector.register(stream.begin(), selectors.EVENT_READ, stream)
            ready = selector.select(min(quiet, max(0.0, deadline - time.monotonic())))
            if not ready:
                yield "", QUIET, {}
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                    key.data.end()
                else:
                    yield from key.data.events(chunk)
    finally:
        selector.close()
        for stream in streams:
            stream.kill()


class _Stream:
    """One watch: what it has told, and the kubectl that follows."""

    def __init__(self, kube: Kube, query: Query, deadline: float) -> None:
        self.kube, self.query, self.deadline = kube, query, deadline
        self.process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._known: dict[str, Object] = {}
        self._version = ""
        self._rest = bytearray()
        self._began = 0.0

    def list(self) -> Iterator[Told]:
        """Read all, and tell what differs from what was told."""
        listing = self.kube.raw(self.query.path())
        now = {_identity(found): found for found in items(listing, self.kube.place)}
        self._version = str(listing["metadata"]["resourceVersion"])
        gone = [found for uid, found in self._known.items() if uid not in now]
        known, self._known = self._known, now
        for found in gone:
            yield self.query.kind, "DELETED", found
        for uid, found in now.items():
            if uid not in known:
                yield self.query.kind, "ADDED", found
            elif _version(known[uid]) != _version(found):
                yield self.query.kind, "MODIFIED", found
        yield self.query.kind, LISTED, {}

    def begin(self) -> IO[bytes]:
        """Start the stream; return where it can be read."""
        left = max(1, round(self.deadline - time.monotonic()) + 1)
        path = self.query.path({"watch": "true", "resourceVersion": self._version, "timeoutSeconds": left})
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._rest.clear()
        self._began = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self.kube.command(["get", "--raw", path], timeout=left + 5),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,  # a Ctrl-C is ours to handle
                env=self.kube.environment(),
            )
        except (FileNotFoundError, PermissionError) as error:
            raise self.kube.missing() from error
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        return self.process.stdout

    def events(self, chunk: bytes) -> Iterator[Told]:
        """The changes that are whole with this further piece of the stream."""
        self._rest.extend(chunk)
        if b"\n" not in chunk:
            if len(self._rest) > LINE_LIMIT:
                raise nonsense(self.kube.place, f"an event is longer than {LINE_LIMIT} bytes")
            return
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest[:] = rest
        for line in lines:
            told = parsed(line, self.kube.place) if line.strip() else {}
            change, found = _event(told)
            if change == "ERROR":  # the version is too old by now
                self.kill_stream()
                return
            if not change:
                continue
            uid = _identity(found)
            if change == "DELETED":
                self._known.pop(uid, None)
            else:
                self._known[uid] = found
            yield self.query.kind, change, found

    def kill_stream(self) -> None:
        """Let it end, to be read again from a list."""
        if self.process is not None:
            self.process.kill()

    def end(self) -> None:
        """The stream has ended.

        Raises:
            Error: it was refused; that nobody answers is for the next list to say.
        """
        process, said = self.process, self._said
        if process is None or said is None:
            return
        code = process.wait()
        said.seek(0)
        stderr = said.read(1 << 16)
        self.kill()
        if code > 0:
            error = answers.read_error(stderr, place=self.kube.place, words=self.kube.words())
            if not isinstance(error, ConnectionFailed):
                raise error
        lived = time.monotonic() - self._began
        time.sleep(max(0.0, min(PAUSE - lived, self.deadline - time.monotonic())))

    def kill(self) -> None:
        """End kubectl, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
        if self._said is not None:
            self._said.close()
        self.process = self._said = None


def _event(told: Any) -> tuple[str, Object]:
    """An event of the stream; an empty change for what is none."""
    if not isinstance(told, dict):
        return "", {}
    change, found = told.get("type"), told.get("object")
    if change == "ERROR":
        return "ERROR", {}
    if change in ("ADDED", "MODIFIED", "DELETED") and isinstance(found, dict):
        return (change, found) if isinstance(found.get("metadata"), dict) else ("", {})
    return "", {}


def _identity(found: Object) -> str:
    meta = found["metadata"]
    return str(meta.get("uid") or (meta.get("namespace"), meta.get("name")))


def _version(found: Object) -> str:
    return str(found["metadata"].get("resourceVersion"))
