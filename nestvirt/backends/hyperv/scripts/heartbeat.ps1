# Whether the guest is up: its integration services' heartbeat, and what it says of itself by key-value exchange.
# Asks for no password, so that waiting for a guest that boots locks nobody's account.
function Invoke-Phase($data) {
    # First of all: another product's module may have a Get-VM as well.
    Import-Module -Name Hyper-V
    $vm = Get-VM -Id ([guid]$data.id)
    $items = @()
    $exchange = @(Get-CimInstance -Namespace 'root\virtualization\v2' -ClassName Msvm_KvpExchangeComponent | Where-Object { $_.SystemName -eq $data.id })
    if ($exchange.Count -gt 0) { $items = @($exchange[0].GuestIntrinsicExchangeItems) }
    @{
        state = [string]$vm.State
        heartbeat = [string]$vm.Heartbeat
        kvp = @(foreach ($item in $items) { [string]$item })
    }
}
