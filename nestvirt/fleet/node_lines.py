"""What a fleet run's record has of Kubernetes' nodes: its lines, and what they come to."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Away:
    """A node that a run has had down.

    Attributes:
        uid, boot: as it was before; see State.
        since: when, in seconds of the clock.
    """

    uid: str
    boot: str
    since: float


class NodeLines(ABC):
    """Writes them; see Notes. Part of the run's record."""

    @abstractmethod
    def _write(self, **line: object) -> None:
        """Have a line on the disk."""

    def cluster(self, uid: str) -> None:
        """Note which cluster's nodes the VMs are."""
        self._write(event="cluster", uid=uid)

    def cordoning(self, node: str, uid: str) -> None:
        """Note that a node is about to be cordoned, which nobody had cordoned."""
        self._write(event="cordon", node=node, uid=uid)

    def uncordoned(self, node: str) -> None:
        """Note that it is not cordoned any more."""
        self._write(event="uncordon", node=node)

    def leaving(self, node: str, uid: str, boot: str) -> None:
        """Note that a node is about to go down."""
        self._write(event="away", node=node, uid=uid, boot=boot, since=time.time())

    def back(self, node: str) -> None:
        """Note that it is Ready again, or has not been down."""
        self._write(event="back", node=node)


NODE_EVENTS = frozenset({"cluster", "cordon", "uncordon", "away", "back"})


def of_nodes(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What those lines come to, as attributes of Recorded."""
    cordoned: dict[str, str] = {}
    away: dict[str, Away] = {}
    cluster, nodes = "", set()
    for line in lines:
        match line["event"]:
            case "cluster":
                cluster = str(line["uid"])
            case "cordon":
                cordoned[str(line["node"])] = str(line.get("uid") or "")
            case "uncordon":
                cordoned.pop(str(line["node"]), None)
            case "away":
                nodes.add(str(line["node"]))
                away[str(line["node"])] = Away(str(line["uid"]), str(line["boot"]), float(line["since"]))
            case "back":
                away.pop(str(line["node"]), None)
    return {"cordoned": cordoned, "away": away, "cluster": cluster, "nodes": frozenset(nodes)}
