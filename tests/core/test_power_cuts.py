"""A power loss at every step of a drain, a rollout, a recall and a replacement: writes that are not durable are lost,
and so is the engine. Afterwards everything ends as it would have without."""

from __future__ import annotations

from functools import partial

import pytest

from sdlb.core import events as ev
from sdlb.model.version import Compatibility
from tests.core.forest import Forest, interruptions, key_of
from tests.core.node import Node

ONE: dict[str, tuple[str, ...]] = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)}
TWO: dict[str, tuple[str, ...]] = {
    "edge-1": (),
    "edge-2": (),
    "host-1": ("edge-1", "edge-2"),
    "host-2": ("edge-1", "edge-2"),
}
OLD, NEXT, NEW = key_of("1.0.1"), key_of("1.0.2"), key_of("2.0.0")
DENY = '{"compatibility": {"deny": [["1.0.1", "1.0.2"]]}}'
DENIED = Compatibility(deny=(("1.0.1", "1.0.2"),))
SPARE = "127.0.0.1:2"


def edges(forest: Forest) -> list[str]:
    return [name for name in forest.nodes if name.startswith("edge")]


def all_connected(forest: Forest) -> bool:
    links = [parent for node in forest.nodes.values() for parent in node.balancer.view.parents()]
    return all(parent["state"] == "connected" for parent in links)


# ---------------------------------------------------------------------- drain


@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.parametrize("victim", list(ONE))
def test_a_drain(victim: str) -> None:
    def story() -> Forest:
        forest = Forest(ONE)
        forest.put("host-1", "a", "1.0.1")
        forest.put("host-2", "b", "1.0.1")
        return forest

    def act(forest: Forest) -> None:
        forest.remove("host-1", "a", settle=False)

    for where, forest in interruptions(story, act, [victim], Node.reboot):
        forest.run(3.0)
        forest.remove("host-1", "a")  # the program has lost the connection, and retries
        forest.run(35.0)
        assert forest["host-1"].state("a") == "gone", where
        assert forest.endpoints("edge", OLD) == {"host-2/i:b"}, where
        assert forest["host-1"].engine.endpoints == {}, where
        assert all_connected(forest), where


@pytest.mark.promise(3)
@pytest.mark.parametrize("victim", ["edge", "rack", "host-1"])
def test_the_drain_of_the_last_one(victim: str) -> None:
    """The drain of the last endpoint is requested upward first, and endpoints are removed from the top."""

    def story() -> Forest:
        forest = Forest(ONE)
        forest.put("host-1", "a", "1.0.1")
        return forest

    def act(forest: Forest) -> None:
        forest.remove("host-1", "a", settle=False)

    for where, forest in interruptions(story, act, [victim], Node.reboot):
        forest.run(3.0)
        forest.remove("host-1", "a")
        forest.run(35.0)
        assert forest["host-1"].state("a") == "gone", where
        assert not any(node.engine.endpoints or node.balancer.view.routes() for node in forest.nodes.values()), where
        forest.put("host-2", "b", "2.0.0")
        assert forest["host-2"].state("b") == "active", where


# ---------------------------------------------------------------------- rollout


def rollout(topology: dict[str, tuple[str, ...]]) -> Forest:
    forest = Forest(topology)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    assert [forest["host-1"].state("a"), forest["host-2"].state("b")] == ["active", "waiting"]
    forest.watch.append(forest.one_generation)
    return forest


def rolls(forest: Forest) -> None:
    forest.remove("host-1", "a", settle=False)


@pytest.mark.promise(1)
@pytest.mark.promise(5)
@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("topology", "victim"), [*(("one", name) for name in ONE), *(("two", name) for name in TWO if name != "edge-2")]
)
def test_a_rollout(topology: str, victim: str) -> None:
    for where, forest in interruptions(
        partial(rollout, ONE if topology == "one" else TWO), rolls, [victim], Node.reboot
    ):
        forest.run(3.0)
        forest.remove("host-1", "a")
        forest.put("host-2", "b", "2.0.0")  # its program was started again
        forest.run(35.0)
        assert forest["host-2"].state("b") == "active", where
        for edge in edges(forest):
            assert forest[edge].versions() == {"2.0.0": "active"}, where
            assert forest.endpoints(edge, NEW) == {"host-2/i:b"}, where
            assert forest[edge].generation() == 2, where
        assert all_connected(forest), where


@pytest.mark.promise(1)
@pytest.mark.promise(8)
@pytest.mark.parametrize("victim", list(ONE))
def test_a_rollout_with_a_node_in_the_dark_for_longer_than_lease_and_fence(victim: str) -> None:
    """A node loses power during a rollout and returns after lease and fence, with a disk that may have the old version as
    active."""
    for where, forest in interruptions(partial(rollout, ONE), rolls, [victim], Node.power_cut):
        forest.run(25.0)
        forest[victim].start()
        forest.run(10.0)
        if forest["host-1"].state("a") != "gone":
            assert victim == "host-1", where
            forest.remove("host-1", "a")
        forest.put("host-2", "b", "2.0.0")
        forest.run(35.0)
        assert forest["host-2"].state("b") == "active", where
        assert forest["edge"].versions() == {"2.0.0": "active"}, where
        assert forest.endpoints("edge", NEW) == {"host-2/i:b"}, where


