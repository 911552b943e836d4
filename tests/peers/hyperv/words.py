"""How cmdlets of the Hyper-V module say what went wrong, and the objects that they write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from tests.peers.hyperv.model import HEARTBEAT, WITH_VERSIONS, Adapter, Host, Machine, Refused
from tests.peers.pwsh.cmdlet import Call, cmdlet
from tests.peers.pwsh.convert import ENUMS
from tests.peers.pwsh.operators import is_wildcard, wildcard
from tests.peers.pwsh.raising import unknown
from tests.peers.pwsh.values import CaseDict, EnumValue, ErrorRecord, Net, NetException

SPACE = "Microsoft.HyperV.PowerShell"
MODULE = "Hyper-V"
VMWARE = "VMware.VimAutomation.Core"
"""PowerCLI has a Get-VM, too: whose it is, is for the modules' order to say until one is imported."""
CATEGORIES = {
    "InvalidParameter": "InvalidArgument",
    "InvalidState": "InvalidOperation",
    "NotSupported": "InvalidOperation",
    "ObjectNotFound": "ObjectNotFound",
    "AccessDenied": "PermissionDenied",
    "OperationFailed": "NotSpecified",
}
STATES = {
    "Other": 1,
    "Running": 2,
    "Off": 3,
    "Stopping": 4,
    "Saved": 6,
    "Paused": 9,
    "Starting": 10,
    "Reset": 11,
    "Saving": 32773,
    "Pausing": 32776,
    "Resuming": 32777,
    "FastSaved": 32779,
    "FastSaving": 32780,
    "ForceShutdown": 32781,
    "ForceReboot": 32782,
    "Hibernated": 32783,
    "ComponentServicing": 32784,
    "RunningCritical": 32785,
    "OffCritical": 32786,
    "StoppingCritical": 32787,
    "SavedCritical": 32788,
    "PausedCritical": 32789,
}
REPLICATION = {"None": 0, "Primary": 1, "Replica": 2, "TestReplica": 3, "ExtendedReplica": 4}
HEARTBEATS = {
    "Unknown": 0,
    "Disabled": 1,
    "NoContact": 2,
    "Error": 3,
    "LostCommunication": 4,
    "OkApplicationsUnknown": 5,
    "OkApplicationsHealthy": 6,
    "Paused": 9,
}
OPERATIONAL = {"Ok": 2, "NoContact": 12, "LostCommunication": 13, "Disabled": 32896}
ENUMS[f"{SPACE}.VMState"] = STATES
ENUMS[f"{SPACE}.StopAction"] = {"TurnOff": 2, "Save": 3, "ShutDown": 4}
ENUMS[f"{SPACE}.OnOffState"] = {"On": 0, "Off": 1}
ENUMS[f"{SPACE}.VMReplicationMode"] = REPLICATION
ENUMS[f"{SPACE}.VMHeartbeatStatus"] = HEARTBEATS
ENUMS[f"{SPACE}.VMIntegrationComponentOperationalStatus"] = OPERATIONAL

Body = Callable[[Call, Host], None]


def enum(name: str, member: str) -> EnumValue:
    full = f"{SPACE}.{name}"
    return EnumValue(full, member, ENUMS[full][member])


def record(command: str, refused: Refused, target: Any = None) -> ErrorRecord:
    """A VirtualizationException, as the module's cmdlets have it."""
    name = command.replace("-", "")
    exception = NetException(f"{SPACE}.VirtualizationException", refused.message)
    error_id = f"{refused.identifier},{SPACE}.Commands.{name}"
    return ErrorRecord(exception, error_id, CATEGORIES[refused.identifier], target)


def hyperv(*syntax: str, since: int = 0) -> Callable[[Body], Body]:
    """A cmdlet of the module: refused without the right, and without the service behind it.

    Args:
        since: the build of Windows that brought it.
    """

    def register(body: Body) -> Body:
        @cmdlet(*syntax, module=MODULE)
        def run(call: Call) -> None:
            host = call.engine.machine
            host.tick()
            if host.has_module(VMWARE) and MODULE.lower() not in call.engine.imported:
                host.wrongs.append(f"{call.cmdlet.name} may be VMware's")
            if host.build < since:
                raise unknown(call.cmdlet.name)
            try:
                _permitted(host)
                body(call, host)
            except Refused as refused:
                call.fail(record(call.cmdlet.name, refused))

        return body

    return register


