"""Many hypervisors are asked at once; who wants to stop does not wait for one that is silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AT_ONCE = 16

T = TypeVar("T")
R = TypeVar("R")


def answers(ask: Callable[[T], R], of: Sequence[T]) -> list[R]:
    """What each has answered, in their order.

    Raises:
        KeyboardInterrupt: at once; the threads that still wait are left alone.
    """
    pool = ThreadPoolExecutor(max_workers=max(1, min(AT_ONCE, len(of))))
    wait = True
    try:
        return list(pool.map(ask, of))
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
