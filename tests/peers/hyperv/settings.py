"""The cmdlets that write a VM's settings."""

from __future__ import annotations

from tests.peers.hyperv.model import FIRST_BUILD, WITH_VERSIONS, Host, Machine, Refused, version_of
from tests.peers.hyperv.words import each_of, hyperv
from tests.peers.pwsh.cmdlet import BINDING, Call
from tests.peers.pwsh.raising import failure

PROCESSOR = "[-ExposeVirtualizationExtensions <bool>] [-Count <long>] [-Passthru]"
ADAPTER = "[-MacAddressSpoofing <OnOffState>] [-Passthru]"


@hyperv(
    f"Set-VMProcessor [-VMName] <string[]> {PROCESSOR}",
    f"Set-VMProcessor [-VM] <VirtualMachine[]|> {PROCESSOR}",
)
def _set_processor(call: Call, host: Host) -> None:
    expose = call["ExposeVirtualizationExtensions"]
    if expose is not None and host.build < FIRST_BUILD:
        words = "A parameter cannot be found that matches parameter name 'ExposeVirtualizationExtensions'."
        error_id = "NamedParameterNotFound,Microsoft.HyperV.PowerShell.Commands.SetVMProcessor"
        raise failure(error_id, words, "InvalidArgument", BINDING)
    if expose is not None:
        each_of(call, host, lambda machine: host.set_expose(machine, expose))


@hyperv(
    "Set-VMSecurity [-VMName] <string[]> [-VirtualizationBasedSecurityOptOut <bool>] [-Passthru]",
    "Set-VMSecurity [-VM] <VirtualMachine[]|> [-VirtualizationBasedSecurityOptOut <bool>] [-Passthru]",
    since=WITH_VERSIONS,
)
def _set_security(call: Call, host: Host) -> None:
    def change(machine: Machine) -> None:
        host.must_be_off(machine, "security settings")
        machine.opt_out = call["VirtualizationBasedSecurityOptOut"]

    each_of(call, host, change)


@hyperv(
    f"Set-VMNetworkAdapter [-VMName] <string[]> [-Name <string>] {ADAPTER}",
    f"Set-VMNetworkAdapter [-VMNetworkAdapter] <VMNetworkAdapter[]|> {ADAPTER}",
    f"Set-VMNetworkAdapter [-VM] <VirtualMachine[]|> [-Name <string>] {ADAPTER}",
)
def _set_adapter(call: Call, host: Host) -> None:
    if call["VMNetworkAdapter"] is None:
        host.wrongs.append("Set-VMNetworkAdapter without the one adapter: it writes all of a VM's adapters")
        return
    for shown in call["VMNetworkAdapter"]:
        identity = shown.properties["Id"].rpartition("\\")[2]
        adapter = next((each for each in shown.machine.adapters if each.id == identity), None)
        if adapter is None:
            raise Refused("ObjectNotFound", "The network adapter is no longer there.")
        adapter.spoofing = call["MacAddressSpoofing"].name == "On"
        host.log.append(f"{call.cmdlet.name} {shown.machine.name}")


@hyperv(
    "Update-VMVersion [-Name] <string[]> [-Force] [-Passthru]",
    "Update-VMVersion [-VM] <VirtualMachine[]|> [-Force] [-Passthru]",
    since=WITH_VERSIONS,
)
def _update_version(call: Call, host: Host) -> None:
    def change(machine: Machine) -> None:
        if machine.state not in ("Off", "Saved", "FastSaved"):
            host.must_be_off(machine, "configuration version")
        for each in machine.checkpoints:
            each.state = "Off"  # what they had of the guest's memory is lost
        machine.state = "Off"  # and what the VM itself had saved
        if not machine.upgradable or version_of(machine.version) >= version_of(host.version):
            call.warn(f"The virtual machine '{machine.name}' is at the latest version supported here.")
            return
        machine.version = host.version

    if call.asks and not call["Force"]:
        words = (
            "Windows PowerShell is in NonInteractive mode. Read and Prompt functionality is not available."
        )
        raise failure("InvalidOperation,Microsoft.HyperV.PowerShell.Commands.UpdateVMVersion", words)
    each_of(call, host, change)


@hyperv("Remove-VMSavedState [-VMName] <string[]>", "Remove-VMSavedState [-VM] <VirtualMachine[]|>")
def _discard(call: Call, host: Host) -> None:
    def change(machine: Machine) -> None:
        if machine.state not in ("Saved", "FastSaved", "SavedCritical"):
            words = f"The operation cannot be performed while '{machine.name}' is in its current state."
            raise Refused("InvalidState", words)
        machine.state = "OffCritical" if machine.state == "SavedCritical" else "Off"

    each_of(call, host, change)
