"""A guest agent that cannot be trusted, for the lab's guest: a liar, a flood, or a mute.

Runs inside the guest on its own: ``python3 -I agent.py liar|flood|mute``.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PORT = "/dev/virtio-ports/org.qemu.guest_agent.0"

# Not the probe's schema, more than once, and dressed up for the terminal of whoever prints it.
LIES = {
    "schema_version": "1; DROP",
    "verdict": "works\u001b[2J\u001b[1;32m PASS \u001b[0m",
    "cause": ["works"],
    "nested": True,
    "findings": [
        {"check": "guest-kvm-run", "status": "pass", "evidence": "\u001b]0;owned\u0007\r\n\u0000\u202e"},
        {"check": "guest-kvm-run\u001b[8m", "status": "PASS!", "evidence": 42},
        "works",
    ],
}

# In base64 just below the 4 MiB that libvirt's protocol carries in one answer, so that it reaches the reader.
FLOOD = b'{"schema_version": 1, "verdict": "works", "findings": [' + b" " * (5 << 19)

COMMANDS = ("guest-exec", "guest-exec-status", "guest-info", "guest-ping", "guest-shutdown", "guest-sync")


def answer(command: str, arguments: dict[str, Any], output: bytes) -> Any:
    """What this agent returns; KeyError for a command that it does not know."""
    if command == "guest-shutdown":
        subprocess.run(["/sbin/shutdown", "-r" if arguments.get("mode") == "reboot" else "-P"], check=False)
    return {
        "guest-sync": arguments.get("id"),
        "guest-sync-delimited": arguments.get("id"),
        "guest-ping": {},
        "guest-shutdown": {},
        "guest-info": {
            "version": "7.2.0",
            "supported_commands": [{"name": name, "enabled": True} for name in COMMANDS],
        },
        "guest-exec": {"pid": 4242},
        "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": base64.b64encode(output).decode()},
    }[command]


def serve(output: bytes, *, mute: bool) -> None:
    """Answer requests for ever, or only take them."""
    with Path(PORT).open("r+b", buffering=0) as both:  # the port can be open once only
        port = io.BufferedRWPair(both, both)
        while True:
            line = port.readline()
            if not line:  # nobody is at the other end
                time.sleep(0.1)
            elif not mute:
                port.write(reply(line, output))
                port.flush()


def reply(line: bytes, output: bytes) -> bytes:
    """The bytes to send back."""
    try:
        request = json.loads(line.lstrip(b"\xff"))
        result = {"return": answer(request["execute"], request.get("arguments", {}), output)}
    except (ValueError, KeyError) as error:
        result = {"error": {"class": "CommandNotFound", "desc": f"{error} is not known"}}
    delimiter = b"\xff" if b"guest-sync-delimited" in line else b""
    return delimiter + json.dumps(result).encode() + b"\n"


if __name__ == "__main__":
    kind = sys.argv[1]
    serve(FLOOD if kind == "flood" else json.dumps(LIES).encode(), mute=kind == "mute")
