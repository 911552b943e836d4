"""The cmdlets that are PowerShell's own: on objects, JSON, time, and the session itself."""

from __future__ import annotations

import time
from functools import cmp_to_key
from typing import Any

from tests.peers.pwsh import members, statics
from tests.peers.pwsh.cmdlet import Call, cmdlet
from tests.peers.pwsh.convert import cast, number, text, truth, unrolled
from tests.peers.pwsh.jsontext import from_json, to_json
from tests.peers.pwsh.operators import equal, order
from tests.peers.pwsh.raising import RUNTIME, failure
from tests.peers.pwsh.statics import new
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import (
    NOTHING,
    ErrorRecord,
    Hashtable,
    Net,
    NetException,
    PsObject,
    ScriptBlock,
    Secure,
    TypeName,
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
    "Select-Object [[-Property] <object[]>] [-InputObject <psobject|>] [-ExpandProperty <string>] [-First <int>] "
    "[-Last <int>] [-Skip <int>] [-Unique]",
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


@cmdlet("Sort-Object [[-Property] <object[]>] [-InputObject <psobject|>] [-Descending] [-Unique]", whole=True)
def _sort(call: Call) -> None:
    def key(item: Any) -> list[Any]:
        return [_by(call, item, wanted) for wanted in call["Property"] or ()] or [item]

    def compare(a: Any, b: Any) -> int:
        return next((result for x, y in zip(key(a), key(b), strict=True) if (result := _order(x, y))), 0)

    made = sorted(call.items, key=cmp_to_key(compare), reverse=bool(call["Descending"]))
    if call["Unique"]:
        made = [item for at, item in enumerate(made) if not at or compare(made[at - 1], item)]
    call.out += made


def _by(call: Call, item: Any, wanted: Any) -> Any:
    if isinstance(wanted, ScriptBlock):
        return (call.engine.each(wanted, call.scope, item) or [None])[0]
    return members.value(item, text(wanted), strict=False)


def _order(a: Any, b: Any) -> int:
    if a is None or b is None:
        return (a is not None) - (b is not None)
    return order(text(a), text(b)) if hasattr(a, "hex") and not isinstance(a, int | float) else order(a, b)


@cmdlet(
    "Measure-Object [[-Property] <string[]>] [-InputObject <psobject|>] [-Sum] [-Maximum] [-Minimum]",
    whole=True,
)
def _measure(call: Call) -> None:
    wanted = (call["Property"] or [None])[0]
    figures = (
        [number(members.value(item, wanted, strict=True) if wanted else item) for item in call.items]
        if call["Sum"] or call["Maximum"] or call["Minimum"]
        else []
    )
    made = {
        "Count": len(call.items),
        "Sum": sum(figures) if call["Sum"] else None,
        "Maximum": max(figures, default=None) if call["Maximum"] else None,
        "Minimum": min(figures, default=None) if call["Minimum"] else None,
    }
    call.out.append(Net("Microsoft.PowerShell.Commands.GenericMeasureInfo", made))


@cmdlet("Group-Object [[-Property] <object[]>] [-InputObject <psobject|>] [-NoElement]", whole=True)
def _group(call: Call) -> None:
    groups: list[tuple[Any, list[Any]]] = []
    for item in call.items:
        key = _by(call, item, call["Property"][0]) if call["Property"] else item
        for known, held in groups:
            if equal(known, key):
                held.append(item)
                break
        else:
            groups.append((key, [item]))
    for key, held in groups:
        call.out.append(
            Net(
                "Microsoft.PowerShell.Commands.GroupInfo",
                {"Name": text(key), "Count": len(held), "Group": held},
            )
        )


@cmdlet("Out-Null [-InputObject <psobject|>]", whole=True)
def _out_null(_call: Call) -> None:
    pass


@cmdlet("Write-Output [-InputObject] <psobject|> [-NoEnumerate]")
def _write_output(call: Call) -> None:
    value = call["InputObject"]
    call.out += [value] if call["NoEnumerate"] else unrolled(value)


@cmdlet("Write-Error [-Message] <string|> [-ErrorId <string>] [-Category <string>] [-TargetObject <object>]")
def _write_error(call: Call) -> None:
    exception = NetException("Microsoft.PowerShell.Commands.WriteErrorException", call["Message"])
    error_id = call["ErrorId"] or exception.type_name
    call.fail(ErrorRecord(exception, error_id, call["Category"] or "NotSpecified", call["TargetObject"]))


@cmdlet("Write-Warning [-Message] <string|>")
@cmdlet("Write-Verbose [-Message] <string|>")
def _told(_call: Call) -> None:
    pass


@cmdlet("ConvertTo-Json [-InputObject] <object|> [-Depth <int>] [-Compress]", whole=True)
def _to_json(call: Call) -> None:
    value: Any = call["InputObject"]
    if call.items:
        value = call.items[0] if len(call.items) == 1 else call.items
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


@cmdlet(
    "New-Object [-TypeName] <string> [[-ArgumentList] <object[]>] [-Property <hashtable>]",
)
def _new_object(call: Call) -> None:
    name = TypeName(call["TypeName"])
    if name.short in ("psobject", "management.automation.psobject", "pscustomobject"):
        call.out.append(PsObject(dict(call["Property"] or {})))
    elif call["Property"]:
        raise NotKnown("New-Object -Property of a type")
    else:
        call.out.append(new(call.engine, name, call["ArgumentList"] or []))


@cmdlet(
    "Add-Member [-NotePropertyName] <string> [-NotePropertyValue] <object> -InputObject <psobject|> [-Force] [-PassThru]"
)
def _add_member(call: Call) -> None:
    owner, name = call["InputObject"], call["NotePropertyName"]
    holder = owner.properties if isinstance(owner, Net) else owner
    if name in holder and not call["Force"]:
        message = (
            f'Cannot add a member with the name "{name}" because a member with that name already exists.'
        )
        raise failure("MemberAlreadyExists,Microsoft.PowerShell.Commands.AddMemberCommand", message)
    holder[name] = call["NotePropertyValue"]
    if call["PassThru"]:
        call.out.append(owner)


@cmdlet("Set-StrictMode -Version <string>", "Set-StrictMode -Off")
def _strict(call: Call) -> None:
    call.engine.strict = not call["Off"]


@cmdlet("Start-Sleep [-Seconds] <double|>", "Start-Sleep -Milliseconds <int>")
def _sleep(call: Call) -> None:
    time.sleep((call["Milliseconds"] or 0) / 1000 or call["Seconds"] or 0)


@cmdlet("Get-Date")
def _date(call: Call) -> None:
    call.out.append(statics.value(call.engine, TypeName("datetime"), "Now"))


@cmdlet("Get-Variable [[-Name] <string[]>] [-ValueOnly] [-Scope <string>]")
def _get_variable(call: Call) -> None:
    for name in call["Name"]:
        holder = call.scope.holder(name)
        if holder is None:
            message = f"Cannot find a variable with the name '{name}'."
            call.fail(
                _record(
                    "VariableNotFound,Microsoft.PowerShell.Commands.GetVariableCommand",
                    message,
                    "ObjectNotFound",
                    name,
                )
            )
        else:
            call.out.append(
                holder.here[name]
                if call["ValueOnly"]
                else PsObject({"Name": name, "Value": holder.here[name]})
            )


@cmdlet("Get-Command [[-Name] <string[]>] [-Module <string[]>] [-CommandType <string>]")
def _get_command(call: Call) -> None:
    for name in call["Name"] or ():
        if "*" in name:
            raise NotKnown("Get-Command with a wildcard")
        known = call.engine.cmdlets.get(name)
        if known is None or (known.module and not call.engine.machine.has_module(known.module)):
            message = f"The term '{name}' is not recognized as the name of a cmdlet, function, script file."
            call.fail(
                _record(
                    "CommandNotFoundException,Microsoft.PowerShell.Commands.GetCommandCommand",
                    message,
                    "ObjectNotFound",
                    name,
                )
            )
            continue
        names = {each.name: PsObject({"Name": each.name}) for held in known.sets for each in held.parameters}
        about = {"Name": known.name, "ModuleName": known.module, "Parameters": Hashtable(names)}
        call.out.append(Net("System.Management.Automation.CmdletInfo", about, known.name))


@cmdlet("Get-Module [[-Name] <string[]>] [-ListAvailable]")
def _get_module(call: Call) -> None:
    call.out += [
        Net("System.Management.Automation.PSModuleInfo", {"Name": name}, name)
        for name in call["Name"] or ()
        if call.engine.machine.has_module(name)
    ]


@cmdlet("Import-Module [-Name] <string[]|> [-DisableNameChecking]")
def _import_module(call: Call) -> None:
    for name in call["Name"]:
        if not call.engine.machine.has_module(name):
            message = f"The specified module '{name}' was not loaded because no valid module file was found."
            error_id = "Modules_ModuleNotFound,Microsoft.PowerShell.Commands.ImportModuleCommand"
            call.fail(
                _record(error_id, message, "ResourceUnavailable", name, "System.IO.FileNotFoundException")
            )


@cmdlet("ConvertTo-SecureString [-String] <string|> -AsPlainText -Force")
def _secure(call: Call) -> None:
    if not call["String"]:
        message = "Cannot bind argument to parameter 'String' because it is an empty string."
        raise failure(
            "ParameterArgumentValidationErrorEmptyStringNotAllowed,ConvertTo-SecureString",
            message,
            "InvalidData",
        )
    call.out.append(Secure(call["String"]))


def _record(error_id: str, message: str, category: str, target: Any, type_name: str = RUNTIME) -> ErrorRecord:
    return ErrorRecord(NetException(type_name, message), error_id, category, target)


assert cast
assert NOTHING
