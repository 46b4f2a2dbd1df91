"""Asks what an analysis needs from outside: metrics for the queries of the current step, and its hook.

The owner saves that it asks before it asks. What it asks twice, or has no answer when it is restarted, does no harm: an answer counts once,
for the rollout, the attempt, the step and the block for which it was asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from sdlb.core import canary_analysis, canary_hook, canary_queries
from sdlb.core.canary_queries import QueryState
from sdlb.core.effects import AskMetrics, RunHook

if TYPE_CHECKING:
    from sdlb.core.canary_analysis import AnalysisState
    from sdlb.core.events import HookDone, MetricsAnswered
    from sdlb.core.state import State
    from sdlb.model.rollout import Rollout

PREFIX = "analysis/"
"""Of keys, so that they are none of a gate's."""


class CanaryAsks:
    def __init__(self, state: State) -> None:
        self._state = state
        self._metrics: dict[str, str] = {}  # service -> key of what was asked last; an earlier answer comes too late
        self._hooks: dict[str, tuple[str, str]] = {}  # service -> (key, about) of its hook in progress
        self._hook_after: dict[str, float] = {}  # service -> when its hook is asked again

    def ask(self, service: str, rollout: Rollout, known: AnalysisState, now: float) -> AnalysisState:
        """Asks what is due. Save the result before the effects are carried out."""
        return self._ask_hook(service, rollout, self._ask_metrics(service, rollout, known), now)

    def _ask_metrics(self, service: str, rollout: Rollout, known: AnalysisState) -> AnalysisState:
        spec = rollout.spec.analysis
        at = canary_queries.asked_at(rollout, self._state.wall_s)
        if spec is None or not spec.queries or not at or at == known.asked:
            return known
        key = _key(service, rollout, f"{at:.0f}")
        self._metrics[service] = key
        self._state.effects.append(AskMetrics(key, canary_queries.asks(service, rollout, at), at))
        states = {
            each.name: canary_queries.counted_as_asked(known.queries.get(each.name, QueryState()))
            for each in spec.queries
        }
        return replace(known, queries=states, asked=at)

    def _ask_hook(self, service: str, rollout: Rollout, known: AnalysisState, now: float) -> AnalysisState:
        spec, wall_s = rollout.spec.analysis, self._state.wall_s
        if spec is None or not spec.hook or known.hook.decided or now < self._hook_after.get(service, 0.0):
            return known
        running = self._hooks.get(service, ("", ""))[0]
        if running.startswith(_key(service, rollout, "")):
            return known
        passed = canary_analysis.passed(known, rollout, wall_s)
        about = canary_hook.due(spec, rollout, known.hook, wall_s, passed=passed)
        if not about:
            return known
        key = _key(service, rollout, about)
        self._hooks[service] = (key, about)
        data = canary_hook.report(canary_analysis.without_hook(known, rollout, wall_s), rollout)
        effect = RunHook(key, service, rollout.to, canary_hook.hook_of(spec), (rollout.before,), data)
        self._state.effects.append(effect)
        return replace(known, hook=canary_hook.asked(known.hook, about))

    # ------------------------------------------------------------------ answers

    def service_of(self, event: MetricsAnswered | HookDone) -> str:
        """ "": nothing waits for this answer any more."""
        waiting = {service: key for service, (key, _) in self._hooks.items()}
        keys = (*self._metrics.items(), *waiting.items())
        return next((service for service, key in keys if key == event.key), "")

    def on_metrics(self, service: str, rollout: Rollout, known: AnalysisState, event: MetricsAnswered) -> AnalysisState:
        del self._metrics[service]
        spec = rollout.spec.analysis
        if spec is None or event.key != _key(service, rollout, f"{known.asked:.0f}"):
            return known
        states, evidence, first = dict(known.queries), known.evidence, 0
        for query in spec.queries:
            results = event.results[first : first + len(canary_queries.texts(query))]
            first += len(canary_queries.texts(query))
            state = states.get(query.name, QueryState())
            states[query.name], evidence = canary_queries.answered(query, state, evidence, results, known.asked)
        return replace(known, queries=states, evidence=evidence)

    def on_hook(
        self, service: str, rollout: Rollout, known: AnalysisState, event: HookDone, now: float
    ) -> AnalysisState:
        key, about = self._hooks.pop(service)
        if key != _key(service, rollout, about):
            return known  # of an earlier step, or of an attempt before it was resumed
        if event.outcome not in ("yes", "no"):
            self._hook_after[service] = now + canary_hook.RETRY_S
        return replace(known, hook=canary_hook.answered(known.hook, about, event.outcome, event.detail))


def _key(service: str, rollout: Rollout, about: str) -> str:
    return f"{PREFIX}{service}/{rollout.attempt}/{rollout.at_step + 1}/{about}"
