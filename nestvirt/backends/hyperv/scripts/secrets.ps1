# Comes after the prelude where there are secrets. No cmdlet sees them: its arguments may be kept in the event log.
$nestvirtTable = @{}
foreach ($nestvirtPair in $nestvirtSecret.Split(' ')) {
    $nestvirtParts = $nestvirtPair.Split(':')
    $nestvirtTable[$nestvirtParts[0]] = [System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String($nestvirtParts[1]))
}
$data.secret = $nestvirtTable
