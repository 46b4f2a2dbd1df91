"""One claim key at one node: who has it below (sources), whether it may serve (permit).

A slot only holds facts; `Balancer` recomputes what follows from them whenever one has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sdlb.core.messages import ACTIVE, WAITING, Claim, ClaimKey

HOSTS_MAX = 5
NEVER = 1 << 63  # a `seen` that conforms to every verdict: local instances do what they are told


@dataclass(frozen=True, slots=True)
class Permit:
    """Whether new requests may go to a key here, and why (not). `code` and `reason` as in `model.reason`."""

    state: str = WAITING
    code: str = "asking"
    reason: str = "no answer yet from the parents"
    decided_by: str = ""
    generation: int = 0


@dataclass(slots=True)
class Source:
    """A local instance ("i:...") or a child node ("n:...") and what it claims of the key."""

    target: str
    claim: Claim
    child: str = ""  # the node's name, "" for an instance
    suspect: bool = False
    forced: bool = False  # out at once, whatever is in flight


@dataclass(slots=True)
class Slot:
    key: ClaimKey
    sources: dict[str, Source] = field(default_factory=dict[str, Source])
    permit: Permit = Permit()
    epoch: int = 0  # of the permit, as told to the children
    opened: int = 0  # the generation under which it was last active
    revoked_epoch: int = 0  # the first epoch under which it was no longer active; 0: never was
    members: set[str] = field(default_factory=set[str])  # targets that are wanted in the engine
    leaving: int = 0  # our own request to the parents to be taken out; 0: none
    acked: set[str] = field(default_factory=set[str])  # parents that took us out under `leaving`

    @property
    def active(self) -> bool:
        return self.permit.state == ACTIVE

    # ------------------------------------------------------------------ the aggregate of the sources

    def count(self) -> int:
        """Instances below. Two children that both stand above a host report the same instances: they count once, as far
        as the host names tell (exact when the children's hosts are the same or have none in common)."""
        total = sum([source.claim.count for source in self.sources.values() if not source.child])
        children = [source.claim for source in self.sources.values() if source.child]
        hosts = [claim.hosts for claim in children]
        if len({name for names in hosts for name in names}) == sum(map(len, hosts)):
            return total + sum([claim.count for claim in children])
        seen: set[str] = set()
        for claim in sorted(children, key=lambda claim: -claim.count):
            new = [host for host in claim.hosts if host not in seen]
            total += -(-claim.count * len(new) // len(claim.hosts)) if claim.hosts else claim.count
            seen.update(new)
        return total

    def hosts(self) -> tuple[str, ...]:
        names = {host for source in self.sources.values() for host in source.claim.hosts}
        return tuple(sorted(names)[:HOSTS_MAX])

    def compatible(self) -> tuple[str, ...]:
        return tuple(sorted({text for source in self.sources.values() for text in source.claim.compatible}))

    def stamp(self) -> int:
        return min((source.claim.stamp for source in self.sources.values()), default=0)

    def open_below(self) -> bool:
        return any(source.claim.open for source in self.sources.values())

    def open(self, present: bool) -> bool:
        """Somewhere here or below it may get new requests or has some in flight."""
        return self.active or present or self.open_below()

    def generation(self, present: bool) -> int:
        """Under which it is open; if it is not, the newest one that was heard of."""
        if not self.open(present):
            return max(self.permit.generation, *(s.claim.generation for s in self.sources.values()), 0)
        below = max((s.claim.generation for s in self.sources.values() if s.claim.open), default=0)
        return max(below, self.opened if self.active or present else 0)

    def may_be_open_below(self) -> bool:
        """Open somewhere below, or told to open once and not yet known to have followed the recall."""
        return any(s.claim.open or s.claim.seen < self.revoked_epoch for s in self.sources.values())

    def conforms_below(self) -> bool:
        """Every source has carried out the permit's epoch throughout its subtree."""
        return all(source.claim.seen >= self.epoch for source in self.sources.values())
