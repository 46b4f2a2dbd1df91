"""What is restarted, or stopped, as planned: clients wait a moment, and none is turned away."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.acts import codes
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, api, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]
CATALOG = "catalog-1.0.1"


@pytest.mark.promise(3)
def test_the_only_instance_is_restarted_through_three_tiers(cluster: Cluster, backend: Make) -> None:
    (edge,), _, (host,) = cluster.tiers(1, 1, 1)
    first = cluster.register(host, CATALOG, "example.com/*", backend())
    cluster.reachable([edge], "http://example.com/", CATALOG)
    with Traffic([edge], "example.com", threads=3) as traffic:
        first.deregister()
        time.sleep(2)
        again = cluster.register(host, CATALOG, "example.com/*", backend())
        traffic.wait_for(20)
        again.gone()  # without a word: its program was killed
        time.sleep(2)
        cluster.register(host, CATALOG, "example.com/*", backend())
        traffic.wait_for(20)
    traffic.assert_nothing_lost()


@pytest.mark.promise(3)
def test_the_program_of_the_only_instance_dies_and_is_started_again(cluster: Cluster) -> None:
    ((node,),) = cluster.tiers(1)
    running = cluster.run(node, CATALOG, "example.com/*")
    running.wait("active")
    with Traffic([node], "example.com", threads=3, safe=True) as traffic:
        child = int((running.registered() or running).pid)  # type: ignore[union-attr]
        os.kill(child, signal.SIGKILL)
        running.process.wait(10)
        time.sleep(1)
        cluster.run(node, CATALOG, "example.com/*").wait("active")
        traffic.wait_for(20)
    lost = [got for got in traffic.results if got.error and "connection_terminated" not in got.error]
    assert not lost, lost[:2]  # what it had in its hands is gone with it


def test_what_does_not_come_back_is_answered_503_with_a_time(cluster: Cluster, backend: Make) -> None:
    ((node,),) = cluster.tiers(1)
    instance = cluster.register(node, CATALOG, "example.com/*", backend())
    with node.client() as client:
        client.set_policy("catalog", {"park": {"timeout_s": 0.5}})
    instance.deregister()
    begun = time.monotonic()
    answer = get(node, "example.com", "/")
    assert 0.4 < time.monotonic() - begun < 5
    assert answer.status_code == 503 and answer.headers["retry-after"], answer.text


@pytest.mark.promise(3)
def test_an_endpoint_that_is_out_of_reach_for_a_moment_is_waited_for(cluster: Cluster, backend: Make) -> None:
    (edge,), racks, (host,) = cluster.tiers(1, 2, 1)
    cluster.register(host, CATALOG, "example.com/*", backend())
    cluster.reachable([edge], "http://example.com/", CATALOG)
    with Traffic([edge], "example.com", threads=3, safe=True) as traffic:
        for rack in racks:
            rack.kill()
        time.sleep(1)  # their leases still run
        for rack in racks:
            rack.start()
        traffic.wait_for(20, timeout_s=40)
    traffic.assert_nothing_lost()


@pytest.mark.promise(3)
def test_a_planned_stop_of_an_edge_costs_nothing_but_new_connections(cluster: Cluster, backend: Make) -> None:
    edges, (host,) = cluster.tiers(2, 1)
    cluster.register(host, CATALOG, "example.com/*", backend())
    cluster.reachable(edges, "http://example.com/", CATALOG)
    with Traffic(edges, "example.com", threads=4) as traffic:
        traffic.wait_for(40)
        assert edges[0].stop() == 0
        traffic.wait_for(20)
    lost = [got for got in traffic.results if got.error and not got.error.startswith("ConnectError")]
    assert not lost, (len(lost), lost[:2])


@pytest.mark.promise(3)
def test_a_restarted_edge_answers_no_request_before_it_has_its_routes(cluster: Cluster, backend: Make) -> None:
    """Also with an empty state folder: its children are back a moment later."""
    edge = cluster.node("edge-1", entry=True, timing={"beat_s": 0.25, "lease_s": 10.0})
    rack = cluster.node("rack-1", [edge])
    host = cluster.node("host-1", [rack])
    cluster.wait_ready()
    cluster.register(host, CATALOG, "example.com/*", backend())
    cluster.reachable([edge], "http://example.com/", CATALOG)
    edge.kill()
    assert _while_it_starts(edge) == {200}
    edge.stop()
    for file in (edge.folder / "state").iterdir():
        if file.is_file():
            file.unlink()
    assert _while_it_starts(edge) == {200}


def _while_it_starts(edge: Node) -> set[int]:
    statuses: list[int] = []
    ends = threading.Event()
    asking = [threading.Thread(target=_ask, args=(edge, statuses, ends)) for _ in range(3)]
    for thread in asking:
        thread.start()
    edge.start()
    edge.wait_ready()
    until("it answers", lambda: statuses.count(200) > 30)
    ends.set()
    for thread in asking:
        thread.join(40)
    return set(statuses)


def _ask(edge: Node, statuses: list[int], ends: threading.Event) -> None:
    while not ends.is_set():
        try:
            statuses.append(get(edge, "example.com", "/", timeout=40.0).status_code)
        except httpx.HTTPError:
            time.sleep(0.002)


def test_an_engine_whose_control_thread_hangs_is_reported(cluster: Cluster) -> None:
    ((node,),) = cluster.tiers(1)
    (engine,) = node.engine_pids()
    os.kill(engine, signal.SIGSTOP)
    try:
        until("it is not ready", lambda: _readyz(node) == (503, "the engine does not answer control"), 15)
    finally:
        os.kill(engine, signal.SIGCONT)
    until("it is ready again", lambda: _readyz(node)[0] == 200)
    said = codes(node)
    assert "engine-hangs" in said and "engine-answers" in said


def _readyz(node: Node) -> tuple[int, str]:
    with api(node) as http:
        answer = http.get("/readyz")
    return answer.status_code, answer.text.partition(":")[0]
