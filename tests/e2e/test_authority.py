"""Promises 5 and 8 on real processes: kill -9 at any moment brings back neither an older generation nor two at once."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, until
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


def flipped(content: bytes) -> bytes:
    """A bit here and there, behind the file's first page header."""
    return bytes(byte ^ 0x5A if place > 100 and place % 37 == 0 else byte for place, byte in enumerate(content))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flipped,
    "torn": lambda content: content[: len(content) // 2],
    "text": lambda content: b"not a store\n" * 99,
    "newer": lambda content: content[:60] + b"\x00\x00\xff\xff" + content[64:],  # SQLite's user_version
}


@pytest.mark.promise(8)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_file_is_set_aside(cluster: Cluster, backend: Make, damage: Callable[[bytes], bytes]) -> None:
    (edge,), (host,) = cluster.tiers(1, 1)
    cluster.register(host, "web-1.0.0", "web.example", backend("web", "1.0.0"))
    cluster.reachable([edge], "http://web.example/", "web-1.0.0")
    with Traffic([edge], "web.example") as traffic:
        edge.kill_control()
        store = edge.folder / "state" / "state.db"
        with contextlib.closing(sqlite3.connect(store)) as whole:  # what is damaged is all that there is
            whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        bad = damage(store.read_bytes())
        store.write_bytes(bad)
        edge.start()
        edge.wait_ready()
        cluster.reachable([edge], "http://web.example/", "web-1.0.0")
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    aside = [file for file in store.parent.iterdir() if ".bad-" in file.name]
    assert any(file.read_bytes() == bad for file in aside), f"not kept aside: {aside}"
    assert any("state" in event["text"] for event in events(edge) if event["level"] != "info"), "not reported"
    new = cluster.register(host, "web-2.0.0", "web.example", backend("web", "2.0.0"), wait="waiting")
    until("learnt back from the children what runs", lambda: "1.0.0" in new.get().reason)


def events(node: Node) -> list[dict[str, str]]:
    """The node's recent events."""
    with node.client() as client:
        return [{"level": event.level, "code": event.code, "text": event.text} for event in client.events(follow=False)]


@pytest.mark.promise(5)
def test_after_faults_the_tree_matches_its_instances_and_policy(cluster: Cluster, backend: Make) -> None:
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
            asked = {node.name} if node in edges else {"edge-1", "edge-2"}
            if told.disagree or set(told.roots) != asked or policy.policy["priority"] != "higher":
                return False
            if "1.0.1" not in versions or versions["1.0.1"].state != "active":
                return False
            if versions["1.0.1"].hosts != ("host-1", "host-2") or versions["1.0.0"].hosts != ("host-1", "host-2"):
                return False
        return True

    until("all nodes tell the same", settled)
    cluster.reachable(edges, "http://web.example/", "web-1.0.1")
    with Traffic(edges, "web.example") as traffic:
        traffic.wait_for(60)
    traffic.assert_nothing_lost()
    assert set(traffic.count()) == {"1.0.1"}
