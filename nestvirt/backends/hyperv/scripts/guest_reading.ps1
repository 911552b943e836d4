# What Windows says of itself and of nested virtualization. It is run inside the guest, and changes nothing there.
# HyperVRequirement* of Get-ComputerInfo is read at its sources: that cmdlet leaves it out wherever a hypervisor is
# underneath, as one always is below a VM.
$nestvirtGuestReading = {
    $ErrorActionPreference = 'Stop'
    $ProgressPreference = 'SilentlyContinue'
    Set-StrictMode -Version 2.0
    $unread = @{}
    $said = @{ schema_version = 1 }

    $booted = $null
    try {
        $system = Get-CimInstance -ClassName Win32_OperatingSystem
        $booted = $system.LastBootUpTime
        $said.os = @{
            caption = [string]$system.Caption
            build = [string]$system.BuildNumber
            server = ([int64]$system.ProductType -ne 1)
            dep = [bool]$system.DataExecutionPrevention_Available
        }
    } catch { $unread.os = [string]$_.FullyQualifiedErrorId }

    $name = ''
    try {
        $computer = Get-CimInstance -ClassName Win32_ComputerSystem
        $name = [string]$computer.Name
        $said.machine = @{
            hypervisor_present = [bool]$computer.HypervisorPresent
            manufacturer = [string]$computer.Manufacturer
            model = [string]$computer.Model
        }
    } catch { $unread.machine = [string]$_.FullyQualifiedErrorId }

    try {
        $processors = @(Get-CimInstance -ClassName Win32_Processor)
        $said.processors = @(foreach ($processor in $processors) {
            @{
                manufacturer = [string]$processor.Manufacturer
                extensions = $processor.VMMonitorModeExtensions
                firmware = $processor.VirtualizationFirmwareEnabled
                slat = $processor.SecondLevelAddressTranslationExtensions
            }
        })
    } catch { $unread.processors = [string]$_.FullyQualifiedErrorId }

    try {
        $guard = @(Get-CimInstance -Namespace 'root\Microsoft\Windows\DeviceGuard' -ClassName Win32_DeviceGuard)
        $said.vbs = @{
            status = [int64]$guard[0].VirtualizationBasedSecurityStatus
            running = @(foreach ($service in $guard[0].SecurityServicesRunning) { [int64]$service })
        }
    } catch { $unread.vbs = [string]$_.FullyQualifiedErrorId }

    try {
        $features = @(Get-CimInstance -ClassName Win32_OptionalFeature -Filter "Name = 'Microsoft-Hyper-V' OR Name = 'VirtualMachinePlatform' OR Name = 'HypervisorPlatform' OR Name = 'Microsoft-Windows-Subsystem-Linux'")
        $said.features = @(foreach ($feature in $features) {
            if ([int64]$feature.InstallState -eq 1) { [string]$feature.Name }
        })
    } catch { $unread.features = [string]$_.FullyQualifiedErrorId }

    # Whether its own hypervisor has started: HypervisorPresent cannot tell it from the one underneath. A clock that
    # was set while it booted may have put these events before the boot.
    try {
        $since = $booted.AddMinutes(-1)
        $events = @(Get-WinEvent -FilterHashtable @{ LogName = 'System'; ProviderName = 'Microsoft-Windows-Hyper-V-Hypervisor'; StartTime = $since } -MaxEvents 64)
        $said.events = @(foreach ($entry in $events) { @{ id = [int64]$entry.Id; level = [int64]$entry.Level } })
    } catch {
        if ([string]$_.FullyQualifiedErrorId -like 'NoMatching*') { $said.events = @() }
        else { $unread.events = [string]$_.FullyQualifiedErrorId }
    }

    # The class is there where Hyper-V is installed. A VM's name is a GUID; the machine itself is listed beside them.
    try {
        $machines = @(Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName Msvm_ComputerSystem)
        $said.vms = @(foreach ($machine in $machines) {
            if (([string]$machine.Name -ne $name) -and ([int64]$machine.EnabledState -eq 2)) {
                @{
                    name = [string]$machine.ElementName
                    process = [int64]$machine.ProcessID
                    milliseconds = [int64]$machine.OnTimeInMilliseconds
                }
            }
        })
    } catch { $unread.vms = [string]$_.FullyQualifiedErrorId }

    # One worker process for each VM that runs, those of WSL 2, Windows Sandbox and isolated containers included.
    try {
        $said.workers = @(foreach ($process in @(Get-Process)) {
            if ($process.ProcessName -eq 'vmwp') { [int64]$process.Id }
        })
    } catch { $unread.workers = [string]$_.FullyQualifiedErrorId }

    $said.unread = $unread
    ConvertTo-Json -InputObject $said -Depth 4 -Compress
}
