"""Nodes that change their authority: a host or a rack moves below another root, a root becomes a child, a child a root."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.e2e.acts import move
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, Registration, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]
SITE = "web.example"


def aged(cluster: Cluster, edge: Node, host: Node, backend: Make) -> Backend:
    """`web` on `host`, two generations older than what begins elsewhere: 7, 8, then 9.0.0."""
    running = cluster.register(host, "web-7.0.0", SITE, backend("web", "7.0.0"))
    for version in ("8.0.0", "9.0.0"):
        server = backend("web", version)
        fresh = cluster.register(host, f"web-{version}", SITE, server, wait="waiting")
        running.deregister()
        fresh.wait("active")
        running = fresh
    cluster.reachable([edge], f"http://{SITE}/", "web-9.0.0")
    return server


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
@pytest.mark.parametrize("moved", ["host", "rack"])
def test_a_moved_node_arrives_as_a_newcomer(cluster: Cluster, backend: Make, moved: str) -> None:
    """A node that moves below another root takes nothing from what serves there.

    Its old tree was generations ahead: that does not count in the tree that it comes to.
    """
    far = cluster.node("far", entry=True)
    rack = cluster.node("rack", [far])
    away = cluster.node("away", [rack])
    edge = cluster.node("edge", entry=True)
    home = cluster.node("home", [edge])
    cluster.wait_ready()
    nine = aged(cluster, far, away, backend)
    ours = cluster.register(home, "web-1.0.0", SITE, backend("web", "1.0.0"))
    cluster.reachable([edge], f"http://{SITE}/", "web-1.0.0")
    with Traffic([edge], SITE) as traffic:
        goes = away if moved == "host" else rack
        move(goes, [edge])
        cluster.wait_ready([goes, away])

        def told() -> str:
            with away.client() as client:
                return client.instances()[0].reason_code

        until("the moved instance waits", lambda: told() == "still-running")
        traffic.wait_for(60)
        assert ours.get().state == "active"
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.0.0"}
    before = len(nine.seen)
    assert get(edge, SITE, "/").json()["version"] == "1.0.0"
    assert len(nine.seen) == before
    ours.deregister()
    cluster.reachable([edge], f"http://{SITE}/", "web-9.0.0")
    assert get(edge, SITE, "/").json()["version"] == "9.0.0"


def rollout(cluster: Cluster, entry: Node, backend: Make) -> tuple[Backend, Registration, Registration]:
    """1.0.1 serves, because its line did before; 2.0.0 waits, and came earlier."""
    first = cluster.register(entry, "web-1.0.0", SITE, backend("web", "1.0.0"))
    waiting = cluster.register(entry, "web-2.0.0", SITE, backend("web", "2.0.0"), wait="waiting")
    slow = backend("web", "1.0.1")
    serving = cluster.register(entry, "web-1.0.1", SITE, slow)
    first.deregister()
    cluster.reachable([entry], f"http://{SITE}/", "web-1.0.1")
    return slow, serving, waiting


@pytest.mark.promise(3)
def test_a_root_that_becomes_a_child_keeps_what_serves(cluster: Cluster, backend: Make) -> None:
    ((inner, top),) = cluster.tiers(2)
    slow, serving, waiting = rollout(cluster, inner, backend)
    with Traffic([inner], SITE) as traffic:
        _holds(slow, inner, lambda: _moves(cluster, inner, [top]))
        cluster.reachable([top], f"http://{SITE}/", "web-1.0.1")
        traffic.wait_for(30)
        assert get(top, SITE, "/").json()["version"] == "1.0.1"
        until("it waits by the word of its new root", lambda: waiting.get().decided_by == top.name)
        assert (serving.get().state, waiting.get().state) == ("active", "waiting")
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.0.1"}


@pytest.mark.promise(3)
@pytest.mark.promise(2)
def test_a_child_that_becomes_a_root_keeps_what_serves(cluster: Cluster, backend: Make) -> None:
    """A child that becomes a root keeps what its parents had let be active; what waited waits on."""
    ((top,),) = cluster.tiers(1)
    inner = cluster.node("inner", [top], entry=True)
    cluster.wait_ready()
    slow, serving, waiting = rollout(cluster, inner, backend)
    with Traffic([inner], SITE) as traffic:
        _holds(slow, inner, lambda: _moves(cluster, inner, []))
        until("it decides itself", lambda: waiting.get().decided_by == inner.name)
        assert (serving.get().state, waiting.get().state) == ("active", "waiting")
        traffic.wait_for(30)
        serving.deregister()
        waiting.wait("active")
        traffic.wait_for(10)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.1", "2.0.0")


def _moves(cluster: Cluster, node: Node, parents: list[Node]) -> None:
    move(node, parents)
    cluster.wait_ready([node])


def _holds(slow: Backend, entry: Node, act: Callable[[], None]) -> None:
    """A request in flight over the whole act is answered."""
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(get(entry, SITE, "/hang?until=gate").status_code))
    asking.start()
    until("the request has arrived", lambda: any(seen.target.startswith("/hang") for seen in list(slow.seen)))
    act()
    slow.gate.set()
    asking.join(20)
    assert answers == [200]