def _permitted(host: Host) -> None:
    if host.denied:
        words = (
            "You do not have the required permission to complete this task. Contact the administrator of the"
        )
        raise Refused("AccessDenied", f"{words} authorization policy for the computer '{host.name}'.")
    if not host.service:
        words = (
            f"Hyper-V encountered an error trying to access an object on computer '{host.name}' because the"
        )
        raise Refused("ObjectNotFound", f"{words} object was not found. Verify that the service is running.")


class Live(Net):
    """An object of the module: what it shows is read anew each time."""

    def __init__(self, type_name: str, shown: Callable[[], dict[str, Any]], machine: Machine) -> None:
        self.shown = shown
        self.machine = machine
        super().__init__(f"{SPACE}.{type_name}", {}, f"{SPACE}.{type_name}")

    @property
    def properties(self) -> CaseDict:
        return CaseDict(self.shown())

    @properties.setter
    def properties(self, _value: CaseDict) -> None:
        pass


def _heartbeat(machine: Machine) -> EnumValue | None:
    if machine.state == "Paused":
        return enum("VMHeartbeatStatus", "Paused")
    if machine.state != "Running":
        return None
    if not machine.services.get(HEARTBEAT):
        return enum("VMHeartbeatStatus", "Disabled")
    return enum("VMHeartbeatStatus", "OkApplicationsHealthy" if machine.answers else "NoContact")


def vm_object(host: Host, machine: Machine) -> Live:
    """A VirtualMachine."""

    def shown() -> dict[str, Any]:
        host.tick()
        return {
            "Id": machine.id,
            "VMId": machine.id,
            "Name": machine.name,
            "VMName": machine.name,
            "State": enum("VMState", machine.state),
            **({"Version": machine.version} if host.build >= WITH_VERSIONS else {}),
            "Generation": machine.generation,
            "IsClustered": bool(machine.group),
            "ReplicationMode": enum("VMReplicationMode", machine.replication),
            "Heartbeat": _heartbeat(machine),
            "Notes": machine.notes,
            "ProcessorCount": machine.processors,
            "DynamicMemoryEnabled": machine.dynamic,
            "MemoryStartup": machine.startup,
            "MemoryMinimum": machine.minimum,
            "MemoryMaximum": machine.maximum,
            "MemoryAssigned": machine.assigned,
            "MemoryDemand": machine.demand if machine.assigned else 0,
            "AutomaticStopAction": enum("StopAction", machine.stop_action),
            "ComputerName": host.name,
        }

    made = Live("VirtualMachine", shown, machine)
    made.text = f"VirtualMachine (Name = '{machine.name}') [Id = '{machine.id}']"
    return made


def adapter_object(machine: Machine, adapter: Adapter) -> Live:
    """A VMNetworkAdapter."""

    def shown() -> dict[str, Any]:
        return {
            "Id": f"Microsoft:{str(machine.id).upper()}\\{adapter.id}",
            "Name": adapter.name,
            "VMId": machine.id,
            "VMName": machine.name,
            "MacAddressSpoofing": enum("OnOffState", "On" if adapter.spoofing else "Off"),
        }

    return Live("VMNetworkAdapter", shown, machine)


def chosen(call: Call, host: Host) -> list[Machine]:
    """The VMs that -VM or -VMName means; a name is a pattern, and that is the trap."""
    if call["VM"] is not None:
        return [each.machine for each in call["VM"]]
    found = []
    for name in call["VMName"] if "VMName" in call.given else call["Name"] or ["*"]:
        hits = [each for each in host.registered if wildcard(name, each.name)]
        if not hits and not is_wildcard(name):
            words = f'Hyper-V was unable to find a virtual machine with name "{name}".'
            missing = "InvalidParameter" if call.cmdlet.name == "Get-VM" else "ObjectNotFound"
            call.fail(record(call.cmdlet.name, Refused(missing, words), name))
        found += hits
    return found


def gone(identity: UUID) -> Refused:
    words = f'Hyper-V was unable to find a virtual machine with id "{identity}".'
    return Refused("InvalidParameter", words)


def each_of(call: Call, host: Host, change: Callable[[Machine], None]) -> None:
    """Do something to each VM that is meant; what one refuses does not keep it from the next."""
    for machine in chosen(call, host):
        try:
            if host.find(machine.id) is None:
                raise gone(machine.id)
            change(machine)
            host.log.append(f"{call.cmdlet.name} {machine.name}")
        except Refused as refused:
            call.fail(record(call.cmdlet.name, refused))
        else:
            if call["Passthru"]:
                call.out.append(vm_object(host, machine))
