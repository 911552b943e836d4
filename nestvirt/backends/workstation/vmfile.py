"""The .vmx file itself: found by a path or its folder, read, and replaced in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import tempfile
from pathlib import Path

from nestvirt.backends.workstation.dialect import Document
from nestvirt.errors import AccessDenied, ChangeRejected, TargetError
from nestvirt.printable import printable

LIMIT = 4 << 20
"""Bytes that a .vmx may have; real ones have some thousands."""

SUFFIX = ".vmx"

MARKS = ("config.version", "virtualHW.version", "encryption.keySafe")
"""Settings of which every VM's configuration has one; a wholly encrypted one has the last alone."""

_DATASTORE = re.compile(r"/vmfs(/|$)|\[[^\]/]+\] ")


def target_name(name: str) -> str:
    """A name as it holds in any folder: an absolute path, for records and for the commands that are shown.

    What is written as a path on a datastore stays as it is, to be refused.
    """
    return name if _DATASTORE.match(name) else str(Path(os.path.expanduser(name)).absolute())  # noqa: PTH111


def located(name: str) -> Path:
    """The one .vmx file of a name: its path, or the folder or bundle that it is in; symbolic links resolved.

    Raises:
        TargetError: there is none, or more than one, or it is on a datastore of ESXi.
        AccessDenied: this user may not look.
    """
    _refuse_datastore(name)
    path = Path(name)
    try:
        if path.is_dir():
            path = _only_one_in(path)
        elif not path.exists():
            raise _nothing_at(name)
        elif path.suffix.lower() != SUFFIX:
            raise TargetError(
                f"{name} is no {SUFFIX} file",
                evidence=f"its name ends with {path.suffix or 'nothing'}",
                cure=f"name the file that ends with {SUFFIX}, or its folder",
            )
        real = path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except OSError as error:
        raise _denied(name, error) from error
    _refuse_datastore(str(real))
    if not regular:
        raise TargetError(f"{name} is no file", evidence=str(real), cure="name the VM's .vmx file")
    return real


def recorded_name(name: str) -> str:
    """The name by which records know a VM, whichever way its file is named now; the same where it is gone."""
    try:
        return str(located(name))
    except (TargetError, AccessDenied):
        return name


def read(path: Path) -> Document:
    """What is in the file.

    Raises:
        TargetError: it is gone, or no configuration of a VM.
        AccessDenied: this user may not read it.
    """
    try:
        data = content(path, LIMIT + 1)
    except FileNotFoundError as error:
        raise _nothing_at(str(path)) from error
    except OSError as error:
        raise _denied(str(path), error) from error
    document = Document.parse(data)
    ill = ""
    if len(data) > LIMIT:
        ill = f"it has more than {LIMIT} bytes"
    elif not document.legible:
        ill = f"it has NUL bytes, or an encoding that hides ASCII ({printable(document.encoding, 40)})"
    elif all(document.get(name) is None for name in MARKS):
        ill = f"it has none of {', '.join(MARKS)}"
    if ill:
        cure = "name the .vmx file that VMware itself wrote for the VM"
        raise TargetError(f"{path} is no configuration of a VM", evidence=ill, cure=cure)
    return document


