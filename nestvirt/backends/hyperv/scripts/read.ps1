# Reads one VM anew. Changes nothing.
function Invoke-Phase($data) {
    Import-Module -Name Hyper-V
    @{ facts = Get-Facts $data.id }
}
