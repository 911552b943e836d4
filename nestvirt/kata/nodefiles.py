"""What of Kata is on a node itself: its binaries, each shim's configuration.toml, containerd's handlers.

A short pod shows the files; here they are read as what they are, TOML, and judged.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from nestvirt.kata import pods
from nestvirt.kata.api import at
from nestvirt.kata.causes import KVM_CURE, PRODUCTS
from nestvirt.kata.cluster import Deploy, Node, RuntimeClass, directory_of
from nestvirt.kata.explain import of_outcome
from nestvirt.kata.judge import again
from nestvirt.kata.pods import Outcome, Task
from nestvirt.model import Finding, Layer, Status
from nestvirt.printable import printable

SCRIPT = Path(__file__).with_name("node.sh")
PURPOSE = "files"
FILES, HANDLER = "cluster-node-files", "cluster-handler"
NAMED = ("path", "kernel", "image", "initrd", "virtio_fs_daemon")
"""The keys of a hypervisor's table that name files of the node."""

Table = dict[str, Any]
"""A table of TOML."""

HOLDER = "vmw_vsock_vmci_transport"
"""VMware's transport of vsock, which its guests load by themselves, and which keeps vhost_vsock out."""

_LINE = re.compile(r"(device|fact|have|lack|file|log) (\S.*)")
_CRI = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "cri")
"""The plugin that has the runtimes, in containerd's configuration of version 2, 3 and 1."""


@dataclass(frozen=True)
class NodeFiles:
    """What a node's pod has shown.

    Attributes:
        devices: name in /dev to device, missing, or other.
        facts: single words about the node.
        have: path to whether it can be run; None: looked for, and not there.
        files: path to content.
        logs: name to their last part.
    """

    devices: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    have: Mapping[str, bool | None] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)


def task(node: Node, deploy: Deploy, image: str, *, since: int | None = None) -> Task:
    """The pod that shows a node's files.

    Args:
        since: seconds; then the files with their comments, for people, and the node's logs from then on.
    """
    folders = dict.fromkeys((directory_of(node), deploy.directory or directory_of(node)))
    env = {
        "NESTVIRT_SHIMS": " ".join(deploy.shims(node.arch)),
        "NESTVIRT_PREFIX": deploy.prefix,
        "NESTVIRT_CONTAINERD": " ".join(folders),
        "NESTVIRT_SINCE": "" if since is None else str(since),
    }
    files = {SCRIPT.name: SCRIPT.read_text(encoding="utf-8")}
    command = ("sh", f"{pods.FOLDER}/{SCRIPT.name}")
    return Task(node.name, PURPOSE, image, command, env, files, privileged=True)


def read(log: bytes) -> NodeFiles:
    """A pod's log.

    Raises:
        ValueError: it is not the whole answer of node.sh.
    """
    first, *lines = log.decode("utf-8", errors="replace").split("\n")
    if first != "nestvirt-node 1" or lines[-2:] != ["end", ""]:
        raise ValueError("it is not the whole answer")
    devices, facts, have = dict[str, str](), dict[str, str](), dict[str, bool | None]()
    shown: dict[str, dict[str, list[str]]] = {"file": {}, "log": {}}
    current: list[str] = []
    for line in lines[:-2]:
        if line.startswith("|"):
            current.append(line[1:])
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError("a line of it is none of the script's")
        kind, rest = match[1], match[2]
        name, _, value = rest.partition(" ")
        if kind in shown:
            current = shown[kind].setdefault(rest, [])
        elif kind == "lack":
            have[rest] = None
        elif kind == "have":
            have[value] = name == "x"
        else:
            (devices if kind == "device" else facts)[name] = value
    files, logs = ({name: "\n".join(text) for name, text in of.items()} for of in shown.values())
    return NodeFiles(devices, facts, have, files, logs)


# --- containerd's configuration


