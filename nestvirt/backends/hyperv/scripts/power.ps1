# A VM's power: asks, and looks for a few moments at what comes of it. Waiting on is the caller's.
function Request-Shutdown($vm) {
    $component = @(Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName Msvm_ShutdownComponent | Where-Object { $_.SystemName -eq [string]$vm.Id })
    if ($component.Count -eq 0) { return $null }
    $answer = Invoke-CimMethod -InputObject $component[0] -MethodName InitiateShutdown -Arguments @{ Force = $false; Reason = 'nestvirt' }
    [int64]$answer.ReturnValue
}

# Only when the VM is off: of one that runs, the cluster would first save the state.
function Stop-Group($vm) {
    $group = Get-ClusterGroup -VMId $vm.Id
    if ([string]$group.State -ne 'Offline') { $null = Stop-ClusterGroup -InputObject $group -Wait 30 }
}

function Start-Machine($vm) {
    if ($vm.IsClustered) {
        $group = Get-ClusterGroup -VMId $vm.Id
        $null = Start-ClusterGroup -InputObject $group -Wait 0
    } else {
        $null = Start-VM -VM $vm
    }
}

function Wait-State($vm, $wanted, $looks) {
    for ($look = 1; $look -le $looks; $look++) {
        if ([string](Get-VM -Id $vm.Id).State -eq $wanted) { return }
        if (($wanted -eq 'Running') -and $vm.IsClustered -and ((Get-GroupFacts $vm).state -eq 'Failed')) { return }
        Start-Sleep -Milliseconds 250
    }
}

function Invoke-Phase($data) {
    Import-Module -Name Hyper-V
    $id = [guid]$data.id
    $vm = Get-VM -Id $id
    $code = 0
    if (($data.action -eq 'shutdown') -and ([string]$vm.State -ne 'Off')) { $code = Request-Shutdown $vm }
    if (($data.action -eq 'cut') -and ([string]$vm.State -ne 'Off')) { $null = Stop-VM -VM $vm -TurnOff -Force -Confirm:$false }
    if (($data.action -eq 'start') -and ([string]$vm.State -eq 'Off')) { Start-Machine $vm }
    if ($code -eq 0) { Wait-State $vm $data.wanted $data.looks }
    $vm = Get-VM -Id $id
    $state = [string]$vm.State
    if (($data.wanted -eq 'Off') -and ($state -eq 'Off') -and $vm.IsClustered) { Stop-Group $vm }
    $facts = $null
    if (($data.wanted -eq 'Running') -and ($state -eq 'Running')) { $facts = Get-Facts $data.id }
    @{ code = $code; state = $state; group = Get-GroupFacts $vm; facts = $facts }
}
