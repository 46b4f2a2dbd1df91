"""What a node between no longer reports is not thereby known to have stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.e2e.acts import child, cut_off, halted, state_folder
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, Registration, get, until

Make = Callable[..., Backend]
SITE = "web.example"


def rollout(cluster: Cluster, backend: Make) -> tuple[Node, Node, Node, Registration, Backend]:
    """1.0.1 on `inner` below a rack, 2.0.0 waits on `outer` beside the rack; a silent node never counts as stopped."""
    edge = cluster.node("edge", entry=True)
    rack = cluster.node("rack", [edge])
    inner = cluster.node("inner", [rack])
    outer = cluster.node("outer", [edge])
    cluster.wait_ready()
    with edge.client() as client:
        client.set_policy("web", {"on_silence": "wait"})
    cluster.register(inner, "web-1.0.1", SITE, backend("web", "1.0.1"))
    cluster.reachable([edge], f"http://{SITE}/", "web-1.0.1")
    two = backend("web", "2.0.0")
    return edge, rack, inner, cluster.register(outer, "web-2.0.0", SITE, two, wait="waiting"), two


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_a_rack_stopped_cleanly_does_not_stop_what_is_below(cluster: Cluster, backend: Make) -> None:
    edge, rack, inner, new, two = rollout(cluster, backend)
    assert rack.stop() == 0
    until("the edge has taken note", lambda: child(edge, "rack").state == "")
    until("only presumed to have stopped", lambda: new.get().reason_code == "presumed-stopped")
    until("the host below knows that it is cut off", lambda: cut_off(inner))
    assert new.get().state == "waiting"
    rack.start()
    cluster.wait_ready()
    cluster.reachable([edge], f"http://{SITE}/", "web-1.0.1")
    assert get(edge, SITE, "/").json()["version"] == "1.0.1"
    until("it is known where 1.0.1 runs", lambda: new.get().reason_code == "still-running")
    assert not two.seen


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_a_rack_that_lost_its_disk_does_not_stop_what_is_below(cluster: Cluster, backend: Make) -> None:
    """A rack that lost its disk reports nothing of the host below: that host has not stopped."""
    edge, rack, inner, new, two = rollout(cluster, backend)
    with halted(inner):
        rack.kill()
        shutil.rmtree(state_folder(rack))
        rack.start()
        until("the rack is back", lambda: child(edge, "rack").state == "connected")
        until("only presumed to have stopped", lambda: new.get().reason_code == "presumed-stopped")
        assert new.get().state == "waiting"
    cluster.wait_ready()
    cluster.reachable([edge], f"http://{SITE}/", "web-1.0.1")
    assert get(edge, SITE, "/").json()["version"] == "1.0.1"
    until("it is known where 1.0.1 runs", lambda: new.get().reason_code == "still-running")
    assert not two.seen
