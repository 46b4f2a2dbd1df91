"""Names, orders and compatibility of versions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.problem import Invalid
from sdlb.model.version import (
    RULES,
    SCHEMES,
    Compatibility,
    check_service,
    check_version,
    parse_declaration,
    sort_key,
    split_name,
)

NUMERIC = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
VERSION = st.one_of(NUMERIC, st.sampled_from(["blue", "green", "1.0.0-rc.1", "1.0.0+b7"]))
RANGE = st.lists(st.builds(str.__add__, st.sampled_from([">=", "<", ">", "<=", "="]), NUMERIC), min_size=1, max_size=3)
DECLARED = st.lists(st.one_of(RANGE.map(",".join), VERSION), max_size=3).map(tuple)
PAIRS = st.lists(st.tuples(VERSION, VERSION), max_size=3).map(tuple)
RULE = st.builds(
    Compatibility,
    st.sampled_from(SCHEMES),
    st.sampled_from(RULES),
    st.lists(RANGE.map(",".join), max_size=2).map(tuple),
    PAIRS,
    PAIRS,
)


@pytest.mark.parametrize(
    ("name", "service", "version"),
    [
        ("catalog-1.0.1", "catalog", "1.0.1"),
        ("my-service-2-3.4", "my-service-2", "3.4"),
        ("a-1-b", "a", "1-b"),
        ("x-1.0.0-rc.1", "x", "1.0.0-rc.1"),
    ],
)
def test_split_name(name: str, service: str, version: str) -> None:
    assert split_name(name) == (service, version)


@pytest.mark.parametrize("name", ["", "catalog", "catalog-", "-1", "catalog-blue", "catalog-٣"])
def test_a_name_without_a_version(name: str) -> None:
    with pytest.raises(Invalid, match="--service and --version"):
        split_name(name)


@given(st.text("abc-", max_size=5).map(lambda text: f"s{text}s"), NUMERIC)
def test_a_name_is_joined_and_split(service: str, version: str) -> None:
    assert split_name(f"{service}-{version}") == (service, version)


@given(RULE, VERSION, VERSION, DECLARED, DECLARED)
def test_compatible_is_symmetric(
    rule: Compatibility, a: str, b: str, of_a: tuple[str, ...], of_b: tuple[str, ...]
) -> None:
    assert rule.compatible(a, b, of_a, of_b) == rule.compatible(b, a, of_b, of_a)
    assert rule.compatible(a, a, of_a, of_b)


@given(RULE, VERSION, VERSION, DECLARED, DECLARED)
def test_an_operators_rule_overrides_everything(
    rule: Compatibility, a: str, b: str, of_a: tuple[str, ...], of_b: tuple[str, ...]
) -> None:
    named = {(a, b), (b, a)}
    if a != b and named & set(rule.deny):
        assert not rule.compatible(a, b, of_a, of_b)
    elif named & set(rule.allow):
        assert rule.compatible(a, b, of_a, of_b)


@given(VERSION, VERSION, DECLARED)
def test_one_sides_declaration_is_enough(a: str, b: str, declared: tuple[str, ...]) -> None:
    never = Compatibility(rule="exact")
    assert never.compatible(a, b, (*declared, b)) and never.compatible(a, b, (), (a,))


@given(NUMERIC, NUMERIC)
def test_patch_versions_differ_only_in_the_last_part(a: str, b: str) -> None:
    one, other = a.split("."), b.split(".")
    same = a == b or (len(one) == len(other) > 1 and one[:-1] == other[:-1])
    assert Compatibility().compatible(a, b) == same


@pytest.mark.parametrize(
    ("rule", "a", "b", "expected"),
    [
        (Compatibility(), "1.0.1", "1.0.2", True),
        (Compatibility(), "1.0.1", "1.1.0", False),
        (Compatibility(), "2.4", "2.9", True),
        (Compatibility(), "1", "2", False),
        (Compatibility(rule="minor"), "1.0.1", "1.9", True),
        (Compatibility(rule="minor"), "1.0.1", "2.0.1", False),
        (Compatibility(rule="exact"), "1.0.1", "1.0.2", False),
        (Compatibility(rule="any"), "1.0.1", "blue", True),
        (Compatibility(scheme="opaque"), "1.0.1", "1.0.2", False),
        (Compatibility(rule="exact", ranges=(">=1.0,<1.2",)), "1.0.9", "1.1", True),
        (Compatibility(rule="exact", ranges=(">=1.0,<1.2",)), "1.0.9", "1.2", False),
        (Compatibility(rule="exact", ranges=(">=1.0,<=1.2",)), "1.0.9", "1.2.0", True),
        (Compatibility(rule="any", deny=(("1.0.2", "1.0.1"),)), "1.0.1", "1.0.2", False),
        (Compatibility(allow=(("1.0", "2.0"),)), "2.0", "1.0", True),
        (Compatibility(allow=(("1.0", "2.0"),), deny=(("2.0", "1.0"),)), "1.0", "2.0", False),
    ],
)
def test_rules(rule: Compatibility, a: str, b: str, expected: bool) -> None:
    assert rule.compatible(a, b) == expected


def test_a_denied_pair_stays_apart_whatever_its_instances_declare() -> None:
    denied = Compatibility(deny=(("1.0", "2.0"),))
    assert not denied.compatible("1.0", "2.0", ("2.0",), ("1.0",))
    assert not denied.compatible("2.0", "1.0", ("1.0",), ("2.0",))


SEMVER = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
]


def test_semantic_versions_are_in_the_order_of_semver_org() -> None:
    shuffled = random.Random(3).sample(SEMVER, len(SEMVER))
    assert sorted(shuffled, key=lambda version: sort_key(version, "semver")) == SEMVER


@given(NUMERIC, NUMERIC)
def test_numeric_versions_are_ordered_by_their_numbers(a: str, b: str) -> None:
    one, other = [tuple(map(int, text.split("."))) for text in (a, b)]
    if one != other:
        assert (sort_key(a) < sort_key(b)) == (one < other)


@given(st.sampled_from(SCHEMES), st.lists(VERSION, max_size=6))
def test_two_versions_never_have_the_same_place(scheme: str, versions: list[str]) -> None:
    keys = sorted(sort_key(version, scheme) for version in versions)
    assert len(set(keys)) == len(set(versions))


BAD_DECLARATIONS = ["", ",", ">=", ">=1.0,", "=>1", ">=blue", ">=1," * 9 + "<2", "1" * 300, ">=1.0 <2"]


@pytest.mark.parametrize("text", BAD_DECLARATIONS, ids=lambda text: text[:20])
def test_a_bad_declaration_is_one_clear_error(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_declaration(text)
    assert caught.value.code == "bad-compatible" and len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", " ", "a b", "é", "-a", "a-", "a" * 129, "a\n", "a/b"])
def test_bad_services(text: str) -> None:
    with pytest.raises(Invalid):
        check_service(text)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("", "opaque"),
        ("1 0", "opaque"),
        ("1\n", "opaque"),
        ("x" * 129, "opaque"),
        ("1.0-rc", "numeric"),
        ("1.0\n", "numeric"),
        (".".join("1" * 9), "numeric"),
        ("9" * 19, "numeric"),
        ("1.0", "semver"),
        ("01.0.0", "semver"),
    ],
)
def test_bad_versions(text: str, scheme: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_version(text, scheme)
    assert caught.value.code == "bad-version"
