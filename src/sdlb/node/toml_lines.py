"""Where in a TOML text a key stands: `tomllib` does not keep line numbers, and an error must name one.

A scan of lines, not a parser: it recognises `[table]`, `[[table]]`, `key = ...` and skips multi-line strings. `tomllib` has
already accepted the text, so that anything that looks like a key at the start of a line is one, or part of a value.
"""

from __future__ import annotations

import re

_TABLE = re.compile(r"^\s*\[(\[)?\s*([^\]\[]+?)\s*\]")
_KEY = re.compile(r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART = re.compile(r"[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'")


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Dotted key (array tables with their index) -> line, counted from 1. The first occurrence counts."""
    lines: dict[tuple[str, ...], int] = {}
    arrays: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = ""  # the quotes that end the current multi-line string
    for number, line in enumerate(text.splitlines(), 1):
        if inside:
            if inside in line:
                inside = ""
            continue
        for quotes in ('"""', "'''"):
            if quotes in line and line.count(quotes) % 2:
                inside = quotes
        name, equals, _ = line.partition("=")
        name = name.strip()
        if equals and name.isidentifier():  # nearly always; a node file may have 10,000 sites
            lines.setdefault((*table, name), number)
        elif found := _TABLE.match(line):
            table = _parts(found[2])
            if found[1]:
                arrays[table] = arrays.get(table, -1) + 1
                table = (*table, str(arrays[table]))
            _put(lines, table, number)
        elif found := _KEY.match(line):
            _put(lines, (*table, *_parts(found[1])), number)
    return lines


def _put(lines: dict[tuple[str, ...], int], key: tuple[str, ...], number: int) -> None:
    """Adds the key and the tables that a dotted key implies."""
    for length in range(1, len(key) + 1):
        lines.setdefault(key[:length], number)


def line_of(lines: dict[tuple[str, ...], int], key: tuple[str, ...]) -> int:
    """The line of `key`, or of the nearest table above it; 1 when nothing is known (a key that is missing)."""
    for length in range(len(key), 0, -1):
        if key[:length] in lines:
            return lines[key[:length]]
    return 1
