"""What a Windows guest says of itself, read strictly: it may lie, and must not contradict itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar

from nestvirt.printable import printable

ANSWER_LIMIT = 64 * 1024
SCHEMA_VERSION = 1
STARTED = (1, 2)
"""Events of Microsoft-Windows-Hyper-V-Hypervisor: it has started; and with which scheduler."""

_ERROR = 2  # an event's level; 1 is critical, 4 informational
_MOST, _LONGEST = 512, 200
_RUNNING_FOR = 1
_T = TypeVar("_T")


@dataclass(frozen=True)
class Machine:
    """Win32_ComputerSystem."""

    hypervisor: bool
    maker: str
    model: str


@dataclass(frozen=True)
class Said:
    """A guest's reading of itself. None stands for what it could not read.

    Attributes:
        os: its name and build.
        server: whether it is a server, which installs Hyper-V in another way.
        extensions: vmx or svm on all its processors; false too while its own hypervisor runs.
        firmware: whether the firmware enables them.
        slat: EPT or NPT.
        vbs: Win32_DeviceGuard's status: 0 off, 1 configured, 2 running.
        features: the installed ones that bring a hypervisor.
        own: whether its own hypervisor runs.
        failure: the event of its own hypervisor's failure since it booted.
        running: the VMs that run inside, for people.
        unread: part of the reading to PowerShell's id of the error that it met.
    """

    os: str
    server: bool
    machine: Machine | None
    extensions: bool | None
    firmware: bool | None
    slat: bool | None
    vbs: int | None
    features: tuple[str, ...] | None
    own: bool | None
    failure: int | None
    running: tuple[str, ...] | None
    unread: dict[str, str]


def read_answer(answer: bytes) -> Said:
    """Read what the guest's script has written.

    Raises:
        ValueError: it is too long, no such answer, or contradicts itself.
    """
    if len(answer) > ANSWER_LIMIT:
        raise ValueError(f"longer than {ANSWER_LIMIT // 1024} KiB")
    try:
        fields = _kind(json.loads(answer.decode("utf-8")), dict)
        return _read(fields)
    except (KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"unexpected field: {error}") from error


def _read(fields: dict[str, object]) -> Said:
    if fields["schema_version"] != SCHEMA_VERSION:
        raise ValueError("schema_version")
    os = _part(fields, "os", dict)
    machine = _part(fields, "machine", dict)
    processors = [_kind(item, dict) for item in _part(fields, "processors", list) or ()]
    vbs = _part(fields, "vbs", dict)
    features = _part(fields, "features", list)
    events = _part(fields, "events", list)
    started, failure = _launched(events)
    workers = _part(fields, "workers", list)
    running = _running(_part(fields, "vms", list), workers, started)
    if started is None and events is not None and features == [] and workers == []:
        started = False  # there is nothing that could start. Elsewhere the log may have been cleared
    if running and machine is not None and not _kind(machine["hypervisor_present"], bool):
        raise ValueError("VMs run, and no hypervisor is present")
    return Said(
        os=f"{_text(os['caption'])} (build {_text(os['build'])})" if os is not None else "Windows",
        server=os is not None and _kind(os["server"], bool),
        machine=None if machine is None else _machine(machine),
        extensions=_all(processors, "extensions"),
        firmware=_all(processors, "firmware"),
        slat=_all(processors, "slat"),
        vbs=None if vbs is None else _number(vbs["status"]),
        features=None if features is None else tuple(map(_text, features)),
        own=True if running else started,
        failure=failure,
        running=running,
        unread={_text(part): _text(why) for part, why in (_part(fields, "unread", dict) or {}).items()},
    )


def _part(fields: dict[str, object], name: str, kind: type[_T]) -> _T | None:
    found = fields.get(name)
    if found is None:
        return None
    if isinstance(found, list | dict) and len(found) > _MOST:
        raise ValueError(f"{name} has more than {_MOST} entries")
    return _kind(found, kind)


def _kind(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"not a {kind.__name__}")
    return value


def _text(value: object) -> str:
    return printable(_kind(value, str), _LONGEST)


def _number(value: object) -> int:
    number = _kind(value, int)
    if not 0 <= number < 1 << 64:
        raise ValueError("a number is out of range")
    return number


def _machine(fields: dict[str, object]) -> Machine:
    present = _kind(fields["hypervisor_present"], bool)
    return Machine(present, _text(fields["manufacturer"]), _text(fields["model"]))


def _all(processors: list[dict[str, object]], name: str) -> bool | None:
    """What all processors say; None where one does not say."""
    values = [None if item[name] is None else _kind(item[name], bool) for item in processors]
    if not values or None in values:
        return None
    return all(values)


def _launched(events: list[object] | None) -> tuple[bool | None, int | None]:
    """Whether its own hypervisor has started since it booted; if not, the event of it. Newest first."""
    for item in events or ():
        entry = _kind(item, dict)
        number, level = _number(entry["id"]), _number(entry["level"])
        if number in STARTED and level > _ERROR:
            return True, None
        if level <= _ERROR:
            return False, number
    return None, None


def _running(
    vms: list[object] | None, workers: list[object] | None, started: bool | None
) -> tuple[str, ...] | None:
    """The VMs that run inside: those with a worker process and some time on, and what else has a worker.

    WSL 2, Windows Sandbox and isolated containers are VMs that Hyper-V does not list. They count beside a
    hypervisor that has started: anybody can call a process vmwp.
    """
    if vms is None and workers is None:
        return None
    processes = None if workers is None else {_number(worker) for worker in workers}
    listed = []
    for item in vms or ():
        entry = _kind(item, dict)
        process, name = _number(entry["process"]), _text(entry["name"])
        alive = process and _number(entry["milliseconds"]) >= _RUNNING_FOR
        if alive and (processes is None or process in processes):
            listed.append(name)
            (processes or set()).discard(process)
    others = len(processes or ()) if started or listed else 0
    return (*listed, *(["a VM that Hyper-V does not list (WSL 2, Windows Sandbox)"] * others))
