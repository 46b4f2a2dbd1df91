"""The search over all states of a scenario, or over a limited number of them.

A state is identified by 64 bits of its hash. That accepts a probability of one in 100,000 that two of ten million states
are taken for the same. Pending states are kept in groups, one for each set of past actions, past faults and running controls.
The groups are visited in rotation, and of each either the newest states or arbitrary ones are taken, so that a limited search
goes deep and wide. The search depends on no clock and no randomness: the same core gives the same search.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from random import Random

from msgspec import Struct, field

from sdlb.sim.explore.converge import Convergence
from sdlb.sim.explore.local import Problem
from sdlb.sim.explore.node import DEAD
from sdlb.sim.explore.promises import Promises
from sdlb.sim.explore.reduce import reduced_steps
from sdlb.sim.explore.state import Broken, State, Step
from sdlb.sim.explore.tables import Interned
from sdlb.sim.explore.topology import Scenario
from sdlb.sim.explore.world import World

RESTS_MAX = 10_000  # quiescent states that are kept, to compare two searches
TURN = 32  # states of one pile, then comes the next
Steps = Callable[[World, State], list[Step]]


class Failure(Struct):
    problem: Problem
    steps: tuple[Step, ...]


class Coverage(Struct):
    scenario: str
    states: int = 0
    transitions: int = 0
    rests: int = 0  # states in which nothing is on its way, each checked for convergence
    depth: int = 0
    whole: bool = False  # all there is was seen
    kinds: Counter[str] = field(default_factory=Counter[str])
    node_states: int = 0
    node_steps: int = 0  # distinct steps of single nodes: how often the core was run
    failures: list[Failure] = field(default_factory=list[Failure])


class Search:
    def __init__(
        self,
        scenario: Scenario,
        states_max: int,
        steps: Steps = reduced_steps,
        failures_max: int = 1,
        world: World | None = None,
    ) -> None:
        """`world`: of another search of the same scenario, so that equal states have equal numbers."""
        self.world = world or World(scenario)
        self.promises = Promises(self.world)
        self.convergence = Convergence(self.world)
        self.coverage = Coverage(scenario.name)
        self.rests: set[State] = set()
        self._steps = steps
        self._states_max = states_max
        self._failures_max = failures_max
        self._seen: set[int] = set()
        self._from = array("L")
        self._by = array("L")
        self._names: Interned[Step] = Interned()
        self._told: set[str] = set()
        self._piles: dict[tuple[int, tuple[bool, ...]], list[tuple[State, int, int]]] = {}

    def run(self) -> Coverage:
        cover = self.coverage
        try:
            first = self.world.first()
        except Broken as broken:
            cover.failures.append(Failure(broken.problem, ()))
            return cover
        self._visit(first, 0, self._names.number(Step("first", -1)), 0)
        rng = Random(1)
        turn = 0
        while self._piles and not self._enough():
            key = list(self._piles)[turn % len(self._piles)]
            turn += 1
            wide = rng.random() < 0.5
            for _ in range(TURN):
                pile = self._piles[key]
                if wide:
                    at = rng.randrange(len(pile))
                    pile[at], pile[-1] = pile[-1], pile[at]
                self._expand(*pile.pop())
                if not pile:
                    del self._piles[key]
                if not pile or self._enough():
                    break
        cover.whole = not self._piles
        cover.node_states = len(self.world.nodes.states)
        cover.node_steps = self.world.nodes.misses
        return cover

    def _enough(self) -> bool:
        return self.coverage.states >= self._states_max or len(self.coverage.failures) >= self._failures_max

    def _expand(self, state: State, number: int, depth: int) -> None:
        cover = self.coverage
        for step in self._steps(self.world, state):
            after, problem = self.world.take(state, step)
            cover.transitions += 1
            cover.kinds[step.kind] += 1
            if problem is None:
                after, problem = self.promises.check(state, after, step)
            if problem is not None:
                self._fail(problem, number, step)
            else:
                self._visit(after, number, self._names.number(step), depth + 1)

    def _visit(self, state: State, origin: int, step: int, depth: int) -> None:
        key = hash(state)
        if key in self._seen:
            return
        self._seen.add(key)
        cover = self.coverage
        number = cover.states
        cover.states += 1
        cover.depth = max(cover.depth, depth)
        self._from.append(origin)
        self._by.append(step)
        if self.world.at_rest(state):
            cover.rests += 1
            if len(self.rests) < RESTS_MAX:
                self.rests.add(state)
            problem = self.convergence.check(state)
            if problem is not None:
                self._fail(problem, number, None)
                return
        nodes = self.world.nodes.states
        dead = tuple(nodes[state[n]].control == DEAD for n in range(self.world.size))
        self._piles.setdefault((state[self.world.env_at], dead), []).append((state, number, depth))

    def _fail(self, problem: Problem, number: int, step: Step | None) -> None:
        text = f"{problem.promise} {problem.text}"
        if text in self._told:
            return
        self._told.add(text)
        steps = [] if step is None else [step]
        while number:
            steps.append(self._names[self._by[number]])
            number = self._from[number]
        self.coverage.failures.append(Failure(problem, tuple(reversed(steps))))
