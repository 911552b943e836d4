# The command where script and data come through stdin: PowerShell itself reads what is redirected into $input.
# Data and secrets are no part of the script, as the text of a script block may be kept in the event log.
$nestvirtLines = @($input)
$nestvirtData = $nestvirtLines[0]
$nestvirtSecret = $nestvirtLines[1]
. ([scriptblock]::Create([string]::Join("`n", $nestvirtLines[2..($nestvirtLines.Count - 1)])))
