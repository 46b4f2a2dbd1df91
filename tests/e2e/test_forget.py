"""Most of a node's hosts die for good: it is guarded, and an operator finds the way out with `sdlb forget`."""

from __future__ import annotations

import httpx
import pytest

from sdlb.cli.demo.launch import until
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster


@pytest.mark.promise(2)
def test_a_guarded_node_can_forget_dead_children(cluster: Cluster) -> None:
    """Three of four are dead: two are forgotten by hand, then the others are most again, and the third is presumed dead."""
    ((edge,), (one, two, three, four)) = cluster.tiers(1, 4)
    with Backend() as old, Backend() as new, edge.client() as client:
        for host in (one, two, three):
            cluster.register(host, "catalog-1.0.1", "example.com/*", old)
        later = cluster.register(four, "catalog-2.0.0", "example.com/*", new, wait="waiting")

        def refused(name: str, why: str) -> None:
            done = cluster.sdlb("forget", name, node=edge)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
            assert why in done.stderr

        refused("host-1", "counts as alive")
        refused("host-9", "no child named")
        for host in (one, two, three):
            host.kill()
        until("the edge is guarded", lambda: client.tree().guarded)
        assert "sdlb forget NODE" in cluster.sdlb("status", node=edge).stdout
        refused("host-4", "counts as alive")
        assert later.get().state == "waiting"

        done = cluster.sdlb("forget", "host-1", node=edge)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "host-1 is forgotten, with catalog-1.0.1\n"
        assert client.tree().guarded
        assert client.forget("host-2").state == "suspect"
        assert cluster.sdlb("forget", node=edge).returncode == 2
        later.wait("active")
        assert [child.name for child in client.tree().children] == ["host-4"]
        codes = [event.code for event in client.events(follow=False)]
        assert (codes.count("child-forgotten"), codes.count("child-presumed-stopped")) == (2, 1)
        cluster.reachable([edge], "http://example.com/", "catalog-2.0.0")
        assert httpx.get(f"http://{edge.http}/", headers={"host": "example.com"}, timeout=10).status_code == 200
