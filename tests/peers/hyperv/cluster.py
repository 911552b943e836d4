"""Failover clustering, as far as it keeps VMs: one group each."""

from __future__ import annotations

from typing import Any

from tests.peers.hyperv.model import Host, Machine, Refused
from tests.peers.hyperv.power import start
from tests.peers.pwsh.cmdlet import Call, cmdlet
from tests.peers.pwsh.convert import ENUMS
from tests.peers.pwsh.values import EnumValue, ErrorRecord, Net, NetException

SPACE = "Microsoft.FailoverClusters.PowerShell"
GROUP_STATES = {"Unknown": -1, "Online": 0, "Offline": 1, "Failed": 2, "PartialOnline": 3, "Pending": 4}
ENUMS[f"{SPACE}.ClusterGroupState"] = GROUP_STATES
ENUMS[f"{SPACE}.GroupType"] = {"Cluster": 1, "AvailableStorage": 2, "VirtualMachine": 111}


def _enum(name: str, member: str) -> EnumValue:
    full = f"{SPACE}.{name}"
    return EnumValue(full, member, ENUMS[full][member])


class Group(Net):
    """A ClusterGroup: what it shows is how it was when it was read."""

    def __init__(
        self, host: Host, name: str, kind: str, state: str, node: str, machine: Machine | None
    ) -> None:
        self.machine = machine
        about: dict[str, Any] = {
            "Name": name,
            "State": _enum("ClusterGroupState", state),
            "GroupType": _enum("GroupType", kind),
            "Cluster": Net(f"{SPACE}.Cluster", {"Name": host.cluster}, host.cluster),
            "OwnerNode": Net(f"{SPACE}.ClusterNode", {"Name": node}, node),
        }
        super().__init__(f"{SPACE}.ClusterGroup", about, name)


def _failed(command: str, error_id: str, message: str, category: str) -> ErrorRecord:
    exception = NetException(f"{SPACE}.ClusterCmdletException", message)
    return ErrorRecord(exception, f"{error_id},{SPACE}.{command}", category)


def _groups(host: Host) -> list[Group]:
    mine = [
        Group(host, machine.name, "VirtualMachine", machine.group, host.name, machine)
        for machine in host.machines
        if machine.group
    ]
    others = [Group(host, name, "VirtualMachine", "Online", node, None) for name, node in host.elsewhere]
    return [Group(host, "Cluster Group", "Cluster", "Online", host.name, None), *mine, *others]


@cmdlet("Get-ClusterGroup [[-Name] <string[]>] [-VMId <guid>]", module="FailoverClusters")
def _get(call: Call) -> None:
    host: Host = call.engine.machine
    host.tick()
    if not host.cluster:
        words = "The cluster service is not running. Make sure that the service is running on all nodes."
        raise call.refuse(
            _failed("GetGroupCommand", "ClusterEndpointNotRegistered", words, "ConnectionError")
        )
    found = _groups(host)
    if call["VMId"] is not None:
        found = [each for each in found if each.machine is not None and each.machine.id == call["VMId"]]
        if not found:
            words = f"Failed to retrieve the cluster group of virtual machine '{call['VMId']}'."
            raise call.refuse(_failed("GetGroupCommand", "ClusterObjectNotFound", words, "ObjectNotFound"))
    call.out += found


@cmdlet("Start-ClusterGroup [-InputObject <ClusterGroup|>] [-Wait <int>]", module="FailoverClusters")
def _start(call: Call) -> None:
    """With -Wait 0 it comes back at once, and what then fails is told by the group's state alone."""
    host: Host = call.engine.machine
    machine = call["InputObject"].machine
    host.tick()
    try:
        start(host, machine)
        machine.group = "Online"
    except Refused:
        machine.group = "Failed"
        if call["Wait"] != 0:
            words = f"An error occurred bringing the cluster group '{machine.name}' online."
            raise call.refuse(
                _failed("StartGroupCommand", "Start-ClusterGroup", words, "NotSpecified")
            ) from None
    host.log.append(f"{call.cmdlet.name} {machine.name}")
    call.out.append(Group(host, machine.name, "VirtualMachine", machine.group, host.name, machine))


@cmdlet("Stop-ClusterGroup [-InputObject <ClusterGroup|>] [-Wait <int>]", module="FailoverClusters")
def _stop(call: Call) -> None:
    """Of a VM that runs, the state is saved first: that is the cluster's offline action."""
    host: Host = call.engine.machine
    machine = call["InputObject"].machine
    host.tick()
    if machine.state == "Running":
        machine.state = "Saved"
        host.wrongs.append(f"Stop-ClusterGroup of {machine.name} while it ran: its state was saved")
    host.turned_off.pop(machine.id, None)
    machine.group = "Offline"
    host.log.append(f"{call.cmdlet.name} {machine.name}")
    call.out.append(Group(host, machine.name, "VirtualMachine", machine.group, host.name, machine))
