# The one VM of a name or id, with its facts. A name is compared as it is: Get-VM -Name would take * for all.
# It comes after a "=", so that ConvertFrom-Json does not take one like /Date(0)/ for a date.
function Invoke-Phase($data) {
    Import-Module -Name Hyper-V
    $name = ([string]$data.name).Substring(1)
    $all = @(Get-VM)
    $found = @()
    if ($data.id -ne '') { $found = @($all | Where-Object { $_.Id -eq [guid]$data.id }) }
    if ($found.Count -eq 0) {
        $found = @($all | Where-Object { [string]::Equals($_.Name, $name, [System.StringComparison]::OrdinalIgnoreCase) })
    }
    $elsewhere = @()
    $facts = $null
    $listed = $found
    if ($found.Count -eq 0) {
        $listed = $all
        try { $elsewhere = @(Get-ClusterGroup | Where-Object { [string]$_.GroupType -eq 'VirtualMachine' }) } catch { }
    }
    if ($found.Count -eq 1) { $facts = Get-Facts $found[0].Id }
    @{
        count = $found.Count
        facts = $facts
        total = $all.Count
        host = [string]$env:COMPUTERNAME
        listed = @($listed | Select-Object -First 20 | ForEach-Object { @{ id = [string]$_.Id; name = [string]$_.Name; state = [string]$_.State } })
        elsewhere = @($elsewhere | Select-Object -First 200 | ForEach-Object { @{ name = [string]$_.Name; node = [string]$_.OwnerNode.Name } })
    }
}
