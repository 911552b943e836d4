# Writes one setting of one VM, where it is still what the plan was made for, and reads everything anew.
# What Set-Setting gives is what the cmdlet warned of.
function Set-Setting($vm, $setting, $value, $adapter) {
    if ($setting -eq 'SavedState') {
        Remove-VMSavedState -VM $vm -Confirm:$false
    } elseif ($setting -eq 'Version') {
        # Of one that is saved, this would discard the state; one that cannot be raised is only warned of.
        if ([string](Get-VM -Id $vm.Id).State -ne 'Off') { throw 'InvalidState: raising the version of a VM that is not off would discard its saved state' }
        $warned = @()
        Update-VMVersion -VM $vm -Force -WarningVariable warned
        $warned
    } elseif ($setting -eq 'DynamicMemoryEnabled') {
        if ($value.enabled) {
            Set-VMMemory -VM $vm -DynamicMemoryEnabled $true -MinimumBytes $value.minimum -StartupBytes $value.startup -MaximumBytes $value.maximum
        } else {
            Set-VMMemory -VM $vm -DynamicMemoryEnabled $false
        }
    } elseif ($setting -eq 'VirtualizationBasedSecurityOptOut') {
        Set-VMSecurity -VM $vm -VirtualizationBasedSecurityOptOut $value.enabled
    } elseif ($setting -eq 'ExposeVirtualizationExtensions') {
        Set-VMProcessor -VM $vm -ExposeVirtualizationExtensions $value.enabled
    } else {
        Set-VMNetworkAdapter -VMNetworkAdapter $adapter -MacAddressSpoofing $value.word
    }
}

function Invoke-Phase($data) {
    Import-Module -Name Hyper-V
    $vm = Get-VM -Id ([guid]$data.id)
    $before = Get-Facts $data.id
    $present = $before.settings[$data.setting]
    $same = ($null -eq $present) -eq ($null -eq $data.before)
    if ($same -and ($null -ne $present)) { $same = $present -ceq $data.before }
    if (-not $same) { return @{ written = $false; present = $present; facts = $before; warned = @() } }
    $adapter = $null
    if ($data.adapter -ne '') {
        $adapter = @(Get-VMNetworkAdapter -VM $vm | Where-Object { (Get-AdapterId $_) -eq $data.adapter })[0]
    }
    $warned = @(Set-Setting $vm $data.setting $data.value $adapter)
    $after = Get-Facts $data.id
    @{ written = $true; present = $after.settings[$data.setting]; facts = $after; warned = @($warned | ForEach-Object { [string]$_ }) }
}
