"""Reads the JSON objects of a policy document and reports each bad key."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import cast

from sdlb.model.problem import Invalid
from sdlb.model.version import check_version, parse_declaration

LIST_MAX = 64


class Reader:
    """One JSON object with known keys. Every Invalid that it raises names the key and what was expected."""

    def __init__(self, data: object, where: str, keys: tuple[str, ...] | None, lenient: bool = False) -> None:
        """Raises Invalid if `data` is no object or has unknown keys. `lenient`: unknown keys are ignored. `keys` None: they
        depend on a value, and `only` checks them."""
        self._where = where
        self._lenient = lenient
        if not isinstance(data, dict):
            do = f"use the keys {', '.join(keys)}" if keys is not None else "use an object"
            raise Invalid("bad-policy", where, "is not an object", do)
        self._data = cast("dict[str, object]", data)
        if keys is not None:
            self.only(keys)

    def only(self, keys: tuple[str, ...]) -> None:
        """Raises Invalid if there are other keys."""
        for key in self._data:
            if key not in keys and not self._lenient:
                near = get_close_matches(str(key), keys, 1)
                do = f"did you mean {near[0]!r}?" if near else f"use {', '.join(keys)}"
                raise Invalid("bad-policy", f"{self._where}: {str(key)[:80]}", "is not a known key", do)

    @property
    def lenient(self) -> bool:
        return self._lenient

    def path(self, key: str) -> str:
        return f"{self._where}: {key}"

    def fail(self, key: str, do: str) -> Invalid:
        shown = json.dumps(self._data.get(key), default=str)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return Invalid("bad-policy", f"{self._where}: {key}", f"has the value {shown}", do)

    def get(self, key: str, default: object = None) -> object:
        return self._data.get(key, default)

    def inner(self, key: str, keys: tuple[str, ...]) -> Reader | None:
        value = self._data.get(key)
        return None if value is None else Reader(value, f"{self._where}: {key}", keys, self._lenient)

    def one_of(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self._data.get(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.fail(key, f"use one of {', '.join(choices)}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.fail(key, f"use a number from {low:g} to {high:g}")
        return value

    def count(self, key: str, default: int, high: int) -> int:
        value = self.number(key, default, 0, high)
        if value != int(value):
            raise self.fail(key, f"use a whole number from 0 to {high}")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._data.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "use true or false")
        return value

    def text(self, key: str, do: str, chars_max: int, default: str | None = None) -> str:
        """A printable text without spaces at its ends. `default` None: it is required."""
        value = self._data.get(key, default)
        if not isinstance(value, str) or len(value) > chars_max or not value.isprintable() or value != value.strip():
            raise self.fail(key, do)
        if not value and default is None:
            raise self.fail(key, do)
        return value

    def strings(self, key: str, most: int, default: list[str], do: str) -> list[str]:
        value = self._data.get(key, default)
        if not isinstance(value, list) or len(cast("list[object]", value)) > most:
            raise self.fail(key, do)
        found = cast("list[object]", value)
        if not all(isinstance(item, str) and len(item) <= 128 and item.isprintable() for item in found):
            raise self.fail(key, do)
        return cast("list[str]", found)

    def objects(self, key: str, most: int) -> list[Reader]:
        """A list of objects, whose keys depend on their values (`only`)."""
        value = self._data.get(key, [])
        if not isinstance(value, list) or len(cast("list[object]", value)) > most:
            raise self.fail(key, f"use a list of at most {most} objects")
        items = cast("list[object]", value)
        return [Reader(item, f"{self._where}: {key}[{at}]", None, self._lenient) for at, item in enumerate(items)]

    def name(self, key: str, do: str) -> str:
        """The name of a header field or cookie; "" if it is not set."""
        value = self._data.get(key)
        value = "" if value is None else value
        if not isinstance(value, str) or len(value) > 128 or any(c <= " " or c > "~" or c in '=;,:"' for c in value):
            raise self.fail(key, do)
        return value

    def shares(self) -> dict[str, float]:
        value = self._data.get("shares")
        if value is None:
            return {}
        do = 'use an object of version: percent, for example {"1.0.2": 5}, of at most 100 together'
        if not isinstance(value, dict) or len(cast("dict[str, object]", value)) > LIST_MAX:
            raise self.fail("shares", do)
        shares: dict[str, float] = {}
        for version, percent in cast("dict[str, object]", value).items():
            check_version(version)
            if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 0 <= percent <= 100:
                raise self.fail("shares", do)
            shares[version] = percent
        if sum(shares.values()) > 100:
            raise self.fail("shares", do)
        return shares

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        value = self._data.get(key, [])
        do = 'use a list of pairs of versions, for example [["1.0.2", "1.1.0"]]'
        if not isinstance(value, list) or len(cast("list[object]", value)) > LIST_MAX:
            raise self.fail(key, do)
        pairs: list[tuple[str, str]] = []
        for item in cast("list[object]", value):
            if not isinstance(item, list):
                raise self.fail(key, do)
            pair = cast("list[object]", item)
            if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str):
                raise self.fail(key, do)
            pairs.append((check_version(pair[0]), check_version(pair[1])))
        return tuple(pairs)

    def ranges(self) -> tuple[str, ...]:
        value = self._data.get("ranges", [])
        if not isinstance(value, list) or len(cast("list[object]", value)) > LIST_MAX:
            raise self.fail("ranges", "use a list of ranges, for example ['>=1.0,<1.2']")
        ranges: list[str] = []
        for item in cast("list[object]", value):
            if not isinstance(item, str):
                raise self.fail("ranges", "use a list of ranges, for example ['>=1.0,<1.2']")
            parse_declaration(item)
            ranges.append(item)
        return tuple(ranges)
