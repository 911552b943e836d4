"""All that is to be read of Kata on a cluster, without its secrets, as one archive to hand to others."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nestvirt import __version__
from nestvirt.errors import AccessDenied, Error, SettingsError, TargetError
from nestvirt.kata import cluster, nodefiles, pods, redact
from nestvirt.kata.api import Object, at, name_of
from nestvirt.kata.cluster import DEPLOY, FAMILY, Cluster, Deploy, Node
from nestvirt.kata.explain import of_outcome
from nestvirt.kata.kube import Kube
from nestvirt.kata.pods import Outcome, Tell
from nestvirt.printable import printable

FOLDER = "nestvirt-kata-logs"
MOST_NODES = 10
"""Nodes that are looked into where none is named, the ill ones first."""
NODE_LIMIT = 4 << 20
LOG_LIMIT = 1 << 20
LINES = 5000
VALUES_LIMIT = 4 << 20
"""Bytes of a release that are unpacked."""
OURS = (DEPLOY, "nestvirt-")
"""How the names of kata-deploy's pods and of the short ones begin."""


@dataclass(frozen=True)
class Wish:
    """What is to be collected.

    Attributes:
        nodes: only these; none for the first MOST_NODES with Kata.
        since: seconds; how far back the nodes' logs go.
    """

    namespace: str
    release: str
    image: str
    timeout: float
    tell: Tell
    nodes: tuple[str, ...] = ()
    since: int = 86400


@dataclass(frozen=True)
class Collected:
    """What was collected, redacted.

    Attributes:
        files: path in the archive to content.
        missing: what could not be read, for people.
    """

    files: Mapping[str, bytes]
    missing: tuple[str, ...] = ()


def collect(kube: Kube, wish: Wish, *, target: str) -> Collected:
    """Read everything; what one part refuses is noted, and does not stop the others.

    Raises:
        TargetError: there is no such node.
        AccessDenied, ConnectionFailed: the cluster cannot be read at all.
    """
    wish.tell("reading", "nodes, RuntimeClasses, kata-deploy and events")
    known = cluster.read(kube, wish.namespace)
    nodes = _chosen(known, wish.nodes)
    files: dict[str, bytes] = {}
    missing: list[str] = []
    for part in (_objects(kube, known, wish), _values(kube, wish), _deploy_logs(kube, known, nodes)):
        _gather(part, files, missing)
    _gather(_of_nodes(kube, known, nodes, wish), files, missing)
    left = [node.name for node in known.targets() if node not in nodes]
    if left and not wish.nodes:
        missing.append(f"{len(left)} further nodes were left out; name one with --node")
    about = {
        "nestvirt": __version__,
        "target": target,
        "kubernetes": f"{known.version[0]}.{known.version[1]}",
        "nodes": [node.name for node in nodes],
        "missing": missing,
    }
    return Collected({"about.json": _json(about), **files}, tuple(missing))


Part = Iterator[tuple[str, bytes] | Error | str]
"""Files as (path, content), and what could not be read."""


def _gather(part: Part, files: dict[str, bytes], missing: list[str]) -> None:
    for found in part:
        if isinstance(found, tuple):
            if not found[1].strip():  # a log without a word
                continue
            files[_unused(safe_path(found[0]), files)] = found[1]
        elif isinstance(found, Error):
            missing.append(redact.text(printable(f"{found.message}: {found.evidence}", 500)))
        else:
            missing.append(redact.text(printable(found, 500)))


def _chosen(known: Cluster, names: Sequence[str]) -> tuple[Node, ...]:
    unknown = [name for name in names if known.node(name) is None]
    if unknown:
        raise TargetError(
            f"there is no node {printable(unknown[0], 100)}",
            evidence=f"the nodes are {printable(', '.join(node.name for node in known.nodes), 500)}",
            cure="see: kubectl get nodes",
        )
    if names:
        return tuple(node for node in known.nodes if node.name in names)
    ordered = sorted(known.targets(), key=lambda node: (node.label == "true" and bool(node.ready), node.name))
    return tuple(ordered[:MOST_NODES])


# --- what the API server has


