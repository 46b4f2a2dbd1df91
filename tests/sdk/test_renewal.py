"""When an instance registers again, and what is told of it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sdlb.sdk.problem import BASE, Problem, Unreachable
from sdlb.sdk.renewal import RETRY_MAX_S, Renewal
from sdlb.sdk.types import Instance, Spec

SPEC = Spec.of("catalog-1.0.1", routes=["example.com/"], port=1, id="a", ttl_s=9.0)
ACTIVE = Instance(id="a", state="active")
DOWN = Unreachable("/run/x.sock", "No such file or directory")


def test_a_lease_is_renewed_after_a_third_of_it() -> None:
    assert Renewal(SPEC, lambda _: None).succeeded(ACTIVE) == 3.0


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_after_any_history_the_next_attempt_is_near_and_nothing_is_told_twice_in_a_row(worked: list[bool]) -> None:
    told: list[str] = []
    renewal = Renewal(SPEC, told.append)
    for good in worked:
        wait_s = renewal.succeeded(ACTIVE) if good else renewal.failed(DOWN)
        assert 0 < wait_s <= (3.0 if good else RETRY_MAX_S)
    assert all(one != other for one, other in itertools.pairwise(told))
    outages = sum(1 for before, now in zip([True, *worked], worked, strict=False) if before and not now)
    assert sum("retrying" in text for text in told) == outages


def test_changes_of_state_are_told_with_their_reason() -> None:
    told: list[str] = []
    renewal = Renewal(SPEC, told.append)
    renewal.succeeded(Instance(state="waiting", reason="1.0.0 still has 1 instance on host-1"))
    renewal.succeeded(Instance(state="waiting", reason="1.0.0 still has 1 instance on host-1"))
    renewal.succeeded(ACTIVE)
    assert told == ["catalog-1.0.1 is waiting: 1.0.0 still has 1 instance on host-1", "catalog-1.0.1 is active"]


def test_what_is_not_decided_yet_is_only_told_when_it_stays_so() -> None:
    told: list[str] = []
    renewal = Renewal(SPEC, told.append)
    for _ in range(3):
        assert renewal.succeeded(Instance(state="waiting", reason_code="asking", reason="no answer yet")) < 0.5
    assert renewal.succeeded(Instance(state="unhealthy")) < 0.5
    renewal.succeeded(ACTIVE)
    assert told == ["catalog-1.0.1 is active"]
    for _ in range(20):
        renewal.succeeded(Instance(state="waiting", reason_code="asking", reason="no answer yet"))
    assert told == ["catalog-1.0.1 is active", "catalog-1.0.1 is waiting: no answer yet"]


def test_only_a_first_registration_that_is_wrong_in_itself_is_given_up() -> None:
    wrong = Problem(BASE + "bad-route", 400, "route 'x'")
    busy = Problem(BASE + "busy", 503, "later")
    renewal = Renewal(SPEC, lambda _: None)
    assert renewal.is_final(wrong)
    assert not renewal.is_final(busy)
    assert not renewal.is_final(DOWN)
    renewal.succeeded(ACTIVE)
    assert not renewal.is_final(wrong)
