"""Keys of session tickets: what was sealed within the last twelve hours can be opened, nothing can after two days."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.site import TicketKey
from sdlb.node.tickets import KEPT, ROTATE_S, rotate

STEPS = st.lists(st.integers(0, 3 * ROTATE_S) | st.integers(0, 60), min_size=1, max_size=40)


def key(number: int, now_s: int) -> TicketKey:
    return TicketKey(number.to_bytes(16), number.to_bytes(32), now_s)


@given(STEPS)
def test_a_key_seals_for_half_a_day_and_opens_for_at_least_as_long_after(steps: list[int]) -> None:
    keys: tuple[TicketKey, ...] = ()
    now_s = 1_000_000
    for made, step_s in enumerate(steps):
        now_s += step_s
        before = keys
        keys = rotate(keys, now_s, lambda made=made, now_s=now_s: key(made, now_s))
        assert 0 <= now_s - keys[0].made_s < ROTATE_S, "the one that seals"
        assert all(now_s - each.made_s < KEPT * ROTATE_S for each in keys), "old ones are forgotten"
        assert len(keys) <= KEPT
        assert [each.made_s for each in keys] == sorted((each.made_s for each in keys), reverse=True)
        for each in before:
            if now_s - each.made_s < 2 * ROTATE_S:
                assert each in keys, "its tickets may still be good"
        if before and now_s - before[0].made_s < ROTATE_S:
            left = tuple(each for each in before if now_s - each.made_s < KEPT * ROTATE_S)
            assert keys == left, "no new one was due"


@given(STEPS, st.integers(-10 * ROTATE_S, -1))
def test_a_clock_that_jumps_back_keeps_no_key_for_longer(steps: list[int], jump_s: int) -> None:
    keys = tuple(key(number, 1_000_000 + sum(steps[:number])) for number in range(min(3, len(steps)), 0, -1))
    now_s = 1_000_000 + sum(steps) + jump_s
    after = rotate(keys, now_s, lambda: key(99, now_s))
    assert all(0 <= now_s - each.made_s < KEPT * ROTATE_S for each in after)
    assert now_s - after[0].made_s < ROTATE_S
