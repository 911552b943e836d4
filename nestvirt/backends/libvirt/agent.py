"""The QEMU guest agent through libvirt: run a program in the guest without a network.

Protocol: https://qemu-project.gitlab.io/qemu/interop/qemu-ga-ref.html (guest-exec, guest-exec-status).
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Sequence

from nestvirt.errors import GuestUnreachable
from nestvirt.guest.channel import NOT_FOUND, OUTPUT_LIMIT, Completed, clipped
from nestvirt.printable import printable

Send = Callable[[str, float], str]
"""Sends one command as JSON with a deadline in seconds; returns the agent's answer as JSON, or raises
GuestUnreachable with the agent's own words as evidence."""

_START_CURE = "wait until the guest has booted; see that qemu-guest-agent runs in it, or use --ssh USER@HOST"
_BLOCKED_CURE = (
    "allow guest-exec in the guest (RHEL: /etc/sysconfig/qemu-ga; else qemu-ga.conf), or use --ssh USER@HOST"
)


class AgentChannel:
    """A guest with a QEMU guest agent; see Channel.

    Args:
        send: the hypervisor's way to hand one command to the agent.
    """

    name = "qemu-guest-agent"

    def __init__(self, send: Send) -> None:
        self._send = send

    def ping(self, *, timeout: float) -> None:
        """Ask again and again until the agent answers; see Channel."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._command("guest-ping", {}, min(5.0, max(1.0, deadline - time.monotonic())))
            except GuestUnreachable as error:
                if time.monotonic() >= deadline:
                    raise GuestUnreachable(
                        f"the guest agent did not answer within {timeout:.0f} s",
                        evidence=error.evidence,
                        cure=_START_CURE,
                    ) from error
                time.sleep(0.05)
            else:
                return

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        """Run a program by guest-exec; see Channel."""
        deadline = time.monotonic() + timeout
        arguments: dict[str, object] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        try:
            started = self._command("guest-exec", arguments, timeout)
        except GuestUnreachable as error:
            if "Failed to execute child process" in error.evidence:
                return Completed(NOT_FOUND, b"", error.evidence.encode())
            raise _blocked(error) from error
        pid = started.get("pid")
        if type(pid) is not int:  # isinstance would take JSON's true for one
            raise _nonsense(started)
        pause = 0.02
        while time.monotonic() < deadline:
            status = self._command("guest-exec-status", {"pid": pid}, max(1.0, deadline - time.monotonic()))
            if status.get("exited") is True:
                return _completed(status)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        raise GuestUnreachable(
            f"{argv[0]} did not end in the guest within {timeout:.0f} s",
            evidence=f"guest-exec-status still says that process {pid} runs",
            cure="look into the guest: something hangs there",
        )

    def _command(self, name: str, arguments: dict[str, object], timeout: float) -> dict[str, object]:
        answer = self._send(json.dumps({"execute": name, "arguments": arguments}), timeout)
        try:
            fields = json.loads(answer)["return"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _nonsense(answer) from error
        if not isinstance(fields, dict):
            raise _nonsense(answer)
        return fields


def _blocked(error: GuestUnreachable) -> GuestUnreachable:
    if "disabled" in error.evidence or "not allowed" in error.evidence or "blocked" in error.evidence:
        return GuestUnreachable(
            "the guest agent blocks guest-exec", evidence=error.evidence, cure=_BLOCKED_CURE
        )
    return error


def _nonsense(answer: object) -> GuestUnreachable:
    return GuestUnreachable(
        "the guest agent's answer is not one of its protocol",
        evidence=printable(str(answer), 200),
        cure="update qemu-guest-agent in the guest, or use --ssh USER@HOST",
    )


def _completed(status: dict[str, object]) -> Completed:
    code = status.get("exitcode", 128)  # without an exit code it was ended by a signal
    texts = [status.get("out-data", ""), status.get("err-data", "")]
    if type(code) is not int or not all(isinstance(text, str) for text in texts):
        raise _nonsense(status)
    limit = OUTPUT_LIMIT // 3 * 4 + 4
    try:
        stdout, stderr = (base64.b64decode(str(text)[:limit]) for text in texts)
    except (binascii.Error, ValueError) as error:
        raise _nonsense(status) from error
    over = any(len(str(text)) > limit for text in texts) or bool(status.get("out-truncated"))
    return clipped(code, stdout, stderr, truncated=over)
