"""Canaries on real nodes, with real programs, under traffic."""

from __future__ import annotations

import pytest

from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.load import Faults, Load, versions, went_back
from tests.e2e.roles import SITE

OLD, NEW = "1.0.1", "1.0.2"
REQUESTS = 10_000


def _cluster(cluster: Cluster, hosts: int, program: str = "") -> tuple[list[Node], list[Node]]:
    edges = [cluster.node(f"edge-{n}", entry=True) for n in (1, 2)]
    below = [roles.host(cluster, f"host-{n}", edges) for n in range(1, hosts + 1)]
    cluster.wait_ready()
    roles.deploy(below, OLD, program, soak_s=0.2)
    cluster.reachable(edges, f"http://{SITE}/", f"catalog-{OLD}")
    return edges, below


def _exact(edges: list[Node], share: float) -> None:
    """Each entry gives the new version this share of 10,000 requests, to 0.5 points."""
    for edge in edges:
        until(f"{edge.name} has the share", lambda edge=edge: _explained(edge) == share)
        found = versions(edge, SITE, REQUESTS)
        assert set(found) == {OLD, NEW} and abs(100 * found[NEW] / REQUESTS - share) <= 0.5, found


def _explained(edge: Node) -> float:
    with edge.client() as client:
        return next((each.share for each in client.explain(f"http://{SITE}/").versions if each.version == NEW), 0.0)


def _step(node: Node) -> list[object]:
    """What of the rollout a policy may not change in the middle of a step."""
    found = roles.rollout(node)
    return [found["id"], found["state"], *(found["step"][key] for key in ("number", "since", "share"))]


def _reached(node: Node, step: int) -> bool:
    found = roles.rollout(node)["step"]
    return found["number"] == step and found["since"] > 0


@pytest.mark.promise(3)
def test_shares_are_exact_at_every_entry_and_grow_without_taking_clients_back(cluster: Cluster) -> None:
    """Steps of 5 % and 25 % are exact to 0.5 points over 10,000 requests at each entry. A client that got the new version never gets the
    old one again. The policy is as before the rollout, and applying it again in the middle changes nothing."""
    edges, hosts = _cluster(cluster, 4, Faults().program)
    file = cluster.folder / "policy.toml"
    file.write_text('[policy.catalog]\nsticky = {by = "cookie", name = "session"}\n')
    assert cluster.sdlb("policy", "apply", str(file), node=hosts[0]).returncode == 0
    policy = roles.policy(hosts[0])
    roles.add(hosts[0], cluster.folder, NEW, Faults().program)
    steps = [{"nodes": 1, "share": 5, "for": "10s"}, {"nodes": "25%", "share": 25, "for": "1h"}]
    clients = [[f"{group}-{number}" for number in range(50)] for group in range(4)]
    with Load(edges, SITE, clients, rate=50.0) as load:
        roles.start(hosts[0], NEW, soak_s=0.5, step=steps)
        until("step 1 is reached", lambda: _reached(hosts[0], 1))
        assert roles.command(hosts[0], "pause", "catalog")[0] == 0  # until its share is measured
        _exact(edges, 5.0)
        before = _step(hosts[0])
        again = cluster.sdlb("policy", "apply", str(file), node=hosts[0])
        assert (again.returncode, again.stdout) == (0, "no difference\n"), again
        assert _step(hosts[0]) == before and [_explained(edge) for edge in edges] == [5.0, 5.0]
        assert roles.command(hosts[0], "resume", "catalog")[0] == 0
        until("step 2 is reached", lambda: _reached(hosts[0], 2))
        _exact(edges, 25.0)
        assert roles.command(hosts[0], "promote", "catalog")[0] == 0
        roles.wait(hosts[0])
        until("all clients have it", lambda: {each.version for each in load.replies[-200:]} == {NEW})
    assert {each.status for each in load.replies} == {200}
    assert went_back(load.replies, NEW) == []
    assert roles.policy(hosts[0]) == policy
