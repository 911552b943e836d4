"""What is expensive is made once: outside the repository, whole or not at all, by one builder at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def home() -> Path:
    """The folder of everything that the lab has built and may build again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nestvirt-lab"


def cached(name: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """The folder that build() fills; it is called only when nothing was built by this recipe yet.

    Args:
        name: what it is, for people who look into the cache.
        recipe: everything that the content depends on; another recipe is another folder.
        build: fills the empty folder that it is given. If it raises, nothing is kept.
    """
    place = home() / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if place.is_dir():
        return place
    home().mkdir(parents=True, exist_ok=True)
    with (home() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():  # another process was building it while this one waited
            return place
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home()))
        try:
            build(scratch)
            scratch.chmod(0o755)
            scratch.rename(place)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return place
