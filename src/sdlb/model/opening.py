"""The part of a policy that decides when a version may turn active, besides compatibility and gates (`gate`).

The field names are the keys of the JSON document.
"""

from __future__ import annotations

from msgspec import Struct

from sdlb.model.policy_reader import LIST_MAX, Reader
from sdlb.model.problem import Invalid
from sdlb.model.version import VERSION, matches, parse_declaration, sort_key

CUT_OVERS = ("stopped", "flip")
ALL = "*"
UNAVAILABLE = "25%"
FLOOR = 'use a version in quotes, for example "2.5"'


class Opening(Struct, frozen=True):
    """`cut_over`: how an incompatible version replaces the active ones. "stopped": after their last instance has stopped.
    "flip": as soon as it is ready and its gates are open; the others are drained first.

    `max_unavailable`: how much capacity a planned action may take away, as a percentage or a number of instances. `hold`:
    versions that must not turn active; `ALL` means every version that was not active in this generation. `pin`: only versions
    that match one of these may turn active. `never_below`: versions that sort below this one may not.
    """

    cut_over: str = "stopped"
    max_unavailable: str = UNAVAILABLE
    hold: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    never_below: str = ""

    @staticmethod
    def read(top: Reader) -> Opening:
        floor = top.text("never_below", FLOOR, 128, "")
        if floor and not VERSION.match(floor):
            raise top.fail("never_below", FLOOR)
        return Opening(
            cut_over=top.one_of("cut_over", CUT_OVERS, "stopped"),
            max_unavailable=_unavailable(top),
            hold=_versions(top, "hold", (ALL,)),
            pin=_versions(top, "pin", ()),
            never_below=floor,
        )

    def to_data(self) -> dict[str, object]:
        return {
            "cut_over": self.cut_over,
            "max_unavailable": self.max_unavailable,
            "hold": list(self.hold),
            "pin": list(self.pin),
            "never_below": self.never_below,
        }

    def held(self, version: str, *, returns: bool) -> bool:
        """`returns`: the version was active in this generation."""
        return matches(version, [text for text in self.hold if text != ALL]) or (ALL in self.hold and not returns)

    def pinned_out(self, version: str) -> bool:
        return bool(self.pin) and not matches(version, self.pin)

    def below_floor(self, version: str, scheme: str) -> bool:
        return bool(self.never_below) and _bare(version, scheme) < _bare(self.never_below, scheme)

    def floor(self, capacity: int, instances: int) -> int:
        """The least capacity that must stay. `capacity` and `instances`: of the versions that serve."""
        if self.max_unavailable.endswith("%"):
            return -(-capacity * (100 - round(float(self.max_unavailable[:-1]))) // 100)
        return capacity - capacity * min(int(self.max_unavailable), instances) // max(1, instances)


def _bare(version: str, scheme: str) -> tuple[tuple[int, int, str], ...]:
    """The sort key without the text that orders equal versions."""
    return sort_key(version, scheme)[:-1] or sort_key(version, scheme)


def _unavailable(top: Reader) -> str:
    do = 'use a percentage or a number of instances, for example "25%" or 1'
    value = top.get("max_unavailable")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value <= 1_000_000 or value != int(value):
            raise top.fail("max_unavailable", do)
        return str(int(value))
    text = top.text("max_unavailable", do, 16, UNAVAILABLE)
    number = text.removesuffix("%")
    if not (number.isascii() and number.isdigit()) or int(number) > (100 if text.endswith("%") else 1_000_000):
        raise top.fail("max_unavailable", do)
    return text


def _versions(top: Reader, key: str, others: tuple[str, ...]) -> tuple[str, ...]:
    found = top.strings(key, LIST_MAX, [], 'use a list of versions or ranges, for example ["1.0.2", ">=2.5,<2.6"]')
    for text in found:
        if text not in others:
            try:
                parse_declaration(text)
            except Invalid as problem:
                raise top.fail(key, f"use versions or ranges: {problem}") from None
    return tuple(found)
