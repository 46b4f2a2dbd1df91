"""`shadows` of a whole table against its definition, pair by pair."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.route import Pattern
from sdlb.model.shadow import shadows
from tests.model.test_wider import PATTERNS


@given(st.sets(PATTERNS, max_size=12))
def test_all_pairs_and_no_others_are_found(patterns: set[Pattern]) -> None:
    found = {(winner, loser) for winner, losers in shadows(patterns).items() for loser in losers}
    assert found == {(one, other) for one in patterns for other in patterns if one.shadows(other)}


def test_the_cost_of_a_large_table_is_not_that_of_all_pairs() -> None:
    """20,000 routes are 400 million pairs, which would take hours."""
    table = [Pattern(f"s{n}.example", "/*") for n in range(10_000)]
    table += [Pattern("example.com", f"/s{n}/*") for n in range(10_000)] + [Pattern("*", "/*")]
    found = shadows(table)
    assert sum(map(len, found.values())) == 20_000
