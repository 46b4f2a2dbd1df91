"""Promise 3 on real processes: no request pays for a change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


@pytest.mark.promise(3)
def test_instances_come_and_go_under_load(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    running = [shared.register(host, f"{service}-1.0.0", site, backend(service, "1.0.0")) for host in hosts]
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    with Traffic(edges, site) as traffic:
        for patch in range(1, 4):
            for place, host in enumerate(hosts):
                version = f"1.0.{patch}"
                fresh = shared.register(host, f"{service}-{version}", site, backend(service, version))
                assert running[place].deregister().drained
                running[place] = fresh
        moment = time.monotonic()
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    assert set(traffic.since(moment)) == {"1.0.3"}


@pytest.mark.promise(3)
def test_drain_waits_for_what_is_in_flight(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    slow = backend(service, "1.0.0")
    instance = shared.register(hosts[0], f"{service}-1.0.0", site, slow)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(get(edges[0], site, "/hang?until=gate").status_code))
    asking.start()
    until("the request has arrived", lambda: slow.seen)
    with hosts[0].client() as client:
        begin = time.monotonic()
        told = client.drain(instance.spec.id, 1.7)  # the engine sends its counters once a second
        assert 1.5 < time.monotonic() - begin < 6
        assert not told.drained and told.state == "draining" and told.in_flight == 1
        slow.gate.set()
        asking.join(10)
        assert client.drain(instance.spec.id, 10).drained
    assert answers == [200]


@pytest.mark.promise(3)
def test_policies_change_under_load(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    for host, version in zip(hosts, ("1.0.1", "1.0.2"), strict=True):
        shared.register(host, f"{service}-{version}", site, backend(service, version))
        shared.reachable(edges, f"http://{site}/", f"{service}-{version}")
    with Traffic(edges, site) as traffic, hosts[1].client() as client:
        for policy in ({"priority": "higher"}, {"priority": "lower"}, {"priority": "share", "shares": {"1.0.1": 30}}):
            client.set_policy(service, policy)
            traffic.wait_for(40)
    traffic.assert_nothing_lost()


@pytest.mark.promise(3)
def test_nodes_come_and_go_under_load(cluster: Cluster, backend: Make) -> None:
    edges = [cluster.node(f"edge-{n}", entry=True) for n in (1, 2)]
    racks = [cluster.node(f"rack-{n}", edges, start=n < 3) for n in (1, 2, 3)]
    hosts = [cluster.node(f"host-{n}", racks) for n in (1, 2)]
    cluster.wait_ready([*edges, *racks[:2]])
    for host in hosts:
        cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0", name=host.name))
    cluster.reachable(edges, "http://web.example/", "web-1.0.0")
    with Traffic(edges, "web.example") as traffic:
        racks[2].start()  # a parent that the hosts were configured with all along
        cluster.wait_ready([racks[2], *hosts])
        traffic.wait_for(30)
        assert racks[0].stop() == 0  # leaves for good: drained first
        traffic.wait_for(30)
        assert hosts[0].stop() == 0
        traffic.wait_for(30)
        racks[0].start()
        cluster.wait_ready([racks[0]])
        traffic.wait_for(30)
    traffic.assert_nothing_lost()


@pytest.mark.promise(3)
def test_control_killed_and_started_again_costs_nothing(cluster: Cluster, backend: Make) -> None:
    (edge,), (rack,), (host,) = cluster.tiers(1, 1, 1)
    web = backend("web", "1.0.0")
    kept = cluster.register(host, "web-1.0.0", "web.example", web)
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    engines = {node.name: node.engine_pids() for node in (edge, rack, host)}
    assert all(len(pids) == 1 for pids in engines.values())
    with Traffic([edge], "web.example") as traffic:
        for node in (host, rack, edge):
            node.kill_control()
            traffic.wait_for(30)
            node.start()
            node.wait_ready()
            traffic.wait_for(10)
        assert kept.get().state == "active"
        cluster.register(host, "web-1.0.1", "web.example", backend("web", "1.0.1"))
        kept.deregister()
        moment = time.monotonic()
        traffic.wait_for(30)
    traffic.assert_nothing_lost()
    assert {node.name: node.engine_pids() for node in (edge, rack, host)} == engines, "an engine was replaced"
    assert set(traffic.since(moment)) == {"1.0.1"}, "changes take effect again"


@pytest.mark.promise(3)
def test_in_flight_is_learnt_back_by_a_new_control(cluster: Cluster, backend: Make) -> None:
    (edge,), (host,) = cluster.tiers(1, 1)
    slow = backend("web", "1.0.0")
    instance = cluster.register(host, "web-1.0.0", "web.example", slow)
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(get(edge, "web.example", "/hang?until=gate").status_code))
    asking.start()
    until("the request has arrived", lambda: slow.seen)
    with host.client() as client:
        assert not client.drain(instance.spec.id, 0.3).drained
    host.kill_control()
    host.start()
    host.wait_ready()
    time.sleep(0.5)
    told = instance.get()
    assert not told.drained, "drained while a request was in flight in the engine"
    slow.gate.set()
    asking.join(10)
    assert answers == [200]
    with host.client() as client:
        assert client.drain(instance.spec.id, 10).drained


@pytest.mark.promise(3)
def test_a_safe_request_in_flight_through_a_killed_node_is_retried(cluster: Cluster, backend: Make) -> None:
    """GETs that wait for the endpoint when the node that carries them dies, engine and all: the entry retries elsewhere."""
    (edge,), racks, (host,) = cluster.tiers(1, 2, 1)
    slow = backend("web", "1.0.0")
    cluster.register(host, "web-1.0.0", "web.example", slow)
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    answers: list[int] = []

    def ask() -> None:
        answers.append(get(edge, "web.example", "/hang?until=gate").status_code)

    asking = [threading.Thread(target=ask) for _ in range(6)]
    for thread in asking:
        thread.start()
    until("all have arrived", lambda: len(slow.seen) == 6)
    racks[0].kill()
    until("those through the killed node have come again", lambda: len(slow.seen) > 6)
    slow.gate.set()
    for thread in asking:
        thread.join(20)
    assert answers == [200] * 6


@pytest.mark.promise(3)
def test_a_request_that_may_have_been_acted_on_is_never_sent_twice(cluster: Cluster, backend: Make) -> None:
    """A POST in flight through a killed node is lost, and it must not be retried."""
    (edge,), racks, (host,) = cluster.tiers(1, 2, 1)
    slow = backend("web", "1.0.0")
    cluster.register(host, "web-1.0.0", "web.example", slow)
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    answers: list[int] = []

    def ask() -> None:
        answer = get(edge, "web.example", "/hang?until=gate", method="POST", content=b"x")
        answers.append(answer.status_code)

    asking = [threading.Thread(target=ask) for _ in range(6)]
    for thread in asking:
        thread.start()
    until("all have arrived", lambda: len(slow.seen) == 6)
    racks[0].kill()
    until("those through the killed node are answered", lambda: answers)
    time.sleep(0.5)
    slow.gate.set()
    for thread in asking:
        thread.join(20)
    assert len(slow.seen) == 6, "a POST was sent twice"
    assert sorted(set(answers)) == [200, 502]
