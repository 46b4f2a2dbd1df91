"""Shrinks a failing path: removes steps while it still breaks the same promise, then sorts the steps of each node together."""

from __future__ import annotations

from collections.abc import Iterable

from sdlb.sim.explore.converge import Convergence
from sdlb.sim.explore.local import Problem
from sdlb.sim.explore.promises import Promises
from sdlb.sim.explore.reduce import all_steps
from sdlb.sim.explore.search import Failure
from sdlb.sim.explore.state import State, Step
from sdlb.sim.explore.topology import Scenario
from sdlb.sim.explore.world import World

TRIES_MAX = 4000


class Replay:
    """Takes steps from the start, one after the other, in a world of its own."""

    def __init__(self, scenario: Scenario) -> None:
        self.world = World(scenario)
        self.promises = Promises(self.world)
        self.convergence = Convergence(self.world)
        self.first = self.world.first()

    def take(self, state: State, step: Step) -> tuple[State, Problem | None] | None:
        """Takes a step. None: the step is not possible now."""
        if step not in all_steps(self.world, state):
            return None
        after, problem = self.world.take(state, step)
        if problem is None:
            after, problem = self.promises.check(state, after, step)
        return after, problem

    def run(self, steps: Iterable[Step]) -> Failure | None:
        """The first promise broken on the way, or by where it ends; steps that cannot be taken are left out."""
        state = self.first
        taken: list[Step] = []
        for step in steps:
            result = self.take(state, step)
            if result is None:
                continue
            taken.append(step)
            state, problem = result
            if problem is not None:
                return Failure(problem, tuple(taken))
        if self.world.at_rest(state):
            problem = self.convergence.check(state)
            if problem is not None:
                return Failure(problem, tuple(taken))
        return None


def shrink(scenario: Scenario, failure: Failure) -> Failure | None:
    """The shrunk path. None: the path does not fail again from the start, because two states were taken for the same."""
    if not failure.steps:
        return failure
    replay = Replay(scenario)
    best = replay.run(failure.steps)
    if best is None:
        return None
    tries = 0
    size = max(1, len(best.steps) // 2)
    while size and tries < TRIES_MAX:
        at = 0
        smaller = False
        while at < len(best.steps) and tries < TRIES_MAX:
            tries += 1
            found = replay.run(best.steps[:at] + best.steps[at + size :])
            if found is not None and found.problem.promise == best.problem.promise and _less(found, best):
                best, smaller = found, True
            else:
                at += size
        if not smaller or size > 1:
            size = size // 2 if not smaller or size > 1 else size
    return _in_order(replay, best)


def _less(found: Failure, best: Failure) -> bool:
    return len(found.steps) < len(best.steps)


def _in_order(replay: Replay, failure: Failure) -> Failure:
    """Neighbouring steps of different nodes change places where that keeps one node's steps together."""
    steps = list(failure.steps)
    changed = True
    rounds = 0
    while changed and rounds < 4:
        changed = False
        rounds += 1
        for at in range(1, len(steps) - 1):
            before, here, after = steps[at - 1 : at + 2]
            if here.owner != after.owner and before.owner == after.owner:
                tried = [*steps[:at], after, here, *steps[at + 2 :]]
                found = replay.run(tried)
                if found is not None and found.problem == failure.problem and len(found.steps) == len(steps):
                    steps, changed = tried, True
    return Failure(failure.problem, tuple(steps))
