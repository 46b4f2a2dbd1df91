"""Random gates and opening rules of a policy."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sdlb.model.gate import DAY_S, Approval, DependsOn, Gate, Hook, MinReady, Soak, Window
from sdlb.model.opening import ALL, CUT_OVERS, Opening

VERSION = st.sampled_from(["1.0.1", "2.0.0", "blue"])
RANGE = st.sampled_from(["1.0.1", ">=1.0,<1.2", ">2"])
SECONDS = st.integers(0, 31_536_000).map(float)
NAMES = st.sampled_from(["a", "b.c", "d-1", "e_f", "g"])
MINUTES = st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda pair: pair[0] != pair[1])
COMMON: dict[str, Any] = {
    "name": NAMES,
    "at": st.sampled_from(["before", "gap", "after"]),
    "applies": st.sampled_from(["incompatible", "every"]),
    "timeout_s": SECONDS,
    "on_timeout": st.sampled_from(["hold", "abort"]),
}


def _window(common: dict[str, Any], days: set[int], minutes: tuple[int, int], zone: str) -> Gate:
    return Window(**common, days=tuple(sorted(days)), start_s=minutes[0] * 60, end_s=minutes[1] * 60, zone=zone)


def _approval(common: dict[str, Any], by: list[str], count: int) -> Gate:
    return Approval(**common, by=tuple(by), count=min(count, len(by)))


GATE: st.SearchStrategy[Gate] = st.one_of(
    st.builds(MinReady, instances=st.integers(1, 1_000_000), percent=st.integers(0, 1000).map(float), **COMMON),
    st.builds(Soak, healthy_s=SECONDS, **COMMON),
    st.builds(
        _window,
        st.fixed_dictionaries(COMMON),
        st.sets(st.integers(0, 6), min_size=1),
        MINUTES,
        st.sampled_from(["UTC", "Europe/Berlin"]),
    ),
    st.builds(DependsOn, service=st.sampled_from(["db", "cache"]), version=RANGE, **COMMON),
    st.builds(
        _approval,
        st.fixed_dictionaries(COMMON),
        st.lists(st.sampled_from(["anna", "ben", "release bot"]), min_size=1, max_size=3, unique=True),
        st.integers(1, 3),
    ),
    st.builds(Hook, run=st.sampled_from(["migrate", "smoke"]), back=st.booleans(), **COMMON),
    st.builds(Hook, url=st.sampled_from(["https://ci.example/ok?v=1", "http://127.0.0.1:1/"]), **COMMON),
)
GATES: st.SearchStrategy[tuple[Gate, ...]] = st.lists(GATE, max_size=3, unique_by=lambda gate: gate.name).map(tuple)
assert DAY_S == 1440 * 60
OPENING = st.builds(
    Opening,
    cut_over=st.sampled_from(CUT_OVERS),
    max_unavailable=st.integers(0, 100).map("{}%".format) | st.integers(0, 1_000_000).map(str),
    hold=st.lists(RANGE | st.just(ALL), max_size=2).map(tuple),
    pin=st.lists(RANGE, max_size=2).map(tuple),
    never_below=st.just("") | VERSION,
)
