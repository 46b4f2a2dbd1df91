"""Random traffic settings of a policy, all of them in whole milliseconds and hundredths."""

from __future__ import annotations

from hypothesis import strategies as st

from sdlb.model.traffic import ALGORITHMS, HASH_BY, ZONES, Balance, Limits, Outlier, Traffic

COUNT = st.integers(0, 1_000_000)
SECONDS = st.integers(0, 3_600_000).map(lambda ms: ms / 1000)


def hundredths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda number: number / 100)


TRAFFIC = st.builds(
    Traffic,
    balance=st.builds(
        Balance,
        st.sampled_from(ALGORITHMS),
        st.sampled_from(HASH_BY),
        st.just("x-who"),
        hundredths(100, 10_000),
        SECONDS,
        st.sampled_from(ZONES),
    ),
    outlier=st.builds(
        Outlier,
        hundredths(0, 10_000),
        st.just(0.0) | hundredths(101, 100_000),
        st.integers(0, 100),
        st.integers(1_000, 3_600_000).map(lambda ms: ms / 1000),
        COUNT,
    ),
    limits=st.builds(Limits, COUNT, COUNT, COUNT, COUNT, SECONDS, st.booleans()),
    timeout_s=SECONDS,
    try_timeout_s=SECONDS,
    retries_max=st.integers(-1, 30),
    hedge_s=SECONDS,
)
