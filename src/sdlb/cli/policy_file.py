"""Files of policy documents, for `sdlb policy apply`, `diff` and `edit`: TOML with tables `[policy.NAME]`, or the same as JSON.

Every error names the file and the line.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sdlb.model.policy import Policy
from sdlb.model.policy_layers import check_name
from sdlb.model.problem import Invalid
from sdlb.node.toml_lines import key_lines, line_of
from sdlb.sdk.problem import BASE, Problem

Document = dict[str, Any]
Lines = dict[tuple[str, ...], int]
EXAMPLE = 'write tables like [policy.catalog] or [policy."cat*"]'
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:\n]')
_PLACE = re.compile(r"\(at line (\d+), column \d+\)|\(at end of document\)")


def read(name: str) -> dict[str, Document]:
    """The documents by name. Raises Problem, or OSError when the file cannot be read."""
    text = sys.stdin.read() if name == "-" else Path(name).read_bytes().decode("utf-8", "replace")
    return parse(text, "stdin" if name == "-" else name)


def parse(text: str, file: str) -> dict[str, Document]:
    data, lines = _json(text, file) if text.lstrip()[:1] == "{" else _toml(text, file)

    def fail(path: tuple[str, ...], what: str) -> Problem:
        return _problem(f"{file}:{line_of(lines, path)}: {what}")

    for key in data:
        if key != "policy":
            raise fail((key,), f"{key}: is not a known key; {EXAMPLE}")
    policies = data.get("policy", {})
    if not isinstance(policies, dict):
        raise fail(("policy",), f"policy: is not a table; {EXAMPLE}")
    for policy, document in cast("Document", policies).items():
        try:
            check_name(policy)
            Policy.from_data(document, policy)
        except Invalid as error:
            path, shown = _path(error.where, policy)
            raise fail(("policy", *path), f"{shown}: {error.what}; {error.do}") from error
    return cast("dict[str, Document]", policies)


def _path(where: str, policy: str) -> tuple[tuple[str, ...], str]:
    """The place in the file of "catalog: gate[0]: hours", and how it is shown: "policy.catalog: gate[0]: hours"."""
    shown = f"policy.{_quoted(policy)}"
    if where != policy and not where.startswith(f"{policy}: "):
        return (policy,), f"{shown}: {where}"  # of a value, for example of a version
    inner = where[len(policy) + 2 :]
    parts = inner.split(": ") if inner else []
    path = [each for part in parts for each in re.findall(r"[^\[\]]+", part)]
    return (policy, *path), f"{shown}: {inner}" if inner else shown


def _toml(text: str, file: str) -> tuple[Document, Lines]:
    try:
        return tomllib.loads(text), key_lines(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = _PLACE.search(str(error))
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        what = _PLACE.sub("", str(error)).strip()
        wrong = text.splitlines()[line - 1 : line]
        hint = f"; {EXAMPLE}" if wrong and wrong[0].startswith("[") else ""
        raise _problem(f"{file}:{line}: {what}{hint}") from error


def _json(text: str, file: str) -> tuple[Document, Lines]:
    try:
        return json.loads(text), json_lines(text)
    except json.JSONDecodeError as error:
        raise _problem(f"{file}:{error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise _problem(f"{file}:1: is nested too deeply") from error


def json_lines(text: str) -> Lines:
    """Key -> line, as `key_lines` for TOML. The text has already been read as JSON."""
    lines: Lines = {}
    line = 1
    path: list[str] = []  # of the value that is read
    counts: list[int | None] = []  # of each open value: the number of the item, or None in an object
    last = ""
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token in "{[":
            counts.append(None if token == "{" else 0)
            if token == "[":
                path.append("0")
                lines.setdefault(tuple(path), line)
        elif token in "}]":
            if counts.pop() is not None or last not in "{":
                path.pop()
        elif token == ",":
            number = counts[-1]
            path.pop()
            if number is not None:
                counts[-1] = number + 1
                path.append(str(number + 1))
                lines.setdefault(tuple(path), line)
        elif token == ":":
            path.append(json.loads(last))
            lines.setdefault(tuple(path), line)
        last = token if token != "\n" else last
    return lines


def _problem(text: str) -> Problem:
    return Problem(BASE + "bad-policy", 400, text)


# ---------------------------------------------------------------------- writing


def toml(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """A file with these documents. TOML has no null: a value that is null is written as a comment."""
    parts: list[str] = []
    for name, document in documents.items():
        lines = [f"[policy.{_quoted(name)}]"]
        for key, value in document.items():
            lines.append(
                f"# {key} is set to nothing; 'sdlb policy set --unset {key}' removes that"
                if value is None
                else f"{_quoted(key)} = {_value(value)}"
            )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: object) -> str:
    if isinstance(value, dict):
        table = cast("Document", value)
        return (
            "{" + ", ".join(f"{_quoted(key)} = {_value(each)}" for key, each in table.items() if each is not None) + "}"
        )
    if isinstance(value, list):
        items = cast("list[object]", value)
        if any(isinstance(each, dict) for each in items):
            return "[\n" + "".join(f"    {_value(each)},\n" for each in items) + "]"
        return "[" + ", ".join(map(_value, items)) + "]"
    return json.dumps(value, ensure_ascii=False)
