"""Reads what a rollout file has, as TOML or JSON gives it. Each error names the place of the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final, NoReturn, TypeVar, cast

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.model.canary import NODES
from sdlb.model.canary_reader import bad, read_analysis, read_steps
from sdlb.model.problem import Invalid, shown
from sdlb.model.release import LIST_MAX
from sdlb.model.rollout import SIDE_BY_SIDE, RolloutSpec
from sdlb.model.version import check_service, check_version, split_name

CODE = "bad-rollout"
COUNTS: Final = {"first": (1, 1_000_000), "failures_max": (0, 1_000_000)}
SECONDS: Final = {"soak_s": (0, 86_400), "progress_s": (1, 86_400), "drain_s": (0, 86_400)}
"""The least and the greatest value of each number in a `RolloutSpec`."""
SPEC_KEYS = tuple(name for name in RolloutSpec.__struct_fields__ if name not in ("step", "analysis", "drain_by_policy"))
NAME_KEYS = ("release", "service", "version")
CANARY_KEYS = ("step", "analysis")
T = TypeVar("T")
Place = Callable[[tuple[str, ...]], str]


class RolloutFile(Struct, frozen=True):
    """`spec`: the keys that the file has, checked, as they stand in the file. `also`: service -> version of the others, if `release` is a
    list."""

    service: str
    version: str
    spec: dict[str, Any]
    also: dict[str, str] = field(default_factory=dict[str, str])


def read_rollout(data: object, place: Place) -> RolloutFile:
    """`place`: where a key stands, for messages. Raises Invalid for the first mistake."""
    reader = _Reader(place)
    if not isinstance(data, dict):
        reader.fail("", "is not a table", f"use the keys {', '.join((*NAME_KEYS, *SPEC_KEYS, *CANARY_KEYS))}")
    table = cast("dict[str, object]", data)
    for key in table:
        reader.known(str(key))
    (service, version), *also = reader.names(table)
    spec = {key: reader.value(key, table[key]) for key in SPEC_KEYS if key in table}
    fail = bad(place, CODE)
    steps = read_steps(table["step"], fail) if "step" in table else None
    if "analysis" in table:
        read_analysis(table["analysis"], fail, steps)
    given = {**spec, **{key: table[key] for key in CANARY_KEYS if key in table}}
    return RolloutFile(service, version, given, dict(also))


class _Reader:
    def __init__(self, place: Place) -> None:
        self._place = place

    def fail(self, key: str, what: str, do: str) -> NoReturn:
        raise Invalid(CODE, self._place((key,) if key else ()), what, do)

    def known(self, key: str) -> None:
        keys = (*NAME_KEYS, *SPEC_KEYS, *CANARY_KEYS)
        if key not in keys:
            near = get_close_matches(key, keys, 1)
            self.fail(
                shown(key), "is not a known key", f"did you mean {near[0]!r}?" if near else f"use {', '.join(keys)}"
            )

    def names(self, table: dict[str, object]) -> list[tuple[str, str]]:
        """(service, version): at least one."""
        for key in ("service", "version"):
            if "release" in table and key in table:
                self.fail(key, "stands beside release", "give either release, or service and version")
            if "release" not in table and key not in table:
                missing = "release" if not {"service", "version"} & set(table) else key
                self.fail(missing, "is missing", 'add it, for example release = "catalog-1.0.2"')
        if "release" in table:
            return self._releases(table["release"])
        service, version = table["service"], table["version"]
        return [(self._checked("service", service, check_service), self._checked("version", version, check_version))]

    def _releases(self, value: object) -> list[tuple[str, str]]:
        """One, or a list of several."""
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        if not values or len(values) > LIST_MAX:
            self.fail("release", f"has {len(values)} items", f"name 1 to {LIST_MAX} releases")
        found: list[tuple[str, str]] = []
        for each in values:
            service, version = self._checked("release", each, split_name)
            if service in dict(found):
                self.fail("release", f"has {service} twice", "name each service once")
            checked_service = self._checked("release", service, check_service)
            found.append((checked_service, self._checked("release", version, check_version)))
        return found

    def _checked(self, key: str, value: object, check: Callable[[str], T]) -> T:
        if not isinstance(value, str):
            self.fail(key, f"has the value {shown(value)}", "use a text in quotes")
        try:
            return check(value)
        except Invalid as error:
            self.fail(key, f"has the value {shown(value)}: {error.what}", error.do)

    def value(self, key: str, value: object) -> object:
        try:
            return checked(key, value)
        except ValueError as error:
            self.fail(key, f"has the value {shown(value)}", str(error))


def checked(key: str, value: object) -> object:
    """The value of a key of SPEC_KEYS as `RolloutSpec` has it. Raises ValueError, which says what to use."""
    if isinstance(value, float) and value.is_integer() and key not in SECONDS:
        value = int(value)
    if key in COUNTS:
        least, most = COUNTS[key]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"use a whole number from {least} to {most}")
    elif key in SECONDS:
        least, most = SECONDS[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"use a number of seconds from {least} to {most}")
    elif key == "accept_gap":
        if not isinstance(value, bool):
            raise ValueError("use true or false")
    elif key == "side_by_side":
        if value not in SIDE_BY_SIDE:
            raise ValueError(f"use {', '.join(SIDE_BY_SIDE[:-1])} or {SIDE_BY_SIDE[-1]}")
    else:
        value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(value, str) or not NODES.match(value):
            raise ValueError('use a percentage like "10%", or a number of nodes')
    return value


def merged(policy: RolloutSpec, given: Mapping[str, object]) -> RolloutSpec:
    """The settings of a rollout that starts: those that were given, over those of the policy. Without steps there is nothing to
    analyse. Raises ValueError."""
    spec = msgspec.convert({**msgspec.to_builtins(policy), **given}, RolloutSpec)
    if "drain_s" in given:
        spec = replace(spec, drain_by_policy=False)
    return spec if spec.step else replace(spec, analysis=None)
