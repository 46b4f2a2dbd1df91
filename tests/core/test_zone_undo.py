"""What is aborted, undone or promoted keeps the zone order."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.core.agent_steps import Fetch, Place, Record, has_to_go_back
from sdlb.core.zone_order import at_end, limited
from sdlb.model.rollout import ROLLING, UNDOING, RoleReport, Rollout, Zone
from tests.core.programs import Build
from tests.core.test_rollouts import NEW, OLD, SPEC, Story

ZONES = {"host-1": "b", "host-2": "a", "host-3": "b", "host-4": "a"}
FAST = replace(SPEC, nodes_out_max="100%")
ROLLOUT = Rollout("r-1", NEW, OLD, ROLLING, zones=(Zone("a", 2), Zone("b", 2)))


def zoned(**policy: Any) -> Story:
    story = Story(**policy)
    for host, zone in ZONES.items():
        story.forest[host].labels = (("zone", zone),)
        story.forest[host].restart()
    story.forest.run(20.0)
    return story


def order(story: Story, version: str) -> list[str]:
    """Zones in which this version is stopped from now on, in their order."""
    begun: list[str] = []
    calls = {host: len(story.forest[host].programs.calls) for host in story.hosts}

    def look() -> None:
        for host in story.hosts:
            done = story.forest[host].programs.calls[calls[host] :]
            begun.extend(ZONES[host] for call in done if call.startswith("stop") and call.endswith(version))
            calls[host] += len(done)

    story.forest.watch.append(look)
    return begun


@pytest.mark.promise(9)
@pytest.mark.parametrize("verb", ["abort", "undo"])
def test_an_aborted_rollout_goes_back_zone_by_zone(verb: str) -> None:
    story = zoned()
    story.start(NEW, FAST)
    while story.rollout()["nodes"].get("done", 0) < 3:
        story.step()
    begun = order(story, NEW)
    assert story.order(verb) == ""
    story.until("undone")
    assert story.all_run(OLD) and begun == ["a", "a", *"b" * (len(begun) - 2)] and len(begun) >= 3


@pytest.mark.promise(9)
def test_the_undo_of_a_finished_rollout_goes_zone_by_zone() -> None:
    story = zoned(max_unavailable="50%")
    story.start(NEW, FAST)
    story.until("done")
    begun = order(story, NEW)
    assert story.order("undo") == ""
    story.until("preparing")
    story.until("done")
    assert story.all_run(OLD) and begun == ["a", "a", "b", "b"]


@pytest.mark.promise(9)
def test_a_promoted_rollout_goes_zone_by_zone() -> None:
    story = zoned(max_unavailable="100%")
    begun = order(story, OLD)
    story.start(NEW, FAST)
    story.out()
    assert story.order("promote") == ""
    target = story.forest["edge-1"].balancer._state.targets.get("catalog")
    assert target is not None and target.rollout is not None and target.rollout.cursor <= 0.5
    story.until("done")
    assert begun == ["a", "a", "b", "b"]


def test_while_it_is_undone_a_node_is_left_that_has_something_of_the_new_version() -> None:
    report = RoleReport(4, left={"b": 2}, back={"a": 2})
    assert limited(ROLLOUT, report, 1.0) == 1.0 and limited(replace(ROLLOUT, state=UNDOING), report, 1.0) == 0.5


RUN: Callable[[str], Place] = lambda version: Place("run", version)  # noqa: E731


@pytest.mark.parametrize(
    ("record", "back"),
    [
        (Record(rollout="r-1").with_place("a", RUN(NEW)), True),
        (Record(rollout="r-1").with_place("a", RUN(OLD)), False),
        (Record(rollout="r-1", new="b", to=OLD).with_place("b", RUN(OLD)), True),
        (Record(rollout="r-0").with_place("a", RUN(NEW)), False),
        (Record(rollout="r-1"), False),
    ],
    ids=["new", "old", "on its way back", "not yet in the rollout", "empty"],
)
def test_a_node_goes_back_if_it_has_something_of_the_new_version(record: Record, back: bool) -> None:
    assert has_to_go_back(record, ROLLOUT, Fetch()) is back
    assert not has_to_go_back(record, ROLLOUT, Fetch(OLD, "gone")), "it cannot, and others do not wait for it"


def test_a_node_that_cannot_fetch_the_former_version_does_not_keep_other_zones_waiting() -> None:
    story = zoned()
    story.start(NEW, FAST)
    while story.rollout()["nodes"].get("done", 0) < 3:
        story.step()
    story.builds(OLD, Build(prepares="artifact"), "host-2")
    story.order("abort")
    story.forest.run(60.0)
    assert story.rollout()["state"] == "undoing"
    assert all(story.serves(host) == {OLD} for host in ("host-1", "host-3", "host-4"))
    story.builds(OLD, Build(), "host-2")
    story.until("undone")


@pytest.mark.promise(5)
def test_a_zone_with_fewer_nodes_than_are_updated_first_does_not_stop_the_rollout() -> None:
    story = zoned(max_unavailable="50%")
    story.start(NEW, replace(FAST, first=3))
    story.until("done")
    assert story.all_run(NEW)


@pytest.mark.parametrize(
    ("cursor", "left", "ends"), [(0.5, {}, True), (0.4, {}, False), (0.5, {"a": 1}, False), (1.0, {"b": 1}, False)]
)
def test_the_end_of_a_zone_is_where_none_of_it_is_left(cursor: float, left: dict[str, int], ends: bool) -> None:
    assert at_end(replace(ROLLOUT, cursor=cursor), RoleReport(4, left=left)) is ends
