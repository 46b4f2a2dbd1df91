"""Scenarios on small trees of the real objects: the final state of every node, and states that never occur."""

from __future__ import annotations

from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey
from tests.core.forest import Forest

ONE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)}
TWO = {
    "edge-1": (),
    "edge-2": (),
    "rack-1": ("edge-1", "edge-2"),
    "rack-2": ("edge-1", "edge-2"),
    "host-1": ("rack-1", "rack-2"),
    "host-2": ("rack-1", "rack-2"),
}
KEY1 = ClaimKey("catalog", "1.0.1", "example.com/*")
KEY2 = ClaimKey("catalog", "2.0.0", "example.com/*")


def test_a_claim_travels_up_and_opens_from_below() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    assert forest["host-1"].balancer.view.instance("a")["state"] == "active"
    assert forest["edge"].serves(KEY1) == {"n:rack"}
    assert forest["rack"].serves(KEY1) == {"n:host-1"}
    assert forest["host-1"].serves(KEY1) == {"i:a"}
    assert forest["edge"].engine.routes["example.com/*"].picks[0].version == "1.0.1"


def test_an_incompatible_version_waits_until_the_last_has_stopped() -> None:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    waiting = forest["host-2"].balancer.view.instance("b")
    assert waiting["state"] == "waiting"
    assert waiting["reason"] == "1.0.1 still has 1 instance on host-1"
    forest.put("host-2", "c", "1.0.2")
    assert forest["host-2"].balancer.view.instance("c")["state"] == "active"
    forest.remove("host-1", "a")
    assert forest["host-2"].balancer.view.instance("b")["state"] == "waiting"
    forest.remove("host-2", "c")
    assert forest["host-2"].balancer.view.instance("b")["state"] == "active"
    for edge in ("edge-1", "edge-2"):
        assert forest[edge].versions("catalog") == {"2.0.0": "active"}
        assert forest[edge].serves(KEY2) == {"n:rack-1", "n:rack-2"}
        assert forest[edge].serves(KEY1) == set()


def test_a_drain_waits_for_what_is_in_flight_at_every_tier() -> None:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    key = ev.EndpointKey(KEY1, "n:rack-2")
    forest["edge-2"].engine.in_flight[key] = 1
    forest.remove("host-1", "a")
    assert forest["edge-1"].serves(KEY1) == set()
    assert forest["host-1"].serves(KEY1) == {"i:a"}, "the request in flight still needs it"
    assert forest["host-2"].balancer.view.instance("b")["state"] == "waiting"
    forest["edge-2"].engine.in_flight[key] = 0
    forest["edge-2"].inbox.extend(forest["edge-2"].engine.drained())
    forest.settle()
    assert forest["host-1"].balancer.view.instance("a") is None
    assert forest["host-2"].balancer.view.instance("b")["state"] == "active"


def test_a_second_instance_lets_the_first_go_without_asking_the_parents() -> None:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-1", "b", "1.0.1")
    forest["edge-1"].engine.in_flight[ev.EndpointKey(KEY1, "n:rack-1")] = 1
    forest.remove("host-1", "a")
    assert forest["host-1"].balancer.view.instance("a") is None
    assert forest["edge-1"].serves(KEY1) == {"n:rack-1", "n:rack-2"}


def test_a_conflict_is_refused_and_reported_and_the_route_passes_on() -> None:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "s", "9.0.0", service="shop")
    refused = forest["host-2"].balancer.view.instance("s")
    assert refused["state"] == "refused"
    assert "held by catalog" in refused["reason"]
    forest.remove("host-1", "a")
    assert forest["host-2"].balancer.view.instance("s")["state"] == "active"


def test_control_restarts_and_nothing_is_taken_from_the_engine() -> None:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    before = {name: set(node.engine.endpoints) for name, node in forest.nodes.items()}
    for name in forest.nodes:
        forest[name].kill()
        forest.run(3.0)
        forest[name].start()
        forest.run(3.0)
        for other, node in forest.nodes.items():
            assert set(node.engine.endpoints) == before[other], (name, other)
    forest.run(30.0)
    assert {name: set(node.engine.endpoints) for name, node in forest.nodes.items()} == before


