# Reads one VM anew. Changes nothing.
function Invoke-Phase($data) {
    @{ facts = Get-Facts $data.id }
}
