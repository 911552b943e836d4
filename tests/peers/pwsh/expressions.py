"""The expressions: literals, variables, members, operators, and pipelines as values."""

from __future__ import annotations

import re
from typing import Any

from tree_sitter import Node

from tests.peers.pwsh import members, statics
from tests.peers.pwsh.convert import UNITS, cast, collapsed, is_list, number, text, truth
from tests.peers.pwsh.engine import Engine, expression
from tests.peers.pwsh.operators import ARITHMETIC, COMPARISONS, formatted, regex
from tests.peers.pwsh.syntax import child, expandable, named, verbatim, written
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import NOTHING, Hashtable, ScriptBlock, TypeName, Variables


@expression("unary_expression", "argument_expression", "assignment_value", "key_expression", "condition")
def _only(engine: Engine, node: Node, scope: Variables) -> Any:
    [inner] = named(node)
    return engine.value(inner, scope)


@expression("integer_literal", "decimal_integer_literal", "hexadecimal_integer_literal", "real_literal")
def _number(_engine: Engine, node: Node, _scope: Variables) -> int | float:
    found = re.fullmatch(
        r"(0x[0-9a-f]+|\d*\.?\d+(?:e[+-]?\d+)?)(l|d|ul|u)?([kmgtp]b)?", written(node).lower()
    )
    if found is None:
        raise NotKnown(f"the number {written(node)}")
    digits = found[1]
    size = int(digits, 16) if "x" in digits else int(digits) if digits.isdigit() else float(digits)
    return size * UNITS.get(found[3] or "", 1)


@expression("string_literal")
def _string(engine: Engine, node: Node, scope: Variables) -> str:
    inner = named(node)[0]
    if inner.type.startswith("verbatim"):
        return verbatim(inner)
    pieces = expandable(inner)
    return "".join(piece if isinstance(piece, str) else text(engine.value(piece, scope)) for piece in pieces)


@expression("sub_expression", "array_expression")
def _statements(engine: Engine, node: Node, scope: Variables) -> Any:
    out: list[Any] = []
    inner = child(node, "statement_list")
    if inner is not None:
        engine.body(inner, scope, out)
    return collapsed(out) if node.type == "sub_expression" else out


@expression("parenthesized_expression")
def _parentheses(engine: Engine, node: Node, scope: Variables) -> Any:
    [inner] = named(node)
    return engine.value(inner, scope)


@expression("variable")
def _variable(engine: Engine, node: Node, scope: Variables) -> Any:
    name = written(node)[1:].strip("{}")
    drive, colon, rest = name.partition(":")
    if colon and drive.lower() == "env":
        return engine.environment.get(rest)
    if colon and drive.lower() in ("script", "global"):
        return engine.variable(rest, scope.outermost)
    if colon and drive.lower() == "using":
        raise NotKnown(f"${name}: $using: is worth something only where Invoke-Command replaces it")
    constants = {"true": True, "false": False, "null": None}
    if name.lower() in constants:
        return constants[name.lower()]
    if name.lower() == "error":
        return list(engine.errors)
    if name == "?":
        return engine.succeeded
    return engine.variable("_" if name.lower() == "psitem" else name, scope)


@expression("type_literal")
def _type(_engine: Engine, node: Node, _scope: Variables) -> TypeName:
    return TypeName(re.sub(r"\s", "", written(node)[1:-1]))


@expression("script_block_expression")
def _script_block(_engine: Engine, node: Node, _scope: Variables) -> ScriptBlock:
    block = child(node, "script_block")
    return ScriptBlock(node if block is None else block)


@expression("hash_literal_expression")
def _hashtable(engine: Engine, node: Node, scope: Variables) -> Hashtable:
    made = Hashtable()
    body = child(node, "hash_literal_body")
    for entry in named(body) if body is not None else ():
        key, value = named(entry)
        [spelt] = named(key)
        name = written(spelt) if spelt.type == "simple_name" else engine.value(spelt, scope)
        made[name] = engine.value(value, scope)
    return made


@expression("array_literal_expression")
def _array(engine: Engine, node: Node, scope: Variables) -> list[Any]:
    return [engine.value(item, scope) for item in named(node)]


@expression("expression_with_unary_operator")
def _unary(engine: Engine, node: Node, scope: Variables) -> Any:
    first = node.children[0]
    if first.type in ("cast_expression", "pre_increment_expression", "pre_decrement_expression"):
        return engine.value(first, scope)
    operator, value = written(first).lower(), engine.value(named(node)[-1], scope)
    if operator in ("-not", "!"):
        return not truth(value)
    if operator == ",":
        return [value]
    if operator == "-":
        return -number(value)
    if operator == "+":
        return number(value)
    raise NotKnown(f"the operator {operator}")


