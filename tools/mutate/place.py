"""Finds the one place of a mutation and changes it.

A place is a file, optionally a function or class in it, and the source text to replace. The text must occur exactly once
there. A place that is gone or ambiguous is an error and never skipped: the rule may have moved, and would no longer be tested.
"""

from __future__ import annotations

import ast
import textwrap

INDENTS = [" " * width for width in range(0, 44, 4)]


class PlaceError(Exception):
    """The mutation cannot be applied. The message has the reason."""


def mutated(source: str, scope: str, old: str, new: str) -> str:
    """`source` with `old` replaced by `new`. `scope`: a qualified name like `Slot.open`, or "" for the whole file.

    `old` is a part of a line or some whole lines, written without their indentation. Raises PlaceError.
    """
    first, last = _lines_of(source, scope)
    lines = source.splitlines(keepends=True)
    before, text, after = "".join(lines[:first]), "".join(lines[first:last]), "".join(lines[last:])
    changed = before + _replaced(text, old, new) + after
    try:
        tree = ast.parse(changed)
        compile(changed, "<mutation>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise PlaceError(f"the changed source does not compile: {error}") from None
    if ast.dump(tree) == ast.dump(ast.parse(source)):
        raise PlaceError("the change makes no difference to the syntax tree")
    return changed


def _lines_of(source: str, scope: str) -> tuple[int, int]:
    """The first and the end line of a function or class, counted from 0."""
    if not scope:
        return 0, len(source.splitlines())
    bodies: list[ast.AST] = [ast.parse(source)]
    for name in scope.split("."):
        bodies = [
            node
            for body in bodies
            for node in ast.iter_child_nodes(body)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
        ]
    if len(bodies) != 1:
        raise PlaceError(f"{scope} is defined {len(bodies)} times, expected once")
    found = bodies[0]
    assert isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    start = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    assert found.end_lineno is not None
    return start - 1, found.end_lineno


def _replaced(text: str, old: str, new: str) -> str:
    old, new = textwrap.dedent(old).strip("\n"), textwrap.dedent(new).strip("\n")
    if not old.strip():
        raise PlaceError("there is no text to replace")
    if "\n" in old:
        found = [
            (at, indent)
            for indent in INDENTS
            for at in _places("\n" + text, "\n" + textwrap.indent(old, indent) + "\n")
        ]
    else:
        found = [(at, "") for at in _places(text, old)]
    if len(found) != 1:
        raise PlaceError(f"the text occurs {len(found)} times, expected once: {old.splitlines()[0].strip()}")
    at, indent = found[0]
    if "\n" in old:
        end = at + len(textwrap.indent(old, indent))
        return text[:at] + textwrap.indent(new, indent) + text[end:]
    line_start = text.rfind("\n", 0, at) + 1
    if "\n" in new:
        if text[line_start:at].strip():
            raise PlaceError("several lines can only replace whole lines")
        new = textwrap.indent(new, text[line_start:at]).lstrip(" ")
    return text[:at] + new + text[at + len(old) :]


def _places(text: str, wanted: str) -> list[int]:
    places: list[int] = []
    at = text.find(wanted)
    while at >= 0:
        places.append(at)
        at = text.find(wanted, at + 1)
    return places
