"""The tests' own PowerShell is as surprising as Windows PowerShell 5.1 where scripts depend on it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peers.pwsh import Engine, NotKnown
from tests.peers.pwsh.cmdlet import CMDLETS
from tests.peers.pwsh.program import REGISTERED
from tests.peers.pwsh.raising import Raised
from tests.peers.pwsh.syntax import BadSyntax

assert REGISTERED  # with the language's nodes and cmdlets


def run(source: str, **variables: Any) -> list[Any]:
    """What a script writes; it stops at errors."""
    engine = Engine(CMDLETS)
    engine.globals.here["ErrorActionPreference"] = "Stop"
    for name, value in variables.items():
        engine.globals.here[name] = value
    return engine.run(source)


def json(expression: str) -> str:
    """An expression's value as JSON."""
    [text] = run(f"ConvertTo-Json -InputObject ({expression}) -Depth 8 -Compress")
    return str(text)


def refused(source: str) -> str:
    """The id of the error by which a script ends."""
    with pytest.raises(Raised) as caught:
        run(source)
    return caught.value.record.id


EQUAL = {
    "what one item leaves of a pipeline is no array": ("(1, 2 | Where-Object { $_ -gt 1 })", "2"),
    "@() makes one of it": ("@(1, 2 | Where-Object { $_ -gt 1 })", "[2]"),
    "@() of nothing is empty": ("@(1 | Where-Object { $false })", "[]"),
    "@($null) is not": ("@($null)", "[null]"),
    "an empty pipeline in a hashtable is an empty object": (
        "@{ a = 1 | Where-Object { $false } }",
        '{"a":{}}',
    ),
    "a comma keeps a function from unrolling": ("@{ a = & { , @(1) } }", '{"a":{"value":[1],"Count":1}}'),
    "an array of one from a function is its item": ("@{ a = & { @(1) } }", '{"a":1}'),
    "names are looked up in any case": ("@{ Name = 1 }.NAME", "1"),
    "texts are equal in any case": ("'WEB' -eq 'web'", "true"),
    "-ceq is strict": ("'WEB' -ceq 'web'", "false"),
    "a soft hyphen is not seen": ("'we\u00adb' -eq 'web'", "true"),
    "composed is decomposed": ("'\u00e9' -eq 'e\u0301'", "true"),
    "but not for .NET's ordinal comparison": (
        "[string]::Equals('we\u00adb', 'web', [System.StringComparison]::OrdinalIgnoreCase)",
        "false",
    ),
    "the left side decides": (
        "@((1 -eq '1'), ('1' -eq 1), ('01' -eq 1), (1 -eq '01'))",
        "[true,true,false,true]",
    ),
    "a list on the left is filtered": ("@(1, 2, 1) -eq 1", "[1,1]"),
    "false as a text is true": ("[bool]'False'", "true"),
    "a list of one false is false": ("[bool]@($false)", "false"),
    "-not binds tighter than -eq": ("-not 1 -eq 2", "false"),
    "a cast binds tighter than a comparison": ("[string]1.Length -eq '1'", "false"),
    "sizes have units": ("4GB", "4294967296"),
    "7 / 2 is no whole number": ("7 / 2", "3.5"),
    "[int] rounds to even": ("[int]2.5", "2"),
    "a list is joined by spaces in a text": ('"$(1, 2)"', '"1 2"'),
    "booleans have capitals in texts": ('"$true"', '"True"'),
    "quotes keep a value out": ("'$true'", '"$true"'),
    "backticks": ('"a`n`"b`" ""c"" `$d"', '"a\\n\\"b\\" \\"c\\" $d"'),
    "[ordered], [pscustomobject]": ("[pscustomobject][ordered]@{ b = 1; a = 2 }", '{"b":1,"a":2}'),
    "-f": ("'{0}-{1} {{}}' -f 1, 'x'", '"1-x {}"'),
    "-in, -contains": ("@((1 -in 1, 2), (@('A') -contains 'a'))", "[true,true]"),
    "-match and its groups": ("@(('ab' -match '(.)b'), $Matches[1])", '[true,"a"]'),
    "-like has wildcards": (
        "@(('web' -like 'w*'), ('w*' -like 'w[*]'), ('web' -like 'w`*'))",
        "[true,true,false]",
    ),
    "wildcards are no matter to -eq": ("'web' -eq '*'", "false"),
    "a version is no text": ("[version]'10.0' -gt [version]'9.3'", "true"),
    "a text is": ("'10.0' -gt '9.3'", "false"),
    "-as gives $null": ("@('x' -as [int])", "[null]"),
    "a GUID knows any way to write it": (
        "[guid]'{DF602DD5-129D-4BC6-8E06-BD723FA4016C}' -eq 'df602dd5-129d-4bc6-8e06-bd723fa4016c'",
        "true",
    ),
    "the last index": ("'a\\b'.Split('\\')[-1]", '"b"'),
    "members of each": ("@(@{ a = 1 }, @{ a = 2 }).a", "[1,2]"),
    "angle brackets are escaped": ("'<&>'", '"\\u003c\\u0026\\u003e"'),
    "depth": ("1..3", "[1,2,3]"),
}


