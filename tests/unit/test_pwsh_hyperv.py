"""The played Hyper-V keeps the product's rules, by which the backend's tests stand."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.peers.hyperv import REGISTERED, Checkpoint, Guest, Host, Machine
from tests.peers.hyperv.model import GIB, KVP, SHUTDOWN, Away
from tests.peers.pwsh import Engine
from tests.peers.pwsh.cmdlet import CMDLETS
from tests.peers.pwsh.program import REGISTERED as LANGUAGE
from tests.peers.pwsh.raising import Raised

assert REGISTERED
assert LANGUAGE


@pytest.fixture
def host() -> Host:
    """A host with three VMs, one of which is called *."""
    return Host(machines=[Machine("web"), Machine("*"), Machine("WEB")])


def run(host: Host, source: str, action: str = "Stop") -> list[Any]:
    engine = Engine(CMDLETS, host)
    engine.globals.here["ErrorActionPreference"] = action
    engine.globals.here["id"] = str(host.machines[0].id)
    return engine.run(f"$vm = Get-VM -Id $id; {source}" if "$vm" in source else source)


def refused(host: Host, source: str) -> tuple[str, str]:
    """The id and the category of the error by which it ends."""
    with pytest.raises(Raised) as caught:
        run(host, source)
    record = caught.value.record
    return record.id, str(record.properties["CategoryInfo"].properties["Category"])


def expose(host: Host, on: bool = True) -> None:
    run(host, f"Set-VMProcessor -VM $vm -ExposeVirtualizationExtensions ${str(on).lower()}")


def test_a_name_is_a_pattern(host: Host) -> None:
    assert run(host, "@(Get-VM -Name '*').Count") == [3]
    assert run(host, "@(Get-VM -Name 'web').Count") == [2]
    assert run(host, "(Get-VM | Where-Object { $_.Name -eq '*' }).Name") == ["*"]
    run(host, "Set-VMProcessor -VMName '*' -ExposeVirtualizationExtensions $true")
    assert [machine.expose for machine in host.machines] == [True, True, True]


def test_what_is_not_there(host: Host) -> None:
    missing = "InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVM", "InvalidArgument"
    assert refused(host, "Get-VM -Name 'none'") == missing
    assert refused(host, "Get-VM -Id ([guid]'11111111-2222-3333-4444-555555555555')") == missing
    assert run(host, "Get-VM -Name 'n*'") == []
    assert run(host, "Get-VM -Name 'none' -ErrorAction SilentlyContinue; 'went on'") == ["went on"]


def test_an_object_shows_what_is_now(host: Host) -> None:
    assert run(host, "[string]$vm.State; Start-VM -VM $vm; [string]$vm.State") == ["Off", "Running"]


@pytest.mark.parametrize("state", ["Running", "Saved", "Paused"])
@pytest.mark.parametrize(
    "change",
    [
        "Set-VMProcessor -VM $vm -ExposeVirtualizationExtensions $true",
        "Set-VMMemory -VM $vm -DynamicMemoryEnabled $false",
        "Set-VMSecurity -VM $vm -VirtualizationBasedSecurityOptOut $true",
    ],
)
def test_nothing_is_written_unless_it_is_off(host: Host, state: str, change: str) -> None:
    host.machines[0].state = state
    before = host.machines[0].stored()
    error, category = refused(host, change)
    assert error.startswith("InvalidState,")
    assert category == "InvalidOperation"
    assert host.machines[0].stored() == before


def test_mac_address_spoofing_is_written_any_time_and_to_one_adapter(host: Host) -> None:
    machine = host.machines[0]
    machine.state = "Running"
    run(host, "Set-VMNetworkAdapter -VMNetworkAdapter (Get-VMNetworkAdapter -VM $vm) -MacAddressSpoofing On")
    assert [adapter.spoofing for adapter in machine.adapters] == [True]
    assert host.wrongs == []
    run(host, "Set-VMNetworkAdapter -VM $vm -MacAddressSpoofing Off")
    assert host.wrongs != []


def test_dynamic_memory_forgets_its_sizes(host: Host) -> None:
    machine = host.machines[0]
    machine.dynamic, machine.minimum, machine.maximum = True, GIB, 8 * GIB
    run(host, "Set-VMMemory -VM $vm -DynamicMemoryEnabled $false")
    assert (machine.dynamic, machine.startup) == (False, 4 * GIB)
    assert (machine.minimum, machine.maximum) != (GIB, 8 * GIB)
    again = "Set-VMMemory -VM $vm -DynamicMemoryEnabled $true -MinimumBytes {} -MaximumBytes 8GB"
    assert refused(host, again.format("5GB"))[0].startswith("InvalidParameter,")
    run(host, again.format("1GB"))
    assert (machine.dynamic, machine.minimum, machine.maximum) == (True, GIB, 8 * GIB)


def test_a_text_is_no_boolean_for_a_parameter(host: Host) -> None:
    for value in ("'true'", "$null", "'False'"):
        error, _category = refused(host, f"Set-VMProcessor -VM $vm -ExposeVirtualizationExtensions {value}")
        assert error == "CannotConvertArgument,Set-VMProcessor"
    assert host.machines[0].expose is False


def test_early_builds(host: Host) -> None:
    host.vendor = "GenuineIntel"
    host.build = 10240
    assert run(
        host,
        "(Get-VMProcessor -VM $vm | Select-Object -Property ExposeVirtualizationExtensions)."
        "ExposeVirtualizationExtensions",
    ) == [None]
    with pytest.raises(Raised, match="NamedParameterNotFound"):
        expose(host)
    host.build = 14361
    with pytest.raises(Raised, match="NotSupported") as caught:
        expose(host)
    assert len(caught.value.record.exception.message.splitlines()) == 4
    run(host, "Set-VMSecurity -VM $vm -VirtualizationBasedSecurityOptOut $true")
    expose(host)
    assert host.machines[0].expose


def test_windows_server_2012_r2_has_less(host: Host) -> None:
    host.build = 9600
    assert run(host, "($vm | Select-Object -Property Version).Version") == [None]
    for cmdlet in ("Get-VMSecurity -VM $vm", "Update-VMVersion -VM $vm -Force", "Get-VMHostSupportedVersion"):
        assert refused(host, cmdlet)[0] == "CommandNotFoundException"
    guard = "Get-CimInstance -Namespace root/Microsoft/Windows/DeviceGuard -ClassName Win32_DeviceGuard"
    assert refused(host, guard)[1] == "MetadataError"


@pytest.mark.parametrize(
    ("vendor", "build", "version", "starts"),
    [
        ("AuthenticAMD", 20348, "10.0", True),
        ("AuthenticAMD", 20348, "9.3", True),
        ("AuthenticAMD", 20348, "9.0", False),
        ("AuthenticAMD", 17763, "9.0", False),
        ("GenuineIntel", 17763, "9.0", True),
        ("GenuineIntel", 14393, "8.0", True),
    ],
)
def test_a_vm_that_its_platform_cannot_nest_does_not_start(
    host: Host, vendor: str, build: int, version: str, starts: bool
) -> None:
    host.vendor, host.build, host.machines[0].version = vendor, build, version
    expose(host)
    if starts:
        run(host, "Start-VM -VM $vm")
    else:
        error = "OperationFailed,Microsoft.HyperV.PowerShell.Commands.StartVM"
        assert refused(host, "Start-VM -VM $vm") == (error, "NotSpecified")
    assert host.machines[0].received is starts


def test_an_old_version_takes_no_nesting_until_it_is_updated(host: Host) -> None:
    machine = host.machines[0]
    machine.version = "5.0"
    with pytest.raises(Raised, match="NotSupported"):
        expose(host)
    error, _category = refused(host, "Update-VMVersion -VM $vm")
    assert "NonInteractive" in error or error.startswith("InvalidOperation")
    run(host, "Update-VMVersion -VM $vm -Force -Confirm:$false")
    assert machine.version == host.version
    expose(host)


def test_raising_a_version_loses_every_saved_state(host: Host) -> None:
    machine = host.machines[0]
    machine.version, machine.state = "9.0", "Saved"
    machine.checkpoints = [Checkpoint("while it ran"), Checkpoint("off", "Off")]
    assert run(host, "Get-VMSnapshot -VM $vm | ForEach-Object { [string]$_.State }") == ["Saved", "Off"]
    run(host, "$ConfirmPreference = 'None'; Update-VMVersion -VM $vm")  # nobody is asked
    assert (machine.version, machine.state) == (host.version, "Off")
    assert [each.state for each in machine.checkpoints] == ["Off", "Off"]
    machine.state = "Running"
    assert refused(host, "Update-VMVersion -VM $vm -Force")[0].startswith("InvalidState,")


def test_version_that_cannot_be_raised_is_a_warning(host: Host) -> None:
    [words] = run(host, "Update-VMVersion -VM $vm -Force -WarningVariable warned; $warned")
    assert "latest version" in words


def test_dynamic_memory_takes_nesting_away_without_a_word(host: Host) -> None:
    machine = host.machines[0]
    machine.dynamic = True
    expose(host)
    run(host, "Start-VM -VM $vm")
    assert (machine.state, machine.expose, machine.received) == ("Running", False, False)


def test_or_keeps_it_from_starting(host: Host) -> None:
    machine = host.machines[0]
    machine.dynamic, machine.rolls_back = True, False
    expose(host)
    assert refused(host, "Start-VM -VM $vm")[0].startswith("OperationFailed,")
    assert (machine.state, machine.expose) == ("Off", True)


def test_a_saved_state_is_resumed_or_discarded(host: Host) -> None:
    machine = host.machines[0]
    machine.state = "Saved"
    run(host, "Start-VM -VM $vm")
    assert (machine.state, machine.boots) == ("Running", 0)
    assert refused(host, "Remove-VMSavedState -VM $vm")[0].startswith("InvalidState,")
    machine.state = "Saved"
    run(host, "Remove-VMSavedState -VM $vm")
    assert machine.state == "Off"


SHUT_DOWN = """
$component = Get-CimInstance -Namespace 'root\\virtualization\\v2' -ClassName Msvm_ShutdownComponent |
    Where-Object { $_.SystemName -eq $vm.Id }
