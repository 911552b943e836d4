"""Pipelines, commands and assignments."""

from __future__ import annotations

import re
from typing import Any

from tree_sitter import Node

from tests.peers.pwsh import members
from tests.peers.pwsh.cmdlet import PRESENT, Arguments, call
from tests.peers.pwsh.convert import cast, collapsed, is_list, number, text, unrolled
from tests.peers.pwsh.engine import Engine, expression, statement
from tests.peers.pwsh.expressions import is_static, member
from tests.peers.pwsh.operators import ARITHMETIC
from tests.peers.pwsh.raising import failure, unknown
from tests.peers.pwsh.statements import declared
from tests.peers.pwsh.syntax import child, named, written
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import NOTHING, CaseDict, Hashtable, PsObject, ScriptBlock, TypeName, Variables

SILENT = ("assignment_expression", "post_increment_expression", "post_decrement_expression")


@statement("pipeline", "pipeline_chain", *SILENT)
def _write(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    """As a statement: what it is worth goes to the pipeline."""
    if node.type == "pipeline":
        for part in named(node):
            _write(engine, part, scope, out)
    elif node.type in SILENT:
        engine.value(node, scope)
    else:
        out += _run(engine, node, scope)


def _run(engine: Engine, chain: Node, scope: Variables) -> list[Any]:
    stages = named(chain)
    if any(each.type in ("&&", "||", "&") for each in chain.children):
        raise NotKnown(f"a chain that Windows PowerShell 5.1 does not have: {written(chain)[:60]}")
    items: list[Any] | None = None
    for stage in stages:
        if stage.type == "command" and not _is_range(stage):
            items = command(engine, stage, scope, items)
        elif items is None:
            inner = _single(stage)
            worth = engine.value(stage, scope)
            items = [] if inner.type in (*SILENT, *PREFIXED) else unrolled(worth)
        else:
            raise failure(
                "ExpressionsMustBeFirstInPipeline", "Expressions are only allowed as the first element."
            )
    return items or []


PREFIXED = ("pre_increment_expression", "pre_decrement_expression")


def _single(node: Node) -> Node:
    """What is inside of nodes that add nothing."""
    while node.type in ("unary_expression", "expression_with_unary_operator") and len(node.children) == 1:
        node = node.children[0]
    return node


def _is_range(node: Node) -> bool:
    """The grammar takes 1..3 at a pipeline's start for a command."""
    return node.type == "command" and re.fullmatch(r"-?\d+\.\.-?\d+", written(node)) is not None


@expression("pipeline", "pipeline_chain")
def _worth(engine: Engine, node: Node, scope: Variables) -> Any:
    """As a value: one expression keeps its type; what commands write is unrolled."""
    inner = named(node)
    if node.type == "pipeline" and len(inner) == 1:
        return engine.value(inner[0], scope)
    if len(inner) == 1 and inner[0].type != "command":
        return engine.value(inner[0], scope)
    return collapsed(_run(engine, node, scope))


@expression("command")
def _command_worth(engine: Engine, node: Node, scope: Variables) -> Any:
    if _is_range(node):
        low, high = map(int, written(node).split(".."))
        return [*range(low, high + 1)] if low <= high else [*range(low, high - 1, -1)]
    return collapsed(command(engine, node, scope, None))


def command(engine: Engine, node: Node, scope: Variables, items: list[Any] | None) -> list[Any]:
    """Run one command of a pipeline."""
    elements = child(node, "command_elements")
    given, dropped = arguments(engine, elements, scope)
    operator, name = (
        child(node, "command_invocation_operator"),
        child(node, "command_name", "command_name_expr"),
    )
    assert name is not None
    target: Any = written(name)
    if name.type == "command_name_expr":
        inner = named(name)[0]
        target = engine.value(named(inner)[0] if inner.type == "path_command_name" else inner, scope)
    if isinstance(target, ScriptBlock):
        if operator is not None and written(operator) == ".":
            return engine.each(target, scope, NOTHING)
        written_out = script(engine, target.node, given, items, scope)
    else:
        written_out = by_name(engine, text(target), given, items, scope)
    return [] if dropped else written_out


def by_name(
    engine: Engine, name: str, given: Arguments, items: list[Any] | None, scope: Variables
) -> list[Any]:
    """Run the function or cmdlet of that name."""
    function = scope.function(name)
    if function is not None:
        return script(engine, function, given, items, scope)
    known = engine.cmdlets.get(name)
    if known is None:
        raise NotKnown(f"the cmdlet {name}")
    if known.module and not engine.machine.has_module(known.module):
        raise unknown(name)
    engine.succeeded = True
    return call(engine, known, given, items, scope)


def script(
    engine: Engine, node: Node, given: Arguments, items: list[Any] | None, scope: Variables
) -> list[Any]:
    """Call a function or a script block: its parameters by name, then in order."""
    block = node if node.type != "function_statement" else child(node, "script_block")
    assert block is not None
    bound, rest = CaseDict(), list(given.ordered)
    inner = Variables(parent=scope)
    parameters = declared(engine, node, scope)
    unknown = [name for name in given.named if name.lower() not in {each[0].lower() for each in parameters}]
    if unknown:
        raise NotKnown(f"the parameter -{unknown[0]} of {written(node)[:40]!r}")
    for name, kind, default in parameters:
        switch = kind is not None and kind.short == "switch"
        if name in given.named:
            value = given.named[name]
            if value is PRESENT and not switch:
                raise failure("MissingArgument", f"Missing an argument for parameter '{name}'.")
            value = True if value is PRESENT else value
        elif rest and not switch:
            value = rest.pop(0)
        else:
            value = engine.value(default, inner) if default is not None else None
        value = None if value is NOTHING else value
        bound[name] = cast(kind, value) if kind is not None else value
    bound["input"] = items or []
    return engine.invoke(ScriptBlock(block), scope, bound, rest)


def arguments(engine: Engine, elements: Node | None, scope: Variables) -> tuple[Arguments, bool]:
    """What a command line gives, and whether its output is thrown away."""
    given, dropped, waiting = Arguments(), False, ""
    for element in named(elements) if elements is not None else ():
        if element.type == "command_argument_sep":
            continue
        if element.type == "redirection":
            dropped = _redirected(element) or dropped
        elif element.type == "command_parameter":
            if waiting:
                given.named[waiting] = PRESENT
            waiting = written(element).strip("-:")
        elif written(element).startswith("@") and element.type == "unary_expression" and _splat(element):
            _spread(engine, element, given, scope)
        else:
            value = argument(engine, element, scope)
            if waiting and not _is_switch(engine, elements, waiting, element, scope):
                given.named[waiting] = value
                waiting = ""
            elif waiting:
                given.named[waiting], waiting = PRESENT, ""
                given.ordered.append(value)
            else:
                given.ordered.append(value)
    if waiting:
        given.named[waiting] = PRESENT
    return given, dropped


def _is_switch(engine: Engine, elements: Node | None, name: str, value: Node, scope: Variables) -> bool:
    """Whether what stands after -Name is not its value: it is a switch, and no colon stands between."""
    before = value.prev_sibling
    if before is not None and ":" in written(before):
        return False
    assert elements is not None
    holder = elements.parent
    naming = child(holder, "command_name") if holder is not None else None
    if naming is None:
        return False
    function = scope.function(written(naming))
    if function is not None:
        kinds = {each[0].lower(): each[1] for each in declared(engine, function, scope)}
        kind = kinds.get(name.lower())
        return kind is not None and kind.short == "switch"
    known = engine.cmdlets.get(written(naming))
    found = [each.find(name) for each in known.sets] if known is not None else []
    return any(each is not None and each.kind == "switch" for each in found)


def argument(engine: Engine, element: Node, scope: Variables) -> Any:
    if element.type in ("generic_token", "command_argument"):
        word = written(element)
        if re.search(r"[$`'\"(]", word):
            raise NotKnown(f"the argument {word}: put it in quotes")
        return word
    return engine.value(element, scope)


def _splat(element: Node) -> bool:
    inner = _single(element)
    return inner.type == "variable"


def _spread(engine: Engine, element: Node, given: Arguments, scope: Variables) -> None:
    value = engine.variable(written(element)[1:], scope)
    if isinstance(value, Hashtable | PsObject):
        for name, each in value.items():
            given.named[name] = each
    else:
        given.ordered += value if is_list(value) else [value]


def _redirected(element: Node) -> bool:
    """Whether the output goes to $null. Hiding errors changes nothing for a script that stops at each."""
    if not written(element).replace(" ", "").lower().endswith(">$null"):
        raise NotKnown(f"the redirection {written(element)}")
    return written(element)[0] in "1>*"


@expression("assignment_expression")
def _assign(engine: Engine, node: Node, scope: Variables) -> Any:
    left, operator = child(node, "left_assignment_expression"), child(node, "assignment_operator")
    right = node.child_by_field_name("value")
    assert left is not None
    assert operator is not None
    assert right is not None
    value = engine.value(right, scope)
    sign = written(operator)
    if sign != "=":
        [target] = named(left)
        value = ARITHMETIC[sign[0]](engine.value(target, scope), value)
    store(engine, named(left)[0], value, scope)
    return value


def store(engine: Engine, target: Node, value: Any, scope: Variables) -> None:
    """Put a value where the left side says."""
    inner = _single(target)
    if inner.type == "array_literal_expression":
        parts = named(inner)
        items = value if is_list(value) else [value]
        for at, part in enumerate(parts):
            last = at == len(parts) - 1 and len(items) > len(parts)
            store(engine, part, items[at:] if last else items[at] if at < len(items) else None, scope)
    elif inner.type == "variable":
        _set_variable(engine, written(inner)[1:].strip("{}"), value, scope)
    elif inner.type == "member_access" and not is_static(inner):
        owner = engine.value(named(inner)[0], scope)
        members.put(owner, member(engine, inner, scope), None if value is NOTHING else value)
    elif inner.type == "member_access":
        _set_static(written(inner))
    elif inner.type == "element_access":
        owner, index = named(inner)
        members.put_element(engine.value(owner, scope), engine.value(index, scope), value)
    elif inner.type in ("cast_expression", "expression_with_unary_operator"):
        _store_typed(engine, inner if inner.type == "cast_expression" else inner.children[0], value, scope)
    else:
        raise NotKnown(f"an assignment to {written(target)}")


def _store_typed(engine: Engine, node: Node, value: Any, scope: Variables) -> None:
    """[type] $x = …: every later value of $x is cast too."""
    literal, target = named(node)
    kind = TypeName(written(literal)[1:-1])
    store(engine, target, cast(kind, value), scope)
    scope.types[written(target)[1:]] = kind


def _set_static(what: str) -> None:
    if what.lower() not in ("[console]::outputencoding", "[console]::inputencoding"):
        raise NotKnown(f"an assignment to {what}")


def _set_variable(engine: Engine, name: str, value: Any, scope: Variables) -> None:
    drive, colon, rest = name.partition(":")
    if colon and drive.lower() in ("script", "global"):
        scope, name = scope.outermost, rest
    elif colon:
        raise NotKnown(f"an assignment to ${name}")
    if name.lower() in ("true", "false", "null", "error", "args", "input"):
        if name.lower() == "null":
            return
        raise NotKnown(f"an assignment to ${name}")
    kind = scope.types.get(name)
    scope.here[name] = cast(kind, value) if kind is not None else value


@expression("post_increment_expression", "post_decrement_expression", *PREFIXED)
def _increment(engine: Engine, node: Node, scope: Variables) -> Any:
    [target] = named(node)
    former = number(engine.value(target, scope))
    new = former + (1 if "increment" in node.type else -1)
    store(engine, target, new, scope)
    return former if node.type.startswith("post") else new
