"""The Kubernetes API's addresses and answers. Pure: what is asked, and what came back, strictly read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode

from nestvirt.errors import AccessDenied
from nestvirt.printable import printable

Object = dict[str, Any]
"""A Kubernetes object, as JSON."""
Objects = list[Object]
NOTHING: Mapping[str, object] = MappingProxyType({})

KINDS = {
    "namespaces": "api/v1",
    "nodes": "api/v1",
    "pods": "api/v1",
    "events": "api/v1",
    "configmaps": "api/v1",
    "secrets": "api/v1",
    "serviceaccounts": "api/v1",
    "daemonsets": "apis/apps/v1",
    "jobs": "apis/batch/v1",
    "runtimeclasses": "apis/node.k8s.io/v1",
    "roles": "apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "apis/rbac.authorization.k8s.io/v1",
    "clusterroles": "apis/rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "apis/rbac.authorization.k8s.io/v1",
}
"""The kinds that are asked about, and where the API has them (Kubernetes 1.20 or later)."""


@dataclass(frozen=True)
class Query:
    """Which objects are meant.

    Attributes:
        kind: a key of KINDS.
        namespace: where; "*" for all. None for kinds outside namespaces.
        selector: of labels.
        fields: of fields, such as ``involvedObject.name=web-1``.
    """

    kind: str
    namespace: str | None = None
    selector: str = ""
    fields: str = ""

    def path(self, further: Mapping[str, object] = NOTHING) -> str:
        """The API's address of them, with further words of its query."""
        inside = self.namespace not in (None, "*")
        where = f"/namespaces/{quote(str(self.namespace), safe='')}" if inside else ""
        asked = {"labelSelector": self.selector, "fieldSelector": self.fields, **further}
        words = urlencode({key: value for key, value in asked.items() if value not in ("", None)})
        return f"/{KINDS[self.kind]}{where}/{self.kind}{'?' if words else ''}{words}"

    def path_of(self, name: str, part: str = "", further: Mapping[str, object] = NOTHING) -> str:
        """The address of one of them by name, or of a part of it, such as its log."""
        whole = Query(self.kind, self.namespace).path()
        words = urlencode({key: value for key, value in further.items() if value is not None})
        rest = f"/{part}" if part else ""
        return f"{whole}/{quote(name, safe='')}{rest}{'?' if words else ''}{words}"


def parsed(answer: bytes, place: str) -> Any:
    """JSON of the API server.

    Raises:
        AccessDenied: it is none.
    """
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise nonsense(place, printable(answer[:200].decode(errors="replace"))) from error


def items(listing: Any, place: str) -> Objects:
    """The objects of a list.

    Raises:
        AccessDenied: it is no list.
    """
    found = listing.get("items", ()) if isinstance(listing, dict) else ()
    if found is None:  # Go's empty list
        return []
    if not isinstance(found, list):
        raise nonsense(place, "it answers with something that is no list")
    return [o for o in found if isinstance(o, dict) and isinstance(o.get("metadata"), dict)]


def name_of(found: Object) -> str:
    """An object's name."""
    return str(found["metadata"].get("name", ""))


def at(found: Any, *path: str) -> Any:
    """What an object has at a path; None where it has nothing there."""
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def as_list(objects: list[Object] | tuple[Object, ...]) -> bytes:
    """Objects as one list, for kubectl."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}).encode()


def nonsense(place: str, evidence: str) -> AccessDenied:
    """The error for what no API server answers."""
    return AccessDenied(
        f"the API server of {place} gives no usable answer",
        evidence=evidence,
        cure="see what answers at its address: kubectl cluster-info",
    )
