"""Every script that can be sent to a Hyper-V host: its syntax, its cmdlets, and no value in its text."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from tree_sitter import Node

from nestvirt.backends.hyperv import scripts
from nestvirt.backends.hyperv.scripts import invocation
from tests.peers import hyperv
from tests.peers.pwsh.cmdlet import CMDLETS, COMMON
from tests.peers.pwsh.program import PowerShell
from tests.peers.pwsh.syntax import child, every, parsed, written
from tests.peers.winrm.command import Invocation

assert hyperv.REGISTERED  # with the cmdlets of Hyper-V

FOLDER = Path(scripts.__file__).parent / "scripts"
FILES = {path.stem: path.read_text(encoding="ascii") for path in sorted(FOLDER.glob("*.ps1"))}
AROUND = ("prelude", "epilogue", "bootstrap", "secrets")
"""What comes around every script."""
SHARED = {part for parts in scripts.ALONGSIDE.values() for part in parts}
PHASES = sorted(set(FILES) - set(AROUND) - SHARED)
SECRET = {"username": "LAB\\ops", "password": "guest-secret'; Remove-VM *; #"}

READING = {
    *("ConvertFrom-Json", "ConvertTo-Json", "ForEach-Object", "New-Object", "Select-Object", "Where-Object"),
    *("Get-CimInstance", "Get-ClusterGroup", "Get-ClusterResource", "Get-ItemProperty"),
    *("Get-Process", "Get-WinEvent"),
    *("Get-VM", "Get-VMHostSupportedVersion", "Get-VMIntegrationService", "Get-VMMemory", "Get-VMSecurity"),
    *("Get-VMNetworkAdapter", "Get-VMProcessor", "Get-VMSnapshot", "Import-Module", "Set-StrictMode"),
}
"""Change nothing."""
GUEST = {"Invoke-Command", "Receive-Job", "Remove-Job", "Wait-Job"}
"""Lead into a guest."""
POWER = {
    "Invoke-CimMethod",
    "Start-ClusterGroup",
    "Start-Sleep",
    "Start-VM",
    "Stop-ClusterResource",
    "Stop-VM",
}
WRITING = {
    *("Remove-VMSavedState", "Set-VMMemory", "Set-VMNetworkAdapter", "Set-VMProcessor", "Set-VMSecurity"),
    "Update-VMVersion",
}
ALLOWED = {
    **dict.fromkeys((*PHASES, *SHARED, *AROUND), READING),
    "apply": READING | WRITING,
    "power": READING | POWER,
    "direct": READING | GUEST,
}
"""What each script may call, beside functions of its own."""
AUTOMATIC = {
    *("_", "true", "false", "null", "input", "warningpreference", "confirmpreference"),
    *("nestvirtdata", "nestvirtsecret"),
}
TAKEN = {
    *(
        "args",
        "error",
        "event",
        "executioncontext",
        "foreach",
        "home",
        "host",
        "input",
        "lastexitcode",
        "matches",
    ),
    *("myinvocation", "nestedpromptlevel", "pid", "profile", "psboundparameters", "pscmdlet", "psculture"),
    *("pshome", "psitem", "psversiontable", "pwd", "sender", "shellid", "switch", "this", "true", "false"),
}
NEVER = {"invoke-expression", "iex", "invoke-webrequest", "add-type", "start-process"}
LATER = {"&&", "||", "??", "??=", "?", "?.", "?[]"}
"""Operators that Windows PowerShell 5.1 does not have."""

each_file = pytest.mark.parametrize("name", FILES)
each_phase = pytest.mark.parametrize("phase", PHASES)


@cache
def tree(name: str) -> Node:
    return parsed(FILES[name])


def commands(name: str) -> Iterator[tuple[str, Node]]:
    """The commands of a script, by their names as written; what is called by value has none."""
    for node in every(tree(name)):
        if node.type == "command":
            named = child(node, "command_name")
            yield (written(named) if named is not None else ""), node


def given(command: Node) -> Iterator[tuple[str, Node | None]]:
    """The parameters of a command, in lower case, and what stands after each."""
    elements = child(command, "command_elements")
    words = [each for each in (elements.children if elements else ()) if each.type != "command_argument_sep"]
    for at, word in enumerate(words):
        if word.type == "command_parameter":
            yield written(word).strip("-:").lower(), next(iter(words[at + 1 :]), None)


def functions(name: str) -> dict[str, Node]:
    """The functions that a script may call: those of its own, and of what it is sent with."""
    found = {}
    for part in (*scripts.ALONGSIDE.get(name, ()), name):
        for node in every(tree(part)):
            if node.type == "function_statement":
                label = child(node, "function_name")
                assert label is not None
                found[written(label)] = node
    return found


def assigned(name: str) -> set[str]:
    """The variables that a script sets, its functions' parameters among them, in lower case."""
    found = set()
    for node in every(tree(name)):
        if node.type in ("left_assignment_expression", "script_parameter", "foreach_statement"):
            target = next(each for each in every(node) if each.type == "variable")
            found.add(written(target)[1:].lower())
    return found


