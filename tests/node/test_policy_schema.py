"""The published JSON Schema of policies accepts what the reader accepts, and refuses typical mistakes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.policy import Policy
from sdlb.model.problem import Invalid
from tests.model.gates import GATES, OPENING
from tests.model.test_gate import BAD_GATES, BAD_OPENINGS
from tests.model.test_policy import BAD, POLICY
from tests.model.test_policy_layers import documents
from tools.reference import PAGES, SCHEMA_FILE, policy_schema

FILE = json.loads(policy_schema())
VALID = jsonschema_rs.Draft202012Validator(FILE)


def valid(document: object, name: str = "catalog") -> bool:
    return VALID.is_valid({"policy": {name: document}})


def test_the_published_schema_is_current() -> None:
    assert (PAGES / SCHEMA_FILE).read_text() == policy_schema(), "run: make reference"
    jsonschema_rs.meta.validate(FILE)


@given(POLICY, GATES, OPENING)
def test_what_a_policy_writes_is_valid(policy: Policy, gates: Any, opening: Any) -> None:
    whole = {**policy.to_data(), **opening.to_data(), "gate": [gate.to_data() for gate in gates]}
    assert valid(json.loads(json.dumps(whole)))


@given(documents())
def test_what_the_reader_accepts_is_valid(document: dict[str, Any]) -> None:
    try:
        Policy.from_data(document)
    except Invalid:
        return
    assert valid(json.loads(json.dumps(document)))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 102),
    st.floats(0, 4000, allow_nan=False).map(lambda number: round(number, 3)),
    st.sampled_from(
        ["", "25%", "100%", "101%", "1.0.1", ">=1.0,<2", "*", "flip", "open", "client", "UTC", "09:00-16:00"]
    ),
    st.lists(st.sampled_from(["1.0.1", "*", ">=2", "", "mon", "a b"]), max_size=2),
)


@given(st.sampled_from([*Policy().to_data()]), st.sampled_from([None, "timeout_s", "by", "rule", "hash_load"]), VALUES)
def test_no_value_is_refused_that_the_reader_accepts(key: str, inner: str | None, value: object) -> None:
    document = {key: value if inner is None else {inner: value}}
    try:
        Policy.from_data(document)
    except Invalid:
        return
    assert valid(document), document


@given(st.sampled_from(["soak", "window", "approval", "hook", "min_ready", "depends_on"]), st.data())
def test_no_value_of_a_gate_is_refused_that_the_reader_accepts(kind: str, data: st.DataObject) -> None:
    keys = ["at", "for", "timeout_s", "on_timeout", "instances", "percent", "healthy_s", "days", "hours", "zone"]
    keys += ["service", "version", "by", "count", "run", "url", "back"]
    gate = {"name": "g", "kind": kind, **data.draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=3))}
    try:
        Policy.from_data({"gate": [gate]})
    except Invalid:
        return
    assert valid({"gate": [gate]}), gate


LOOSER = {"over 100", "range", "pairs", "no JSON", "deep JSON", "nested JSON", "not a number"}
"""Sums, ranges that cannot be compared, and what is no JSON."""
LOOSER_GATES = {"too many", "no hours", "a start at the end", "a bad range"}
LOOSER_OPENINGS = {"held what", "pinned to all", "a range"}


@pytest.mark.parametrize("name", sorted(set(BAD) - LOOSER))
def test_a_bad_policy_is_not_valid(name: str) -> None:
    assert not valid(json.loads(BAD[name][0]))


@pytest.mark.parametrize("name", sorted(set(BAD_GATES) - LOOSER_GATES))
def test_a_bad_gate_is_not_valid(name: str) -> None:
    assert not valid({"gate": [{"name": "g", **BAD_GATES[name][0]}]})


@pytest.mark.parametrize("name", sorted(set(BAD_OPENINGS) - LOOSER_OPENINGS))
def test_a_bad_opening_is_not_valid(name: str) -> None:
    assert not valid(BAD_OPENINGS[name][0])


@pytest.mark.parametrize("name", ["*", "cat*", "catalog", "a.b-c_1"])
def test_names(name: str) -> None:
    assert valid({"priority": "even"}, name)


@pytest.mark.parametrize("name", ["", "**", "c*t", "-", "a b", "*cat"])
def test_bad_names(name: str) -> None:
    assert not valid({"priority": "even"}, name)
    assert (
        not VALID.is_valid({"policies": {}}) and not VALID.is_valid({}) and not VALID.is_valid({"policy": {}, "x": 1})
    )
