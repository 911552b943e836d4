"""PowerShell Direct: the Hyper-V host's own way into a Windows guest, without a network.

https://learn.microsoft.com/en-us/virtualization/hyper-v-on-windows/user-guide/powershell-direct
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nestvirt.backends.base import moments
from nestvirt.backends.hyperv.faults import ScriptFailed
from nestvirt.errors import AccessDenied, ConnectionFailed, Error, GuestUnreachable
from nestvirt.guest.windows_answer import ANSWER_LIMIT
from nestvirt.model import Finding, Layer, Power, Status
from nestvirt.printable import printable

SERVICE_PATIENCE = 20.0
"""Seconds that a guest whose heart beats may take to start the service that PowerShell Direct speaks to."""

SCRIPT = 20.0
"""Seconds that a host may take to start PowerShell with Hyper-V's module, beside what the guest takes."""

VARIABLES = "NESTVIRT_HYPERV_GUEST_USERNAME and NESTVIRT_HYPERV_GUEST_PASSWORD"
REFUSED = "PSDirectException"
"""What the host's PowerShell throws where the guest refuses user or password (RemoteSessionHyperVSocket)."""

_SSH = "name a way in: --ssh USER@HOST"
_OR_SSH = f"or {_SSH}"
_ITEM = re.compile(r'<PROPERTY NAME="(Name|Data)"[^>]*>\s*<VALUE>([^<]{0,1000})</VALUE>')