@pytest.mark.parametrize(("expression", "expected"), EQUAL.values(), ids=EQUAL)
def test_an_expression(expression: str, expected: str) -> None:
    assert json(expression) == expected


def test_json_is_cut_off_where_it_gets_deep() -> None:
    deep = "@{ a = @{ b = @{ c = @{ d = 1 } } } }"
    assert run(f"ConvertTo-Json -InputObject {deep} -Compress") == [
        '{"a":{"b":{"c":"System.Collections.Hashtable"}}}'
    ]
    assert json(deep) == '{"a":{"b":{"c":{"d":1}}}}'


def test_json_from_a_pipeline_loses_an_array_of_one() -> None:
    assert run("@(1) | ConvertTo-Json -Compress") == ["1"]
    assert run("ConvertTo-Json -InputObject @(1) -Compress") == ["[1]"]


def test_an_array_from_json_is_one_object() -> None:
    assert run("@(ConvertFrom-Json -InputObject '[1,2]').Count") == [1]
    assert run("(ConvertFrom-Json -InputObject '[1,2]').Count") == [2]


def test_only_escaped_slashes_make_a_date_of_a_text() -> None:
    read = "(ConvertFrom-Json -InputObject $given).GetType().Name"
    assert run(read, given=r'"\/Date(0)\/"') == ["DateTime"]
    assert run(read, given='"/Date(0)/"') == ["String"]
    assert run(read, given=r'"\\/Date(0)\\/"') == ["String"]


def test_statements() -> None:
    assert run("foreach ($i in $null) { 'turn' }") == []
    assert run("$null | ForEach-Object { 'turn' }") == ["turn"]
    assert run("foreach ($i in 1..9) { if ($i -eq 2) { continue }; if ($i -gt 3) { break }; $i }") == [1, 3]
    assert run("for ($i = 0; $i -lt 2; $i++) { $i }") == [0, 1]
    assert run("$i = 2; while ($i) { $i; $i -= 1 }") == [2, 1]
    assert run("$i = 0; do { $i++ } until ($i -ge 3); $i") == [3]
    assert run("if (0) { 1 } elseif ('') { 2 } else { 3 }") == [3]
    assert run("$x = if ($true) { 1, 2 }; $x.Count") == [2]
    assert run("switch ('A') {\n'a' { 1 }\n'b' { 2 }\ndefault { 3 }\n}") == [1]
    assert run("$a, $b = 1, 2, 3; $b") == [2, 3]


def test_a_function_writes_all_that_it_does_not_keep() -> None:
    """return is no more than the last of it."""
    assert run("function Test { 'noise'; return 1 }; Test") == ["noise", 1]
    assert run("function Test { $null = 'noise'; return 1 }; Test") == [1]
    assert run("function Test([int]$a, $b = 5) { $a + $b }; Test 1; Test -b 1 -a '2'") == [6, 3]
    assert run("function Test([switch]$s, $a) { $s, $a }; Test -s 1; Test 2") == [True, 1, False, 2]


