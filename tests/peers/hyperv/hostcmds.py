"""What a host's registry says to anybody."""

from __future__ import annotations

from tests.peers.hyperv.model import Host
from tests.peers.pwsh.cmdlet import Call, cmdlet
from tests.peers.pwsh.raising import failure
from tests.peers.pwsh.values import PsObject

VERSION = r"hklm:\software\microsoft\windows nt\currentversion"
CLUSTER = r"hklm:\cluster"
PROCESSOR = r"hklm:\hardware\description\system\centralprocessor\0"


@cmdlet("Get-ItemProperty -LiteralPath <string[]> [[-Name] <string[]>]")
def _item_property(call: Call) -> None:
    host: Host = call.engine.machine
    for path in call["LiteralPath"]:
        known: dict[str, str] | None = {
            **({CLUSTER: {"ClusterName": host.cluster}} if host.cluster else {}),
            VERSION: {"CurrentBuildNumber": str(host.build), "ProductName": "Windows Server"},
            PROCESSOR: {"VendorIdentifier": host.vendor, "ProcessorNameString": "CPU"},
        }.get(path.lower())
        if known is None:
            message = f"Cannot find path '{path}' because it does not exist."
            full = "System.Management.Automation.ItemNotFoundException"
            raise failure(
                "PathNotFound,Microsoft.PowerShell.Commands.GetItemPropertyCommand",
                message,
                "ObjectNotFound",
                full,
            )
        call.out.append(PsObject(dict(known)))
