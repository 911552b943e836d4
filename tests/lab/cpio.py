"""Archives in the kernel's initramfs format (newc), written without cpio(1), hence without root.

The kernel unpacks archives that lie one after the other in an initrd over each other: a file is added to a
finished guest by appending a second, small archive.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Entry:
    """One file, folder or symbolic link (data is where it points to), owned by root."""

    path: str
    data: bytes = b""
    mode: int = stat.S_IFREG | 0o644

    @classmethod
    def program(cls, path: str, data: bytes) -> Entry:
        """A file that can be executed."""
        return cls(path, data, stat.S_IFREG | 0o755)


def entry_of(path: Path, inside: str) -> Entry:
    """What lies at path on this machine, as an entry of that name."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return Entry(inside, bytes(path.readlink()), mode)
    return Entry(inside, path.read_bytes() if stat.S_ISREG(mode) else b"", mode)


def entries_of(tree: Path) -> Iterator[Entry]:
    """Everything in a folder."""
    for path in sorted(tree.rglob("*")):
        yield entry_of(path, str(path.relative_to(tree)))


def pack(entries: Iterable[Entry]) -> bytes:
    """The archive of these entries and of the folders that they need."""
    archive = bytearray()
    inode = 0
    for inode, entry in enumerate(_with_parents(entries), start=1):
        archive += _record(inode, entry)
    return bytes(archive + _record(inode + 1, Entry("TRAILER!!!", mode=0)))


def _with_parents(entries: Iterable[Entry]) -> Iterator[Entry]:
    known: set[str] = set()
    for entry in entries:
        for parent in reversed(PurePosixPath(entry.path).parents[:-1]):
            if str(parent) not in known:
                known.add(str(parent))
                yield Entry(str(parent), mode=stat.S_IFDIR | 0o755)
        if entry.path not in known:
            known.add(entry.path)
            yield entry


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links, owner, time, device = 1, 0, 0, 0
    fields = (inode, entry.mode, owner, owner, links, time, len(entry.data), *[device] * 4, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return padded(head) + padded(entry.data)


def padded(data: bytes) -> bytes:
    """The data up to the next multiple of 4, where alone the kernel looks for another archive."""
    return data + b"\0" * (-len(data) % 4)
