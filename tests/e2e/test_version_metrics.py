"""The metrics of a failing version: the same at the host that sends it requests as at the entry."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from tests.e2e.backend import Backend, Seen
from tests.e2e.cluster import Cluster, Node, api, get, until

Make = Callable[..., Backend]
NOW = {"park": {"timeout_s": 0}, "retries_max": 0}


def metrics_of(node: Node, service: str) -> dict[str, float]:
    """Name and further labels -> value, of the version 1.0.0."""
    with api(node) as http:
        lines = http.get("/metrics").text.splitlines()
    found: dict[str, float] = {}
    for line in lines:
        labels = f'service="{service}",version="1.0.0"'
        if labels in line:
            name, _, value = line.replace(labels, "").replace("{}", "").rpartition(" ")
            found[name] = float(value)
    return found


def test_a_version_that_refuses_every_connection(cluster: Cluster) -> None:
    (edge,), (host,) = cluster.tiers(1, 1)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        endpoint = f"127.0.0.1:{gone.getsockname()[1]}"
    with edge.client() as client:
        client.set_policy("web", NOW)
    cluster.register(host, "web-1.0.0", "web.example", endpoint)
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    assert [get(edge, "web.example", "/").status_code for _ in range(20)] == [502] * 20
    until("the host says so", lambda: metrics_of(host, "web").get("sdlb_instance_unreached_total", 0) >= 20)
    assert metrics_of(host, "web")["sdlb_instance_requests_total"] == 0
    until("and the edge", lambda: metrics_of(edge, "web").get("sdlb_failed_total") == 20)
    at_edge = metrics_of(edge, "web")
    assert at_edge["sdlb_requests_total"] == at_edge['sdlb_responses_total{,class="5xx"}'] == 20
    assert not any(name.startswith("sdlb_instance_") for name in at_edge), "it asks no instance"
    with api(edge) as http:
        lines = http.get("/metrics").text.splitlines()
    without = [line for line in lines if line.startswith('sdlb_requests_total{service="web",version=""}')]
    # the series is there when the table was written once before the version was known
    assert not [line for line in without if not line.endswith(" 0")], "each failure counts for its version"


def test_answers_breaks_and_times(cluster: Cluster, backend: Make) -> None:
    ((node,),) = cluster.tiers(1)

    async def slow(backend: Backend, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.3 if seen.target == "/slow" else 0)
        status = b"404 Not Found" if seen.target == "/404" else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
        return True

    async def breaks(backend: Backend, seen: Seen, *_: object) -> bool:
        raise ConnectionResetError

    with node.client() as client:
        for service in ("web", "bad"):
            client.set_policy(service, NOW)
    cluster.register(node, "web-1.0.0", "web.example", backend("web", "1.0.0", handler=slow))
    cluster.register(node, "bad-1.0.0", "bad.example", backend("bad", "1.0.0", handler=breaks))
    for path, status in (("/", 200), ("/404", 404), ("/slow", 200)):
        assert get(node, "web.example", path).status_code == status
    assert get(node, "bad.example", "/", method="POST", content=b"x").status_code == 502
    until("all are counted", lambda: metrics_of(node, "web").get("sdlb_instance_head_seconds_count") == 3)
    web = metrics_of(node, "web")
    assert web["sdlb_instance_requests_total"] == 3 and web["sdlb_instance_broken_total"] == 0
    assert web['sdlb_instance_responses_total{,class="2xx"}'] == 2
    assert web['sdlb_instance_responses_total{,class="4xx"}'] == 1
    bounds = [name for name in web if name.startswith("sdlb_instance_head_seconds_bucket")]
    assert len(bounds) == 125
    assert web[bounds[0]] <= web[bounds[-1]] == 3
    assert web[next(name for name in bounds if 'le="0.2' in name)] == 2, "two were fast"
    assert web['sdlb_instance_head_seconds_bucket{,le="60"}'] == 3
    until("the break, too", lambda: metrics_of(node, "bad").get("sdlb_instance_broken_total") == 1)
    assert metrics_of(node, "bad")["sdlb_instance_requests_total"] == 1
