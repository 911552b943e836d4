"""Runs of the probe's guest whose outcome is played by the test."""

from collections.abc import Callable, Iterator
from typing import Any

Step = tuple[str, Any]

RAN: list[Step] = [
    ("native_loops_per_s", 500e6),
    ("api", "12"),
    ("create", "made"),
    ("vcpu", "made"),
    ("run", "right"),
    ("nests", True),
    ("loops_per_s", 400e6),
    ("exit_ns", 40000),
]


def played(*changed: Step, upto: str = "") -> Callable[[], Iterator[Step]]:
    """A run with other results, or one that ends before a step."""
    steps = dict(RAN) | dict(changed)
    names = list(steps)
    return lambda: iter([(name, steps[name]) for name in names[: names.index(upto) if upto else None]])


def broken(cause: str, at: str) -> Callable[[], Iterator[Step]]:
    return lambda: iter([*played(upto=at)(), ("broken", (cause, "as the test plays it"))])
