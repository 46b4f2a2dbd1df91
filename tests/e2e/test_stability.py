"""Promise 4 on real processes: what is only unreachable is not stopped, and traffic flows on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import FAST, Cluster, Node, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]
LEASE_S = float(str(FAST["lease_s"]))
FENCE_S = float(str(FAST["fence_s"]))


def signal_control(node: Node, number: signal.Signals) -> None:
    assert node.process is not None
    os.kill(node.process.pid, number)


@pytest.mark.promise(4)
def test_engines_serve_on_without_any_control(cluster: Cluster, backend: Make) -> None:
    tiers = cluster.tiers(2, 1, 1)
    edges, hosts = tiers[0], tiers[2]
    cluster.register(hosts[0], "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable(edges, "http://web.example/", "web-1.0.0")
    with Traffic(edges, "web.example") as traffic:
        for node in cluster.nodes.values():
            node.kill_control()
        time.sleep(LEASE_S + FENCE_S + 1)
        traffic.wait_for(50)
    traffic.assert_nothing_lost()


@pytest.mark.promise(4)
def test_a_hung_middle_control_costs_nothing_and_opens_nothing(cluster: Cluster, backend: Make) -> None:
    """SIGSTOP for longer than lease and fence: silence, as from a partition; its engine still carries the traffic."""
    (edge,), (rack,), (host,) = cluster.tiers(1, 1, 1)
    cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    with Traffic([edge], "web.example") as traffic:
        signal_control(rack, signal.SIGSTOP)
        try:
            time.sleep(LEASE_S * 0.6)
            with edge.client() as client:
                child = client.tree().children[0]
                assert child.state == "connected", "within its lease nobody is given up"
            until("the edge has noticed", lambda: _child_state(edge) == "suspect", LEASE_S + 5)
            traffic.wait_for(30)
        finally:
            signal_control(rack, signal.SIGCONT)
        until("back", lambda: _child_state(edge) == "connected")
        traffic.wait_for(30)
        new = cluster.register(host, "web-1.0.1", "web.example", backend("web", "1.0.1"))
        new.wait("active")
    traffic.assert_nothing_lost()


def _child_state(node: Node) -> str:
    with node.client() as client:
        return client.tree().children[0].state


@pytest.mark.promise(4)
def test_a_root_lost_and_back_costs_no_request_of_the_other(cluster: Cluster, backend: Make) -> None:
    tiers = cluster.tiers(2, 1, 2)
    edges, hosts = tiers[0], tiers[2]
    running = [cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0")) for host in hosts]
    cluster.reachable(edges, "http://web.example/", "web-1.0.0")
    with Traffic(edges[:1], "web.example") as traffic:
        edges[1].kill()
        traffic.wait_for(20)
        until("the lost root's lease has run out", lambda: _parent_state(hosts[0].name, cluster) != "connected", 10)
        cluster.register(hosts[0], "web-1.0.1", "web.example", backend("web", "1.0.1"))
        assert running[0].deregister().drained, "the root that is left is enough to drain"
        edges[1].start()
        cluster.wait_ready()
        cluster.reachable(edges, "http://web.example/", "web-1.0.1")
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    with Traffic(edges, "web.example") as both:
        both.wait_for(60)
    both.assert_nothing_lost()
    assert set(both.count()) == {"1.0.0", "1.0.1"}


def _parent_state(host: str, cluster: Cluster) -> str:
    """The state of edge-2 at rack-1, the only node that is connected to it."""
    address = cluster.nodes["edge-2"].address
    with cluster.nodes["rack-1"].client() as client:
        return next(parent.state for parent in client.tree().parents if parent.address == address)


@pytest.mark.promise(4)
def test_with_all_parents_gone_nothing_new_opens(cluster: Cluster, backend: Make) -> None:
    ((edge,),) = cluster.tiers(1)
    inner = cluster.node("inner", [edge], entry=True)
    cluster.wait_ready([inner])
    cluster.register(inner, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    waiting = cluster.register(inner, "web-2.0.0", "web.example", backend("web", "2.0.0"), wait="waiting")
    cluster.reachable([inner], "http://web.example/", "web-1.0.0")
    with Traffic([inner], "web.example") as traffic:
        edge.kill()
        time.sleep(LEASE_S + FENCE_S + 0.5)
        with inner.client() as client:
            assert client.tree().cut_off
        fresh = cluster.register(inner, "other-1.0.0", "other.example", backend("other", "1.0.0"), wait="")
        traffic.wait_for(30)
        assert waiting.get().state == "waiting"
        assert fresh.get().state == "waiting" and fresh.get().reason, "says why it waits"
        edge.start()
        cluster.wait_ready()
        fresh.wait("active")
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.0.0"}
