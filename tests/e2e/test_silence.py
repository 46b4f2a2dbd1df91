"""Silence is not stopping: the longest lease counts, a guard holds for two children, a cut-off node opens nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.e2e.acts import child, codes, cut_off, halted
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


@pytest.mark.promise(2)
@pytest.mark.promise(4)
@pytest.mark.parametrize("lost", ["halted", "killed"])
def test_the_lease_of_an_instance_holds_longer_than_that_of_its_host(
    cluster: Cluster, backend: Make, lost: str
) -> None:
    """An instance with a lease of an hour is not presumed to have stopped before, though its host is silent.

    Beside it, what has no lease of its own is, after lease and fence.
    """
    (edge,), (one, two) = cluster.tiers(1, 2)
    new = backend("long", "2.0.0")
    cluster.register(one, "long-1.0.1", "long.example", backend("long", "1.0.1"), ttl_s=3600.0)
    cluster.register(one, "short-1.0.1", "short.example", backend("short", "1.0.1"))
    waiting = cluster.register(two, "long-2.0.0", "long.example", new, wait="waiting")
    goes = cluster.register(two, "short-2.0.0", "short.example", backend("short", "2.0.0"), wait="waiting")
    if lost == "killed":
        one.kill()
        goes.wait("active")
        assert waiting.get().state == "waiting"
    else:
        with halted(one):
            goes.wait("active")
            assert waiting.get().state == "waiting"
            assert get(edge, "long.example", "/").json()["version"] == "1.0.1", "its engine serves on"
        until("the host is back", lambda: child(edge, one.name).state == "connected")
    until("it is known what it waits for", lambda: "1.0.1" in waiting.get().reason)
    assert (waiting.get().state, new.seen) == ("waiting", [])


@pytest.mark.promise(2)
def test_a_lapsed_instance_is_waited_for_if_the_policy_requires_it(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    """With `on_silence = "wait"`, an instance with an expired lease is waited for, with or without requests in flight."""
    service = site.partition(".")[0]
    with hosts[0].client() as client:
        client.set_policy(service, {"on_silence": "wait"})
    slow, new = backend(service, "1.0.0"), backend(service, "2.0.0")
    old = shared.register(hosts[0], f"{service}-1.0.0", site, slow, ttl_s=2.0, wait="")
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    waiting = shared.register(hosts[1], f"{service}-2.0.0", site, new, wait="waiting")
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(get(edges[0], site, "/hang?until=gate").status_code))
    asking.start()
    until("the request has arrived", lambda: slow.seen)
    until("its lease is over", lambda: "instance-lapsed" in codes(hosts[0]))
    assert (waiting.get().state, new.seen) == ("waiting", [])
    slow.gate.set()
    asking.join(20)
    assert answers == [200]
    until("only presumed to have stopped", lambda: waiting.get().reason_code == "presumed-stopped")
    assert waiting.get().state == "waiting"
    old.gone()
    waiting.wait("active")


@pytest.mark.promise(4)
def test_both_children_of_an_edge_fall_silent_and_nothing_is_lost(cluster: Cluster, backend: Make) -> None:
    """When both children of an edge fall silent, it keeps their routes for longer than lease and fence."""
    (edge,), hosts = cluster.tiers(1, 2)
    for host in hosts:
        cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
        cluster.register(host, f"{host.name}-1.0.0", f"{host.name}.example", backend(host.name, "1.0.0"))
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    with edge.client() as client, Traffic([edge], "web.example") as traffic:
        with halted(*hosts):
            until("guarded", lambda: client.tree().guarded)
            until("lease and fence are over", lambda: min(c.silent_s for c in client.tree().children) > 3.5)
            assert [c.state for c in client.tree().children] == ["suspect", "suspect"]
            traffic.wait_for(40)
            for host in hosts:
                assert get(edge, f"{host.name}.example", "/").status_code == 200
        until("back", lambda: not client.tree().guarded)
        until("both are connected", lambda: [c.state for c in client.tree().children] == ["connected"] * 2)
        traffic.wait_for(20)
        assert "child-presumed-stopped" not in codes(edge)
    traffic.assert_nothing_lost()


@pytest.mark.promise(1)
@pytest.mark.promise(4)
def test_below_a_cut_off_rack_nothing_opens(cluster: Cluster, backend: Make) -> None:
    """Below a cut-off rack nothing opens, neither what a host had active before a power cut nor what is new."""
    (edge,), (rack,), (host,) = cluster.tiers(1, 1, 1)
    late = cluster.node("late", [rack], start=False)
    kept = cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    edge.kill()
    until("the rack is cut off", lambda: cut_off(rack))
    until("the host below knows it", lambda: cut_off(host))
    host.kill()
    host.start()
    late.start()
    cluster.wait_ready([host, late])
    for node in (host, late):
        until(f"{node.name} knows that it is cut off", lambda node=node: cut_off(node))
    fresh = cluster.register(late, "web-1.0.0", "web.example", backend("web", "1.0.0"), wait="")
    for registration in (kept, fresh):
        until("it says why it waits", lambda each=registration: each.get().reason_code in ("no-parent", "unconfirmed"))
        assert registration.get().state == "waiting"
    edge.start()
    cluster.wait_ready()
    for registration in (kept, fresh):
        registration.wait("active")
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    assert get(edge, "web.example", "/").status_code == 200
