"""Patterns against a naive implementation of the contract: which match, which one wins, what is canonical."""

from __future__ import annotations

import posixpath
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sdlb.model.problem import Invalid
from sdlb.model.route import Pattern, best, canonical_host, canonical_path

LABEL = st.sampled_from(["a", "b", "shop", "com"])
HOST = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
PATH = st.text("ab/", max_size=5).map(lambda text: f"/{text}")
PATTERN_HOST = st.one_of(HOST, HOST.map(lambda host: f"*.{host}"), st.just("*"))
PATTERN = st.builds(Pattern, PATTERN_HOST, st.builds(str.__add__, PATH, st.sampled_from(["", "*"])))


def naive_matches(pattern: Pattern, host: str, path: str) -> bool:
    labels, wanted = host.split("."), pattern.host.split(".")
    if wanted[0] == "*":
        tail = wanted[1:]
        host_fits = len(labels) > len(tail) and labels[len(labels) - len(tail) :] == tail
    else:
        host_fits = labels == wanted
    prefix, star, _ = pattern.path.partition("*")
    return host_fits and (path[: len(prefix)] == prefix if star else path == prefix)


def naive_rank(pattern: Pattern) -> tuple[int, int, int, int]:
    """Exact host > longest wildcard suffix > `*`; then exact path > longest literal prefix."""
    labels = pattern.host.split(".")
    host = (2, 0) if labels[0] != "*" else (1, len(labels)) if len(labels) > 1 else (0, 0)
    path = (0, len(pattern.path)) if pattern.path.endswith("*") else (1, 0)
    return (*host, *path)


@given(PATTERN, HOST, PATH)
def test_matches(pattern: Pattern, host: str, path: str) -> None:
    assert pattern.matches(host, path) == naive_matches(pattern, host, path)


@given(st.lists(PATTERN, max_size=8), HOST, PATH)
def test_the_most_specific_pattern_that_matches_the_whole_request_wins(
    patterns: list[Pattern], host: str, path: str
) -> None:
    matching = [pattern for pattern in patterns if naive_matches(pattern, host, path)]
    winner = best(patterns, host, path)
    assert winner == max(matching, key=naive_rank, default=None)


@pytest.mark.parametrize(
    ("patterns", "request_", "winner"),
    [
        (("/a", "/a*"), "a.com/a", "*/a"),
        (("/a*", "/a/b*"), "a.com/a/b/c", "*/a/b*"),
        (("a.com/*", "/a/b/c"), "a.com/a/b/c", "a.com/*"),
        (("*.com/*", "*.a.com/*"), "x.a.com/", "*.a.com/*"),
        (("*.example.com/*",), "badexample.com/", None),
        (("*.example.com/*",), "example.com/", None),
    ],
)
def test_which_pattern_gets_a_request(patterns: tuple[str, ...], request_: str, winner: str | None) -> None:
    host, slash, path = request_.partition("/")
    found = best(map(Pattern.parse, patterns), host, slash + path)
    assert (None if found is None else str(found)) == winner


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/../b", "/b"),
        ("/../a", "/a"),
        ("/a//b", "/a//b"),
        ("/a/..b", "/a/..b"),
    ],
)
def test_dot_segments_are_resolved(path: str, canonical: str) -> None:
    assert canonical_path(path) == canonical


@given(st.lists(PATTERN, unique=True, max_size=8), HOST, PATH)
def test_two_patterns_that_match_one_request_never_tie(patterns: list[Pattern], host: str, path: str) -> None:
    ranks = sorted(pattern.specificity for pattern in patterns if pattern.matches(host, path))
    assert all(low < high for low, high in pairwise(ranks))


@given(PATTERN)
def test_what_is_written_is_read_again(pattern: Pattern) -> None:
    assert Pattern.parse(str(pattern)) == pattern


@given(PATTERN, PATTERN, HOST, PATH)
def test_patterns_that_match_one_request_overlap(one: Pattern, other: Pattern, host: str, path: str) -> None:
    if one.matches(host, path) and other.matches(host, path):
        assert one.overlaps(other)
    assert one.overlaps(other) == other.overlaps(one)


@given(PATTERN, PATTERN)
def test_of_two_that_overlap_one_shadows_the_other(one: Pattern, other: Pattern) -> None:
    assume(one != other)
    assert one.shadows(other) + other.shadows(one) == one.overlaps(other)
    if one.shadows(other):
        assert one.specificity > other.specificity


PARSED = {
    "example.com": "example.com/*",
    "EXAMPLE.com./x": "example.com/x",
    "*": "*/*",
    "/catalog*": "*/catalog*",
    "*.example.com/catalog/*": "*.example.com/catalog/*",
    "bücher.example/x": "xn--bcher-kva.example/x",
    "[2001:DB8:0::1]/x": "[2001:db8::1]/x",
    "example.com/%41*": None,
    "example.com/a/../b": None,
}


@pytest.mark.parametrize(("text", "canonical"), PARSED.items(), ids=PARSED)
def test_parse(text: str, canonical: str | None) -> None:
    """None: the message has the canonical form, which must be written out. A route that matches differently than it
    reads would mislead."""
    if canonical is None:
        with pytest.raises(Invalid, match="canonical form"):
            Pattern.parse(text)
    else:
        assert str(Pattern.parse(text)) == canonical


BAD = [
    "",
    "exa mple.com/x",
    "a.*.com/x",
    "*a.com/x",
    "example.com/a*b",
    "example.com/x?y",
    "example.com/x#y",
    "example.com/%2f",
    "example.com/a%2F..",
    "example.com/%5C",
    "example.com/%00",
    "example.com/%zz",
    "example.com/\x01",
    "example.com/é",
    "example.com:99999/x",
    "-a.com/x",
    "a..com/x",
    "*.[::1]/x",
    f"{'a' * 64}.com/x",
    f"example.com/{'x' * 2000}",
]


@pytest.mark.parametrize("text", BAD, ids=ascii)
def test_a_bad_pattern_is_one_clear_error(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        Pattern.parse(text)
    assert caught.value.code == "bad-route"
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_invalid(text: str) -> None:
    try:
        pattern = Pattern.parse(text)
    except Invalid:
        return
    assert Pattern.parse(str(pattern)) == pattern


@given(st.lists(st.sampled_from(["a", "b", ".", "..", ""]), max_size=6).map(lambda parts: "/" + "/".join(parts)))
def test_dot_segments_are_resolved_once_and_for_all(path: str) -> None:
    clean = canonical_path(path)
    assert canonical_path(clean) == clean
    assert not {".", ".."} & set(clean.split("/"))
    if "//" not in path:
        assert clean.rstrip("/") == posixpath.normpath(path).rstrip("/")


@given(st.text(st.characters(codec="ascii"), max_size=12))
def test_a_canonical_path_stays_as_it_is(text: str) -> None:
    try:
        clean = canonical_path(f"/{text}")
    except Invalid:
        return
    assert canonical_path(clean) == clean


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("example.com:8080", "example.com"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:80", "[::1]"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
    ],
)
def test_hosts(text: str, canonical: str) -> None:
    assert canonical_host(text) == canonical


@pytest.mark.parametrize("text", ["", ".", "a b", "a/b", "a:b", "a:-1", "a:", "[::1", "[x]", "user@a", "a" * 254])
def test_bad_hosts(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        canonical_host(text)
    assert caught.value.code == "bad-host"
