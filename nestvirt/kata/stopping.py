"""What is said where the user stops a run: how things stand, and how it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nestvirt.errors import Interrupted


@contextmanager
def stopped(how: str, cure: str) -> Iterator[None]:
    """Turn a Ctrl-C into words; of several around each other the innermost tells.

    Raises:
        Interrupted: the user stopped it.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(f"stopped; {how}", cure=cure) from stop
