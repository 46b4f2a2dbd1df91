"""Command lines and environments in a node file: lists and tables, never texts for a shell."""

from __future__ import annotations

import re
from typing import cast

from sdlb.node.config_reader import Reader

WORDS_MAX = 256
WORD_CHARS_MAX = 4096
OURS = "SDLB_"
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_COMMAND = 'a list: the absolute path of the program and its arguments, for example ["/usr/local/bin/migrate", "--yes"]'


def read_words(table: Reader, key: str, expected: str) -> tuple[str, ...]:
    """A required list of at least one word."""
    if key not in table:
        table.refuse(key, "is missing", f"expected {expected}")
    value = table.get(key)
    if not isinstance(value, list):
        table.fail(key, f"{expected}; no shell reads it")
    words = cast("list[object]", value)
    if not 1 <= len(words) <= WORDS_MAX or not all(map(_is_word, words)):
        table.fail(key, f"{expected}; at most {WORDS_MAX} strings of up to {WORD_CHARS_MAX} characters")
    return tuple(cast("list[str]", words))


def read_command(table: Reader, key: str, expected: str = _COMMAND) -> tuple[str, ...]:
    """A required command line that starts with the absolute path of the program."""
    found = read_words(table, key, expected)
    if not found[0].startswith("/"):
        table.fail(key, expected)
    return found


def read_env(table: Reader) -> dict[str, str]:
    if "env" not in table:
        return {}
    inner = table.table("env", ())
    data = cast("dict[str, object]", table.get("env"))
    if len(data) > WORDS_MAX:
        table.refuse("env", f"has {len(data)} variables", f"use at most {WORDS_MAX}")
    for name, value in data.items():
        if not _VARIABLE.match(name):
            inner.refuse(name, "is not a variable's name", "use letters, digits and underscores")
        if name.startswith(OURS):
            inner.refuse(name, f"starts with {OURS}, which sdlb sets itself", "use another name")
        if not _is_word(value):
            inner.fail(name, f"a string of at most {WORD_CHARS_MAX} characters")
    return cast("dict[str, str]", data)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= WORD_CHARS_MAX and "\0" not in value
