"""Debian packages that are only unpacked, never installed: kernel, agent, sshd, and their libraries."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab import LabError
from tests.lab.cache import cached

DOWNLOAD_SECONDS = 600


def unpacked(name: str, packages: Sequence[str]) -> Path:
    """A folder with the content of these packages, in the versions that this machine's apt knows."""

    def build(tree: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for package in _download(packages, Path(scratch)):
                _run(["dpkg-deb", "--extract", str(package), str(tree)])

    return cached(name, " ".join(sorted(packages)), build)


def dependency(package: str, prefix: str) -> str:
    """The package whose name starts with prefix and on which a meta package depends.

    Raises:
        LabError: there is none.
    """
    for attempt in ("with the lists at hand", "after an update"):
        if attempt == "after an update":
            _update()
        shown = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True)
        for line in shown.stdout.splitlines():
            relation, _, other = line.strip().partition(": ")
            if relation == "Depends" and other.startswith(prefix):
                return other
    raise LabError(f"{package} depends on no {prefix}*: {shown.stderr.strip()}")


def with_dependencies(packages: Sequence[str], into: Path) -> list[Path]:
    """Download packages with all that they depend on, as for a machine that has none installed."""
    (into / "partial").mkdir()
    status = into / "partial/status"
    status.touch()
    settings = {
        "Dir::State::status": status,
        "Dir::Cache::archives": into,
        "Dir::Cache::pkgcache": "",  # this machine's is of what this machine has installed
        "Dir::Cache::srcpkgcache": "",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",  # nothing is installed, so that others need not wait
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    return _fetch(["apt-get", "-qq", "--yes", *options, "--download-only", "install", *packages], into)


def source(package: str, into: Path) -> Path:
    """The unpacked source package, from where this machine has its binary packages.

    This machine's own apt need not know sources: their lists go into that folder too.
    """
    for folder in ("sources", "lists/partial", "archives/partial"):
        (into / folder).mkdir(parents=True)
    for known in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*")):
        if known.suffix in (".list", ".sources") and known.is_file():
            text = re.sub(r"^(deb|Types:.*)(?= |$)", _as_source, known.read_text(), flags=re.MULTILINE)
            (into / "sources" / known.name).write_text(text)
    settings = {
        "Dir::Etc::sourcelist": "/nonexistent",
        "Dir::Etc::sourceparts": into / "sources",
        "Dir::State::lists": into / "lists",
        "Dir::Cache": into,
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    _run(["apt-get", "-qq", *options, "update"])
    _run(["apt-get", "-qq", *options, "source", package], cwd=into)
    return next(path for path in into.glob(f"{package}-*") if path.is_dir())


def _as_source(kind: re.Match[str]) -> str:
    return "deb-src" if kind[1] == "deb" else "Types: deb-src"


def _download(packages: Sequence[str], into: Path) -> list[Path]:
    # As root apt would download as the user _apt, who may not write here.
    return _fetch(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages], into)


def _fetch(command: Sequence[str], into: Path) -> list[Path]:
    if subprocess.run(command, cwd=into, capture_output=True, timeout=DOWNLOAD_SECONDS).returncode != 0:
        _update()
        _run(command, cwd=into)
    return sorted(into.glob("*.deb"))


def _update() -> None:
    """Fetch apt's lists: on a fresh machine there are none, and old ones name versions that are gone."""
    _run([*([] if os.geteuid() == 0 else ["sudo"]), "apt-get", "-qq", "update"])


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
