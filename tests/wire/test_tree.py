"""Every message of a node link comes out as it went in; everything else is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core import messages as m
from sdlb.wire import tree
from sdlb.wire import tree_pb2 as pb

NAME = st.text(st.characters(exclude_characters=" ", exclude_categories=["Cs"]), min_size=1, max_size=12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
SERVICE = st.from_regex(r"[a-z]([a-z._-]{0,8}[a-z])?", fullmatch=True)
VERSION = st.from_regex(r"[0-9](\.[0-9]{1,3}){0,3}", fullmatch=True)
ROUTE = st.from_regex(r"(\*\.)?[a-z]{1,5}\.com/[a-z]{0,5}\*?", fullmatch=True)
DECLARED = st.lists(st.sampled_from([">=1.0,<1.2", "1.0.1", "blue"]), max_size=3).map(tuple)
KEY = st.builds(m.ClaimKey, SERVICE, VERSION, ROUTE)
CLAIM = st.builds(
    m.Claim,
    KEY,
    capacity=U32,
    count=U32,
    hosts=TEXTS,
    compatible=DECLARED,
    stamp=U64,
    open=st.booleans(),
    generation=U64,
    leaving=U64,
    seen=U64,
    presumed=st.booleans(),
    opening=st.booleans(),
    granted=st.booleans(),
)
POLICY = st.builds(m.PolicyDoc, NAME, U64, TEXT, TEXT)
VERDICT = st.builds(m.Verdict, KEY, st.sampled_from([m.WAITING, m.ACTIVE, m.REFUSED]), TEXT, TEXT, TEXT, U64, U64)


def several(each: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(each, max_size=3).map(tuple)


UP = st.one_of(
    st.builds(m.Hello, NAME, NAME, U64, TEXT, U64, TEXTS, U32),
    st.builds(m.UpState, U64, st.booleans(), several(CLAIM), several(KEY), several(POLICY)),
    st.builds(m.Beat, U64, U64),
    st.builds(m.Ask, TEXT, TEXT, TEXT, st.binary(max_size=20)),
    st.just(m.Bye()),
)
DOWN = st.one_of(
    st.builds(m.Welcome, NAME, NAME, U64, TEXTS, U64, U32, TEXTS),
    st.builds(m.Refused, TEXT, TEXT),
    st.builds(
        m.DownState,
        U64,
        st.booleans(),
        several(VERDICT),
        several(KEY),
        several(st.builds(m.DrainAck, KEY, U64)),
        several(POLICY),
        TEXTS,
        TEXTS,
    ),
    st.builds(m.Beat, U64, U64),
    st.builds(m.Answer, TEXT, several(st.builds(m.RootAnswer, TEXT, U32, st.binary(max_size=20))), TEXTS),
)


@given(UP)
def test_up(message: m.UpMessage) -> None:
    assert tree.decode_up(tree.encode_up(message)) == message


@given(DOWN)
def test_down(message: m.DownMessage) -> None:
    assert tree.decode_down(tree.encode_down(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_decode_error(raw: bytes) -> None:
    for decode in (tree.decode_up, tree.decode_down):
        try:
            message = decode(raw)
        except tree.DecodeError:
            continue
        assert dataclasses.is_dataclass(message)


BAD = {
    "no kind": pb.Up(),
    "a claim without a key": pb.Up(state=pb.UpState(claims=[pb.Claim(count=1)])),
    "a space in a name": pb.Up(state=pb.UpState(withdrawn=[pb.ClaimKey(service="a b", version="1", route="x/")])),
    "an absurd name": pb.Up(state=pb.UpState(withdrawn=[pb.ClaimKey(service="a" * 9999, version="1", route="x/")])),
    "a line break in a name": pb.Up(state=pb.UpState(withdrawn=[pb.ClaimKey(service="a\n", version="1", route="x/")])),
    "a slash in a service": pb.Up(state=pb.UpState(withdrawn=[pb.ClaimKey(service="a/b", version="1", route="x/")])),
    "no pattern": pb.Up(state=pb.UpState(withdrawn=[pb.ClaimKey(service="a", version="1", route="x/a*b")])),
    "not canonical": pb.Up(state=pb.UpState(withdrawn=[pb.ClaimKey(service="a", version="1", route="X/")])),
    "a bad declaration": pb.Up(
        state=pb.UpState(
            claims=[pb.Claim(key=pb.ClaimKey(service="a", version="1", route="x/"), compatible=[">=1,\n"])]
        )
    ),
    "an absurd node": pb.Up(hello=pb.Hello(node="n" * 9999)),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_what_is_refused(message: pb.Up) -> None:
    with pytest.raises(tree.DecodeError):
        tree.decode_up(message.SerializeToString())


def test_an_unknown_state_of_a_verdict_is_refused() -> None:
    key = pb.ClaimKey(service="a", version="1", route="x/")
    verdict = pb.Verdict(key=key)
    raw = pb.Down(state=pb.DownState(verdicts=[verdict])).SerializeToString()
    assert tree.decode_down(raw)
    unknown = pb.Verdict.FromString(verdict.SerializeToString() + b"\x10\x09")  # state = 9
    with pytest.raises(tree.DecodeError):
        tree.decode_down(pb.Down(state=pb.DownState(verdicts=[unknown])).SerializeToString())
