"""The guest agent of Proxmox's VMs: what it answers, in the words of PVE 9.2 and of QEMU's agent."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakepve.model import PveError

from nestvirt.guest import verify
from tests.peers.guest_answers import NO_FLAG, probe_answer, reading_answer

if TYPE_CHECKING:
    from tests.peers.pve_vm import PveVm

LOST_PIPE = (596, "Broken pipe")
"""What pveproxy answers, after five seconds, where the agent has no such program."""

_READING = Path(verify.__file__).with_name("reading.sh").read_text(encoding="utf-8")
_CPUINFO = """\
processor\t: 0
vendor_id\t: {vendor}
model name\t: {cpu}
flags\t\t: fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx fxsr sse sse2 {flag}\
syscall nx lm rep_good nopl cpuid pni ssse3 cx16 sse4_1 sse4_2 popcnt aes hypervisor lahf_lm

"""
_VERSION = "Linux version 6.1.0-44-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian\n"
_pids = itertools.count(98)

Ended = tuple[int, str, str]
"""Exit code, output, errors."""


@dataclass
class Guest:
    """What is installed inside a VM, and how it behaves.

    Attributes:
        agent: whether the agent runs.
        late: pings after each start that it does not answer yet.
        execs: whether the agent allows guest-exec.
        slow: questions for a program's end that it answers with "not yet".
        forgets: whether it no longer knows the programs that it started.
        says: what it answers instead of the probe's own words.
        keeps: how much of a program's output the agent keeps; it says where it has cut.
        broken_pipes: how often it was told to run a program that it does not have.
    """

    agent: bool = True
    late: int = 0
    execs: bool = True
    slow: int = 0
    forgets: bool = False
    python: bool = True
    says: str | None = None
    keeps: int = 16 << 20
    numbers: dict[str, float] = field(default_factory=dict)
    broken_pipes: int = 0
    _silent: int = 0
    _ended: dict[int, Ended] = field(default_factory=dict)
    _waits: dict[int, int] = field(default_factory=dict)

    def boot(self) -> None:
        """Begin anew, as after a power-on."""
        self._silent = self.late
        self._ended.clear()

    def programs(self) -> set[str]:
        """What the agent finds."""
        found = {"sh", "/bin/sh", "cat", "/bin/cat", "/bin/true", "true", "env", "/usr/bin/env"}
        return found | ({"python3", "/usr/bin/python3"} if self.python else set())


def answer(vm: PveVm, command: str, values: Mapping[str, Any], *, old: bool) -> object:
    """Answer an agent command of a VM.

    Args:
        old: whether exec takes its command as one string, as up to PVE 7.
    """
    guest = vm.system
    if vm.status != "running":
        raise PveError(500, f"VM {vm.vmid} is not running")
    if not vm.has_agent:
        raise PveError(500, "No QEMU guest agent configured")
    if guest._silent:
        guest._silent -= command == "ping"
        raise PveError(500, "QEMU guest agent is not running")
    if not guest.agent or vm.qmpstatus == "paused":
        raise PveError(500, "QEMU guest agent is not running")
    match command:
        case "ping":
            return {"result": {}}
        case "file-read":
            return _file(vm, str(values["file"]))
        case "exec":
            return {"pid": _run(vm, _argv(values["command"], old), str(values.get("input-data", "")))}
        case "exec-status":
            return _status(guest, int(values["pid"]))
    raise PveError(500, f"the peer has no agent command {command}")


def _file(vm: PveVm, path: str) -> object:
    flag = "" if vm.inside == NO_FLAG else f"{vm.host.flag} "
    contents = {
        "/proc/version": _VERSION,
        "/proc/cpuinfo": _CPUINFO.format(vendor=vm.host.vendor, cpu="QEMU Virtual CPU", flag=flag),
    }
    if path in contents:
        return {"content": contents[path], "bytes-read": len(contents[path])}
    if path == "/dev/kvm" and flag:
        raise PveError(500, "Agent error: failed to read file: Invalid argument")
    raise PveError(500, f"Agent error: failed to open file '{path}' (mode: 'r'): No such file or directory")


def _argv(command: object, old: bool) -> list[str]:
    """Up to PVE 7 a list is one string, split at NULs or, where it has none, at separators."""
    words = [str(word) for word in command] if isinstance(command, list) else [str(command)]
    if not old:
        return words
    text = "\0".join(words)
    return text.split("\0") if "\0" in text else re.split(r"[,;\s]+", text.strip())


def _run(vm: PveVm, argv: Sequence[str], stdin: str) -> int:
    guest = vm.system
    if not guest.execs:
        raise PveError(500, "Agent error: Command guest-exec has been disabled: the command is not allowed")
    if argv[0] not in guest.programs():
        guest.broken_pipes += 1
        raise PveError(*LOST_PIPE)
    pid = next(_pids)
    guest._ended[pid] = _end(vm, argv, stdin)
    guest._waits[pid] = guest.slow
    return pid


def _end(vm: PveVm, argv: Sequence[str], stdin: str) -> Ended:
    """What becomes of a program; only those that nestvirt runs are known."""
    guest = vm.system
    name, rest = argv[0].rpartition("/")[2], list(argv[1:])
    wraps = name == "sh" and rest[:1] == ["-c"] and '"$@"' in rest[1] and len(rest) > 3
    if wraps or name == "env":
        wrapped = rest[3:] if wraps else rest
        if wrapped[0] not in guest.programs():
            return 127, "", f"{name}: {wrapped[0]}: not found\n"
        return _end(vm, wrapped, stdin)
    if name == "sh" and rest[:1] == ["-c"]:
        code = re.search(r"exit (\d+)", rest[1])
        said = dict(re.findall(r"echo (\w+)( >&2)?", rest[1]))
        out, err = (
            "".join(f"{word}\n" for word, where in said.items() if bool(where) is to) for to in (False, True)
        )
        return int(code[1]) if code else 0, out, err
    if name == "python3" and rest[:2] == ["-I", "-"] and stdin == verify.probe_source():
        if guest.says is not None:
            return 0, guest.says, ""
        return 0, probe_answer(vm.inside, **guest.numbers), ""
    if name == "sh" and rest == ["-s"] and stdin == _READING:
        return (1 if vm.inside == NO_FLAG else 3), reading_answer(vm.inside), ""
    return (0, stdin, "") if name in ("cat", "true") else (2, "", f"the peer's guest cannot run {argv}\n")


def _status(guest: Guest, pid: int) -> object:
    if guest.forgets or pid not in guest._ended:
        raise PveError(500, "Agent error: Invalid parameter 'pid'")
    if guest._waits[pid]:
        guest._waits[pid] -= 1
        return {"exited": 0}
    code, out, err = guest._ended.pop(pid)
    told: dict[str, object] = {"exited": 1, "exitcode": code}
    for stream, text in (("out", out), ("err", err)):
        if text:
            told |= {
                f"{stream}-data": text[: guest.keeps],
                f"{stream}-truncated": int(len(text) > guest.keeps),
            }
    return told
