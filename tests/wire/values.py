"""Messages of node links, as Hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sdlb.core import messages as m
from sdlb.model import reason as r
from sdlb.wire import limits

NAME = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SERVICE = st.from_regex(r"[a-z]([a-z._-]{0,8}[a-z])?", fullmatch=True)
VERSION = st.from_regex(r"[0-9](\.[0-9]{1,3}){0,3}", fullmatch=True)
ROUTE = st.from_regex(r"(\*\.)?[a-z]{1,5}\.com/[a-z]{0,5}\*?", fullmatch=True)
DECLARED = st.lists(st.sampled_from([">=1.0,<1.2", "1.0.1", "blue"]), max_size=3).map(tuple)
KEY = st.builds(m.ClaimKey, SERVICE, VERSION, ROUTE)


def upto(most: int) -> st.SearchStrategy[int]:
    return st.integers(0, most) | st.sampled_from([0, 1, most])


def several(each: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(each, max_size=most).map(tuple)


COUNT = upto(limits.COUNT_MAX)
NUMBER = upto(limits.NUMBER_MAX)
DIGEST = upto((1 << 64) - 1)
NAMES = several(NAME)
HOSTS = several(NAME.filter(bool))


def claims(most: int = 0, names: Any = NAMES) -> st.SearchStrategy[m.Claim]:
    """`most`: of every number, in place of its limit."""
    count = upto(most) if most else COUNT
    return st.builds(
        m.Claim,
        KEY,
        capacity=count,
        count=count,
        hosts=names,
        hosts_digest=count,
        compatible=DECLARED,
        stage=st.sampled_from(m.Stage),
        opening=st.booleans(),
        stamp=count,
        generation=count,
        scope=names,
        granted=names,
        leaving=upto(most) if most else NUMBER,
        seen=upto(most) if most else NUMBER,
        lease_s=upto(most or limits.LEASE_S_MAX),
        doubted=count,
        refused=names,
    )


REASONS = st.one_of(
    st.just(r.Nothing()),
    st.builds(r.StillRunning, VERSION, COUNT, HOSTS),
    st.builds(r.Closing, NAME, HOSTS),
    st.builds(r.Settling, VERSION),
    st.builds(r.PresumedStopped, VERSION, HOSTS),
    st.builds(r.NewerGeneration, COUNT),
    st.builds(r.Contested, VERSION),
    st.builds(r.Incompatible, VERSION),
    st.builds(r.RouteConflict, ROUTE, SERVICE, NAME),
    st.builds(r.Asking, HOSTS),
    st.just(r.NoParent()),
    st.just(r.Unconfirmed()),
    st.builds(r.Replacing, VERSION),
    st.builds(r.Foreign, st.just("of-a-later-release"), TEXT, st.just((("count", "many"), ("host", "h")))),
)
STATES = st.sampled_from([m.WAITING, m.ACTIVE, m.REFUSED])


def verdicts(most: int = 0, names: Any = NAMES) -> st.SearchStrategy[m.Verdict]:
    count, number = (upto(most), upto(most)) if most else (COUNT, NUMBER)
    return st.builds(m.Verdict, KEY, STATES, REASONS, NAME, count, names, count, number)


POLICIES = st.builds(m.Doc, st.just(m.POLICY), SERVICE, COUNT, NAME, st.binary(max_size=12) | st.just(b"{}"))
OTHERS = st.builds(m.Doc, st.just("quota"), NAME.filter(bool), COUNT, NAME, st.binary(max_size=12))
DOCS = several(POLICIES | OTHERS)
GONE = st.builds(m.Gone, KEY, st.sampled_from(m.Cause))
BEAT = st.builds(m.Beat, COUNT, COUNT, st.booleans())
PATH = st.builds(m.Path, NAMES, NAMES, NAMES)
HELLO = st.builds(
    m.Hello,
    NAME,
    NAME,
    upto(limits.INCARNATION_MAX),
    NAME,
    DIGEST,
    several(TEXT),
    st.integers(1, 9),
    st.integers(1, 9),
    NAME,
    DIGEST,
    NAMES,
    DIGEST,
)
UP = st.one_of(
    HELLO,
    st.builds(
        m.UpState,
        COUNT,
        st.booleans(),
        several(claims()),
        several(GONE),
        DOCS,
        st.none() | NAMES,
        reports=several(st.tuples(SERVICE, st.binary(max_size=12))),
    ),
    BEAT,
    st.builds(m.Ask, NAME, NAME, TEXT, st.binary(max_size=20), NAME),
    st.builds(m.Bye, several(KEY)),
)
WELCOME = st.builds(
    m.Welcome,
    NAME,
    NAME,
    upto(limits.INCARNATION_MAX),
    PATH,
    DIGEST,
    NAME,
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
DOWN = st.one_of(
    WELCOME,
    st.builds(m.Refused, NAME, TEXT, upto(limits.REFUSED_INCARNATION_MAX)),
    st.builds(
        m.DownState,
        COUNT,
        st.booleans(),
        several(verdicts()),
        several(st.builds(m.DrainAck, KEY, NUMBER)),
        DOCS,
        PATH,
        COUNT,
        NAMES,
    ),
    BEAT,
    st.builds(
        m.Answer, NAME, several(st.builds(m.RootAnswer, NAME, st.integers(100, 599), st.binary(max_size=20))), NAMES
    ),
)
