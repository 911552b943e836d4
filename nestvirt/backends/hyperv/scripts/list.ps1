# All VMs of this host, and of each what a listing shows. Changes nothing.
function Invoke-Phase($data) {
    Import-Module -Name Hyper-V
    @{
        host = [string]$env:COMPUTERNAME
        vms = @(Get-VM | ForEach-Object {
            $vm = $_
            $expose = $null
            try { $expose = (Get-VMProcessor -VM $vm | Select-Object -Property ExposeVirtualizationExtensions).ExposeVirtualizationExtensions } catch { }
            @{
                id = [string]$vm.Id
                name = [string]$vm.Name
                state = [string]$vm.State
                expose = ConvertTo-Word $expose
                group = Get-GroupFacts $vm
            }
        })
    }
}
