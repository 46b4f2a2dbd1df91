"""The decisions of a root for any reports: the properties of `sdlb.core.decisions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core.decisions import HolderRecord, Report, ServiceRecord, decide_route, decide_service
from sdlb.model.reason import Closing, Contested, NewerGeneration, PresumedStopped, Reason, Settling, StillRunning
from sdlb.model.version import Compatibility

VERSIONS = ["1.0.0", "1.0.1", "1.1.0", "2.0.0", "2.0.1", "3.0.0"]
PEERS = ["edge-2", "edge-3"]
RULES = Compatibility()
RULE_SETS = st.sampled_from(
    [
        RULES,
        Compatibility(rule="exact"),
        Compatibility(rule="minor"),
        Compatibility(rule="any"),
        Compatibility(deny=(("1.0.0", "1.0.1"), ("2.0.0", "2.0.1"))),
        Compatibility(allow=(("1.0.0", "2.0.0"),)),
    ]
)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """As `_Evidence` makes them: only what is open is backed, only what is backed has a generation that counts."""
    is_open = draw(st.booleans())
    backing = draw(st.integers(0, 3)) if is_open else 0
    return Report(
        stamp=draw(st.integers(0, 5)),
        count=1,
        open=is_open,
        may_be_open=is_open or draw(st.booleans()),
        vouched=backing > 0,
        granted=frozenset(draw(st.lists(st.sampled_from(PEERS), unique=True))),
        refused=frozenset(draw(st.lists(st.sampled_from(PEERS), unique=True))),
        backing=backing,
        majority=backing > 0 and draw(st.booleans()),
        generation=draw(st.integers(1, 4)) if backing else 0,
        hosts=("host-1",),
    )


ALL_FACTS = st.dictionaries(st.sampled_from(VERSIONS), reports(), max_size=5)


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


def decide(
    record: ServiceRecord,
    known: dict[str, Report],
    *,
    settling: bool = False,
    rules: Compatibility = RULES,
    heard: int = 0,
    now: float = 0.0,
) -> tuple[ServiceRecord, dict[str, Reason]]:
    return decide_service(record, known, rules.compatible, now=now, settling=settling, hold_s=20.0, heard=heard)


def newcomer(report: Report) -> Report:
    return Report(report.stamp, 1)


def word_of_a_child(report: Report, record: ServiceRecord) -> Report:
    """Whatever a child may say, but for what takes more than one to say, or another root."""
    return replace(report, granted=frozenset(), majority=False, generation=min(report.generation, record.generation))


# ---------------------------------------------------------------------- the active set


@given(records(), ALL_FACTS, st.booleans(), RULE_SETS, st.integers(0, 5))
def test_active_versions_are_compatible_and_all_others_have_a_reason(
    record: ServiceRecord, known: dict[str, Report], settling: bool, rules: Compatibility, heard: int
) -> None:
    """Promise 1, also after a change of policy or declarations. While a root settles, two active versions may stay."""
    after, reasons = decide(record, known, settling=settling, rules=rules, heard=heard)
    present = [version for version in after.active if version in known]
    for one in present:
        others = [other for other in present if not (settling and {one, other} <= set(record.active))]
        assert all(rules.compatible(one, other) for other in others)
    assert set(reasons) == set(known) - set(after.active)
    assert settling or set(after.active) <= set(known)
    assert all(str(reason) and reason.code for reason in reasons.values())


@given(records(), ALL_FACTS, RULE_SETS)
def test_a_new_version_is_compatible_with_absent_ones_too(
    record: ServiceRecord, known: dict[str, Report], rules: Compatibility
) -> None:
    """While a root settles, a recorded version without a report blocks incompatible versions like a reported one."""
    after, _ = decide(record, {v: newcomer(f) for v, f in known.items()}, settling=True, rules=rules)
    for version in set(after.active) - set(record.active):
        assert all(rules.compatible(version, other) for other in after.active)


@given(records(), st.integers(0, 5), st.integers(0, 5), RULE_SETS)
def test_of_two_that_no_longer_get_along_the_senior_one_stays(
    record: ServiceRecord, one: int, other: int, rules: Compatibility
) -> None:
    record = replace(record, generation=1, active={"1.0.0": one, "1.0.1": other}, era=("1.0.0", "1.0.1"), closing=())
    known = {
        version: Report(stamp, 1, open=True, may_be_open=True, vouched=True, backing=1, generation=1)
        for version, stamp in record.active.items()
    }
    after, reasons = decide(record, known, rules=rules)
    if rules.compatible("1.0.0", "1.0.1"):
        assert set(after.active) == {"1.0.0", "1.0.1"}
    else:
        senior = min(known, key=lambda v: (known[v].stamp, v))
        (junior,) = set(known) - {senior}
        assert set(after.active) == {senior}
        assert after.closing == (junior,)
        assert reasons[junior].code


def test_a_version_admitted_by_a_declaration_closes_when_no_instance_declares_it_any_more() -> None:
    record = ServiceRecord(1, {"1.0.0": 1, "2.0.0": 2}, ("1.0.0", "2.0.0"))
    serving = Report(1, 1, open=True, may_be_open=True, vouched=True, backing=1, generation=1)
    after, reasons = decide(record, {"1.0.0": serving, "2.0.0": replace(serving, stamp=2)})
    assert set(after.active) == {"1.0.0"}
    assert set(reasons) == {"2.0.0"}


@given(records(), ALL_FACTS, st.booleans(), RULE_SETS)
def test_deciding_again_changes_nothing_in_the_end(
    record: ServiceRecord, known: dict[str, Report], settling: bool, rules: Compatibility
) -> None:
    for _ in VERSIONS:
        record, _ = decide(record, known, settling=settling, rules=rules)
    assert decide(record, known, settling=settling, rules=rules)[0] == record


@given(records(), ALL_FACTS, st.booleans(), RULE_SETS, st.randoms(use_true_random=False))
def test_the_order_in_which_claims_came_decides_nothing(
    record: ServiceRecord, known: dict[str, Report], settling: bool, rules: Compatibility, rng: Random
) -> None:
    shuffled, active = list(known.items()), list(record.active.items())
    rng.shuffle(shuffled)
    rng.shuffle(active)
    other = replace(record, active=dict(active))
    assert decide(record, known, settling=settling, rules=rules) == decide(
        other, dict(shuffled), settling=settling, rules=rules
    )


@given(records(), ALL_FACTS, st.booleans())
def test_a_record_is_never_changed_in_place(record: ServiceRecord, known: dict[str, Report], settling: bool) -> None:
    before = replace(record, active=dict(record.active))
    decide(record, known, settling=settling)
    assert record == before


@given(records(), ALL_FACTS, st.booleans(), RULE_SETS, st.integers(0, 6))
def test_the_generation_never_goes_back(
    record: ServiceRecord, known: dict[str, Report], settling: bool, rules: Compatibility, heard: int
) -> None:
    after, _ = decide(record, known, settling=settling, rules=rules, heard=heard)
    assert after.generation >= record.generation
    assert after.generation >= max((f.generation for v, f in known.items() if v in after.active), default=0)


@given(records(), ALL_FACTS)
def test_what_was_not_compatible_with_the_era_starts_a_generation(
    record: ServiceRecord, known: dict[str, Report]
) -> None:
    after, _ = decide(record, {v: newcomer(f) for v, f in known.items()})
    foreign = [v for v in after.active if not all(RULES.compatible(v, old) for old in record.era)]
    assert (after.generation > record.generation) == bool(foreign or (after.active and not record.generation))
    assert set(after.active) <= set(after.era)


# ---------------------------------------------------------------------- incumbents


@given(records(), ALL_FACTS)
def test_the_incumbent_stays_while_no_other_version_is_open_or_granted(
    record: ServiceRecord, known: dict[str, Report]
) -> None:
    """Promise 2: an incompatible version opens only after the last instance of the other one has stopped."""
    known = {
        version: Report(
            report.stamp,
            1,
            open=version in record.active,
            vouched=version in record.active,
            backing=int(version in record.active),
            generation=record.generation if version in record.active else 0,
        )
        for version, report in known.items()
    }
    stay = {version for version in record.active if version in known}
    after, _ = decide(replace(record, closing=()), known)
    assert stay <= set(after.active)
    if stay:
        assert all(any(RULES.compatible(v, s) for s in stay) for v in after.active)


@given(records(), ALL_FACTS, st.booleans())
def test_reports_of_children_do_not_override_a_record(
    record: ServiceRecord, known: dict[str, Report], settling: bool
) -> None:
    """Exceptions are an accepted newer generation, and another root that grants the version and not the incumbent."""
    known = {version: word_of_a_child(report, record) for version, report in known.items()}
    after, _ = decide(record, known, settling=settling, heard=record.generation)
    assert {version for version in record.active if version in known} <= set(after.active)


@given(records(), ALL_FACTS, st.booleans())
def test_a_root_that_grants_both_is_no_evidence_for_one(
    record: ServiceRecord, known: dict[str, Report], settling: bool
) -> None:
    known = {
        version: replace(word_of_a_child(report, record), granted=frozenset(PEERS)) for version, report in known.items()
    }
    after, _ = decide(record, known, settling=settling)
    assert {version for version in record.active if version in known} <= set(after.active)


@given(records(), ALL_FACTS, st.booleans())
def test_an_incumbent_loses_only_to_a_newer_generation_or_another_root(
    record: ServiceRecord, known: dict[str, Report], settling: bool
) -> None:
    after, _ = decide(record, known, settling=settling)
    newest = max((f.generation for f in known.values() if f.vouched), default=0)
    for version in {v for v in record.active if v in known} - set(after.active):
        rivals = [r for r in known if not RULES.compatible(r, version)]
        assert any(
            known[r].granted - known[version].granted
            or (known[r].vouched and known[r].generation == newest > record.generation)
            for r in rivals
        )


def test_the_incumbent_yields_to_what_another_root_granted_earlier() -> None:
    record = ServiceRecord(1, {"1.0.0": 9}, ("1.0.0",))
    granted = Report(3, may_be_open=True, granted=frozenset({"edge-2"}))
    for known, winner in (
        ({"1.0.0": Report(9), "2.0.0": granted}, set()),
        ({"1.0.0": Report(2), "2.0.0": granted}, {"1.0.0"}),
        ({"1.0.0": Report(9, granted=frozenset({"edge-2"})), "2.0.0": granted}, {"1.0.0"}),
        ({"1.0.0": Report(9, open=True, vouched=True, backing=1, generation=1), "2.0.0": granted}, {"1.0.0"}),
    ):
        after, _ = decide(record, known)
        assert set(after.active) & {"1.0.0"} == winner & {"1.0.0"}, known


# ---------------------------------------------------------------------- newcomers


@given(ALL_FACTS, RULE_SETS)
def test_a_version_is_admitted_where_none_is_active(known: dict[str, Report], rules: Compatibility) -> None:
    """Promise 5: no service waits forever without an active version."""
    known = {version: newcomer(report) for version, report in known.items()}
    after, reasons = decide(ServiceRecord(), known, rules=rules)
    assert bool(after.active) == bool(known)
    first = min(known, key=lambda v: (known[v].stamp, v), default=None)
    assert first is None or first in after.active
    assert all(any(not rules.compatible(v, a) for a in after.active) for v in reasons)


@given(records(), ALL_FACTS, st.booleans())
def test_nothing_opens_beside_what_may_be_open_still(
    record: ServiceRecord, known: dict[str, Report], settling: bool
) -> None:
    """Promise 1: a newly admitted version is compatible with every version that may be open, unless it serves with
    consent itself."""
    after, _ = decide(record, known, settling=settling)
    for version in set(after.active) - set(record.active):
        for other, report in known.items():
            if report.may_be_open and not RULES.compatible(version, other):
                assert known[version].vouched


@given(records(), ALL_FACTS, st.booleans())
def test_what_serves_under_the_newest_generation_is_closed_only_for_what_serves_as_well(
    record: ServiceRecord, known: dict[str, Report], settling: bool
) -> None:
    known = {version: replace(report, granted=frozenset()) for version, report in known.items()}
    newest = max((f.generation for f in known.values() if f.vouched), default=0)
    serving = {v for v, f in known.items() if f.vouched and f.generation == newest >= record.generation}
    after, _ = decide(record, known, settling=settling)
    for version in serving - set(after.active):
        assert any((a in serving or a in record.active) and not RULES.compatible(a, version) for a in after.active), (
            "an incumbent on record, or another that serves"
        )


@given(records(), ALL_FACTS)
def test_a_root_that_settles_starts_no_generation_with_what_is_not_open(
    record: ServiceRecord, known: dict[str, Report]
) -> None:
    after, reasons = decide(record, {v: newcomer(f) for v, f in known.items()}, settling=True)
    assert after.generation in (record.generation, 1)
    for version in after.active:
        assert all(RULES.compatible(version, old) for old in record.era)
    blocked = {v for v in known if not all(RULES.compatible(v, old) for old in record.era)}
    assert blocked <= set(reasons)


def test_each_reason_names_what_is_in_the_way() -> None:
    record = ServiceRecord(2, {"1.0.0": 1}, ("1.0.0",), closing=("3.0.0",))
    serving = Report(1, 4, open=True, may_be_open=True, vouched=True, backing=1, generation=2, hosts=("host-1",))
    new = Report(5, 1)
    assert decide(record, {"1.0.0": serving, "2.0.0": new})[1] == {"2.0.0": StillRunning("1.0.0", 4, ("host-1",))}
    silent = replace(serving, presumed=True)
    assert decide(record, {"1.0.0": silent, "2.0.0": new})[1] == {"2.0.0": PresumedStopped("1.0.0", ("host-1",))}
    assert decide(record, {"2.0.0": new}, settling=True)[1] == {"2.0.0": Settling("1.0.0")}
    recalled = Report(9, may_be_open=True, hosts=("host-2",))
    after, reasons = decide(replace(record, active={}), {"2.0.0": new, "3.0.0": recalled})
    assert reasons == {"2.0.0": Closing("3.0.0", ("host-2",)), "3.0.0": Contested("2.0.0")}
    assert after.closing == ("3.0.0",)
    assert decide(ServiceRecord(), {"1.0.0": new, "2.0.0": new})[1] == {"2.0.0": StillRunning("1.0.0", 1, ())}


# ---------------------------------------------------------------------- newer generations


def test_an_old_record_yields_to_what_is_open_under_a_newer_generation() -> None:
    record = ServiceRecord(1, {"1.0.0": 3}, ("1.0.0",))
    known = {
        "1.0.0": Report(3, may_be_open=True),
        "2.0.0": Report(9, open=True, may_be_open=True, vouched=True, backing=1, generation=2),
    }
    after, reasons = decide(record, known)
    assert (after.generation, set(after.active)) == (2, {"2.0.0"})
    assert set(reasons) == {"1.0.0"}


def test_what_is_not_vouched_for_is_never_newer() -> None:
    record = ServiceRecord(1, {"1.0.0": 3}, ("1.0.0",))
    known = {"1.0.0": Report(3), "2.0.0": Report(0, open=True, may_be_open=True, generation=9)}
    after, _ = decide(record, known)
    assert (after.generation, set(after.active)) == (1, {"1.0.0"})


def test_a_generation_that_was_only_heard_of_is_waited_for_but_not_for_ever() -> None:
    record, known = ServiceRecord(), {"2.0.0": Report(1)}
    for now in (100.0, 119.0):
        record, reasons = decide(record, known, heard=3, now=now)
        assert reasons == {"2.0.0": NewerGeneration(3)}
        assert record.hold_until == 120.0
    record, reasons = decide(record, known, heard=3, now=120.0)
    assert reasons == {}
    assert record.generation >= 3


def test_while_a_newer_generation_is_waited_for_only_what_is_open_stays_granted() -> None:
    record = ServiceRecord(1, {"1.0.0": 1, "1.0.1": 2}, ("1.0.0", "1.0.1"))
    known = {"1.0.0": Report(1), "1.0.1": Report(2, open=True, may_be_open=True, vouched=True, backing=1, generation=1)}
    after, reasons = decide(record, known, heard=5, now=1.0)
    assert set(after.active) == {"1.0.1"}
    assert reasons == {"1.0.0": NewerGeneration(5)}


# ---------------------------------------------------------------------- several roots


@dataclass
class Roots:
    """Roots that hear the same children, whose nodes open what all of them grant."""

    records: dict[str, ServiceRecord]
    known: dict[str, Report]
    recalled: dict[str, set[str]] = field(default_factory=dict)

    def facts_of(self, name: str) -> dict[str, Report]:
        found: dict[str, Report] = {}
        for version, report in self.known.items():
            granted = frozenset(n for n, r in self.records.items() if n != name and version in r.active)
            mine = version in self.recalled.get(name, set())
            vouched = report.open and not mine
            found[version] = replace(
                report,
                granted=granted,
                vouched=vouched,
                backing=report.backing if vouched else 0,
                generation=report.generation if vouched else 0,
            )
        return found

    def decide(self, name: str) -> None:
        before = self.records[name]
        after, _ = decide(before, self.facts_of(name))
        self.records[name] = after
        recalled = self.recalled.setdefault(name, set())
        recalled |= set(before.active) - set(after.active)
        recalled -= set(after.active)

    def nodes_follow(self) -> None:
        newest = max(r.generation for r in self.records.values())
        for version, report in self.known.items():
            is_open = all(version in r.active for r in self.records.values())
            generation = (report.generation if report.open else newest) if is_open else 0
            self.known[version] = replace(
                report,
                open=is_open,
                may_be_open=is_open,
                backing=max(1, report.backing) if is_open else 0,
                generation=generation,
            )


@given(
    st.dictionaries(st.sampled_from(VERSIONS), st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1),
    st.lists(st.lists(st.sampled_from(VERSIONS), unique=True), min_size=2, max_size=3),
    st.randoms(use_true_random=False),
)
def test_all_roots_settle_a_contest_alike(
    claims: dict[str, tuple[int, int]], granted: list[list[str]], rng: Random
) -> None:
    """Each root has granted another version at first, and some of them serve. The roots decide in any order with the
    same result."""
    names = [f"edge-{number}" for number in range(1, len(granted) + 1)]
    known = {
        version: Report(
            stamp, 1, open=backing > 0, may_be_open=backing > 0, backing=backing, generation=int(backing > 0)
        )
        for version, (stamp, backing) in claims.items()
    }
    records_: dict[str, ServiceRecord] = {}
    for name, wanted in zip(names, granted, strict=True):
        active: dict[str, int] = {}
        for version in wanted:
            if version in known and all(RULES.compatible(version, other) for other in active):
                active[version] = known[version].stamp
        records_[name] = ServiceRecord(1, active, tuple(sorted(active))) if active else ServiceRecord()
    roots = Roots(records_, known)
    for _ in range(20):
        order = list(names)
        rng.shuffle(order)
        for name in order:
            roots.decide(name)
        roots.nodes_follow()
    sets = {tuple(record.active) for record in roots.records.values()}
    assert len(sets) == 1
    (active_now,) = sets
    assert active_now
    before = dict(roots.records)
    for name in names:
        roots.decide(name)
    assert roots.records == before


# ---------------------------------------------------------------------- routes

SERVICES = st.dictionaries(st.sampled_from(["catalog", "search", "shop", "site"]), reports(), max_size=4)
CONTENDERS = ["catalog", "search", "shop"]
HOLDERS = st.none() | st.builds(
    HolderRecord, st.sampled_from(["catalog", "search", "gone"]), st.integers(0, 5), st.booleans()
)


@st.composite
def held(draw: st.DrawFn) -> tuple[HolderRecord, dict[str, Report]]:
    """A route whose holder claims it."""
    known = {**draw(SERVICES), "catalog": draw(reports())}
    return HolderRecord("catalog", draw(st.integers(0, 5)), draw(st.booleans())), known


def decide_holder(
    holder: HolderRecord | None, known: dict[str, Report], *, settling: bool = False
) -> tuple[HolderRecord | None, dict[str, Reason]]:
    return decide_route(holder, known, route="a.example/*", decided_by="root", settling=settling)


@given(HOLDERS, SERVICES, st.booleans())
def test_a_route_has_one_holder_and_every_other_service_a_reason(
    holder: HolderRecord | None, known: dict[str, Report], settling: bool
) -> None:
    after, reasons = decide_holder(holder, known, settling=settling)
    name = after.service if after is not None else None
    assert after is None or name in known or after == holder
    assert set(reasons) - {name} == set(known) - {name}
    if known and not settling:
        assert name in known


@given(st.sampled_from(["catalog", "search", "shop"]), SERVICES, st.booleans(), st.booleans())
def test_the_holder_of_a_route_keeps_it_from_later_claims(
    holder: str, known: dict[str, Report], settling: bool, confirmed: bool
) -> None:
    known = {
        name: Report(report.stamp, 1, open=name == holder, vouched=name == holder, backing=int(name == holder))
        for name, report in known.items()
    }
    after, _ = decide_holder(HolderRecord(holder, 1, confirmed), known, settling=settling)
    if holder in known or settling:
        assert after is not None and after.service == holder


@given(held(), st.booleans())
def test_a_holder_that_has_served_loses_to_another_root_or_to_most_children_alone(
    route: tuple[HolderRecord, dict[str, Report]], settling: bool
) -> None:
    holder, known = replace(route[0], confirmed=True), route[1]
    after, _ = decide_holder(holder, known, settling=settling)
    assert after is not None
    if after.service != holder.service:
        mine, other = known[holder.service], known[after.service]
        assert other.granted & mine.refused or (other.majority and not mine.open)


@given(held(), st.booleans())
def test_one_child_takes_no_route_from_a_holder_that_serves(
    route: tuple[HolderRecord, dict[str, Report]], settling: bool
) -> None:
    holder, known = route
    known = {name: replace(report, granted=frozenset()) for name, report in known.items()}
    known[holder.service] = replace(known[holder.service], open=True)
    after, _ = decide_holder(holder, known, settling=settling)
    assert after == replace(holder, confirmed=True)


@given(SERVICES)
def test_a_free_route_goes_to_the_service_that_serves_it_else_to_the_earliest(known: dict[str, Report]) -> None:
    after, _ = decide_holder(None, known)
    first = min(known, key=lambda s: (-known[s].backing, not known[s].open, known[s].stamp, s), default=None)
    assert (after.service if after is not None else None) == first


@given(HOLDERS, SERVICES, st.booleans())
def test_a_new_holder_waits_while_the_route_may_be_open_for_another(
    holder: HolderRecord | None, known: dict[str, Report], settling: bool
) -> None:
    """A holder that has served does not wait: the other service came from another tree and is closed."""
    after, reasons = decide_holder(holder, known, settling=settling)
    if after is None or after.service not in known:
        return
    others = {name for name, report in known.items() if name != after.service and report.may_be_open}
    changed = holder is not None and holder.service in known and holder.service != after.service
    waits = isinstance(reasons.get(after.service), Closing)
    assert waits == (changed or bool(others and not after.confirmed))


@given(HOLDERS, SERVICES, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_decides_nothing_about_a_route(
    holder: HolderRecord | None, known: dict[str, Report], settling: bool, rng: Random
) -> None:
    shuffled = list(known.items())
    rng.shuffle(shuffled)
    assert decide_holder(holder, known, settling=settling) == decide_holder(holder, dict(shuffled), settling=settling)


@given(HOLDERS, SERVICES, st.booleans())
def test_deciding_a_route_again_changes_nothing_in_the_end(
    holder: HolderRecord | None, known: dict[str, Report], settling: bool
) -> None:
    for _ in range(len(known) + 1):
        holder, _ = decide_holder(holder, known, settling=settling)
    assert decide_holder(holder, known, settling=settling)[0] == holder


@given(
    st.fixed_dictionaries({name: st.tuples(st.integers(0, 3), st.integers(0, 3)) for name in CONTENDERS}),
    st.lists(st.sampled_from(CONTENDERS), min_size=2, max_size=3),
    st.randoms(use_true_random=False),
)
def test_all_roots_give_a_route_to_the_same_service(
    claims: dict[str, tuple[int, int]], first: list[str], rng: Random
) -> None:
    names = [f"edge-{number}" for number in range(1, len(first) + 1)]
    holders: dict[str, HolderRecord | None] = {
        name: HolderRecord(service, claims[service][0]) for name, service in zip(names, first, strict=True)
    }
    backing = {service: each for service, (_, each) in claims.items()}
    for _ in range(20):
        order = list(names)
        rng.shuffle(order)
        for name in order:
            known = {
                service: Report(
                    stamp,
                    1,
                    open=backing[service] > 0,
                    may_be_open=backing[service] > 0,
                    vouched=backing[service] > 0,
                    granted=frozenset(n for n, h in holders.items() if n != name and h and h.service == service),
                    refused=frozenset(n for n, h in holders.items() if n != name and h and h.service != service),
                    backing=backing[service],
                )
                for service, (stamp, _) in claims.items()
            }
            holders[name], _ = decide_holder(holders[name], known)
        holding = {h.service for h in holders.values() if h is not None}
        for service in backing:
            if holding == {service}:
                backing[service] = max(1, backing[service])
            elif service not in holding:
                backing[service] = 0
    assert len({h.service for h in holders.values() if h is not None}) == 1
