"""The active set is decided again whenever policy or declarations change: the losing version is drained, not cut."""

from __future__ import annotations

from functools import partial

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.messages import Stage
from sdlb.model.version import Compatibility
from tests.core.forest import ROUTE, Forest, interruptions, key_of

ONE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)}
TWO: dict[str, tuple[str, ...]] = {
    "edge-1": (),
    "edge-2": (),
    "host-1": ("edge-1", "edge-2"),
    "host-2": ("edge-1", "edge-2"),
}
ONE_KEY, TWO_KEY = key_of("1.0.1"), key_of("1.0.2")
DENY = '{"compatibility": {"deny": [["1.0.1", "1.0.2"]]}}'
HOSTS = ("host-1", "host-2", "host-3")
DENIED = Compatibility(deny=(("1.0.1", "1.0.2"),))


def both_active(topology: dict[str, tuple[str, ...]] = ONE) -> Forest:
    forest = Forest(topology)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "1.0.2")
    assert [forest["host-1"].state("a"), forest["host-2"].state("b")] == ["active", "active"]
    return forest


@pytest.mark.promise(1)
@pytest.mark.promise(3)
def test_a_denied_pair_parts_and_the_loser_drains() -> None:
    forest = both_active()
    at_edge, at_host = ev.EndpointKey(TWO_KEY, "n:rack"), ev.EndpointKey(TWO_KEY, "i:b")
    forest["edge"].engine.in_flight[at_edge] = 1
    forest.watch.append(forest.no_dead_end)
    forest.policy("edge", DENY)
    assert forest["edge"].serves(TWO_KEY) == set()
    assert forest["host-2"].serves(TWO_KEY) == {"i:b"}, "a request from the edge still needs it"
    assert forest["edge"].versions() == {"1.0.1": "active", "1.0.2": "waiting"}
    forest["host-2"].engine.in_flight[at_host] = 1
    forest.finish("edge", at_edge)
    forest.finish("host-2", at_host)
    forest.run(5.0)
    assert forest["host-2"].serves(TWO_KEY) == set()
    assert forest["host-2"].state("b") == "waiting"
    assert "1.0.1" in forest["host-2"].reason("b")
    forest.remove("host-1", "a")
    assert forest["host-2"].state("b") == "active"


def test_allowing_a_pair_opens_what_waited_for_it() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.policy("edge", '{"compatibility": {"allow": [["1.0.1", "2.0.0"]]}}')
    assert forest["host-2"].state("b") == "active"
    assert forest["host-1"].state("a") == "active"
    forest.policy("edge", "{}")
    assert forest["host-1"].state("a") == "active", "the senior one stays"
    assert forest["host-2"].state("b") == "waiting"


@pytest.mark.promise(1)
def test_the_declaration_that_let_a_version_in_leaves_with_its_instance() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0", compatible=("1.0.1",))
    forest.put("host-2", "c", "2.0.0")
    assert [forest["host-2"].state(name) for name in "bc"] == ["active", "active"]
    forest.watch.append(forest.no_dead_end)
    forest.remove("host-2", "b")
    assert forest["host-2"].state("c") == "waiting"
    assert forest["edge"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}
    forest.one_generation()


@pytest.mark.promise(1)
def test_a_declaration_that_comes_later_opens_and_one_that_is_taken_back_closes() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.put("host-2", "b", "2.0.0", compatible=(">=1.0,<1.1",))
    assert forest["host-2"].state("b") == "active"
    forest.put("host-2", "b", "2.0.0")
    assert forest["host-2"].state("b") == "waiting"
    assert forest["host-1"].state("a") == "active"


@pytest.mark.promise(1)
def test_two_roots_part_a_denied_pair_alike() -> None:
    forest = both_active(TWO)
    for edge in ("edge-1", "edge-2"):
        forest.policy(edge, DENY)
    for edge in ("edge-1", "edge-2"):
        assert forest[edge].versions() == {"1.0.1": "active", "1.0.2": "waiting"}
    assert [forest["host-1"].state("a"), forest["host-2"].state("b")] == ["active", "waiting"]
    forest.one_generation(rules=DENIED)


@pytest.mark.promise(1)
def test_a_policy_that_one_root_alone_knows_closes_too() -> None:
    """A policy that denies a pair takes effect as soon as one root has it, because every root must consent."""
    forest = both_active(TWO)
    forest.part("host-1", "edge-2")
    forest.part("host-2", "edge-2")
    forest["edge-1"].inbox.append(ev.PolicyPut("catalog", DENY.encode()))
    forest.settle()
    assert forest["host-2"].state("b") == "waiting"
    forest.cut.clear()
    forest.run(10.0)
    assert [forest["host-1"].state("a"), forest["host-2"].state("b")] == ["active", "waiting"]


@pytest.mark.promise(1)
@pytest.mark.promise(8)
@pytest.mark.parametrize("victim", list(ONE))
def test_a_recall_that_is_interrupted_anywhere_is_carried_out(victim: str) -> None:
    def act(forest: Forest) -> None:
        forest["edge"].inbox.append(ev.PolicyPut("catalog", DENY.encode()))

    for where, forest in interruptions(both_active, act, [victim]):
        if forest["edge"].balancer.view.policy("catalog") is None:
            continue  # killed before it took the policy
        # A node between that restarts does not know what it has acknowledged; those above no longer send through it.
        watched = ("edge",) if victim == "rack" else ()
        forest.watch.append(partial(forest.no_dead_end, *watched))
        forest.run(30.0)
        assert forest["edge"].versions() == {"1.0.1": "active", "1.0.2": "waiting"}, where
        assert [forest["host-1"].state("a"), forest["host-2"].state("b")] == ["active", "waiting"], where
        forest.one_generation(rules=DENIED)


