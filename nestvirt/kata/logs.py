"""The logs of many pods by one kubectl, told apart without trusting what is in them.

kubectl writes ``[pod/NAME/CONTAINER] `` before each line that it reads, so that a line that begins so is
always kubectl's. Only where a log does not end with a newline is the next pod's first line joined to it: a
line with a second prefix in it may be either that or somebody's forgery. Such pods are read one by one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nestvirt.kata.kube import Kube

AT_ONCE = 50
"""Pods whose logs one kubectl reads, one after another."""

_PREFIX = re.compile(rb"\[pod/([a-z0-9.-]{1,253})/[a-z0-9-]{1,63}\] ")


def of_many(
    kube: Kube, pods: Collection[str], selector: str, *, namespace: str, container: str, limit: int, tail: int
) -> dict[str, bytes]:
    """Read the logs of those pods, which the selector selects; see Kube.logs."""
    answer = kube.run(
        *("logs", "--namespace", namespace, "--selector", selector, "--container", container),
        *("--prefix", "--ignore-errors", f"--tail={tail}", f"--limit-bytes={limit}"),
        limit=(limit + (64 << 10)) * max(1, len(pods)),
    )
    clear, doubtful = tell_apart(answer, frozenset(pods))
    alone = {
        pod: kube.log(
            pod, namespace=namespace, container=container, limit=limit, tail=tail if tail >= 0 else None
        )
        for pod in sorted(doubtful)
    }
    return {**clear, **alone}


def tell_apart(answer: bytes, pods: Collection[str]) -> tuple[dict[str, bytes], set[str]]:
    """Split kubectl's output by pod; the second are the pods of which it does not say what is whose.

    Lines end with LF only: a log may hold any other character that ends lines elsewhere.
    """
    found: dict[str, list[bytes]] = {}
    doubtful: set[str] = set()
    *lines, rest = answer.split(b"\n")
    for line in [*(line + b"\n" for line in lines), *([rest] if rest else [])]:
        first = _PREFIX.match(line)
        name = first[1].decode() if first else ""
        if first is None or name not in pods:
            continue  # kubectl's own words, about a log that it could not read
        within = {m[1].decode() for m in _PREFIX.finditer(line, first.end())} & set(pods)
        if within:
            doubtful |= {name} | within
        found.setdefault(name, []).append(line[first.end() :])
    return {name: b"".join(parts) for name, parts in found.items() if name not in doubtful}, doubtful
