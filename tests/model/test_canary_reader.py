"""Steps and analyses as rollout files and the API give them: what is accepted, and one clear error for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.canary import Analysis, Query, Step
from sdlb.model.canary_reader import bad, read_analysis, read_steps
from sdlb.model.policy import Policy
from sdlb.model.policy_layers import Layers
from sdlb.model.problem import Invalid
from sdlb.model.rollout_reader import merged
from sdlb.node.release_file import read_rollout_file

FAIL = bad(lambda path: f"rollout: {'.'.join(path)}", "bad-rollout")
STEP: dict[str, Any] = {"nodes": 1, "share": 5, "for": "10m"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["nodes", "share", "for", "query", "name", "bad", "total", "max", "hook"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def test_steps_and_an_analysis_are_read() -> None:
    steps = read_steps([STEP, {"nodes": "25%", "share": 25, "for": 90}, {"for": "2h"}], FAIL)
    assert steps == (Step("1", 5.0, 600.0), Step("25%", 25.0, 90.0), Step("100%", 100.0, 7200.0))
    query = {"name": "carts", "source": "main", "bad": "a{version}", "total": "b{version}"}
    value = {"name": "cpu", "source": "main", "value": "c{version}", "max": 0.8}
    found = read_analysis({"tolerate": 1.5, "alpha": 0.05, "query": [query, value]}, FAIL, steps)
    assert found.queries == (
        Query("carts", "main", "a{version}", "b{version}"),
        Query("cpu", "main", value="c{version}", max_value=0.8),
    )
    assert (found.tolerate, found.alpha, found.requests_min, found.warm_up_s) == (1.5, 0.05, 1000, 60.0)
    assert read_analysis({}, FAIL, steps) == Analysis()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1] * 17, "is not a list of steps; use at most 16 tables"),
        ({}, "is not a list of steps"),
        ([1], "step 1 is not a table; use the keys nodes, share, for"),
        ([{"nodez": 1}], "step.nodez is not a known key; did you mean 'nodes'?"),
        ([{"nodes": 0}], "step.nodes step 1 has the value 0; use a number of nodes"),
        ([{"nodes": "101%"}], "step 1 has the value 101%"),
        ([{"nodes": True}], "step 1 has the value True"),
        ([{"share": 101}], "step 1 has the value 101; use a percentage from 0 to 100"),
        ([{"share": float("nan")}], "step 1 has the value nan"),
        ([{"for": "10 m"}], "step 1 has the value '10 m'; use seconds, or a time like"),
        ([{"for": -1}], "step 1 has the value -1"),
        ([{"for": "31d"}], "at most 30 days"),
        ([{"share": 25}, {"share": 5}], "step 2 has the share 5, less than the step before"),
        ([{"nodes": 3}, {"nodes": 2}], "step 2 has 2 nodes, fewer than the step before"),
        ([{"nodes": "30%"}, {"nodes": "5%"}], "step 2 has 5% nodes, fewer than the step before"),
    ],
)
def test_a_step_with_a_mistake_is_refused(data: object, words: str) -> None:
    with pytest.raises(Invalid) as error:
        read_steps(data, FAIL)
    assert words in f"{error.value.where} {error.value.what}; {error.value.do}".removeprefix("rollout: ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "is not a table"),
        ({"alfa": 1}, "did you mean 'alpha'?"),
        ({"alpha": 0}, "has the value 0; use a probability"),
        ({"tolerate": 0.9}, "use a ratio from 1 to 100"),
        ({"requests_min": 1.5}, "use a whole number"),
        ({"warm_up_s": -1}, "use seconds from 0"),
        ({"hook": "a b"}, "use the name of a hook"),
        ({"hook": "ftp://a"}, "or a URL that starts with https://"),
        ({"hook": "https://a b"}, "or a URL that starts with https://"),
        ({"hook_each": "hour"}, 'use "step" or "block"'),
        ({"query": {}}, "is not a list of queries"),
        ({"query": [{"name": "a", "source": "p"}]}, "has neither bad and total nor value"),
        ({"query": [{"name": "a", "source": "p", "bad": "x{version}"}]}, "has neither bad and total nor value"),
        ({"query": [{"name": "a", "source": "p", "value": "x{version}"}]}, "has a value without a bound"),
        ({"query": [{"name": "a", "source": "p", "value": "x", "max": 1}]}, "does not ask for a version"),
        (
            {"query": [{"name": "a", "source": "p", "bad": "x{version}", "total": "y{version}", "max": 1}]},
            "has a bound",
        ),
        ({"query": [{"name": "a", "source": "p", "value": "x{version}", "max": True}]}, "use a number"),
        ({"query": [{"name": "", "source": "p", "value": "x{version}", "max": 1}]}, "use letters, digits"),
        ({"query": [{"name": "a", "source": "p", "value": "x{version}", "max": 1}] * 2}, "has a twice"),
    ],
)
def test_an_analysis_with_a_mistake_is_refused(data: object, words: str) -> None:
    with pytest.raises(Invalid) as error:
        read_analysis(data, FAIL, (Step("1", 5.0, 60.0),))
    assert words in f"{error.value.what}; {error.value.do}"


def test_an_analysis_needs_steps_with_a_time() -> None:
    with pytest.raises(Invalid, match="stands without a step"):
        read_analysis({}, FAIL, ())
    with pytest.raises(Invalid, match="step 2 has no time"):
        read_analysis({}, FAIL, (Step("1", 5.0, 60.0), Step()))


@given(JSON)
def test_whatever_is_given_is_read_or_refused(data: object) -> None:
    for read in (lambda: read_steps(data, FAIL), lambda: read_analysis(data, FAIL, (Step("1", 5.0, 1.0),))):
        refused: list[Invalid] = []
        try:
            read()
        except Invalid as error:
            refused.append(error)
        assert all(each.code == "bad-rollout" and each.where.startswith("rollout") for each in refused)


def test_a_rollout_file_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "rollout.toml"
    file.write_text(
        'release = "catalog-1.0.2"\nstep = [{nodes = 1, share = 5, for = "10m"}]\nanalysis = {tolerate = 1.25}\n'
    )
    found = read_rollout_file(str(file))
    assert found.spec == {"step": [STEP], "analysis": {"tolerate": 1.25}}
    file.write_text('release = "catalog-1.0.2"\n\nstep = [{nodes = 1, shar = 5}]\n')
    with pytest.raises(Invalid) as error:
        read_rollout_file(str(file))
    assert str(error.value.where).startswith(f"{file}:3")
    file.write_text(json.dumps({"release": "catalog-1.0.2", "analysis": {"alpha": 2}, "step": [STEP]}))
    with pytest.raises(Invalid, match="use a probability"):
        read_rollout_file(str(file))


def test_a_policy_has_steps_and_an_analysis_and_a_rollout_file_comes_first() -> None:
    steps, analysis = [{"nodes": 1, "share": 5, "for": "10m"}], {"tolerate": 2, "query": [QUERY]}
    policy = Policy.from_data({"rollout": {"step": steps, "analysis": analysis}})
    assert Policy.from_data(json.loads(policy.to_json())) == policy
    spec = merged(policy.rollout, {})
    assert spec.step == (Step("1", 5.0, 600.0),) and spec.analysis is not None and spec.analysis.queries[0].name == "q"
    assert merged(policy.rollout, {"step": [{"nodes": "2", "share": 9.0, "for_s": 60.0}]}).step == (
        Step("2", 9.0, 60.0),
    )
    plain = merged(policy.rollout, {"step": []})
    assert (plain.step, plain.analysis) == ((), None), "without steps there is nothing to analyse"
    newer = {
        "rollout": {"step": [{"nodes": 1, "for": 5, "new": 1}], "analysis": {"new": 1, "query": [{**QUERY, "new": 1}]}}
    }
    assert Policy.from_data(newer, lenient=True).rollout.analysis is not None
    layers = Layers({"*": {"rollout": {"analysis": analysis}}, "catalog": {"rollout": {"step": steps}}})
    assert layers.of("catalog").rollout == policy.rollout


QUERY = {"name": "q", "source": "prom", "value": "depth{version='{version}'}", "max": 3}
