"""Failover clustering, as far as it keeps VMs: a group each, of two resources.

A VM whose configuration is offline is none that Hyper-V shows.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.peers.hyperv.model import Away, Host, Machine, Refused
from tests.peers.hyperv.power import start
from tests.peers.pwsh.cmdlet import Call, cmdlet
from tests.peers.pwsh.convert import ENUMS
from tests.peers.pwsh.values import EnumValue, ErrorRecord, Net, NetException

SPACE = "Microsoft.FailoverClusters.PowerShell"
GROUP_STATES = {"Unknown": -1, "Online": 0, "Offline": 1, "Failed": 2, "PartialOnline": 3, "Pending": 4}
VM, CONFIGURATION = "Virtual Machine", "Virtual Machine Configuration"
RESOURCE_STATES = {"Unknown": -1, "Online": 2, "Offline": 3, "Failed": 4, "OnlinePending": 129}
ENUMS[f"{SPACE}.ClusterResourceState"] = RESOURCE_STATES
ENUMS[f"{SPACE}.ClusterGroupState"] = GROUP_STATES
ENUMS[f"{SPACE}.GroupType"] = {"Cluster": 1, "AvailableStorage": 2, "VirtualMachine": 111}


def _enum(name: str, member: str) -> EnumValue:
    full = f"{SPACE}.{name}"
    return EnumValue(full, member, ENUMS[full][member])


class Group(Net):
    """A ClusterGroup: what it shows is how it was when it was read."""

    def __init__(self, host: Host, name: str, kind: str, of: Machine | Away | None) -> None:
        self.id, self.machine = (of.id if of else None), (of if isinstance(of, Machine) else None)
        state = self.machine.role if self.machine else "Online"
        node = of.node if isinstance(of, Away) else host.name
        about: dict[str, Any] = {
            "Name": name,
            "State": _enum("ClusterGroupState", state),
            "GroupType": _enum("GroupType", kind),
            "Cluster": Net(f"{SPACE}.Cluster", {"Name": host.cluster}, host.cluster),
            "OwnerNode": Net(f"{SPACE}.ClusterNode", {"Name": node}, node),
        }
        super().__init__(f"{SPACE}.ClusterGroup", about, name)


class Resource(Net):
    """A ClusterResource of a VM's, as it was when it was read."""

    def __init__(self, kind: str, machine: Machine) -> None:
        self.kind, self.machine = kind, machine
        name = f"{kind} {machine.name}"
        state = machine.group if kind == VM else machine.configuration
        about = {
            "Name": name,
            "State": _enum("ClusterResourceState", state),
            "ResourceType": Net(f"{SPACE}.ClusterResourceType", {"Name": kind}, kind),
            "OwnerGroup": machine.name,
        }
        super().__init__(f"{SPACE}.ClusterResource", about, name)


def _failed(command: str, error_id: str, message: str, category: str) -> ErrorRecord:
    exception = NetException(f"{SPACE}.ClusterCmdletException", message)
    return ErrorRecord(exception, f"{error_id},{SPACE}.{command}", category)


def _groups(host: Host) -> list[Group]:
    mine = [Group(host, each.name, "VirtualMachine", each) for each in host.machines if each.group]
    others = [Group(host, each.name, "VirtualMachine", each) for each in host.elsewhere]
    return [Group(host, "Cluster Group", "Cluster", None), *mine, *others]


def _in_cluster(call: Call, command: str) -> Host:
    host: Host = call.engine.machine
    host.tick()
    if not host.cluster:
        words = "The cluster service is not running. Make sure that the service is running on all nodes."
        raise call.refuse(_failed(command, "ClusterEndpointNotRegistered", words, "ConnectionError"))
    return host


def _missing(command: str, identity: UUID) -> ErrorRecord:
    words = f"Failed to retrieve the cluster object of virtual machine '{identity}'."
    return _failed(command, "ClusterObjectNotFound", words, "ObjectNotFound")


@cmdlet("Get-ClusterGroup [[-Name] <string[]>] [-VMId <guid>]", module="FailoverClusters")
def _get(call: Call) -> None:
    found = _groups(_in_cluster(call, "GetGroupCommand"))
    if call["VMId"] is not None:
        found = [each for each in found if each.id == call["VMId"]]
        if not found:
            raise call.refuse(_missing("GetGroupCommand", call["VMId"]))
    call.out += found


@cmdlet(
    "Get-ClusterResource [[-Name] <string[]>] [-VMId <guid>] [-InputObject <ClusterGroup|>]",
    module="FailoverClusters",
)
def _get_resource(call: Call) -> None:
    host = _in_cluster(call, "GetResourceCommand")
    group, identity = call["InputObject"], call["VMId"]
    if identity is not None:
        found = [each for each in host.machines if each.group and each.id == identity]
        if not found:
            raise call.refuse(_missing("GetResourceCommand", identity))
        call.out += [Resource(VM, each) for each in found]
    elif group is not None and group.machine is not None:
        call.out += [Resource(kind, group.machine) for kind in (VM, CONFIGURATION)]


@cmdlet("Start-ClusterGroup [-InputObject <ClusterGroup|>] [-Wait <int>]", module="FailoverClusters")
def _start(call: Call) -> None:
    """With -Wait 0 it comes back at once, and what then fails is told by the group's state alone."""
    host: Host = call.engine.machine
    machine = call["InputObject"].machine
    host.tick()
    try:
        start(host, machine)
        machine.group = machine.configuration = "Online"
    except Refused:
        machine.group = "Failed"
        if call["Wait"] != 0:
            words = f"An error occurred bringing the cluster group '{machine.name}' online."
            raise call.refuse(
                _failed("StartGroupCommand", "Start-ClusterGroup", words, "NotSpecified")
            ) from None
    host.log.append(f"{call.cmdlet.name} {machine.name}")
    call.out.append(Group(host, machine.name, "VirtualMachine", machine))


def _offline(call: Call, machine: Machine) -> Host:
    """Of a VM that runs, the state is saved first: that is the resource's offline action."""
    host: Host = call.engine.machine
    host.tick()
    if machine.state == "Running":
        machine.state = "Saved"
        host.wrongs.append(f"{call.cmdlet.name} of {machine.name} while it ran: its state was saved")
    host.turned_off.pop(machine.id, None)
    machine.group = "Offline"
    host.log.append(f"{call.cmdlet.name} {machine.name}")
    return host


@cmdlet("Stop-ClusterResource [-InputObject <ClusterResource|>] [-Wait <int>]", module="FailoverClusters")
def _stop_resource(call: Call) -> None:
    resource = call["InputObject"]
    _offline(call, resource.machine)
    if resource.kind == CONFIGURATION:
        resource.machine.configuration = "Offline"
    call.out.append(Resource(resource.kind, resource.machine))


@cmdlet("Stop-ClusterGroup [-InputObject <ClusterGroup|>] [-Wait <int>]", module="FailoverClusters")
def _stop(call: Call) -> None:
    machine = call["InputObject"].machine
    host = _offline(call, machine)
    machine.configuration = "Offline"
    call.out.append(Group(host, machine.name, "VirtualMachine", machine))
