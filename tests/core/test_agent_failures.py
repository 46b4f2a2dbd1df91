"""What an agent does when an artifact, a program or the driver fails."""

from __future__ import annotations

from dataclasses import replace

from sdlb.model.rollout import (
    FAIL,
    TAKE,
)
from tests.core.agent_story import ALONE, NEW, OLD, SPEC, Story
from tests.core.programs import Build

# ---------------------------------------------------------------------- failures


def failing(build: Build, to: str = NEW, **spec: object) -> Story:
    story = Story()
    story.host.programs.builds[to] = build
    story.rollout(to, spec=replace(SPEC, **spec))  # type: ignore[arg-type]
    return story


def reverted(story: Story, why: str) -> None:
    story.until("failed")
    assert story.runs() == {"a": OLD} and story.serves() == {OLD}
    assert story.whats()[-2:] == [TAKE, FAIL] and story.slots == set() and why in story.asks[-1].detail
    codes = [code for code in story.host.codes() if code in ("node-failed", "node-reverted", "node-updated")]
    assert codes[-2:] == ["node-failed", "node-reverted"]
    assert why in story.report().failed["host"] and story.report().counts == {"r-1 failed": 1}
    asked = len(story.asks)
    story.run(30.0)
    assert story.phase() == "failed" and len(story.asks) == asked, "it is not tried again"


def test_a_version_that_cannot_be_fetched_fails_before_anything_stops() -> None:
    story = failing(Build(prepares="artifact"))
    story.until("failed")
    assert (
        story.asks == []
        and story.runs() == {"a": OLD}
        and story.report().failed == {"host": f"{NEW} cannot be fetched"}
    )


def test_fetching_is_retried_while_that_may_help() -> None:
    story = failing(Build(prepares="machine", retry=True))
    story.run(20.0)
    assert story.phase() == "fetching" and 3 < story.host.programs.calls.count(f"prepare b {NEW}") < 8
    story.host.programs.builds.clear()
    story.until("done")


def test_a_node_goes_back_when_the_new_version_does_not_start() -> None:
    story = failing(Build(starts="program"))
    reverted(story, f"{NEW} does not start")
    assert story.asks[-1].detail.splitlines()[1:] == [f"line {n}" for n in range(10, 30)]


def test_a_start_is_retried_while_that_may_help_and_not_longer() -> None:
    story = failing(Build(starts="machine", retry=True), progress_s=20.0)
    reverted(story, f"{NEW} does not start")
    assert 3 < story.host.programs.calls.count(f"start a {NEW}") < 8


def test_a_node_goes_back_when_the_new_version_does_not_become_healthy() -> None:
    story = failing(Build(healthy=False), progress_s=20.0)
    story.until("verifying")
    story.run(18.0)
    assert story.phase() == "verifying"
    reverted(story, "not healthy within 20 s")


def test_side_by_side_a_failure_leaves_the_old_version_untouched() -> None:
    story = failing(Build(healthy=False), side_by_side="always", progress_s=10.0)
    started = story.host.programs.calls.count(f"start a {OLD}")
    story.always(lambda: OLD in story.serves())
    story.until("failed")
    assert story.runs() == {"a": OLD} and story.host.programs.calls.count(f"start a {OLD}") == started
    assert story.whats() == [TAKE, FAIL]


def flap(story: Story) -> None:
    story.host.programs.builds[NEW] = Build(healthy=False)
    story.run(1.0)
    story.host.programs.builds[NEW] = Build()
    story.run(1.0)


def test_an_interruption_starts_the_clock_over_and_the_third_one_is_a_failure() -> None:
    story = Story()
    story.rollout()
    story.until("verifying")
    for _ in range(2):
        story.run(1.5)
        flap(story)
    assert story.phase() == "verifying"
    story.host.programs.builds[NEW] = Build(healthy=False)
    story.run(1.0)
    reverted(story, "it did not stay healthy")


def test_after_two_interruptions_a_whole_soak_time_is_enough() -> None:
    story = Story()
    story.rollout()
    story.until("verifying")
    for _ in range(2):
        story.run(1.5)
        flap(story)
    story.until("done", 4.0)


def test_a_program_that_exits_again_and_again_before_it_is_healthy_is_a_failure() -> None:
    story = failing(Build(healthy=False))
    story.until("verifying")
    for _ in range(3):
        story.host.programs.die(NEW)
        story.run(8.0)
    story.until("failed", 20.0)


def test_a_program_that_dies_later_is_started_again_with_growing_pauses() -> None:
    story = Story()
    for _ in range(3):
        story.host.programs.die(OLD)
        story.run(1.0)
        assert story.serves() == set()
        story.run(10.0)
        assert story.serves() == {OLD}
    assert story.phase() == "current" and story.host.programs.calls.count(f"start a {OLD}") == 4


def test_a_stop_that_fails_is_repeated_with_growing_pauses_and_nothing_starts_there() -> None:
    story = Story(ALONE)
    story.host.programs.stops = "machine"
    story.rollout()
    story.until("stopping")
    story.run(60.0)
    assert story.runs() == {"a": OLD} and 4 < story.host.programs.calls.count(f"stop a {OLD}") < 10
    story.host.programs.stops = ""
    story.until("done")
    assert story.runs() == {"a": NEW}


def test_a_stop_that_fails_does_not_keep_a_fix_out_of_the_other_slot() -> None:
    story = Story()
    story.host.programs.stops = "machine"
    story.rollout()
    story.until("done")
    assert story.runs() == {"a": OLD, "b": NEW} and story.serves() == {NEW}
    story.host.programs.stops = ""
    story.run(60.0)
    assert story.runs() == {"b": NEW} and story.phase() == "done"


def test_a_driver_that_never_answers_counts_as_failed() -> None:
    story = Story()
    story.host.programs.hangs.add(f"start {NEW}")
    story.rollout()
    story.until("failed", 300.0)
    assert story.runs() == {"a": OLD} and story.serves() == {OLD}
