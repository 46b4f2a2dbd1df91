"""An instance counts once, by however many ways its host reaches a node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.messages import Claim, ClaimKey
from sdlb.core.slot import Slot, Source

KEY = ClaimKey("catalog", "1.0.1", "example.com/*")
HOSTS = st.dictionaries(st.sampled_from(["h1", "h2", "h3", "h4", "h5"]), st.integers(1, 9), min_size=1)


def slot_of(*children: dict[str, int]) -> Slot:
    """`children`: for each, its hosts with their numbers of instances."""
    slot = Slot(KEY)
    for number, hosts in enumerate(children):
        claim = Claim(KEY, count=sum(hosts.values()), hosts=tuple(sorted(hosts)))
        slot.sources[f"n:{number}"] = Source(f"n:{number}", claim, child=str(number))
    return slot


@given(HOSTS, st.integers(1, 4))
def test_children_above_the_same_hosts_count_once(hosts: dict[str, int], ways: int) -> None:
    assert slot_of(*[hosts] * ways).count() == sum(hosts.values())


@given(HOSTS, HOSTS)
def test_children_without_a_common_host_add_up(one: dict[str, int], other: dict[str, int]) -> None:
    other = {f"x{host}": count for host, count in other.items()}
    assert slot_of(one, other).count() == sum(one.values()) + sum(other.values())


@given(st.lists(HOSTS, min_size=1, max_size=4))
def test_the_count_is_never_less_than_a_childs_nor_more_than_all_together(children: list[dict[str, int]]) -> None:
    counts = [sum(hosts.values()) for hosts in children]
    assert max(counts) <= slot_of(*children).count() <= sum(counts)


@given(st.lists(st.integers(1, 9), max_size=5))
def test_instances_of_this_host_add_up(counts: list[int]) -> None:
    slot = Slot(KEY)
    for number, count in enumerate(counts):
        slot.sources[f"i:{number}"] = Source(f"i:{number}", Claim(KEY, count=count, hosts=("here",)))
    assert slot.count() == sum(counts)
