"""An exception while one key is settled: other keys lose nothing and settle with the next event."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey
from sdlb.core.slot import Slot
from tests.core.forest import Forest, key_of
from tests.core.node import Node


class Fault(Exception):
    pass


def failing(of: ClaimKey, real: Callable[..., object], *, times: int = 1) -> Callable[..., object]:
    """`real`, but for the first `times` that it is about this key."""
    left = [times]

    def call(first: object, *rest: object, **more: object) -> object:
        about = first.key if isinstance(first, Slot) else first
        if about == of and left[0]:
            left[0] -= 1
            raise Fault(of.version)
        return real(first, *rest, **more)

    return call


def retried(node: Node, *events: ev.Event) -> int:
    """As the loop does it: after a fault it goes on with the next event. The number of faults."""
    rest: Iterator[ev.Event] = iter(events)
    faults = 0
    while faults < 10:
        try:
            node.carry_out(node.balancer.handle_all(rest, node.forest.now, node.forest.now))
        except Fault:
            faults += 1
        else:
            break
    return faults


VERSIONS = [f"1.0.{number}" for number in range(5)]
PLACES = {
    "the permit": lambda node: (node.balancer, "_settle_permit"),
    "the endpoints": lambda node: (node.balancer._endpoints, "settle"),
    "the sums": lambda node: (node.balancer._endpoints, "refresh"),
    "the whole slot": lambda node: (node.balancer, "_settle_slot"),
    "what the parents are sent": lambda node: (node.balancer._parents, "mark_dirty"),
    "what the children are sent": lambda node: (node.balancer._children, "mark_dirty"),
    "the decision of the parents": lambda node: (node.balancer._parents, "permit"),
    "the claim": lambda node: (node.balancer._parents, "claim"),
}


@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("bad", VERSIONS)
def test_a_fault_in_one_key_leaves_the_others_to_the_next_event(
    place: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    node = forest["host"]
    for version in VERSIONS:
        forest.put("host", version, version, settle=False)
    puts = list(node.inbox)
    node.inbox.clear()
    owner, name = PLACES[place](node)
    monkeypatch.setattr(owner, name, failing(key_of(bad), getattr(owner, name)))
    assert retried(node, *puts) == 1, "the fault was not met"
    forest.run(5.0)
    for version in VERSIONS:
        if version != bad:
            assert node.state(version) == "active", f"{version} was lost with {bad}"
    forest.put("host", bad, bad, compatible=("9.9.9",))  # the next change of the key itself
    forest.run(5.0)
    assert node.state(bad) == "active"


@pytest.mark.parametrize("place", ["the permit", "the endpoints", "the whole slot", "the sums"])
def test_a_fault_that_stays_in_one_key_costs_the_others_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    node = forest["host"]
    owner, name = PLACES[place](node)
    monkeypatch.setattr(owner, name, failing(key_of("1.0.2"), getattr(owner, name), times=1 << 30))
    monkeypatch.setattr(node, "handle", lambda *events: retried(node, *events))
    for version in VERSIONS:
        forest.put("host", version, version)
    forest.run(5.0)
    for version in VERSIONS:
        if version != "1.0.2":
            assert node.state(version) == "active", f"{version} was lost with 1.0.2"


def test_a_fault_after_the_delta_was_made_does_not_lose_the_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose say changes settles a second time in one iteration."""
    forest = Forest({"edge": (), "rack": ("edge",), "host": ("rack",)})
    for version in VERSIONS:
        forest.put("rack", version, version)
    node = forest["rack"]
    forest.part("rack", "edge")
    forest.run(9.0)
    forest.now += 4.0  # its parent's lease is over by then, so it can no longer pass on anything new
    real, node_settle = node.balancer._settle, []

    def settle(now: float) -> None:
        node_settle.append(now)
        if len(node_settle) == 2:
            raise Fault
        real(now)

    monkeypatch.setattr(node.balancer, "_settle", settle)
    assert retried(node, ev.InstanceGone("1.0.0", "killed")) == 1
    assert node.balancer.view.cut_off()
    forest.settle()
    forest.run(3.0)
    assert node.serves(key_of("1.0.0")) == set(), "the engine was never told that it is gone"
    assert node.serves(key_of("1.0.1")) == {"i:1.0.1"}
