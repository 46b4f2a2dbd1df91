"""A fault in the middle of an incompatible rollout: no edge goes without a version for longer than a drain takes."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable

import pytest

from tests.e2e.acts import codes
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]
SITE = "web.example"


@pytest.mark.promise(3)
@pytest.mark.promise(4)
def test_the_full_disk_of_one_edge_holds_no_rollout_up(cluster: Cluster, backend: Make) -> None:
    """The full disk of one of two edges delays a rollout, but does not stop it.

    After lease and fence that edge no longer decides, and follows the other; until then requests are parked.
    """
    edges, hosts = cluster.tiers(2, 2)
    with edges[0].client() as client:
        client.set_policy("web", {"park": {"timeout_s": 30.0, "requests_max": 100}})
    old = cluster.register(hosts[0], "web-1.0.0", SITE, backend("web", "1.0.0"))
    cluster.reachable(edges, f"http://{SITE}/", "web-1.0.0")
    new = cluster.register(hosts[1], "web-2.0.0", SITE, backend("web", "2.0.0"), wait="waiting")
    with Traffic(edges, SITE) as traffic:
        _fill(edges[1])
        old.deregister()
        new.wait("active")
        assert "decisions-wait" in codes(edges[1])
        cluster.reachable(edges, f"http://{SITE}/", "web-2.0.0")
        moment = time.monotonic()
        traffic.wait_for(40)
        _free(edges[1])
        until("it writes again", lambda: "state-written" in codes(edges[1]))
        traffic.wait_for(40)
        assert new.get().state == "active"
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.0", "2.0.0")
    for edge in edges:
        assert set(traffic.count(lambda got, edge=edge: got.entry == edge.name and got.sent > moment)) == {"2.0.0"}


def _fill(node: Node) -> None:
    """Every write to a file fails from here on."""
    assert node.process is not None
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def _free(node: Node) -> None:
    assert node.process is not None
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.promise(3)
def test_a_rack_lost_in_a_rollout_holds_it_up_for_less_than_its_lease(cluster: Cluster, backend: Make) -> None:
    """One of two racks lost in the middle of a rollout costs less than its lease.

    The other rack reports that the same host's old instance has stopped. The host waits for the lost one's acknowledgement
    only until the deadline of the drain.
    """
    timing = {"beat_s": 0.25, "lease_s": 6.0, "fence_s": 6.0}
    edge = cluster.node("edge", entry=True, timing=timing)
    racks = [cluster.node(f"rack-{n}", [edge], timing=timing) for n in (1, 2)]
    hosts = [cluster.node(f"host-{n}", racks, timing=timing) for n in (1, 2)]
    cluster.wait_ready()
    slow = backend("web", "1.0.0")
    old = cluster.register(hosts[0], "web-1.0.0", SITE, slow)
    cluster.reachable([edge], f"http://{SITE}/", "web-1.0.0")
    newer = backend("web", "2.0.0")
    newer.gate.set()
    new = cluster.register(hosts[1], "web-2.0.0", SITE, newer, wait="waiting")
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(get(edge, SITE, "/hang?until=gate").status_code))
    asking.start()
    until("the request has arrived", lambda: slow.seen)
    with Traffic([edge], SITE, safe=True) as traffic:
        leaving = threading.Thread(target=old.deregister, args=(1.5,))
        leaving.start()
        until("it drains", lambda: old.get().state == "draining")
        racks[0].kill()
        slow.gate.set()
        asking.join(20)
        leaving.join(20)
        new.wait("active")
        cluster.reachable([edge], f"http://{SITE}/", "web-2.0.0")
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.0", "2.0.0")
    assert answers == [200]
    received: dict[str, list[int]] = {version: [] for version in ("1.0.0", "2.0.0")}
    for got in traffic.results:
        received[got.answer.version].append(got.answer.received_ns)
    gap_s = (min(received["2.0.0"]) - max(received["1.0.0"])) / 1e9
    assert gap_s < 3.0, f"no version for {gap_s:.1f} s"
