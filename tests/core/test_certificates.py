"""When certificates are ordered and renewed: the plan, driven through virtual time."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.certificates import (
    DAY_S,
    FAILURES_PER_HOUR,
    HOUR_S,
    LATEST_PART,
    LIMITED,
    OUTAGE,
    OUTAGE_S_MAX,
    REFUSED,
    AskWindow,
    CertificatePlan,
    Entry,
    Lifetime,
    Order,
    Step,
    Wait,
    orderer,
    renew_at_s,
)

T0 = 1_800_000_000.0


def everything(site: str) -> bool:
    return True


def plan_of(*sites: str, seed: int = 1) -> CertificatePlan:
    plan = CertificatePlan(Random(seed))
    plan.want({site: (site,) for site in sites})
    return plan


def step(plan: CertificatePlan, now_s: float, *, windows: bool = False) -> Step:
    return plan.next_step(now_s, everything, windows=windows)


def held(from_s: float, days: float = 90) -> Lifetime:
    return Lifetime(from_s, from_s + days * DAY_S)


def fail(
    plan: CertificatePlan, site: str, now_s: float, kind: str = REFUSED, retry_after_s: float | None = None
) -> None:
    plan.order_started(site)
    plan.order_failed(site, kind, "why", retry_after_s, now_s)


# ------------------------------------------------------------------ renewal


def test_a_certificate_is_renewed_at_two_thirds_or_half_of_a_short_lifetime() -> None:
    assert renew_at_s(Lifetime(0, 90 * DAY_S), None) == 60 * DAY_S
    assert renew_at_s(Lifetime(0, 6 * DAY_S), None) == 3 * DAY_S
    assert renew_at_s(Lifetime(0, 10 * DAY_S), None) == pytest.approx(10 * DAY_S * 2 / 3)


@given(st.floats(0, 1e9), st.floats(1, 400 * DAY_S), st.floats(-1e9, 3e9))
def test_no_window_moves_a_renewal_beyond_nine_tenths(from_s: float, length_s: float, chosen_s: float) -> None:
    life = Lifetime(from_s, from_s + length_s)
    assert renew_at_s(life, chosen_s) <= from_s + life.length_s * LATEST_PART
    assert renew_at_s(life, None) < life.not_after_s


def test_a_site_without_a_certificate_comes_first_then_the_one_that_expires_first() -> None:
    plan = plan_of("late", "early", "none")
    plan.hold("late", held(T0 - 80 * DAY_S))
    plan.hold("early", held(T0 - 85 * DAY_S))
    assert step(plan, T0) == Order("none")
    plan.order_started("none")
    plan.order_done("none", held(T0), T0)
    assert step(plan, T0) == Order("early")


def test_one_order_at_a_time() -> None:
    plan = plan_of("a", "b")
    plan.order_started("a")
    assert step(plan, T0) == Wait(None)
    plan.order_done("a", held(T0), T0)
    assert step(plan, T0) == Order("b")


def test_the_time_of_a_window_is_inside_it_and_stays() -> None:
    plan = plan_of("a")
    plan.hold("a", held(T0))
    assert step(plan, T0, windows=True) == AskWindow("a")
    plan.window_is("a", T0 + 100, T0 + 200, 3600.0, T0)
    at_s = plan.next_try_s("a", T0)
    assert T0 + 100 <= at_s <= T0 + 200
    plan.window_is("a", T0 + 100, T0 + 200, 3600.0, T0 + 50)
    assert plan.next_try_s("a", T0) == at_s
    assert step(plan, T0 + 51, windows=True) == Wait(at_s)
    assert step(plan, at_s, windows=True) == Order("a")


def test_a_window_is_asked_for_again_after_retry_after_within_its_limits() -> None:
    plan = plan_of("a")
    plan.hold("a", held(T0))
    plan.window_is("a", T0 + 40 * DAY_S, T0 + 41 * DAY_S, 1.0, T0)
    assert step(plan, T0 + 59, windows=True) == Wait(T0 + 60)
    assert step(plan, T0 + 60, windows=True) == AskWindow("a")
    plan.window_is("a", T0 + 40 * DAY_S, T0 + 41 * DAY_S, 1e9, T0)
    assert step(plan, T0 + DAY_S, windows=True) == AskWindow("a")


def test_a_past_window_renews_at_once_and_a_window_of_another_certificate_is_forgotten() -> None:
    plan = plan_of("a")
    plan.hold("a", held(T0))
    plan.window_is("a", T0 - 200, T0 - 100, None, T0)
    assert step(plan, T0, windows=True) == Order("a")
    plan.hold("a", held(T0 + 1))
    assert step(plan, T0 + 1) == Wait(T0 + 1 + 60 * DAY_S)


def test_a_window_that_cannot_be_read_leaves_the_renewal_where_it_was() -> None:
    plan = plan_of("a")
    plan.hold("a", held(T0))
    plan.window_unknown("a", None, T0)
    assert plan.next_try_s("a", T0) == T0 + 60 * DAY_S
    plan.window_is("a", T0 + 9, T0 + 9, None, T0)  # no window at all
    assert plan.next_try_s("a", T0) == T0 + 60 * DAY_S
    assert not isinstance(step(plan, T0 + 60, windows=True), AskWindow)


def test_what_is_not_renewed_or_not_ordered_here_waits() -> None:
    plan = plan_of("a", "b")
    plan.renews("a", False)
    assert plan.next_step(T0, lambda site: site == "a", windows=False) == Wait(None)
    assert plan.next_step(T0, lambda site: site == "b", windows=False) == Order("b")


def test_other_hosts_are_another_certificate() -> None:
    plan = plan_of("a")
    plan.hold("a", held(T0))
    plan.want({"a": ("a", "www.a")})
    assert step(plan, T0) == Order("a")


# ------------------------------------------------------------------ revocation


def test_a_revoked_certificate_is_replaced_at_once_and_before_all_others() -> None:
    plan = plan_of("expiring", "shop")
    plan.hold("expiring", held(T0 - 85 * DAY_S))
    plan.hold("shop", held(T0))
    plan.revoke("shop")
    assert plan.is_revoked("shop") and plan.next_try_s("shop", T0) <= T0
    assert step(plan, T0, windows=True) == Order("shop")
    plan.order_done("shop", held(T0), T0)
    assert not plan.is_revoked("shop") and step(plan, T0) == Order("expiring")


def test_the_node_that_revoked_a_certificate_orders_the_next_one() -> None:
    plan = plan_of("shop")
    plan.hold("shop", held(T0))
    plan.revoke("shop")
    assert plan.next_step(T0, lambda site: False, windows=False) == Order("shop")
    plan.hold("shop", held(T0 + 1))  # another entry was faster
    assert plan.next_step(T0, lambda site: False, windows=False) == Wait(None)


def test_failures_delay_the_replacement_of_a_revoked_certificate() -> None:
    plan = plan_of("shop")
    plan.hold("shop", held(T0))
    plan.revoke("shop")
    for n in range(FAILURES_PER_HOUR):
        at_s = max(T0 + n, plan.next_try_s("shop", T0 + n))
        fail(plan, "shop", at_s)
        assert plan.next_try_s("shop", at_s) > at_s
    assert plan.is_revoked("shop")


def test_nothing_is_asked_about_a_revoked_certificate() -> None:
    plan = plan_of("shop")
    plan.hold("shop", held(T0))
    plan.revoke("shop")
    fail(plan, "shop", T0)
    assert isinstance(step(plan, T0 + 1, windows=True), Wait)


def test_a_revocation_that_failed_changes_nothing() -> None:
    plan = plan_of("shop", "none")
    plan.hold("shop", held(T0))
    plan.revoke("shop")
    plan.revoke("shop", False)
    assert plan.next_try_s("shop", T0) > T0
    plan.revoke("none")  # nothing to revoke
    assert not plan.is_revoked("none")


def test_a_restart_remembers_what_was_revoked_and_only_that() -> None:
    plan = plan_of("shop")
    plan.hold("shop", held(T0))
    plan.revoke("shop")
    saved = json.loads(json.dumps(plan.saved()))
    again = plan_of("shop")
    again.hold("shop", held(T0))
    again.load(saved)
    assert again.is_revoked("shop") and step(again, T0) == Order("shop")
    other = plan_of("shop")
    other.hold("shop", held(T0 + 5))  # the next one was stored before control was killed
    other.load(saved)
    assert not other.is_revoked("shop")
    del saved["sites"]["shop"]["revoked"]  # of an earlier release
    other.load(saved)
    assert not other.is_revoked("shop")


# ------------------------------------------------------------------ failures


@given(st.integers(0, 1000), st.lists(st.floats(0, 7200), min_size=1, max_size=60))
def test_a_host_has_at_most_four_failures_in_any_hour(seed: int, pauses: list[float]) -> None:
    """Whatever the waits are: the plan is asked at arbitrary times, and every order fails."""
    plan, now_s = plan_of("a", seed=seed), T0
    failed: list[float] = []
    for pause_s in pauses:
        now_s += pause_s
        if step(plan, now_s) == Order("a"):
            fail(plan, "a", now_s)
            failed.append(now_s)
    for first, last in zip(failed, failed[FAILURES_PER_HOUR:], strict=False):
        assert last - first >= HOUR_S - 0.001


def test_after_four_failures_the_fifth_waits_for_the_hour_to_pass() -> None:
    plan, now_s, times = plan_of("a"), T0, list[float]()
    while len(times) < 5:
        found = step(plan, now_s)
        if found == Order("a"):
            times.append(now_s)
            fail(plan, "a", now_s)
        else:
            assert isinstance(found, Wait) and found.until_s is not None
            now_s = found.until_s
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[:3] == sorted(pauses[:3]) and 60 <= pauses[0] <= 75
    assert times[4] - times[0] >= HOUR_S


def test_a_failed_site_does_not_stop_others() -> None:
    plan = plan_of("a", "b")
    fail(plan, "a", T0)
    assert step(plan, T0) == Order("b")


@given(st.sampled_from([LIMITED, OUTAGE, REFUSED]), st.floats(1, 7 * DAY_S), st.integers(0, 99))
def test_retry_after_is_obeyed(kind: str, asked_s: float, seed: int) -> None:
    plan = plan_of("a", seed=seed)
    fail(plan, "a", T0, kind, asked_s)
    assert plan.next_try_s("a", T0) >= T0 + asked_s
    found = step(plan, T0)
    assert isinstance(found, Wait) and found.until_s is not None and found.until_s >= T0 + asked_s


def test_a_rate_limit_of_one_site_holds_others_only_briefly() -> None:
    plan = plan_of("a", "b")
    fail(plan, "a", T0, LIMITED, 7 * DAY_S)
    found = step(plan, T0)
    assert isinstance(found, Wait) and found.until_s is not None and 2 <= found.until_s - T0 <= 3
    assert step(plan, found.until_s) == Order("b")


def test_an_outage_holds_all_sites_longer_each_time_and_counts_for_no_host() -> None:
    plan, now_s = plan_of("a", "b"), T0
    pauses: list[float] = []
    for _ in range(12):
        found = step(plan, now_s)
        assert isinstance(found, Order)
        fail(plan, found.site, now_s, OUTAGE)
        waits = step(plan, now_s)
        assert isinstance(waits, Wait) and waits.until_s is not None
        pauses.append(waits.until_s - now_s)
        now_s = waits.until_s
    assert pauses[0] <= 3 and pauses[4] > pauses[2] > pauses[0]
    assert max(pauses) <= OUTAGE_S_MAX * 1.25
    assert plan.outage_s(now_s) == now_s - T0
    plan.order_started("a")
    plan.order_done("a", held(now_s), now_s)
    assert plan.outage_s(now_s) == 0 and step(plan, now_s) == Order("b")


def test_success_forgets_the_failures_and_their_reason() -> None:
    plan = plan_of("a")
    fail(plan, "a", T0)
    assert plan.why("a") == "why"
    plan.order_started("a")
    plan.order_done("a", held(T0), T0)
    assert plan.why("a") == ""
    assert plan.saved()["sites"] == {} and plan.saved()["failures"] == {}


def test_a_window_that_is_always_past_does_not_cause_order_after_order() -> None:
    plan, now_s, orders = plan_of("a"), T0, 0
    while now_s < T0 + DAY_S:
        found = step(plan, now_s, windows=True)
        if found == Order("a"):
            orders += 1
            assert orders <= 25, "in the loop, because without a pause it never ends"
            plan.order_started("a")
            plan.order_done("a", held(now_s), now_s)
        elif found == AskWindow("a"):
            plan.window_is("a", T0 - 200, T0 - 100, None, now_s)
        else:
            assert isinstance(found, Wait) and found.until_s is not None
            now_s = found.until_s


@given(st.floats(0, 3600), st.integers(0, 3))
def test_waits_survive_a_restart(later_s: float, more: int) -> None:
    plan = plan_of("a", "b")
    for _ in range(1 + more):
        fail(plan, "a", T0)
    fail(plan, "b", T0, OUTAGE)
    again = plan_of("a", "b", seed=2)
    again.load(json.loads(json.dumps(plan.saved())))
    now_s = T0 + later_s
    for site in ("a", "b"):
        assert again.next_try_s(site, now_s) == plan.next_try_s(site, now_s)


@pytest.mark.parametrize(
    "saved", [{}, {"failures": 1, "outage": [], "sites": {}}, {"failures": {}, "outage": [1], "sites": {}}]
)
def test_a_damaged_record_of_waits_changes_nothing(saved: dict[str, object]) -> None:
    plan = plan_of("a")
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        plan.load(saved)
    assert step(plan, T0) == Order("a")


@given(st.floats(1, 10 * 365 * DAY_S), st.sampled_from([LIMITED, OUTAGE, REFUSED]))
def test_when_the_clock_goes_back_no_wait_lasts_longer_than_it_was_set_for(back_s: float, kind: str) -> None:
    plan = plan_of("a")
    fail(plan, "a", T0, kind)
    set_for_s = plan.next_try_s("a", T0) - T0
    now_s = T0 - back_s
    found = step(plan, now_s)
    assert isinstance(found, Wait) and found.until_s is not None
    assert found.until_s - now_s <= set_for_s + 0.01


# ------------------------------------------------------------------ which entry orders

ENTRIES = st.lists(
    st.builds(
        Entry,
        st.sampled_from(["e1", "e2", "e3", "e4"]),
        st.frozensets(st.sampled_from(["a", "b"])),
        st.sampled_from(["", "a", "b"]),
        st.booleans(),
    ),
    min_size=1,
    unique_by=lambda entry: entry.name,
)


@given(ENTRIES, st.sampled_from(["a", "b"]))
def test_entries_that_know_each_other_agree_on_one_that_serves_the_site(entries: list[Entry], site: str) -> None:
    chosen = {orderer(site, own, [other for other in entries if other is not own], settled=True) for own in entries}
    assert len(chosen) == 1
    serving = {entry.name for entry in entries if site in entry.sites}
    assert chosen <= serving if serving else chosen == {""}


def test_the_first_by_name_orders_unless_it_is_stuck_or_another_one_has_begun() -> None:
    first, second = Entry("e1", frozenset("a")), Entry("e2", frozenset("a"))
    assert orderer("a", first, [second], settled=True) == "e1"
    assert orderer("a", Entry("e1", frozenset("a"), stuck=True), [second], settled=True) == "e2"
    assert orderer("a", first, [Entry("e2", frozenset("a"), ordering="a")], settled=True) == "e2"


def test_nothing_is_begun_before_all_have_reported() -> None:
    own = Entry("e1", frozenset("a"))
    assert orderer("a", own, [], settled=False) == ""
    assert orderer("a", own, [Entry("e2", frozenset("a"), ordering="a")], settled=False) == "e2"
    assert orderer("a", own, [], settled=True) == "e1"
