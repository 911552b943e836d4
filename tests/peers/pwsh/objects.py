"""The cmdlets that are PowerShell's own: on objects, JSON, time, and the session itself."""

from __future__ import annotations

from typing import Any

from tests.peers.pwsh import members
from tests.peers.pwsh.cmdlet import Call, cmdlet
from tests.peers.pwsh.convert import text, truth, unrolled
from tests.peers.pwsh.jsontext import from_json, to_json
from tests.peers.pwsh.operators import equal
from tests.peers.pwsh.raising import failure
from tests.peers.pwsh.statics import new
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import (
    ErrorRecord,
    Hashtable,
    NetException,
    PsObject,
    TypeName,
    Wrapped,
)


@cmdlet("Where-Object [-FilterScript] <scriptblock> [-InputObject <psobject|>]", whole=True)
def _where(call: Call) -> None:
    block = call["FilterScript"]
    for item in call.items:
        answer = call.engine.each(block, call.scope, item)
        if truth(answer):
            call.out.append(item)


@cmdlet("ForEach-Object [-Process] <scriptblock> [-InputObject <psobject|>]", whole=True)
def _for_each(call: Call) -> None:
    for item in call.items:
        call.out += call.engine.each(call["Process"], call.scope, item)


@cmdlet(
    "Select-Object [[-Property] <object[]>] [-InputObject <psobject|>] [-ExpandProperty <string>] "
    "[-First <int>] [-Last <int>] [-Skip <int>] [-Unique]",
    whole=True,
)
def _select(call: Call) -> None:
    items = call.items[call["Skip"] or 0 :]
    if call["First"] is not None:
        items = items[: call["First"]]
    if call["Last"] is not None:
        items = items[-call["Last"] :] if call["Last"] else []
    made = [_selected(call, item) for item in items]
    if call["ExpandProperty"]:
        made = [
            each
            for item in items
            for each in unrolled(members.value(item, call["ExpandProperty"], strict=True))
        ]
    if call["Unique"]:
        kept: list[Any] = []
        for item in made:
            if not any(equal(item, other, ignore_case=False) for other in kept):
                kept.append(item)
        made = kept
    call.out += made


def _selected(call: Call, item: Any) -> Any:
    if not call["Property"]:
        return item
    made = PsObject()
    for wanted in call["Property"]:
        if isinstance(wanted, Hashtable):
            label, block = wanted.get("Name", wanted.get("n")), wanted.get("Expression", wanted.get("e"))
            values = call.engine.each(block, call.scope, item)
            made[text(label)] = values[0] if len(values) == 1 else values or None
        else:
            if "*" in text(wanted):
                raise NotKnown("Select-Object with a wildcard")
            made[text(wanted)] = members.value(item, text(wanted), strict=False)
    return made


@cmdlet("Out-Null [-InputObject <psobject|>]", whole=True)
def _out_null(_call: Call) -> None:
    pass


@cmdlet("ConvertTo-Json [-InputObject] <object|> [-Depth <int>] [-Compress]", whole=True)
def _to_json(call: Call) -> None:
    value: Any = call["InputObject"]
    if call.items:
        # an array that comes through the pipeline is no plain one any more
        items = [Wrapped(item) if isinstance(item, list) else item for item in call.items]
        value = items[0] if len(items) == 1 else items
    depth = 2 if call["Depth"] is None else call["Depth"]
    if not call["Compress"]:
        raise NotKnown("ConvertTo-Json without -Compress: it writes many lines")
    if not 1 <= depth <= 100:
        raise failure("ParameterArgumentValidationError,ConvertTo-Json", f"depth {depth}", "InvalidData")
    call.out.append(to_json(value, depth))


@cmdlet("ConvertFrom-Json [-InputObject] <string|>", whole=True)
def _from_json(call: Call) -> None:
    source = "\n".join(map(text, call.items)) if call.items else call["InputObject"]
    call.out.append(from_json(source))


@cmdlet("New-Object [-TypeName] <string> [[-ArgumentList] <object[]>]")
def _new_object(call: Call) -> None:
    name = TypeName(call["TypeName"])
    call.out.append(new(name, call["ArgumentList"] or []))


@cmdlet("Set-StrictMode -Version <string>", "Set-StrictMode -Off")
def _strict(call: Call) -> None:
    wanted = call["Version"] or "0"
    call.engine.strict = 3.0 if wanted.lower() == "latest" else float(wanted)


@cmdlet("Start-Sleep [-Seconds] <double|>", "Start-Sleep -Milliseconds <int>")
def _sleep(call: Call) -> None:
    call.engine.pause((call["Milliseconds"] or 0) / 1000 or call["Seconds"] or 0)


@cmdlet("Import-Module [-Name] <string[]>")
def _import_module(call: Call) -> None:
    for name in call["Name"]:
        if call.engine.machine.has_module(name):
            call.engine.imported.add(name.lower())
            continue
        message = f"The specified module '{name}' was not loaded: no valid module file was found."
        error_id = "Modules_ModuleNotFound,Microsoft.PowerShell.Commands.ImportModuleCommand"
        exception = NetException("System.IO.FileNotFoundException", message)
        call.fail(ErrorRecord(exception, error_id, "ResourceUnavailable", name))
