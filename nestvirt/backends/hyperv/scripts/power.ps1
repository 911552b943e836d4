# A VM's power: asks, and looks at what comes of it as often as it is told to.
function Request-Shutdown($vm) {
    $component = @(Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName Msvm_ShutdownComponent | Where-Object { $_.SystemName -eq [string]$vm.Id })
    if ($component.Count -eq 0) { return $null }
    $answer = Invoke-CimMethod -InputObject $component[0] -MethodName InitiateShutdown -Arguments @{ Force = $false; Reason = 'nestvirt' }
    [int64]$answer.ReturnValue
}

# Only when the VM is off: of one that runs, the cluster would first save the state. And never the whole role: while
# its other resource, the VM's configuration, is offline, Hyper-V has no such VM.
function Stop-Resource($vm) {
    $resources = @(Get-ClusterResource -VMId $vm.Id | Where-Object { ([string]$_.ResourceType -eq 'Virtual Machine') -and ([string]$_.State -ne 'Offline') })
    foreach ($resource in $resources) { $null = Stop-ClusterResource -InputObject $resource -Wait 30 }
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
        $state = [string](Get-VM -Id $vm.Id).State
        if ($state -eq $wanted) { return }
        if (($wanted -eq 'Running') -and $vm.IsClustered -and ((Get-GroupFacts $vm).state -eq 'Failed')) { return }
        if (($wanted -eq 'Running') -and (-not $vm.IsClustered) -and ($state -eq 'Off')) { return }
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
    if ($data.accepted -contains $code) { Wait-State $vm $data.wanted $data.looks }
    $vm = Get-VM -Id $id
    $state = [string]$vm.State
    if ($data.hold -and ($state -eq 'Off') -and $vm.IsClustered) { Stop-Resource $vm }
    $facts = $null
    if (($data.wanted -eq 'Running') -and ($state -eq 'Running')) { $facts = Get-Facts $data.id }
    @{ code = $code; state = $state; group = Get-GroupFacts $vm; facts = $facts }
}
