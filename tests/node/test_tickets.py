"""Keys of session tickets: what was sealed within the last twelve hours can be opened, nothing can after two days."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.site import TicketKey
from sdlb.node.tickets import KEPT, ROTATE_S, SHARED_MAX, SKEW_S, merge, rotate

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


KEYS = st.lists(st.tuples(st.integers(0, 30), st.integers(-4 * ROTATE_S, 2 * SKEW_S)), max_size=40)


@given(KEYS, KEYS, KEYS)
def test_entries_that_have_merged_what_the_others_have_agree(
    a: list[tuple[int, int]], b: list[tuple[int, int]], c: list[tuple[int, int]]
) -> None:
    now_s = 10 * ROTATE_S
    made = [tuple(key(number, now_s + age_s) for number, age_s in keys) for keys in (a, b, c)]
    one = merge(merge(made[0], made[1], now_s), made[2], now_s)
    two = merge(merge(made[2], made[1], now_s), made[0], now_s)
    if len({each.name for keys in made for each in keys}) <= SHARED_MAX:
        assert one == two
    assert one == merge(one, one, now_s) and len(one) <= SHARED_MAX
    assert all(0 <= now_s - each.made_s < KEPT * ROTATE_S for each in one), "none from the future, none too old"
    assert len({each.name for each in one}) == len(one)
    names = {each.name for keys in made for each in keys if -SKEW_S <= now_s - each.made_s < KEPT * ROTATE_S}
    assert {each.name for each in one} <= names


def test_a_new_key_is_due_once_for_all_entries() -> None:
    now_s = 10 * ROTATE_S
    old = (key(1, now_s - ROTATE_S),)
    first = rotate(old, now_s, lambda: key(2, now_s))
    second = merge(old, first, now_s + 1)
    assert rotate(second, now_s + 1, lambda: key(3, now_s + 1)) == first
