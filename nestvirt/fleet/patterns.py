"""Naming many VMs: ``proxmox@lab: tag=k8s-worker``, ``libvirt: name=node-*``, ``hyperv: *``. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nestvirt.backends import BACKENDS
from nestvirt.backends.base import Listed
from nestvirt.errors import TargetError
from nestvirt.model import Target
from nestvirt.printable import printable

_FORM = re.compile(r"([a-z]+)(?:@([\w.-]+))?:\s*(.*)", re.DOTALL)
_CONDITION = re.compile(r"(?:^|\s+)([a-z][a-z-]*)=")


@dataclass(frozen=True)
class Pattern:
    """All VMs of one endpoint that meet every condition.

    Attributes:
        conditions: pairs of a label's key, or ``name``, and the glob that one of its values has to match.
        written: as the user wrote it.
    """

    backend: str
    profile: str | None
    conditions: tuple[tuple[str, str], ...]
    written: str

    def __str__(self) -> str:
        return self.written

    def matches(self, listed: Listed) -> bool:
        """Whether it is meant.

        Raises:
            TargetError: this backend's VMs have no such key.
        """
        for key, glob in self.conditions:
            values = (listed.vm.name,) if key == "name" else listed.labels.get(key)
            if values is None:
                raise self._no_such(key, listed.labels)
            if not any(fnmatchcase(value, glob) for value in values):
                return False
        return True

    def _no_such(self, key: str, known: Collection[str]) -> TargetError:
        return TargetError(
            f"{printable(self.written, 200)!r} asks for {key}, which {self.backend} does not tell of a VM",
            evidence=f"it tells: {', '.join(sorted({'name', *known}))}",
            cure=f"for example: {self.backend}: name=web-*",
        )


def parse(text: str) -> Target | Pattern:
    """One VM or many, as they are written.

    Raises:
        TargetError: it is neither, or of no backend that there is.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None or not found[3]:
        raise TargetError(
            f"{printable(text, 200)!r} names no VM",
            evidence="a VM is written backend[@profile]:name, and many are backend[@profile]: key=glob",
            cure="for example: libvirt:web-01, or 'proxmox@lab: tag=k8s-worker', or 'libvirt: *'",
        )
    backend, profile, rest = found.groups()
    if backend not in BACKENDS:
        raise TargetError(
            f"{printable(text, 200)!r}: there is no backend {backend!r}",
            evidence=f"backends: {', '.join(sorted(BACKENDS))}",
            cure="write it as backend:name, for example libvirt:web-01",
        )
    begins = list(_CONDITION.finditer(rest))
    if begins and begins[0].start() == 0:
        ends = [*(b.start() for b in begins[1:]), len(rest)]
        conditions = [(b[1], rest[b.end() : end].strip()) for b, end in zip(begins, ends, strict=True)]
        empty = [key for key, glob in conditions if not glob]
        if empty:
            raise TargetError(
                f"{printable(text, 200)!r} says nothing for {empty[0]}",
                evidence="is a variable not set?",
                cure=f"give it a value, such as {empty[0]}=*",
            )
        return Pattern(backend, profile, tuple(conditions), text.strip())
    if "*" in rest or "?" in rest:  # no product lets a VM's name have them, but for libvirt: name=[*] there
        return Pattern(backend, profile, (("name", rest),), text.strip())
    return Target(backend, rest, profile)
