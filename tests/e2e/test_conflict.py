"""Promise 6 as far as names go: the first holder of a pattern keeps it, whatever restarts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import FAST, Cluster, Node, get
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


@pytest.mark.promise(6)
def test_a_taken_pattern_is_refused_with_the_name_of_its_holder(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    shared.register(hosts[0], f"owner-of-{site[:-8]}-1.0.0", f"{site}/shop*", backend("owner", "1.0.0"))
    shared.reachable(edges, f"http://{site}/shop", f"owner-of-{site[:-8]}-1.0.0")
    thief = backend("thief", "9.0.0")
    with Traffic(edges, site, "/shop") as traffic:
        claim = shared.register(hosts[1], "thief-9.0.0", f"{site}/shop*", thief, wait="refused")
        told = claim.get()
        assert told.reason_code == "route-conflict"
        assert f"owner-of-{site[:-8]}" in told.reason
        assert told.decided_by
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    assert not thief.seen
    with edges[0].client() as client:
        route = next(route for route in client.routes().routes if route.route == f"{site}/shop*")
        assert [refused.service for refused in route.refused] == ["thief"]
    claim.deregister()


@pytest.mark.promise(6)
def test_one_refused_route_does_not_spoil_the_others(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    name = site[:-8]
    shared.register(hosts[0], f"{name}a-1.0.0", f"{site}/a*", backend(f"{name}a"))
    shared.reachable(edges, f"http://{site}/a", f"{name}a-1.0.0")
    both = shared.register(
        hosts[1], f"{name}b-1.0.0", [f"{site}/a*", f"{site}/b*"], backend(f"{name}b", "1.0.0"), wait=""
    )
    shared.reachable(edges, f"http://{site}/b", f"{name}b-1.0.0")
    states = {claim.route: claim.state for claim in both.get().claims}
    assert states == {f"{site}/a*": "refused", f"{site}/b*": "active"}
    assert get(edges[0], site, "/a").json()["service"] == f"{name}a"
    assert get(edges[0], site, "/b").json()["service"] == f"{name}b"


@pytest.mark.promise(6)
def test_a_more_specific_route_takes_only_what_it_matches(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    name = site[:-8]
    wide = backend(f"{name}wide", "1.0.0")
    narrow = backend(f"{name}narrow", "1.0.0")
    shared.register(hosts[0], f"{name}wide-1.0.0", f"*.{site}/*", wide)
    shared.register(hosts[1], f"{name}narrow-1.0.0", f"www.{site}/catalog/search*", narrow)
    shared.reachable(edges, f"http://www.{site}/catalog/search", f"{name}narrow-1.0.0")
    shared.reachable(edges, f"http://www.{site}/", f"{name}wide-1.0.0")
    for path, service in (
        ("/catalog/search", "narrow"),
        ("/catalog/searching?q=1", "narrow"),
        ("/catalog/searc", "wide"),
        ("/Catalog/search", "wide"),
        ("/", "wide"),
        ("/catalog/x/../search", "narrow"),
    ):
        answer = get(edges[0], f"WWW.{site}.:80", path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["service"] == f"{name}{service}", path
    assert get(edges[1], site, "/").status_code in (404, 421), "the wildcard has at least one label more"
    with edges[0].client() as client:
        told = client.explain(f"http://www.{site}/catalog/search")
        routes = {route.route: route for route in client.routes().routes}
    assert told.service == f"{name}narrow"
    assert [other.route for other in told.others] == [f"*.{site}/*"], "explain tells the other side"
    assert routes[f"www.{site}/catalog/search*"].shadows == (f"*.{site}/*",)
    assert routes[f"*.{site}/*"].shadowed_by == (f"www.{site}/catalog/search*",)


@pytest.mark.promise(6)
def test_the_holder_keeps_its_route_over_restarts_of_the_roots(cluster: Cluster, backend: Make) -> None:
    # The owner's host is away for as long as it takes the others to start: by far less than a lease.
    timing = {**FAST, "lease_s": 10.0, "fence_s": 10.0}
    edges = [cluster.node(f"edge-{n}", entry=True, timing=timing) for n in (1, 2)]
    hosts = [cluster.node(f"host-{n}", edges, timing=timing) for n in (1, 2)]
    cluster.wait_ready()
    cluster.register(hosts[1], "owner-1.0.0", "shop.example", backend("owner", "1.0.0"))
    cluster.reachable(edges, "http://shop.example/", "owner-1.0.0")
    thief = cluster.register(hosts[0], "a-thief-1.0.0", "shop.example", backend("thief", "1.0.0"), wait="refused")
    for edge in edges:
        edge.kill()
    hosts[1].kill_control()  # the thief's host is the first to come back to the roots
    for edge in edges:
        edge.start()
    cluster.wait_ready([*edges, hosts[0]])
    hosts[1].start()
    cluster.wait_ready()
    cluster.reachable(edges, "http://shop.example/", "owner-1.0.0")
    assert thief.wait("refused").reason_code == "route-conflict"
    with Traffic(edges, "shop.example") as traffic:
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    assert {got.answer.service for got in traffic.results} == {"owner"}
