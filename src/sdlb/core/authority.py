"""What a root decides: which service holds a route, which versions of a service are active.

Rules (design.md, promises 1, 2 and 8), for one service:

* A version joins the active set when it is compatible with everything that is active, or still open, or not accounted for.
* Only the last stop of an incompatible version makes room for the next; then the earliest claim goes first.
* Each incompatible replacement is a new *generation*. A version that is open under a newer generation than is on record
  here was opened by another root or before this root's disk was set back: it wins, and what is older is recalled.
* Two roots may grant different things at first, when claims reach them in different order. Neither opens (a node needs the
  consent of all its parents), both notice (`granted`), and both settle it alike: what is open stays, else the earlier stamp,
  else the name.

The functions change a record in place and say why whatever waits must wait. They know nothing of nodes or messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sdlb.model.reason import (
    Closing,
    Contested,
    NewerGeneration,
    PresumedStopped,
    Reason,
    RouteConflict,
    Settling,
    StillRunning,
)

Compatible = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a version of a service (or of a service on a route), over all sources."""

    stamp: int
    count: int = 0
    open: bool = False  # gets traffic somewhere
    may_be_open: bool = False  # or was granted and has not confirmed the recall
    granted: bool = False  # some root said ACTIVE
    generation: int = 0
    hosts: tuple[str, ...] = ()
    presumed: bool = False  # all of it is silent and, under on_silence = "wait", not taken for stopped


@dataclass(slots=True)
class ServiceRecord:
    """Durable. `era`: all versions that were active in this generation."""

    generation: int = 0
    active: dict[str, int] = field(default_factory=dict[str, int])  # version -> stamp
    era: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()  # recalled, and not all confirmed yet
    heard: int = 0  # a generation that somebody has heard of, and we have not
    hold_until: float = 0.0  # not durable: how long to wait for who has it

    def to_json(self) -> dict[str, object]:
        return {
            "generation": self.generation,
            "active": dict(sorted(self.active.items())),
            "era": list(self.era),
            "closing": list(self.closing),
        }

    @staticmethod
    def from_json(saved: Mapping[str, object]) -> ServiceRecord:
        data: dict[str, object] = {"generation": 0, "active": {}, "era": (), "closing": (), **saved}
        return ServiceRecord(
            generation=int(data["generation"]),  # type: ignore[call-overload]
            active={str(v): int(stamp) for v, stamp in data["active"].items()},  # type: ignore[attr-defined]
            era=tuple(data["era"]),  # type: ignore[arg-type]
            closing=tuple(data["closing"]),  # type: ignore[arg-type]
        )


def decide_service(
    record: ServiceRecord,
    facts: Mapping[str, Facts],
    compatible: Compatible,
    *,
    now: float,
    settling: bool,
    hold_s: float,
) -> dict[str, Reason]:
    """Bring `record` in line with `facts` (by version, those with a claim that is not refused).

    `settling`: children that are on record have not all reported since this root started, so what is absent may only
    be late. Returns why each version that waits does so.
    """
    recalled: set[str] = set()
    _yield_to_newer(record, facts, compatible, now, hold_s, recalled)
    if not settling:
        for version in [v for v in record.active if v not in facts]:
            del record.active[version]
    _settle_contests(record, facts, compatible, recalled)
    unconfirmed = {v for v, f in facts.items() if v not in record.active and (f.may_be_open or v in recalled)}
    record.closing = tuple(sorted(unconfirmed))
    return _admit(record, facts, compatible, now, settling)


def _rank(version: str, fact: Facts) -> tuple[int, int, str]:
    return (-fact.generation if fact.open else 0, fact.stamp, version)


def _recall(record: ServiceRecord, versions: list[str], recalled: set[str]) -> None:
    for version in versions:
        record.active.pop(version, None)
        recalled.add(version)


def _rivals(record: ServiceRecord, version: str, compatible: Compatible) -> list[str]:
    return [u for u in record.active if u != version and not compatible(u, version)]


