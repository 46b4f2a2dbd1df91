"""Timers: one of each kind and name, each due once and in order. An exception in one does not affect the others."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.balancer import Balancer
from sdlb.core.events import Tick
from sdlb.core.settings import Settings
from sdlb.core.state import TIMERS_MAX, State


def test_one_timer_that_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    balancer = Balancer(Settings("n", "id", 1, ("127.0.0.1:1",), beat_s=2.0, lease_s=10.0), {}, Random(1))
    balancer.start(0.0)

    def fails(parent: str, now: float) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(balancer._parents, "check_lease", fails)
    for now in (2.0, 4.0, 6.0, 8.0):
        balancer.handle(Tick(), now)
    with pytest.raises(RuntimeError):
        balancer.handle(Tick(), 10.0)  # "beat" and "parent" are due together
    balancer.handle(Tick(), 10.0)
    assert ("beat", "") in balancer._state._set, "no beat is ever sent again"


NAMES = st.sampled_from([f"t{number}" for number in range(12)])
STEPS = st.lists(
    st.tuples(st.just("set"), NAMES, st.integers(1, 60))
    | st.tuples(st.just("clear"), NAMES, st.just(0))
    | st.tuples(st.just("wait"), st.just(""), st.integers(1, 8)),
    max_size=40,
)


@given(STEPS, st.integers(1, 30))
def test_each_timer_is_due_once_at_the_time_that_was_set_last(steps: list[tuple[str, str, int]], again: int) -> None:
    """`again`: each timer is first set to other times, so that outdated entries are removed in between."""
    state = State(Settings("n", "id", 1), Random(1))
    due: dict[str, float] = {}
    now = 0.0
    for what, name, number in steps:
        match what:
            case "set":
                for other in range(again):
                    state.set_timer(now + 1000.0 - 7.0 * other, "k", name)
                state.set_timer(now + number, "k", name)
                due[name] = now + number
            case "clear":
                state.clear_timer("k", name)
                due.pop(name, None)
            case _:
                now += number
                fired = [name for _, name in state.due_timers(now)]
                expected = [name for name, at in due.items() if at <= now]
                assert sorted(fired) == sorted(expected)
                assert [due[name] for name in fired] == sorted(due[name] for name in fired)
                for name in fired:
                    del due[name]
        assert state.timers == len(due)
        assert state.next_timer() == min(due.values(), default=None)
        assert len(state._timers) <= 2 * len(due) + 64


def test_timers_that_fire_leave_no_more_outdated_entries_behind_than_others() -> None:
    state = State(Settings("n", "id", 1), Random(1))
    for name in ("b", "c"):
        state.set_timer(1.0, "k", name)
    for number in range(68):
        state.set_timer(1000.0 - number, "k", "a")
    assert len(state._timers) == 70
    assert sorted(name for _, name in state.due_timers(2.0)) == ["b", "c"]
    assert len(state._timers) == 1


@given(st.integers(0, 3 * TIMERS_MAX))
def test_an_iteration_handles_the_earliest_timers_and_leaves_the_rest(count: int) -> None:
    state = State(Settings("n", "id", 1), Random(1))
    times = [float(number * 7919 % 1000) for number in range(count)]
    for number, at in enumerate(times):
        state.set_timer(at, "k", str(number))
    fired: list[float] = []
    while (at := state.next_timer()) is not None:
        turn = [times[int(name)] for _, name in state.due_timers(1000.0)]
        assert turn and turn[0] == at
        assert len(turn) == min(TIMERS_MAX, count - len(fired))
        fired += turn
    assert fired == sorted(times)


@given(st.integers(0, 1 << 32))
def test_the_order_survives_that_what_is_out_of_date_is_thrown_away(seed: int) -> None:
    """Many timers, each set several times, still fire in order."""
    rng = Random(seed)
    state = State(Settings("n", "id", 1), Random(1))
    due: dict[str, float] = {}
    for _ in range(700):
        name = str(rng.randrange(100))
        due[name] = float(rng.randrange(10_000))
        state.set_timer(due[name], "k", name)
    fired = [due[name] for _, name in state.due_timers(10_000.0)]
    assert fired == sorted(due.values())
