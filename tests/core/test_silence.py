"""Leases, step by step: a silent child is first a last resort, then presumed stopped, unless most are silent at
once."""

from __future__ import annotations

from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey
from tests.core.forest import Forest

KEY = ClaimKey("catalog", "1.0.1", "example.com/*")
HOSTS = ("host-1", "host-2", "host-3")
TREE: dict[str, tuple[str, ...]] = {"edge": (), **dict.fromkeys(HOSTS, ("edge",))}


def tree() -> Forest:
    forest = Forest(TREE)
    for host in HOSTS:
        forest.put(host, f"a-{host}", "1.0.1")
    return forest


def last_resorts(forest: Forest) -> set[str]:
    return {endpoint.key.target for endpoint in forest["edge"].engine.endpoints.values() if endpoint.last_resort}


def test_a_broken_link_changes_nothing_before_the_lease_ends() -> None:
    forest = tree()
    forest["host-1"].kill()
    forest.run(9.0)
    assert forest["edge"].serves(KEY) == {"n:host-1", "n:host-2", "n:host-3"}
    assert last_resorts(forest) == set()


def test_one_silent_child_is_a_last_resort_then_gone() -> None:
    forest = tree()
    forest["host-1"].kill()
    forest.run(12.5)
    assert last_resorts(forest) == {"n:host-1"}
    forest.run(10.0)
    assert forest["edge"].serves(KEY) == {"n:host-2", "n:host-3"}


def test_a_child_that_is_heard_again_is_an_endpoint_like_any_other() -> None:
    forest = tree()
    forest["host-1"].kill()
    forest.run(15.0)
    forest["host-1"].start()
    forest.run(3.0)
    assert last_resorts(forest) == set()
    assert forest["edge"].serves(KEY) == {"n:host-1", "n:host-2", "n:host-3"}


def test_when_most_are_silent_at_once_the_fault_is_likelier_ours() -> None:
    forest = tree()
    forest["host-1"].kill()
    forest["host-2"].kill()
    forest.run(100.0)
    assert forest["edge"].balancer.view.guarded()
    assert forest["edge"].serves(KEY) == {"n:host-1", "n:host-2", "n:host-3"}
    forest["host-1"].start()
    forest.run(100.0)
    assert not forest["edge"].balancer.view.guarded()
    assert forest["edge"].serves(KEY) == {"n:host-1", "n:host-3"}, "the one that is still silent counts alone again"


def test_control_that_did_not_run_extends_all_leases_by_that_time() -> None:
    forest = tree()
    forest.now += 60.0
    for name in ("edge", *HOSTS):
        forest[name].handle(ev.Tick())
    forest.run(5.0)
    assert last_resorts(forest) == set()
    assert forest["edge"].serves(KEY) == {"n:host-1", "n:host-2", "n:host-3"}


def test_a_node_without_parents_in_touch_serves_on_and_opens_nothing() -> None:
    forest = tree()
    forest["edge"].kill()
    forest.run(60.0)
    host = forest["host-1"]
    forest.put("host-1", "b", "1.0.2")
    assert host.serves(KEY) == {"i:a-host-1"}
    assert host.balancer.view.instance("b")["state"] == "waiting"
    assert host.balancer.view.instance("b")["reason_code"] == "no-parent"
    assert host.balancer.view.cut_off()
    forest["edge"].start()
    forest.run(10.0)
    assert host.balancer.view.instance("b")["state"] == "active"
