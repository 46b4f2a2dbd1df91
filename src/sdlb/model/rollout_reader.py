"""Reads what a rollout file has, as TOML or JSON gives it. Each error names the place of the key."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Final, NoReturn, TypeVar, cast

from sdlb.model.problem import Invalid
from sdlb.model.rollout import SIDE_BY_SIDE, RolloutSpec
from sdlb.model.version import check_service, check_version, split_name

CODE = "bad-rollout"
COUNTS: Final = {"first": (1, 1_000_000), "failures_max": (0, 1_000_000)}
SECONDS: Final = {"soak_s": (0, 86_400), "progress_s": (1, 86_400), "drain_s": (0, 86_400)}
"""The least and the greatest value of each number in a `RolloutSpec`."""
NODES_OUT = re.compile(r"^(([1-9][0-9]?|100)%|[1-9][0-9]{0,5})\Z")
SPEC_KEYS = tuple(each.name for each in fields(RolloutSpec))
NAME_KEYS = ("release", "service", "version")
LATER = ("step", "analysis")
T = TypeVar("T")
Place = Callable[[tuple[str, ...]], str]


@dataclass(frozen=True, slots=True)
class RolloutFile:
    """`spec`: the keys that the file has, checked."""

    service: str
    version: str
    spec: dict[str, Any]


def read_rollout(data: object, place: Place) -> RolloutFile:
    """`place`: where a key stands, for messages. Raises Invalid for the first mistake."""
    reader = _Reader(place)
    if not isinstance(data, dict):
        reader.fail("", "is not a table", f"use the keys {', '.join((*NAME_KEYS, *SPEC_KEYS))}")
    table = cast("dict[str, object]", data)
    for key in table:
        reader.known(str(key))
    service, version = reader.names(table)
    spec = {key: reader.value(key, table[key]) for key in SPEC_KEYS if key in table}
    return RolloutFile(service, version, spec)


class _Reader:
    def __init__(self, place: Place) -> None:
        self._place = place

    def fail(self, key: str, what: str, do: str) -> NoReturn:
        raise Invalid(CODE, self._place((key,) if key else ()), what, do)

    def known(self, key: str) -> None:
        if key in LATER:
            self.fail(key, "is not supported in this version", "remove it; all nodes are updated one after the other")
        if key not in NAME_KEYS and key not in SPEC_KEYS:
            keys = (*NAME_KEYS, *SPEC_KEYS)
            near = get_close_matches(key, keys, 1)
            self.fail(
                _shown(key), "is not a known key", f"did you mean {near[0]!r}?" if near else f"use {', '.join(keys)}"
            )

    def names(self, table: dict[str, object]) -> tuple[str, str]:
        """The service and the version."""
        for key in ("service", "version"):
            if "release" in table and key in table:
                self.fail(key, "stands beside release", "give either release, or service and version")
            if "release" not in table and key not in table:
                missing = "release" if not {"service", "version"} & set(table) else key
                self.fail(missing, "is missing", 'add it, for example release = "catalog-1.0.2"')
        if "release" in table:
            service, version = self._checked("release", table["release"], split_name)
            return self._checked("release", service, check_service), self._checked("release", version, check_version)
        service, version = table["service"], table["version"]
        return self._checked("service", service, check_service), self._checked("version", version, check_version)

    def _checked(self, key: str, value: object, check: Callable[[str], T]) -> T:
        if not isinstance(value, str):
            self.fail(key, f"has the value {_shown(value)}", "use a text in quotes")
        try:
            return check(value)
        except Invalid as error:
            self.fail(key, f"has the value {_shown(value)}: {error.what}", error.do)

    def value(self, key: str, value: object) -> object:
        expected = ""
        if key in COUNTS:
            least, most = COUNTS[key]
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                expected = f"use a whole number from {least} to {most}"
        elif key in SECONDS:
            least, most = SECONDS[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                expected = f"use a number of seconds from {least} to {most}"
        elif key == "accept_gap":
            expected = "" if isinstance(value, bool) else "use true or false"
        elif key == "side_by_side":
            expected = "" if value in SIDE_BY_SIDE else f"use {', '.join(SIDE_BY_SIDE[:-1])} or {SIDE_BY_SIDE[-1]}"
        else:
            value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
            expected = (
                ""
                if isinstance(value, str) and NODES_OUT.match(value)
                else 'use a percentage like "10%", or a number of nodes'
            )
        if expected:
            self.fail(key, f"has the value {_shown(value)}", expected)
        return value


def _shown(value: object) -> str:
    text = value if isinstance(value, str) and value.isprintable() and " " not in value else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