def sent(phase: str, data: Mapping[str, object], secret: Mapping[str, str] | None = None) -> str:
    """The whole script that PowerShell gets to see."""
    made = invocation(phase, data, secret)
    command = base64.b64decode(made.arguments[-1]).decode("utf-16-le")
    return command + (made.stdin or b"").decode("ascii")


def test_there_are_scripts() -> None:
    assert {"find", "read", "apply", "power", "direct", "heartbeat"} <= set(PHASES)


@each_file
def test_it_parses_without_an_error(name: str) -> None:
    assert tree(name).type == "program"


@each_file
def test_it_calls_only_what_is_allowed(name: str) -> None:
    called = {label for label, _node in commands(name) if label and not re.fullmatch(r"\d+\.\.\d+", label)}
    own = functions(name)
    if name == "epilogue":
        own["Invoke-Phase"] = own["Write-Answer"]
    assert called - set(own) <= ALLOWED[name]
    assert not {label.lower() for label in called} & NEVER


@each_file
def test_every_cmdlet_and_parameter_exists(name: str) -> None:
    """Whether a test comes by or not: the peer declares cmdlets by their documented syntax."""
    for label, node in commands(name):
        known = CMDLETS.get(label)
        if known is None:
            continue
        names = {each.name.lower() for held in known.sets for each in held.parameters} | set(COMMON)
        assert {parameter for parameter, _value in given(node)} <= names, label


@each_phase
def test_it_is_hyper_vs_cmdlet_that_it_calls(phase: str) -> None:
    """VMware's PowerCLI has a Get-VM, too: the module that is imported last goes first."""
    imports = [dict(given(node)).get("name") for label, node in commands(phase) if label == "Import-Module"]
    assert [written(name) for name in imports if name is not None] == ["Hyper-V"]


@each_file
def test_only_the_bootstrap_runs_what_it_is_given(name: str) -> None:
    by_value = [node for label, node in commands(name) if not label]
    assert len(by_value) == (1 if name == "bootstrap" else 0)


@each_file
def test_no_name_is_a_pattern(name: str) -> None:
    """-Name and -VMName take wildcards: a VM may be called *."""
    for label, node in commands(name):
        if label.partition("-")[2].startswith("VM") and label != "Get-VMHostSupportedVersion":
            parameters = {parameter for parameter, _value in given(node)}
            assert not {"name", "vmname"} & parameters, label
            assert label == "Get-VM" or {"vm", "vmnetworkadapter"} & parameters, label


@each_file
def test_no_text_has_a_value_in_it(name: str) -> None:
    """Texts are put together of values nowhere: neither "…$x…" nor a filter for WMI."""
    for node in every(tree(name)):
        if node.type.startswith("expandable"):
            assert not [each for each in every(node) if each.type in ("variable", "sub_expression")]
    for _label, node in commands(name):
        for parameter, value in given(node):
            if parameter == "filter":
                assert value is not None
                assert written(value)[0] in "\"'"


