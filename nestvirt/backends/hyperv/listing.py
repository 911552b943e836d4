"""All VMs of a Hyper-V host, by one script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from nestvirt.backends.base import Listed, Nesting
from nestvirt.backends.hyperv.reading import GUID, Nonsense, group_of, part, several, text
from nestvirt.backends.hyperv.situation import power_of
from nestvirt.errors import Error
from nestvirt.model import Vm
from nestvirt.printable import printable

MOST = 10_000
"""VMs of one host: Hyper-V runs some thousand."""

_NESTING: dict[str, Nesting] = {"true": "on", "false": "off"}
"""ExposeVirtualizationExtensions; a VM takes it only while it is off, so that what runs has it, too."""


def listed(answer: Any) -> Iterator[Listed]:
    """What list.ps1 has answered.

    Raises:
        Error: it is not what that script writes.
    """
    try:
        host, vms = text(answer, "host"), several(answer, "vms", MOST)
        names = Counter(text(vm, "name").lower() for vm in vms)
        found = [_one(host, vm, alone=names[text(vm, "name").lower()] == 1) for vm in vms]
    except Nonsense as error:
        raise Error(
            "the Hyper-V host's answer is not what was asked for",
            evidence=printable(str(error), 300),
            cure="see whether something on the host changes what PowerShell writes; then run this again",
        ) from error
    yield from found


def _one(host: str, answer: Any, *, alone: bool) -> Listed:
    identity, name = text(answer, "id").lower(), text(answer, "name")
    if not GUID.fullmatch(identity):
        raise Nonsense(f"id: {identity!r}")
    group = group_of(answer)
    cluster = group.cluster if group is not None else ""
    exposed = part(answer, "expose", str | None)
    note = "" if exposed is not None else "this host's Hyper-V does not tell, or knows no nesting"
    labels = {"id": (identity,), "host": (host,), "cluster": (cluster,) if cluster else ()}
    plainly = alone and not any(c in name for c in "*?=") and not GUID.fullmatch(name.lower())
    return Listed(
        Vm(f"{identity}@{cluster or host}", name),
        name if plainly else identity,
        power_of(text(answer, "state")),
        _NESTING.get(exposed or "", "unknown"),
        labels,
        note,
    )