class Session(Protocol):
    """What is needed of a HyperVSession."""

    def run(
        self,
        phase: str,
        data: Mapping[str, Any],
        *,
        secret: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> dict[str, Any]:
        """See HyperVSession."""


@dataclass(frozen=True)
class System:
    """A guest's operating system, as its integration services tell it.

    Attributes:
        name: such as "Windows Server 2022 Datacenter".
        windows: whether it is Windows.
    """

    name: str
    windows: bool


def system_of(kvp: Sequence[object]) -> System | None:
    """What a guest says of its system by key-value exchange; None where it says nothing.

    Args:
        kvp: Msvm_KvpExchangeComponent.GuestIntrinsicExchangeItems: an XML instance each, with Name and Data.
    """
    pairs = {}
    for item in kvp[:64]:
        fields = dict(_ITEM.findall(item[:4096] if isinstance(item, str) else ""))
        pairs[html.unescape(fields.get("Name", ""))] = html.unescape(fields.get("Data", ""))
    name = printable(pairs.get("OSName", ""), 100)
    if not name:
        return None
    # VER_PLATFORM_WIN32_NT; Linux' daemon tells no platform.
    return System(name, pairs.get("OSPlatformId") == "2" or "windows" in name.lower())


def beats(heartbeat: str) -> bool:
    """Whether a guest's integration services answer (VMHeartbeatStatus)."""
    return heartbeat.startswith("Ok")


def vm_agent(power: Power, heartbeat: str, system: System | None, user: str) -> Iterator[Finding]:
    """Which ways there are into the guest, and why PowerShell Direct is not one of them.

    Args:
        heartbeat: VMHeartbeatStatus, as text.
        user: of the guest; empty where none was given.
    """
    check, layer, warn = "vm-agent", Layer.VM, Status.WARN
    if system is not None and not system.windows:
        evidence = f"guest OS {system.name}: PowerShell Direct leads into Windows alone"
        yield Finding(check, layer, warn, evidence, f"for the proof, {_SSH}")
    elif power is Power.RUNNING and not beats(heartbeat):
        evidence = (
            f"the integration services do not answer (Heartbeat: {printable(heartbeat, 40) or 'none'}): "
        )
        evidence += "the guest can be neither shut down cleanly nor asked"
        cure = "see that the guest has booted, and that its integration services run and are switched on; "
        yield Finding(check, layer, warn, evidence, cure + "without: --force-off, and --ssh for the proof")
    elif not user:
        evidence = "PowerShell Direct asks for a user of the guest, and none was given"
        yield Finding(check, layer, warn, evidence, f"Windows: set {VARIABLES}; Linux: {_SSH}")
    else:
        known = f"; guest OS {system.name}" if system is not None else ", where the guest is Windows"
        yield Finding(check, layer, Status.PASS, f"PowerShell Direct as the guest's user {user}{known}")


def way_in(
    session: Session, guid: str, system: System | None, settings: Mapping[str, str]
) -> PowerShellDirect | None:
    """The way into a guest; None where it is not Windows', or nobody gave a user and password.

    Args:
        guid: the VM's own, without its host.
        system: of the guest; None where that is not known.
        settings: with ``guest_username`` and ``guest_password``.
    """
    user, password = settings.get("guest_username"), settings.get("guest_password")
    if not user or not password or (system is not None and not system.windows):
        return None
    return PowerShellDirect(session, guid, user, password)


class PowerShellDirect:
    """A Windows guest tells of itself, asked by the host; see Examiner.

    Args:
        guid: of the VM.
        user: of the guest, ``NAME`` or ``DOMAIN\\NAME``.
    """

    name = "powershell-direct"

    def __init__(self, session: Session, guid: str, user: str, password: str) -> None:
        self._session = session
        self._guid = guid
        self._user = user
        self._password = password

    def ping(self, *, timeout: float) -> None:
        """Wait for the guest's heartbeat; no password is tried meanwhile, which could lock an account."""
        state = heartbeat = "?"
        for _ in moments(time.monotonic() + timeout):
            found = self._run("heartbeat", {"id": self._guid}, timeout=SCRIPT)
            state, heartbeat = str(found.get("state")), str(found.get("heartbeat"))
            kvp = found.get("kvp")
            system = system_of(kvp if isinstance(kvp, list) else [])
            if system is not None and not system.windows:
                raise GuestUnreachable(
                    "PowerShell Direct leads into Windows alone",
                    evidence=f"guest OS {system.name}",
                    cure=_SSH,
                )
            if beats(heartbeat) or heartbeat == "Disabled":  # where it is switched off, nothing will beat
                return
        raise GuestUnreachable(
            f"the guest's integration services did not answer within {timeout:.0f} s",
            evidence=printable(f"state {state}, heartbeat {heartbeat}", 200),
            cure=f"see in Hyper-V Manager what the guest does; {_OR_SSH}",
        )

    def examine(self, *, timeout: float) -> bytes:
        """Run the reading in the guest, again while nothing there takes the connection; see Examiner."""
        end = time.monotonic() + timeout
        failure: GuestUnreachable | None = None
        for _ in moments(time.monotonic() + min(timeout, SERVICE_PATIENCE)):
            try:
                return self._ask(max(1.0, end - time.monotonic()))
            except _NotYet as error:
                failure = error
        raise failure or GuestUnreachable("the guest was not asked", evidence="no time was left for it")

    def _ask(self, seconds: float) -> bytes:
        secret = {"username": self._user, "password": self._password}
        data = {"id": self._guid, "seconds": int(seconds + 0.5), "limit": ANSWER_LIMIT + 1}
        found = self._run("direct", data, secret=secret, timeout=seconds + SCRIPT)
        if found.get("answered") is not True:
            raise GuestUnreachable(
                f"the guest did not answer by PowerShell Direct within {seconds:.0f} s",
                evidence="it took the connection, and its reading did not end",
                cure=f"see what the guest is busy with; {_OR_SSH}",
            )
        return str(found.get("said")).encode("utf-8", "replace")

    def _run(
        self,
        phase: str,
        data: Mapping[str, Any],
        *,
        timeout: float,
        secret: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        try:
            return self._session.run(phase, data, secret=secret, timeout=timeout)
        except ScriptFailed as error:
            raise self._told(error) from error
        except (AccessDenied, ConnectionFailed) as error:
            raise GuestUnreachable(error.message, evidence=error.evidence, cure=error.cure) from error

    def _told(self, error: ScriptFailed) -> Error:
        """Judged by the exception's type and id: the words are in the host's language."""
        evidence = printable(f"{error.text} ({error.id})", 300)
        if error.type.endswith(REFUSED):
            return GuestUnreachable(
                f"the guest refused its user {printable(self._user, 60)}, or the password",
                evidence=evidence,
                cure=f"see that {VARIABLES} are a user's inside the guest, not the host's; {_OR_SSH}",
            )
        if error.category == "OpenError":
            return _NotYet(
                "the guest does not take PowerShell Direct",
                evidence=evidence,
                cure=f"in the guest, of Windows 10 or later: Start-Service vmicvmsession; {_OR_SSH}",
            )
        return GuestUnreachable(
            "PowerShell Direct failed", evidence=evidence, cure=f"see vm-agent; {_OR_SSH}"
        )


class _NotYet(GuestUnreachable):
    """It may answer in a moment."""
