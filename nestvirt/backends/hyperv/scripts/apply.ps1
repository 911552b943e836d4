# Writes one setting of one VM, where it is still what the plan was made for, and reads everything anew.
function Set-Setting($vm, $setting, $value, $adapter) {
    if ($setting -eq 'SavedState') {
        Remove-VMSavedState -VM $vm -Confirm:$false
    } elseif ($setting -eq 'Version') {
        Update-VMVersion -VM $vm -Force -Confirm:$false
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
    if (-not $same) { return @{ written = $false; present = $present; facts = $before } }
    $adapter = $null
    if ($data.adapter -ne '') {
        $adapter = @(Get-VMNetworkAdapter -VM $vm | Where-Object { (Get-AdapterId $_) -eq $data.adapter })[0]
    }
    $null = Set-Setting $vm $data.setting $data.value $adapter
    $after = Get-Facts $data.id
    @{ written = $true; present = $after.settings[$data.setting]; facts = $after }
}
