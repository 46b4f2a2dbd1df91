"""The order of a rollout: zone by zone, spread within a zone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core.zone_order import current_zone, limited, zones_of
from sdlb.model.rollout import RoleReport, Rollout, Zone, position
from tests.core.test_agents_owner import HOSTS, NEW, OLD, SPEC, Tree

NODES = st.dictionaries(st.integers(0, 999).map("node-{}".format), st.sampled_from(["", "a", "b", "c"]), min_size=1)


def report(nodes: dict[str, str], left: set[str]) -> RoleReport:
    of = Counter(nodes.values())
    return RoleReport(len(nodes), zones=of, left=Counter(nodes[node] for node in left))


@given(st.text(max_size=9), NODES)
def test_the_places_of_a_zone_come_before_those_of_the_next(rollout: str, nodes: dict[str, str]) -> None:
    zones = zones_of(report(nodes, set()))
    order = sorted(nodes, key=lambda node: position(rollout, node, zones, nodes[node]))
    assert [nodes[node] for node in order] == sorted(nodes.values())
    assert all(0 <= position(rollout, node, zones, nodes[node]) < 1 for node in nodes)


@given(st.text(max_size=9), NODES, st.sampled_from(["d", "zz", ""]))
def test_a_node_of_a_zone_that_came_later_has_a_place_too(rollout: str, nodes: dict[str, str], zone: str) -> None:
    zones = zones_of(report(nodes, set()))
    assert 0 <= position(rollout, "new", zones, zone) < 1


@given(NODES, st.floats(0.01, 1), st.data())
def test_no_node_may_ask_while_one_of_an_earlier_zone_is_left(
    nodes: dict[str, str], chunk: float, data: st.DataObject
) -> None:
    """Nodes that ask are updated, fail or vanish in any order; the rollout comes to its end."""
    left = set(nodes)
    rollout = Rollout("r-1", "2", zones=zones_of(report(nodes, left)))
    for _ in range(200 * len(nodes)):
        cursor = limited(rollout, report(nodes, left), min(1.0, rollout.cursor + chunk))
        rollout = replace(rollout, cursor=max(rollout.cursor, cursor))
        may = {node for node in nodes if position("r-1", node, rollout.zones, nodes[node]) < rollout.cursor}
        asking = sorted(may & left)
        if rollout.zones and asking:
            assert {nodes[node] for node in asking} == {current_zone(rollout, report(nodes, left))}
        if asking:
            left.discard(data.draw(st.sampled_from(asking)))
        if not left:
            return
    raise AssertionError(f"{left} never had their turn")


def test_without_zones_or_with_one_the_order_is_spread_over_all_nodes() -> None:
    assert zones_of(RoleReport(2, zones={"a": 2})) == () == zones_of(RoleReport(2))
    assert zones_of(RoleReport(3, zones={"b": 1, "a": 2})) == (Zone("a", 2), Zone("b", 1))


@pytest.mark.promise(7, 9)
def test_a_rollout_goes_zone_by_zone_and_says_where_it_is() -> None:
    """host-1 is alone in zone c; the other two are in zone a."""
    tree = Tree()
    for host, zone in zip(tree.hosts, "caa", strict=True):
        host.labels = (("zone", zone),)
        host.restart()
    tree.run(20.0)
    first: list[str] = []

    def look() -> None:
        for name, host in zip(HOSTS, tree.hosts, strict=True):
            if f"stop a {OLD}" in host.programs.calls and name not in first:
                first.append(name)

    tree.forest.watch.append(look)
    tree.start(NEW, replace(SPEC, soak_s=4.0))
    tree.until("rolling")
    assert tree.rollout()["zones"] == [{"zone": "a", "nodes": 2, "left": 2}, {"zone": "c", "nodes": 1, "left": 1}]
    assert tree.rollout()["next"].startswith("another node in zone a")
    tree.until("done")
    assert sorted(first[:2]) == ["host-2", "host-3"] and first[2] == "host-1"