def test_a_function_sees_its_callers_variables_and_keeps_its_own() -> None:
    assert run("$x = 1; function Test { $x; $x = 2 }; Test; $x") == [1, 1]
    assert run("$x = 1; 1 | ForEach-Object { $x = 2 }; $x") == [2]
    assert run("function Test { $script:y = 3 }; Test; $y") == [3]


def test_errors_are_caught_by_their_type() -> None:
    source = "try { throw 'boo' } catch [System.IO.IOException] { 1 } catch { $_.FullyQualifiedErrorId }"
    assert run(source) == ["boo"]
    decoded = (
        "try { [Convert]::FromBase64String('?') } catch [System.FormatException] { $_.FullyQualifiedErrorId }"
    )
    assert run(decoded) == ["FormatException"]
    assert run("try { throw 'a' } catch { 'b' } finally { 'c' }") == ["b", "c"]
    assert run("try { try { throw 'a' } catch { throw } } catch { [string]$_ }") == ["a"]


STRICT = {
    "$nothing": "VariableIsUndefined",
    "@{ a = 1 }.b": "PropertyNotFoundStrict",
    "(1).Count": "PropertyNotFoundStrict",
    "$null.Name": "PropertyNotFoundStrict",
    "@().Name": "PropertyNotFoundStrict",
}


@pytest.mark.parametrize(("source", "error"), STRICT.items())
def test_strict_mode(source: str, error: str) -> None:
    assert refused(f"Set-StrictMode -Version 2.0; {source}") == error
    assert run(f"$null = {source}") == []


def test_an_index_out_of_bounds_is_an_error_for_version_3_alone() -> None:
    assert run("Set-StrictMode -Version 2.0; @()[0]") == [None]
    assert refused("Set-StrictMode -Version Latest; @()[0]") == "System.IndexOutOfRangeException"


COMMANDS = "Microsoft.PowerShell.Commands"
ENDS = {
    "$null.ToUpper()": "InvokeMethodOnNull",
    "$null[0]": "NullArray",
    "[int]3000000000": "InvalidCastFromStringToInteger",
    "[guid]'x'": "InvalidCast",
    "1 / 0": "RuntimeException",
    "throw 'own words'": "own words",
    "ConvertFrom-Json -InputObject '{'": f"System.ArgumentException,{COMMANDS}.ConvertFromJsonCommand",
    "Start-Sleep -Seconds 'x'": "CannotConvertArgument,Start-Sleep",
    "Start-Sleep": "MissingMandatoryParameter,Start-Sleep",
    "Start-Sleep -Seconds": "MissingArgument,Start-Sleep",
    "function Test($a) { $a }; Test -a": "MissingArgument",
    "Start-Sleep 1 2": "PositionalParameterNotFound,Start-Sleep",
    "ConvertFrom-Json -InputObject $null": "ParameterArgumentValidationErrorNullNotAllowed,ConvertFrom-Json",
    "Start-Sleep -Seconds 1 -Milliseconds 1": "AmbiguousParameterSet,Start-Sleep",
}


@pytest.mark.parametrize(("source", "error"), ENDS.items())
def test_what_ends_a_script(source: str, error: str) -> None:
    assert refused(source) == error


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("Get-Cat", "Get-Cat"),
        ("Start-Sleep -Second 1", "Start-Sleep -Second"),
        ("'a'.Purr()", "Purr"),
        ("[Cat]::Purr()", "[Cat]::Purr()"),
        ("[Cat]1", "[Cat]"),
        ("Start-Sleep 0 > file", "redirection"),
        ("function Test { process { 1 } }; Test", "process"),
    ],
)
def test_what_it_does_not_know_is_named_and_cannot_be_caught(source: str, named: str) -> None:
    with pytest.raises(NotKnown) as caught:
        run(f"try {{ {source} }} catch {{ }}")
    assert named in str(caught.value)


def test_what_is_no_script_says_where() -> None:
    with pytest.raises(BadSyntax, match="line 2"):
        run("1\nif (")
