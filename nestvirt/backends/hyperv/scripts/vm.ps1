# What is judged about one VM and its host. Comes before find, read, apply and power; changes nothing.
# Those import Hyper-V first: VMware's PowerCLI has a Get-VM, too, and PowerShell would take the first it finds.
# What a host of some age does not have reads $null (Select-Object), and what this user may not read does too.
function Get-HostFacts {
    $build = Get-ItemProperty -LiteralPath 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
    $cpu = Get-ItemProperty -LiteralPath 'HKLM:\HARDWARE\DESCRIPTION\System\CentralProcessor\0'
    $hypervisor = $null
    $vbs = $null
    $version = $null
    try { $hypervisor = [bool](Get-CimInstance -ClassName Win32_ComputerSystem).HypervisorPresent } catch { }
    try { $vbs = [int64](Get-CimInstance -Namespace 'root\Microsoft\Windows\DeviceGuard' -ClassName Win32_DeviceGuard).VirtualizationBasedSecurityStatus } catch { }
    try { $version = [string](Get-VMHostSupportedVersion -Default).Version } catch { }
    @{
        name = [string]$env:COMPUTERNAME
        build = [string]$build.CurrentBuildNumber
        cpu_vendor = [string]$cpu.VendorIdentifier
        hypervisor = $hypervisor
        vbs = $vbs
        version = $version
    }
}

function Get-GroupFacts($vm) {
    if (-not $vm.IsClustered) { return $null }
    try {
        $group = Get-ClusterGroup -VMId $vm.Id
        return @{ cluster = [string]$group.Cluster.Name; name = [string]$group.Name; state = [string]$group.State }
    } catch {
        return @{ cluster = ''; name = ''; state = [string]$_.FullyQualifiedErrorId }
    }
}

# What the guest says of itself, as key-value exchange tells it: XML, which is the caller's to read.
function Get-Exchange($vm) {
    if ([string]$vm.State -ne 'Running') { return }
    try {
        $component = @(Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName Msvm_KvpExchangeComponent | Where-Object { $_.SystemName -eq [string]$vm.Id })
        $component | ForEach-Object { $_.GuestIntrinsicExchangeItems } | Select-Object -First 40
    } catch { }
}

function ConvertTo-Word($value) {
    if ($null -eq $value) { return $null }
    ([string]$value).ToLowerInvariant()
}

# An adapter's id is Microsoft:<VM>\<adapter>.
function Get-AdapterId($adapter) { ([string]$adapter.Id).Split('\')[-1] }

# Each setting that nestvirt can write, as text: what a plan, the journal and the check before a write compare.
function Get-Setting($vm, $version, $processor, $memory, $optOut, $adapters) {
    $dynamic = 'false, startup={0}' -f $memory.Startup
    if ($memory.DynamicMemoryEnabled) {
        $dynamic = 'true, minimum={0}, startup={1}, maximum={2}' -f $memory.Minimum, $memory.Startup, $memory.Maximum
    }
    $saved = $null
    if (([string]$vm.State).Replace('Critical', '').Replace('Fast', '') -eq 'Saved') { $saved = 'saved' }
    $settings = @{
        SavedState = $saved
        Version = ConvertTo-Word $version
        DynamicMemoryEnabled = $dynamic
        VirtualizationBasedSecurityOptOut = ConvertTo-Word $optOut
        ExposeVirtualizationExtensions = ConvertTo-Word $processor.ExposeVirtualizationExtensions
    }
    foreach ($adapter in $adapters) {
        $settings['MacAddressSpoofing:' + (Get-AdapterId $adapter)] = [string]$adapter.MacAddressSpoofing
    }
    $settings
}

function Get-Facts($id) {
    $vm = Get-VM -Id ([guid]$id)
    $version = ($vm | Select-Object -Property Version).Version
    $processor = Get-VMProcessor -VM $vm | Select-Object -Property ExposeVirtualizationExtensions
    $memory = Get-VMMemory -VM $vm
    $optOut = $null
    try { $optOut = (Get-VMSecurity -VM $vm | Select-Object -Property VirtualizationBasedSecurityOptOut).VirtualizationBasedSecurityOptOut } catch { }
    $adapters = @(Get-VMNetworkAdapter -VM $vm)
    $services = @(Get-VMIntegrationService -VM $vm)
    $checkpoints = @(Get-VMSnapshot -VM $vm | Select-Object -Property 'Name', 'State', 'IsAutomaticCheckpoint')
    @{
        host = Get-HostFacts
        id = [string]$vm.Id
        name = [string]$vm.Name
        state = [string]$vm.State
        version = [string]$version
        generation = [int64]$vm.Generation
        replication = [string]$vm.ReplicationMode
        group = Get-GroupFacts $vm
        memory = [int64]$memory.Startup
        assigned = [int64]$vm.MemoryAssigned
        demand = [int64]$vm.MemoryDemand
        stop_action = [string]$vm.AutomaticStopAction
        adapters = @($adapters | ForEach-Object { @{ id = Get-AdapterId $_; name = [string]$_.Name; spoofing = [string]$_.MacAddressSpoofing } })
        services = @($services | ForEach-Object { @{ id = ([string]$_.Id).Split('\')[-1]; enabled = [bool]$_.Enabled; status = [string]$_.PrimaryOperationalStatus } })
        checkpoints = @($checkpoints | ForEach-Object { @{ name = [string]$_.Name; saved = ([string]$_.State -eq 'Saved'); automatic = [bool]$_.IsAutomaticCheckpoint } })
        heartbeat = [string]$vm.Heartbeat
        kvp = @(Get-Exchange $vm)
        settings = Get-Setting $vm $version $processor $memory $optOut $adapters
    }
}