@pytest.mark.promise(1)
@pytest.mark.promise(8)
def test_a_rollout_with_all_machines_off_at_once() -> None:
    """All machines of a site lose power at the same time."""
    at = 0
    while True:
        forest = rollout(ONE)
        rolls(forest)
        if not all(forest.step() for _ in range(at)):
            break
        for node in forest.nodes.values():
            node.power_cut()
        for node in forest.nodes.values():
            node.start()
        forest.put("host-2", "b", "2.0.0")
        forest.run(40.0)
        forest.remove("host-1", "a")
        forest.run(35.0)
        assert forest["edge"].versions() == {"2.0.0": "active"}, f"step {at}"
        assert forest.endpoints("edge", NEW) == {"host-2/i:b"}, f"step {at}"
        at += 1
    assert at > 10


# ---------------------------------------------------------------------- recall


@pytest.mark.promise(1)
@pytest.mark.promise(8)
@pytest.mark.parametrize("victim", list(ONE))
def test_a_recall(victim: str) -> None:
    def story() -> Forest:
        forest = Forest(ONE)
        forest.put("host-1", "a", "1.0.1")
        forest.put("host-2", "b", "1.0.2")
        return forest

    def act(forest: Forest) -> None:
        forest["edge"].inbox.append(ev.PolicyPut("catalog", DENY.encode()))

    tried = 0
    for where, forest in interruptions(story, act, [victim], Node.reboot):
        if forest["edge"].balancer.view.policy("catalog") is None:
            continue  # cut before it took the policy
        tried += 1
        forest.run(40.0)
        assert sorted(forest["edge"].versions().values()) == ["active", "waiting"], where
        states = {forest["host-1"].state("a"), forest["host-2"].state("b")}
        assert states == {"active", "waiting"}, where
        forest.one_generation(rules=DENIED)
        active = next(v for v, state in forest["edge"].versions().items() if state == "active")
        assert forest.endpoints("edge", key_of(active)), where
        assert all_connected(forest), where
    assert tried > 3


@pytest.mark.promise(1)
@pytest.mark.promise(8)
def test_what_a_recall_has_parted_stays_apart_after_every_power_cut() -> None:
    """After a recall, no restart makes the two versions active together again."""
    for victim in ONE:
        forest = Forest(ONE)
        forest.put("host-1", "a", "1.0.1")
        forest.put("host-2", "b", "1.0.2")
        forest.policy("edge", DENY)
        forest.run(5.0)
        forest.watch.append(partial(forest.one_generation, rules=DENIED))
        for _ in range(3):
            forest[victim].reboot()
            forest.run(8.0)
        forest.run(30.0)
        assert forest["edge"].versions() == {"1.0.1": "active", "1.0.2": "waiting"}, victim
        assert forest.endpoints("edge", OLD) == {"host-1/i:a"}, victim


# ---------------------------------------------------------------------- replacement


@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.parametrize("victim", ["edge", "rack", "host-1"])
@pytest.mark.parametrize("version", ["1.0.1", "1.0.2", "2.0.0"])
def test_a_replacement(victim: str, version: str) -> None:
    def story() -> Forest:
        forest = Forest(ONE)
        forest.put("host-1", "a", "1.0.1")
        forest.watch.append(forest.one_generation)
        return forest

    def act(forest: Forest) -> None:
        forest.put("host-1", "a", version, endpoint=SPARE, settle=False)

    for where, forest in interruptions(story, act, [victim], Node.reboot):
        forest.run(3.0)
        forest.put("host-1", "a", version, endpoint=SPARE)  # renewed
        forest.run(40.0)
        assert forest["host-1"].state("a") == "active", where
        assert forest["edge"].versions() == {version: "active"}, where
        (endpoint,) = forest["host-1"].engine.endpoints
        assert endpoint.claim == key_of(version), where
        assert forest["host-1"].engine.targets[endpoint.target].address == SPARE, where
        assert forest.endpoints("edge", key_of(version)) == {f"host-1/{endpoint.target}"}, where
        assert len([name for name in forest["host-1"].disk if name.startswith("instance/")]) == 1, where


# ---------------------------------------------------------------------- what was promised is on disk


@pytest.mark.promise(8)
@pytest.mark.parametrize("root", ["edge-1", "edge-2"])
def test_a_root_that_sent_a_generation_still_knows_it_after_a_power_cut(root: str) -> None:
    """At every step, a generation that a host has got from the root is on the root's disk."""
    for where, forest in interruptions(partial(rollout, TWO), rolls, [root], Node.power_cut):
        told = max(forest[host].generation() for host in ("host-1", "host-2"))
        known = [
            value["generation"]  # type: ignore[index]
            for name, value in forest[root].flushed.items()
            if name == "service/catalog"
        ]
        others = [forest[edge].generation() for edge in edges(forest) if edge != root]
        assert max([*known, *others]) >= told, where
