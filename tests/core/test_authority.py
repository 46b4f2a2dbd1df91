"""What a root decides, for any facts: the rules of `sdlb.core.authority` one by one."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.authority import Facts, ServiceRecord, decide_route, decide_service
from sdlb.model.version import Compatibility

VERSIONS = ["1.0.0", "1.0.1", "1.1.0", "2.0.0", "2.0.1", "3.0.0"]
RULES = Compatibility()


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    is_open = draw(st.booleans())
    may_be_open = is_open or draw(st.booleans())
    granted = is_open or draw(st.booleans())
    generation = draw(st.integers(1 if is_open else 0, 4))
    return Facts(draw(st.integers(0, 5)), 1, is_open, may_be_open, granted, generation, ("host-1",))


ALL_FACTS = st.dictionaries(st.sampled_from(VERSIONS), facts(), max_size=5)


@st.composite
def records(draw: st.DrawFn) -> ServiceRecord:
    """As decisions leave them: what is active is compatible with each other and in the era."""
    generation = draw(st.integers(0, 4))
    if not generation:
        return ServiceRecord()
    active: dict[str, int] = {}
    for version in draw(st.lists(st.sampled_from(VERSIONS), unique=True)):
        if all(RULES.compatible(version, other) for other in active):
            active[version] = draw(st.integers(0, 5))
    closing = draw(st.lists(st.sampled_from([v for v in VERSIONS if v not in active]), unique=True))
    return ServiceRecord(generation, active, tuple(sorted(active)), tuple(sorted(closing)))


def decide(record: ServiceRecord, known: dict[str, Facts], settling: bool = False) -> dict[str, object]:
    return dict(
        decide_service(record, known, lambda a, b: RULES.compatible(a, b), now=0.0, settling=settling, hold_s=20.0)
    )


@given(records(), ALL_FACTS, st.booleans())
def test_what_is_active_gets_along_and_what_is_not_has_a_reason(
    record: ServiceRecord, known: dict[str, Facts], settling: bool
) -> None:
    reasons = decide(record, known, settling)
    for a in record.active:
        assert all(RULES.compatible(a, b) for b in record.active)
    assert set(reasons) == set(known) - set(record.active)
    assert settling or set(record.active) <= set(known)
    assert all(str(reason) for reason in reasons.values())


@given(records(), ALL_FACTS, st.booleans())
def test_deciding_again_changes_nothing(record: ServiceRecord, known: dict[str, Facts], settling: bool) -> None:
    """Once what was recalled is seen as recalled, which is what the node does between two decisions."""
    for _ in VERSIONS:
        decide(record, known, settling)
    before = copy.deepcopy(record)
    decide(record, known, settling)
    assert record == before


@given(records(), ALL_FACTS, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_in_which_claims_came_decides_nothing(
    record: ServiceRecord, known: dict[str, Facts], settling: bool, rng: object
) -> None:
    other = copy.deepcopy(record)
    shuffled = list(known.items())
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide(record, known, settling) == decide(other, dict(shuffled), settling)
    assert record == other


@given(records(), ALL_FACTS, st.booleans())
def test_the_generation_never_goes_back(record: ServiceRecord, known: dict[str, Facts], settling: bool) -> None:
    before = record.generation
    decide(record, known, settling)
    assert record.generation >= before
    assert record.generation >= max(
        (f.generation for v, f in known.items() if v in record.active and f.open), default=0
    )


@given(records(), ALL_FACTS)
def test_the_incumbent_stays_while_nobody_else_is_open_or_granted(
    record: ServiceRecord, known: dict[str, Facts]
) -> None:
    """Promise 2: only the last stop of an incompatible version makes room for the next."""
    known = {
        version: Facts(fact.stamp, 1, version in record.active, False, version in record.active, record.generation)
        for version, fact in known.items()
    }
    stay = {version for version in record.active if version in known}
    record.closing = ()
    decide(record, known)
    assert stay <= set(record.active)
    if stay:
        assert all(any(RULES.compatible(v, s) for s in stay) for v in record.active)


@given(ALL_FACTS)
def test_somebody_is_let_in_where_nobody_is(known: dict[str, Facts]) -> None:
    """Promise 5: no service waits for ever with nobody active."""
    record = ServiceRecord()
    known = {version: Facts(fact.stamp, 1) for version, fact in known.items()}
    reasons = decide(record, known)
    assert bool(record.active) == bool(known)
    first = min(known, key=lambda v: (known[v].stamp, v), default=None)
    assert first is None or first in record.active
    assert all(any(not RULES.compatible(v, a) for a in record.active) for v in reasons)


@given(records(), ALL_FACTS, st.booleans())
def test_what_serves_under_the_newest_generation_is_closed_only_for_what_serves_as_well(
    record: ServiceRecord, known: dict[str, Facts], settling: bool
) -> None:
    newest = max((f.generation for f in known.values() if f.open), default=0)
    serving = {v for v, f in known.items() if f.open and f.generation == newest >= record.generation}
    decide(record, known, settling)
    for version in serving - set(record.active):
        assert any(a in serving and not RULES.compatible(a, version) for a in record.active)


@given(records(), ALL_FACTS)
def test_a_root_that_settles_starts_no_generation_with_what_is_not_open(
    record: ServiceRecord, known: dict[str, Facts]
) -> None:
    known = {version: Facts(fact.stamp, 1) for version, fact in known.items()}
    era = record.era
    decide(record, known, settling=True)
    for version in record.active:
        assert all(RULES.compatible(version, old) for old in era)


def test_an_old_record_yields_to_what_is_open_under_a_newer_generation() -> None:
    record = ServiceRecord(1, {"1.0.0": 3}, ("1.0.0",))
    known = {
        "1.0.0": Facts(3, granted=True, may_be_open=True),
        "2.0.0": Facts(9, open=True, generation=2, granted=True),
    }
    reasons = decide(record, known)
    assert (record.generation, set(record.active)) == (2, {"2.0.0"})
    assert set(reasons) == {"1.0.0"}


def test_a_generation_that_was_only_heard_of_is_waited_for_but_not_for_ever() -> None:
    record = ServiceRecord()
    known = {"2.0.0": Facts(1, generation=3)}

    def at(now: float) -> dict[str, object]:
        return dict(decide_service(record, known, RULES.compatible, now=now, settling=False, hold_s=20.0))

    assert set(at(100.0)) == {"2.0.0"}
    assert set(at(119.0)) == {"2.0.0"}
    assert at(120.0) == {}
    assert record.generation >= 3


# ---------------------------------------------------------------------- routes

SERVICES = st.dictionaries(st.sampled_from(["catalog", "search", "shop", "site"]), facts(), max_size=4)


@given(st.none() | st.sampled_from(["catalog", "search", "gone"]), SERVICES, st.booleans())
def test_a_route_has_one_holder_and_everybody_else_a_reason(
    holder: str | None, known: dict[str, Facts], settling: bool
) -> None:
    after, reasons = decide_route(holder, known, route="a.example/*", decided_by="root", settling=settling)
    assert after is None or after in known or after == holder
    assert set(reasons) - {after} == set(known) - {after}
    if known and not settling:
        assert after in known


@given(st.sampled_from(["catalog", "search", "shop"]), SERVICES, st.booleans())
def test_who_holds_a_route_keeps_it_from_who_only_asks(holder: str, known: dict[str, Facts], settling: bool) -> None:
    known = {name: Facts(fact.stamp, 1, open=name == holder, granted=name == holder) for name, fact in known.items()}
    after, _ = decide_route(holder, known, route="a.example/*", decided_by="root", settling=settling)
    if holder in known or settling:
        assert after == holder


@given(SERVICES)
def test_a_free_route_goes_to_who_serves_it_else_to_the_earliest(known: dict[str, Facts]) -> None:
    after, _ = decide_route(None, known, route="a.example/*", decided_by="root", settling=False)
    assert after == min(known, key=lambda s: (not known[s].open, known[s].stamp, s), default=None)
