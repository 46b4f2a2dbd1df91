"""How a root weighs the reports of its children, without nodes around it."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from sdlb.core import saved
from sdlb.core.authority import LEAP_MAX, Delegated, Root, _Evidence  # pyright: ignore[reportPrivateUsage]
from sdlb.core.children import Children
from sdlb.core.decisions import Report, ServiceRecord
from sdlb.core.downlink import Downlink
from sdlb.core.effects import Note, ReleaseHeld
from sdlb.core.messages import ACTIVE, Claim, ClaimKey, Stage
from sdlb.core.parents import Parents
from sdlb.core.settings import Settings
from sdlb.core.slot import Part, Permit, Phase, Slot
from sdlb.core.source import Source
from sdlb.core.state import State, text_of
from tests.core.forest import ROUTE, Forest, key_of

OLD, NEW = key_of("1.0.1"), key_of("2.0.0")
OURS = ("id-edge",)


class Bench:
    """A root with a record at generation 3, under which 1.0.1 is active."""

    def __init__(self, record: ServiceRecord | None = None) -> None:
        self.state = State(Settings("edge", "id-edge", 1), Random(0))
        self.children = Children(self.state)
        self.root = Root(self.state, self.children)
        if record is not None:
            self.root.records["catalog"] = record

    def report(
        self, child: str, key: ClaimKey, generation: int, scope: tuple[str, ...] = OURS, stage: Stage = Stage.OPEN
    ) -> Slot:
        target = f"n:{child}"
        slot = self.state.put_source(key, Source(target, Claim(key), child))
        part = Part(count=1, hosts=(child,), stage=stage, generation=generation, scope=scope, child=True)
        slot.put_part(target, part)
        return slot

    def heard_root(self, node_id: str) -> None:
        """All children hear this root too."""
        self.children.by_name["host"] = Downlink("host", "id-host", 1, "10.0.0.1:80", 0.0)
        self.children.root_votes[node_id] = 1

    def lose_root(self, node_id: str) -> None:
        """All children are out of touch with this root."""
        self.children.by_link[1] = self.children.by_name["host"]
        self.children.lost_votes[node_id] = 1

    def decide(self, now: float) -> ServiceRecord:
        self.state.dirty_services["catalog"] = None
        self.state.dirty_routes[ROUTE] = None
        self.root.decide(now)
        return self.root.records["catalog"]

    def trust(self) -> _Evidence:
        record = self.root.records["catalog"]
        return _Evidence(self.root, record, list(self.state.slots.values()))

    def reports(self, key: ClaimKey) -> Report:
        return self.trust().reports([self.state.slots[key]])

    def codes(self) -> list[str]:
        return [effect.code for effect in self.state.effects if isinstance(effect, Note)]


THIRD = ServiceRecord(generation=3, active={"1.0.1": 1}, era=("1.0.1",))


# ---------------------------------------------------------------------- generations that too few report


def doubtful() -> Bench:
    bench = Bench(THIRD)
    for number in (1, 2):
        bench.report(f"host-{number}", OLD, 3)
    bench.report("stray", OLD, 7)
    return bench


def test_a_root_continues_above_a_generation_that_too_few_report_after_lease_and_fence() -> None:
    bench = doubtful()
    assert bench.decide(0.0).generation == 3
    assert bench.decide(19.0).generation == 3
    assert list(bench.state.due_timers(20.0)) == [("hold", "catalog")]
    record = bench.decide(20.0)
    assert (record.generation, list(record.active)) == (8, ["1.0.1"])
    assert "generation-doubted" in bench.codes()


@pytest.mark.parametrize(("other", "end"), [("id-a", 40.0), ("id-z", 20.0)])
def test_of_several_roots_the_first_one_continues_above_it_and_the_others_hear_that_first(
    other: str, end: float
) -> None:
    bench = doubtful()
    bench.heard_root(other)
    assert [bench.decide(now).generation for now in (0.0, end - 1.0, end)] == [3, 3, 8]


def test_a_root_waits_anew_when_a_root_before_it_is_lost() -> None:
    bench = doubtful()
    bench.heard_root("id-a")
    bench.decide(0.0)
    bench.lose_root("id-a")
    assert [bench.decide(now).generation for now in (10.0, 29.0, 30.0)] == [3, 3, 8]


def test_a_doubt_that_is_over_starts_anew_with_the_next_one() -> None:
    bench = doubtful()
    bench.decide(0.0)
    bench.report("stray", OLD, 3)
    bench.decide(10.0)
    bench.report("stray", OLD, 7)
    assert [bench.decide(now).generation for now in (15.0, 30.0)] == [3, 3]


@pytest.mark.parametrize(("leap", "believed"), [(LEAP_MAX, True), (LEAP_MAX + 1, False)])
def test_a_generation_far_above_the_record_does_not_count(leap: int, believed: bool) -> None:
    bench = Bench(THIRD)
    for number in (1, 2):
        bench.report(f"host-{number}", OLD, 3 + leap)
    assert (bench.decide(0.0).generation == 3 + leap) is believed


# ---------------------------------------------------------------------- a root without a record


@pytest.mark.promise(3, 5)
def test_a_generation_counts_that_only_nodes_report_which_wait_for_what_is_open_here() -> None:
    """They wait for the consent of this root under that generation. It never opens below, so nothing else would tell this root."""
    bench = Bench(THIRD)
    for child in ("host-1", "host-2"):
        slot = bench.report(child, OLD, 4, stage=Stage.WAITING)
    slot.permit, slot.opened = Permit(ACTIVE, generation=3), 3
    assert slot.open() and slot.generation() == 3 and bench.trust().heard == 4
    assert bench.decide(0.0).generation == 3 and bench.decide(20.0).generation == 4


def test_the_scope_that_most_share_is_adopted() -> None:
    bench = Bench()
    for number in (1, 2):
        bench.report(f"host-{number}", OLD, 5, ("id-a",))
    bench.report("stray", OLD, 9, ("id-z",))
    record = bench.decide(0.0)
    assert (record.scope, record.generation) == (("id-a",), 5)


def test_the_newest_generation_of_that_scope_is_adopted() -> None:
    bench = Bench()
    bench.report("host-1", OLD, 5, ("id-a",))
    bench.report("host-2", OLD, 3, ("id-a",))
    assert bench.decide(0.0).generation == 5


# ---------------------------------------------------------------------- vouched versions


def test_what_is_open_under_a_generation_that_does_not_count_is_not_vouched_for() -> None:
    bench = doubtful()
    bench.report("stray", NEW, 7)
    assert not bench.reports(NEW).vouched
    assert bench.reports(OLD).backing == 2


def test_what_was_recalled_here_is_not_vouched_for() -> None:
    bench = Bench(THIRD)
    slot = bench.report("host", NEW, 3)
    assert bench.reports(NEW).vouched
    slot.phase, slot.opened = Phase.CLOSING, 3
    assert not bench.reports(NEW).vouched
    assert bench.reports(NEW).open


@pytest.mark.parametrize(("others", "majority"), [(0, True), (1, False), (2, False)])
def test_more_than_half_of_those_that_claim_a_route_are_a_majority(others: int, majority: bool) -> None:
    bench = Bench(THIRD)
    bench.report("host", NEW, 3)
    for number in range(others):
        bench.report(f"other-{number}", OLD, 3)
    assert bench.reports(NEW).majority is majority


# ---------------------------------------------------------------------- seniority, roles, the disk


def test_seniority_grows_though_the_clock_is_set_back() -> None:
    bench = Bench(THIRD)
    bench.state.wall_s = 1000.0
    old = bench.root.permit(bench.report("host", OLD, 3), 0.0)
    bench.state.wall_s = 10.0
    new = bench.root.permit(bench.report("host", NEW, 3), 0.0)
    assert 0 < old.stamp < new.stamp


def test_a_recall_is_looked_at_again_once_permits_have_followed() -> None:
    bench = Bench(ServiceRecord(generation=3, active={"1.0.1": 1, "2.0.0": 2}, era=("1.0.1", "2.0.0")))
    bench.report("host-1", OLD, 3)
    bench.report("host-2", NEW, 3)
    bench.decide(0.0)
    assert bench.root.records["catalog"].closing == ("2.0.0",)
    assert "catalog" in bench.state.dirty_services


def test_a_permit_of_former_parents_goes_on_record() -> None:
    bench = Bench()
    bench.state.put_source(OLD, Source("i:a", Claim(OLD)))
    permit = Permit(ACTIVE, decided_by="top", generation=6, scope=("id-top",), stamp=77)
    bench.root.load("permit", text_of(OLD), saved.permit_to(permit))
    record = bench.root.records["catalog"]
    assert (record.generation, record.active, record.scope) == (6, {"1.0.1": 77}, ("id-top",))
    assert bench.root.holders[ROUTE].service == "catalog"
    assert bench.state.puts[f"permit/{text_of(OLD)}"] is None


@pytest.mark.parametrize("others", [(), ("id-edge-2",)])
def test_a_root_that_cannot_write_follows_other_roots_alone(others: tuple[str, ...]) -> None:
    bench = Bench(THIRD)
    for node_id in ("id-edge", *others):
        bench.heard_root(node_id)
    bench.root.follow()
    assert (ReleaseHeld() in bench.state.effects) is bool(others)


def test_what_was_decided_here_holds_until_new_parents_have_decided() -> None:
    state = State(Settings("edge", "id-edge", 1, ("top",)), Random(0))
    delegated = Delegated(state, Parents(state, 0.0))
    for key in (OLD, NEW):
        state.put_source(key, Source("i:a", Claim(key)))
    delegated.load("service", "catalog", saved.service_to(replace(THIRD, scope=("id-before",))))
    assert [state.slots[key].active for key in (OLD, NEW)] == [True, False]
    assert state.slots[OLD].permit.scope == ("id-edge",)
    assert state.puts[f"permit/{text_of(OLD)}"] == saved.permit_to(state.slots[OLD].permit)
    assert state.puts["service/catalog"] is None


@pytest.mark.promise(5)
def test_a_root_waits_for_children_on_record_no_longer_than_lease_and_fence() -> None:
    """Most children are silent, so none is presumed stopped. Still, the root stops waiting for claims that only its
    record has."""
    forest = Forest({"edge": (), **{f"host-{number}": ("edge",) for number in (1, 2, 3)}})
    forest.put("host-1", "a", "1.0.1")
    for name in ("host-1", "host-2"):
        forest[name].kill()
    forest["edge"].power_cut()  # with an empty engine, whose table is no other reason to decide again
    forest["edge"].disk.pop(f"claim/host-1/{text_of(OLD)}")
    forest["edge"].start()
    forest.put("host-3", "b", "2.0.0")
    forest.run(15.0)
    assert forest["host-3"].state("b") == "waiting"
    forest.run(10.0)
    assert forest["host-3"].state("b") == "active"
