"""The parameters of the local API's calls: how they are described, and how they are checked, from one table.

An unknown parameter is refused too: it is probably a typing error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from sdlb.node.problems import Refusal

INTEGER_MAX = 2**53 - 1
_DECIMAL = re.compile(r"^[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?\Z")
ETAG = re.compile(r'^"[0-9a-f]{16}"\Z')
"""The value of the header field If-Match."""
_INTEGER = re.compile(r"^[0-9]{1,18}\Z")


class Parameter(Struct, frozen=True):
    """`choices`: the only values. `most`: a number of seconds from 0, or with `whole` a whole number. Neither: a
    text."""

    name: str
    text: str
    choices: tuple[str, ...] = ()
    most: float = 0.0
    whole: bool = False
    required: bool = False
    chars_max: int = 0
    format: str = ""
    pattern: str = ""
    """For the description only: the call checks the value, with an error of its own."""

    def schema(self) -> dict[str, Any]:
        if self.choices:
            return {"type": "string", "enum": list(self.choices)}
        if self.most:
            return {"type": "integer" if self.whole else "number", "minimum": 0, "maximum": self.most}
        found: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": self.chars_max}
        found |= {"pattern": self.pattern} if self.pattern else {}
        return {**found, "format": self.format} if self.format else found

    def expected(self) -> str:
        if self.choices:
            *others, last = self.choices
            return f"{', '.join(others)} or {last}" if others else f"{last}, or leave it out"
        if self.most:
            return f"a {'whole number' if self.whole else 'number of seconds'} from 0 to {self.most:.16g}"
        return f"a string of 1 to {self.chars_max} characters"

    def fits(self, value: str) -> bool:
        if self.choices:
            return value in self.choices
        if self.most:
            return bool((_INTEGER if self.whole else _DECIMAL).match(value)) and float(value) <= self.most
        return 1 <= len(value) <= self.chars_max


def check(parameters: Sequence[Parameter], given: Iterable[tuple[str, str]]) -> None:
    """Raises Refusal."""
    known = {each.name: each for each in parameters}
    seen: set[str] = set()
    for name, value in given:
        parameter = known.get(name)
        if parameter is None:
            has = ", ".join(known) or "none"
            raise Refusal("bad-query", f"unknown parameter {name[:40]!r}; this call takes: {has}")
        if name in seen:
            raise Refusal("bad-query", f"{name} is given twice; give it once")
        if not parameter.fits(value):
            raise Refusal("bad-query", f"{name} is {value[:40]!r}; use {parameter.expected()}")
        seen.add(name)
    for parameter in parameters:
        if parameter.required and parameter.name not in seen:
            raise Refusal("bad-query", f"{parameter.name} is missing; use {parameter.expected()}")
