"""Queries of an analysis at the owner: what is asked for which step, what the answers say, and that no data is never a pass."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core import analysis, canary_queries
from sdlb.core import events as ev
from sdlb.core.canary_queries import QueryState
from sdlb.core.effects import AskMetrics
from sdlb.core.rollout_rules import Owned
from sdlb.model.canary import Analysis, Figures, Query, Step
from sdlb.model.rollout import ROLLING, Rollout, RolloutSpec
from tests.core.test_canary_analysis import Counted
from tests.core.test_rollouts import NEW, OLD, SPEC, Story

ORDERS = Query("orders", "prom", bad='lost{version="{version}"}', total='all{version="{version}"}')
DEPTH = Query(
    "depth", "prom", value='max_over_time(depth{app="{service}",version="{version}"}[{window}])', max_value=10.0
)
STEP = Step("1", 25.0, 60.0)
ANALYSIS = Analysis(requests_min=100, warm_up_s=0.0, queries=(ORDERS, DEPTH))


class Server:
    """Answers the queries of a story: counters that grow by a rate, and a value. `down`: it gives no answer."""

    def __init__(self, story: Story, lost: dict[str, float], depth: float | str = 3.0) -> None:
        self.story, self.lost, self.depth = story, lost, depth
        self.down = False
        self.asked: list[AskMetrics] = []
        story.forest["edge-1"].inbox.append(ev.NodeFileNames(("prom",), ("judge",)))
        story.forest.settle()
        story.forest.watch.append(self.look)

    def look(self) -> None:
        node = self.story.forest["edge-1"]
        for effect in node.metrics:
            self.asked.append(effect)
            results = tuple(
                "prom does not answer" if self.down else self._result(a.query, effect.at) for a in effect.asks
            )
            node.inbox.append(ev.MetricsAnswered(effect.key, results))
        node.metrics.clear()

    def _result(self, text: str, at: float) -> float | str:
        """Prometheus collects every 30 s."""
        if text.startswith("max_over_time"):
            return self.depth
        version = NEW if NEW in text else OLD
        total = (at - at % 30) * (100.0 if version == OLD else 20.0)
        return total * self.lost[version] if text.startswith("lost") else total


def begin(lost: float = 0.01, depth: float | str = 3.0, spec: Analysis = ANALYSIS) -> tuple[Story, Server]:
    story = Story()
    Counted(story, {OLD: 0.005, NEW: 0.005})
    server = Server(story, {OLD: 0.01, NEW: lost}, depth)
    assert not story.start(NEW, replace(SPEC, step=(STEP,), analysis=spec))
    return story, server


def test_a_good_version_passes_and_its_step_was_asked_block_by_block() -> None:
    story, server = begin()
    story.until("done", 900.0)
    [note] = [note for note in story.forest["edge-1"].notes if note.code == "analysis"]
    assert ": pass: " in note.text
    first, *others = server.asked
    assert [each.query for each in first.asks] == [
        f'lost{{version="{OLD}"}}',
        f'all{{version="{OLD}"}}',
        f'lost{{version="{NEW}"}}',
        f'all{{version="{NEW}"}}',
        f'max_over_time(depth{{app="catalog",version="{NEW}"}}[{first.asks[4].query.rpartition("[")[2]}',
    ]
    assert len({each.at for each in server.asked}) == len(server.asked) >= 6, "each block is asked for once"
    windows = [int(each.asks[4].query.rpartition("[")[2].removesuffix("s])")) for each in (first, *others)]
    assert 1 <= windows[0] <= 10 and all(b - a == 10 for a, b in pairwise(windows))


def test_a_query_of_counters_halts_a_rollout() -> None:
    slow = replace(STEP, for_s=600.0)
    story = Story()
    Counted(story, {OLD: 0.005, NEW: 0.005})
    Server(story, {OLD: 0.01, NEW: 0.2})
    assert not story.start(NEW, replace(SPEC, step=(slow,), analysis=ANALYSIS))
    story.until("halted", 600.0)
    assert story.rollout()["analysis"]["metric"] == "query orders"
    assert story.rollout()["detail"].startswith("query orders 20 % against 1 %: evidence ")
    assert story.rollout()["step"]["share"] == 0.0


BEYOND = [(DEPTH, "12.5 is above max = 10"), (replace(DEPTH, max_value=None, min_value=20.0), "12.5 is below min = 20")]


@pytest.mark.parametrize(("query", "text"), BEYOND, ids=["max", "min"])
def test_a_value_beyond_its_bound_halts_at_the_end_of_the_step(query: Query, text: str) -> None:
    story, server = begin(depth=12.5, spec=replace(ANALYSIS, queries=(query,)))
    while not story.rollout().get("step", {}).get("since"):
        story.step()
    since = story.rollout()["step"]["since"]
    story.until("halted", 120.0)
    assert story.rollout()["detail"] == f"query depth: {text}"
    assert server.asked[-1].at >= since + 60.0, "the value is that of the whole step"


@pytest.mark.parametrize("depth", ["the result is empty", float("nan")], ids=str)
def test_no_number_is_no_pass(depth: float | str) -> None:
    story, _ = begin(depth=depth)
    story.until("paused", 300.0)
    why = depth if isinstance(depth, str) else "the result is not a number"
    assert f"query depth has no value for the step: {why}" in story.rollout()["detail"]


def test_a_server_that_is_down_is_no_pass_and_one_that_comes_back_is() -> None:
    story, server = begin()
    server.down = True
    story.until("paused", 300.0)
    assert "query orders had no answer" in story.rollout()["detail"]
    assert "prom does not answer" in story.rollout()["detail"]
    server.down = False
    assert not story.order("resume")
    story.until("done", 300.0)


def test_an_answer_that_comes_too_late_does_not_count() -> None:
    story, server = begin()
    node = story.forest["edge-1"]
    while len(server.asked) < 2:
        story.step()
    before = story.rollout()
    node.inbox.append(ev.MetricsAnswered(server.asked[0].key, (1e9, 1e9, 1e9, 1e9, 99.0)))
    node.inbox.append(ev.MetricsAnswered("catalog/2.5.1/1.1/migrate", (99.0,)))
    story.forest.settle()
    assert story.rollout()["analysis"] == before["analysis"]
    story.until("done", 900.0)


def test_a_restarted_owner_asks_on() -> None:
    story, server = begin()
    while len(server.asked) < 3:
        story.step()
    story.forest["edge-1"].restart()
    story.until("done", 900.0)
    keys = [each.key for each in server.asked]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("sources", "why"),
    [((), "add it and send control SIGHUP"), (("promo",), "did you mean 'promo'?")],
    ids=["none", "near"],
)
def test_a_source_that_the_root_does_not_have_begins_nothing(sources: tuple[str, ...], why: str) -> None:
    story = Story()
    before = story.rollout()["id"]
    story.forest["edge-1"].inbox.append(ev.NodeFileNames(sources))
    objection = story.start(NEW, replace(SPEC, step=(STEP,), analysis=replace(ANALYSIS, queries=(ORDERS,))))
    assert objection == f"query orders asks prom, and the node file of edge-1 has no [source.prom]; {why}"
    assert story.rollout()["id"] == before


# ---------------------------------------------------------------------- pure

ROLLOUT = Rollout("r-1", NEW, OLD, ROLLING, spec=RolloutSpec(step=(STEP,), analysis=ANALYSIS), step_since=1000.0)
BEGUN = analysis.begin(ANALYSIS, Figures())


def _fed(*samples: tuple[float, float, float, float]) -> tuple[QueryState, analysis.Evidence]:
    state, evidence = QueryState(), BEGUN
    for number, each in enumerate(samples):
        state = canary_queries.counted_as_asked(state)
        state, evidence = canary_queries.answered(ORDERS, state, evidence, each, 1000.0 + 10 * number)
    return state, evidence


def test_counters_are_compared_once_both_versions_have_grown() -> None:
    state, evidence = _fed((5, 100, 0, 10), (6, 200, 0, 10), (8, 300, 1, 30), (8, 300, 1, 30))
    metric = evidence.metrics["query orders"]
    assert (metric.old_bad, metric.old_total, metric.new_bad, metric.new_total) == (3, 200, 1, 20)
    assert (state.compared, state.missed, metric.blocks) == (1, 0, 1)


def test_a_counter_that_falls_starts_again() -> None:
    _, evidence = _fed((5, 100, 0, 10), (0, 50, 0, 20), (1, 150, 2, 40))
    metric = evidence.metrics["query orders"]
    assert (metric.old_bad, metric.old_total, metric.new_bad, metric.new_total) == (1, 100, 2, 20)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (QueryState(), "has not been asked yet"),
        (QueryState(asked=20, missed=3, compared=9, why="down"), "had no answer 3 of 20 times: down"),
        (QueryState(asked=20, missed=2, compared=0), "have not grown for both versions"),
        (QueryState(asked=20, missed=2, compared=1), ""),
    ],
)
def test_what_is_lacking(state: QueryState, text: str) -> None:
    found = canary_queries.lack(replace(ANALYSIS, queries=(ORDERS,)), {"orders": state}, 1060.0)
    assert text in found and bool(found) == bool(text)


def test_a_value_of_a_part_of_the_step_decides_nothing() -> None:
    early = {DEPTH.name: QueryState(asked=5, value=99.0, at=1050.0)}
    assert canary_queries.broken_bound(ANALYSIS, early, 1060.0) == ("", "")
    assert "has no value for the step" in canary_queries.lack(replace(ANALYSIS, queries=(DEPTH,)), early, 1060.0)
    assert canary_queries.broken_bound(ANALYSIS, early, 1050.0)[0] == DEPTH.name


def test_nothing_is_asked_before_the_warm_up_is_over() -> None:
    warm = replace(ROLLOUT, spec=replace(ROLLOUT.spec, analysis=replace(ANALYSIS, warm_up_s=30.0)))
    asked: Callable[[float], float] = lambda wall_s: canary_queries.asked_at(warm, wall_s)  # noqa: E731
    assert (asked(1039.0), asked(1040.0), asked(1049.0)) == (0.0, 1040.0, 1040.0)
    assert canary_queries.asks("catalog", warm, 1040.0)[-1].query.endswith("[10s])")
    assert not canary_queries.asked_at(replace(ROLLOUT, step_since=0.0), 1040.0)


RESULT = st.one_of(st.floats(), st.floats(0, 1e6), st.sampled_from(["", "no data", 1e308, -1.0, 0.0]))


@given(st.lists(st.lists(RESULT, max_size=6), max_size=12))
def test_no_answers_upset_an_analysis(answers: list[list[float | str]]) -> None:
    states, evidence = {ORDERS.name: QueryState(), DEPTH.name: QueryState()}, BEGUN
    for number, each in enumerate(answers):
        for query in ANALYSIS.queries:
            state = canary_queries.counted_as_asked(states[query.name])
            states[query.name], evidence = canary_queries.answered(query, state, evidence, tuple(each), 10.0 * number)
            assert 0 <= states[query.name].missed <= states[query.name].asked
        canary_queries.broken_bound(ANALYSIS, states, 0.0)
        canary_queries.lack(ANALYSIS, states, 0.0)
    analysis.verdict(evidence, ANALYSIS, over=True)
    kept = msgspec.json.encode(states)
    assert msgspec.json.decode(kept, type=dict[str, QueryState]) == states
    assert Owned() == msgspec.convert({}, Owned)
