"""Promises 5 and 8 on real processes: kill -9 at any moment brings back neither an older generation nor two at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]


@pytest.mark.promise(8)
def test_roots_killed_at_any_moment_keep_the_generation(cluster: Cluster, backend: Make) -> None:
    """A cut-over from 1 to 2 to 3 while both roots' controls are killed at random moments."""
    tiers = cluster.tiers(2, 1, 1)
    edges, (host,) = tiers[0], tiers[2]
    rng = random.Random(20261123)
    running = cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable(edges, "http://web.example/", "web-1.0.0")
    versions = ["1.0.0", "2.0.0", "3.0.0", "4.0.0"]
    with Traffic(edges, "web.example") as traffic:
        for version in versions[1:]:
            fresh = cluster.register(host, f"web-{version}", "web.example", backend("web", version), wait="waiting")
            with host.client() as client:
                client.drain(running.spec.id, 0.0)  # begins; the roots are killed in the middle of it
            time.sleep(rng.uniform(0, 0.15))
            for edge in edges:
                edge.kill_control()
                time.sleep(rng.uniform(0, 0.1))
            for edge in edges:
                edge.start()
            cluster.wait_ready(edges)
            running.deregister()
            fresh.wait("active")
            cluster.reachable(edges, "http://web.example/", f"web-{version}")
            running = fresh
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap(*versions)


@pytest.mark.promise(8)
def test_an_older_root_does_not_bring_the_older_generation_back(cluster: Cluster, backend: Make) -> None:
    """edge-2 sleeps through a cut-over and comes back with what it remembers."""
    tiers = cluster.tiers(2, 1)
    edges, (host,) = tiers[0], tiers[1]
    old = cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable(edges, "http://web.example/", "web-1.0.0")
    edges[1].kill()
    new = cluster.register(host, "web-2.0.0", "web.example", backend("web", "2.0.0"), wait="waiting")
    old.deregister()
    new.wait("active")
    again = cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"), wait="waiting")
    edges[1].start()
    cluster.wait_ready()
    cluster.reachable(edges, "http://web.example/", "web-2.0.0")
    with Traffic(edges, "web.example") as traffic:
        traffic.wait_for(60)
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"2.0.0"}
    assert again.get().state == "waiting"


@pytest.mark.promise(8)
@pytest.mark.parametrize("damage", ["flipped", "torn", "empty", "text"])
def test_a_damaged_state_file_is_set_aside(cluster: Cluster, backend: Make, damage: str) -> None:
    (edge,), (host,) = cluster.tiers(1, 1)
    cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    with Traffic([edge], "web.example") as traffic:
        edge.kill_control()
        state = edge.folder / "state"
        stores = [file for file in state.iterdir() if file.is_file() and file.stat().st_size > 1024]
        assert stores, f"no store among {sorted(file.name for file in state.iterdir())}"
        for file in stores:
            content = bytearray(file.read_bytes())
            if damage == "flipped":
                for place in range(100, len(content), 37):
                    content[place] ^= 0x5A
            file.write_bytes(
                {"torn": bytes(content[: len(content) // 2]), "empty": b"", "text": b"not a store\n" * 99}.get(
                    damage, bytes(content)
                )
            )
        edge.start()
        edge.wait_ready()
        cluster.reachable([edge], "http://web.example/", "web-1.0.0")
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    if damage != "empty":  # an empty file is a store that has nothing yet
        names = sorted(file.name for file in state.iterdir())
        assert any("bad" in name or "corrupt" in name or "damaged" in name for name in names), (
            f"not kept aside: {names}"
        )
    new = cluster.register(host, "web-2.0.0", "web.example", backend("web", "2.0.0"), wait="waiting")
    assert "1.0.0" in new.get().reason, "learnt back from the children what runs"


@pytest.mark.promise(5)
def test_after_faults_the_tree_is_what_its_instances_and_policy_say(cluster: Cluster, backend: Make) -> None:
    edges, racks, hosts = cluster.tiers(2, 2, 2)
    rng = random.Random(5)
    for host in hosts:
        cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable(edges, "http://web.example/", "web-1.0.0")
    with edges[0].client() as client:
        client.set_policy("web", {"priority": "higher"})
    for _ in range(4):
        victim = rng.choice([*edges, *racks, *hosts])
        (victim.kill_control if rng.random() < 0.6 else victim.kill)()
        time.sleep(rng.uniform(0, 0.4))
        victim.start()
    cluster.wait_ready()
    extra = [cluster.register(host, "web-1.0.1", "web.example", backend("web", "1.0.1"), wait="") for host in hosts]
    for registration in extra:
        registration.wait("active")

    def settled() -> bool:
        for node in cluster.nodes.values():
            with node.client() as client:
                told = client.service("web")
                policy = client.policy("web")
            versions = {version.version: version for version in told.services[0].versions if version.instances}
            if told.disagree or set(told.roots) != {"edge-1", "edge-2"} or policy.policy["priority"] != "higher":
                return False
            if "1.0.1" not in versions or versions["1.0.1"].instances != 2 or versions["1.0.1"].state != "active":
                return False
        return True

    until("all nodes tell the same", settled)
    cluster.reachable(edges, "http://web.example/", "web-1.0.1")
    with Traffic(edges, "web.example") as traffic:
        traffic.wait_for(60)
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.0.1"}
