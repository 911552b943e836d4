# What happens to a VM at this moment: its state, and the scripts of nestvirt's that run here, by their command lines.
# A process's command line is shown to its own user, and to administrators.
function Invoke-Phase($data) {
    Import-Module -Name Hyper-V
    $lines = @()
    try {
        $lines = @(Get-CimInstance -ClassName Win32_Process -Filter "Name = 'powershell.exe'" | ForEach-Object { [string]$_.CommandLine } | Where-Object { $_ -like ('*' + $data.mark + '*') })
    } catch { }
    $vm = Get-VM -Id ([guid]$data.id)
    @{ state = [string]$vm.State; lines = @($lines | Select-Object -First 50) }
}
