"""What operators set for a service, live: priority among versions, compatibility, silence, parking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import cast

from sdlb.model.problem import Invalid
from sdlb.model.version import RULES, SCHEMES, Compatibility, check_version, parse_declaration

PRIORITIES = ("even", "higher", "lower", "share")
ON_SILENCE = ("open", "wait")
STICKY_BY = ("cookie", "header", "client")
LIST_MAX = 64


@dataclass(frozen=True, slots=True)
class Sticky:
    """One client stays with one version: by the value of a cookie or header, or by its address. `by`: see STICKY_BY."""

    by: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Park:
    """How many requests of a service wait, and for how long, while it has no active version but one is expected."""

    requests_max: int = 1000
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """`shares`: version -> percent, for priority "share"; what they leave goes to the other versions by capacity."""

    priority: str = "even"
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    sticky: Sticky | None = None
    compatibility: Compatibility = Compatibility()
    on_silence: str = "open"
    park: Park = Park()

    @staticmethod
    def from_json(text: str, where: str = "policy") -> Policy:
        """The whole document or Invalid, which names the key."""
        if len(text) > 65536:
            raise Invalid("bad-policy", where, "is longer than 64 KiB", "make it shorter")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Invalid("bad-policy", where, f"is not JSON ({error})", "send one JSON object") from None
        return Policy.from_data(data, where)

    @staticmethod
    def from_data(data: object, where: str = "policy") -> Policy:
        top = _Reader(data, where, ("priority", "shares", "sticky", "compatibility", "on_silence", "park"))
        shares = top.shares()
        priority = top.one_of("priority", PRIORITIES, "even")
        return Policy(
            priority=priority,
            shares=shares,
            sticky=_sticky(top),
            compatibility=_compatibility(top),
            on_silence=top.one_of("on_silence", ON_SILENCE, "open"),
            park=_park(top),
        )

    def to_data(self) -> dict[str, object]:
        rules = self.compatibility
        return {
            "priority": self.priority,
            "shares": dict(sorted(self.shares.items())),
            "sticky": None if self.sticky is None else {"by": self.sticky.by, "name": self.sticky.name},
            "compatibility": {
                "scheme": rules.scheme,
                "rule": rules.rule,
                "ranges": list(rules.ranges),
                "allow": [list(pair) for pair in rules.allow],
                "deny": [list(pair) for pair in rules.deny],
            },
            "on_silence": self.on_silence,
            "park": {"requests_max": self.park.requests_max, "timeout_s": self.park.timeout_s},
        }

    def to_json(self) -> str:
        return json.dumps(self.to_data(), separators=(",", ":"))


class _Reader:
    """One JSON object with known keys; every complaint names the key and what was expected."""

    def __init__(self, data: object, where: str, keys: tuple[str, ...]) -> None:
        self._where = where
        if not isinstance(data, dict):
            raise Invalid("bad-policy", where, "is not an object", f"use the keys {', '.join(keys)}")
        self._data = cast("dict[str, object]", data)
        for key in self._data:
            if key not in keys:
                near = get_close_matches(str(key), keys, 1)
                do = f"did you mean {near[0]!r}?" if near else f"use {', '.join(keys)}"
                raise Invalid("bad-policy", f"{where}: {str(key)[:80]}", "is not a known key", do)

    def fail(self, key: str, do: str) -> Invalid:
        shown = json.dumps(self._data.get(key), default=str)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return Invalid("bad-policy", f"{self._where}: {key}", f"has the value {shown}", do)

    def get(self, key: str) -> object:
        return self._data.get(key)

    def inner(self, key: str, keys: tuple[str, ...]) -> _Reader | None:
        value = self._data.get(key)
        return None if value is None else _Reader(value, f"{self._where}: {key}", keys)

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


def _sticky(top: _Reader) -> Sticky | None:
    reader = top.inner("sticky", ("by", "name"))
    if reader is None:
        return None
    by = reader.one_of("by", STICKY_BY, "")
    name = reader.get("name") or ""
    if not isinstance(name, str) or len(name) > 128 or not name.isascii() or (by != "client" and not name):
        raise reader.fail("name", f"name the {by} that tells one client from another")
    return Sticky(by, name if by != "client" else "")


def _compatibility(top: _Reader) -> Compatibility:
    reader = top.inner("compatibility", ("scheme", "rule", "ranges", "allow", "deny"))
    if reader is None:
        return Compatibility()
    return Compatibility(
        scheme=reader.one_of("scheme", SCHEMES, "numeric"),
        rule=reader.one_of("rule", RULES, "patch"),
        ranges=reader.ranges(),
        allow=reader.pairs("allow"),
        deny=reader.pairs("deny"),
    )


def _park(top: _Reader) -> Park:
    reader = top.inner("park", ("requests_max", "timeout_s"))
    if reader is None:
        return Park()
    requests_max = reader.number("requests_max", 1000, 0, 1_000_000)
    if requests_max != int(requests_max):
        raise reader.fail("requests_max", "use a whole number from 0 to 1000000")
    return Park(int(requests_max), reader.number("timeout_s", 30.0, 0, 3600))
