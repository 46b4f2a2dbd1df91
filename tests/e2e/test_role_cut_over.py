"""An incompatible version over two tiers, side by side: by the rule of the last old instance, and back and forth by flips."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest

from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.roles import SITE
from tests.e2e.traffic import Traffic

OLD, NEW = "1.0.2", "2.5.1"
UNDONE = 5


def _generations(traffic: Traffic) -> list[str]:
    """The versions that answered, in the order of the times at which the programs got the requests. No two overlap."""
    answers = sorted((got.answer for got in traffic.results), key=lambda answer: answer.received_ns)
    groups = [list(group) for _, group in groupby(answers, key=lambda answer: answer.version)]
    for one, other in pairwise(groups):
        assert max(each.finished_ns for each in one) <= other[0].received_ns, (one[-1], other[0])
    return [group[0].version for group in groups]


def _agrees(node: Node, traffic: Traffic, quiet_s: float) -> None:
    """The record with what clients saw: the gap and their longest wait, and the versions that answered at each entry. `quiet_s`: the
    longest wait while nothing happened, which is that of a busy machine."""
    until("all roots have recorded the end", lambda: _kinds(node).count("ended") == 2)
    with node.client() as client:
        records = client.rollout_record("catalog").records
    assert [record.root for record in records] == ["edge-1", "edge-2"]
    gaps: list[float] = []
    for record in records:
        assert record.broken() == (0, "")
        order = [(each["kind"], each.get("what", "")) for each in record.entries]
        last = max(place for place, each in enumerate(order) if each == ("acknowledged", "closed"))
        assert order.index(("closed", "")) < order.index(("opened", "")) and last < order.index(("opened", "")), order
        gaps.append(next(each["gap_ms"] for each in record.entries if each["kind"] == "opened") / 1000)
        assert record.entries[-1]["gap_ms"] / 1000 == gaps[-1]
    longest = max(got.wait_s for got in traffic.results)
    assert abs(max(gaps) - longest) < 0.2 + quiet_s, (gaps, longest, quiet_s)
    assert records[0].entries[0]["by"] and records[0].entries[-1]["least"] == 200


def _kinds(node: Node) -> list[str]:
    with node.client() as client:
        return [each["kind"] for record in client.rollout_record("catalog").records for each in record.entries]


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
def test_versions_that_are_incompatible_never_serve_together_however_often_they_change(cluster: Cluster) -> None:
    """All new instances are healthy and wait before an old one stops. Requests wait in between, and none is lost. By flips,
    each undo is announced and leads to the other version."""
    edges = [cluster.node(f"edge-{n}", entry=True) for n in (1, 2)]
    racks = [cluster.node(f"rack-{n}", edges) for n in (1, 2)]
    hosts = [roles.host(cluster, f"host-{n}", racks) for n in (1, 2)]
    cluster.wait_ready()
    node = hosts[0]
    roles.deploy(hosts, OLD, soak_s=0.2)
    cluster.reachable(edges, f"http://{SITE}/", f"catalog-{OLD}")
    roles.add(node, cluster.folder, NEW)
    with node.client() as client:
        client.set_policy("catalog", {"hold": [NEW], "park": {"timeout_s": 60.0}})
    with Traffic(edges, SITE) as traffic:
        roles.start(node, NEW, soak_s=0.2)
        until("all new ones are healthy and wait", lambda: roles.rollout(node)["nodes"]["ready"] == len(hosts))
        shown = cluster.sdlb("status", node=node).stdout
        assert f"{OLD} still has {len(hosts)} instances on host-1, host-2" in shown
        traffic.wait_for(50)
        assert set(traffic.count()) == {OLD}
        quiet_s = max(got.wait_s for got in traffic.results)
        with node.client() as client:
            client.set_policy("catalog", {"park": {"timeout_s": 60.0}})
        roles.wait(node)
        traffic.wait_for(50)
        _agrees(node, traffic, quiet_s)
        with node.client() as client:
            client.set_policy("catalog", {"cut_over": "flip", "park": {"timeout_s": 60.0}})
        for number in range(UNDONE):
            before, after = (NEW, OLD) if number % 2 == 0 else (OLD, NEW)
            code, lines = roles.command(node, "undo", "catalog", "--wait")
            assert code == 0 and lines[0].startswith(f"catalog {before} -> {after} on 2 nodes, side by side"), lines
        traffic.wait_for(50)
        until("all roots have counted their answers", lambda: _kinds(node).count("answers") == 2, 30.0)
        with node.client() as client:
            counted = {
                record.root: record.entries[-1]["answers"] for record in client.rollout_record("catalog").records
            }
    for edge in edges:
        answered = traffic.count(lambda got, edge=edge: got.entry == edge.name)
        answers = counted[edge.name]
        assert answers.keys() == {OLD, NEW} and all(answers[v] <= answered[v] for v in answers), (answers, answered)
    traffic.assert_nothing_lost()
    assert _generations(traffic) == [OLD, NEW] * 3 + [OLD]
    assert [roles.versions(host) for host in hosts] == [[OLD]] * 2