def test_a_silent_host_is_a_last_resort_then_presumed_stopped() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.cut.add(frozenset(("host-1", "rack")))
    forest.run(12.0)
    assert forest["edge"].versions("catalog") == {"1.0.1": "active", "2.0.0": "waiting"}
    (endpoint,) = [m for m in forest["rack"].engine.endpoints.values() if m.key.claim == KEY1]
    assert endpoint.last_resort
    forest.run(12.0)
    assert forest["edge"].versions("catalog") == {"2.0.0": "active"}
    assert forest["host-1"].serves(KEY1) == {"i:a"}, "cut off, it serves on with what it has"
    forest.cut.clear()
    forest.run(10.0)
    assert forest["host-1"].serves(KEY1) == set()
    assert forest["host-1"].balancer.view.instance("a")["state"] == "waiting"


def test_with_on_silence_wait_nothing_opens_until_it_is_known() -> None:
    forest = Forest(ONE)
    doc = b'{"on_silence":"wait"}'

    forest["edge"].handle(ev.PolicyPut("catalog", doc))
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest["host-1"].kill()
    forest.run(60.0)
    assert forest["edge"].versions("catalog") == {"1.0.1": "active", "2.0.0": "waiting"}
    assert "only presumed" in forest["host-2"].balancer.view.instance("b")["reason"]


def test_two_roots_that_hear_in_different_order_agree() -> None:
    forest = Forest({"edge-1": (), "edge-2": (), "host-1": ("edge-1", "edge-2"), "host-2": ("edge-1", "edge-2")})
    forest.cut = {frozenset(("host-1", "edge-2")), frozenset(("host-2", "edge-1"))}
    forest.break_links("host-1")
    forest.break_links("host-2")
    forest.settle()
    forest.run(1.0)
    forest.put("host-1", "a", "1.0.1")
    forest.run(0.5)
    forest.put("host-2", "b", "2.0.0")
    assert forest["host-1"].balancer.view.instance("a")["state"] == "waiting"
    assert forest["host-2"].balancer.view.instance("b")["state"] == "waiting"
    forest.cut.clear()
    forest.run(15.0)
    states = {
        forest["host-1"].balancer.view.instance("a")["state"],
        forest["host-2"].balancer.view.instance("b")["state"],
    }
    assert states == {"active", "waiting"}
    assert forest["host-1"].balancer.view.instance("a")["state"] == "active", "the earlier claim"


def test_a_root_set_back_to_an_old_disk_does_not_bring_the_old_generation_back() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    old = dict(forest["edge"].disk)
    forest.put("host-2", "b", "2.0.0")
    forest.remove("host-1", "a")
    forest.put("host-1", "c", "1.0.1")
    assert forest["edge"].versions("catalog") == {"1.0.1": "waiting", "2.0.0": "active"}
    forest["edge"].kill()
    forest["edge"].disk = old
    forest["edge"].start()
    for _ in range(60):
        forest.run(0.5)
        assert forest["host-1"].serves(KEY1) == set()
    assert forest["edge"].versions("catalog") == {"1.0.1": "waiting", "2.0.0": "active"}


def test_a_stopping_host_loses_nothing_and_sends_bye() -> None:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "1.0.1")
    forest["host-1"].handle(ev.Stop(10.0))
    forest.settle()
    assert forest["host-1"].stopped is not None and forest["host-1"].stopped.clean
    assert forest["rack-1"].serves(KEY1) == {"n:host-2"}
    assert "host-1" not in {c["name"] for c in forest["rack-1"].balancer.view.tree()["children"]}


def test_asks_reach_every_root_once_and_come_back_merged() -> None:
    forest = Forest(TWO)
    forest["host-1"].handle(ev.AskUp("q-1", "GET", "/v1/services"))
    forest.settle()
    (answer,) = forest["host-1"].answered
    assert [each.root for each in answer.answers] == ["edge-1", "edge-2"]
    assert answer.unreachable == ()


def test_a_route_in_the_gap_between_two_versions_is_still_there_after_a_restart() -> None:
    """Requests wait for the next version and do not reach a service with a less specific route."""
    forest = Forest({"root": (), "host": ("root",)})
    root, host = forest["root"], forest["host"]
    forest.put("host", "wide", "1.0.0", "example.com/*", service="all")
    forest.put("host", "old", "1.0.0", "example.com/catalog*")
    old = ev.EndpointKey(ClaimKey("catalog", "1.0.0", "example.com/catalog*"), "i:old")
    host.engine.in_flight[old] = 1
    forest.put("host", "new", "2.0.0", "example.com/catalog*")
    forest.remove("host", "old")
    assert root.engine.routes["example.com/catalog*"].park_requests_max > 0
    root.kill()
    root.start()
    forest.run(1.0)
    assert root.versions("catalog")["2.0.0"] == "waiting"
    assert root.engine.routes["example.com/catalog*"].park_requests_max > 0
