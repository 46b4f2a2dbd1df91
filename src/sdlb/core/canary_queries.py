"""The queries of an analysis in the current step, as pure functions: what is asked, and what the answers say.

Each query is asked once in a block, for the end of the last block, from `warm_up_s` after the nodes of the step have the new version.
Of counters, the growth since they were last compared is one block of the test. It is compared once the totals of both versions have
grown, because servers collect metrics more rarely than blocks end. A counter that has fallen starts again: an instance has ended.

A value is compared with its bounds once, when the time of the step is over. What has no answer, or more than one number, or NaN, is no
data, and no data is never a pass.
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

from sdlb.core import analysis
from sdlb.core.analysis import Counts, Evidence
from sdlb.core.effects import MetricAsk
from sdlb.model.canary import BLOCK_S, Analysis, Query, block_of
from sdlb.model.rollout import Rollout

MISSED_PART = 0.1
"""Of the blocks of a step, how many may have no answer."""
WHY_CHARS_MAX = 300


class QueryState(Struct, frozen=True):
    """One query in this step. `asked`, `missed`: how many times, and how many of these gave nothing. `sample`: the counters when they
    were last compared. `compared`: how many times. `value`: as of the Unix time `at`. `why`: there was no answer the last time."""

    asked: int = 0
    missed: int = 0
    sample: Counts | None = None
    compared: int = 0
    value: float | None = None
    at: float = 0.0
    why: str = ""


# ---------------------------------------------------------------------- what is asked


def asked_at(rollout: Rollout, wall_s: float) -> float:
    """The Unix time for which the queries are asked now: the end of the last block. 0: there is nothing to ask yet."""
    at = block_of(wall_s) * BLOCK_S
    return at if rollout.step_since and at - _since(rollout) >= 1 else 0.0


def _since(rollout: Rollout) -> float:
    spec = rollout.spec.analysis
    assert spec is not None
    return rollout.step_since + spec.warm_up_s


def texts(query: Query) -> tuple[str, ...]:
    """Those that are asked, of the old and then of the new version; of a value only the new one."""
    return (query.bad, query.total, query.bad, query.total) if query.bad else (query.value,)


def asks(service: str, rollout: Rollout, at: float) -> tuple[MetricAsk, ...]:
    """All queries of the analysis, in order."""
    spec = rollout.spec.analysis
    assert spec is not None
    window = f"{int(at - _since(rollout))}s"
    found: list[MetricAsk] = []
    for query in spec.queries:
        versions = (rollout.before, rollout.before, rollout.to, rollout.to) if query.bad else (rollout.to,)
        for text, version in zip(texts(query), versions, strict=True):
            # A PromQL text has braces of its own, so only these three names are replaced.
            filled = text.replace("{version}", version).replace("{service}", service).replace("{window}", window)
            found.append(MetricAsk(query.source, filled))
    return tuple(found)


def counted_as_asked(state: QueryState) -> QueryState:
    """Missed until it is answered, so that an answer that never comes is missed."""
    return replace(state, asked=state.asked + 1, missed=state.missed + 1)


# ---------------------------------------------------------------------- answers


def answered(
    query: Query, state: QueryState, evidence: Evidence, results: tuple[float | str, ...], at: float
) -> tuple[QueryState, Evidence]:
    """`results`: of its texts, as asked for the Unix time `at`."""
    why = next((each or "no answer" for each in results if isinstance(each, str)), "")
    numbers = [each for each in results if not isinstance(each, str)]
    if len(results) != len(texts(query)):
        why = why or f"{len(results)} answers to {len(texts(query))} queries"
    elif not why and not all(math.isfinite(each) for each in numbers):
        why = "the result is not a number"
    if why:
        return replace(state, why=why[:WHY_CHARS_MAX]), evidence
    state = replace(state, missed=max(0, state.missed - 1), why="")
    if not query.bad:
        return replace(state, value=numbers[0], at=at), evidence
    old_bad, old_total, new_bad, new_total = numbers
    return _compared(query, state, evidence, (old_bad, old_total, new_bad, new_total))


def _compared(query: Query, state: QueryState, evidence: Evidence, now: Counts) -> tuple[QueryState, Evidence]:
    if state.sample is None:
        return replace(state, sample=now), evidence
    old_bad, old_total, new_bad, new_total = (a - b for a, b in zip(now, state.sample, strict=True))
    if min(old_bad, old_total, new_bad, new_total) < 0:
        return replace(state, sample=now), evidence
    if not old_total or not new_total:
        return state, evidence
    grown = (old_bad, old_total, new_bad, new_total)
    return replace(state, sample=now, compared=state.compared + 1), analysis.add_query(evidence, query.name, grown)


# ---------------------------------------------------------------------- what they say


def broken_bound(spec: Analysis, states: dict[str, QueryState], over_s: float) -> tuple[str, str]:
    """Name of a query and a text: its value is beyond a bound at the end of the step, at the Unix time `over_s`. ("", ""): none is."""
    for query in spec.queries:
        state = states.get(query.name, QueryState())
        if query.bad or state.value is None or state.at < over_s:
            continue
        if query.max_value is not None and state.value > query.max_value:
            return query.name, f"query {query.name}: {state.value:.4g} is above max = {query.max_value:g}"
        if query.min_value is not None and state.value < query.min_value:
            return query.name, f"query {query.name}: {state.value:.4g} is below min = {query.min_value:g}"
    return "", ""


def lack(spec: Analysis, states: dict[str, QueryState], over_s: float) -> str:
    """Why the step cannot pass yet. "": each query has enough data."""
    for query in spec.queries:
        state = states.get(query.name, QueryState())
        if not state.asked:
            return f"query {query.name} has not been asked yet"
        why = f": {state.why}" if state.why else ""
        if not query.bad and (state.value is None or state.at < over_s):
            return f"query {query.name} has no value for the step{why}"
        if query.bad and state.missed > MISSED_PART * state.asked:
            return f"query {query.name} had no answer {state.missed} of {state.asked} times{why}"
        if query.bad and not state.compared:
            return f"the totals of query {query.name} have not grown for both versions"
    return ""
