"""Policy documents are merged in order of specificity, and stored with the keys that were set."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.policy import Policy
from sdlb.model.policy_layers import (
    MARK,
    Layers,
    check_name,
    covers,
    keys_of,
    merge,
    only_known,
    read,
    without_defaults,
    write,
)
from sdlb.model.policy_text import TABLES
from sdlb.model.problem import Invalid
from tests.model.test_policy import POLICY

NAMES = st.sampled_from(["*", "c*", "cat*", "catalog*", "cat", "catalog", "catalogs", "d*", "dog"])
SERVICES = st.sampled_from(["c", "cat", "catalog", "catalogs", "dog", "x"])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Some keys of a valid policy; any subset of its inner keys."""
    whole = draw(POLICY).to_data()
    flat = list(keys_of(whole))
    kept = set(draw(st.lists(st.sampled_from(flat), max_size=8)))
    found: dict[str, Any] = {}
    for key, value in whole.items():
        if key in TABLES:
            value = {inner: each for inner, each in value.items() if f"{key}.{inner}" in kept}
            if value:
                found[key] = value
        elif key in kept:
            found[key] = value
    return found


@given(documents(), documents(), documents())
def test_merging_is_associative(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assert merge([merge([a, b]), c]) == merge([a, merge([b, c])]) == merge([a, b, c])
    assert merge([a]) == a == merge([{}, a]) == merge([a, {}])


@given(documents(), documents())
def test_the_more_specific_value_wins_and_the_rest_stays(a: dict[str, Any], b: dict[str, Any]) -> None:
    merged = merge([a, b])
    assert set(keys_of(merged)) == {*keys_of(a), *keys_of(b)}
    for source in (a, b):
        for key, value in source.items():
            for inner in value if key in TABLES else [None]:
                wins = b if key in b and (inner is None or inner in b[key]) else a
                assert (merged[key], wins[key]) if inner is None else (merged[key][inner], wins[key][inner])
                assert (merged[key] if inner is None else merged[key][inner]) == (
                    wins[key] if inner is None else wins[key][inner]
                )


@given(documents())
def test_a_document_is_stored_with_the_keys_that_were_set(document: dict[str, Any]) -> None:
    assert read(write(document)) == json.loads(json.dumps(document))


@given(POLICY)
def test_a_document_of_an_earlier_release_loses_its_defaults_and_means_the_same(policy: Policy) -> None:
    document = read(policy.to_json())
    assert Policy.from_data(document) == policy
    assert set(keys_of(document)).isdisjoint(keys_of(Policy().to_data())) or document == without_defaults(document)
    assert read(Policy().to_json()) == {}


@given(documents())
def test_an_earlier_release_reads_a_document_of_this_one(document: dict[str, Any]) -> None:
    """It ignores keys that it does not know."""
    try:
        whole = Policy.from_data(document)
    except Invalid:
        return
    assert Policy.from_json(write(document), lenient=True) == whole


def test_an_explicit_default_is_kept() -> None:
    assert read(write({"priority": "even", "park": {"timeout_s": 30}})) == {
        "priority": "even",
        "park": {"timeout_s": 30},
    }
    assert read('{"priority": "even", "park": {"timeout_s": 30.0, "requests_max": 5}}') == {"park": {"requests_max": 5}}
    assert read(json.dumps({MARK: True, "sticky": None, "shares": None, "park": None, "later": 1})) == {
        "shares": {},
        "sticky": None,
    }


@pytest.mark.parametrize("text", ["[]", "{", '{"priority": "fast"}', '{"park": 5}'])
def test_an_unreadable_document_is_an_error(text: str) -> None:
    with pytest.raises(Invalid):
        read(text)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["*", "catalog", "cat*", "catalog-*", "a.b*"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "**", "cat**", "c*t", "*cat", " *", "-*", "a b*", "x" * 128 + "*"])
def test_bad_names(name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)


