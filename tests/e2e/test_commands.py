"""Commands work on any node's socket: the node queries the roots where needed, and shows where they disagree."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

import pytest

from sdlb.cli.demo.launch import SDLB
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, api, until

Make = Callable[..., Backend]


def test_reads_return_the_same_on_every_node(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site[:-8]
    shared.register(hosts[0], f"{service}-1.0.1", f"{site}/c*", backend(service, "1.0.1"))
    shared.register(hosts[1], f"{service}-2.0.0", f"{site}/c*", backend(service, "2.0.0"), wait="waiting")
    shared.reachable(edges, f"http://{site}/c", f"{service}-1.0.1")
    nodes = list(shared.nodes.values())
    told = {node.name: shared.json("status", service, node=node) for node in nodes}
    services = [answer["services"] for answer in told.values()]
    states = [[(v["version"], v["state"], v["hosts"], v["capacity"]) for v in item[0]["versions"]] for item in services]
    assert all(item == states[0] for item in states), states
    assert told["edge-1"]["roots"] == ["edge-1"]
    for name in ("rack-1", "host-1", "host-2"):
        assert set(told[name]["roots"]) == {"edge-1", "edge-2"} and not told[name]["disagree"]
    versions = {version["version"]: version for version in services[0][0]["versions"]}
    assert versions["1.0.1"]["state"] == "active" and versions["1.0.1"]["hosts"] == ["host-1"]
    assert versions["2.0.0"]["state"] == "waiting"
    assert "1.0.1" in versions["2.0.0"]["reason"] and "host-1" in versions["2.0.0"]["reason"]

    plain = shared.sdlb("status", service, node=hosts[1])
    assert plain.returncode == 0 and "waiting" in plain.stdout and "\x1b" not in plain.stdout
    explained = shared.json("explain", f"http://{site}/c/7", node=edges[0])
    assert (explained["service"], explained["version"], explained["status"]) == (service, "1.0.1", 0)
    assert explained["targets"][0]["name"] == "n:rack-1"
    nothing = shared.sdlb("explain", f"http://{site}/other", "--json", node=edges[0])
    assert nothing.returncode == 1, "a request would reach nothing"
    assert json.loads(nothing.stdout)["status"] == 404 and json.loads(nothing.stdout)["reason"]


def test_every_node_shows_its_part_of_the_tree(shared: Cluster, edges: list[Node], hosts: list[Node]) -> None:
    rack = shared.json("tree", node=shared.nodes["rack-1"])
    assert [parent["name"] for parent in rack["parents"]] == ["edge-1", "edge-2"]
    assert {child["name"] for child in rack["children"]} == {"host-1", "host-2"}
    assert all(item["state"] == "connected" for item in (*rack["parents"], *rack["children"]))
    host = shared.json("tree", node=hosts[0])
    assert set(host["roots"]) == {"edge-1", "edge-2"} and set(host["ancestors"]) >= {"rack-1", "edge-1", "edge-2"}
    assert shared.json("tree", node=edges[0])["root"] is True


def test_a_policy_set_on_a_host_is_the_roots(shared: Cluster, edges: list[Node], hosts: list[Node], site: str) -> None:
    service = site[:-8]
    done = shared.sdlb("policy", "set", service, "--priority", "lower", "--yes", node=hosts[1])
    assert done.returncode == 0, done.stderr
    for node in (*edges, *hosts):
        assert shared.json("policy", "get", service, node=node)["policy"]["priority"] == "lower"


def test_register_and_deregister_by_hand(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site[:-8]
    web = backend(service, "1.0.0")
    port = web.endpoint.rpartition(":")[2]
    words = ["--id", f"{service}-by-hand", "--route", site, "--port", port, "--wait", "10", f"{service}-1.0.0"]
    done = shared.sdlb("register", *words, node=hosts[0])
    assert done.returncode == 0, done.stderr
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    done = shared.sdlb("deregister", f"{service}-by-hand", node=hosts[0])
    assert done.returncode == 0, done.stderr
    with hosts[0].client() as client:
        assert all(instance.id != f"{service}-by-hand" for instance in client.instances())


def test_events_follow(shared: Cluster, hosts: list[Node], site: str, backend: Make) -> None:
    service = site[:-8]
    following = shared.program(
        [*SDLB, "events", "-f", "--json", "--socket", hosts[0].socket], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(1.0)
    shared.register(hosts[0], f"{service}-1.0.0", site, backend(service, "1.0.0"))
    assert following.stdout is not None
    end = time.monotonic() + 10
    while time.monotonic() < end:
        event = json.loads(following.stdout.readline())
        if service in event["text"]:
            break
    else:
        pytest.fail("no event about the service")
    assert {"id", "at", "level", "code", "text", "fields"} <= set(event)
    following.terminate()
    following.wait(10)


def test_the_api_describes_itself(hosts: list[Node]) -> None:
    with api(hosts[0]) as http:
        document = http.get("/openapi.json").json()
        assert document["openapi"].startswith("3.")
        assert {"/v1/instances/{id}", "/v1/services", "/v1/tree", "/v1/routes", "/v1/explain"} <= set(document["paths"])
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
        metrics = http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "# TYPE sdlb_" in metrics.text


def test_readiness_has_a_reason_when_not_ready(cluster: Cluster) -> None:
    """A host whose parents do not answer is alive and reports that it is not ready."""
    absent = cluster.node("absent", start=False)
    host = cluster.node("host-1", [absent])
    until("its socket is there", lambda: _status(host, "/healthz") == 200, 20)
    assert _status(host, "/readyz") == 503
    with host.client() as client:
        told = client.tree()
    assert not told.ready and told.detail
    assert told.parents[0].state in ("connecting", "lost") and told.parents[0].address == absent.address
    with api(host) as http:
        answer = http.get("/v1/services")
    assert answer.status_code == 503 and answer.json()["detail"], "no root was reached"


def _status(node: Node, path: str) -> int:
    try:
        with api(node) as http:
            return http.get(path).status_code
    except OSError:
        return 0
    except Exception as error:  # httpx's own: not up yet
        if type(error).__module__.startswith("httpx"):
            return 0
        raise


def test_roots_that_disagree_or_are_out_of_reach_are_named(cluster: Cluster, backend: Make) -> None:
    """edge-2 has a child of its own with another generation: the two roots can't see that of each other."""
    edges, (host,) = cluster.tiers(2, 1)
    aside = cluster.node("aside", [edges[1]])
    cluster.wait_ready([aside])
    cluster.register(aside, "web-2.0.0", "web.example", backend("web", "2.0.0"))
    cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"), wait="waiting")
    told = cluster.json("status", "web", node=host)
    assert set(told["roots"]) == {"edge-1", "edge-2"} and not told["unreachable"]
    assert told["disagree"] and told["disagree"][0]["service"] == "web", told
    edges[1].kill()
    until("edge-2 is named as unreachable", lambda: cluster.json("status", node=host)["unreachable"], 10)
    told = cluster.json("status", node=host)
    assert told["roots"] == ["edge-1"]


