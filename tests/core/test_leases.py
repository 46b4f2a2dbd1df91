"""Leases of instances travel with claims: the fence is never shorter than the longest one below, and what is in flight
is waited for."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
from tests.core.forest import Forest, interruptions, key_of

ONE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",), "host-3": ("rack",)}
OLD = key_of("1.0.1")
AT_HOST = ev.EndpointKey(OLD, "i:a")


def tree(ttl_s: float, policy: str = "{}") -> Forest:
    forest = Forest(ONE)
    forest.policy("edge", policy)
    forest.put("host-1", "a", "1.0.1", ttl_s=ttl_s)
    forest.put("host-2", "b", "2.0.0")
    forest.put("host-3", "c", "9.0.0", service="other", route="other.example/*")
    assert forest["host-2"].state("b") == "waiting"
    return forest


def waits(forest: Forest, seconds: float) -> None:
    for _ in range(int(seconds)):
        forest.run(1.0)
        assert forest["host-2"].state("b") == "waiting"


# ---------------------------------------------------------------------- silence of the host


@pytest.mark.promise(2)
@pytest.mark.parametrize("ttl_s", [30.0, 300.0])
def test_a_silent_host_is_waited_for_as_long_as_its_longest_lease(ttl_s: float) -> None:
    forest = tree(ttl_s)
    forest.cut.add(frozenset(("host-1", "rack")))
    waits(forest, 10.0 + ttl_s - 3.0)
    forest.run(10.0)
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_a_silent_rack_too() -> None:
    """A silent rack is kept for the lease of an instance two tiers below."""
    forest = Forest({"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("edge",), "host-3": ("edge",)})
    forest.put("host-1", "a", "1.0.1", ttl_s=120.0)
    forest.put("host-2", "b", "2.0.0")
    forest.cut.add(frozenset(("rack", "edge")))
    for _ in range(100):
        forest.put("host-1", "a", "1.0.1", ttl_s=120.0)
        waits(forest, 1.0)
    forest.run(40.0)
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_a_lease_that_was_only_claimed_before_a_restart_of_the_parent_counts() -> None:
    forest = tree(120.0)
    forest.cut.add(frozenset(("host-1", "rack")))
    forest.run(15.0)
    forest["rack"].restart()
    waits(forest, 100.0)


@pytest.mark.promise(2)
def test_one_short_and_one_long_lease_are_each_their_own() -> None:
    """Of two services on a silent host, the one with the short lease is presumed stopped first."""
    forest = tree(120.0)
    forest.put("host-1", "s", "1.0.0", service="shop", route="shop.example/*", ttl_s=5.0)
    forest.put("host-2", "t", "2.0.0", service="shop", route="shop.example/*")
    forest.cut.add(frozenset(("host-1", "rack")))
    forest.run(25.0)
    assert forest["host-2"].state("t") == "active"
    assert forest["host-2"].state("b") == "waiting"


@pytest.mark.promise(2)
def test_what_a_rack_with_long_leases_left_is_waited_for_as_long() -> None:
    forest = Forest({"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1", ttl_s=120.0)
    forest.put("host-2", "b", "2.0.0")
    forest["rack"].handle(ev.Stop(10.0))
    forest.settle()
    forest["rack"].kill()
    waits(forest, 125.0)
    forest.run(10.0)
    assert forest["host-2"].state("b") == "active"


# ---------------------------------------------------------------------- lapse of an instance


@pytest.mark.promise(2)
def test_a_lapse_with_a_request_in_flight_waits_for_it() -> None:
    forest = tree(10.0)
    forest["host-1"].engine.in_flight[AT_HOST] = 1
    forest.run(11.0)
    assert forest["host-1"].serves(OLD) == set(), "no new requests"
    assert forest["host-1"].state("a") == "lapsed"
    assert forest["host-2"].state("b") == "waiting"
    forest.finish("host-1", AT_HOST)
    assert forest["host-1"].state("a") == "gone"
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_a_lapse_under_wait_opens_nothing_automatically() -> None:
    forest = tree(10.0, '{"on_silence": "wait"}')
    forest["host-1"].engine.in_flight[AT_HOST] = 1
    waits(forest, 30.0)
    forest.finish("host-1", AT_HOST)
    waits(forest, 60.0)
    assert "only presumed" in forest["host-2"].reason("b")
    forest["host-1"].inbox.append(ev.InstanceGone("a", "its process is gone"))
    forest.settle()
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_a_lapse_under_wait_ends_when_the_instance_is_removed() -> None:
    forest = tree(10.0, '{"on_silence": "wait"}')
    waits(forest, 60.0)
    forest.remove("host-1", "a")
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_a_lapse_under_wait_ends_when_the_policy_changes() -> None:
    forest = tree(10.0, '{"on_silence": "wait"}')
    waits(forest, 60.0)
    forest.policy("edge", '{"on_silence": "open"}')
    forest.run(1.0)
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(3)
@pytest.mark.parametrize("policy", ["{}", '{"on_silence": "wait"}'])
def test_an_instance_that_renews_late_serves_again(policy: str) -> None:
    forest = tree(10.0, policy)
    forest["host-1"].engine.in_flight[AT_HOST] = 1
    forest.run(12.0)
    assert forest["host-1"].state("a") == "lapsed"
    forest.put("host-1", "a", "1.0.1", ttl_s=10.0)
    forest.run(1.0)
    assert forest["host-1"].state("a") == "active"
    assert forest["host-2"].state("b") == "waiting"


@pytest.mark.promise(2)
def test_health_results_of_a_lapsed_instance_that_waits_change_nothing() -> None:
    forest = tree(10.0, '{"on_silence": "wait"}')
    waits(forest, 60.0)
    for healthy in (False, True):
        forest["host-1"].inbox.append(ev.InstanceHealth("a", healthy))
        forest.settle()
        waits(forest, 15.0)
        assert forest["host-1"].state("a") == "lapsed"
        assert "only presumed" in forest["host-2"].reason("b")


@pytest.mark.promise(2)
def test_a_lapse_that_lasts_over_a_restart_of_the_host_is_still_one() -> None:
    forest = tree(10.0, '{"on_silence": "wait"}')
    forest.run(30.0)
    assert forest["host-1"].state("a") == "lapsed"
    forest["host-1"].restart()
    for _ in range(60):
        forest.run(1.0)
        assert forest["host-2"].state("b") == "waiting"


@pytest.mark.promise(2)
@pytest.mark.parametrize("victim", ["edge", "rack", "host-1", "host-2"])
def test_a_lapse_under_wait_while_a_node_restarts(victim: str) -> None:
    def story() -> Forest:
        forest = tree(10.0, '{"on_silence": "wait"}')
        forest.run(9.9)
        return forest

    def act(forest: Forest) -> None:
        forest.now += 1.0
        forest["host-1"].inbox.append(ev.Tick())

    for where, forest in interruptions(story, act, [victim]):
        for _ in range(50):
            forest.run(1.0)
            assert forest["host-2"].state("b") == "waiting", where
        forest["host-1"].inbox.append(ev.InstanceGone("a", "gone"))
        forest.settle()
        assert forest["host-2"].state("b") == "active", where


@pytest.mark.promise(4)
def test_a_host_that_is_silent_for_a_long_lease_serves_on() -> None:
    forest = tree(300.0)
    forest.cut.add(frozenset(("host-1", "rack")))
    forest.run(200.0)
    assert forest["host-1"].serves(OLD) == {"i:a"}
    assert forest["rack"].serves(OLD) == {"n:host-1"}, "a last resort"
    forest.cut.clear()
    forest.run(10.0)
    assert forest["host-1"].state("a") == "active"
    assert forest["host-2"].state("b") == "waiting"
