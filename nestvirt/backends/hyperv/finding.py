"""Which VM a name means: what find.ps1 has found, and what is said where that is not one. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nestvirt.backends.hyperv.reading import Nonsense, number, part, several, text
from nestvirt.backends.hyperv.situation import Situation
from nestvirt.errors import Error, TargetError
from nestvirt.printable import printable

_IDENTITY = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?(?:@(.+))?", re.IGNORECASE)
_OTHER = "or name another host with --connect"
_ALSO = f"choose one of these; {_OTHER}"


@dataclass(frozen=True)
class Wanted:
    """A VM as it was named.

    Attributes:
        id: the GUID, where the name is one; else empty.
        place: of ``GUID@PLACE``: the host or cluster that it belongs to; else empty.
    """

    name: str
    id: str = ""
    place: str = ""

    @classmethod
    def parse(cls, name: str) -> Wanted:
        """Read a name as the user, or a record, writes it."""
        found = _IDENTITY.fullmatch(name)
        return cls(name, found[1].lower(), found[2] or "") if found else cls(name)

    @property
    def data(self) -> dict[str, str]:
        """What find.ps1 gets; see there for the "="."""
        return {"name": f"={self.name}", "id": self.id}


def one(wanted: Wanted, answer: Any) -> tuple[Any, str]:
    """The facts of the one VM that was found, as vm.ps1 writes them, and the cluster that its host is in.

    Raises:
        TargetError: there is none, or more than one.
    """
    name = printable(wanted.name, 100)
    try:
        count = number(answer, "count")
        if count == 1:
            return part(answer, "facts", dict), text(answer, "cluster")
        if count > 1:
            raise TargetError(
                f"{count} VMs are called {name}",
                evidence="; ".join(
                    f"{text(vm, 'id')} ({text(vm, 'state')})" for vm in several(answer, "listed")
                ),
                cure="name one by its id",
            )
        raise _none(name, answer)
    except Nonsense as error:
        raise Error(
            "the Hyper-V host's answer is not what was asked for",
            evidence=printable(str(error), 300),
            cure="run this again",
        ) from error


def _none(name: str, answer: Any) -> TargetError:
    host = text(answer, "host")
    for role in several(answer, "roles"):
        node = text(role, "node")
        evidence = f"its cluster has its role, {text(role, 'name')}, on the node {node}"
        if node.lower() != host.lower():
            cure = f"connect there: --connect https://{node}"
            return TargetError(f"{name} is not on {host} now", evidence=evidence, cure=cure)
        for resource in several(role, "configuration"):
            evidence += f"; the resource {text(resource, 'name')} is {text(resource, 'state')}"
        cure = "bring its storage back, and then on the node: Start-ClusterResource with that resource's name"
        return TargetError(f"{host} does not show {name} now", evidence=evidence, cure=cure)
    total = number(answer, "total")
    names = [text(vm, "name") for vm in several(answer, "listed")]
    more = f" and {total - len(names)} more" if total > len(names) else ""
    evidence = f"its VMs: {', '.join(sorted(names))}{more}" if names else "it has none that this user may see"
    cure = _ALSO if names else "see that this user is in the host's group Hyper-V Administrators; " + _OTHER
    return TargetError(f"{host} has no VM {name}", evidence=evidence, cure=cure)


def place_of(wanted: Wanted, facts: Situation, cluster: str) -> str:
    """What the VM's identity belongs to: its cluster, else its host, whatever that is reached by.

    A record may have the other one: the VM was made a cluster's since, or is none any more.

    Args:
        cluster: that the host is in; empty for none.

    Raises:
        TargetError: the VM is wanted of somewhere else.
    """
    places = [facts.host.name, cluster]
    if facts.group is not None:
        places = [cluster, facts.group.cluster, facts.host.name]
    places = [place for place in places if place]
    if not wanted.place:
        return places[0]
    for place in places:
        if place.lower() == wanted.place.lower():
            return place
    raise elsewhere(wanted, places[0])


def elsewhere(wanted: Wanted, place: str) -> TargetError:
    """A VM of the same id on another host: a copy of Hyper-V Replica's, or one that was imported."""
    return TargetError(
        f"the VM {wanted.id} of {printable(wanted.place, 100)} is not this one",
        evidence=f"there is a VM of that id on {place}: a replica, or a copy, or one that has moved",
        cure=f"connect to {printable(wanted.place, 100)}; or name the one here by its name",
    )
