"""The analysis of a canary at the owner: which blocks count, and what follows for the rollout, over a whole tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.analysis import FAIL, INCONCLUSIVE, PASS, RUNNING
from sdlb.core.canary_analysis import LATE_BLOCKS, AnalysisState, advanced, canary
from sdlb.core.canary_steps import begun
from sdlb.core.rollout_rules import Owned
from sdlb.model.canary import BLOCK_S, Analysis, Figures, Step, block_of
from sdlb.model.rollout import ROLLING, RoleReport, Rollout, RolloutSpec
from tests.core.test_rollouts import NEW, OLD, RACKS, SPEC, TREES, Story

ANALYSIS = Analysis(requests_min=100, warm_up_s=0.0)
SPEC_OF = RolloutSpec(step=(Step("1", 5.0, 60.0), Step("50%", 25.0, 60.0)), analysis=ANALYSIS)
ROLLOUT = begun(Rollout("r-1", NEW, OLD, ROLLING, baseline=400, cursor=1.0, spec=SPEC_OF), 0)
GOOD = {OLD: Figures(950, 5, hosts=3), NEW: Figures(50, 0, hosts=1)}
BAD = {OLD: Figures(950, 5, hosts=3), NEW: Figures(50, 40, hosts=1)}
START = 1_000_000.0


def play(
    rollout: Rollout, blocks: Mapping[int, Mapping[str, Figures]], seconds: int, known: AnalysisState | None = None
) -> AnalysisState | None:
    """The owner looks every second; a block is reported 2 s after its end, among the last four."""
    for second in range(seconds):
        now = START + second
        seen = {n: each for n, each in blocks.items() if now - 60 <= (n + 1) * BLOCK_S <= now - 2}
        known = advanced(known, rollout, RoleReport(nodes=4, blocks=seen), now)
    return known


def every(figures: Mapping[str, Figures], count: int = 40) -> dict[int, Mapping[str, Figures]]:
    return {block_of(START) + n: figures for n in range(count)}


def result(known: AnalysisState | None, rollout: Rollout, now: float) -> str:
    return canary(known, rollout, now, lost=False).result


def test_each_block_counts_once_and_late_enough() -> None:
    found = play(ROLLOUT, every(GOOD), 120)
    assert found is not None
    assert found.evidence.step_blocks == 12 - LATE_BLOCKS - 1 and not found.evidence.step_missed
    assert found.evidence.step_new_requests == 50 * found.evidence.step_blocks


def test_blocks_that_no_host_reports_are_missing() -> None:
    blocks = {n: each for n, each in every(GOOD).items() if n % 2}
    found = play(replace(ROLLOUT, step_since=START), blocks, 200)
    assert found is not None and abs(found.evidence.step_missed - found.evidence.step_blocks) <= 1
    assert result(found, replace(ROLLOUT, step_since=START), START + 200) == INCONCLUSIVE


def test_a_good_version_passes_when_its_time_is_over_and_not_before() -> None:
    reached = replace(ROLLOUT, step_since=START + 20)
    found = play(reached, every(GOOD), 79)
    assert result(found, reached, START + 79) == RUNNING
    assert result(play(reached, every(GOOD), 81), reached, START + 81) == PASS


def test_too_few_requests_are_no_pass() -> None:
    reached = replace(ROLLOUT, step_since=START)
    few = {OLD: Figures(950, 5), NEW: Figures(1, 0)}
    found = play(reached, every(few), 100)
    assert result(found, reached, START + 100) == INCONCLUSIVE
    assert result(play(reached, {}, 100), reached, START + 100) == INCONCLUSIVE


def test_a_version_that_fails_most_requests_is_found_with_the_first_report() -> None:
    found = play(ROLLOUT, every(BAD), 13)
    assert result(found, ROLLOUT, START + 13) == FAIL
    assert "40 of 50 requests to 1.0.2 failed" in canary(found, ROLLOUT, START + 13, lost=False).why


def test_requests_are_counted_anew_in_each_step_and_the_evidence_stays() -> None:
    worse = {OLD: Figures(950, 5), NEW: Figures(50, 2)}
    first = play(ROLLOUT, every(worse), 60)
    assert first is not None
    second = advanced(first, begun(ROLLOUT, 1), RoleReport(nodes=4), START + 60)
    assert second is not None and second.evidence.step_new_requests == 0 == second.evidence.step_blocks
    assert second.evidence.new_requests == first.evidence.new_requests
    assert advanced(second, begun(ROLLOUT, 2), RoleReport(nodes=4), START + 60) is None


@given(st.lists(st.integers(-200, 200), max_size=20))
def test_a_clock_that_jumps_counts_no_block_twice_in_one_evidence(jumps: list[int]) -> None:
    known, now = None, START
    for jump in jumps:
        now += jump
        before = known
        known = advanced(known, ROLLOUT, RoleReport(nodes=4, blocks={block_of(now) - 2: GOOD}), now)
        assert known is not None and known.block <= block_of(now)
        if before is not None and known.since == before.since:
            assert known.evidence.step_blocks <= before.evidence.step_blocks + 1


def test_what_was_found_is_kept_over_a_restart() -> None:
    owned = Owned("r-1", analysis=play(ROLLOUT, every(BAD), 40))
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(owned)), Owned) == owned


# ---------------------------------------------------------------------- over a tree


class Counted:
    """Feeds the figures of each host, as its node counts them: what its instances answer in a block."""

    def __init__(self, story: Story, errors: Mapping[str, float], rate: int = 400) -> None:
        self.story, self.errors, self.rate, self.block = story, errors, rate, -1
        story.forest.watch.append(self.look)

    def look(self) -> None:
        block = block_of(self.story.forest.now)
        if block == self.block:
            return
        last, self.block = self.block, block
        share = {each["version"]: each["share"] for each in self._versions()}
        for host in self.story.hosts if last >= 0 else ():
            figures: dict[str, Figures] = {}
            for version in self.story.serves(host):
                hosts = sum(1 for each in self.story.hosts if version in self.story.serves(each))
                asked = round(self.rate * BLOCK_S * share.get(version, 0.0) / 100 / hosts)
                figures[version] = Figures(
                    asked, round(asked * self.errors.get(version, 0.0)), head={20: asked}, hosts=1
                )
            if figures:
                self.story.forest[host].inbox.append(ev.FiguresCounted("catalog", last, figures))

    def _versions(self) -> list[dict[str, Any]]:
        found: dict[str, Any] = self.story.forest["edge-1"].balancer.view.service("catalog") or {"versions": []}
        return list(found["versions"])


STEPS = (Step("1", 25.0, 60.0), Step("50%", 50.0, 60.0))


@TREES
def test_a_good_canary_passes_all_steps(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree)
    Counted(story, {OLD: 0.005, NEW: 0.005})
    assert not story.start(NEW, replace(SPEC, step=STEPS, analysis=ANALYSIS))
    story.until("done", 900.0)
    assert story.all_run(NEW)
    texts = [note.text for note in story.forest["edge-1"].notes if note.code == "analysis"]
    assert len(texts) == 2 and all(": pass: errors " in text or ": pass: slower " in text for text in texts), texts


@pytest.mark.parametrize(("errors", "within"), [(1.0, 40.0), (0.05, 150.0)], ids=["always", "some"])
def test_a_bad_canary_is_halted_without_a_share(errors: float, within: float) -> None:
    story = Story(RACKS)
    Counted(story, {OLD: 0.005, NEW: errors})
    assert not story.start(NEW, replace(SPEC, step=STEPS, analysis=ANALYSIS))
    while not story.rollout().get("step", {}).get("since"):
        story.step()
    story.until("halted", within)
    found = story.rollout()
    assert found["step"]["share"] == 0.0 and found["analysis"]["result"] == "fail"
    story.forest.run(3.0)
    service = story.forest["edge-2"].balancer.view.service("catalog") or {}
    assert {each["version"]: each["share"] for each in service["versions"]}[NEW] == 0.0
    assert [note.text for note in story.forest["edge-1"].notes if note.code == "analysis" and ": fail: " in note.text]
    assert not story.order("abort")
    story.until("undone")
    assert story.all_run(OLD)


def test_a_canary_without_requests_pauses_and_can_be_promoted() -> None:
    story = Story()
    Counted(story, {}, rate=1)
    assert not story.start(NEW, replace(SPEC, step=(Step("1", 25.0, 10.0),), analysis=ANALYSIS))
    story.until("paused", 120.0)
    assert "requests to the new version" in story.rollout()["detail"]
    assert not story.order("promote")
    story.until("done", 60.0)


def test_a_restarted_owner_goes_on_with_what_it_found() -> None:
    story = Story()
    Counted(story, {OLD: 0.005, NEW: 0.005})
    assert not story.start(NEW, replace(SPEC, step=STEPS, analysis=ANALYSIS))
    found: dict[str, Any] = {}
    while not found.get("requests"):
        story.step()
        found = story.rollout().get("analysis") or {}
    before = story.rollout()["analysis"]["requests"]
    story.forest["edge-1"].restart()
    story.forest.run(1.0)
    assert story.rollout()["analysis"]["requests"] >= before
    story.until("done", 900.0)
