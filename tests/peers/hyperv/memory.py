"""Set-VMMemory."""

from __future__ import annotations

from tests.peers.hyperv.model import DEFAULT_MAXIMUM, DEFAULT_MINIMUM, Host, Machine, Refused
from tests.peers.hyperv.words import each_of, hyperv
from tests.peers.pwsh.cmdlet import Call

PARAMETERS = (
    "[-DynamicMemoryEnabled <bool>] [-MinimumBytes <long>] [-StartupBytes <long>] [-MaximumBytes <long>]"
    " [-Passthru]"
)


@hyperv(
    f"Set-VMMemory [-VMName] <string[]> {PARAMETERS}", f"Set-VMMemory [-VM] <VirtualMachine[]|> {PARAMETERS}"
)
def _set_memory(call: Call, host: Host) -> None:
    each_of(call, host, lambda machine: _change(call, host, machine))


def _change(call: Call, host: Host, machine: Machine) -> None:
    host.must_be_off(machine, "memory settings")
    dynamic = machine.dynamic if call["DynamicMemoryEnabled"] is None else call["DynamicMemoryEnabled"]
    startup = call["StartupBytes"] or machine.startup
    minimum = call["MinimumBytes"] or machine.minimum
    maximum = call["MaximumBytes"] or machine.maximum
    if not dynamic:
        if call["MinimumBytes"] or call["MaximumBytes"]:
            words = "Minimum and maximum memory can be set only where dynamic memory is enabled."
            raise Refused("InvalidParameter", words)
        # what dynamic memory had is forgotten
        minimum, maximum = DEFAULT_MINIMUM, DEFAULT_MAXIMUM
    elif not minimum <= startup <= maximum:
        words = f"'{machine.name}' failed to modify memory: minimum, startup and maximum are out of order."
        raise Refused("InvalidParameter", words)
    machine.dynamic, machine.startup = dynamic, startup
    machine.minimum, machine.maximum = minimum, maximum
