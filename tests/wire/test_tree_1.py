"""Neighbouring releases form a tree: this release reads messages of protocol 1 and writes messages that protocol 1
reads.

`tree_1.proto` is its schema; the messages below are made and read with that alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core import messages as m
from sdlb.model import reason as r
from sdlb.wire import limits, tree
from tests.wire import values

HERE = Path(__file__).parent
KEY = m.ClaimKey("web", "1.0", "x.com/*")
U32 = (1 << 32) - 1


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The classes of protocol 1 by name, in a pool of their own."""
    out = tmp_path_factory.mktemp("tree_1") / "set"
    assert protoc.main(["protoc", f"-I{HERE}", f"--descriptor_set_out={out}", str(HERE / "tree_1.proto")]) == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    classes = message_factory.GetMessages(files, descriptor_pool.DescriptorPool())
    return {name.rpartition(".")[2]: kind for name, kind in classes.items()}


def claim_of(old: Any, **fields: Any) -> Any:
    key = old["ClaimKey"](service=KEY.service, version=KEY.version, route=KEY.route)
    return old["Claim"](key=key, **fields)


def read_claim(old: Any, **fields: Any) -> m.Claim:
    raw = old["Up"](state=old["UpState"](seq=1, claims=[claim_of(old, **fields)])).SerializeToString()
    message = tree.decode_up(raw)
    assert isinstance(message, m.UpState)
    return message.claims[0]


# ------------------------------------------------------------------ what it writes


@given(
    capacity=st.integers(0, U32),
    count=st.integers(0, U32),
    hosts=st.lists(values.NAME, max_size=5),
    stamp=values.COUNT,
    generation=values.COUNT,
    leaving=values.NUMBER,
    seen=values.NUMBER,
    is_open=st.booleans(),
    presumed=st.booleans(),
    opening=st.booleans(),
    granted=st.booleans(),
)
def test_its_claims_are_read(old: Any, is_open: bool, presumed: bool, granted: bool, **same: Any) -> None:
    claim = read_claim(old, open=is_open, presumed=presumed, granted=granted, compatible=[">=1"], **same)
    stage = m.Stage.SILENT if presumed else m.Stage.OPEN if is_open else m.Stage.WAITING
    same["hosts"] = tuple(same["hosts"])
    assert claim == m.Claim(KEY, compatible=(">=1",), stage=stage, **same)


def test_its_other_messages_are_read(old: Any) -> None:
    key = old["ClaimKey"](service=KEY.service, version=KEY.version, route=KEY.route)
    policy = old["Policy"](service="web", revision=3, origin="edge-1", json='{"priority": "even"}')
    doc = m.Doc("policy", "web", 3, "edge-1", b'{"priority": "even"}')
    verdict = old["Verdict"](
        key=key, state=0, reason_code="still-running", reason="1.0 still has 2 instances", generation=4, epoch=5 << 32
    )
    up: list[tuple[Any, m.UpMessage]] = [
        (
            {"hello": {"protocol": 1, "node": "n", "node_id": "id", "incarnation": 7, "data_address": "1.2.3.4:5"}},
            m.Hello("n", "id", 7, "1.2.3.4:5", protocol=1, protocol_max=1, features=()),
        ),
        ({"state": {"seq": 2, "full": True}}, m.UpState(2, full=True)),
        ({"state": {"withdrawn": [key]}}, m.UpState(0, withdrawn=(m.Gone(KEY, m.Cause.STOPPED),))),
        ({"state": {"policies": [policy]}}, m.UpState(0, docs=(doc,))),
        ({"beat": {"sent": 3, "received": 4}}, m.Beat(3, 4, has_say=True)),
        (
            {"ask": {"id": "a", "method": "GET", "path": "/v1/services", "body": b"x"}},
            m.Ask("a", "GET", "/v1/services", b"x"),
        ),
        ({"bye": {}}, m.Bye()),
    ]
    path = m.Path(("edge-1",), ("edge-1",))
    down: list[tuple[Any, m.DownMessage]] = [
        (
            {"welcome": {"node": "edge-1", "node_id": "i", "incarnation": 2, "ancestors": ["edge-1"], "roots": ["edge-1"],
                         "claims_digest": 9, "lease_ms": 10_000}},
            m.Welcome("edge-1", "i", 2, path, 9, protocol=1),
        ),
        ({"refused": {"code": "cycle", "detail": "no"}}, m.Refused("cycle", "no")),
        (
            {"state": {"seq": 1, "verdicts": [verdict], "forgotten": [key], "policies": [policy], "ancestors": ["edge-1"],
                       "roots": ["edge-1"], "drained": [{"key": key, "leaving": 8 << 32}], "received": 6}},
            m.DownState(
                1,
                verdicts=(
                    m.Verdict(KEY, m.WAITING, r.Foreign("still-running", "1.0 still has 2 instances"), generation=4, epoch=5 << 32),
                ),
                drained=(m.DrainAck(KEY, 8 << 32),),
                docs=(doc,),
                path=path,
                received=6,
            ),
        ),
        ({"beat": {"sent": 1}}, m.Beat(1, 0, has_say=True)),
        (
            {"answer": {"id": "a", "answers": [{"root": "r", "status": 200, "body": b"y"}], "unreachable": ["q"]}},
            m.Answer("a", (m.RootAnswer("r", 200, b"y"),), ("q",)),
        ),
    ]  # fmt: skip
    for fields, message in up:
        assert tree.decode_up(old["Up"](**fields).SerializeToString()) == message
    for fields, message in down:
        assert tree.decode_down(old["Down"](**fields).SerializeToString()) == message


