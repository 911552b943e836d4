# PowerShell Direct: the host's own way into a Windows guest, with no network (Invoke-Command -VMId).
# As a job, since it waits for ever for a guest that takes the connection and says nothing.
function Invoke-Phase($data) {
    # Invoke-Command asks Get-VM, which another product's module may have as well.
    Import-Module -Name Hyper-V
    # By .NET alone: a cmdlet that sees the password in the clear would have it written into the event log.
    $password = New-Object -TypeName System.Security.SecureString
    foreach ($character in $data.secret.password.ToCharArray()) { $password.AppendChar($character) }
    $credential = New-Object -TypeName System.Management.Automation.PSCredential -ArgumentList $data.secret.username, $password
    $job = Invoke-Command -VMId ([guid]$data.id) -Credential $credential -ScriptBlock $nestvirtGuestReading -AsJob
    try {
        $ended = Wait-Job -Job $job -Timeout $data.seconds
        if ($null -eq $ended) { return @{ answered = $false; said = '' } }
        $said = [string](Receive-Job -Job $job)
        if ($said.Length -gt $data.limit) { $said = $said.Substring(0, $data.limit) }
        return @{ answered = $true; said = $said }
    } finally {
        Remove-Job -Job $job -Force
    }
}