def _objects(kube: Kube, known: Cluster, wish: Wish) -> Part:
    spaces = dict.fromkeys((wish.namespace, *(deploy.namespace for deploy in known.deploys)))
    asked: list[tuple[str, str, str | None]] = [
        ("nodes", "nodes", None),
        ("runtimeclasses", "runtimeclasses", None),
    ]
    for space in spaces:
        asked += [(f"{kind}-{space}", kind, space) for kind in ("daemonsets", "pods", "jobs", "events")]
    for name, kind, where in asked:
        try:
            found = [o for o in kube.list(kind, namespace=where) if _is_ours(kind, o)]
        except Error as error:
            yield error
            continue
        yield f"cluster/{name}.json", _json([_without_noise(shown(kind, o)) for o in found])


def _is_ours(kind: str, found: Object) -> bool:
    """Whether it is about Kata: a namespace may hold much else."""
    name = name_of(found)
    if kind == "nodes":
        return True
    if kind == "runtimeclasses":
        return name.startswith(FAMILY)
    about = str(at(found, "involvedObject", "name") or name)
    return about.startswith(OURS) or bool(at(found, "spec", "runtimeClassName"))


def shown(kind: str, found: Object) -> Object:
    """What of an object is handed on: of a pod of the user's own, how it fares, and nothing of what it is."""
    if kind != "pods" or name_of(found).startswith(OURS):
        return found
    spec = {key: at(found, "spec", key) for key in ("runtimeClassName", "nodeName")}
    return {"metadata": {"name": name_of(found)}, "spec": spec, "status": at(found, "status")}


def _without_noise(found: Object) -> Object:
    """Without what only servers read, and without a copy of the whole as an annotation."""
    meta = {k: v for k, v in found["metadata"].items() if k != "managedFields"}
    notes = meta.get("annotations")
    if isinstance(notes, dict):
        meta["annotations"] = {k: v for k, v in notes.items() if not k.endswith("last-applied-configuration")}
    status = found.get("status")
    less = {k: v for k, v in status.items() if k != "images"} if isinstance(status, dict) else status
    return {**found, "metadata": meta} | ({"status": less} if "status" in found else {})


def _values(kube: Kube, wish: Wish) -> Part:
    """The values that Helm's release was made with."""
    try:
        found = kube.list("secrets", namespace=wish.namespace, selector=f"owner=helm,name={wish.release}")
    except Error as error:
        yield error
        return
    latest = max(found, key=_revision, default=None)
    if latest is None:
        yield f"Helm has no release {wish.release} in {wish.namespace}"
        return
    release = unpacked(at(latest, "data", "release"))
    if release is None:
        yield f"Helm's release {wish.release} cannot be unpacked"
        return
    info = {
        "revision": _revision(latest),
        "status": at(latest, "metadata", "labels", "status"),
        "chart": {key: at(release, "chart", "metadata", key) for key in ("name", "version", "appVersion")},
        "values": release.get("config"),
    }
    yield "release.json", _json(info)


def _revision(secret: Object) -> int:
    version = str(at(secret, "metadata", "labels", "version"))
    return int(version) if version.isdigit() else 0


def unpacked(data: object) -> Object | None:
    """A release of Helm's, out of its Secret: JSON, gzipped, in base64, and that in base64 once more."""
    if not isinstance(data, str):
        return None
    try:
        packed = base64.b64decode(base64.b64decode(data, validate=True), validate=True)
        plain = zlib.decompressobj(wbits=31).decompress(packed, VALUES_LIMIT)
        found = json.loads(plain)
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _deploy_logs(kube: Kube, known: Cluster, nodes: Sequence[Node]) -> Part:
    wanted = {node.name for node in nodes}
    for deploy in known.deploys:
        for node, pod in deploy.pods.items():
            if node in wanted:
                yield from _logs_of(kube, deploy.namespace, pod)


def _logs_of(kube: Kube, namespace: str, pod: Object) -> Part:
    name = name_of(pod)
    for kind in (False, True):
        try:
            said = kube.log(name, namespace=namespace, tail=LINES, limit=LOG_LIMIT, previous=kind)
        except Error as error:
            if not kind:  # most containers have had no run before
                yield error
            continue
        yield f"kata-deploy/{name}{'.previous' if kind else ''}.log", _text(said.decode(errors="replace"))


# --- what the nodes have


