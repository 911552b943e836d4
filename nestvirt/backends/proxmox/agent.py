"""The QEMU guest agent through Proxmox's API: run a program in the guest, or at least read a file of it.

Forms: PVE 6 and 7 take the command as one string that they split, PVE 8 and later as a list.
Sources: qemu-server, PVE/API2/Qemu/Agent.pm and PVE/QemuServer/Agent.pm; PVE::Tools::split_list.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from nestvirt.backends.proxmox.api import UNREACHED, Api, Refused, is_elsewhere, vm_path
from nestvirt.backends.proxmox.cluster import Cluster
from nestvirt.backends.proxmox.tasks import moments
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, GuestUnreachable
from nestvirt.guest.channel import OUTPUT_LIMIT, Completed, RunRefused, clipped
from nestvirt.printable import printable

INPUT_LIMIT = 65536
"""Bytes of standard input that the API takes (parameter input-data)."""

_INSTALL = "see that qemu-guest-agent is installed and runs in the guest, or use --ssh USER@HOST"
_BLOCKED = re.compile(r"disabled|not allowed|blocked|CommandNotFound", re.IGNORECASE)


class AgentChannel:
    """A guest whose agent Proxmox speaks to; see Channel and FileReader.

    Args:
        cluster: knows on which node the VM is.
    """

    name = "qemu-guest-agent"

    def __init__(self, api: Api, cluster: Cluster, vmid: str) -> None:
        self._api = api
        self._cluster = cluster
        self._vmid = vmid

    def ping(self, *, timeout: float) -> None:
        """Ask again and again until the agent answers; see Channel."""
        evidence, hopeless = "it was not asked", False
        for _ in moments(time.monotonic() + timeout):
            try:
                self._api.post(self._path("ping"))
                return
            except Refused as error:
                evidence = error.evidence
                if is_elsewhere(error):
                    self._cluster.forget(self._vmid)
                none = error.text.startswith("No QEMU guest agent configured")
                hopeless = none or _vm_is_off(error.text)
            except AccessDenied as error:
                raise _unreachable("the guest agent may not be asked", error) from error
            except ConnectionFailed as error:
                raise _unreachable("the guest agent did not answer", error) from error
            if hopeless:
                break
        within = "" if hopeless else f" within {timeout:.0f} s"
        raise GuestUnreachable(
            f"the guest agent did not answer{within}",
            evidence=evidence,
            cure=f"wait until the guest has booted; {_INSTALL}",
        )

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """Run a program by agent/exec; see Channel."""
        deadline = time.monotonic() + timeout
        if len(stdin) > INPUT_LIMIT:
            raise GuestUnreachable(
                "that is more input than Proxmox hands to a guest",
                evidence=f"{len(stdin)} bytes, and {INPUT_LIMIT} are allowed",
                cure="use --ssh USER@HOST",
            )
        values: dict[str, object] = {"command": self._command(argv)}
        if stdin:
            values["input-data"] = stdin.decode("ascii")  # PVE encodes it; beyond ASCII it is not exact
        started = self._ask("exec", values)
        pid = started.get("pid")
        if type(pid) is not int:
            raise _nonsense(started)
        for _ in moments(deadline):
            status = self._ask("exec-status", {"pid": pid})
            if status.get("exited") in (1, True):
                return _completed(status)
        raise GuestUnreachable(
            f"{argv[0]} did not end in the guest within {timeout:.0f} s",
            evidence=f"exec-status still says that process {pid} runs",
            cure="look into the guest: something hangs there",
        )

    def file(self, path: str) -> bytes | None:
        """Read a file by agent/file-read; see FileReader."""
        try:
            answer = self._api.get(self._path("file-read"), {"file": path})
        except Refused as error:
            if "No such file" in error.text:
                return None
            if "Invalid argument" in error.text:  # a device: it is there, and has nothing to read
                return b""
            raise _unreachable(f"the guest agent did not read {path}", error) from error
        except (AccessDenied, ConnectionFailed) as error:
            raise _unreachable(f"the guest agent did not read {path}", error) from error
        if not isinstance(answer, Mapping) or not isinstance(answer.get("content"), str):
            raise _nonsense(answer)
        if answer.get("truncated") in (1, True):
            raise GuestUnreachable(
                f"the guest agent gave a part of {path} only",
                evidence="truncated",
                cure="use --ssh USER@HOST",
            )
        return str(answer["content"]).encode(errors="replace")[:OUTPUT_LIMIT]

    def _path(self, command: str) -> str:
        return vm_path(self._cluster.node_of(self._vmid), self._vmid, "agent", command)

    def _command(self, argv: Sequence[str]) -> list[str]:
        """The program behind one that surely exists: that a missing one is asked for costs 5 s and a 596."""
        if self._cluster.version >= (8,):
            return ["/bin/sh", "-c", 'exec "$@"', "sh", *argv]
        words = ["/usr/bin/env", *argv]
        if any(re.search(r"[\s,;]", word) or not word for word in words):
            return ["\0".join(words)]
        return [" ".join(words)]

    def _ask(self, command: str, values: dict[str, object]) -> Mapping[str, object]:
        path = self._path(command)
        try:
            answer = self._api.post(path, values) if command == "exec" else self._api.get(path, values)
        except Refused as error:
            if command == "exec" and _BLOCKED.search(error.text):
                raise RunRefused(
                    "the guest agent runs no programs",
                    evidence=error.evidence,
                    cure="allow guest-exec in the guest (RHEL: /etc/sysconfig/qemu-ga; else qemu-ga.conf), "
                    "or use --ssh USER@HOST",
                ) from error
            message = f"the guest agent failed at {command}"
            if error.status in UNREACHED:
                message = f"the guest agent's answer to {command} got lost; the guest may have no /bin/sh"
            raise _unreachable(message, error) from error
        except AccessDenied as error:
            raise RunRefused(error.message, evidence=error.evidence, cure=error.cure) from error
        except ConnectionFailed as error:
            raise _unreachable(f"there was no answer to the guest agent's {command}", error) from error
        if not isinstance(answer, Mapping):
            raise _nonsense(answer)
        return answer


def _vm_is_off(text: str) -> bool:
    """``VM 101 is not running``; the agent's own absence is ``QEMU guest agent is not running``."""
    return re.match(r"VM \d+ is not running", text) is not None


def _unreachable(message: str, error: Error) -> GuestUnreachable:
    denied = isinstance(error, AccessDenied) and not isinstance(error, Refused)
    cure = error.cure if denied else _INSTALL
    return GuestUnreachable(message, evidence=error.evidence, cure=cure)


def _nonsense(answer: object) -> GuestUnreachable:
    return GuestUnreachable(
        "the guest agent's answer is not one of Proxmox's API",
        evidence=printable(str(answer), 200),
        cure="update qemu-guest-agent in the guest, or use --ssh USER@HOST",
    )


def _completed(status: Mapping[str, object]) -> Completed:
    code = status.get("exitcode", 128)  # without an exit code it was ended by a signal
    texts = [status.get("out-data", ""), status.get("err-data", "")]
    if type(code) is not int or not all(isinstance(text, str) for text in texts):
        raise _nonsense(status)
    stdout, stderr = (str(text)[: OUTPUT_LIMIT + 1].encode(errors="replace") for text in texts)
    return clipped(code, stdout, stderr, truncated=status.get("out-truncated") in (1, True))
