"""State folders that were restored from a copy, that run twice, and a parent with two addresses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.acts import child, codes, copy_state, parent, state_folder
from tests.e2e.backend import Backend
from tests.e2e.cluster import FAST, Cluster, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


@pytest.mark.promise(5)
@pytest.mark.promise(3)
@pytest.mark.parametrize("name", ["host-1", "rack-1"])
def test_a_node_restored_from_an_older_copy_comes_back(cluster: Cluster, backend: Make, name: str) -> None:
    """A node with an older copy of its state folder comes back and loses no request."""
    timing = {**FAST, "lease_s": 5.0, "fence_s": 5.0}  # three restarts, each by far shorter than this
    edge = cluster.node("edge-1", entry=True, timing=timing)
    rack = cluster.node("rack-1", [edge], timing=timing)
    host = cluster.node("host-1", [rack], timing=timing)
    cluster.wait_ready()
    node = cluster.nodes[name]
    above = edge if node is rack else rack
    cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    copy = cluster.folder / "copy"
    with Traffic([edge], "web.example") as traffic:
        node.kill_control()
        copy_state(state_folder(node), copy)
        for _ in range(2):
            node.start()
            node.wait_ready()
            node.kill_control()
        copy_state(copy, state_folder(node))
        node.start()
        node.wait_ready()
        until("its parent takes it", lambda: child(above, name).state == "connected")
        assert "restored" in codes(node)
        traffic.wait_for(30)
        fresh = cluster.register(host, "web-1.0.1", "web.example", backend("web", "1.0.1"))
        cluster.reachable([edge], "http://web.example/", "web-1.0.1")
        assert fresh.get().state == "active"
    traffic.assert_nothing_lost()


@pytest.mark.promise(1)
def test_a_copied_state_folder_stays_out_beside_the_original(cluster: Cluster, backend: Make) -> None:
    (edge,), (host,) = cluster.tiers(1, 1)
    kept = cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    clone = cluster.node("clone", [edge], start=False)
    clone.settings[""]["name"] = host.name
    copy_state(state_folder(host), state_folder(clone))
    with Traffic([edge], "web.example") as traffic:
        clone.start()
        until("the clone is refused", lambda: parent(clone, edge).state == "refused")
        told = parent(clone, edge)
        assert "state folder was copied" in told.detail and "stop one of the two" in told.detail
        assert "refused-cloned" in codes(clone)
        assert "state folder was copied" in clone.log_file.read_text()
        assert "state folder was copied" in cluster.sdlb("tree", node=clone).stdout
        assert "state folder was copied" in " ".join(cluster.sdlb("status", node=clone).stdout.split())
        with clone.client() as client:
            until("what it copied waits", lambda: [each.state for each in client.instances()] == ["waiting"])
        traffic.wait_for(60)
        assert parent(host, edge).state == "connected" and kept.get().state == "active"
        assert child(edge, host.name).address == host.address
    traffic.assert_nothing_lost()
    assert host.stop() == 0  # the clone may come when the original is gone
    cluster.wait_ready([edge])
    until("the other one is taken", lambda: parent(clone, edge).state == "connected")


@pytest.mark.promise(5)
def test_two_addresses_of_one_parent_are_one_link(cluster: Cluster, backend: Make) -> None:
    ((edge,),) = cluster.tiers(1)
    host = cluster.node("host", [edge], start=False)
    port = edge.address.rpartition(":")[2]
    host.settings[""]["parents"] = [edge.address, f"localhost:{port}"]
    host.start()

    def states() -> list[str]:
        with host.client() as client:
            return sorted(each.state for each in client.tree().parents)

    until("the second address waits", lambda: "parent-twice" in codes(host) and states() == ["connected", "refused"])
    cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    links = codes(edge).count("child-connected")
    assert links <= 3, f"{links} links for one host"
    with Traffic([edge], "web.example") as traffic:
        traffic.wait_for(300)
    traffic.assert_nothing_lost()
    assert states() == ["connected", "refused"]
    assert codes(edge).count("child-connected") == links
