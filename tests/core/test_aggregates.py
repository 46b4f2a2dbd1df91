"""The running values of a slot (sums, coverage) always equal those computed from scratch, whatever happened before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sdlb.core.messages import ACTIVE, HOSTS_MAX, Cause, Claim, ClaimKey, Stage
from sdlb.core.settings import Settings
from sdlb.core.slot import ALL_SEEN, Part, Permit, Phase, Slot, digest_of
from sdlb.core.source import SILENT, STEPS, Source, Standing, Step
from sdlb.core.state import State

KEY = ClaimKey("catalog", "1.0.1", "example.com/*")
NAMES = st.lists(st.sampled_from(["h1", "h2", "h3", "h4", "h5", "h6"]), unique=True, max_size=4).map(
    lambda names: tuple(sorted(names))
)
ROOTS = st.sampled_from([(), ("r1",), ("r2",), ("r1", "r2")])
SMALL = st.integers(0, 4)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    hosts = draw(NAMES)
    digest = 0
    for host in hosts:
        digest ^= digest_of(host)
    flags = [draw(st.booleans()) for _ in range(8)]
    return Part(
        count=draw(SMALL),
        hosts=hosts,
        hosts_digest=draw(st.sampled_from([digest, digest, 0])),
        compatible=draw(st.sampled_from([(), ("2.0.0",), ("2.0.0", "3.0.0")])),
        stage=draw(st.sampled_from(list(Stage))),
        stamp=draw(SMALL),
        generation=draw(SMALL),
        scope=draw(ROOTS),
        granted=draw(ROOTS),
        refused=draw(ROOTS),
        seen=draw(SMALL | st.just(ALL_SEEN)),
        lease_s=draw(SMALL),
        doubted=draw(SMALL),
        capacity=draw(SMALL),
        ready=draw(SMALL),
        opening=flags[0],
        present=flags[1],
        child=flags[2],
        stable=flags[3],
        departing=flags[4],
        covered=flags[5],
        arriving=flags[6],
        recorded_only=flags[7],
    )


TARGETS = st.sampled_from(["i:a", "i:b", "n:x", "n:y", "n:z", "r:x#1"])
CHANGES = st.lists(st.tuples(TARGETS, parts() | st.none()), max_size=25)
PERMITS = st.builds(
    Permit, state=st.sampled_from([ACTIVE, "waiting"]), generation=SMALL, scope=ROOTS, stamp=st.integers(0, 4)
)


def union(names: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name for each in names for name in each}))


def count_of(known: list[Part]) -> int:
    """Each host once, by the child that reports most; a child whose hosts are partly counted counts in proportion."""
    seen: set[str] = set()
    total = sum(part.count for part in known if not part.child)
    for part in sorted((p for p in known if p.child), key=lambda p: (-p.count, p.hosts)):
        fresh = [host for host in part.hosts if host not in seen]
        total += -(-part.count * len(fresh) // len(part.hosts)) if part.hosts else part.count
        seen.update(part.hosts)
    return total


def check_sums(slot: Slot, held: dict[str, Part]) -> None:
    every = list(held.values())
    known = [part for part in every if not part.covered]
    opened = [part for part in known if part.stage is Stage.OPEN]
    sums = slot.sums
    # What is covered still has endpoints and requests in flight here.
    for name in ("capacity", "ready", "present", "stable", "departing", "arriving"):
        assert getattr(sums, name) == sum(getattr(part, name) for part in every), name
    assert sums.parts == len(known)
    assert sums.opening == sum(part.opening for part in known)
    assert sums.open == len(opened)
    assert sums.recorded_only == sum(part.recorded_only for part in known)
    assert sums.silent == sum(part.stage is Stage.SILENT for part in known)
    assert sums.local_count == sum(part.count for part in known if not part.child)
    assert sums.child_count == sum(part.count for part in known if part.child)
    assert dict(sums.scopes) == Counter(part.scope for part in known)
    assert sums.granted.sorted() == union([part.granted for part in known])
    assert dict(sums.refused.counts) == Counter(root for part in known for root in part.refused)
    assert slot.compatible() == union([part.compatible for part in known])
    assert slot.hosts() == union([part.hosts for part in known])[:HOSTS_MAX]
    digest = 0
    for each in {part.hosts_digest for part in known}:
        digest ^= each
    assert slot.hosts_digest() == digest
    assert slot.stamp() == min((part.stamp for part in known if part.stamp), default=0)
    assert slot.lease_s() == max((part.lease_s for part in known), default=0)
    assert -sums.doubted.get(0) == max((part.doubted for part in known), default=0)
    assert -sums.generations.get(0) == max((part.generation for part in known), default=0)
    assert -sums.open_generations.get(0) == max((part.generation for part in opened), default=0)
    assert sums.seen.get(ALL_SEEN) == min((part.seen for part in known), default=ALL_SEEN)
    assert slot.count() == count_of(known)


def check_aggregate(slot: Slot, held: dict[str, Part]) -> None:
    every = list(held.values())
    known = [part for part in every if not part.covered]
    opened = [part for part in known if part.stage is Stage.OPEN]
    present = any(part.present for part in every)
    is_open = slot.permit.state == ACTIVE or present or bool(opened)
    assert slot.open() == is_open
    stage = Stage.OPEN if is_open else Stage.WAITING
    if known and not present and all(part.stage is Stage.SILENT for part in known):
        stage = Stage.SILENT
    assert slot.stage() is stage
    newest = max((part.generation for part in known), default=0)
    if is_open:
        here = slot.opened if slot.permit.state == ACTIVE or present else 0
        newest = max([here, *(part.generation for part in opened)])
    else:
        newest = max(newest, slot.permit.generation)
    assert slot.generation() == newest
    assert slot.conforms_below() == all(part.seen >= slot.epoch for part in known)
    closing = slot.phase is Phase.CLOSING and any(part.seen < slot.revoked_epoch for part in known)
    anything = any(part.stage is not Stage.WAITING for part in known)
    assert slot.may_be_open_below() == (anything or closing)


@given(CHANGES)
def test_the_running_sums_are_those_computed_from_scratch(changes: list[tuple[str, Part | None]]) -> None:
    slot = Slot(KEY)
    held: dict[str, Part] = {}
    for target, part in changes:
        before = held.get(target)
        if part is None:
            held.pop(target, None)
        else:
            held[target] = part
        assert slot.put_part(target, part) == (before != part)
        assert slot.parts == held
        check_sums(slot, held)
    for target in list(held):
        slot.put_part(target, None)
    check_sums(slot, {})


@given(CHANGES, PERMITS, st.sampled_from(list(Phase)), SMALL, SMALL, SMALL)
def test_the_aggregate_of_a_slot_is_that_of_its_parts(
    changes: list[tuple[str, Part | None]], permit: Permit, phase: Phase, epoch: int, revoked: int, opened: int
) -> None:
    slot = Slot(KEY, permit=permit, phase=phase, epoch=epoch, revoked_epoch=revoked, opened=opened)
    held: dict[str, Part] = {}
    for target, part in changes:
        if part is None:
            held.pop(target, None)
        else:
            held[target] = part
        slot.put_part(target, part)
        check_aggregate(slot, held)


EQUALLY_MANY = [
    ("n:x", Part(count=4, child=True, hosts=("h1", "h2"))),
    ("n:y", Part(count=4, child=True, hosts=("h1",))),
]


@given(CHANGES, st.randoms(use_true_random=False))
@example(EQUALLY_MANY, Random(1))
@example(EQUALLY_MANY, Random(2))
def test_the_order_in_which_sources_came_is_not_seen(changes: list[tuple[str, Part | None]], rng: Random) -> None:
    slot, other = Slot(KEY), Slot(KEY)
    for target, part in changes:
        slot.put_part(target, part)
    last = [(target, part) for target, part in dict(changes).items() if part is not None]
    rng.shuffle(last)
    for target, part in last:
        other.put_part(target, part)
    for read in (
        Slot.count,
        Slot.hosts,
        Slot.hosts_digest,
        Slot.compatible,
        Slot.stamp,
        Slot.lease_s,
        Slot.stage,
        Slot.generation,
        Slot.scope,
    ):
        assert read(slot) == read(other), read.__name__


# ---------------------------------------------------------------------- coverage


@dataclass
class Model:
    """A source by definition: it is covered by those that have reported its hosts since its last report."""

    claim: Claim
    child: str
    standing: Standing = Standing.CLAIMED
    unlinked: bool = False
    covered_by: frozenset[str] = frozenset()

    @property
    def is_live(self) -> bool:
        return not self.unlinked and self.standing not in SILENT


HOSTS = ["h1", "h2", "h3"]
CHILDREN = ["x", "y", "z", "h1", "h2"]  # three racks and two hosts
STEPPED = [Step.ADMIT, Step.LEAVE, Step.STAY, Step.SILENCE, Step.HEARD, Step.PRESUME]


def claim_of(hosts: tuple[str, ...]) -> Claim:
    digest = 0
    for host in hosts:
        digest ^= digest_of(host)
    return Claim(KEY, hosts=hosts, hosts_digest=digest, count=len(hosts))


class Twins(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state = State(Settings("node", "id", 1), Random(1))
        self.model: dict[str, Model] = {}

    # ------------------------------------------------------------------ the rule

    def speaks_for(self, one: Model, other: Model) -> bool:
        if not one.claim.hosts or not other.claim.hosts or other.child in other.claim.hosts:
            return False
        return set(other.claim.hosts) <= set(one.claim.hosts)

    # ------------------------------------------------------------------ what happens

    @rule(name=st.sampled_from(CHILDREN), hosts=st.lists(st.sampled_from(HOSTS), unique=True, max_size=3))
    def reports(self, name: str, hosts: list[str]) -> None:
        target = f"n:{name}"
        said = (name,) if name in HOSTS else tuple(sorted(hosts))
        claim = claim_of(said)
        slot = self.state.slots.get(KEY)
        source = slot.sources.get(target) if slot is not None else None
        if source is None:
            source = Source(target, claim, name)
            self.state.put_source(KEY, source)
            self.model[target] = Model(claim, name)
        source.claim = claim
        mine = self.model[target]
        mine.claim, mine.covered_by = claim, frozenset()
        self.state.slots[KEY].update_coverage(source)
        for other_target, other in self.model.items():
            if other_target == target:
                continue
            if mine.is_live and self.speaks_for(mine, other):
                other.covered_by |= {target}
            if other.is_live and self.speaks_for(other, mine):
                mine.covered_by |= {other_target}

    @precondition(lambda self: self.model)
    @rule(data=st.data(), step=st.sampled_from(STEPPED))
    def lives(self, data: st.DataObject, step: Step) -> None:
        target = data.draw(st.sampled_from(sorted(self.model)))
        mine = self.model[target]
        if (mine.standing, step) not in STEPS:
            return
        mine.standing = STEPS[mine.standing, step]
        self.state.step(KEY, self.state.slots[KEY].sources[target], step)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), unlinked=st.booleans())
    def loses_or_finds_its_link(self, data: st.DataObject, unlinked: bool) -> None:
        target = data.draw(st.sampled_from(sorted(self.model)))
        self.model[target].unlinked = unlinked
        self.state.slots[KEY].sources[target].unlinked = unlinked

    @precondition(lambda self: self.model)
    @rule(data=st.data(), cause=st.sampled_from(list(Cause)) | st.none())
    def goes(self, data: st.DataObject, cause: Cause | None) -> None:
        target = data.draw(st.sampled_from(sorted(self.model)))
        del self.model[target]
        self.state.known_stopped.clear()
        self.state.drop_source(KEY, target, cause)
        stopped = {name for name, other in self.model.items() if target in other.covered_by and not other.is_live}
        expected = stopped if cause is Cause.STOPPED else set[str]()
        assert sorted(self.state.known_stopped) == sorted((name, KEY) for name in expected)
        for other in self.model.values():
            other.covered_by -= {target}

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def who_is_spoken_for_is_as_the_rule_says(self) -> None:
        slot = self.state.slots.get(KEY)
        sources = slot.sources if slot is not None else {}
        assert set(sources) == set(self.model)
        for target, mine in self.model.items():
            assert slot is not None
            live = any(self.model[twin].is_live for twin in mine.covered_by)
            assert slot.covered(sources[target]) == (not mine.is_live and live), target
            assert sources[target].covered_by == mine.covered_by, target

    @invariant()
    def a_host_that_is_a_child_itself_is_spoken_for_by_nobody(self) -> None:
        slot = self.state.slots.get(KEY)
        for source in slot.sources.values() if slot is not None else ():
            if source.child in HOSTS:
                assert not slot.covered(source)  # type: ignore[union-attr]
                assert not source.covered_by

    @invariant()
    def the_index_names_what_is_there(self) -> None:
        slot = self.state.slots.get(KEY)
        if slot is None:
            return
        found = {(host, target) for host, targets in slot.by_host.items() for target in targets}
        assert found == {(host, target) for target, mine in self.model.items() for host in mine.claim.hosts}
        pairs = {(twin, target) for target, mine in self.model.items() for twin in mine.covered_by}
        assert {(twin, target) for twin, targets in slot.covers.items() for target in targets} == pairs


TestTwins = Twins.TestCase
TestTwins.settings = settings(stateful_step_count=40)