def _yield_to_newer(
    record: ServiceRecord,
    facts: Mapping[str, Facts],
    compatible: Compatible,
    now: float,
    hold_s: float,
    recalled: set[str],
) -> None:
    newest = max((f.generation for f in facts.values() if f.open), default=0)
    if newest > record.generation:
        holders = sorted(v for v, f in facts.items() if f.open and f.generation == newest)
        for version in holders:
            _recall(record, _rivals(record, version, compatible), recalled)
        record.generation = newest
        record.era = tuple(holders)
    heard = max((f.generation for f in facts.values()), default=0)
    if heard <= record.generation:
        return
    # Somebody below was told of a generation that we know nothing of: our disk is old, or another root went on. Whoever
    # holds it will report; until then nothing that isn't open is (or stays) granted.
    if record.heard != heard:
        record.heard = heard
        record.hold_until = now + hold_s
    if now < record.hold_until:
        _recall(record, [v for v in record.active if v not in facts or not facts[v].open], recalled)
    else:
        record.generation = heard


def _settle_contests(
    record: ServiceRecord, facts: Mapping[str, Facts], compatible: Compatible, recalled: set[str]
) -> None:
    for version in sorted(facts):
        fact = facts[version]
        if version in record.active or not (fact.granted or fact.open):
            continue
        if fact.open and fact.generation < record.generation:
            continue  # older: it gives way
        rivals = _rivals(record, version, compatible)
        # An absent rival may be late, after a restart; what serves with another root's consent does not wait for it.
        if rivals and all(_rank(version, fact) < _rank(u, facts[u]) if u in facts else fact.open for u in rivals):
            _recall(record, rivals, recalled)


def _admit(
    record: ServiceRecord, facts: Mapping[str, Facts], compatible: Compatible, now: float, settling: bool
) -> dict[str, Reason]:
    reasons: dict[str, Reason] = {}
    started = bool(record.active)
    held = record.heard > record.generation and now < record.hold_until
    newest = record.generation
    first: str | None = None
    for version in sorted((v for v in facts if v not in record.active), key=lambda v: _rank(v, facts[v])):
        fact = facts[version]
        reason = _blocker(record, version, facts, compatible, newest)
        if reason is None and settling and not fact.open:
            # What has opened while this root was away may not have been reported yet.
            reason = next((Settling(old) for old in record.era if not compatible(old, version)), None)
        if reason is None and held and not fact.open:
            reason = NewerGeneration(record.heard)
        if reason is None and not started and first is not None and not compatible(first, version):
            reason = Contested(first)
        if first is None:
            first = version
        if reason is not None:
            reasons[version] = reason
            continue
        if not all(compatible(version, old) for old in record.era):
            record.generation += 1
            record.era = ()
        record.generation = max(record.generation, 1, fact.generation if fact.open else 0)
        record.era = tuple(sorted({*record.era, version}))
        record.active[version] = fact.stamp
    return reasons


def _blocker(
    record: ServiceRecord, version: str, facts: Mapping[str, Facts], compatible: Compatible, newest: int
) -> Reason | None:
    for other in sorted(record.active):
        if not compatible(other, version):
            if other not in facts:
                return Settling(other)
            if facts[other].presumed:
                return PresumedStopped(other, facts[other].hosts)
            return StillRunning(other, facts[other].count, facts[other].hosts)
    if facts[version].open and facts[version].generation >= newest:
        return (
            None  # it serves, with another root's consent: to let it wait for what is closing would only close it too
        )
    for other in sorted(facts):
        if other != version and other in record.closing and not compatible(other, version):
            return Closing(other, facts[other].hosts)
    return None


def decide_route(
    holder: str | None, facts: Mapping[str, Facts], *, route: str, decided_by: str, settling: bool
) -> tuple[str | None, dict[str, Reason]]:
    """Who holds `route` among the services in `facts`, and why each other service (or the new holder, yet) may not."""
    before = holder
    if holder is not None and holder not in facts and not settling:
        holder = None
    if not facts:
        return holder, {}
    if holder is None:
        holder = min(facts, key=lambda s: (not facts[s].open, facts[s].stamp, s))
    elif holder in facts:
        mine = facts[holder]
        for service in sorted(facts):
            fact = facts[service]
            contested = service != holder and (fact.open or fact.granted)
            if contested and (not fact.open, fact.stamp, service) < (not mine.open, mine.stamp, holder):
                holder, mine = service, fact
    reasons: dict[str, Reason] = {}
    for service in sorted(facts):
        if service == holder:
            continue
        reasons[service] = RouteConflict(route, holder, decided_by)
        if holder in facts and (facts[service].may_be_open or service == before):
            reasons[holder] = Closing(service, facts[service].hosts)
    return holder, reasons
