"""Promise 7 on real processes: what a node knows grows with its children, not with the instances below them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, until

INSTANCES = 60


@pytest.mark.promise(7)
def test_an_edge_knows_its_children_not_the_instances(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Callable[..., Backend]
) -> None:
    service = site.partition(".")[0]
    web = backend(service, "1.0.0")
    for number in range(INSTANCES):
        shared.register(hosts[number % 2], f"{service}-1.0.0", site, web, wait="", capacity=1)

    def capacity() -> int:
        with edges[0].client() as client:
            return sum(target.capacity for target in client.explain(f"http://{site}/").targets)

    until("all capacity known at the edge", lambda: capacity() == INSTANCES)
    with edges[0].client() as client:
        told = client.explain(f"http://{site}/")
        mine = [version for version in client.service(service).services[0].versions if version.version == "1.0.0"]
        text = repr(client.tree()) + repr(client.routes()) + repr(told)
    assert [target.name for target in told.targets] == ["n:rack-1"]
    assert mine[0].instances == INSTANCES
    assert f"{service}-1.0.0.host-1" not in text, "an instance's id has travelled up"
    with hosts[0].client() as client:
        assert len(client.explain(f"http://{site}/").targets) == INSTANCES // 2
