"""Sums beyond 32 bits and timers: small numbers that once grew too large."""

from __future__ import annotations

import pytest

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.endpoints import CAPACITY_MAX
from sdlb.core.messages import UpState
from sdlb.core.routes import RECENT_S
from sdlb.wire import engine as engine_wire
from sdlb.wire import tree as tree_wire
from tests.core.forest import Forest, key_of
from tests.core.node import Node

KEY = key_of("1.0.1")
TREE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",), "host-3": ("rack",)}
HOSTS = ("host-1", "host-2", "host-3")
MOST = CAPACITY_MAX


# ---------------------------------------------------------------------- capacities


@pytest.mark.promise(5)
@pytest.mark.parametrize("capacity", [MOST // 3 + 1, MOST - 1, MOST, 1 << 40])
def test_capacities_that_add_up_beyond_32_bits_are_clamped_for_the_engine_alone(capacity: int) -> None:
    forest = Forest(TREE)
    said = {name: node.listen() for name, node in forest.nodes.items()}
    for host in HOSTS:
        forest.put(host, "a", "1.0.1", capacity=capacity)
    forest.run(30.0)
    assert [forest[host].state("a") for host in HOSTS] == ["active"] * 3
    assert forest.endpoints("edge", KEY) == {f"{host}/i:a" for host in HOSTS}
    (endpoint,) = forest["edge"].engine.endpoints.values()
    assert endpoint.capacity == MOST
    assert forest["edge"].balancer.view.child("rack") is not None
    assert forest["edge"].balancer.view.tree()["children"][0]["capacity"] == 3 * capacity, "the sum itself is exact"
    for messages in said.values():
        assert "link-gap" not in forest["edge"].codes()
        for message in messages:
            if isinstance(message, UpState):
                assert tree_wire.decode_up(tree_wire.encode_up(message)) == message


def test_what_the_engine_is_sent_fits_its_protocol() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "a", "1.0.1", capacity=1 << 40)
    for name in ("edge", "host"):
        (endpoint,) = forest[name].engine.endpoints.values()
        delta = ef.Apply(1, True, put_endpoints=(endpoint,))
        assert engine_wire.to_delta(delta).delta.put_members[0].capacity == MOST


# ---------------------------------------------------------------------- timers


def timers(forest: Forest) -> dict[str, int]:
    return {name: node.balancer.view.sizes()["timers"] for name, node in forest.nodes.items()}


def queued(node: Node) -> int:
    """Includes entries that were set again since and not removed yet."""
    return len(node.balancer._state._timers)


@pytest.mark.promise(7)
@pytest.mark.parametrize("lost", ["rack", "host-1", "edge"])
def test_timers_do_not_grow_with_reconnects(lost: str) -> None:
    forest = Forest(TREE)
    for host in HOSTS:
        forest.put(host, "a", "1.0.1")
    forest.run(30.0)
    before = timers(forest)
    for _ in range(200):
        for child, parent in list(forest.links.values()):
            if lost in (child, parent):
                forest.part(child, parent)
        forest.cut.clear()
        forest.run(0.5)
    forest.run(30.0)
    assert all(p["state"] == "connected" for n in forest.nodes.values() for p in n.balancer.view.parents())
    assert timers(forest) == before
    for name, node in forest.nodes.items():
        assert queued(node) <= 2 * before[name] + 64 + 1


@pytest.mark.promise(7)
def test_timers_do_not_grow_with_children_and_instances_that_come_and_go() -> None:
    forest = Forest(TREE)
    forest.put("host-1", "a", "1.0.1")
    forest.run(30.0)
    before = timers(forest)
    for number in range(50):
        forest.put("host-2", f"b{number}", "1.0.1", ttl_s=5.0)
        forest["host-2"].inbox.append(ev.InstanceDrain(f"b{number}", 3.0))
        forest.settle()
        forest.remove("host-2", f"b{number}", deadline_s=3.0)
        guest = forest.add(f"guest-{number}", "rack")
        guest.start()
        forest.run(0.5)
        guest.handle(ev.Stop(1.0))
        forest.settle()
        guest.kill()
        del forest.nodes[guest.address]
        forest._turn.remove(guest.address)
    forest.run(RECENT_S + 60.0)
    assert timers(forest) == before
