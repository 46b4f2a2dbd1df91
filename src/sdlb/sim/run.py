"""Runs a seed or a scenario from the first node to the last check, or many of them in parallel."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any

from msgspec import Struct, to_builtins

from sdlb.sim import checks, oracle
from sdlb.sim.acts import Acts
from sdlb.sim.check import CHECKS, Broken, Check
from sdlb.sim.coverage import Counts
from sdlb.sim.engine import BadDelta
from sdlb.sim.faults import KINDS, Faults
from sdlb.sim.network import BadMessage
from sdlb.sim.scenarios import SCENARIOS
from sdlb.sim.stage import Stage
from sdlb.sim.topology import Shape, random_shape
from sdlb.sim.workload import CANARIES, CHANGES, Workload
from sdlb.sim.world import World

assert checks and oracle  # importing them registers their checks


class Plan(Struct, frozen=True):
    """The parameters of a run. Seconds are virtual. `calm_s`: changes without faults; `faults_s`: changes and faults;
    `settle_s`: neither.

    `scenario`: name of a script that replaces random actions; then only the seed of the other fields matters.
    """

    nodes: int = 300
    seed: int = 1
    calm_s: float = 20.0
    faults_s: float = 60.0
    settle_s: float = 60.0
    services: int = 5
    pace_s: float = 0.7  # mean time between two changes
    fault_pace_s: float = 1.5
    requests_s: float = 20.0
    faults: tuple[str, ...] | None = None  # kinds; None: a few, by the seed
    changes: tuple[str, ...] | None = None  # kinds of what operators and programs do; None: all but CANARIES
    scenario: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """`promise`: number of the broken promise; 0: none. `trace`: the last lines before that."""

    plan: Plan
    digest: str
    steps: int
    virtual_s: float
    wall_s: float
    messages: int
    requests: dict[str, int]
    longest_s: float
    coverage: dict[str, Counts]
    shape: str
    promise: int = 0
    broken: str = ""
    trace: tuple[str, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        return not self.broken

    @property
    def faults(self) -> Counts:
        return self.coverage["faults"]

    def to_data(self) -> dict[str, Any]:
        return to_builtins(self)


def simulate(plan: Plan, shape: Shape | None = None, checks: Iterable[type[Check]] | None = None) -> Result:
    """Runs a plan. A broken promise is in the result and not raised. The same plan gives the same digest."""
    started = time.perf_counter()
    rng = Random(f"sdlb/{plan.seed}/{plan.scenario or plan.nodes}")
    if plan.scenario:
        shape = SCENARIOS[plan.scenario].shape
    shape = shape or random_shape(plan.nodes, rng)
    world = World(shape, rng)
    world.watch(kind(world) for kind in (CHECKS if checks is None else checks))
    promise, broken = 0, ""
    try:
        if plan.scenario:
            _play(world, plan, rng)
        else:
            _live(world, plan, rng)
    except Broken as problem:
        promise, broken = problem.promise, problem.text
    except BadDelta as problem:
        broken = f"control sent its engine a delta that it must refuse: {problem}"
    except BadMessage as problem:
        broken = f"control sent a message that cannot be encoded: {problem}"
    except Exception as problem:  # a bug of the core is a finding like any other, with its trace
        broken = f"{type(problem).__name__}: {problem} ({_where(problem)})"
    return Result(
        plan,
        world.digest,
        world.clock.steps,
        round(world.clock.now, 3),
        time.perf_counter() - started,
        world.network.sent,
        dict(sorted(world.traffic.outcomes.items())),
        round(world.traffic.longest_s, 3),
        world.coverage.to_data(),
        f"{len(shape.roots)} roots, {len(shape.inner)} between, {len(shape.leaves)} hosts",
        promise,
        broken,
        tuple(world.trace) if broken else (),
    )


def _begin(world: World) -> None:
    for host in list(world.hosts.values()):
        world.clock.after(host.rng.uniform(0.0, 2.0), host.start)
    world.clock.after(1.0, world.every_second)


def _play(world: World, plan: Plan, rng: Random) -> None:
    stage = Stage(world, Random(rng.random()))
    _begin(world)
    SCENARIOS[plan.scenario].script(stage)


def _live(world: World, plan: Plan, rng: Random) -> None:
    usual = tuple(name for name in CHANGES if name not in CANARIES)
    changes = usual if plan.changes is None else plan.changes
    workload = Workload(world, Random(rng.random()), plan.services, plan.pace_s, plan.requests_s, changes)
    faults = Faults(
        world, Acts(world, Random(rng.random())), Random(rng.random()), plan.fault_pace_s, _kinds(plan, rng)
    )
    _begin(world)
    workload.start()
    world.clock.run(plan.calm_s)
    if faults.kinds:
        faults.start(0.0)
    world.clock.run(plan.calm_s + plan.faults_s)
    workload.rest()
    faults.stop()
    world.clock.run(plan.calm_s + plan.faults_s + plan.settle_s - 10.0)
    workload.asking = False
    world.clock.run(plan.calm_s + plan.faults_s + plan.settle_s)
    for check in world.checks:
        check.at_end()


def _kinds(plan: Plan, rng: Random) -> tuple[str, ...]:
    if plan.faults is not None:
        return plan.faults
    return tuple(rng.sample(tuple(KINDS), rng.choice((1, 2, 3, len(KINDS)))))


def _where(problem: BaseException) -> str:
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace is not None else "?"


def simulate_all(plans: list[Plan], jobs: int, done: Callable[[Result], None]) -> list[Result]:
    """Runs plans in `jobs` processes. `done` is called for each result, in the order of `plans`."""
    results: list[Result] = []
    if jobs <= 1:
        for plan in plans:
            results.append(simulate(plan))
            done(results[-1])
        return results
    with ProcessPoolExecutor(jobs) as pool:
        for result in pool.map(simulate, plans):
            results.append(result)
            done(result)
    return results
