"""Of which page a picture was made: a digest in the PNG itself, so that a test sees when it is too old."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib

from nestvirt import __version__, report_html
from nestvirt.errors import ConnectionFailed
from nestvirt.model import PROOF, Change, Finding, Fleet, Layer, Proof, Report, Row, Status

KEYWORD = b"nestvirt page"
_END = 12
"""How long a PNG's last chunk is."""


def digest() -> str:
    """Of a page with all that is in the picture: another one means that the code draws it differently now.

    The version counts for nothing: a release alone makes no picture old.
    """
    paused = Finding("vm-suspended", Layer.VM, Status.FAIL, "it is paused", "virsh resume web-01")
    off = Finding("vm-cpu", Layer.VM, Status.FAIL, "kvm64 shows no svm", "nestvirt enable")
    ran = Finding(PROOF, Layer.GUEST, Status.PASS, "guest code ran")
    change, proof = Change("cpu", "kvm64", "host"), Proof("works", None, "ssh", {"exit_ns": 9500.0})
    host = Finding("host-nested", Layer.HOST, Status.PASS, "nested=1")
    rows = [
        Row("proxmox@dc1:1", Report("proxmox@dc1:1", (host, paused, off), blockers=(paused,)), 1.0),
        Row("vsphere@west:2", ConnectionFailed("no answer", evidence="refused", cure="start it"), 1.0),
        *(Row(f"libvirt:{n}", Report(f"libvirt:{n}", (host, ran), (change,), proof), 1.0) for n in range(7)),
    ]
    page = report_html.fleet_to_html(Fleet(tuple(rows), "enable", seconds=2.0), "2026-01-31 10:15 UTC")
    return hashlib.sha256(page.replace(__version__, "").encode()).hexdigest()


def stamped(png: bytes, words: str) -> bytes:
    """The same picture with words in a text chunk before its end."""
    chunk = b"tEXt" + KEYWORD + b"\0" + words.encode("latin-1")
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:-_END] + whole + png[-_END:]


def stamp(png: bytes) -> str:
    """Those words; none where it has none."""
    found = re.search(b"tEXt" + KEYWORD + b"\0([0-9a-f]{64})", png)
    return found[1].decode() if found else ""
