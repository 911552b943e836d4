"""What goes on at a host when the process that began it is dead.

A script runs on: WinRM closes the shell of a client that is gone only when that has been idle for long. And a
guest that was asked to shut down does so, of which no state of the VM tells
(https://blogs.msdn.microsoft.com/virtual_pc_guy/2011/01/11/shutting-down-a-virtual-machine/); but the script
that has asked it looks until the VM is off.
"""

from __future__ import annotations

from typing import Any

from nestvirt.backends.hyperv import scripts
from nestvirt.backends.hyperv.reading import Nonsense, several, text
from nestvirt.errors import Error
from nestvirt.printable import printable

_PASSING = ("Starting", "Stopping", "Saving", "FastSaving", "Pausing", "Resuming", "Reset")
"""Of VMState: what goes over into another one by itself."""


def told(guid: str, answer: dict[str, Any]) -> str:
    """The answer of at_work.ps1, for people; empty where nothing goes on.

    Raises:
        Error: it is not what that script writes.
    """
    try:
        state = text(answer, "state")
        lines = [line for line in several(answer, "lines") if isinstance(line, str)]
    except Nonsense as error:
        raise Error(
            "the Hyper-V host's answer is not what was asked for",
            evidence=printable(str(error), 300),
            cure="see whether something on the host changes what PowerShell writes; then run this again",
        ) from error
    at_work = [f"the VM is {state}"] if state in _PASSING else []
    orders = [order for order in map(scripts.given, lines) if order.get("id") == guid]
    # Those that only read have neither.
    doing = [str(order.get("action") or order.get("setting") or "") for order in orders]
    return "; ".join(at_work + [f"a script of an earlier run ({printable(d, 100)})" for d in doing if d])
