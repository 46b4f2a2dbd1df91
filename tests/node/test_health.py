"""When an instance is checked again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.node.health import until_next


@given(st.floats(0, 1e7), st.floats(0.05, 3600))
def test_the_next_check_comes_about_an_interval_later(now: float, interval_s: float) -> None:
    assert 0.87 * interval_s <= until_next(now, interval_s) <= 1.13 * interval_s


@given(st.floats(0, 1e6), st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_instances_are_checked_at_few_moments(began: float, joined: list[float]) -> None:
    moments = {round((began + at + until_next(began + at, 2.0)) * 1e3) % 2000 for at in joined}
    assert moments <= {0, 500, 1000, 1500, 2000}


def test_it_keeps_to_its_moments() -> None:
    now = 1234.5678
    for _ in range(100):
        now += until_next(now, 2.0) + 0.003  # what a check takes
    assert until_next(now, 2.0) == pytest.approx(1.997)
