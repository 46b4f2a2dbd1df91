"""The settings of a rollout that may stand in a policy: the table `rollout`. They count for rollouts that start from then on.

`accept_gap` is not among them: to let a service fall below its floor is a decision about one rollout. An analysis may stand without
steps: it counts for rollouts that have some.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from msgspec.structs import replace

from sdlb.model.canary import Analysis, Step
from sdlb.model.canary_reader import ANALYSIS_KEYS, QUERY_KEYS, STEP_KEYS, bad, read_analysis, read_steps
from sdlb.model.canary_reader import to_data as canary_data
from sdlb.model.drain import Drain
from sdlb.model.policy_reader import Reader
from sdlb.model.rollout import RolloutSpec
from sdlb.model.rollout_reader import CANARY_KEYS, SPEC_KEYS, checked

SETTINGS = tuple(key for key in SPEC_KEYS if key != "accept_gap")
KEYS = (*SETTINGS, *CANARY_KEYS)
DEFAULT = RolloutSpec()


def read(top: Reader, drain: Drain) -> RolloutSpec:
    """`drain`: for drains of rollouts without a `drain_s`. Raises Invalid."""
    default = replace(DEFAULT, drain_s=drain.deadline_s, drain_by_policy=True)
    reader = top.inner("rollout", KEYS)
    if reader is None:
        return default
    found: dict[str, Any] = {}
    for key in SETTINGS:
        value = reader.get(key, getattr(DEFAULT, key))
        if key == "drain_s" and reader.get(key) is None:
            continue
        try:
            found[key] = checked(key, value)
        except ValueError as error:
            raise reader.fail(key, str(error)) from None
    step, analysis = _canary(reader)
    by_policy = "drain_s" not in found
    return replace(default, **found, step=step, analysis=analysis, drain_by_policy=by_policy)


def _canary(reader: Reader) -> tuple[tuple[Step, ...], Analysis | None]:
    step: object = reader.get("step", [])
    analysis: object = reader.get("analysis")
    if reader.lenient:
        step, analysis = _known(step, STEP_KEYS), _known(analysis, ANALYSIS_KEYS)
        if isinstance(analysis, dict):
            table = cast("dict[str, object]", analysis)
            analysis = {**table, "query": _known(table.get("query", []), QUERY_KEYS)}
    fail = bad(lambda path: reader.path(": ".join(path)), "bad-policy")
    return read_steps(step, fail), None if analysis is None else read_analysis(cast("object", analysis), fail, None)


def _known(data: object, keys: Sequence[str]) -> object:
    """Without the keys of a newer release."""
    if isinstance(data, list):
        return [_known(each, keys) for each in cast("list[object]", data)]
    if isinstance(data, dict):
        return {key: value for key, value in cast("dict[object, object]", data).items() if key in keys}
    return data


def to_data(spec: RolloutSpec) -> dict[str, object]:
    found = {key: getattr(spec, key) for key in SETTINGS}
    drain_s = None if spec.drain_by_policy else spec.drain_s
    return {**found, "drain_s": drain_s, **canary_data(spec.step, spec.analysis)}
