"""What an agent does when an artifact, a program or the driver fails."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.model.rollout import FAIL, TAKE
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


def test_a_version_that_has_failed_is_not_tried_again_after_a_restart() -> None:
    """Nothing but the saved record shows that it has failed here."""
    story = failing(Build(starts="program"))
    reverted(story, f"{NEW} does not start")
    calls, asks = story.host.programs.calls.count(f"start a {NEW}"), len(story.asks)
    story.host.restart()
    story.run(30.0)
    assert story.phase() == "failed" and len(story.asks) == asks
    assert story.host.programs.calls.count(f"start a {NEW}") == calls


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
    reverted(story, "it did not stay healthy: connection refused")


def test_the_failure_says_how_the_program_ended_even_if_a_health_check_saw_the_last_end_first() -> None:
    story = Story()
    story.rollout()
    story.until("verifying")
    story.host.programs.die(NEW, "pausing", "it used too much memory")
    story.run(1.0)
    story.host.programs.die(NEW, "running")
    for _ in range(3):
        story.run(1.5)
        flap(story)
    reverted(story, "it did not stay healthy: it used too much memory")


def test_the_failure_says_how_the_program_ended_even_if_it_was_always_seen_to_run() -> None:
    """Its supervisor starts it again between two looks of the agent."""
    story = Story()
    story.rollout()
    story.until("verifying")
    for _ in range(3):
        story.run(1.5)
        story.host.programs.restart(NEW, 1, "it used too much memory: last words")
        flap(story)
    reverted(story, "it did not stay healthy: it used too much memory: last words")


def test_the_failure_says_how_the_program_ended_even_if_each_end_was_missed() -> None:
    """A health check saw it go each time, and it was back before the driver was asked."""
    story = Story()
    story.rollout()
    story.until("verifying")
    story.run(0.5)
    for _ in range(3):
        story.host.programs.builds[NEW] = Build(healthy=False)
        story.run(0.25)
        story.host.programs.builds[NEW] = Build()
        story.run(0.25)
    story.host.programs.restart(NEW, 3, "it used too much memory: last words")
    reverted(story, "it did not stay healthy: it used too much memory: last words")


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


@pytest.mark.parametrize("status", ["running", "pausing"])
def test_exits_between_two_looks_at_a_program_count_one_by_one(status: str) -> None:
    """Its supervisor starts it again so quickly that the driver reports only how often."""
    story = failing(Build(healthy=False))
    story.until("verifying")
    story.run(0.5)
    story.host.programs.restart(NEW, 2 if status == "pausing" else 3)
    story.host.programs.die(NEW, status)
    story.until("failed", 5.0)
    story = failing(Build(healthy=False))
    story.until("verifying")
    story.host.programs.restart(NEW, 2)
    story.run(20.0)
    assert story.phase() == "verifying"


def test_an_exit_that_the_health_checks_have_seen_counts_once() -> None:
    story = Story()
    story.rollout(spec=replace(SPEC, soak_s=20.0))
    story.until("verifying")
    for _ in range(2):
        story.run(2.0)
        flap(story)
        story.host.programs.restart(NEW, 1)
        story.run(2.0)
    story.until("done", 30.0)


def test_the_last_lines_of_a_failed_program_are_those_that_it_has_left() -> None:
    story = failing(Build(healthy=False), progress_s=10.0)
    story.host.programs.last_words = tuple(f"word {n}" for n in range(25))
    story.until("failed")
    assert story.asks[-1].detail.splitlines()[1:] == [f"word {n}" for n in range(5, 25)]
    story = failing(Build(starts="program"))
    story.host.programs.last_words = ("of the version before",)
    story.until("failed")
    assert story.asks[-1].detail.splitlines()[-1] == "line 29"


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


# ---------------------------------------------------------------------- a corrected node file


def _calls(story: Story, since: int) -> list[str]:
    return [call for call in story.host.programs.calls[since:] if not call.startswith("state")]


@pytest.mark.promise(5)
def test_a_program_that_waits_to_be_started_is_started_with_the_node_file_as_it_is_now() -> None:
    story = Story()
    story.host.programs.die(OLD, "pausing", "exited with 1")
    story.run(3.0)
    calls = len(story.host.programs.calls)
    story.run(30.0)
    assert _calls(story, calls) == [], "its driver starts it again, not the agent"
    calls = len(story.host.programs.calls)
    story.host.restart()
    story.run(3.0)
    assert _calls(story, calls) == [f"stop a {OLD}", f"start a {OLD}"]
    assert story.runs() == {"a": OLD} and story.serves() == {OLD}
    story.host.programs.die(OLD, "pausing", "exited with 1")
    story.run(30.0)
    assert _calls(story, calls)[2:] == [], "that is for its driver again"


def test_a_program_that_runs_is_not_touched_by_a_restart_of_control() -> None:
    story = Story()
    calls = len(story.host.programs.calls)
    story.host.restart()
    story.run(5.0)
    assert _calls(story, calls) == [] and story.serves() == {OLD}
