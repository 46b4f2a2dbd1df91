"""The explorer: a bounded search of every scenario, and that its reductions make no difference."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.sim.explore.reduce import all_steps, reduced_steps
from sdlb.sim.explore.run import explore
from sdlb.sim.explore.scenarios import ALL, named
from sdlb.sim.explore.search import Coverage, Search
from sdlb.sim.explore.shrink import shrink
from sdlb.sim.explore.state import KINDS
from sdlb.sim.explore.story import describe
from sdlb.sim.explore.topology import Action, Faults, Instance, Scenario

STATES = 700  # of each scenario; all of them take about a minute of one core
ROLE_STATES = 100  # of each rollout; `sdlb sim --explore 'role-*'` walks more of them
DEEP = {
    "role-patch-one-kill": 1_500,
    "role-patch-hosts": 1_500,
    "role-new-one": 1_500,
    "role-bad-one": 1_000,
    "drain-kill-root": 14_000,
    "drain-kill-host-1": 6_000,
    "hosts-deploy-kill-cut": 6_000,
    "restore-host": 4_000,
    "demote-put": 5_000,
}
"""Where faults of the core were found; `test_explore_bites.py` has them."""


def _broken(cover: Coverage) -> set[tuple[int, str]]:
    return {(failure.problem.promise, failure.problem.text) for failure in cover.failures}


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
@pytest.mark.promise(4)
@pytest.mark.promise(5)
@pytest.mark.promise(8)
@pytest.mark.promise(9)
@pytest.mark.parametrize("name", sorted(ALL))
def test_no_order_of_events_breaks_a_promise(name: str) -> None:
    report = explore(name, DEEP.get(name, ROLE_STATES if name.startswith("role-") else STATES))
    assert report.states > 10 and report.rests > 0 and report.depth > 5
    assert report.ok, "\n".join(line for story in report.stories for line in story.lines)


def _compare(scenario: Scenario) -> tuple[Search, Search]:
    """All steps and the reduced ones, over the same world, so that its states are the same numbers."""
    everything = Search(scenario, 200_000, all_steps, failures_max=100)
    reduced = Search(scenario, 200_000, reduced_steps, failures_max=100, world=everything.world)
    assert everything.run().whole and reduced.run().whole
    assert _broken(reduced.coverage) == _broken(everything.coverage)
    assert reduced.rests == everything.rests
    assert reduced.coverage.states <= everything.coverage.states
    return everything, reduced


@pytest.mark.parametrize("name", ["hosts-deploy", "hosts-roll", "hosts-contest", "hosts-gone", "roots-again"])
def test_the_steps_that_are_left_out_make_no_difference(name: str) -> None:
    everything, reduced = _compare(replace(ALL[name], alike=()))
    assert reduced.coverage.transitions < everything.coverage.transitions


ONE: dict[str, tuple[str, ...]] = {"root": (), "host": ("root",)}
TWO: dict[str, tuple[str, ...]] = {"root-1": (), "root-2": (), "host": ("root-1", "root-2")}


@pytest.mark.parametrize(
    ("tree", "faults"),
    [
        (ONE, Faults(kill=1)),
        (ONE, Faults(power=1)),
        (ONE, Faults(kill=1, cut=1)),
        (TWO, Faults(reset=1)),
        (TWO, Faults(cut=1)),
        (TWO, Faults(engine=1)),
    ],
)
def test_nor_do_they_beside_a_fault(tree: dict[str, tuple[str, ...]], faults: Faults) -> None:
    instances = (Instance("a", "host", "1.0.0"),)
    _compare(Scenario("tiny", "", tree, instances, (), (Action("put", "host", instance=0),), faults, time=False))


def test_nodes_that_only_their_names_tell_apart_are_taken_in_one_order() -> None:
    both = Search(replace(ALL["roots-again"], alike=()), 100_000, failures_max=100)
    one = Search(ALL["roots-again"], 100_000, failures_max=100)
    assert both.run().whole and one.run().whole
    assert one.coverage.states <= both.coverage.states
    assert {promise for promise, _ in _broken(one.coverage)} == {promise for promise, _ in _broken(both.coverage)}


def test_every_kind_of_step_is_taken() -> None:
    kinds: set[str] = set()
    for name in (
        "hosts-deploy-kill-cut",
        "hosts-roll-reset",
        "hosts-roll-engine",
        "hosts-roll-power",
        "hosts-roll-detach",
        "restore-host",
        "flip-gap-hosts-cut",
        "role-patch-one",
    ):
        kinds |= set(Search(ALL[name], 1_500).run().kinds)
    assert kinds == set(KINDS)


def test_the_same_walk_again() -> None:
    first, second = (Search(ALL["chain-roll-kill"], 1_000).run() for _ in range(2))
    assert (first.states, first.transitions, first.kinds) == (second.states, second.transitions, second.kinds)


def test_a_failing_path_is_shrunk_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdlb.core import decisions

    monkeypatch.setattr(decisions, "_blocker", lambda *_: None)
    scenario = ALL["chain-deploy"]
    failure = Search(scenario, 5_000).run().failures[0]
    short = shrink(scenario, failure)
    assert short is not None
    assert len(short.steps) <= len(failure.steps)
    lines = describe(scenario, short)
    assert lines[1] == "  1. host registers b (catalog-2.0.0 on host)"
    assert "b (catalog-2.0.0 on host) gets requests while a (catalog-1.0.0 on host) does" in lines[-1]


def test_scenarios_have_names() -> None:
    assert [scenario.name for scenario in named("hosts-deploy,hosts-roll")] == ["hosts-deploy", "hosts-roll"]
    assert len(named("all")) == len(ALL)
    assert all(scenario.name.startswith("wide-") for scenario in named("wide-*"))
    with pytest.raises(KeyError):
        named("nowhere")