def _of_nodes(kube: Kube, known: Cluster, nodes: Sequence[Node], wish: Wish) -> Part:
    for node in nodes:
        yield f"nodes/{node.name}/node.json", _json(_facts(node))
        if node.ready is not True:
            yield f"{node.name} is not ready; its files were not read"
    tasks = [
        nodefiles.task(node, _deploy_of(known, node), wish.image, since=wish.since)
        for node in nodes
        if node.ready is True
    ]
    try:
        outcomes = pods.run(
            kube,
            tasks,
            namespace=wish.namespace,
            timeout=wish.timeout,
            tell=wish.tell,
            log_limit=NODE_LIMIT,
        )
    except AccessDenied as error:  # the namespace may not admit such pods; all else is worth having
        yield error
        return
    for outcome in outcomes:
        yield from _of_node(outcome)
    yield from dict.fromkeys(f"short pods are left: {o.remains}" for o in outcomes if o.remains)


def _deploy_of(known: Cluster, node: Node) -> Deploy:
    there = [deploy for deploy in known.deploys if node.name in deploy.pods]
    return next(iter((*there, *known.deploys)), Deploy(DEPLOY, ""))


def _of_node(outcome: Outcome) -> Part:
    node = outcome.task.node
    if outcome.phase != "Succeeded":
        trouble = of_outcome(outcome)
        yield f"{node}: {trouble.evidence}"
        return
    try:
        shown = nodefiles.read(outcome.log)
    except ValueError as error:
        yield f"{node}: the pod that shows its files ran, and {error}"
        yield f"nodes/{node}/answer.txt", _text(outcome.log.decode(errors="replace"))
        return
    facts = {"devices": shown.devices, "facts": shown.facts, "looked_for": shown.have}
    yield f"nodes/{node}/found.json", _json({key: dict(of) for key, of in facts.items()})
    for path, text in sorted(shown.files.items()):
        yield f"nodes/{node}/files/{path}", _text(text)
    for name, text in sorted(shown.logs.items()):
        yield f"nodes/{node}/logs/{name}", _text(text)


def _facts(node: Node) -> dict[str, Any]:
    facts = {key: of for key, of in vars(node).items() if key not in ("handlers", "labels")}
    handlers = sorted(node.handlers) if node.handlers is not None else None
    return {**facts, "labels": dict(node.labels), "handlers": handlers}


# --- the archive


def _text(said: str) -> bytes:
    return redact.text(said).encode(errors="replace")


def _json(found: object) -> bytes:
    return (json.dumps(redact.value(found), indent=1, ensure_ascii=False) + "\n").encode(errors="replace")


def safe_path(path: str) -> str:
    """A path within the archive, whatever a node or a file on it is called: nothing leads out of it."""
    parts = [re.sub(r"[^A-Za-z0-9._-]", "_", part)[:100] for part in path.split("/")]
    return "/".join("_" if set(part) == {"."} else part for part in parts if part) or "_"


def _unused(path: str, files: Mapping[str, bytes]) -> str:
    number = 1
    unused = path
    while unused in files:
        number += 1
        unused = f"{path}.{number}"
    return unused


def refuse(path: Path) -> None:
    """Refuse, before any work is done, a file that cannot be written.

    Raises:
        SettingsError: there is such a file already, or no such folder.
    """
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SettingsError(
            f"{printable(str(path), 200)} cannot be written",
            evidence=f"{printable(str(path.parent), 200)} is no folder that this user may write in",
            cure="name a file in a folder of yours with --file",
        )
    if path.exists():
        raise SettingsError(
            f"{printable(str(path), 200)} is there already",
            evidence="an archive is not written over another file",
            cure="name another file with --file, or remove that one",
        )


def write(files: Mapping[str, bytes], path: Path) -> None:
    """Write the archive in one step, for its owner only.

    Raises:
        SettingsError: it cannot be written.
    """
    refuse(path)
    try:
        # mkstemp's file is its owner's only, from the first byte on.
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise SettingsError(
            f"{printable(str(path), 200)} cannot be written",
            evidence=str(error),
            cure="name a file in a folder of yours with --file",
        ) from error
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(packed(files))
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def packed(files: Mapping[str, bytes]) -> bytes:
    """The archive; the same files make the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)
