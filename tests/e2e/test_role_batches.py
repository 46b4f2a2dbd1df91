"""Rollouts where a node has no room for two versions: an incompatible one goes in batches, a sole instance needs consent."""

from __future__ import annotations

import pytest

from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node
from tests.e2e.roles import SITE
from tests.e2e.traffic import Traffic

TERMS = ("--soak", "0.5", "--drain", "5")


def _cluster(cluster: Cluster, hosts: int, version: str) -> tuple[list[Node], list[Node]]:
    edges = [cluster.node(f"edge-{n}", entry=True) for n in (1, 2)]
    below = [roles.host(cluster, f"host-{n}", edges, side_by_side=False) for n in range(1, hosts + 1)]
    cluster.wait_ready()
    roles.deploy(below, version, soak_s=0.2)
    cluster.reachable(edges, f"http://{SITE}/", f"catalog-{version}")
    return edges, below


@pytest.mark.promise(1)
@pytest.mark.promise(3)
@pytest.mark.promise(9)
def test_without_room_for_two_versions_an_incompatible_one_goes_in_batches(cluster: Cluster) -> None:
    """Plan and start print the lowest capacity and the gap. With consent, no more than the floor allows is out until the cut-over."""
    edges, hosts = _cluster(cluster, 4, "1.0.2")
    roles.add(hosts[0], cluster.folder, "2.5.1")
    with Traffic(edges, SITE) as traffic:
        for verb in ("plan", "start"):
            refused = cluster.sdlb("rollout", verb, "catalog", "2.5.1", *TERMS, node=hosts[0])
            assert refused.returncode == 1
            said = refused.stdout + refused.stderr
            assert "fall to 0 of 400 (floor 300) for about 1 s, at most 6 s; accept that with --accept-gap" in said
        assert roles.rollout(hosts[0])["to"] == "1.0.2"
        words = ("rollout", "start", "catalog", "2.5.1", *TERMS, "--accept-gap", "--wait")
        waited = cluster.sdlb(*words, node=hosts[0], timeout_s=90.0)
        assert waited.returncode == 0, waited.stderr
        assert "the lowest capacity is 0 of 400, the floor 300; no version serves for about" in waited.stdout
        traffic.wait_for(50)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.2", "2.5.1")
    [cut] = [at for at, text in roles.events(edges[0], "rollout-state") if "cutting-over" in text]
    drained = [at for host in hosts for at, text in roles.events(host, "instance-draining") if "1.0.2" in text]
    assert len(drained) == 4 and sum(at < cut for at in drained) == 1
    assert [roles.versions(host) for host in hosts] == [["2.5.1"]] * 4


@pytest.mark.promise(3)
def test_a_sole_instance_is_replaced_only_with_consent_and_requests_wait(cluster: Cluster) -> None:
    """Without consent the order is refused with the expected gap. The root to which no node reports names the other one."""
    edges, [host] = _cluster(cluster, 1, "1.0.1")
    roles.add(host, cluster.folder, "1.0.2")
    elsewhere = cluster.sdlb("rollout", "start", "catalog", "1.0.2", *TERMS, node=edges[1])
    assert elsewhere.returncode == 1
    assert "they report to edge-1; run the command on edge-1 or on a node below both" in elsewhere.stderr
    with Traffic(edges, SITE) as traffic:
        refused = cluster.sdlb("rollout", "start", "catalog", "1.0.2", *TERMS, node=edges[0])
        assert refused.returncode == 1
        assert (
            "fall to 0 of 100 (floor 75) for about 5 s, at most 10 s; accept that with --accept-gap" in refused.stderr
        )
        assert roles.rollout(host)["to"] == "1.0.1"
        words = ("rollout", "start", "catalog", "1.0.2", *TERMS, "--accept-gap", "--wait")
        waited = cluster.sdlb(*words, node=edges[0], timeout_s=60.0)
        assert waited.returncode == 0, waited.stderr
        traffic.wait_for(50)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.1", "1.0.2")  # of a single instance, although they are compatible
    assert set(traffic.count()) == {"1.0.1", "1.0.2"}
    assert roles.versions(host) == ["1.0.2"]