@pytest.mark.promise(8)
def test_what_was_recalled_stays_so_when_the_root_is_killed_right_after() -> None:
    """After a restart the root knows that the recalled version may still be open, and opens no version beside it."""
    forest = both_active()
    forest.put("host-2", "c", "3.0.0")
    at_host = ev.EndpointKey(TWO_KEY, "i:b")
    forest["host-2"].engine.in_flight[at_host] = 1
    forest.policy("edge", DENY)
    forest.part("rack", "edge")
    forest["edge"].restart()
    forest.cut.clear()
    forest.remove("host-1", "a")
    forest.run(10.0)
    assert forest["edge"].versions()["3.0.0"] == "waiting"


def test_a_policy_that_changes_nothing_for_the_active_set_moves_nothing() -> None:
    forest = both_active()
    before = {name: dict(node.engine.endpoints) for name, node in forest.nodes.items()}
    forest.policy("edge", '{"compatibility": {"deny": [["1.0.1", "3.0.0"]]}}')
    forest.run(5.0)
    assert {name: dict(node.engine.endpoints) for name, node in forest.nodes.items()} == before


@pytest.mark.promise(1)
@pytest.mark.promise(8)
def test_an_unconfirmed_recall_is_waited_for_over_a_restart_of_the_root() -> None:
    """`host-1` reports neither the recall nor that it is open. The verdict to open may still be under way, so the root
    waits."""
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest["host-1"].lie = lambda claim: (replace(claim, seen=0, stage=Stage.WAITING),)
    forest.put("host-2", "a", "1.0.1")
    forest.put("host-1", "b", "1.0.2")
    forest.policy("edge", '{"compatibility": {"deny": [["1.0.1", "1.0.2"], ["1.0.2", "1.0.3"]]}}')
    forest.put("host-2", "c", "1.0.3")
    assert forest["host-2"].reason("c").startswith("1.0.2")
    forest["edge"].restart()
    forest.run(5.0)
    assert forest["host-2"].state("c") == "waiting"
    forest["host-1"].lie = lambda claim: (claim,)
    forest["host-1"].restart()
    forest.run(5.0)
    assert forest["host-2"].state("c") == "active"


def test_a_version_that_is_refused_its_route_takes_no_part_in_what_is_active() -> None:
    forest = Forest({"edge": ()})
    forest.put("edge", "x", "1.0.0", route="b.example/*", service="other")
    forest.put("edge", "a", "2.0.0", route="b.example/*")
    assert forest["edge"].state("a") == "refused"
    forest.put("edge", "b", "1.0.1")
    assert forest["edge"].state("b") == "active"


@pytest.mark.promise(3)
def test_a_recalled_version_that_may_open_again_has_its_requests_parked() -> None:
    """With requests in flight it has not confirmed the recall when the other version stops, and is about to serve
    again."""
    forest = both_active()
    at_host = ev.EndpointKey(TWO_KEY, "i:b")
    forest["host-2"].engine.in_flight[at_host] = 1
    forest.policy("edge", DENY)

    def parked() -> None:
        for name in ("edge", "rack"):
            routes = forest[name].engine.routes
            put = routes[ROUTE]
            assert forest[name].engine.endpoints or (put.park_requests_max and not put.recent), name

    forest.watch.append(parked)
    forest.remove("host-1", "a")
    assert forest["host-2"].state("b") == "active"
    forest.run(2.0)
    assert forest["edge"].serves(TWO_KEY) == {"n:rack"}


@pytest.mark.promise(3)
@pytest.mark.parametrize("in_flight", ["", "row", "rack"])
def test_a_recalled_version_is_about_to_serve_before_its_host_gets_the_recall(in_flight: str) -> None:
    """The other version stops while the recall is halfway, or waits for a request."""
    topology: dict[str, tuple[str, ...]] = {**ONE, "row": ("edge",), "rack": ("row",)}
    for steps in range(60):
        forest = both_active(topology)
        if in_flight:
            target = "n:rack" if in_flight == "row" else "n:host-2"
            forest[in_flight].engine.in_flight[ev.EndpointKey(TWO_KEY, target)] = 1
        forest["edge"].inbox.append(ev.PolicyPut("catalog", DENY.encode()))
        for _ in range(steps):
            forest.step()
        forest.remove("host-1", "a", settle=False)

        def parked(forest: Forest = forest, steps: int = steps) -> None:
            for name in ("edge", "row", "rack"):
                engine = forest[name].engine
                put = engine.routes[ROUTE]
                assert engine.endpoints or (put.park_requests_max and not put.recent), f"{name} after {steps} steps"

        forest.watch.append(parked)
        forest.settle()
        assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(3)
def test_a_root_that_comes_back_recalls_nothing_that_serves_for_what_it_remembers() -> None:
    """While the root was down, the last instance of a version stopped, and so did the one with the declaration that made the
    next version compatible."""
    forest = Forest({"edge-1": (), "edge-2": (), **dict.fromkeys(HOSTS, ("edge-1", "edge-2"))})
    forest.put("host-1", "a", "1.0.1")
    forest["edge-2"].kill()
    forest.run(25.0)
    forest.put("host-2", "b", "2.0.0", compatible=("1.0.1",))
    forest.put("host-3", "c", "2.0.0")
    assert forest["host-3"].state("c") == "active"
    forest.remove("host-1", "a")
    forest.remove("host-2", "b")
    forest.run(1.0)
    forest.part("host-1", "edge-2")
    forest["edge-2"].start()

    def serves() -> None:
        assert forest["host-3"].state("c") == "active"

    forest.watch.append(serves)
    forest.run(60.0)
    assert forest["edge-2"].versions() == {"2.0.0": "active"}