def test_with_no_root_in_reach_status_shows_what_the_node_knows(cluster: Cluster, backend: Make) -> None:
    edge, host = cluster.tiers(1, 1)[0][0], cluster.nodes["host-1"]
    cluster.register(host, "web-1.0.0", "cut.example", backend("web", "1.0.0"))
    edge.kill()
    done = cluster.sdlb("status", node=host)
    assert done.returncode == 0, done.stderr
    first, _, row, *_ = done.stdout.splitlines()
    assert first.startswith("no root could be reached (") and first.endswith(
        "the table shows what host-1 knows on its own"
    )
    assert row.split()[:2] == ["web", "1.0.0"] and row.split()[-1] == "active"
    told = cluster.json("status", "web", node=host)
    assert told["local"] is True and told["local_because"] and told["services"][0]["service"] == "web"


def test_capacity_counts_a_host_once_however_many_ways_lead_to_it(cluster: Cluster, backend: Make) -> None:
    (edge,), _, (host,) = cluster.tiers(1, 2, 1)
    cluster.register(host, "web-1.0.0", "once.example", backend("web", "1.0.0"), capacity=100)
    cluster.reachable([edge], "http://once.example/", "web-1.0.0")

    def figures() -> tuple[int, int, int]:
        (version,) = cluster.json("status", "web", node=edge)["services"][0]["versions"]
        (route,) = cluster.json("routes", node=edge)["routes"]
        return version["instances"], version["capacity"], route["capacity"]

    until("both racks have reported", lambda: len(cluster.json("explain", "once.example", node=edge)["targets"]) == 2)
    assert figures() == (1, 100, 100)
