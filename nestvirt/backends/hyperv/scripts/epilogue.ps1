# Comes after every script: one line of answer, in base64, so that no code page and no line wrap can spoil it.
function Write-Answer($answer) {
    $json = ConvertTo-Json -InputObject $answer -Depth 8 -Compress
    [System.Console]::Out.WriteLine('NESTVIRT:' + [System.Convert]::ToBase64String([System.Text.Encoding]::UTF8.GetBytes($json)))
}
try {
    $found = Invoke-Phase $data
    Write-Answer @{ ok = $found }
} catch {
    $failure = $_
    Write-Answer @{ error = @{
        id = [string]$failure.FullyQualifiedErrorId
        category = [string]$failure.CategoryInfo.Category
        type = [string]$failure.Exception.GetType().FullName
        message = [string]$failure.Exception.Message
        hresult = [int64]$failure.Exception.HResult
    } }
}
