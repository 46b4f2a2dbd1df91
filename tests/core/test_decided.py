"""The rules of an authority, one case each (`test_decisions.py` tests the general properties)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.core.decisions import SAME_TIME_US, HolderRecord, Report, ServiceRecord, decide_route, decide_service
from sdlb.model.reason import Asking, Closing, Contested, NewerGeneration, Reason, RouteConflict, Settling, StillRunning

RECORD = ServiceRecord(3, {"1": 10}, ("1",))
SERVES = Report(10, open=True, may_be_open=True, vouched=True, backing=1, generation=3)
THERE = frozenset({"other-root"})


def decide(
    record: ServiceRecord, reports: dict[str, Report], *, now: float = 0.0, settling: bool = False, heard: int = 0
) -> tuple[ServiceRecord, dict[str, Reason]]:
    """No two versions get along."""
    return decide_service(record, reports, lambda a, b: a == b, now=now, settling=settling, hold_s=20.0, heard=heard)


def active(*args: object, **more: object) -> list[str]:
    return list(decide(*args, **more)[0].active)  # type: ignore[arg-type]


@pytest.mark.parametrize("vouched", [True, False])
def test_what_is_absent_while_a_root_settles_gives_way_only_to_what_serves_by_decision(vouched: bool) -> None:
    other = Report(5, open=True, may_be_open=True, granted=THERE, vouched=vouched, generation=3 if vouched else 0)
    assert active(RECORD, {"2": other}, settling=True) == (["2"] if vouched else ["1"])


@pytest.mark.parametrize(("mine", "theirs", "winner"), [(1, 3, "2"), (3, 1, "1"), (1, 1, "1")])
def test_of_two_that_roots_have_granted_the_one_that_is_open_at_more_children_stays(
    mine: int, theirs: int, winner: str
) -> None:
    other = replace(SERVES, stamp=20, backing=theirs, granted=THERE)
    assert active(RECORD, {"1": replace(SERVES, backing=mine), "2": other}) == [winner]


def test_a_root_that_grants_both_decides_nothing() -> None:
    other = replace(SERVES, stamp=20, backing=3, granted=THERE)
    assert active(RECORD, {"1": replace(SERVES, granted=THERE), "2": other}) == ["1"]


def test_a_number_that_is_not_vouched_for_is_none() -> None:
    other = Report(20, open=True, may_be_open=True, granted=THERE, generation=9, backing=0)
    assert active(RECORD, {"1": SERVES, "2": other}) == ["1"]


@pytest.mark.parametrize("order", ["12", "21"])
def test_equal_stamps_are_settled_by_the_name(order: str) -> None:
    record, reasons = decide(ServiceRecord(), {version: Report(7) for version in order})
    assert list(record.active) == ["1"]
    assert reasons == {"2": StillRunning("1", 0, ())}


def test_the_earliest_goes_first_also_where_something_else_keeps_it_waiting() -> None:
    closing = Report(9, may_be_open=True)
    record, reasons = decide_service(
        ServiceRecord(3, era=("0",)),
        {"0": closing, "1": Report(2), "2": Report(3)},
        lambda a, b: a == b or {a, b} == {"0", "2"},
        now=0.0,
        settling=False,
        hold_s=20.0,
    )
    assert "2" not in record.active and record.closing == ("0",)
    assert reasons["1"] == Closing("0", ())
    assert isinstance(reasons["2"], Contested)


def test_a_newer_generation_replaces_what_is_on_record() -> None:
    record, _ = decide(RECORD, {"1": SERVES, "2": replace(SERVES, stamp=20, generation=5)})
    assert (list(record.active), record.generation, record.era) == (["2"], 5, ("2",))
    assert "1" in record.closing


def test_a_generation_that_was_heard_of_is_waited_for() -> None:
    reports = {"1": Report(10), "2": Report(20)}
    record, reasons = decide(RECORD, reports, heard=5)
    assert (list(record.active), record.generation, record.hold_until) == ([], 3, 20.0)
    assert reasons["1"] == NewerGeneration(5)
    record, _ = decide(record, reports, now=19.9, heard=5)
    assert not record.active
    record, _ = decide(record, reports, now=20.0, heard=5)
    assert list(record.active) == ["1"] and record.generation > 5 - 1


def test_each_incompatible_replacement_is_a_new_generation_with_an_era_of_its_own() -> None:
    record, _ = decide(RECORD, {"2": Report(20)})
    assert (record.generation, record.era) == (4, ("2",))
    record, _ = decide_service(
        record, {"2": Report(20), "2b": Report(30)}, lambda *_: True, now=0.0, settling=False, hold_s=20.0
    )
    assert (record.generation, record.era) == (4, ("2", "2b"))


def test_while_a_root_settles_nothing_new_opens_that_is_not_compatible_with_the_era() -> None:
    record, reasons = decide(replace(RECORD, active={}), {"2": Report(20)}, settling=True)
    assert not record.active and reasons == {"2": Settling("1")}


def test_what_was_recalled_and_may_be_open_is_waited_for() -> None:
    reports = {"1": Report(10, may_be_open=True), "2": Report(20)}
    record, reasons = decide(replace(RECORD, active={}, closing=("1",)), reports)
    assert "2" not in record.active and "2" in reasons


def test_policy_recalls_the_junior_of_two_and_does_not_let_it_in_again() -> None:
    both = replace(RECORD, active={"1": 10, "2": 20}, era=("1", "2"))
    record, reasons = decide(both, {"1": SERVES, "2": replace(SERVES, stamp=20)})
    assert (list(record.active), record.closing) == (["1"], ("2",))
    assert isinstance(reasons["2"], StillRunning)


# ---------------------------------------------------------------------- routes


def route(
    holder: HolderRecord | None, reports: dict[str, Report], settling: bool = False
) -> tuple[str, dict[str, Reason]]:
    held, reasons = decide_route(holder, reports, route="r", decided_by="edge", settling=settling)
    return held.service if held is not None else "", reasons


def test_a_holder_without_a_claim_keeps_its_route_while_the_root_settles() -> None:
    for settling, holder in ((True, "a"), (False, "b")):
        assert route(HolderRecord("a", 1, True), {"b": Report(2)}, settling)[0] == holder


@pytest.mark.parametrize(("stamp", "holder"), [(5, "b"), (15, "a"), (10, "a")])
def test_of_two_that_roots_have_granted_a_route_the_earlier_one_gets_it(stamp: int, holder: str) -> None:
    reports = {"a": replace(SERVES, stamp=10, refused=THERE), "b": replace(SERVES, stamp=stamp, granted=THERE)}
    assert route(HolderRecord("a", 10, True), reports)[0] == holder


def test_the_report_of_the_claiming_service_alone_takes_no_route() -> None:
    """If a root has given the route to another service, it also refuses the holder, and the holder's own sources report
    that."""
    reports = {"a": Report(10), "b": replace(SERVES, stamp=5, granted=THERE)}
    assert route(HolderRecord("a", 10, True), reports)[0] == "a"


@pytest.mark.parametrize(("confirmed", "holder"), [(True, "a"), (False, "b")])
def test_a_holder_that_has_served_keeps_its_route_from_one_that_is_open(confirmed: bool, holder: str) -> None:
    assert route(HolderRecord("a", 1, confirmed), {"a": Report(1), "b": replace(SERVES, stamp=2)})[0] == holder


def test_most_children_take_a_route_from_a_holder_that_does_not_serve() -> None:
    other = replace(SERVES, stamp=2, majority=True)
    assert route(HolderRecord("a", 1, True), {"a": Report(1), "b": other})[0] == "b"
    assert route(HolderRecord("a", 1, True), {"a": SERVES, "b": other})[0] == "a"


@pytest.mark.parametrize(
    ("a", "b", "holder"),
    [
        (Report(1), replace(SERVES, stamp=2), "b"),
        (Report(1), Report(2, open=True), "b"),
        (Report(2), Report(1), "b"),
        (Report(1), Report(1), "a"),
    ],
)
def test_a_free_route_goes_to_the_service_that_serves_it_then_to_the_earlier(a: Report, b: Report, holder: str) -> None:
    assert route(None, {"a": a, "b": b})[0] == holder


def test_a_new_holder_waits_until_the_other_service_has_closed() -> None:
    record = HolderRecord("a", 1)
    held, reasons = route(record, {"a": Report(1), "b": Report(2, may_be_open=True)})
    assert held == "a"
    assert reasons == {"a": Closing("b", ()), "b": RouteConflict("r", "a", "edge")}
    assert "a" not in route(record, {"a": Report(1), "b": Report(2)})[1]


@pytest.mark.promise(6)
@pytest.mark.parametrize(("apart_us", "stays"), [(SAME_TIME_US, "2"), (SAME_TIME_US + 1, "1")])
def test_a_reported_stamp_of_another_root_counts_only_for_claims_at_the_same_time(apart_us: int, stays: str) -> None:
    """After a change of the rules one of two versions must close. An old stamp of another root that a child reports
    counts only if both claims arrived at about the same time."""
    record = ServiceRecord(3, {"1": 10, "2": 20}, ("1", "2"))
    first, late = 10_000_000, 10_000_000 + apart_us
    reports = {"1": replace(SERVES, stamp=first, own=first), "2": replace(SERVES, stamp=1, own=late)}
    assert active(record, reports) == [stays]


@pytest.mark.parametrize(("one", "two", "stays"), [(True, False, "2"), (False, False, "1"), (True, True, "1")])
def test_what_serves_is_not_recalled_for_what_is_only_remembered(one: bool, two: bool, stays: str) -> None:
    """After a change of the rules two active versions are incompatible: the one that is only on record gives way."""
    record = ServiceRecord(3, {"1": 10, "2": 20}, ("1", "2"))
    reports = {"1": replace(SERVES, remembered=one), "2": replace(SERVES, stamp=20, remembered=two)}
    assert active(record, reports) == [stays]


def test_nothing_is_recalled_while_reports_are_missing() -> None:
    record = ServiceRecord(3, {"1": 10, "2": 20}, ("1", "2"))
    reports = {"1": SERVES, "2": replace(SERVES, stamp=20)}
    assert active(record, reports, settling=True) == ["1", "2"]
    assert active(record, reports) == ["1"]


@pytest.mark.parametrize(
    ("settling", "remembered", "vouched", "reason"),
    [
        (True, True, True, Asking()),
        (True, True, False, StillRunning("1", 0, ())),
        (True, False, True, StillRunning("1", 0, ())),
        (False, True, True, StillRunning("1", 0, ())),
    ],
)
def test_a_starting_root_closes_nothing_that_serves_in_favour_of_its_disk(
    settling: bool, remembered: bool, vouched: bool, reason: Reason
) -> None:
    other = replace(SERVES, stamp=20, vouched=vouched, open=vouched, may_be_open=vouched)
    reports = {"1": replace(SERVES, remembered=remembered), "2": other}
    record, reasons = decide(RECORD, reports, settling=settling)
    assert list(record.active) == ["1"] and reasons == {"2": reason}
