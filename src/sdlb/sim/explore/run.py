"""Explores many scenarios in several processes and prepares the results for printing."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from msgspec import Struct

from sdlb.sim.explore.scenarios import ALL
from sdlb.sim.explore.search import Coverage, Search
from sdlb.sim.explore.shrink import shrink
from sdlb.sim.explore.story import describe

FAILURES_MAX = 20  # of one scenario


class Story(Struct, frozen=True):
    """A broken promise (0: the program itself failed) with its shortest path as text. `steps`: length of the path."""

    promise: int
    text: str
    steps: int
    lines: tuple[str, ...]


class Report(Struct, frozen=True):
    scenario: str
    text: str
    states: int
    transitions: int
    rests: int
    depth: int
    whole: bool
    kinds: dict[str, int]
    node_states: int
    node_steps: int
    cpu_s: float
    stories: tuple[Story, ...]

    @property
    def ok(self) -> bool:
        return not self.stories

    def to_data(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in self.__struct_fields__}
        data["stories"] = [{name: getattr(story, name) for name in story.__struct_fields__} for story in self.stories]
        return data


def explore(name: str, states_max: int, failures_max: int = FAILURES_MAX) -> Report:
    started = time.process_time()
    scenario = ALL[name]
    search = Search(scenario, states_max, failures_max=failures_max)
    cover = search.run()
    return Report(
        name,
        scenario.text,
        cover.states,
        cover.transitions,
        cover.rests,
        cover.depth,
        cover.whole,
        dict(sorted(cover.kinds.items())),
        cover.node_states,
        cover.node_steps,
        time.process_time() - started,
        _stories(name, cover),
    )


def _stories(name: str, cover: Coverage) -> tuple[Story, ...]:
    scenario = ALL[name]
    stories: dict[tuple[int, str], Story] = {}
    for failure in cover.failures:
        short = shrink(scenario, failure)
        if short is None:  # two states that were taken for one behave differently: a fault of the explorer
            problem, steps = failure.problem, len(failure.steps)
            lines = (f"{problem.text}; but it does not fail when its {steps} steps are done again from the start",)
            stories[0, problem.text] = Story(0, problem.text, steps, lines)
            continue
        problem = short.problem
        story = Story(problem.promise, problem.text, len(short.steps), tuple(describe(scenario, short)))
        stories.setdefault((problem.promise, problem.text), story)
    return tuple(stories.values())


def explore_all(names: list[str], states_max: int, jobs: int, done: Callable[[Report], None]) -> list[Report]:
    """`done` is called for each as it ends, in the order of `names`."""
    reports: list[Report] = []
    if jobs <= 1:
        for name in names:
            reports.append(explore(name, states_max))
            done(reports[-1])
        return reports
    # a process is not used again: its tables may have grown to hundreds of megabytes
    with ProcessPoolExecutor(jobs, max_tasks_per_child=1) as pool:
        for report in pool.map(explore, names, [states_max] * len(names)):
            reports.append(report)
            done(report)
    return reports
