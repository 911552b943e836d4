"""The scripts' answers as facts: bounded, parsed strictly, and safe to show.

What is not as it should be is an error, and no default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nestvirt.backends.hyperv.direct import system_of
from nestvirt.backends.hyperv.facts import VmFacts
from nestvirt.backends.hyperv.situation import Adapter, Checkpoint, Group, Host, Service
from nestvirt.errors import Error
from nestvirt.printable import printable

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SETTING, _VALUE = re.compile(r"[\w:-]{1,100}"), re.compile(r"[ -~]{1,200}")
_MOST = 1000
"""Things of one kind that are taken in: a VM has 8 adapters and 50 checkpoints at most."""


class Nonsense(ValueError):
    """An answer is not what the script writes."""


def facts_of(answer: Any, guest_user: str) -> VmFacts:
    """The facts in an answer of vm.ps1.

    Raises:
        Error: it is not what that script writes.
    """
    try:
        return _facts(answer, guest_user)
    except Nonsense as error:
        raise Error(
            "the Hyper-V host's answer is not what was asked for",
            evidence=printable(str(error), 300),
            cure="see whether something on the host changes what PowerShell writes; then run this again",
        ) from error


def _facts(answer: Any, guest_user: str) -> VmFacts:
    identity = text(answer, "id").lower()
    if not GUID.fullmatch(identity):
        raise Nonsense(f"id: {identity!r}")
    return VmFacts(
        host=_host(part(answer, "host", dict)),
        id=identity,
        name=text(answer, "name"),
        state=text(answer, "state"),
        version=text(answer, "version"),
        generation=number(answer, "generation"),
        replication=text(answer, "replication"),
        group=group_of(answer),
        memory=number(answer, "memory"),
        adapters=tuple(
            Adapter(text(each, "id"), text(each, "name"), text(each, "spoofing") == "On")
            for each in several(answer, "adapters")
        ),
        services={
            text(each, "id").lower(): Service(bool(flag(each, "enabled")), text(each, "status"))
            for each in several(answer, "services")
        },
        checkpoints=tuple(
            Checkpoint(text(each, "name"), bool(flag(each, "saved")), bool(flag(each, "automatic")))
            for each in several(answer, "checkpoints")
        ),
        used=max(number(answer, "assigned"), number(answer, "demand")),
        stop_action=text(answer, "stop_action"),
        heartbeat=text(answer, "heartbeat"),
        system=system_of(several(answer, "kvp")),
        settings=_settings(part(answer, "settings", dict)),
        guest_user=guest_user,
    )


def _host(answer: Any) -> Host:
    build = text(answer, "build")
    return Host(
        name=text(answer, "name"),
        build=int(build) if re.fullmatch(r"[0-9]{1,6}", build) else 0,
        cpu_vendor=text(answer, "cpu_vendor"),
        hypervisor=flag(answer, "hypervisor"),
        vbs=None if answer.get("vbs") is None else number(answer, "vbs") == 2,  # 2: running
        version=text(answer, "version"),
    )


def group_of(answer: Any) -> Group | None:
    """The cluster's role that a VM is; None where it is in none."""
    if part(answer, "group", dict | None) is None:
        return None
    group = answer["group"]
    return Group(text(group, "cluster"), text(group, "name"), text(group, "state"))


def _settings(answer: Mapping[str, Any]) -> dict[str, str | None]:
    for name, value in answer.items():
        fits = value is None or (isinstance(value, str) and _VALUE.fullmatch(value))
        if not (_SETTING.fullmatch(name) and fits) or len(answer) > _MOST:
            raise Nonsense(f"setting {name!r}: {value!r}")
    return dict(answer)


def part(answer: Any, name: str, kind: Any) -> Any:
    """A member of an object, of that kind.

    Raises:
        Nonsense: it is not there, or of another kind.
    """
    if not isinstance(answer, dict) or name not in answer or not isinstance(answer[name], kind):
        found = answer.get(name) if isinstance(answer, dict) else answer
        raise Nonsense(f"{name}: {str(found)[:200]!r}")
    return answer[name]


def text(answer: Any, name: str) -> str:
    """A text on one line, safe to show; empty where it is null."""
    return printable(part(answer, name, str | None) or "", 200)


def flag(answer: Any, name: str) -> bool | None:
    """True, false, or null."""
    found: bool | None = part(answer, name, bool | None)
    return found


def number(answer: Any, name: str) -> int:
    """A whole number that is not negative."""
    found = part(answer, name, int)
    if isinstance(found, bool) or not 0 <= found < 1 << 63:
        raise Nonsense(f"{name}: {found!r}"[:200])
    return int(found)


def several(answer: Any, name: str, most: int = _MOST) -> list[Any]:
    """A list of not too many."""
    found: list[Any] = part(answer, name, list)
    if len(found) > most:
        raise Nonsense(f"{name}: {len(found)} of them")
    return found
