"""`drain` of a policy, and how a rollout gets its drain deadline from it."""

from __future__ import annotations

import json

import pytest

from sdlb.model.drain import CUT, WAIT, Drain
from sdlb.model.policy import Policy
from sdlb.model.policy_layers import read, write
from sdlb.model.rollout_reader import merged

SPEC = '{"drain": {"deadline_s": 30, "then": "wait", "streams_s": 60}}'


def test_the_table_of_the_specification_is_the_default() -> None:
    assert Policy.from_json(SPEC).drain == Policy().drain == Drain(30.0, WAIT, 60.0)
    assert Policy.from_json('{"drain": {"then": "cut"}}').drain == Drain(then=CUT)
    assert Policy.from_json(Policy.from_json('{"drain": {"deadline_s": 7}}').to_json()).drain == Drain(7.0)


@pytest.mark.parametrize(
    ("policy", "given", "drain_s", "by_policy"),
    [
        ({}, {}, 30.0, True),
        ({"drain": {"deadline_s": 7}}, {}, 7.0, True),
        ({"drain": {"deadline_s": 7}, "rollout": {"soak_s": 1}}, {}, 7.0, True),
        ({"drain": {"deadline_s": 7}, "rollout": {"drain_s": 9}}, {}, 9.0, False),
        ({"drain": {"deadline_s": 7}, "rollout": {"drain_s": 9}}, {"drain_s": 3}, 3.0, False),
        ({"drain": {"deadline_s": 7}}, {"drain_s": 3}, 3.0, False),
    ],
)
def test_the_settings_of_a_rollout_come_before_those_of_all_drains(
    policy: dict[str, object], given: dict[str, object], drain_s: float, by_policy: bool
) -> None:
    for text in (json.dumps(policy), write(read(json.dumps(policy))), Policy.from_data(policy).to_json()):
        spec = merged(Policy.from_json(text, lenient=True).rollout, given)
        assert (spec.drain_s, spec.drain_by_policy) == (drain_s, by_policy)
