"""Get-CimInstance and Invoke-CimMethod, on a host and in a guest."""

from __future__ import annotations

import re
from typing import Any, Protocol
from xml.sax.saxutils import escape

from tests.peers.hyperv.model import KVP, SHUTDOWN, WITH_VERSIONS, Host, Machine
from tests.peers.pwsh.cmdlet import Call, cmdlet
from tests.peers.pwsh.operators import equal
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import ErrorRecord, Net, NetException

SPACE = "Microsoft.Management.Infrastructure"
VIRTUALIZATION = r"root\virtualization\v2"
GUARD = r"root\microsoft\windows\deviceguard"
COMMAND = f"{SPACE}.CimCmdlets.GetCimInstanceCommand"
WRONGS = {
    "namespace": ("HRESULT 0x8004100e", "MetadataError", "Invalid namespace", -2146233088),
    "class": ("HRESULT 0x80041010", "MetadataError", "Invalid class", -2146233088),
    "denied": ("HRESULT 0x80041003", "PermissionDenied", "Access denied", -2146233088),
}
ITEM = (
    '<INSTANCE CLASSNAME="Msvm_KvpExchangeDataItem"><PROPERTY NAME="Caption" TYPE="string"></PROPERTY>'
    '<PROPERTY NAME="Data" TYPE="string"><VALUE>{data}</VALUE></PROPERTY>'
    '<PROPERTY NAME="Name" TYPE="string"><VALUE>{name}</VALUE></PROPERTY>'
    '<PROPERTY NAME="Source" TYPE="uint16"><VALUE>2</VALUE></PROPERTY></INSTANCE>'
)
NOT_RUNNING, NOT_REACHED, LOCKED, UNDER_WAY = 32775, 2147943674, 32781, 32782
"""What InitiateShutdown says of a VM that is off; of a guest that is deaf, locked, or shuts down already."""


class Wrong(Exception):
    """A class cannot be read; which of WRONGS."""


class Instance(Net):
    """A CimInstance."""

    def __init__(self, name: str, about: dict[str, Any], machine: Machine | None = None) -> None:
        super().__init__(f"{SPACE}.CimInstance", about, name)
        self.name, self.machine = name, machine


class Instances(Protocol):
    """A machine that has WMI."""

    def instances(self, namespace: str, name: str) -> list[Instance]:
        """All of a class, both names in lower case."""


def on_host(host: Host, namespace: str, name: str) -> list[Instance]:
    """What a Hyper-V host has."""
    if (namespace, name) == (r"root\cimv2", "win32_computersystem"):
        return [Instance(name, {"Name": host.name, "HypervisorPresent": host.hypervisor})]
    if (namespace, name) == (r"root\cimv2", "win32_process"):
        others: list[str | None] = [None]  # another user's is not shown
        lines = host.processes + others
        return [Instance(name, {"Name": "powershell.exe", "CommandLine": line}) for line in lines]
    if namespace == GUARD:
        if host.build < WITH_VERSIONS:
            raise Wrong("namespace")
        if host.vbs is None:
            raise Wrong("denied")
        return [
            Instance(name, {"VirtualizationBasedSecurityStatus": host.vbs, "SecurityServicesRunning": [0]})
        ]
    if namespace != VIRTUALIZATION:
        raise NotKnown(f"the class {name} in {namespace}")
    if not host.has_module("Hyper-V"):
        raise Wrong("namespace")
    if host.denied:
        return []  # to whom it is not shown, it is not there
    component = {"msvm_shutdowncomponent": SHUTDOWN, "msvm_kvpexchangecomponent": KVP}.get(name)
    if component is None:
        raise NotKnown(f"the class {name} in {namespace}")
    return [_component(each, name, component) for each in host.registered if _has(each, component)]


def _has(machine: Machine, component: str) -> bool:
    """The order to shut down has an object only while somebody would hear it."""
    if component == SHUTDOWN:
        return machine.services.get(component, False) and machine.answers
    return machine.state == "Running"


def _component(machine: Machine, name: str, component: str) -> Instance:
    identity = str(machine.id).upper()
    about: dict[str, Any] = {"SystemName": identity, "DeviceID": f"Microsoft:{identity}\\{component}"}
    if component == KVP:
        about["GuestIntrinsicExchangeItems"] = exchanged(machine)
    return Instance(name, about, machine)


def exchanged(machine: Machine) -> list[str]:
    """What a guest tells of itself by key-value exchange, an XML text each."""
    guest = machine.guest
    if not (machine.answers and machine.services.get(KVP) and guest.name):
        return []
    pairs = {
        "OSName": guest.name,
        "FullyQualifiedDomainName": f"{machine.name}.lab.test",
        "OSVersion": "10.0",
    }
    if guest.system == "windows":
        pairs["OSPlatformId"] = "2"
    return [ITEM.format(name=escape(key), data=escape(value)) for key, value in pairs.items()]


@cmdlet("Get-CimInstance [-ClassName] <string> [-Namespace <string>] [-Filter <string>]")
def _get(call: Call) -> None:
    namespace = (call["Namespace"] or r"root\cimv2").lower().replace("/", "\\")
    name = call["ClassName"].lower()
    owner = call.engine.machine
    try:
        if isinstance(owner, Host):
            owner.tick()
            found = on_host(owner, namespace, name)
        else:
            found = owner.instances(namespace, name)
    except Wrong as wrong:
        error_id, category, words, number = WRONGS[str(wrong)]
        exception = NetException(f"{SPACE}.CimException", words, number)
        call.fail(ErrorRecord(exception, f"{error_id},{COMMAND}", category, call["ClassName"]))
        return
    call.out += [each for each in found if _passes(call["Filter"], each)]


def _passes(wanted: str | None, instance: Instance) -> bool:
    """WQL: only NAME = 'text', and several of them with OR."""
    if wanted is None:
        return True
    for part in re.split(r"\s+or\s+", wanted, flags=re.IGNORECASE):
        found = re.fullmatch(r"\s*(\w+)\s*=\s*'([^'\\]*)'\s*", part)
        if found is None:
            raise NotKnown(f"the filter {wanted}")
        if equal(instance.properties[found[1]], found[2]):
            return True
    return False


@cmdlet("Invoke-CimMethod [-InputObject] <CimInstance|> [-MethodName] <string> [[-Arguments] <hashtable>]")
def _invoke(call: Call) -> None:
    instance, method = call["InputObject"], call["MethodName"]
    given = call["Arguments"] or {}
    if (instance.name, method.lower()) != ("msvm_shutdowncomponent", "initiateshutdown"):
        raise NotKnown(f"the method {method} of {instance.name}")
    if set(map(str.lower, given)) != {"force", "reason"}:
        raise NotKnown(f"InitiateShutdown with {sorted(given)}")
    host, machine = call.engine.machine, instance.machine
    if given["Force"]:
        host.wrongs.append("InitiateShutdown by force: programs in the guest lose what they have not saved")
    if machine.state != "Running":
        answer = NOT_RUNNING
    elif not machine.answers:
        answer = NOT_REACHED
    elif machine.ends is not None:
        answer = UNDER_WAY
    elif machine.guest.locked and not given["Force"]:
        answer = LOCKED
    else:
        answer = 0
        host.shut_down(machine)
        host.log.append(f"InitiateShutdown {machine.name}")
        host.tick()
    call.out.append(Net(f"{SPACE}.CimMethodResult", {"ReturnValue": answer}))
