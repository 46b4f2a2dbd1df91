"""A disk that takes nothing more, on real nodes: `RLIMIT_FSIZE` of a running control makes every write to a file fail."""

from __future__ import annotations

import resource
import subprocess
import time

import httpx
import pytest

from sdlb.cli.demo.launch import SDLB, Node, until
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster

UNLIMITED = resource.RLIM_INFINITY


def fill(node: Node) -> None:
    assert node.process is not None
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (0, UNLIMITED))


def free(node: Node) -> None:
    assert node.process is not None
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))


def get(node: Node, host: str) -> httpx.Response:
    return httpx.get(f"http://{node.http}/", headers={"host": host}, timeout=10)


def serve(cluster: Cluster, edge: Node, host: Node, backend: Backend) -> None:
    """Registers `a-1.0.0` and sends a request through the edge. It may wait there while the disk is full."""
    cluster.register(host, "a-1.0.0", "a.example/*", backend)
    assert get(edge, "a.example").status_code == 200


def codes(node: Node) -> list[str]:
    with node.client() as client:
        return [event.code for event in client.events(follow=False)]


@pytest.mark.promise(8)
@pytest.mark.promise(4)
def test_a_full_disk_holds_decisions_up_and_nothing_else(cluster: Cluster) -> None:
    """At the root and, another time, at a host: what is served goes on past every lease, what is new waits."""
    ((edge,), (host,)) = cluster.tiers(1, 1)
    with Backend() as one, Backend() as two, Backend() as three:
        serve(cluster, edge, host, one)
        for full, name, backend in ((edge, "b-1.0.0", two), (host, "c-1.0.0", three)):
            fill(full)
            later = cluster.register(host, name, f"{name[0]}.example/*", backend, wait="")
            until(f"{full.name} holds", lambda full=full: "decisions-wait" in codes(full))
            end = time.monotonic() + 4.5  # more than lease and fence together
            while time.monotonic() < end:
                assert get(edge, "a.example").status_code == 200
                if full is edge:  # a host's newcomer is claimed already: its requests wait at the edge
                    assert get(edge, "b.example").status_code == 421
                time.sleep(0.1)
            with edge.client() as client:
                assert [child.state for child in client.tree().children] == ["connected"]
            assert later.get().state == "waiting"
            with full.client() as client:
                tree = client.tree()
            assert (tree.writes, tree.ready) == (False, False)
            words = [*SDLB, "status", "--socket", full.socket]
            told = subprocess.run(words, env=full.environment, capture_output=True, text=True, timeout=30, check=True)
            assert f"{full.name} cannot write its state" in told.stdout
            free(full)
            later.wait("active")
            assert get(edge, f"{name[0]}.example").status_code == 200
            until("it says that it writes again", lambda full=full: "state-written" in codes(full))
        assert "link-gap" not in codes(edge) + codes(host)
        assert "child-silent" not in codes(edge)


@pytest.mark.promise(8)
def test_what_waited_for_the_disk_was_never_decided_when_control_is_killed(cluster: Cluster) -> None:
    ((edge,), (host,)) = cluster.tiers(1, 1)
    with Backend() as one, Backend() as two:
        serve(cluster, edge, host, one)
        fill(edge)
        later = cluster.register(host, "b-1.0.0", "b.example/*", two, wait="")
        until("the edge holds", lambda: "decisions-wait" in codes(edge))
        edge.kill_control()
        assert get(edge, "a.example").status_code == 200
        assert get(edge, "b.example").status_code == 421
        edge.start()
        later.wait("active")
        assert get(edge, "a.example").status_code == 200
        assert get(edge, "b.example").status_code == 200


def test_a_host_whose_disk_is_full_can_be_stopped(cluster: Cluster) -> None:
    ((edge,), (host,)) = cluster.tiers(1, 1)
    with Backend() as one, Backend() as two:
        serve(cluster, edge, host, one)
        fill(host)
        cluster.register(host, "b-1.0.0", "b.example/*", two, wait="")
        until("the host holds", lambda: "decisions-wait" in codes(host))
        assert host.stop(45.0) == 0
        with edge.client() as client:
            assert client.tree().children == ()
