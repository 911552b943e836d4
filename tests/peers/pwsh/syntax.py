"""The syntax tree of a script, and what stands in its texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import tree_sitter_pwsh
from tree_sitter import Language, Node, Parser

LANGUAGE = Language(tree_sitter_pwsh.language())
ESCAPES = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "0": "\0",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "e": "\x1b",
}


class BadSyntax(Exception):
    """A script cannot be parsed; says where."""


@lru_cache(maxsize=256)
def parsed(source: str) -> Node:
    """The tree of a script.

    Raises:
        BadSyntax: it is none.
    """
    tree = Parser(LANGUAGE).parse(source.encode())
    for node in every(tree.root_node):
        if node.is_error or node.is_missing:
            row, column = node.start_point
            raise BadSyntax(f"line {row + 1}, column {column + 1}: {written(node)[:80]!r}")
    return tree.root_node


def every(node: Node) -> Iterator[Node]:
    """A node and all that is in it, in order."""
    yield node
    for child in node.children:
        yield from every(child)


def written(node: Node) -> str:
    """How a node is written; the grammar gives some of them the space before."""
    return (node.text or b"").decode().strip()


def named(node: Node) -> list[Node]:
    """A node's children less punctuation and comments."""
    return [child for child in node.children if child.is_named and child.type != "comment"]


def child(node: Node, *types: str) -> Node | None:
    """The first child of these types."""
    return next((each for each in node.children if each.type in types), None)


def verbatim(node: Node) -> str:
    """'text' or a here-string of it."""
    body = (node.text or b"").decode()
    if node.type == "verbatim_here_string_characters":
        return re.sub(r"\r?\n'@$", "", re.sub(r"^@'[ \t]*\r?\n", "", body.strip()))
    return body.strip()[1:-1].replace("''", "'")


def expandable(node: Node) -> Iterator[str | Node]:
    """The pieces of "text": what is literal, and the nodes whose values stand in it."""
    whole = node.text or b""
    here = node.type == "expandable_here_string_literal"
    opening = re.match(rb'\s*@"[ \t]*\r?\n' if here else rb'\s*"', whole)
    closing = re.search(rb'\r?\n"@$' if here else rb'"$', whole)
    assert opening is not None
    assert closing is not None
    at, end = opening.end(), closing.start()
    for part in (each for each in node.children if each.type in ("variable", "sub_expression")):
        start = part.start_byte - node.start_byte
        yield unescaped(whole[at:start].decode(), here)
        yield part
        at = part.end_byte - node.start_byte
    yield unescaped(whole[at:end].decode(), here)


def unescaped(literal: str, here: bool = False) -> str:
    """Backticks, and doubled quotes, as what they stand for."""
    plain = literal if here else literal.replace('""', '"')
    return re.sub(r"`(.)", lambda found: ESCAPES.get(found[1], found[1]), plain, flags=re.DOTALL)
