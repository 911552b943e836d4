# The one VM of a name or id, with its facts. A name is compared as it is: Get-VM -Name would take * for all.
# It comes after a "=", so that ConvertFrom-Json does not take one like /Date(0)/ for a date.
function Test-Name($one, $other) { [string]::Equals([string]$one, $other, [System.StringComparison]::OrdinalIgnoreCase) }

# From the registry, as anybody may read that: the cluster's cmdlets tell it only to whom the cluster was granted.
function Get-ClusterName {
    try { return [string](Get-ItemProperty -LiteralPath 'HKLM:\Cluster').ClusterName } catch { return '' }
}

# The cluster's role of a VM that this host does not have now, or does not show: its configuration may be offline.
function Find-Role($id, $name) {
    if ($id -ne '') {
        $groups = @(Get-ClusterGroup -VMId ([guid]$id))
    } else {
        $groups = @(Get-ClusterGroup | Where-Object { ([string]$_.GroupType -eq 'VirtualMachine') -and (Test-Name $_.Name $name) })
    }
    foreach ($group in $groups) {
        $resources = @($group | Get-ClusterResource | Where-Object { [string]$_.ResourceType -eq 'Virtual Machine Configuration' })
        $configuration = @($resources | ForEach-Object { @{ name = [string]$_.Name; state = [string]$_.State } })
        @{ name = [string]$group.Name; node = [string]$group.OwnerNode.Name; configuration = $configuration }
    }
}

function Invoke-Phase($data) {
    Import-Module -Name Hyper-V
    $name = ([string]$data.name).Substring(1)
    $found = @()
    if ($data.id -ne '') { try { $found = @(Get-VM -Id ([guid]$data.id)) } catch { } }
    $all = $found
    if ($found.Count -eq 0) {
        $all = @(Get-VM)
        $found = @($all | Where-Object { Test-Name $_.Name $name })
    }
    $roles = @()
    $facts = $null
    $listed = $found
    if ($found.Count -eq 0) {
        $listed = $all
        try { $roles = @(Find-Role $data.id $name) } catch { }
    }
    if ($found.Count -eq 1) { $facts = Get-Facts $found[0].Id }
    @{
        count = $found.Count
        facts = $facts
        total = $all.Count
        host = [string]$env:COMPUTERNAME
        cluster = Get-ClusterName
        listed = @($listed | Select-Object -First 20 | ForEach-Object { @{ id = [string]$_.Id; name = [string]$_.Name; state = [string]$_.State } })
        roles = @($roles | Select-Object -First 20)
    }
}
