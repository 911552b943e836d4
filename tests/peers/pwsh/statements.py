"""The statements: if, foreach, while, switch, try, functions, return."""

from __future__ import annotations

import re
from typing import Any

from tree_sitter import Node

from tests.peers.pwsh.convert import text, truth, unrolled
from tests.peers.pwsh.engine import Engine, statement
from tests.peers.pwsh.operators import _is, equal
from tests.peers.pwsh.raising import Break, Continue, Exit, Raised, Return
from tests.peers.pwsh.syntax import child, named, written
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import (
    NOTHING,
    ErrorRecord,
    NetException,
    ScriptBlock,
    TypeName,
    Variables,
)


@statement("empty_statement", "comment", "attribute_statement")
def _nothing(_engine: Engine, _node: Node, _scope: Variables, _out: list[Any]) -> None:
    pass


@statement("statement_block", "statement_list")
def _block(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    engine.body(node, scope, out)


@statement("function_statement")
def _function(_engine: Engine, node: Node, scope: Variables, _out: list[Any]) -> None:
    name, block = child(node, "function_name"), child(node, "script_block")
    assert name is not None
    if block is None:
        raise NotKnown(f"a function without a body: {written(node)[:60]}")
    scope.functions[written(name)] = node


@statement("if_statement")
def _if(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    clauses = [node, *(child(node, "elseif_clauses") or node).children]
    for clause in (each for each in clauses if each.type in ("if_statement", "elseif_clause")):
        condition, block = clause.child_by_field_name("condition"), child(clause, "statement_block")
        assert condition is not None
        assert block is not None
        if truth(engine.value(condition, scope)):
            return engine.body(block, scope, out)
    otherwise = child(node, "else_clause")
    if otherwise is not None:
        [block] = named(otherwise)
        engine.body(block, scope, out)
    return None


def _loops(engine: Engine, block: Node, scope: Variables, out: list[Any]) -> bool:
    """One turn of a loop; whether there may be another."""
    try:
        engine.body(block, scope, out)
    except Continue:
        return True
    except Break:
        return False
    return True


@statement("foreach_statement")
def _foreach(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    variable, source, block = named(node)
    items = engine.value(source, scope)
    # unlike a pipeline, foreach makes no turn for $null
    for item in [] if items is None else unrolled(items):
        scope.here[written(variable)[1:]] = item
        if not _loops(engine, block, scope, out):
            return


@statement("while_statement")
def _while(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    condition, block = named(node)
    while truth(engine.value(named(condition)[0], scope)) and _loops(engine, block, scope, out):
        pass


@statement("do_statement")
def _do(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    block, condition = named(node)
    wanted = child(node, "while") is not None
    while _loops(engine, block, scope, out) and truth(engine.value(named(condition)[0], scope)) is wanted:
        pass


@statement("for_statement")
def _for(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    start, test, step = (
        node.child_by_field_name(f"for_{part}") for part in ("initializer", "condition", "iterator")
    )
    block = child(node, "statement_block")
    assert block is not None
    if start is not None:
        engine.execute(named(start)[0], scope, [])
    while test is None or truth(engine.value(named(test)[0], scope)):
        if not _loops(engine, block, scope, out):
            return
        if step is not None:
            engine.execute(named(step)[0], scope, [])


@statement("switch_statement")
def _switch(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    condition, body = child(node, "switch_condition"), child(node, "switch_body")
    flags = child(node, "switch_parameters")
    if condition is None or body is None or flags is not None:
        raise NotKnown(f"this kind of switch: {written(node)[:60]}")
    value = engine.value(named(condition)[0], scope)
    [clauses] = named(body)
    for item in unrolled(value):
        try:
            _cases(engine, clauses, item, scope, out)
        except Break:
            return
        except Continue:
            continue


def _cases(engine: Engine, clauses: Node, item: Any, scope: Variables, out: list[Any]) -> None:
    """Every clause that fits is run, not the first alone; default where none did."""
    hit = False
    for clause in named(clauses):
        condition, block = named(clause)
        if written(condition).lower() == "default":
            if hit:
                continue
        elif not _fits(engine, condition, item, scope):
            continue
        hit = True
        out += engine.each(ScriptBlock(block), scope, item)


def _fits(engine: Engine, condition: Node, item: Any, scope: Variables) -> bool:
    inner = named(condition)
    if not inner:
        return equal(item, written(condition))
    wanted = engine.value(inner[0], scope)
    if isinstance(wanted, ScriptBlock):
        return any(truth(value) for value in engine.each(wanted, scope, item))
    return equal(text(item) if isinstance(wanted, str) else item, wanted)


@statement("flow_control_statement")
def _flow(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    word, values = node.children[0].type.lower(), named(node)
    if word == "return":
        if values:
            engine.execute(values[0], scope, out)
        raise Return
    if word in ("break", "continue") and not values:
        raise Break if word == "break" else Continue
    if word == "exit":
        raise Exit(int(engine.value(values[0], scope)) if values else 0)
    if word == "throw":
        raise _thrown(engine, engine.value(values[0], scope) if values else NOTHING, scope)
    raise NotKnown(f"the flow control {written(node)[:60]}")


def _thrown(engine: Engine, value: Any, _scope: Variables) -> Raised:
    if value is NOTHING and engine.current:
        return Raised(engine.current[-1])
    if isinstance(value, ErrorRecord):
        return Raised(value)
    if isinstance(value, NetException):
        return Raised(ErrorRecord(value, value.message, "OperationStopped"))
    words = "ScriptHalted" if value is NOTHING else text(value)
    exception = NetException("System.Management.Automation.RuntimeException", words)
    return Raised(ErrorRecord(exception, words, "OperationStopped", value))


@statement("try_statement")
def _try(engine: Engine, node: Node, scope: Variables, out: list[Any]) -> None:
    block, catches = child(node, "statement_block"), child(node, "catch_clauses")
    ending = child(node, "finally_clause")
    assert block is not None
    try:
        engine.body(block, scope, out)
    except Raised as raised:
        engine.errors.insert(0, raised.record)
        clause = _catching(engine, catches, raised.record) if catches is not None else None
        if clause is None:
            raise
        _caught(engine, clause, raised.record, scope, out)
    finally:
        if ending is not None:
            [last] = named(ending)
            engine.body(last, scope, out)


def _caught(engine: Engine, clause: Node, record: ErrorRecord, scope: Variables, out: list[Any]) -> None:
    block = child(clause, "statement_block")
    assert block is not None
    engine.current.append(record)
    former = scope.here.get("_", NOTHING)
    scope.here["_"] = record
    try:
        engine.body(block, scope, out)
    finally:
        engine.current.pop()
        scope.here["_"] = None if former is NOTHING else former


def _catching(engine: Engine, catches: Node, record: ErrorRecord) -> Node | None:
    """The first catch whose type the exception is, or what is inside of a method's exception."""
    exceptions: list[NetException] = []
    at: NetException | None = record.exception
    while at is not None:
        exceptions.append(at)
        at = at.properties["InnerException"]
    for clause in named(catches):
        types = child(clause, "catch_type_list")
        if types is None:
            return clause
        names = [TypeName(written(each)[1:-1]) for each in named(types)]
        if any(_is(exception, name) for exception in exceptions for name in names):
            return clause
    return None


def declared(
    engine: Engine, function: Node, scope: Variables
) -> list[tuple[str, TypeName | None, Node | None]]:
    """The parameters of a function or block: name, type, default."""
    block = child(function, "script_block")
    listed = engine.parameters(block if block is not None else function)
    heading = child(function, "function_parameter_declaration")
    if heading is not None:
        listed = child(heading, "parameter_list")
    return [_parameter(each) for each in (named(listed) if listed is not None else ())]


def _parameter(node: Node) -> tuple[str, TypeName | None, Node | None]:
    variable, default = child(node, "variable"), child(node, "script_parameter_default")
    assert variable is not None
    attributes = child(node, "attribute_list")
    kind = None
    for attribute in named(attributes) if attributes is not None else ():
        literal = child(attribute, "type_literal")
        if literal is not None:
            kind = TypeName(written(literal)[1:-1])
        elif not re.match(
            r"\[(Parameter|AllowNull|AllowEmptyString|AllowEmptyCollection)\b", written(attribute)
        ):
            raise NotKnown(f"the attribute {written(attribute)}")
    return written(variable)[1:], kind, named(default)[0] if default is not None else None
