"""Start-VM, Stop-VM and the others that change a VM's state."""

from __future__ import annotations

from tests.peers.hyperv.model import Host, Machine, Refused
from tests.peers.hyperv.words import each_of, hyperv
from tests.peers.pwsh.cmdlet import Call


@hyperv("Start-VM [-Name] <string[]> [-Passthru]", "Start-VM [-VM] <VirtualMachine[]|> [-Passthru]")
def _start(call: Call, host: Host) -> None:
    def change(machine: Machine) -> None:
        if machine.group:
            host.wrongs.append(f"Start-VM of {machine.name}, behind its cluster's back")
        start(host, machine)

    each_of(call, host, change)


def start(host: Host, machine: Machine) -> None:
    """As far as its state lets it; a VM that runs is left as it is, with a warning."""
    if machine.state == "Running":
        return
    if machine.state in ("Saved", "Hibernated"):
        machine.state = "Running"
        return
    if machine.state != "Off":
        raise Refused("InvalidState", f"'{machine.name}' cannot be started in the state {machine.state}.")
    host.boot(machine)


STOP = "[-TurnOff] [-Force] [-Save] [-Passthru]"


@hyperv(f"Stop-VM [-Name] <string[]> {STOP}", f"Stop-VM [-VM] <VirtualMachine[]|> {STOP}")
def _stop(call: Call, host: Host) -> None:
    def change(machine: Machine) -> None:
        if machine.state in ("Off", "OffCritical"):
            return
        if machine.state not in ("Running", "Paused"):
            words = f"'{machine.name}' cannot be stopped in the state {machine.state}."
            raise Refused("InvalidState", words)
        if call["TurnOff"]:
            host.turn_off(machine)
        elif call["Save"]:
            machine.state = "Saved"
        else:
            host.wrongs.append("Stop-VM without -TurnOff waits for a guest as long as it takes")
            host.shut_down(machine)

    each_of(call, host, change)
