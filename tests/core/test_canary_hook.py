"""The hook of an analysis at the owner: when it is asked, with which numbers, and what its answers do to the rollout."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.canary_hook import END, HookState, answered, due
from sdlb.core.effects import RunHook
from sdlb.model.canary import Analysis, Step
from sdlb.model.rollout import ROLLING, Rollout, RolloutSpec
from tests.core.test_canary_analysis import Counted
from tests.core.test_rollouts import NEW, OLD, SPEC, Story

STEPS = (Step("1", 25.0, 30.0), Step("50%", 50.0, 30.0))
ANALYSIS = Analysis(requests_min=100, warm_up_s=0.0, hook="judge")


class Judge:
    """Answers the hook of a story. `answer`: from the effect, "yes", "no", "later" or "failed"."""

    def __init__(self, story: Story, answer: Decide) -> None:
        self.story, self.answer = story, answer
        self.asked: list[RunHook] = []
        story.forest["edge-1"].inbox.append(ev.NodeFileNames((), ("judge",)))
        story.forest.settle()
        story.forest.watch.append(self.look)

    def look(self) -> None:
        node = self.story.forest["edge-1"]
        hooks, node.hooks = node.hooks, []
        for effect in hooks:
            self.asked.append(effect)
            node.inbox.append(ev.HookDone(effect.key, self.answer(effect), "as the test has it"))


Decide = Callable[[RunHook], str]


def begin(
    answer: Decide, errors: float = 0.005, steps: tuple[Step, ...] = STEPS, spec: Analysis = ANALYSIS
) -> tuple[Story, Judge]:
    story = Story()
    Counted(story, {OLD: 0.005, NEW: errors})
    judge = Judge(story, answer)
    assert not story.start(NEW, replace(SPEC, step=steps, analysis=spec))
    return story, judge


def test_each_step_ends_with_the_yes_of_the_hook_which_gets_the_counts() -> None:
    story, judge = begin(lambda effect: "yes")
    story.until("done", 900.0)
    assert [each.key.rpartition("/r-2/")[2] for each in judge.asked] == ["1/end", "2/end"]
    effect = judge.asked[-1]
    assert (effect.hook.run, effect.hook.url, effect.version, effect.replaces) == ("judge", "", NEW, (OLD,))
    report = json.loads(json.dumps(effect.analysis))
    errors = report["metrics"]["errors"]
    assert (report["result"], report["step"], report["of"]) == ("pass", 2, 2)
    assert errors["new_requests"] > 1000 and errors["new_bad"] == pytest.approx(0.005 * errors["new_requests"], rel=0.1)
    notes = [note for note in story.forest["edge-1"].notes if note.code == "analysis"]
    assert notes[-1].fields["requests"] == f"{errors['new_requests']:.0f}"
    assert notes[-1].fields["errors_old"] == f"{errors['old_bad']:.0f}"


def test_a_no_halts_although_the_figures_are_good() -> None:
    story, _ = begin(lambda effect: "no")
    story.until("halted", 300.0)
    assert story.rollout()["detail"] == "the hook refused: as the test has it"
    assert story.rollout()["step"]["share"] == 0.0


@pytest.mark.parametrize("outcome", ["later", "failed"])
def test_a_hook_that_does_not_decide_is_asked_again_with_the_same_key_and_never_a_pass(outcome: str) -> None:
    decide: Decide = lambda effect: outcome  # noqa: E731
    story, judge = begin(decide, steps=STEPS[:1])
    story.until("paused", 300.0)
    assert "the hook has not agreed: as the test has it" in story.rollout()["detail"]
    assert len(judge.asked) > 3 and len({each.key for each in judge.asked}) == 1
    agrees: Decide = lambda effect: "yes"  # noqa: E731
    judge.answer = agrees
    assert not story.order("resume")
    story.until("done", 300.0)
    assert judge.asked[-1].key != judge.asked[0].key, "it is another attempt"


def test_with_each_block_a_no_halts_before_the_step_is_over() -> None:
    spec = replace(ANALYSIS, hook_each="block", hook="https://judge.example/canary")
    answers = iter(["yes", "later", "yes", "no"])
    story, judge = begin(lambda effect: next(answers), steps=(replace(STEPS[0], for_s=600.0),), spec=spec)
    story.until("halted", 300.0)
    assert len(judge.asked) == 4 and not any(each.key.endswith(END) for each in judge.asked)
    assert judge.asked[0].hook.url == "https://judge.example/canary" and not judge.asked[0].hook.run
    assert judge.asked[0].analysis["result"] == "running"


def test_a_restarted_owner_asks_with_the_same_key() -> None:
    story, judge = begin(lambda effect: "yes", steps=STEPS[:1])
    story.forest.watch.remove(judge.look)
    node = story.forest["edge-1"]
    while not node.hooks:
        story.step()
    node.restart()
    story.forest.watch.append(judge.look)
    story.until("done", 300.0)
    assert [each.key for each in judge.asked] == [judge.asked[0].key] * 2


def test_a_hook_that_the_root_does_not_have_begins_nothing() -> None:
    story = Story()
    story.forest["edge-1"].inbox.append(ev.NodeFileNames((), ("jude",)))
    objection = story.start(NEW, replace(SPEC, step=STEPS, analysis=ANALYSIS))
    assert objection == (
        "the analysis asks the hook judge, and the node file of edge-1 has no [hook.judge]; did you mean 'jude'?"
    )
    assert story.rollout()["to"] == OLD


# ---------------------------------------------------------------------- pure

ROLLOUT = Rollout("r-1", NEW, OLD, ROLLING, spec=RolloutSpec(step=STEPS, analysis=ANALYSIS), step_since=1000.0)
EACH = replace(ANALYSIS, hook_each="block")


@pytest.mark.parametrize(
    ("spec", "state", "wall_s", "passed", "about"),
    [
        (ANALYSIS, HookState(), 1030.0, True, END),
        (ANALYSIS, HookState(), 1030.0, False, ""),
        (ANALYSIS, HookState(yes=True), 1030.0, True, ""),
        (ANALYSIS, HookState(no="x"), 1030.0, True, ""),
        (replace(ANALYSIS, hook=""), HookState(), 1030.0, True, ""),
        (EACH, HookState(), 1009.0, False, ""),
        (EACH, HookState(), 1010.0, False, "101"),
        (EACH, HookState(block=101), 1019.0, False, ""),
        (EACH, HookState(block=101), 1020.0, True, END),
    ],
)
def test_when_it_is_asked(spec: Analysis, state: HookState, wall_s: float, passed: bool, about: str) -> None:
    assert due(spec, ROLLOUT, state, wall_s, passed=passed) == about


def test_a_yes_to_a_block_is_no_yes_to_the_step() -> None:
    assert not answered(HookState(), "101", "yes", "").yes
    assert answered(HookState(), END, "yes", "").yes
    assert answered(HookState(), "101", "no", "").no
