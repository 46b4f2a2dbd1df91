"""The policy of a service: priority among versions, compatibility, silence, parking. `traffic` holds the other settings.

Operators change it at run time; the field names are the keys of the JSON document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec import Struct, field

from sdlb.model import rollout_policy
from sdlb.model.drain import Drain
from sdlb.model.gate import Gate, read_gates
from sdlb.model.opening import Opening
from sdlb.model.policy_reader import Reader
from sdlb.model.problem import Invalid
from sdlb.model.rollout import RolloutSpec
from sdlb.model.traffic import TRAFFIC_KEYS, Traffic
from sdlb.model.version import RULES, SCHEMES, Compatibility

PRIORITIES = ("even", "higher", "lower", "share")
ON_SILENCE = ("open", "wait")
AUTO = ("off", "compatible")
COMPATIBLE = AUTO[1]
STICKY_BY = ("cookie", "header", "client", "session")
SESSION = STICKY_BY[3]
SESSION_COOKIE = "sdlb"
"""The cookie of a session is named `sdlb-SERVICE`, unless the policy has another name."""
KEYS = (
    "priority",
    "shares",
    "sticky",
    "compatibility",
    "on_silence",
    "park",
    "drain",
    "cut_over",
    "max_unavailable",
    "gate",
    "hold",
    "pin",
    "never_below",
    "auto",
    "rollout",
    *TRAFFIC_KEYS,
)


class Sticky(Struct, frozen=True):
    """Affinity of clients to a version, by the value of a cookie or header, by the client's address, or by a session. `by`: see
    STICKY_BY. SESSION: the entry sets a cookie, which names the version that the session began on."""

    by: str
    name: str = ""


class Park(Struct, frozen=True):
    """Limits for requests that are held while the service has no active version but one is expected."""

    requests_max: int = 1000
    timeout_s: float = 30.0


class Policy(Struct, frozen=True):
    """`shares`: version -> percent, for priority "share". The other versions get the rest, by capacity. `auto` "compatible": a
    newer compatible release is rolled out as soon as it is added. `rollout`: the settings of a rollout, where `start` gives no
    others."""

    priority: str = "even"
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    sticky: Sticky | None = None
    compatibility: Compatibility = Compatibility()
    on_silence: str = "open"
    park: Park = Park()
    drain: Drain = Drain()
    opening: Opening = Opening()
    gates: tuple[Gate, ...] = ()
    auto: str = "off"
    rollout: RolloutSpec = RolloutSpec(drain_by_policy=True)
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
        drain = Drain.read(top)
        return Policy(
            priority=priority,
            shares=shares,
            sticky=_sticky(top),
            compatibility=_compatibility(top),
            on_silence=top.one_of("on_silence", ON_SILENCE, "open"),
            park=_park(top),
            drain=drain,
            opening=Opening.read(top),
            gates=read_gates(top),
            auto=top.one_of("auto", AUTO, "off"),
            rollout=rollout_policy.read(top, drain),
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
            "drain": self.drain.to_data(),
            **self.opening.to_data(),
            "gate": [gate.to_data() for gate in self.gates],
            "auto": self.auto,
            "rollout": rollout_policy.to_data(self.rollout),
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
    if not isinstance(name, str) or len(name) > 128 or not name.isascii() or (by in ("cookie", "header") and not name):
        raise reader.fail("name", f"name the {by} that identifies a client")
    if by == SESSION and name:
        name = reader.name("name", "use a name of a cookie, without spaces and separators")
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
