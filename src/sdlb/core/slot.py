"""A claim key at a node: its sources, its permit (whether it may serve), and the sums over its sources.

The sums are updated while sources change (`put_part`), so a change of one source costs the same however many others there
are. The states of a slot:

    shut --grant--> open --recall--> closing --conform--> shut
                     ^------grant------/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum
from hashlib import blake2b
from typing import Final, TypeVar

from msgspec import Struct, field

from sdlb.core.messages import ACTIVE, HOSTS_MAX, WAITING, Claim, ClaimKey, Stage
from sdlb.core.source import SILENT, Source
from sdlb.model.reason import Asking, Reason

T = TypeVar("T")
ALL_SEEN = 1 << 63  # `seen` of local instances, which follow every verdict immediately


class Permit(Struct, frozen=True):
    """Whether new requests may go to a key here, and the reason if not. `scope`: ids of the roots that decided `generation`.
    `joined`: the ticket of the opening that this root follows."""

    state: str = WAITING
    reason: Reason = Asking()
    decided_by: str = ""
    generation: int = 0
    scope: tuple[str, ...] = ()
    stamp: int = 0
    joined: str = ""


class Phase(Enum):
    SHUT = "shut"  # never granted, or all sources have confirmed the recall
    OPEN = "open"  # active
    CLOSING = "closing"  # recalled, and some sources have not confirmed yet


class Transition(Enum):
    GRANT = "grant"
    RECALL = "recall"
    CONFORM = "conform"


TRANSITIONS: Final[dict[tuple[Phase, Transition], Phase]] = {
    (Phase.SHUT, Transition.GRANT): Phase.OPEN,
    (Phase.SHUT, Transition.CONFORM): Phase.SHUT,
    (Phase.OPEN, Transition.GRANT): Phase.OPEN,
    (Phase.OPEN, Transition.RECALL): Phase.CLOSING,
    (Phase.CLOSING, Transition.GRANT): Phase.OPEN,
    (Phase.CLOSING, Transition.CONFORM): Phase.SHUT,
}


class Part(Struct, frozen=True):
    """The contribution of one source to its slot.

    `ready`: capacity that the engine has confirmed. `present`: requests may be in flight. `covered`: the source is silent, and
    a live source reports the same hosts.
    """

    count: int = 0
    hosts: tuple[str, ...] = ()
    hosts_digest: int = 0
    compatible: tuple[str, ...] = ()
    stage: Stage = Stage.WAITING
    stamp: int = 0
    generation: int = 0
    scope: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    seen: int = ALL_SEEN
    lease_s: int = 0
    doubted: int = 0
    able: int = 0
    healthy: int = 0
    joined: tuple[str, ...] = ()
    capacity: int = 0
    ready: int = 0
    opening: bool = False
    present: bool = False
    child: bool = False
    stable: bool = False  # a confirmed endpoint that stays
    departing: bool = False  # to be removed from the engine, with requests possibly in flight
    covered: bool = False
    arriving: bool = False  # admitted, but not confirmed by the engine yet
    why: str = ""  # the reason why it has no capacity
    recorded_only: bool = (
        False  # known only from records: a remnant, presumed, or of a child that is silent since the start
    )


class _Minimum:
    """The minimum of a changing multiset of numbers. It is searched again only when the minimum was removed."""

    __slots__ = ("_counts", "_minimum")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._minimum: int | None = None

    def add(self, number: int, by: int) -> None:
        count = self._counts[number] + by
        if count:
            self._counts[number] = count
            if by > 0 and (self._minimum is None or number < self._minimum):
                self._minimum = number
        else:
            del self._counts[number]
            if number == self._minimum:
                self._minimum = min(self._counts, default=None)

    def get(self, default: int) -> int:
        return default if self._minimum is None else self._minimum


class _Set:
    """The union of changing sets of names, sorted on demand. `counts`: name -> number of sets that have it."""

    __slots__ = ("_sorted", "counts")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._sorted: tuple[str, ...] | None = ()

    def add(self, names: tuple[str, ...], by: int) -> None:
        for name in names:
            count = self.counts[name] + by
            if count:
                self.counts[name] = count
                if count == by:
                    self._sorted = None
            else:
                del self.counts[name]
                self._sorted = None

    def sorted(self) -> tuple[str, ...]:
        if self._sorted is None:
            self._sorted = tuple(sorted(self.counts))
        return self._sorted


class Sums(Struct):
    """Sums over the parts of a slot. Covered parts count only for `capacity`, `ready` and what is in this node's engine."""

    local_count: int = 0
    child_count: int = 0
    host_names: int = 0  # of all parts of children; a name in two parts counts twice
    here: int = 0  # parts of local instances
    capacity: int = 0
    ready: int = 0
    opening: int = 0  # number of parts; likewise up to `parts`
    present: int = 0
    open: int = 0
    silent: int = 0
    stable: int = 0
    departing: int = 0
    arriving: int = 0
    recorded_only: int = 0
    parts: int = 0
    able: int = 0
    healthy: int = 0
    hosts: _Set = field(default_factory=_Set)
    compatible: _Set = field(default_factory=_Set)
    granted: _Set = field(default_factory=_Set)
    refused: _Set = field(default_factory=_Set)
    joined: _Set = field(default_factory=_Set)
    stamps: _Minimum = field(default_factory=_Minimum)
    seen: _Minimum = field(default_factory=_Minimum)
    leases: _Minimum = field(default_factory=_Minimum)  # negated: the longest
    doubted: _Minimum = field(default_factory=_Minimum)  # negated: the newest
    generations: _Minimum = field(default_factory=_Minimum)  # negated: the newest
    open_generations: _Minimum = field(default_factory=_Minimum)
    scopes: Counter[tuple[str, ...]] = field(default_factory=Counter[tuple[str, ...]])
    digests: Counter[int] = field(default_factory=Counter[int])
    digest: int = 0  # exclusive or of the different `hosts_digest`

    def add(self, part: Part, by: int) -> None:
        self.present += by * part.present
        self.stable += by * part.stable
        self.departing += by * part.departing
        self.arriving += by * part.arriving
        self.capacity += by * part.capacity
        self.ready += by * part.ready
        if part.covered:
            return
        self.parts += by
        self.recorded_only += by * part.recorded_only
        if part.child:
            self.child_count += by * part.count
            self.host_names += by * len(part.hosts)
        else:
            self.local_count += by * part.count
            self.here += by * bool(part.hosts)
        self.opening += by * part.opening
        self.open += by * (part.stage is Stage.OPEN)
        self.granted.add(part.granted, by)
        self.refused.add(part.refused, by)
        self.joined.add(part.joined, by)
        self.able += by * part.able
        self.healthy += by * part.healthy
        self.silent += by * (part.stage is Stage.SILENT)
        self.hosts.add(part.hosts, by)
        self.compatible.add(part.compatible, by)
        if part.stamp:
            self.stamps.add(part.stamp, by)
        self.seen.add(part.seen, by)
        self.leases.add(-part.lease_s, by)
        self.generations.add(-part.generation, by)
        self.doubted.add(-part.doubted, by)
        if part.stage is Stage.OPEN:
            self.open_generations.add(-part.generation, by)
        _count(self.scopes, part.scope, by)
        if part.hosts_digest and _count(self.digests, part.hosts_digest, by):
            self.digest ^= part.hosts_digest

    @property
    def apart(self) -> bool:
        """Whether no two children report the same host. (Local instances are all on this host.)"""
        return self.host_names == len(self.hosts.counts) - bool(self.here)


