"""An instance counts once, however many paths its host has to a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.messages import ClaimKey
from sdlb.core.slot import Part, Slot

KEY = ClaimKey("catalog", "1.0.1", "example.com/*")
HOSTS = st.dictionaries(st.sampled_from(["h1", "h2", "h3", "h4", "h5"]), st.integers(1, 9), min_size=1)


def slot_of(*children: dict[str, int]) -> Slot:
    """`children`: for each, its hosts with their numbers of instances."""
    slot = Slot(KEY)
    for number, hosts in enumerate(children):
        count = sum(hosts.values())
        slot.put_part(f"n:{number}", Part(count=count, capacity=100 * count, hosts=tuple(sorted(hosts)), child=True))
    return slot


@given(HOSTS, st.integers(1, 4))
def test_children_above_the_same_hosts_count_once(hosts: dict[str, int], ways: int) -> None:
    slot = slot_of(*[hosts] * ways)
    assert (slot.count(), slot.capacity()) == (sum(hosts.values()), 100 * sum(hosts.values()))


@given(HOSTS, HOSTS)
def test_children_without_a_common_host_add_up(one: dict[str, int], other: dict[str, int]) -> None:
    other = {f"x{host}": count for host, count in other.items()}
    slot, count = slot_of(one, other), sum(one.values()) + sum(other.values())
    assert (slot.count(), slot.capacity()) == (count, 100 * count)


@given(st.lists(HOSTS, min_size=1, max_size=4))
def test_the_count_is_never_less_than_a_childs_nor_more_than_all_together(children: list[dict[str, int]]) -> None:
    counts = [sum(hosts.values()) for hosts in children]
    assert max(counts) <= slot_of(*children).count() <= sum(counts)


@given(st.lists(st.integers(1, 9), max_size=5))
def test_instances_of_this_host_add_up(counts: list[int]) -> None:
    slot = Slot(KEY)
    for number, count in enumerate(counts):
        slot.put_part(f"i:{number}", Part(count=count, hosts=("here",)))
    assert slot.count() == sum(counts)


def test_a_silent_way_to_a_host_that_another_one_speaks_for_adds_no_capacity() -> None:
    slot = slot_of({"h1": 1})
    slot.put_part("n:late", Part(count=1, capacity=100, hosts=("h1",), child=True, covered=True))
    slot.put_part("i:here", Part(count=1, capacity=7, hosts=("here",)))
    assert (slot.count(), slot.capacity()) == (2, 107)


@pytest.mark.parametrize(("first", "second", "capacity"), [(100, 100, 100), (100, 60, 100), (100, 0, 100), (0, 0, 0)])
def test_a_host_that_two_children_stand_above_counts_once(first: int, second: int, capacity: int) -> None:
    slot = Slot(KEY)
    for target, each in (("n:rack-1", first), ("n:rack-2", second)):
        slot.put_part(target, Part(count=1, hosts=("host-1",), child=True, capacity=each))
    slot.put_part("i:a", Part(count=1, hosts=("me",), capacity=7))
    assert (slot.count(), slot.capacity()) == (2, capacity + 7)


@pytest.mark.parametrize(("first", "second", "ready"), [(100, 100, 100), (100, 60, 100), (0, 60, 60), (0, 0, 0)])
@pytest.mark.parametrize("covered", [False, True])
def test_a_host_that_two_children_stand_above_counts_once_upward(
    first: int, second: int, ready: int, covered: bool
) -> None:
    """Confirmed capacity counts even through a silent child. It is 0 only if no path is left."""
    slot = Slot(KEY)
    slot.put_part("n:rack-1", Part(count=1, hosts=("host-1",), child=True, capacity=100, ready=first, covered=covered))
    slot.put_part("n:rack-2", Part(count=1, hosts=("host-1",), child=True, capacity=100, ready=second))
    slot.put_part("i:a", Part(count=1, hosts=("me",), capacity=7, ready=7))
    assert slot.ready() == ready + 7
    slot.put_part("i:a", None)
    assert bool(slot.ready()) is bool(first or second)
