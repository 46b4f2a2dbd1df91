"""What serves together is checked again when a policy or a declaration changes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


@pytest.mark.promise(1)
@pytest.mark.promise(3)
def test_a_denied_pair_is_parted_by_a_drain(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    pair = {}
    for host, version in zip(hosts, ("1.0.1", "1.0.2"), strict=True):
        pair[version] = shared.register(host, f"{service}-{version}", site, backend(service, version))
        shared.reachable(edges, f"http://{site}/", f"{service}-{version}")
    with Traffic(edges, site) as traffic:
        traffic.wait_for(40)
        done = shared.sdlb("policy", "set", service, "--deny", "1.0.1~1.0.2", node=hosts[0])
        assert done.returncode == 0, done.stderr
        told = pair["1.0.2"].wait("waiting")
        until("it says why", lambda: pair["1.0.2"].get().reason)
        assert told.id == pair["1.0.2"].spec.id and "1.0.1" in pair["1.0.2"].get().reason
        until("1.0.2 is out at both edges", lambda: not any(_chosen(edge, site, "1.0.2") for edge in edges))
        moment = time.monotonic()
        traffic.wait_for(60)
        assert pair["1.0.1"].get().state == "active"
    traffic.assert_nothing_lost()
    assert set(traffic.count(lambda got: got.sent < moment)) == {"1.0.1", "1.0.2"}
    assert set(traffic.since(moment)) == {"1.0.1"}


@pytest.mark.promise(1)
@pytest.mark.promise(3)
def test_a_version_leaves_with_the_declaration_that_let_it_in(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site.partition(".")[0]
    shared.register(hosts[0], f"{service}-1.4.0", site, backend(service, "1.4.0"))
    shared.reachable(edges, f"http://{site}/", f"{service}-1.4.0")
    declares = shared.register(hosts[1], f"{service}-2.0.0", site, backend(service, "2.0.0"), compatible=[">=1.4,<2.0"])
    stays = shared.register(hosts[0], f"{service}-2.0.0", site, backend(service, "2.0.0"))
    shared.reachable(edges, f"http://{site}/", f"{service}-2.0.0")
    with Traffic(edges, site) as traffic:
        traffic.wait_for(20)
        declares.deregister()
        stays.wait("waiting")
        until("2.0.0 is out at both edges", lambda: not any(_chosen(edge, site, "2.0.0") for edge in edges))
        moment = time.monotonic()
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    assert set(traffic.since(moment)) == {"1.4.0"}


def _chosen(edge: Node, site: str, version: str) -> bool:
    with edge.client() as client:
        told = client.explain(f"http://{site}/")
    return any(each.chosen for each in told.versions if each.version == version)