@expression("cast_expression")
def _cast(engine: Engine, node: Node, scope: Variables) -> Any:
    literal, operand = named(node)
    name, value = TypeName(written(literal)[1:-1]), engine.value(operand, scope)
    if name.short == "void":
        return NOTHING
    if name.short == "ordered":
        return value
    if is_list(value) and name.short == "pscustomobject":
        return value
    return cast(name, value)


@expression("logical_expression")
def _logical(engine: Engine, node: Node, scope: Variables) -> bool:
    left, operator, right = (each for each in node.children if each.type != "comment")
    first = truth(engine.value(left, scope))
    word = written(operator).lower()
    if word == "-and":
        return first and truth(engine.value(right, scope))
    if word == "-or":
        return first or truth(engine.value(right, scope))
    return first is not truth(engine.value(right, scope))


@expression("comparison_expression")
def _comparison(engine: Engine, node: Node, scope: Variables) -> Any:
    left, operator, right = named(node)
    word = written(operator).lower()[1:]
    a, b = engine.value(left, scope), engine.value(right, scope)
    if word in ("match", "notmatch"):
        return _match(engine, word == "match", a, b, scope)
    known = COMPARISONS.get(word) or COMPARISONS.get(re.sub("^i", "", word))
    if known is None:
        raise NotKnown(f"the operator -{word}")
    return known(a, b)


def _match(engine: Engine, wanted: bool, left: Any, right: Any, scope: Variables) -> Any:
    pattern = re.compile(regex(text(right)), re.IGNORECASE)
    if is_list(left):
        return [item for item in left if (pattern.search(text(item)) is not None) is wanted]
    found = pattern.search(text(left))
    if found:
        groups: dict[Any, Any] = dict(enumerate(found.groups(), 1))
        scope.here["Matches"] = Hashtable({0: found[0], **groups, **found.groupdict()})  # type: ignore[dict-item]
    return (found is not None) is wanted


@expression("additive_expression", "multiplicative_expression")
def _arithmetic(engine: Engine, node: Node, scope: Variables) -> Any:
    left, operator, right = (each for each in node.children if each.type != "comment")
    word = written(operator).lower()
    if word not in ARITHMETIC:
        raise NotKnown(f"the operator {word}")
    return ARITHMETIC[word](engine.value(left, scope), engine.value(right, scope))


@expression("format_expression")
def _format(engine: Engine, node: Node, scope: Variables) -> str:
    left, _operator, right = named(node)
    return formatted(engine.value(left, scope), engine.value(right, scope))


@expression("range_expression")
def _range(engine: Engine, node: Node, scope: Variables) -> list[int]:
    low, high = (int(number(engine.value(each, scope))) for each in named(node))
    return [*range(low, high + 1)] if low <= high else [*range(low, high - 1, -1)]


def is_static(node: Node) -> bool:
    return any(each.type == "::" for each in node.children)


def member(engine: Engine, node: Node, scope: Variables) -> str:
    """The name of the member that a node asks for."""
    holder = child(node, "member_name")
    assert holder is not None
    inner = named(holder)
    if not inner or inner[0].type == "simple_name":
        return written(holder)
    return text(engine.value(inner[0], scope))


@expression("member_access")
def _member_access(engine: Engine, node: Node, scope: Variables) -> Any:
    owner = engine.value(named(node)[0], scope)
    if is_static(node):
        return statics.value(engine, owner, member(engine, node, scope))
    return members.value(owner, member(engine, node, scope), strict=engine.strict >= 2)


@expression("invocation_expression")
def _invocation(engine: Engine, node: Node, scope: Variables) -> Any:
    owner = engine.value(named(node)[0], scope)
    given = child(node, "argument_list")
    listed = given.child_by_field_name("argument_expression_list") if given is not None else None
    arguments = [engine.value(each, scope) for each in named(listed)] if listed is not None else []
    arguments = [None if each is NOTHING else each for each in arguments]
    name = member(engine, node, scope)
    if is_static(node):
        return statics.call(owner, name, arguments)
    return members.call(owner, name, arguments)


@expression("element_access")
def _element(engine: Engine, node: Node, scope: Variables) -> Any:
    owner, index = named(node)
    return members.element(engine.value(owner, scope), engine.value(index, scope), strict=engine.strict >= 3)