# ------------------------------------------------------------------ what it reads


def written(old: Any, claim: m.Claim) -> Any:
    return old["Up"].FromString(tree.encode_up(m.UpState(1, claims=(claim,)))).state.claims[0]


@given(values.claims())
def test_it_reads_our_claims(old: Any, claim: m.Claim) -> None:
    read = written(old, claim)
    assert (read.key.service, read.key.version, read.key.route) == claim.key
    assert (read.capacity, read.count) == (min(claim.capacity, U32), min(claim.count, U32))
    assert (tuple(read.hosts), tuple(read.compatible)) == (claim.hosts, claim.compatible)
    assert (read.stamp, read.generation, read.opening) == (claim.stamp, claim.generation, claim.opening)
    assert (read.leaving, read.seen) == (claim.leaving, claim.seen)
    assert (read.presumed, read.granted) == (claim.stage is m.Stage.SILENT, bool(claim.granted))
    assert read.open == (claim.stage is not m.Stage.WAITING), "what is silent may be open"


@given(values.verdicts())
def test_it_reads_our_verdicts(old: Any, verdict: m.Verdict) -> None:
    read = old["Down"].FromString(tree.encode_down(m.DownState(1, verdicts=(verdict,)))).state.verdicts[0]
    assert (read.reason_code, read.reason) == (verdict.reason.code, str(verdict.reason))
    assert (read.decided_by, read.generation, read.epoch) == (verdict.decided_by, verdict.generation, verdict.epoch)
    assert read.DESCRIPTOR.enum_types_by_name["State"].values_by_number[read.state].name.lower() == verdict.state


def test_it_reads_our_other_messages(old: Any) -> None:
    doc, other = m.Doc("policy", "web", 3, "edge-1", b"{}"), m.Doc("quota", "web", 1, "edge-1", b"\xff")
    path = m.Path(("edge-1", "rack"), ("edge-1",), ("id",))
    hello = old["Up"].FromString(tree.encode_up(m.Hello("n", "id", 7, "1.2.3.4:5", 9, ("zone=a",), nonce="x"))).hello
    assert (hello.protocol, hello.node, hello.claims_digest, list(hello.below)) == (1, "n", 9, ["zone=a"])
    gone = (m.Gone(KEY, m.Cause.STOPPED), m.Gone(m.ClaimKey("b", "1", "y/"), m.Cause.LEFT))
    state = m.UpState(2, True, (), gone, (doc, other), ("id",), reports=(("web", b'{"nodes":1}'),))
    up = old["Up"].FromString(tree.encode_up(state)).state
    assert ([key.service for key in up.withdrawn], up.seq, up.full) == (["web"], 2, True)
    assert [(each.service, each.revision, each.json) for each in up.policies] == [("web", 3, "{}")]
    assert old["Up"].FromString(tree.encode_up(m.Bye((KEY,)))).WhichOneof("kind") == "bye"
    welcome = old["Down"].FromString(tree.encode_down(m.Welcome("edge-1", "i", 2, path, 9))).welcome
    assert (list(welcome.ancestors), list(welcome.roots), welcome.claims_digest) == (["edge-1", "rack"], ["edge-1"], 9)
    down = old["Down"].FromString(tree.encode_down(m.DownState(1, docs=(doc, other), path=path, received=6))).state
    assert (list(down.ancestors), list(down.roots), down.received) == (["edge-1", "rack"], ["edge-1"], 6)
    assert [each.service for each in down.policies] == ["web"]
    beat = old["Down"].FromString(tree.encode_down(m.Beat(1, 2, has_say=False))).beat
    assert (beat.sent, beat.received) == (1, 2)
    refused = old["Down"].FromString(tree.encode_down(m.Refused("older-incarnation", "no", 5))).refused
    assert (refused.code, refused.detail) == ("older-incarnation", "no")


def test_a_sum_that_is_too_large_for_it_is_as_large_as_it_can_be(old: Any) -> None:
    claim = m.Claim(KEY, capacity=limits.COUNT_MAX, count=U32 + 1)
    read = written(old, claim)
    assert (read.capacity, read.count) == (U32, U32)
    assert tree.decode_up(tree.encode_up(m.UpState(1, claims=(claim,)))) == m.UpState(1, claims=(claim,))
