"""What an agent does when the rollout changes or its control is killed in the middle of a step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from sdlb.model.rollout import (
    CUTTING_OVER,
    HALTED,
    HOLDING,
    PAUSED,
    UNDOING,
)
from tests.core.agent_story import BIG, NEW, OLD, SPEC, Story
from tests.core.forest import Forest, interruptions
from tests.core.node import Node

# ---------------------------------------------------------------------- abort, supersede, pause

PHASES = ["fetching", "prepared", "queued", "draining", "stopping", "starting", "verifying", "done"]


def reach(story: Story, phase: str) -> None:
    """Until the node is in this phase, where it stays for a moment."""
    programs = story.host.programs
    if phase == "draining":
        keys = [key for key in story.host.engine.endpoints if key.claim.version == OLD]
        story.host.engine.in_flight[keys[0]] = 1
    else:
        programs.slow_s = 1.0
    if phase == "prepared":
        story.change(cursor=0.0)
    story.grants = phase != "queued"
    story.until(phase)
    story.grants = True


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", ["never", "always"])
def test_an_abort_leads_back_from_each_phase(mode: str, phase: str) -> None:
    story = Story()
    story.rollout(spec=replace(SPEC, side_by_side=mode))
    reach(story, phase)
    story.change(state=UNDOING, cursor=1.0)
    story.host.engine.in_flight.clear()
    story.host.inbox.extend(story.host.engine.drained())
    story.run(40.0)
    assert story.phase() == "current" and list(story.runs().values()) == [OLD] and story.serves() == {OLD}
    assert story.slots == set() and story.report().slots == ()
    assert "node-failed" not in story.host.codes()
    updated = f"host runs catalog-{NEW}" in [note.text for note in story.host.notes]
    assert updated == (phase == "done"), "it goes back at once"


def test_an_abort_keeps_what_serves_until_the_old_version_is_healthy() -> None:
    story = Story()
    story.rollout(spec=replace(SPEC, side_by_side="always"))
    story.host.programs.slow_s = 1.0
    story.until("stopping")
    story.always(lambda: bool(story.serves()))
    story.change(state=UNDOING)
    story.until("current")
    assert list(story.runs().values()) == [OLD]


@pytest.mark.parametrize("phase", ["verifying", "ready", "draining", "stopping", "done"])
def test_an_abort_of_an_incompatible_version_leads_back_from_each_phase(phase: str) -> None:
    story = Story()
    story.host.programs.slow_s = 1.0
    story.rollout(BIG)
    if phase in ("draining", "stopping", "done"):
        story.until("ready")
        story.change(state=CUTTING_OVER)
    story.until(phase)
    story.change(state=UNDOING, cursor=1.0)
    story.run(60.0)
    assert story.phase() == "current" and list(story.runs().values()) == [OLD] and story.serves() == {OLD}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("state", [PAUSED, HALTED])
def test_a_step_that_has_begun_ends_although_the_rollout_is_stopped(state: str, phase: str) -> None:
    story = Story()
    story.rollout()
    reach(story, phase)
    story.change(state=state)
    story.host.engine.in_flight.clear()
    story.host.inbox.extend(story.host.engine.drained())
    story.run(40.0)
    begun = phase in (*HOLDING, "done")
    assert story.runs() == {"a": NEW if begun else OLD} and story.slots == set()
    assert story.phase() == ("done" if begun else "prepared")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", ["never", "always"])
def test_another_rollout_takes_over_in_each_phase(mode: str, phase: str) -> None:
    story = Story()
    story.rollout(spec=replace(SPEC, side_by_side=mode))
    reach(story, phase)
    story.change(id="r-2", to="1.0.3", term=2, cursor=1.0)
    story.host.engine.in_flight.clear()
    story.host.inbox.extend(story.host.engine.drained())
    story.run(80.0)
    assert story.phase() == "done" and list(story.runs().values()) == ["1.0.3"] and story.serves() == {"1.0.3"}
    assert story.slots == set() and story.report().counts == {"r-2 done": 1}


# ---------------------------------------------------------------------- killed at each step


def killed(
    build: Callable[[], Story], act: Callable[[Story], None], *, versions: set[str], serves: set[str] | None = None
) -> None:
    """Wherever control is killed, or the machine loses its power, the end is the same."""
    for harm in (Node.restart, _reboot):
        made: dict[Forest, Story] = {}

        def story(made: dict[Forest, Story] = made) -> Forest:
            each = build()
            made[each.forest] = each
            return each.forest

        def start(forest: Forest, made: dict[Forest, Story] = made) -> None:
            act(made[forest])

        for name, forest in interruptions(story, start, ["host"], harm):
            each = made[forest]
            forest.run(60.0)
            assert set(each.runs().values()) == versions, f"{name}: {each.agent()}"
            if serves is None or harm is Node.restart:  # without any program, the new version may open first
                assert each.serves() == (serves or versions), f"{name}: {each.agent()}"
            assert each.slots == set() and each.report().slots == (), f"{name}: {each.agent()}"


def _reboot(node: Node) -> None:
    node.power_cut()
    node.programs.slots.clear()
    node.programs.waiting.clear()
    node.start()


def test_killed_anywhere_in_place() -> None:
    killed(Story, lambda story: story.rollout(), versions={NEW})


def test_killed_anywhere_side_by_side() -> None:
    def act(story: Story) -> None:
        story.rollout(spec=replace(SPEC, side_by_side="always"))

    killed(Story, act, versions={NEW})


def test_killed_anywhere_before_a_cut_over() -> None:
    killed(Story, lambda story: story.rollout(BIG), versions={OLD, BIG}, serves={OLD})


def ready() -> Story:
    story = Story()
    story.rollout(BIG)
    story.until("ready")
    return story


def test_killed_anywhere_in_a_cut_over() -> None:
    killed(ready, lambda story: story.change(state=CUTTING_OVER), versions={BIG})


def updated() -> Story:
    story = Story()
    story.rollout()
    story.until("done")
    return story


def test_killed_anywhere_in_an_abort() -> None:
    killed(updated, lambda story: story.change(state=UNDOING), versions={OLD})


def test_a_node_whose_state_is_an_older_copy_goes_on_from_what_runs() -> None:
    story = Story()
    copies = []
    for phase in ("queued", "draining", "starting", "verifying"):
        story.rollout()
        story.until(phase)
        copies.append(story.host.snapshot())
    story.until("done")
    for copy in copies:
        story.host.restore(copy, rebooted=False)
        story.run(40.0)
        assert story.phase() == "done" and story.serves() == {NEW} and list(story.runs().values()) == [NEW]


def test_a_node_without_its_state_adopts_what_runs() -> None:
    story = ready()
    calls = len(story.host.programs.calls)
    story.host.lose_disk()
    story.run(20.0)
    assert story.phase() == "ready" and story.runs() == {"a": OLD, "b": BIG} and story.serves() == {OLD}
    assert {call.split()[0] for call in story.host.programs.calls[calls:]} == {"state"}