class Slot(Struct):
    key: ClaimKey
    sources: dict[str, Source] = field(default_factory=dict[str, Source])
    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    sums: Sums = field(default_factory=Sums)
    permit: Permit = Permit()
    sent: tuple[Permit, int] = (Permit(), 0)  # permit and epoch that were last sent to the children
    on_disk: bool = False  # the permit is saved, until the recall is complete
    phase: Phase = Phase.SHUT
    epoch: int = 0  # of the permit; children report it back as `seen`
    opened: int = 0  # the generation under which it was last active
    opened_scope: tuple[str, ...] = ()
    revoked_epoch: int = 0  # while closing: the epoch of the recall
    endpoints: dict[str, None] = field(default_factory=dict[str, None])  # targets that should be in the engine
    leaving: int = 0  # number of the drain that this node asks its parents for; 0: none
    acked: set[str] = field(default_factory=set[str])  # parents that have acknowledged the drain `leaving`
    cause: int = 0  # the greatest `Cause` of the sources that were removed
    by_host: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])
    covers: dict[str, set[str]] = field(
        default_factory=dict[str, set[str]]
    )  # target -> targets of sources that it covers
    _hosts: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])  # as indexed in `by_host`
    serving: bool = False  # as of the last settling of all sources
    free: bool = True  # departing sources may be removed; as of the last settling of all sources
    announced: tuple[bool, bool] = (
        False,
        False,
    )  # (an endpoint is arriving, one is stable), as last announced to the other slots of the service

    @property
    def active(self) -> bool:
        return self.permit.state == ACTIVE

    def transition(self, transition: Transition) -> None:
        self.phase = TRANSITIONS[self.phase, transition]

    # ------------------------------------------------------------------ sums

    def put_part(self, target: str, part: Part | None) -> bool:
        """Replaces the part of one source; None removes it. Returns whether anything changed."""
        old = self.parts.get(target)
        if old == part:
            return False
        if old is not None:
            self.sums.add(old, -1)
        if part is None:
            self.parts.pop(target, None)
        else:
            self.parts[target] = part
            self.sums.add(part, 1)
        return True

    # ------------------------------------------------------------------ coverage

    def update_coverage(self, source: Source) -> None:
        """After a report of `source`: computes which sources it covers, and which cover it."""
        self.clear_coverage(source.target)
        claim = source.claim
        self.index(source.target, claim.hosts if source.child else ())
        if not claim.hosts or not source.child:
            return
        near = {target for host in claim.hosts for target in self.by_host.get(host, ())} - {source.target}
        for target in sorted(near):
            other = self.sources.get(target)
            if other is None:
                continue
            if is_live(source) and _covers(source, other):
                other.covered_by.add(source.target)
                self.covers.setdefault(source.target, set()).add(target)
            if is_live(other) and _covers(other, source):
                source.covered_by.add(target)
                self.covers.setdefault(target, set()).add(source.target)

    def index(self, target: str, hosts: tuple[str, ...]) -> None:
        """Indexes `target` by the hosts that it reports."""
        old = self._hosts.get(target, ())
        if old == hosts:
            return
        for host in old:
            named = self.by_host[host]
            del named[target]
            if not named:
                del self.by_host[host]
        for host in hosts:
            self.by_host.setdefault(host, {})[target] = None
        if hosts:
            self._hosts[target] = hosts
        else:
            self._hosts.pop(target, None)

    def clear_coverage(self, target: str) -> None:
        """Forgets by which sources `target` is covered: its next report is compared with the others again."""
        source = self.sources.get(target)
        if source is not None:
            for other in source.covered_by:
                self.covers.get(other, set()).discard(target)
            source.covered_by.clear()
            source.contradicted = False

    def covered(self, source: Source) -> bool:
        """Whether the source is silent and a live source reports all of its hosts."""
        if is_live(source):
            return False
        return any((other := self.sources.get(target)) is not None and is_live(other) for target in source.covered_by)

    # ------------------------------------------------------------------ the aggregate of the sources

    def count(self) -> int:
        """Instances below. Two parents of a host both report its instances; these count once. The result is exact if the hosts
        of any two children are equal or disjoint."""
        sums = self.sums
        if sums.apart or not sums.child_count:
            return sums.local_count + sums.child_count
        return sums.local_count + self._once(lambda part: part.count)

    def why(self) -> str:
        """The reason of one source why no endpoint is ready. "" if one is ready."""
        return "" if self.sums.ready else next((part.why for part in self.parts.values() if part.why), "")

    def ready(self) -> int:
        """The capacity that the engine has confirmed; each host counts once. It is 0 only if no source has any."""
        sums = self.sums
        if not sums.ready or (sums.parts == len(self.parts) and sums.apart):
            return sums.ready
        parts = self.parts.values()
        return sum(part.ready for part in parts if not part.child) + self._once(lambda part: part.ready, covered=True)

    def capacity(self) -> int:
        """The capacity of all endpoints, confirmed or not; each host counts once."""
        sums = self.sums
        if sums.parts == len(self.parts) and sums.apart:
            return sums.capacity
        return sum(part.capacity for part in self.parts.values() if not part.child) + self._once(
            lambda part: part.capacity
        )

    def able(self) -> int:
        """The capacity of healthy instances, whether they may serve or not; each host counts once."""
        return self.sums.able if self.sums.apart else self._all_once(lambda part: part.able)

    def healthy(self) -> int:
        """The number of healthy instances; each host counts once."""
        return self.sums.healthy if self.sums.apart else self._all_once(lambda part: part.healthy)

    def _all_once(self, of: Callable[[Part], int]) -> int:
        return sum(of(part) for part in self.parts.values() if not part.child) + self._once(of)

    def _once(self, of: Callable[[Part], int], covered: bool = False) -> int:
        """The sum of `of` over children, where each host counts once. `covered`: includes covered children."""
        seen: set[str] = set()
        total = 0
        children = [part for part in self.parts.values() if part.child and (covered or not part.covered)]
        for part in sorted(children, key=lambda part: (-of(part), part.hosts)):
            new = [host for host in part.hosts if host not in seen]
            total += -(-of(part) * len(new) // len(part.hosts)) if part.hosts else of(part)
            seen.update(new)
        return total

    def hosts(self) -> tuple[str, ...]:
        return self.sums.hosts.sorted()[:HOSTS_MAX]

    def hosts_digest(self) -> int:
        """Digest of all host names below. If the hosts of two sources partly overlap, it matches no set. So equal sets may go
        unrecognised, but different sets never look equal."""
        return self.sums.digest

    def compatible(self) -> tuple[str, ...]:
        return self.sums.compatible.sorted()

    def stamp(self) -> int:
        return self.sums.stamps.get(0)

    def lease_s(self) -> int:
        return -self.sums.leases.get(0)

    def open(self) -> bool:
        """Whether here or below it may get new requests, or has some in flight."""
        return self.active or bool(self.sums.present) or bool(self.sums.open)

    def generation(self) -> int:
        """The generation under which it is open; if it is not open, the newest one that is known."""
        if not self.open():
            return max(self.permit.generation, -self.sums.generations.get(0))
        here = self.opened if self.active or self.sums.present else 0
        return max(-self.sums.open_generations.get(0), here)

    def scope(self) -> tuple[str, ...]:
        """Ids of the roots that decided `generation()`."""
        if self.active or self.sums.present:
            return self.opened_scope
        if not self.sums.open and self.permit.generation >= -self.sums.generations.get(0):
            return self.permit.scope
        if len(self.sums.scopes) == 1:
            return next(iter(self.sums.scopes))
        newest = self.generation()
        return min((part.scope for part in self.parts.values() if part.generation == newest), default=())

    def stage(self) -> Stage:
        sums = self.sums
        if sums.parts and sums.silent == sums.parts and not sums.present:
            return Stage.SILENT
        return Stage.OPEN if self.open() else Stage.WAITING

    def may_be_open_below(self) -> bool:
        """Whether it is open somewhere below, or was granted and has not confirmed the recall."""
        if self.sums.open or self.sums.silent:
            return True
        return self.phase is Phase.CLOSING and self.sums.seen.get(ALL_SEEN) < self.revoked_epoch

    def conforms_below(self) -> bool:
        """Whether every source follows the permit's epoch throughout its subtree."""
        return self.sums.seen.get(ALL_SEEN) >= self.epoch


def _count(counts: Counter[T], key: T, by: int) -> bool:
    """Adds `by`. Returns whether the key was added or removed."""
    left = counts[key] + by
    if left:
        counts[key] = left
        return left == by
    del counts[key]
    return True


def digest_of(host: str) -> int:
    """48-bit digest of a host name."""
    return int.from_bytes(blake2b(host.encode(), digest_size=6).digest(), "big")


def is_live(source: Source) -> bool:
    """Whether its node is linked and reports it."""
    return not source.unlinked and source.standing not in SILENT


def _covers(one: Source, other: Source) -> bool:
    """Whether `one` covers `other`. A child that is itself a host is covered by no other child."""
    return other.child not in other.claim.hosts and includes(one.claim, other.claim)


def includes(one: Claim, other: Claim) -> bool:
    """Whether the hosts of `one` certainly include all hosts of `other`."""
    if one.hosts_digest == other.hosts_digest:
        return bool(one.hosts_digest)
    if len(other.hosts) >= HOSTS_MAX or not other.hosts:
        return False  # `hosts` has the first HOSTS_MAX names only
    return all(host in one.hosts for host in other.hosts)
