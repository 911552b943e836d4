"""Walks the syntax tree: what a node is worth, and what a statement does. The nodes register themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tree_sitter import Node

from tests.peers.pwsh.convert import collapsed, described, text
from tests.peers.pwsh.raising import Leave, Raised, Return, failure
from tests.peers.pwsh.syntax import child, named, parsed, written
from tests.peers.pwsh.unknown import NotKnown
from tests.peers.pwsh.values import NOTHING, CaseDict, ErrorRecord, ScriptBlock, Variables

if TYPE_CHECKING:
    from tests.peers.pwsh.cmdlet import Cmdlet

Expression = Callable[["Engine", Node, Variables], Any]
Statement = Callable[["Engine", Node, Variables, list[Any]], None]
EXPRESSIONS: dict[str, Expression] = {}
STATEMENTS: dict[str, Statement] = {}


def expression(*types: str) -> Callable[[Expression], Expression]:
    """This function says what such a node is worth."""

    def register(function: Expression) -> Expression:
        EXPRESSIONS.update(dict.fromkeys(types, function))
        return function

    return register


def statement(*types: str) -> Callable[[Statement], Statement]:
    """This function does what such a node says, and adds what it writes to a list."""

    def register(function: Statement) -> Statement:
        STATEMENTS.update(dict.fromkeys(types, function))
        return function

    return register


class Engine:
    """One PowerShell: its variables, its cmdlets, what it has written.

    Args:
        cmdlets: those that can be called, by name.
        machine: what the cmdlets act on.
        environment: $env:.
        pause: what Start-Sleep does with its seconds.
    """

    def __init__(
        self,
        cmdlets: Mapping[str, Cmdlet],
        machine: Any = None,
        environment: Mapping[str, str] | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.pause = pause
        self.cmdlets = CaseDict(dict(cmdlets))
        self.machine = machine
        self.environment = CaseDict(dict(environment or {}))
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.errors: list[ErrorRecord] = []
        self.current: list[ErrorRecord] = []
        self.imported: set[str] = set()
        self.strict = 0.0
        self.succeeded = True
        self.globals = Variables()
        self.globals.here["ErrorActionPreference"] = "Continue"
        self.globals.here["ConfirmPreference"] = "High"

    def run(self, source: str) -> list[Any]:
        """Run a script; what it writes to the pipeline.

        Raises:
            BadSyntax: it is none.
            Raised: it ended by an error.
            Exit: it ended by exit.
        """
        out: list[Any] = []
        with suppress(Return):
            self.body(parsed(source), self.globals, out)
        return out

    def value(self, node: Node, scope: Variables) -> Any:
        """What an expression is worth."""
        # between a method's parentheses the grammar has names of its own for the same expressions
        known = EXPRESSIONS.get(node.type.replace("_argument_expression", "_expression"))
        if known is not None:
            return known(self, node, scope)
        if node.type in STATEMENTS:
            out: list[Any] = []
            self.execute(node, scope, out)
            return collapsed(out)
        raise NotKnown(f"line {node.start_point[0] + 1}: the expression {node.type}: {written(node)[:80]}")

    def execute(self, node: Node, scope: Variables, out: list[Any]) -> None:
        """Do what a statement says."""
        known = STATEMENTS.get(node.type)
        if known is None:
            raise NotKnown(f"line {node.start_point[0] + 1}: the statement {node.type}: {written(node)[:80]}")
        known(self, node, scope, out)

    def body(self, node: Node, scope: Variables, out: list[Any]) -> None:
        """Run what is in a program, a script block or a braced block."""
        for part in named(node):
            if part.type in ("script_block_body", "statement_list", "script_block"):
                self.body(part, scope, out)
            elif part.type == "named_block_list":
                raise NotKnown(f"begin, process and end blocks: {written(part)[:60]}")
            elif part.type not in ("param_block", "attribute_list"):
                self.execute(part, scope, out)

    def invoke(
        self, block: ScriptBlock, scope: Variables, arguments: Mapping[str, Any] | None = None, rest: Any = ()
    ) -> list[Any]:
        """Call a script block or function in a scope of its own."""
        inner = Variables(parent=scope)
        inner.here["args"] = list(rest)
        for name, value in (arguments or {}).items():
            inner.here[name] = value
        out: list[Any] = []
        with suppress(Return):
            self.body(block.node, inner, out)
        return out

    def each(self, block: ScriptBlock, scope: Variables, item: Any) -> list[Any]:
        """Run a block as ForEach-Object does: in the caller's scope, with the item in $_."""
        former = scope.here.get("_", NOTHING)
        scope.here["_"] = item
        out: list[Any] = []
        try:
            self.body(block.node, scope, out)
        except Return:
            pass
        finally:
            if former is NOTHING:
                del scope.here["_"]
            else:
                scope.here["_"] = former
        return out

    def variable(self, name: str, scope: Variables) -> Any:
        """What a variable holds; an error where it is not set and the mode is strict."""
        holder = scope.holder(name)
        if holder is not None:
            return holder.here[name]
        if self.strict >= 1:
            message = f"The variable '${name}' cannot be retrieved because it has not been set."
            raise failure("VariableIsUndefined", message, "InvalidOperation")
        return None

    def report(self, record: ErrorRecord, scope: Variables, action: str | None = None) -> None:
        """An error that a cmdlet can go on after: what becomes of it is the caller's preference."""
        wanted = (action or text(self.variable("ErrorActionPreference", scope))).lower()
        self.succeeded = False
        if wanted == "stop":
            raise Raised(record)
        if wanted != "ignore":
            self.errors.insert(0, record)
        if wanted == "continue":
            self.stderr.append(described(record))

    @staticmethod
    def parameters(block: Node) -> Node | None:
        """The parameter list of a script block, where it has one."""
        holder = child(block, "script_block") if block.type == "script_block_expression" else block
        declared = child(holder, "param_block") if holder is not None else None
        return child(declared, "parameter_list") if declared is not None else None


__all__ = ["Engine", "Leave", "expression", "statement"]
