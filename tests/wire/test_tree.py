"""Every message of a node link is decoded as it was encoded; anything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from sdlb.core import messages as m
from sdlb.core.slot import ALL_SEEN
from sdlb.wire import limits, tree
from sdlb.wire import tree_pb2 as pb
from tests.wire import values

KEY = m.ClaimKey("a", "1", "x/")
PB_KEY = pb.ClaimKey(service="a", version="1", route="x/")


def ordered(message: Any) -> Any:
    """Withdrawals and documents of different kinds stand in lists of their own: their order among each other is free."""
    if isinstance(message, m.UpState):
        gone = sorted(message.withdrawn, key=lambda gone: gone.cause is not m.Cause.STOPPED)
        message = replace(message, withdrawn=tuple(gone))
    if isinstance(message, m.UpState | m.DownState):
        return replace(message, docs=tuple(sorted(message.docs, key=repr)))
    return message


@given(values.UP)
def test_up(message: m.UpMessage) -> None:
    assert ordered(tree.decode_up(tree.encode_up(message))) == ordered(message)


@given(values.DOWN)
def test_down(message: m.DownMessage) -> None:
    assert ordered(tree.decode_down(tree.encode_down(message))) == ordered(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_decode_error(raw: bytes) -> None:
    for decode in (tree.decode_up, tree.decode_down):
        try:
            message = decode(raw)
        except tree.DecodeError:
            continue
        assert isinstance(message, Struct)


@given(values.UP | values.DOWN, st.data())
def test_a_message_with_a_changed_byte_is_a_message_or_a_decode_error(message: Any, data: st.DataObject) -> None:
    is_up = isinstance(message, m.UpMessage) and not isinstance(message, m.Beat)
    raw = bytearray(tree.encode_up(message) if is_up else tree.encode_down(message))
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for decode in (tree.decode_up, tree.decode_down):
        try:
            decoded = decode(bytes(raw))
        except tree.DecodeError:
            continue
        encode: Any = tree.encode_up if decode is tree.decode_up else tree.encode_down
        assert ordered(decode(encode(decoded))) == ordered(decoded)


MANY = st.lists(st.integers(0, 999).map(lambda number: f"node-{number}"), max_size=100, unique=True).map(tuple)
HUGE = 1 << 80


@given(
    st.builds(m.UpState, values.upto(HUGE), claims=values.several(values.claims(HUGE, MANY)), roots=MANY),
    st.builds(
        m.DownState,
        values.upto(HUGE),
        verdicts=values.several(values.verdicts(HUGE, MANY)),
        path=st.builds(m.Path, MANY, MANY, MANY),
    ),
)
def test_what_is_over_the_limits_is_cut_and_can_be_read(up: m.UpState, down: m.DownState) -> None:
    """A sum over many children must not make a message that the parent refuses."""
    read = tree.decode_up(tree.encode_up(up))
    assert isinstance(read, m.UpState)
    for claim, was in zip(read.claims, up.claims, strict=True):
        assert (claim.capacity, claim.count) == (min(was.capacity, limits.COUNT_MAX), min(was.count, limits.COUNT_MAX))
        assert (claim.seen, claim.scope) == (min(was.seen, limits.NUMBER_MAX), was.scope[:64])
    assert isinstance(tree.decode_down(tree.encode_down(down)), m.DownState)


def test_what_conforms_to_everything_still_does_so_on_the_wire() -> None:
    read = tree.decode_up(tree.encode_up(m.UpState(1, claims=(m.Claim(KEY, seen=ALL_SEEN),))))
    assert isinstance(read, m.UpState)
    assert (limits.INCARNATION_MAX << 32) + (1 << 32) - 1 <= read.claims[0].seen < ALL_SEEN


def _claim(**changes: Any) -> pb.Up:
    return pb.Up(state=pb.UpState(claims=[pb.Claim(key=PB_KEY, **changes)]))


def _withdrawn(service: str, route: str) -> pb.Up:
    return pb.Up(state=pb.UpState(withdrawn=[pb.ClaimKey(service=service, version="1", route=route)]))


BEYOND = 1 << 53
MANY_NAMES = [f"n{number}" for number in range(65)]
BAD = {
    "no kind": pb.Up(),
    "a claim without a key": pb.Up(state=pb.UpState(claims=[pb.Claim(count=1)])),
    "a space in a name": _withdrawn("a b", "x/"),
    "an absurd name": _withdrawn("a" * 9999, "x/"),
    "a line break in a name": _withdrawn("a\n", "x/"),
    "a slash in a service": _withdrawn("a/b", "x/"),
    "no pattern": _withdrawn("a", "x/a*b"),
    "not canonical": _withdrawn("a", "X/"),
    "gone without a key": pb.Up(state=pb.UpState(gone=[pb.Gone(cause=pb.Gone.LEFT)])),
    "left without a key": pb.Up(bye=pb.Bye(left=[pb.ClaimKey()])),
    "a bad declaration": _claim(compatible=[">=1,\n"]),
    "too many declarations": _claim(compatible=["1"] * 257),
    "a capacity": _claim(capacity_wide=BEYOND),
    "a count": _claim(count_wide=BEYOND),
    "a stamp": _claim(stamp=BEYOND),
    "a generation": _claim(generation=BEYOND),
    "a digest of hosts": _claim(hosts_digest=BEYOND),
    "a drain": _claim(leaving=1 << 63),
    "an epoch": _claim(seen=1 << 63),
    "a doubted generation": _claim(doubted=BEYOND),
    "a lease": _claim(lease_s=(1 << 32) - 1),
    "too many hosts": _claim(hosts=MANY_NAMES),
    "too many roots in a scope": _claim(scope=MANY_NAMES),
    "too many roots that granted": _claim(granted_by=MANY_NAMES),
    "too many roots that refused": _claim(refused_by=MANY_NAMES),
    "a long host": _claim(hosts=["h" * 257]),
    "a host with a space": _claim(hosts=["a b"]),
    "a host with a line break": _claim(hosts=["a\nb"]),
    "an unknown stage": _claim(stage=9),
    "a sequence number": pb.Up(state=pb.UpState(seq=BEYOND)),
    "too many roots that are heard": pb.Up(state=pb.UpState(hears=pb.Roots(ids=MANY_NAMES))),
    "what was sent": pb.Up(beat=pb.Beat(sent=BEYOND)),
    "what was received": pb.Up(beat=pb.Beat(received=BEYOND)),
    "an absurd node": pb.Up(hello=pb.Hello(node="n" * 9999)),
    "an incarnation": pb.Up(hello=pb.Hello(incarnation=1 << 31)),
    "a protocol": pb.Up(hello=pb.Hello(protocol_max=(1 << 32) - 1)),
    "too many labels": pb.Up(hello=pb.Hello(below=MANY_NAMES)),
    "a long nonce": pb.Up(hello=pb.Hello(nonce="n" * 257)),
    "a policy of no service": pb.Up(state=pb.UpState(policies=[pb.Policy(service="a b", json="{}")])),
    "a revision": pb.Up(state=pb.UpState(policies=[pb.Policy(service="a", revision=BEYOND)])),
    "a huge report": pb.Up(state=pb.UpState(reports=[pb.Report(service="a", json=b"x" * ((1 << 20) + 1))])),
    "a report of no service": pb.Up(state=pb.UpState(reports=[pb.Report(service="a b")])),
    "a document without a kind": pb.Up(state=pb.UpState(docs=[pb.Doc(name="a")])),
    "a document of two kinds": pb.Up(state=pb.UpState(docs=[pb.Doc(kind="a/b", name="a")])),
    "a document of a policy with a bad name": pb.Up(state=pb.UpState(docs=[pb.Doc(kind="policy", name="a b")])),
    "a huge document": pb.Up(state=pb.UpState(docs=[pb.Doc(kind="k", name="a", body=b"x" * ((1 << 20) + 1))])),
    "a huge question": pb.Up(ask=pb.Ask(id="a", body=b"x" * ((1 << 20) + 1))),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_what_is_refused_from_a_child(message: pb.Up) -> None:
    with pytest.raises(tree.DecodeError):
        tree.decode_up(message.SerializeToString())


def _verdict(**changes: Any) -> pb.Down:
    return pb.Down(state=pb.DownState(verdicts=[pb.Verdict(key=PB_KEY, **changes)]))


BAD_DOWN = {
    "no kind": pb.Down(),
    "a generation": _verdict(generation=BEYOND),
    "an epoch": _verdict(epoch=1 << 63),
    "a stamp": _verdict(stamp=BEYOND),
    "too many roots in a scope": _verdict(scope=MANY_NAMES),
    "a long reason": _verdict(reason="x" * 8193),
    "too many fields": _verdict(reason_fields=dict.fromkeys(MANY_NAMES, "")),
    "a long field": _verdict(reason_fields={"a": "x" * 8193}),
    "the node that decided": _verdict(decided_by="a b"),
    "an unknown state": _verdict(state=9),
    "a drain": pb.Down(state=pb.DownState(drained=[pb.DrainAck(key=PB_KEY, leaving=1 << 63)])),
    "a dropped document": pb.Down(state=pb.DownState(dropped_docs=["a b"])),
    "too many roots of a document": pb.Down(state=pb.DownState(docs=[pb.Doc(kind="k", name="n", scope=MANY_NAMES)])),
    "too many roots": pb.Down(state=pb.DownState(roots=MANY_NAMES)),
    "too many ids of roots": pb.Down(welcome=pb.Welcome(root_ids=MANY_NAMES)),
    "what was received": pb.Down(state=pb.DownState(received=BEYOND)),
    "an incarnation": pb.Down(refused=pb.Refused(incarnation=1 << 30)),
    "a status": pb.Down(answer=pb.Answer(answers=[pb.RootAnswer(status=0)])),
}


@pytest.mark.parametrize("message", BAD_DOWN.values(), ids=BAD_DOWN)
def test_what_is_refused_from_a_parent(message: pb.Down) -> None:
    with pytest.raises(tree.DecodeError):
        tree.decode_down(message.SerializeToString())


def test_the_base_of_what_is_refused_is_not() -> None:
    assert tree.decode_up(_claim().SerializeToString()) == m.UpState(0, claims=(m.Claim(KEY),))
    assert isinstance(tree.decode_down(_verdict().SerializeToString()), m.DownState)


def test_a_cause_of_a_later_release_is_unknown() -> None:
    gone = pb.Gone.FromString(pb.Gone(key=PB_KEY).SerializeToString() + b"\x10\x63")
    read = tree.decode_up(pb.Up(state=pb.UpState(gone=[gone])).SerializeToString())
    assert read == m.UpState(0, withdrawn=(m.Gone(KEY, m.Cause.UNKNOWN),))


def test_a_beat_without_the_newer_field_has_a_say() -> None:
    assert tree.decode_down(pb.Down(beat=pb.Beat(sent=1)).SerializeToString()) == m.Beat(1, 0, has_say=True)