def content(path: Path, limit: int) -> bytes:
    """The first bytes of a file. One in a VM's folder may be anything: nobody waits for a pipe here.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: the path can be none.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        return opened.read(limit)


def unwritable(path: Path) -> str:
    """Why this user cannot replace the file; empty where nothing is in the way."""
    try:
        about, folder = path.stat(), path.parent.stat()
    except OSError as error:
        return str(error)
    if not about.st_mode & 0o222 or not os.access(path, os.W_OK):
        return f"{path} is read-only (mode {stat.S_IMODE(about.st_mode):o})"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"in {path.parent} no file can be made by this user"
    if about.st_nlink > 1:
        return f"{path} has {about.st_nlink} names (hard links), of which one alone would be replaced"
    if not _may_own_alike(about, folder):
        return f"{path} is of user {about.st_uid}, group {about.st_gid}: this user can make no file like that"
    return ""


def _may_own_alike(about: os.stat_result, folder: os.stat_result) -> bool:
    """Whether a new file can get the owner and group of the old one: root gives them to anybody."""
    user = os.geteuid()
    groups = {os.getegid(), *os.getgroups()}
    if sys.platform == "darwin" or folder.st_mode & stat.S_ISGID:
        groups.add(folder.st_gid)  # a new file has the folder's
    return user == 0 or (about.st_uid == user and about.st_gid in groups)


def replace(path: Path, before: Document, after: Document) -> None:
    """Put another content in the file's place: all of it or nothing, and on the disk when this returns.

    Mode, owner and extended attributes are kept.

    Raises:
        ChangeRejected: it cannot be written, or was changed since it was read; nothing was touched.
    """
    descriptor, scratch = -1, ""
    try:
        descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(bytes(after))
            opened.flush()
            _take_over(path, opened.fileno())
            os.fsync(opened.fileno())
        if content(path, LIMIT + 1) != bytes(before):
            raise ChangeRejected(
                f"{path} was changed by somebody else a moment ago",
                evidence="it is not what was read before writing",
                cure="run this again to plan anew",
            )
        Path(scratch).rename(path)
        scratch = ""
        _settle(path.parent)
    except OSError as error:
        cure = "see that this user may make files in that folder, and that there is room"
        raise ChangeRejected(f"{path} cannot be written", evidence=str(error), cure=cure) from error
    finally:
        if scratch:
            with contextlib.suppress(FileNotFoundError):
                Path(scratch).unlink()


def _settle(folder: Path) -> None:
    """Have the name, too, outlive a power cut. Where that fails, the change is made none the less."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _take_over(path: Path, descriptor: int) -> None:
    """Give the new file what the old one has beside its content."""
    about, own = path.stat(), os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (about.st_uid, about.st_gid):
        os.fchown(descriptor, about.st_uid, about.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(about.st_mode))
    if not hasattr(os, "listxattr"):
        return  # Python offers them on Linux alone
    present = set(os.listxattr(descriptor))
    for name in os.listxattr(path):
        value = os.getxattr(path, name)
        if name not in present or os.getxattr(descriptor, name) != value:
            os.setxattr(descriptor, name, value)


def _only_one_in(folder: Path) -> Path:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() == SUFFIX and not p.name.startswith("."))
    if len(found) == 1:
        return found[0]
    if not found:
        raise TargetError(
            f"the folder {folder} has no {SUFFIX} file",
            evidence=_there_is(folder),
            cure="name the folder of one VM, or its .vmx file",
        )
    listed = ", ".join(p.name for p in found[:20])
    raise TargetError(
        f"the folder {folder} has more than one VM",
        evidence=printable(listed),
        cure=f"name one of these files: {found[0]}",
    )


def _nothing_at(name: str) -> TargetError:
    nearest = next((p for p in Path(name).absolute().parents if p.is_dir()), Path("/"))
    return TargetError(
        f"there is no VM at {name}",
        evidence=_there_is(nearest),
        cure="name the VM's .vmx file, or the folder or bundle that it is in",
    )


def _there_is(folder: Path) -> str:
    """The VMs in a folder, and one level below it."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        found = [str(p) for pattern in ("*", "*/*") for p in sorted(folder.glob(pattern + SUFFIX))]
    return printable(f"there is: {', '.join(found[:20])}") if found else f"{folder} has no VMs in it"


def _refuse_datastore(path: str) -> None:
    if _DATASTORE.match(path):
        raise TargetError(
            "a VM on a datastore of ESXi is not changed by its file",
            evidence=f"{printable(path, 200)}: ESXi has its own copy in memory, and would write over it",
            cure="name the VM to its host or vCenter instead: --vsphere NAME",
        )


def _denied(name: str, error: OSError) -> AccessDenied:
    return AccessDenied(
        f"{name} cannot be read by this user", evidence=str(error), cure="run nestvirt as the VM's own user"
    )