def handlers(shown: NodeFiles, node: Node) -> Table | None:
    """Handler to its table, in what the node's container runtime reads; None where that cannot be told.

    A distribution may make config.toml of a template, so the one that counts is config.toml itself, and
    what it imports. CRI-O reads every file of its folder.
    """
    if node.runtime.startswith("cri-o"):
        crio = [text for path, text in shown.files.items() if path.startswith("/etc/crio/")]
        return _merged(_toml(text) for text in crio) if crio else None
    folder = directory_of(node)
    mains = [name for name in ("config.toml", "containerd.toml") if f"{folder}/{name}" in shown.files]
    if not mains:
        return None
    main = _toml(shown.files[f"{folder}/{mains[0]}"])
    if main is None:
        return None
    imported = main.get("imports")
    patterns = [str(PurePosixPath(folder, p)) for p in imported or () if isinstance(p, str)]
    if node.distribution == "k0s":
        patterns.append(f"{folder}/*.d/*.toml")
    more = [text for path, text in shown.files.items() if any(fnmatchcase(path, p) for p in patterns)]
    return _merged([main, *(_toml(text) for text in more)])


def _merged(
    tables: Sequence[Table | None] | Iterator[Table | None],
) -> Table | None:
    found: Table = {}
    for table in tables:
        if table is None:
            return None
        for runtimes in _runtimes(table):
            found |= runtimes
    return found


def _runtimes(table: Table) -> Iterator[Table]:
    listed = [at(table, "plugins", plugin, "containerd", "runtimes") for plugin in _CRI]
    for runtimes in [*listed, at(table, "crio", "runtime", "runtimes")]:
        if isinstance(runtimes, dict):
            yield runtimes


def _toml(text: str) -> Table | None:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None


# --- judging


def judge(
    node: Node, deploy: Deploy, classes: Sequence[RuntimeClass], outcome: Outcome | None
) -> list[Finding]:
    """What the node's files say: devices, binaries and configurations, and handlers.

    Args:
        classes: the RuntimeClasses that are to work there.
        outcome: of the pod that showed the files; None where there was none.
    """
    shown, trouble = None, None
    if outcome is not None:
        shown, trouble = _shown(node, outcome)
    if shown is None:
        told = [_of_handler(node, deploy, c, None) for c in classes if node.handlers is not None]
        return [trouble, *told] if trouble else told
    return [
        *_of_devices(node, shown),
        _of_files(node, deploy, shown),
        *(_of_handler(node, deploy, c, shown) for c in classes),
    ]


def _shown(node: Node, outcome: Outcome) -> tuple[NodeFiles | None, Finding | None]:
    if outcome.phase != "Succeeded" or (outcome.trouble and not outcome.log):
        trouble = of_outcome(outcome, node_ready=node.ready)
        return None, _finding(FILES, Status.UNKNOWN, trouble.evidence, trouble.cure, node.name)
    try:
        return read(outcome.log), None
    except ValueError as error:
        shown = printable(outcome.log[:120].decode(errors="replace")) or "nothing"
        evidence = f"the pod that shows the node's files ran, and {error}: {shown}"
        return None, _finding(FILES, Status.UNKNOWN, evidence, _IMAGE, node.name)


_IMAGE = "use an image with a shell, find, sed and head with --image, such as busybox"


def _of_devices(node: Node, shown: NodeFiles) -> Iterator[Finding]:
    """Only what is ill; that VMs run there is shown by the proof."""
    if shown.devices.get("kvm") != "device":
        evidence = f"/dev/kvm is {shown.devices.get('kvm', 'not told')} on the node"
        yield _finding("cluster-node-kvm", Status.FAIL, evidence, KVM_CURE, node.name)
    ill = [name for name in ("vhost-net", "vhost-vsock") if shown.devices.get(name) != "device"]
    if HOLDER in shown.facts and "vhost_vsock" not in shown.facts:  # the device node alone may be there
        evidence = f"{HOLDER} is loaded, and vhost_vsock is not: it cannot be, beside the other"
        yield _finding("cluster-node-vhost", Status.FAIL, evidence, PRODUCTS["vsock-busy"].cure, node.name)
    elif ill:
        cause = "vsock-missing" if "vhost-vsock" in ill else "vhost-net-missing"
        evidence = f"missing on the node: {', '.join(f'/dev/{name}' for name in ill)}"
        yield _finding("cluster-node-vhost", Status.FAIL, evidence, PRODUCTS[cause].cure, node.name)


