"""Figures of instances, counted in blocks for the analysis of a rollout: what a host counts, keeps and reports, and their sums."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.block_sums import BLOCKS_MAX, BUCKETS_MAX, NUMBER_MAX, VERSIONS_MAX
from sdlb.core.figures import Analysed
from sdlb.core.messages import TARGET
from sdlb.core.reports import BODY_BYTES_MAX, Reports
from sdlb.model.canary import BLOCKS_KEPT, Analysis, Blocks, Figures
from sdlb.model.rollout import PAUSED, RoleReport, Rollout, SlotReport, Target, report_body, target_body
from tests.core.agent_story import NEW, OLD, SPEC, Story
from tests.core.forest import Forest

SERVICE = "catalog"
WATCHED = replace(SPEC, analysis=Analysis(warm_up_s=60.0))


def canary() -> Story:
    story = Story()
    story.run(100.0)
    story.rollout(NEW, PAUSED, spec=WATCHED, cursor=0.0)
    story.run(1.0)
    return story


def count(story: Story, block: int, **figures: Figures) -> None:
    """`figures`: of the version, with `_` for its dots."""
    by_version = {version.removeprefix("v").replace("_", "."): each for version, each in figures.items()}
    story.host.inbox.append(ev.FiguresCounted(SERVICE, block, by_version))
    story.run(3.0)


def at_owner(story: Story) -> Blocks:
    return story.forest["edge"].balancer._state.reports.total(SERVICE).blocks


# ---------------------------------------------------------------------- what a host counts


def test_nothing_is_counted_without_an_analysis() -> None:
    story = Story()
    assert story.host.balancer.view.analysed() == []
    story.rollout(NEW, PAUSED, cursor=0.0)
    story.run(1.0)
    assert story.host.balancer.view.analysed() == []
    count(story, 7, v1_0_1=Figures(5, hosts=1))
    assert at_owner(story) == {}


def test_the_versions_of_the_rollout_on_this_host_are_counted() -> None:
    story = canary()
    view = story.host.balancer.view
    assert view.analysed() == [Analysed(SERVICE, (OLD,), frozenset())]
    assert story.forest["edge"].balancer.view.analysed() == [], "it has no instances"
    story.host.restart()
    story.run(10.0)
    assert view is not story.host.balancer.view
    (analysed,) = story.host.balancer.view.analysed()
    assert analysed.versions == (OLD,), "also after a restart of control"
    story.end()
    story.run(1.0)
    assert story.host.balancer.view.analysed() == []


def test_a_version_is_early_until_its_instances_have_warmed_up() -> None:
    story = Story()
    story.run(100.0)
    story.rollout(NEW, spec=WATCHED)
    story.until("done")
    view = story.host.balancer.view
    assert view.analysed() == [Analysed(SERVICE, (NEW,), frozenset({NEW}))]
    instance = next(iter(story.host.balancer._local.by_id.values()))
    story.run(50.0)
    assert view.analysed()[0].early == {NEW}
    story.host.inbox.append(ev.InstanceHealth(instance.spec.id, False, "503"))
    story.run(1.0)
    story.host.inbox.append(ev.InstanceHealth(instance.spec.id, True))
    story.run(55.0)
    assert view.analysed()[0].early == {NEW}, "it began again"
    story.run(10.0)
    assert view.analysed()[0].early == frozenset()


def test_an_instance_that_drains_is_not_early() -> None:
    story = canary()
    instance = next(iter(story.host.balancer._local.by_id.values()))
    view = story.host.balancer.view
    story.host.balancer._local.on_drain(ev.InstanceDrain(instance.spec.id, 60.0), story.forest.now)
    story.host.inbox.append(ev.Tick())
    story.run(1.0)
    assert [each.early for each in view.analysed()] == [frozenset()]


def test_an_instance_that_waits_for_its_version_is_early() -> None:
    story = canary()
    instance = next(iter(story.host.balancer._local.by_id.values()))
    assert instance.serves_since < story.forest.now - 60.0
    waiting = replace(instance.spec, id="waits", version="2.5.1", endpoint="127.0.0.1:9001")
    story.host.inbox.append(ev.InstancePut(waiting, True, "me"))
    story.run(80.0)
    assert not story.host.balancer._local.by_id["waits"].serves_since < story.forest.now


# ---------------------------------------------------------------------- what it keeps and reports


def test_the_owner_gets_the_last_blocks_and_none_after_the_rollout() -> None:
    story = canary()
    for block in range(100, 106):
        count(story, block, v1_0_1=Figures(block, 1, hosts=1))
    kept = {block: {OLD: Figures(block, 1, hosts=1)} for block in range(106 - BLOCKS_KEPT, 106)}
    assert at_owner(story) == kept
    story.end()
    story.run(3.0)
    assert at_owner(story) == {} and story.host.balancer._reports.total(SERVICE).blocks == {}


def test_versions_that_are_not_of_the_rollout_are_not_reported() -> None:
    story = canary()
    count(story, 100, v1_0_1=Figures(1, hosts=1), v0_9=Figures(2, hosts=1))
    assert at_owner(story) == {100: {OLD: Figures(1, hosts=1)}}
    count(story, 101, v0_9=Figures(2, hosts=1))
    assert set(at_owner(story)) == {100}


def test_blocks_from_before_the_clock_was_set_back_are_dropped() -> None:
    story = canary()
    count(story, 500, v1_0_1=Figures(5, hosts=1))
    count(story, 100, v1_0_1=Figures(1, hosts=1))
    assert set(at_owner(story)) == {100}
    count(story, 100, v1_0_1=Figures(2, hosts=1))
    assert at_owner(story) == {100: {OLD: Figures(2, hosts=1)}}, "a block is not counted twice"


def test_a_host_without_a_role_counts_too() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    host = forest["host"]
    forest.put("host", "a", OLD, ttl_s=0.0)
    forest.run(100.0)
    rollout = Rollout("r-1", NEW, OLD, PAUSED, "edge", "id-edge", spec=WATCHED, baseline=1)
    edge = forest["edge"]
    edge.balancer._state.policies.put_doc(TARGET, SERVICE, target_body(Target(SERVICE, OLD, rollout)))
    edge.inbox.append(ev.Tick())
    forest.run(3.0)
    assert host.balancer.view.analysed() == [Analysed(SERVICE, (OLD,), frozenset())]
    host.inbox.append(ev.FiguresCounted(SERVICE, 100, {OLD: Figures(7, 1, hosts=1)}))
    forest.run(3.0)
    assert edge.balancer._state.reports.total(SERVICE).blocks == {100: {OLD: Figures(7, 1, hosts=1)}}


# ---------------------------------------------------------------------- sums


def put(reports: Reports, child: str, blocks: Blocks) -> None:
    reports.put_child(child, SERVICE, report_body(RoleReport(1, blocks=blocks)))


def test_blocks_with_the_same_number_are_added_up() -> None:
    reports = Reports()
    put(reports, "a", {7: {OLD: Figures(10, 1, 2, {3: 9}, 4, 1, 1)}, 8: {OLD: Figures(20, hosts=1)}})
    put(reports, "b", {7: {OLD: Figures(5, 0, 1, {3: 1, 4: 4}, hosts=1), NEW: Figures(1, 1, hosts=1)}})
    both = {
        7: {OLD: Figures(15, 1, 3, {3: 10, 4: 4}, 4, 1, 2), NEW: Figures(1, 1, hosts=1)},
        8: {OLD: Figures(20, hosts=1)},
    }
    assert reports.total(SERVICE).blocks == both
    reports.drop_child("a")
    assert reports.total(SERVICE).blocks == {
        7: {OLD: Figures(5, 0, 1, {3: 1, 4: 4}, hosts=1), NEW: Figures(1, 1, hosts=1)}
    }


def test_what_a_child_may_report_is_bounded() -> None:
    versions = {f"1.0.{n}": Figures(1, head=dict.fromkeys(range(3), 1)) for n in range(VERSIONS_MAX + 3)}
    reports = Reports()
    put(reports, "liar", dict.fromkeys(range(BLOCKS_MAX + 5), versions))
    kept = reports._reports["liar"][SERVICE].blocks
    assert sorted(kept) == list(range(5, BLOCKS_MAX + 5)), "the newest"
    assert {len(each) for each in kept.values()} == {VERSIONS_MAX}
    put(reports, "liar", {7: {OLD: Figures(1, head=dict.fromkeys(range(-9, 2 * BUCKETS_MAX), 1))}})
    assert sorted(reports.total(SERVICE).blocks[7][OLD].head) == list(range(BUCKETS_MAX))
    put(reports, "liar", {7: {}})
    assert reports.total(SERVICE).blocks == {}
    reports.drop_child("liar")
    assert not reports._sums


@pytest.mark.parametrize("wrong", ["blocks", "versions"])
def test_what_only_one_child_reports_does_not_displace_the_others(wrong: str) -> None:
    reports = Reports()
    lies = {
        "blocks": {NUMBER_MAX - n: {OLD: Figures(1)} for n in range(BLOCKS_MAX)},
        "versions": {7: {f"0.{n}": Figures(1) for n in range(VERSIONS_MAX)}},
    }
    put(reports, "liar", lies[wrong])
    for child in ("a", "b"):
        put(reports, child, {7: {OLD: Figures(5, hosts=1)}})
    blocks = reports.total(SERVICE).blocks
    assert blocks[7][OLD] == Figures(10, hosts=2)
    assert len(blocks) <= BLOCKS_MAX and len(blocks[7]) <= VERSIONS_MAX


def test_a_sum_of_large_figures_can_be_sent_on() -> None:
    """Texts are left out first, then blocks that few have, then old ones, and slots last."""
    reports = Reports()
    figures = Figures(*[NUMBER_MAX] * 3, dict.fromkeys(range(BUCKETS_MAX), NUMBER_MAX), *[NUMBER_MAX] * 3)
    versions = {f"1.0.{n}": figures for n in range(5)}
    for child, numbers in enumerate([range(100, 102), range(100, 102), range(102, 105), range(900, 903)]):
        put(reports, f"c{child}", dict.fromkeys(numbers, versions))
    slots = (SlotReport("h", "r-1", "draining", detail="x" * 500),)
    reports.put_own(SERVICE, RoleReport(1, slots=slots, failed={"h": "y" * 2000}))
    assert len(report_body(reports.total(SERVICE))) > BODY_BYTES_MAX
    above = Reports()
    above.put_child("rack", SERVICE, reports.body(SERVICE))
    total = above.total(SERVICE)
    assert total.slots and not total.failed and total.blocks[101]["1.0.1"].asked == NUMBER_MAX
    assert sorted(total.blocks) == [100, 101, 901, 902], "those that more children have"
