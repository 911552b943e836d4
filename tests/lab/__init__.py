"""The lab: real machines to test against, made from Debian packages. See docs/reference/lab.md."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import pytest


class LabError(Exception):
    """The lab could not be brought up, or something in it did not do what it was told."""


class Closing:
    """A context manager that ends with close()."""

    def close(self) -> None:
        """End what was started."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def need(condition: object, why: str) -> None:
    """Go on only where the condition holds: else skip on a laptop, fail where NESTVIRT_PEERS=required.

    Args:
        condition: anything true or false; an exception (what went wrong) counts as false.
        why: the sentence to show.
    """
    if condition and not isinstance(condition, BaseException):
        return
    reason = f"{why}: {condition}" if isinstance(condition, BaseException) else why
    if os.environ.get("NESTVIRT_PEERS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def wait_for(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait until the condition holds.

    Raises:
        LabError: it did not within timeout seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.05)
