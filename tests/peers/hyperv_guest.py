"""A Linux guest of a Hyper-V host, as SSH reaches it: the hypervisor has no way into it."""

from __future__ import annotations

from collections.abc import Sequence

from nestvirt.guest.channel import Completed
from tests.peers.guest_answers import NO_FLAG, WORKS, probe_answer
from tests.peers.hyperv_rig import HyperVRig


class LinuxGuest:
    """A Linux guest as SSH reaches it: its probe answers by what its VM was started with."""

    name = "ssh"

    def __init__(self, rig: HyperVRig, name: str) -> None:
        self._machine = rig.machine(name)

    def ping(self, *, timeout: float) -> None:
        assert timeout > 0

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        assert timeout > 0
        if argv[0] != "python3":
            return Completed(127, b"", b"")
        inside = WORKS if self._machine.received else NO_FLAG
        return Completed(0 if inside == WORKS else 1, probe_answer(inside).encode(), b"")
