"""The policy of a service: priority among versions, compatibility, silence, parking. `traffic` holds the other settings.

Operators change it at run time; the field names are the keys of the JSON document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdlb.model.gate import Gate, read_gates
from sdlb.model.opening import Opening
from sdlb.model.policy_reader import Reader
from sdlb.model.problem import Invalid
from sdlb.model.traffic import TRAFFIC_KEYS, Traffic
from sdlb.model.version import RULES, SCHEMES, Compatibility

PRIORITIES = ("even", "higher", "lower", "share")
ON_SILENCE = ("open", "wait")
STICKY_BY = ("cookie", "header", "client")
KEYS = (
    "priority",
    "shares",
    "sticky",
    "compatibility",
    "on_silence",
    "park",
    "cut_over",
    "max_unavailable",
    "gate",
    "hold",
    "pin",
    "never_below",
    *TRAFFIC_KEYS,
)


@dataclass(frozen=True, slots=True)
class Sticky:
    """Session affinity to a version, by the value of a cookie or header, or by the client's address. `by`: see STICKY_BY."""

    by: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Park:
    """Limits for requests that are held while the service has no active version but one is expected."""

    requests_max: int = 1000
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """`shares`: version -> percent, for priority "share". The other versions get the rest, by capacity."""

    priority: str = "even"
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    sticky: Sticky | None = None
    compatibility: Compatibility = Compatibility()
    on_silence: str = "open"
    park: Park = Park()
    opening: Opening = Opening()
    gates: tuple[Gate, ...] = ()
    traffic: Traffic = Traffic()

    @staticmethod
    def from_json(text: str, where: str = "policy", *, lenient: bool = False) -> Policy:
        """Reads a document. Raises Invalid, which names the key.

        `lenient`: unknown keys are ignored, because a node of a newer release may have sent them.
        """
        return Policy.from_data(loads(text, where), where, lenient=lenient)

    @staticmethod
    def from_data(data: object, where: str = "policy", *, lenient: bool = False) -> Policy:
        top = Reader(data, where, KEYS, lenient)
        shares = top.shares()
        priority = top.one_of("priority", PRIORITIES, "even")
        return Policy(
            priority=priority,
            shares=shares,
            sticky=_sticky(top),
            compatibility=_compatibility(top),
            on_silence=top.one_of("on_silence", ON_SILENCE, "open"),
            park=_park(top),
            opening=Opening.read(top),
            gates=read_gates(top),
            traffic=Traffic.read(top),
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
            **self.opening.to_data(),
            "gate": [gate.to_data() for gate in self.gates],
            **self.traffic.to_data(),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_data(), separators=(",", ":"))


def loads(text: str, where: str) -> object:
    """The JSON value of a policy document. Raises Invalid."""
    if len(text) > 65536:
        raise Invalid("bad-policy", where, "is longer than 64 KiB", "make it shorter")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid("bad-policy", where, f"is not JSON ({error})", "send one JSON object") from None


def _sticky(top: Reader) -> Sticky | None:
    reader = top.inner("sticky", ("by", "name"))
    if reader is None:
        return None
    by = reader.one_of("by", STICKY_BY, "")
    name = reader.get("name")
    name = "" if name is None else name
    if not isinstance(name, str) or len(name) > 128 or not name.isascii() or (by != "client" and not name):
        raise reader.fail("name", f"name the {by} that identifies a client")
    return Sticky(by, name if by != "client" else "")


def _compatibility(top: Reader) -> Compatibility:
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


def _park(top: Reader) -> Park:
    reader = top.inner("park", ("requests_max", "timeout_s"))
    if reader is None:
        return Park()
    return Park(reader.count("requests_max", 1000, 1_000_000), reader.number("timeout_s", 30.0, 0, 3600))
