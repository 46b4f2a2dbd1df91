"""The checks that look for a mutation. A new check is one more entry here.

Each is a command for the interpreter, run in the root of a copy of the sources. It finds the mutation when it fails, when
it prints what `found` matches, or when it prints nothing for `quiet_cpu_s` (a loop without end). A check that uses up
`cpu_s` without any of these has not found it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.mutate.table import Mutation

UNIT, PROOF = "unit", "proof"
RUN = re.compile(r"^(?P<what>seed \d+|[a-z0-9-]+) +BROKEN.*\n +at [\d.]+ s: (?P<how>.*)\n", re.MULTILINE)
EXPLORED = re.compile(r"^(?P<what>[a-z0-9-]+) +BROKEN [^=]*\n(?:(?!\S).*\n)*? +=> (?P<how>.*)\n", re.MULTILINE)
TEST = re.compile(r"^(?:FAILED|ERROR) (?P<what>\S+)(?: - (?P<how>.*))?\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    kind: str
    command: tuple[str, ...]
    found: re.Pattern[str]
    cpu_s: float = 60.0
    quiet_cpu_s: float = 30.0


def pytest(*args: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *args)


def sim(*args: str) -> tuple[str, ...]:
    return ("-m", "sdlb", "sim", "--jobs", "1", *args)


CHECKS = (
    Check("unit", UNIT, pytest("tests/core", "tests/model"), TEST, cpu_s=120.0),
    Check("scenario", PROOF, sim("--scenario", "all"), RUN),
    Check("explore", PROOF, sim("--explore", "all", "--states", "1000"), EXPLORED),
    Check("seeds", PROOF, sim("--nodes", "7", "--seeds", "1000"), RUN),
)


def by_test(test: str) -> Check:
    """One test, named as in the table of mutations."""
    return Check("unit", UNIT, pytest(f"tests/{test}"), TEST, cpu_s=30.0)


RECORD = Check("unit", UNIT, pytest("-p", "tools.mutate.reach", "tests/core", "tests/model"), TEST, cpu_s=300.0)
"""The unit tests, and which functions each of them calls (`reach.py`)."""


def by_tests(mutations: Iterable[Mutation]) -> list[Check]:
    """The tests that these name, all in one process."""
    tests = sorted({f"tests/{each.test}" for each in mutations if each.test})
    return [Check("unit", UNIT, pytest(*tests), TEST, cpu_s=120.0)] if tests else []


def by_scenario(name: str) -> Check:
    return Check("scenario", PROOF, sim("--scenario", name), RUN)


def by_exploration(name: str) -> Check:
    """It prints when it ends. Within its CPU time it may not, which is no finding."""
    return Check("explore", PROOF, sim("--explore", name, "--states", "30000"), EXPLORED, quiet_cpu_s=61.0)


def by_scenarios(mutations: Iterable[Mutation]) -> list[Check]:
    """The scenarios that these name, of the simulator and of the exploration."""
    named = list(mutations)
    scenarios = [by_scenario(name) for name in sorted({each.scenario for each in named if each.scenario})]
    return scenarios + [by_exploration(name) for name in sorted({each.explored for each in named if each.explored})]
