"""Reads a release file, in TOML or JSON. Each error names the file and, in TOML, the line."""

from __future__ import annotations

import json

from sdlb.model.problem import Invalid
from sdlb.model.release import CODE, Release, read_release
from sdlb.node.text_files import parse_toml, read_text
from sdlb.node.toml_lines import key_lines, line_of


def read_release_file(where: str) -> Release:
    """JSON if the first character is "{". Raises Invalid."""
    text = read_text(where, CODE, "a release file has the keys service, version and artifact")
    return _json(text, where) if text.lstrip().startswith("{") else _toml(text, where)


def _toml(text: str, where: str) -> Release:
    data = parse_toml(text, where, CODE, "a release file has three levels")
    lines = key_lines(text)
    return read_release(data, lambda path: f"{where}:{line_of(lines, path)}" + _key(path))


def _json(text: str, where: str) -> Release:
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise Invalid(CODE, f"{where}:{error.lineno}", f"is not JSON: {error.msg}", "fix that line") from None
    except RecursionError:
        raise Invalid(CODE, where, "is nested too deeply", "a release file has three levels") from None
    except ValueError as error:
        raise Invalid(CODE, where, f"has {error} twice", "keep one of them") from None
    return read_release(data, lambda path: where + _key(path))


def _key(path: tuple[str, ...]) -> str:
    return f": {'.'.join(path)}" if path else ""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON permits a key twice, and readers differ in which one counts."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:60]!r}")
        found[key] = value
    return found