def _of_files(node: Node, deploy: Deploy, shown: NodeFiles) -> Finding:
    configured = handlers(shown, node) or {}
    wrong: list[str] = []
    for shim in deploy.shims(node.arch):
        wrong += _of_shim(shim, configured.get(f"kata-{shim}{deploy.suffix}"), deploy, shown)
    if wrong:
        return _finding(
            FILES, Status.FAIL, "; ".join(dict.fromkeys(wrong)), again(node, (deploy,)), node.name
        )
    evidence = f"{deploy.prefix}: {', '.join(deploy.shims(node.arch)) or 'no shim'}, with all that they name"
    return _finding(FILES, Status.PASS, evidence, "", node.name)


def _of_shim(shim: str, table: object, deploy: Deploy, shown: NodeFiles) -> Iterator[str]:
    """What a shim lacks on the node."""
    binary = at(table, "runtime_path") or f"{deploy.prefix}/bin/containerd-shim-kata-v2"
    if shown.have.get(str(binary)) is not True:
        yield f"{shim} has no {binary}" + (" that can be run" if shown.have.get(str(binary)) is False else "")
    paths = [path for path in shown.files if path.endswith(f"/configuration-{shim}.toml")]
    wanted = at(table, "options", "ConfigPath")
    if not paths or (wanted and str(wanted) not in paths):
        yield f"{shim} has no {wanted or f'configuration-{shim}.toml'}"
        return
    path = str(wanted or paths[0])
    configuration = _toml(shown.files[path])
    if configuration is None:
        yield f"{path} is no TOML"
        return
    hypervisors = configuration.get("hypervisor")
    for hypervisor in hypervisors.values() if isinstance(hypervisors, dict) else ():
        for key in NAMED:
            named = at(hypervisor, key)
            missing = isinstance(named, str) and named and shown.have.get(named) is None
            if missing or (key == "path" and named and shown.have.get(str(named)) is False):
                yield f"{path} names {named}, which is not there" + ("" if missing else " to be run")


def _of_handler(node: Node, deploy: Deploy, of: RuntimeClass, shown: NodeFiles | None) -> Finding:
    """Whether the node's container runtime has the handler that the RuntimeClass names."""
    subject = f"{node.name}/{of.name}"
    configured = handlers(shown, node) if shown is not None else None
    written = configured is not None and of.handler in configured
    if node.handlers is not None and of.handler in node.handlers:
        return _finding(HANDLER, Status.PASS, f"the node's runtime has {of.handler}", "", subject)
    if node.handlers is not None:
        evidence = f"the node's runtime has no {of.handler}, only {_named(node.handlers)}"
        if written:
            evidence += "; its configuration names it, so it has not been restarted since"
        cure = _restart(node) if written else again(node, (deploy,))
        return _finding(HANDLER, Status.FAIL, evidence, cure, subject)
    if configured is None:
        evidence = (
            "this cluster does not tell a node's handlers, and containerd's configuration cannot be read"
        )
        return _finding(HANDLER, Status.UNKNOWN, evidence, f"nestvirt kata-logs --node {node.name}", subject)
    if written:
        return _finding(HANDLER, Status.PASS, f"containerd's configuration names {of.handler}", "", subject)
    evidence = f"{directory_of(node)} and what it imports name no {of.handler}, only {_named(configured)}"
    return _finding(HANDLER, Status.FAIL, evidence, again(node, (deploy,)), subject)


def _named(names: Sequence[str] | frozenset[str] | Mapping[str, Any]) -> str:
    return printable(", ".join(sorted(name for name in names if name)) or "the default one", 200)


def _restart(node: Node) -> str:
    units = {"rke2": "rke2-server, or rke2-agent", "k3s": "k3s, or k3s-agent"}
    return f"on NODE: systemctl restart {units.get(node.distribution, 'containerd')}"


def _finding(check: str, status: Status, evidence: str, cure: str, subject: str) -> Finding:
    return Finding(check, Layer.CLUSTER, status, evidence, cure, subject=subject)
