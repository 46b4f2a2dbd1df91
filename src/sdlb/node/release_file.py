"""Reads a release file or a rollout file, in TOML or JSON. Each error names the file and, in TOML, the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from sdlb.model import release, rollout_reader
from sdlb.model.problem import Invalid
from sdlb.model.release import Release, read_release
from sdlb.model.rollout_reader import RolloutFile, read_rollout
from sdlb.node.text_files import parse_toml, read_text
from sdlb.node.toml_lines import key_lines, line_of

T = TypeVar("T")
Place = Callable[[tuple[str, ...]], str]
Read = Callable[[object, Place], T]


def read_release_file(where: str) -> Release:
    """JSON if the first character is "{". Raises Invalid."""
    return _read(where, release.CODE, "a release file has the keys service, version and artifact", read_release)


def read_rollout_file(where: str) -> RolloutFile:
    """As `read_release_file`."""
    return _read(where, rollout_reader.CODE, "a rollout file has the key release and settings", read_rollout)


def place_in_release(where: str, key: str) -> str:
    """The place of a key of a release file, for messages."""
    text = read_text(where, release.CODE, "")
    return where if text.lstrip().startswith("{") else f"{where}:{line_of(key_lines(text), (key,))}"


def _read(where: str, code: str, expected: str, read: Read[T]) -> T:
    text = read_text(where, code, expected)
    if text.lstrip().startswith("{"):
        return read(_json(text, where, code), lambda path: where + _key(path))
    data = parse_toml(text, where, code, "use at most three levels")
    lines = key_lines(text)
    return read(data, lambda path: f"{where}:{line_of(lines, path)}" + _key(path))


def _json(text: str, where: str, code: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise Invalid(code, f"{where}:{error.lineno}", f"is not JSON: {error.msg}", "fix that line") from None
    except RecursionError:
        raise Invalid(code, where, "is nested too deeply", "use at most three levels") from None
    except ValueError as error:
        raise Invalid(code, where, f"has {error} twice", "keep one of them") from None


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