@each_file
def test_every_variable_is_set_somewhere(name: str) -> None:
    parts = [*scripts.ALONGSIDE.get(name, ()), name, *(["prelude"] if name == "epilogue" else [])]
    known = AUTOMATIC.union(*map(assigned, parts))
    if name not in AROUND:
        known |= {"data"}
    known |= {"data"} if name in ("secrets", "epilogue") else set()
    used = {written(each)[1:].lower() for each in every(tree(name)) if each.type == "variable"}
    assert {each for each in used if not each.startswith("env:")} <= known


@each_file
def test_it_sets_no_variable_of_powershells_own(name: str) -> None:
    """Some cannot be set, and setting the others breaks something elsewhere."""
    assert not assigned(name) & TAKEN


@each_file
def test_it_is_made_for_windows_powershell(name: str) -> None:
    assert not {each.type for each in every(tree(name))} & LATER


@each_phase
def test_as_it_is_sent_it_parses(phase: str) -> None:
    assert parsed(sent(phase, {"id": "x"})).type == "program"


@each_phase
def test_the_data_is_all_that_varies(phase: str) -> None:
    hostile = {"name": '"; Remove-VM *; #', "id": "'; Remove-VM *; '", "more": "$(Remove-VM *)`n\u2019\u201c"}
    first, *rest = sent(phase, hostile).splitlines()
    other, *same = sent(phase, {"name": "web"}).splitlines()
    assert rest == same
    for line, data in ((first, hostile), (other, {"name": "web"})):
        found = re.fullmatch(r"\$nestvirtData = '([A-Za-z0-9+/]+={0,2})'", line)
        assert found is not None
        assert json.loads(base64.b64decode(found[1])) == data
    assert "Remove-VM *" not in "\n".join((first, *rest))


@each_phase
def test_with_a_secret_the_script_is_the_same_for_everybody(phase: str) -> None:
    made = invocation(phase, {"name": "web"}, SECRET)
    again = invocation(phase, {"name": "other"}, {"username": "x", "password": "y"})
    assert made.arguments == again.arguments
    assert made.stdin is not None
    assert again.stdin is not None
    assert made.stdin.splitlines()[2:] == again.stdin.splitlines()[2:]
    shown = " ".join(made.arguments) + base64.b64decode(made.arguments[-1]).decode("utf-16-le")
    hidden = base64.b64encode(SECRET["password"].encode()).decode()
    assert SECRET["password"] not in shown
    assert hidden not in shown
    assert hidden in made.stdin.splitlines()[1].decode()


@each_phase
def test_what_the_program_itself_sees_of_a_secret_is_no_script(phase: str) -> None:
    """The text of a script block may be kept in the event log, and the standard input is not."""
    shell = PowerShell(hyperv.Host())
    made = invocation(phase, {"id": "", "name": "", "seconds": 1, "limit": 1}, SECRET)
    shell(Invocation("powershell.exe", made.arguments, made.stdin or b""))
    assert shell.scripts
    assert not [script for script in shell.scripts if SECRET["password"] in script]


def test_nobody_is_asked_to_confirm() -> None:
    """Under -NonInteractive a question is an error."""
    host = hyperv.Host(machines=[hyperv.Machine("vm", version="9.0")])
    empty = base64.b64encode(b"{}").decode()
    source = f"$nestvirtData = '{empty}'\n{FILES['prelude']}\nUpdate-VMVersion -VM (Get-VM)"
    shell = PowerShell(host)
    encoded = base64.b64encode(source.encode("utf-16-le")).decode()
    shell(Invocation("powershell.exe", ("-NoProfile", "-NonInteractive", "-EncodedCommand", encoded), b""))
    assert host.machines[0].version == host.version


def test_the_scripts_that_read_write_nothing() -> None:
    for name in ("find", "read", "heartbeat", "guest_reading", *SHARED):
        assert {label for label, _node in commands(name)} - set(functions(name)) <= READING
