# Comes before every script; $nestvirtData was set in the line above, and is all that varies.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$WarningPreference = 'SilentlyContinue'
$ConfirmPreference = 'None'  # nobody is there to answer
Set-StrictMode -Version 2.0
$data = ConvertFrom-Json -InputObject ([System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String($nestvirtData)))
