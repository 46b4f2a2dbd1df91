"""All checks on one mutation, and many mutations in parallel."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from tools.mutate import reach, sandbox
from tools.mutate.checks import PROOF, TEST, UNIT, Check, by_exploration, by_scenario, by_test, pytest
from tools.mutate.sandbox import Outcome
from tools.mutate.table import SOURCE, Mutation


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcomes by kind of check: the first that found the mutation, else all of them."""

    mutation: Mutation
    unit: tuple[Outcome, ...] = ()
    proof: tuple[Outcome, ...] = ()

    @property
    def by_unit(self) -> Outcome | None:
        return next((each for each in self.unit if each.found), None)

    @property
    def by_proof(self) -> Outcome | None:
        return next((each for each in self.proof if each.found), None)

    @property
    def survived(self) -> bool:
        """No check found it."""
        return self.by_unit is None and self.by_proof is None

    @property
    def caught(self) -> bool:
        """A generated one by any check; a hand-written one by a unit test and by simulator or exploration."""
        if self.mutation.generated:
            return not self.survived
        return self.by_unit is not None and (self.by_proof is not None or bool(self.mutation.unit_only))

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return self.unit + self.proof


def judge(mutation: Mutation, text: str, base: Path, copy: Path, checks: Iterable[Check]) -> Verdict:
    """`base`: the prepared copy without a change; `copy`: a folder that does not exist yet, for the changed one."""
    sandbox.change(base, copy, mutation.file, text)
    try:
        checks = in_order(mutation, checks)
        unit = _first_that_finds([each for each in checks if each.kind == UNIT], copy)
        if unit and unit[-1].found and (mutation.generated or mutation.unit_only):
            return Verdict(mutation, unit)
        return Verdict(mutation, unit, _first_that_finds([each for each in checks if each.kind == PROOF], copy))
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def in_order(mutation: Mutation, checks: Iterable[Check]) -> list[Check]:
    """Of each kind, the check that the mutation names comes first."""
    named: list[Check] = []
    if mutation.test:
        named.append(by_test(mutation.test))
    if mutation.scenario:
        named.append(by_scenario(mutation.scenario))
    if mutation.explored:
        named.append(by_exploration(mutation.explored))
    return sorted([*named, *checks], key=lambda check: check.kind != UNIT)


def _narrowed(check: Check, mutation: Mutation, reached: list[reach.Reached]) -> Check:
    """Of the unit tests, only those that call the changed function, if that was recorded."""
    if check.kind != UNIT:
        return check
    tests = reach.tests_of(f"{Path(mutation.file).relative_to(SOURCE)}:{mutation.scope}", reached)
    return replace(check, command=pytest(*tests), found=TEST) if tests else check


def _first_that_finds(checks: list[Check], copy: Path) -> tuple[Outcome, ...]:
    outcomes: list[Outcome] = []
    for check in checks:
        outcomes.append(sandbox.run(check, copy))
        if outcomes[-1].found:
            break
    return tuple(outcomes)


def judge_all(
    mutations: Iterable[Mutation], root: Path, base: Path, checks: tuple[Check, ...], jobs: int
) -> Iterator[Verdict]:
    """Yields verdicts as they are done. Mutations are made one at a time, shortly before they are needed."""
    reached = reach.read(base)
    with ThreadPoolExecutor(jobs) as pool:
        running: set[Future[Verdict]] = set()
        for number, mutation in enumerate(mutations):
            text = mutation.apply(root)
            mine = [_narrowed(check, mutation, reached) for check in checks]
            running.add(pool.submit(judge, mutation, text, base, base.parent / f"mutation-{number}", mine))
            while len(running) >= jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in done)
