"""Brings the Proxmox peer up on 127.0.0.1, with a certificate of its own; for tests and plain programs."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from fakepve.certs import make_cert

from tests.peers.pve import PvePeer
from tests.peers.pve_cpu import PVE_9_2, Release

SECONDS = 30


@dataclass(frozen=True)
class Served:
    """A peer that listens.

    Attributes:
        url: https://127.0.0.1:PORT.
        ca_file: the certificate, to be trusted.
        fingerprint: its SHA-256, as Proxmox shows it.
    """

    pve: PvePeer
    url: str
    ca_file: str
    fingerprint: str


@contextmanager
def serve(release: Release = PVE_9_2) -> Iterator[Served]:
    """A peer with one node, pve1, and no VM, as long as the context lasts."""
    certificate, key, digits = _certificate()
    pve = PvePeer(release)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="pve", daemon=True)
    thread.start()

    def call(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(SECONDS)

    try:
        call(pve.start(certificate, key))
        try:
            yield Served(pve, pve.url, certificate, digits)
        finally:
            call(pve.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECONDS)
        loop.close()


@cache
def _certificate() -> tuple[str, str, str]:
    """One for the whole process: a new one takes longer than the rest."""
    folder = tempfile.TemporaryDirectory(prefix="nv-pve-")
    _kept.append(folder)
    certificate, key, der = make_cert(folder.name, hosts=("127.0.0.1",))
    digits = hashlib.sha256(der).hexdigest().upper()
    return certificate, key, ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends
