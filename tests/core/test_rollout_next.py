"""What a rollout says that it does next."""

from __future__ import annotations

import pytest

from sdlb.core.rollout_rules import Capacity, capacity_objection, missing_capacity
from tests.core.test_rollouts import HOSTS, NEW, Story


@pytest.mark.parametrize("ready", range(0, 401, 20))
@pytest.mark.parametrize("floor", [0, 200, 300, 390])
def test_what_is_missing_is_what_has_to_become_ready(ready: int, floor: int) -> None:
    now = Capacity(baseline=400, floor=floor, ready=ready, promised=0)
    missing = missing_capacity(now, 100)
    assert bool(missing) == bool(capacity_objection(now, 100, alone=True, accept_gap=False))
    then = Capacity(baseline=400, floor=floor, ready=ready + missing, promised=0)
    assert not capacity_objection(then, 100, alone=True, accept_gap=False)
    assert not missing_capacity(now, 0), "what serves nothing costs nothing"


def test_a_rollout_that_waits_for_capacity_says_how_much_has_to_be_ready() -> None:
    story = Story()
    story.start(NEW)
    first = story.out()
    assert story.rollout()["next"] == f"another node, when {first} is verified"
    victim = next(host for host in HOSTS if host != first)
    story.forest[victim].kill()
    story.reach(first, "done")
    story.forest.run(15.0)
    assert story.rollout()["next"] == "another node, when 100 more of capacity is ready (now 300, floor 300)"
    story.forest[victim].start()
    story.until("done")
    assert story.rollout()["next"] == ""
