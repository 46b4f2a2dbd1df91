"""`Pattern.wider` against its definition: every less specific pattern that matches all that this one does, and no other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.route import Pattern

LABELS = st.lists(st.sampled_from(["a", "b", "com"]), min_size=1, max_size=3).map(".".join)
HOSTS = st.one_of(st.just("*"), LABELS, LABELS.map(lambda name: f"*.{name}"))
PATHS = st.builds(lambda path, star: f"/{path}{star}", st.text("ab/", max_size=4), st.sampled_from(["", "*"]))
PATTERNS = st.builds(Pattern, HOSTS, PATHS)


@given(PATTERNS, PATTERNS)
def test_wider_is_exactly_what_matches_all_of_it(narrow: Pattern, other: Pattern) -> None:
    hosts = {narrow.host} if not narrow.host.startswith("*") else {f"x{narrow.host[1:]}", f"y.z{narrow.host[1:]}"}
    hosts = {"x", "y.com"} if narrow.host == "*" else hosts
    paths = {narrow.path.rstrip("*")} | (
        {f"{narrow.path[:-1]}{end}" for end in "abz/"} if "*" in narrow.path else set()
    )
    all_matched = all(other.matches(host, path) for host in hosts for path in paths)
    expected = all_matched and other != narrow and other.specificity < narrow.specificity
    assert (other in set(narrow.wider())) == expected


@given(PATTERNS)
def test_wider_is_bounded_by_the_length_of_the_pattern(pattern: Pattern) -> None:
    found = list(pattern.wider())
    assert len(found) == len(set(found)) <= (pattern.host.count(".") + 3) * (len(pattern.path) + 1)
