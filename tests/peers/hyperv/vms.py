"""Get-VM and what else only reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.peers.hyperv.model import FIRST_BUILD, WITH_AUTOMATIC, WITH_VERSIONS, Host, Machine
from tests.peers.hyperv.words import Live, adapter_object, chosen, enum, gone, hyperv, vm_object
from tests.peers.pwsh.cmdlet import Call
from tests.peers.pwsh.convert import version
from tests.peers.pwsh.values import Net

NAMES = {
    "9F8233AC-BE49-4C79-8EE3-E7E1985B2077": "Herunterfahren",
    "2A34B1C2-FD73-4043-8A5B-DD2159BC743F": "Austausch von Schlüsselwertepaaren",
    "84EAAE65-2F2E-45F5-9BB5-0E857DC8EB47": "Takt",
    "5CED1297-4598-4915-A5FC-AD21BB4D02A4": "VSS",
}
"""The services' names are in the host's language, which is not the reader's."""
STATUS = "VMIntegrationComponentOperationalStatus"


@hyperv("Get-VM [[-Name] <string[]|>]", "Get-VM [[-Id] <guid|>]")
def _get_vm(call: Call, host: Host) -> None:
    if call["Id"] is None:
        host.lists += 1
        call.out += [vm_object(host, machine) for machine in chosen(call, host)]
        return
    machine = host.find(call["Id"])
    if machine is None:
        raise gone(call["Id"])
    call.out.append(vm_object(host, machine))


def _processor(host: Host, machine: Machine) -> dict[str, Any]:
    known = {"ExposeVirtualizationExtensions": machine.expose} if host.build >= FIRST_BUILD else {}
    return {"Count": machine.processors, "VMId": machine.id, "VMName": machine.name, **known}


def _memory(_host: Host, machine: Machine) -> dict[str, Any]:
    sizes = {"Minimum": machine.minimum, "Startup": machine.startup, "Maximum": machine.maximum}
    return {"DynamicMemoryEnabled": machine.dynamic, "VMId": machine.id, **sizes}


def _security(_host: Host, machine: Machine) -> dict[str, Any]:
    return {"VirtualizationBasedSecurityOptOut": machine.opt_out, "TpmEnabled": False, "Shielded": False}


def _parts(call: Call, host: Host, kind: str, shown: Callable[[Host, Machine], dict[str, Any]]) -> None:
    """Write each chosen VM's part of that kind."""
    call.out += [Live(kind, partial(shown, host, machine), machine) for machine in chosen(call, host)]


@hyperv("Get-VMProcessor [-VMName] <string[]>", "Get-VMProcessor [-VM] <VirtualMachine[]|>")
def _get_processor(call: Call, host: Host) -> None:
    _parts(call, host, "VMProcessor", _processor)


@hyperv("Get-VMMemory [-VMName] <string[]>", "Get-VMMemory [-VM] <VirtualMachine[]|>")
def _get_memory(call: Call, host: Host) -> None:
    _parts(call, host, "VMMemory", _memory)


@hyperv(
    "Get-VMSecurity [-VMName] <string[]>", "Get-VMSecurity [-VM] <VirtualMachine[]|>", since=WITH_VERSIONS
)
def _get_security(call: Call, host: Host) -> None:
    _parts(call, host, "VMSecurity", _security)


@hyperv(
    "Get-VMNetworkAdapter [-VMName] <string[]> [[-Name] <string>]",
    "Get-VMNetworkAdapter [-VM] <VirtualMachine[]|> [-Name <string>]",
)
def _get_adapter(call: Call, host: Host) -> None:
    for machine in chosen(call, host):
        call.out += [adapter_object(machine, adapter) for adapter in machine.adapters]


@hyperv(
    "Get-VMIntegrationService [-VMName] <string[]> [[-Name] <string[]>]",
    "Get-VMIntegrationService [-VM] <VirtualMachine[]|> [-Name <string[]>]",
)
def _get_services(call: Call, host: Host) -> None:
    for machine in chosen(call, host):
        for identity, enabled in machine.services.items():
            status = enum(STATUS, "Ok" if machine.answers else "NoContact")
            about = {
                "Id": f"Microsoft:{str(machine.id).upper()}\\{identity}",
                "Name": NAMES[identity],
                "Enabled": enabled,
                "PrimaryOperationalStatus": status if machine.state == "Running" else None,
            }
            call.out.append(Net("Microsoft.HyperV.PowerShell.VMIntegrationComponent", about))


@hyperv(
    "Get-VMSnapshot [-VMName] <string[]> [[-Name] <string[]>]",
    "Get-VMSnapshot [-VM] <VirtualMachine[]|> [-Name <string[]>]",
)
def _get_checkpoints(call: Call, host: Host) -> None:
    for machine in chosen(call, host):
        for each in machine.checkpoints:
            about = {"Name": each.name, "VMId": machine.id, "State": enum("VMState", each.state)}
            if host.build >= WITH_AUTOMATIC:
                about["IsAutomaticCheckpoint"] = each.automatic
            call.out.append(Net("Microsoft.HyperV.PowerShell.VMSnapshot", about))


@hyperv("Get-VMHostSupportedVersion [-Default]", since=WITH_VERSIONS)
def _versions(call: Call, host: Host) -> None:
    for dotted in ("8.0", "9.0", host.version):
        if dotted == host.version or not call["Default"]:
            about = {"Name": "Windows", "Version": version(dotted), "IsDefault": dotted == host.version}
            call.out.append(Net("Microsoft.HyperV.PowerShell.VMHostSupportedVersion", about))


@hyperv("Get-VMHost")
def _host(call: Call, host: Host) -> None:
    call.out.append(Net("Microsoft.HyperV.PowerShell.VMHost", {"Name": host.name, "ComputerName": host.name}))