def test_what_a_pattern_covers() -> None:
    assert covers("cat*", "cat") and covers("cat*", "catalog") and covers("cat*", "catalog*") and covers("cat*", "cat*")
    assert covers("*", "cat") and covers("*", "cat*") and covers("cat", "cat")
    assert not covers("catalog*", "cat") and not covers("catalog*", "cat*") and not covers("cat", "catalog")


# ---------------------------------------------------------------------- the policy of a service


def slow_of(all_documents: dict[str, dict[str, Any]], service: str) -> Policy:
    names = [name for name in all_documents if covers(name, service)]
    names.sort(key=lambda name: (not name.endswith("*"), len(name)))
    return Policy.from_data(merge(all_documents[name] for name in names), lenient=True)


@given(st.lists(st.tuples(NAMES, documents()), max_size=12), st.lists(SERVICES, min_size=1, max_size=4))
def test_the_policy_of_a_service_is_the_merge_of_its_documents(
    puts: list[tuple[str, dict[str, Any]]], services: list[str]
) -> None:
    """After each change, also for what was read before."""
    layers, known = Layers(), dict[str, dict[str, Any]]()
    for name, document in puts:
        document = {key: value for key, value in document.items() if key != "balance"}  # may contradict: below
        layers.put(name, document)
        known[name] = document
        for service in services:
            assert layers.of(service) == slow_of(known, service)
            merged = merge(each for _, each in layers.layers(service))
            sources = layers.sources(service)
            assert set(sources) == set(keys_of(merged))
            assert all(covers(source, service) for source in sources.values())
            assert not layers.contradictions(service)
    assert set(layers.documents) == {name for name, document in known.items() if document}
    assert layers.changed({}).documents == layers.documents


def test_each_key_has_its_source() -> None:
    layers = Layers(
        {
            "*": {"park": {"timeout_s": 5, "requests_max": 7}, "priority": "higher"},
            "cat*": {"park": {"timeout_s": 6}},
            "catalog": {"priority": "even", "shares": {"1.0.1": 5}},
        }
    )
    assert layers.sources("catalog") == {
        "park.timeout_s": "cat*",
        "park.requests_max": "*",
        "priority": "catalog",
        "shares": "catalog",
    }
    assert layers.sources("cat*") == {"park.timeout_s": "cat*", "park.requests_max": "*", "priority": "*"}
    assert layers.sources("dog")["park.timeout_s"] == "*"
    policy = layers.of("catalog")
    assert (policy.priority, policy.park.timeout_s, policy.park.requests_max) == ("even", 6, 7)
    assert layers.of("cat*").park.timeout_s == 6 and layers.of("cat*").priority == "higher"


def test_a_document_that_contradicts_a_more_specific_one_is_left_out() -> None:
    """The same at every node, whatever the order in which the documents came."""
    hash_by = {"balance": {"algorithm": "hash", "hash_by": "header", "hash_name": "x-user"}, "priority": "higher"}
    own = {"balance": {"hash_name": ""}, "priority": "lower"}
    for order in (("*", "cat"), ("cat", "*")):
        layers = Layers()
        for name in order:
            layers.put(name, hash_by if name == "*" else own)
            layers.of("cat")
        assert layers.contradictions("cat") == ["*"] and not layers.contradictions("dog")
        assert layers.of("cat") == Policy.from_data(own)
        assert layers.sources("cat") == {"balance.hash_name": "cat", "priority": "cat"}
    layers.put("cat", {})
    assert layers.of("cat") == layers.of("dog") == Policy.from_data(hash_by)


def test_unknown_keys_are_not_set() -> None:
    assert only_known({"later": 1, "park": {"later": 1, "timeout_s": 2}}) == {"park": {"timeout_s": 2}}


def test_a_pattern_that_changes_changes_what_was_read_before() -> None:
    layers = Layers({"*": {"priority": "higher"}, "catalog": {"timeout_s": 3}})
    assert layers.of("catalog").priority == layers.of("dog").priority == "higher"
    layers.put("*", {"priority": "lower"})
    assert layers.of("catalog").priority == layers.of("dog").priority == "lower"
    layers.put("*", {})
    assert layers.of("catalog").priority == layers.of("dog").priority == "even"