$arguments = @{ Force = $false; Reason = 'x' }
(Invoke-CimMethod -InputObject $component -MethodName InitiateShutdown -Arguments $arguments).ReturnValue
"""


def test_a_guest_shuts_down_in_its_own_time_or_not_at_all(host: Host) -> None:
    quick, slow, deaf = host.machines
    slow.guest.slow, deaf.guest.deaf = 3600.0, True
    for machine in (quick, slow, deaf):
        host.boot(machine)
        engine = Engine(CMDLETS, host)
        engine.globals.here["id"] = str(machine.id)
        assert engine.run(f"$vm = Get-VM -Id $id; {SHUT_DOWN}") == [0]
    assert [machine.state for machine in host.machines] == ["Off", "Running", "Running"]
    slow.ends = time.monotonic()
    host.tick()
    assert [machine.state for machine in host.machines] == ["Off", "Off", "Running"]


def test_nobody_hears_the_order_without_the_service(host: Host) -> None:
    machine = host.machines[0]
    component = (
        "@(Get-CimInstance -Namespace 'root/virtualization/v2' -ClassName Msvm_ShutdownComponent).Count"
    )
    assert run(host, component) == [0]
    host.boot(machine)
    assert run(host, component) == [1]
    machine.services[SHUTDOWN] = False
    assert run(host, component) == [0]
    machine.services[SHUTDOWN], machine.guest.listens = True, False
    assert run(host, component) == [0]


def test_a_guest_says_its_name_by_key_value_exchange(host: Host) -> None:
    machine = host.machines[0]
    machine.guest = Guest("linux", "Debian & <others>")
    host.boot(machine)
    classed = "-Namespace 'root/virtualization/v2' -ClassName Msvm_KvpExchangeComponent"
    items = f"(Get-CimInstance {classed}).GuestIntrinsicExchangeItems"
    assert "<VALUE>Debian &amp; &lt;others&gt;</VALUE>" in "".join(run(host, items))
    machine.services[KVP] = False
    assert run(host, items) == []


def test_who_is_no_administrator_of_hyper_v_is_refused(host: Host) -> None:
    host.denied = True
    assert refused(host, "Get-VM") == (
        "AccessDenied,Microsoft.HyperV.PowerShell.Commands.GetVM",
        "PermissionDenied",
    )
    assert (
        run(host, "@(Get-CimInstance -Namespace root/virtualization/v2 -ClassName Msvm_ShutdownComponent)")
        == []
    )


def test_without_the_role_there_is_no_cmdlet(host: Host) -> None:
    host.modules.remove("Hyper-V")
    assert refused(host, "Get-VM") == ("CommandNotFoundException", "ObjectNotFound")
    wrong = refused(host, "Get-CimInstance -Namespace root/virtualization/v2 -ClassName Msvm_ComputerSystem")
    assert (
        wrong[0] == "HRESULT 0x8004100e,Microsoft.Management.Infrastructure.CimCmdlets.GetCimInstanceCommand"
    )


def test_without_its_service_nothing_is_found(host: Host) -> None:
    host.service = False
    assert refused(host, "Get-VM")[0].startswith("ObjectNotFound,")


def test_outside_of_a_cluster_there_are_no_groups(host: Host) -> None:
    assert refused(host, "Get-ClusterGroup")[1] == "ConnectionError"
    host.modules.remove("FailoverClusters")
    assert refused(host, "Get-ClusterGroup")[0] == "CommandNotFoundException"


@pytest.fixture
def clustered(host: Host) -> Machine:
    host.cluster, machine = "CLUSTER1", host.machines[0]
    machine.group = "Offline"
    return machine


GROUP = "$vm | Out-Null; $group = Get-ClusterGroup -VMId $vm.Id; "


def test_a_cluster_starts_its_vms_itself(host: Host, clustered: Machine) -> None:
    run(host, GROUP + "Start-ClusterGroup -InputObject $group -Wait 0 | Out-Null")
    assert (clustered.state, clustered.group, host.wrongs) == ("Running", "Online", [])
    host.turn_off(clustered)
    run(host, "Start-VM -VM $vm")
    assert host.wrongs == ["Start-VM of web, behind its cluster's back"]


def test_a_cluster_saves_what_runs_before_it_stops_it(host: Host, clustered: Machine) -> None:
    host.boot(clustered)
    clustered.group = "Online"
    run(host, GROUP + "Stop-ClusterGroup -InputObject $group -Wait 30 | Out-Null")
    assert (clustered.state, clustered.role, len(host.wrongs)) == ("Saved", "Offline", 1)


RESOURCE = "Get-ClusterGroup -VMId $vm.Id | Get-ClusterResource | Where-Object { $_.Name -eq '%s' }"


def test_a_vm_whose_configuration_is_offline_is_none_that_hyper_v_shows(
    host: Host, clustered: Machine
) -> None:
    shown = "@(Get-VM | Where-Object { $_.IsClustered }).Count"
    run(host, RESOURCE % "Virtual Machine web" + " | Stop-ClusterResource -Wait 30 | Out-Null")
    assert (clustered.role, run(host, shown)) == ("PartialOnline", [1])
    run(host, RESOURCE % "Virtual Machine Configuration web" + " | Stop-ClusterResource | Out-Null")
    assert (clustered.role, run(host, shown)) == ("Offline", [0])
    run(host, f"$null = Start-ClusterGroup -InputObject (Get-ClusterGroup -VMId '{clustered.id}')")
    assert (clustered.role, run(host, shown)) == ("Online", [1])


def test_a_cluster_starts_again_what_was_turned_off(host: Host, clustered: Machine) -> None:
    host.restarts = 0.0
    host.boot(clustered)
    clustered.group = "Online"
    run(host, "Stop-VM -VM $vm -TurnOff -Force")
    host.tick()
    assert (clustered.state, clustered.boots) == ("Running", 2)
    host.restarts = 60.0
    run(host, "Stop-VM -VM $vm -TurnOff -Force")
    run(host, "$null = Get-ClusterResource -VMId $vm.Id | Stop-ClusterResource -Wait 30")
    assert (clustered.state, host.turned_off, host.wrongs) == ("Off", {}, [])


def test_a_cluster_that_is_not_waited_for_tells_of_no_failure(host: Host, clustered: Machine) -> None:
    clustered.broken = True
    shown = "[string](Start-ClusterGroup -InputObject $group -Wait {}).State"
    assert run(host, GROUP + shown.format(0)) == ["Failed"]
    assert refused(host, GROUP + shown.format(30))[0].startswith("Start-ClusterGroup,")


def test_a_vm_on_another_node_is_the_clusters_alone(host: Host, clustered: Machine) -> None:
    host.elsewhere = [Away("db", "HYPERV02")]
    assert run(
        host, "(Get-ClusterGroup | Where-Object { [string]$_.GroupType -eq 'VirtualMachine' }).Name"
    ) == ["web", "db"]
    assert run(host, "@(Get-VM | Where-Object { $_.Name -eq 'db' }).Count") == [0]


def test_whose_get_vm_it_is_where_vmwares_are_installed_too(host: Host) -> None:
    host.modules.add("VMware.VimAutomation.Core")
    run(host, "Import-Module -Name Hyper-V; $null = Get-VM")
    assert host.wrongs == []
    run(host, "$null = Get-VM")
    assert host.wrongs == ["Get-VM may be VMware's"]


def test_a_module_that_is_not_there_is_an_error(host: Host) -> None:
    host.modules.remove("Hyper-V")
    missing = "Modules_ModuleNotFound,Microsoft.PowerShell.Commands.ImportModuleCommand"
    assert refused(host, "Import-Module -Name Hyper-V") == (missing, "ResourceUnavailable")
