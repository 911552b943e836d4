$reader = New-Object System.IO.StreamReader([System.Console]::OpenStandardInput(), [System.Text.Encoding]::UTF8)
. ([scriptblock]::Create($reader.ReadToEnd()))
