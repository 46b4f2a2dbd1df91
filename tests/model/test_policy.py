"""A policy is read as a whole, or refused with the key that is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.policy import AUTO, ON_SILENCE, PRIORITIES, STICKY_BY, Park, Policy, Sticky
from sdlb.model.problem import Invalid
from sdlb.model.rollout import SIDE_BY_SIDE, RolloutSpec
from sdlb.model.version import RULES, SCHEMES, Compatibility
from tests.model.traffic import TRAFFIC

VERSION = st.sampled_from(["1.0.1", "1.0.2", "2.0.0", "blue"])
PAIRS = st.lists(st.tuples(VERSION, VERSION), max_size=3).map(tuple)
POLICY = st.builds(
    Policy,
    priority=st.sampled_from(PRIORITIES),
    shares=st.dictionaries(VERSION, st.integers(0, 25)),
    sticky=st.none()
    | st.just(Sticky("session"))
    | st.builds(Sticky, st.sampled_from(STICKY_BY), st.just("who")).map(
        lambda sticky: sticky if sticky.by != "client" else Sticky("client")
    ),
    compatibility=st.builds(
        Compatibility,
        st.sampled_from(SCHEMES),
        st.sampled_from(RULES),
        st.lists(st.sampled_from([">=1.0,<1.2", "1.0.1"]), max_size=2).map(tuple),
        PAIRS,
        PAIRS,
    ),
    on_silence=st.sampled_from(ON_SILENCE),
    park=st.builds(Park, st.integers(0, 1_000_000), st.floats(0, 3600)),
    auto=st.sampled_from(AUTO),
    rollout=st.builds(
        RolloutSpec,
        st.sampled_from(SIDE_BY_SIDE),
        st.integers(1, 1_000_000),
        st.floats(0, 86_400),
        st.integers(0, 1_000_000),
        st.floats(1, 86_400),
        st.sampled_from(["10%", "100%", "3"]),
        st.floats(0, 86_400),
    ),
    traffic=TRAFFIC,
)


@given(POLICY)
def test_what_is_written_is_read_again(policy: Policy) -> None:
    assert Policy.from_json(policy.to_json()) == policy


def test_an_empty_policy_is_the_default() -> None:
    assert Policy.from_json("{}") == Policy()
    assert Policy().park == Park(requests_max=1000, timeout_s=30.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
INNER = ["algorithm", "hash_by", "hash_name", "in_flight", "adaptive", "scheme", "rule", "allow", "by", "name"]
KEYS = st.sampled_from([*Policy().to_data(), *INNER])


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=3), max_size=4))
def test_any_json_is_a_policy_or_invalid(data: dict[str, object]) -> None:
    try:
        policy = Policy.from_json(json.dumps(data))
    except Invalid:
        return
    assert Policy.from_json(policy.to_json()) == policy


BAD = {
    "unknown key of rollouts": ('{"rollout": {"soak": 5}}', "did you mean 'soak_s'"),
    "a gap for all rollouts": ('{"rollout": {"accept_gap": true}}', "is not a known key"),
    "no first node": ('{"rollout": {"first": 0}}', "use a whole number from 1 to 1000000"),
    "progress in no time": ('{"rollout": {"progress_s": 0}}', "use a number of seconds from 1 to 86400"),
    "a step with a typing error": ('{"rollout": {"step": [{"node": 1}]}}', "did you mean 'nodes'"),
    "an analysis of nothing": ('{"rollout": {"analysis": 1}}', "rollout: analysis: is not a table"),
    "no soak time": ('{"rollout": {"soak_s": null}}', "rollout: soak_s: has the value null"),
    "all nodes and more": ('{"rollout": {"nodes_out_max": "101%"}}', "use a percentage like"),
    "two at once": ('{"rollout": {"side_by_side": "yes"}}', "use incompatible, always or never"),
    "unknown key": ('{"prioirty": "even"}', "did you mean 'priority'"),
    "unknown priority": ('{"priority": "fast"}', "even, higher, lower, share"),
    "no object": ("[]", "not an object"),
    "no JSON": ("{", "not JSON"),
    "deep JSON": ("[" * 100_000, "longer than 64 KiB"),
    "nested JSON": ("[" * 60_000, "not JSON"),
    "over 100": ('{"shares": {"1.0.1": 60, "1.0.2": 50}}', "at most 100"),
    "negative": ('{"shares": {"1.0.1": -1}}', "shares"),
    "not a number": ('{"shares": {"1.0.1": NaN}}', "shares"),
    "no version": ('{"shares": {"a b": 1}}', "version"),
    "sticky": ('{"sticky": {"by": "cookie"}}', "cookie"),
    "sticky session": ('{"sticky": {"by": "session", "name": "a b"}}', "without spaces"),
    "park": ('{"park": {"requests_max": 1.5}}', "whole number"),
    "drain": ('{"drain": {"then": "kill"}}', "one of wait, cut"),
    "drain time": ('{"drain": {"deadline_s": -1}}', "number from 0 to 86400"),
    "drain key": ('{"drain": {"dealine_s": 5}}', "did you mean 'deadline_s'?"),
    "park time": ('{"park": {"timeout_s": true}}', "number from"),
    "pairs": ('{"compatibility": {"allow": [["1.0.1"]]}}', "pairs"),
    "algorithm": ('{"balance": {"algorithm": "best"}}', "balance: algorithm.*least_requests, peak_ewma"),
    "hash of nothing": ('{"balance": {"algorithm": "hash", "hash_by": "header"}}', "name the header"),
    "hash of no name": ('{"balance": {"hash_name": "a b"}}', "hash_name"),
    "tiny time": ('{"timeout_s": 0.0001}', "0.001 to 3600"),
    "latency of half": ('{"outlier": {"latency_factor": 0.5}}', "over 1"),
    "limit": ('{"limits": {"in_flight": 1.5}}', "whole number"),
    "no flag": ('{"limits": {"adaptive": 1}}', "true or false"),
    "retries": ('{"retries_max": 1.5}', "-1 for no limit"),
    "range": ('{"compatibility": {"ranges": [">=blue"]}}', "compared"),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=BAD)
def test_a_bad_policy_is_one_clear_error(text: str, told: str) -> None:
    with pytest.raises(Invalid, match=told):
        Policy.from_json(text, "policy of web")
