"""Who holds a VM's configuration: the lock folder beside it, ``NAME.vmx.lck``.

A member of such a folder is ``M12345.lck``, and says ``MACHINE EXECUTION NUMBER X …``: which machine, and as
``pid-start(name)`` which process; on macOS without the name. Source: open-vm-tools, lib/file
(fileLockPrimitive.c, fileLockPosix.c, file.c) and lib/misc/hostinfo.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nestvirt.backends.workstation.vmfile import content

PROC = Path("/proc")

LIMIT = 4096
"""Bytes of a member that are read; VMware writes 512."""

VM_PROCESS = "vmware-vmx"
"""The process that is a running VM; another holder has the VM open, and does not run it."""

_INITIAL = 0xEFFFFFFC
"""The inode of the PID namespace that is not a container's (Linux, PID_NS_INIT_INO)."""

_MEMBER = re.compile(r"[MDE]\d{5}\.lck")
_PROCESS = re.compile(r"(\d{1,10})-(\d+)(?:\((.*)\))?")


class Life(StrEnum):
    """What became of a holder."""

    LIVE = "live"
    DEAD = "dead"  # a process of this machine, which is gone
    ELSEWHERE = "elsewhere"  # of another machine or outside this container, or nobody can tell


@dataclass(frozen=True)
class Holder:
    """One who holds a lock.

    Attributes:
        folder: the lock's folder.
        pid: its process; 0 where the lock does not say so.
        process: that process's name; empty where neither the lock nor this machine tells.
    """

    folder: str
    pid: int
    process: str
    life: Life

    @property
    def runs_vm(self) -> bool:
        """Whether it is a VM that runs on this machine."""
        return self.life is Life.LIVE and self.process.startswith(VM_PROCESS)


def holders(file: Path) -> tuple[Holder, ...]:
    """Those who hold a file, by the lock folder beside it; none where there is no such folder.

    Raises:
        OSError: the folder or what is in it cannot be read.
    """
    folder = Path(f"{file}.lck")
    try:
        named = [member for member in folder.iterdir() if _MEMBER.fullmatch(member.name)]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found: list[Holder] = []
    for member in sorted(named):
        if member.is_dir():
            continue  # a turn that is taken
        with contextlib.suppress(FileNotFoundError):  # it went
            words = content(member, LIMIT).rstrip(b"\0").decode("latin-1").split()
            found.append(_holder(str(folder), words))
    return tuple(found)


def _holder(folder: str, words: list[str]) -> Holder:
    described = _PROCESS.fullmatch(words[1]) if len(words) >= 4 else None
    if described is None:
        return Holder(folder, 0, "", Life.ELSEWHERE)
    pid, started, name = int(described[1]), int(described[2]), described[3]
    here = _is_here(words[0])
    if here is not False and _lives(pid, started):
        return Holder(folder, pid, name or _name_of(pid), Life.LIVE)
    return Holder(folder, pid, name or "", Life.DEAD if here and all_seen() else Life.ELSEWHERE)


def _is_here(machine: str) -> bool | None:
    """Whether a machine's id is this one's; None where it is of a kind that says nothing of the host's name.

    On Linux it is base64 of a hash of the host's name (Bernstein's, 32 bits) and a network card's address.
    """
    if machine.startswith("uuid="):
        return None
    try:
        raw = base64.b64decode(machine.replace("-", "/"), validate=True)
    except binascii.Error:
        return None
    if len(raw) != 12:
        return None
    hashed = 5381
    for byte in socket.gethostname().encode():
        hashed = (hashed * 33 + byte) & 0xFFFFFFFF
    return raw[:4] == struct.pack("<I", hashed)


def _lives(pid: int, started: int) -> bool:
    """Whether that very process is there: a number alone may be another one's by now."""
    try:
        # After the name, which may hold anything, the 20th field is when it started (proc(5)).
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        gone = fields[0] in (b"Z", b"X")  # ended, and nobody has asked for its exit code yet
        return not gone and (started == 0 or fields[19] == str(started).encode())
    except (OSError, IndexError):
        pass  # there is no such process, or no /proc, or it hides those of others (hidepid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def all_seen() -> bool:
    """Whether each process of this machine has its number here: a container has numbers of its own."""
    if sys.platform != "linux":
        return True
    try:
        return (PROC / "self/ns/pid").stat().st_ino == _INITIAL
    except OSError:
        return False


def _name_of(pid: int) -> str:
    """What a process of a system without /proc is called; empty where that is not told."""
    try:
        told = subprocess.run(
            ["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.decode(errors="replace").strip().rpartition("/")[2]
