"""Node links: `core.messages` <-> proto/tree.proto.

Decoding gives the same values back that were encoded, and raises DecodeError for anything that is no message, names no
known kind, or holds a name that could not have been registered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError as ProtobufError

from sdlb.core import messages as m
from sdlb.model.problem import Invalid
from sdlb.model.route import Pattern
from sdlb.model.version import check_service, check_version, parse_declaration
from sdlb.wire import tree_pb2 as pb

NAME_CHARS_MAX = 2048
_STATES = {m.WAITING: pb.Verdict.WAITING, m.ACTIVE: pb.Verdict.ACTIVE, m.REFUSED: pb.Verdict.REFUSED}
_STATE_NAMES = {number: name for name, number in _STATES.items()}


class DecodeError(ValueError):
    """These bytes are no message of this protocol."""


# ------------------------------------------------------------------ parts


def _key(key: m.ClaimKey) -> pb.ClaimKey:
    return pb.ClaimKey(service=key.service, version=key.version, route=key.route)


def _to_key(key: pb.ClaimKey) -> m.ClaimKey:
    if max(len(key.service), len(key.version), len(key.route)) > NAME_CHARS_MAX:
        raise DecodeError(f"a name of over {NAME_CHARS_MAX} characters in a claim")
    return _checked_key(key.service, key.version, key.route)


@lru_cache(maxsize=65536)
def _checked_key(service: str, version: str, route: str) -> m.ClaimKey:
    """What a node checks of its own instances it checks of what others send too: an engine refuses a whole delta for
    one bad name in it."""
    try:
        key = m.ClaimKey(check_service(service), check_version(version), str(Pattern.parse(route)))
    except Invalid as problem:
        raise DecodeError(f"a claim with a bad key: {problem}") from None
    if key.route != route:
        raise DecodeError(f"a claim whose route is not in its one spelling, {key.route!r}")
    return key


def _declarations(texts: Sequence[str]) -> tuple[str, ...]:
    try:
        for text in texts:
            parse_declaration(text)
    except Invalid as problem:
        raise DecodeError(f"a claim with a bad declaration: {problem}") from None
    return tuple(texts)


def _claim(claim: m.Claim) -> pb.Claim:
    return pb.Claim(
        key=_key(claim.key),
        capacity=claim.capacity,
        count=claim.count,
        hosts=claim.hosts,
        compatible=claim.compatible,
        stamp=claim.stamp,
        open=claim.open,
        generation=claim.generation,
        leaving=claim.leaving,
        seen=claim.seen,
        presumed=claim.presumed,
        opening=claim.opening,
        granted=claim.granted,
    )


def _to_claim(claim: pb.Claim) -> m.Claim:
    return m.Claim(
        _to_key(claim.key),
        claim.capacity,
        claim.count,
        tuple(claim.hosts),
        _declarations(claim.compatible),
        claim.stamp,
        claim.open,
        claim.generation,
        claim.leaving,
        claim.seen,
        claim.presumed,
        claim.opening,
        claim.granted,
    )


def _policy(doc: m.PolicyDoc) -> pb.Policy:
    return pb.Policy(service=doc.service, revision=doc.revision, origin=doc.origin, json=doc.json)


def _to_policy(doc: pb.Policy) -> m.PolicyDoc:
    return m.PolicyDoc(doc.service, doc.revision, doc.origin, doc.json)


def _verdict(verdict: m.Verdict) -> pb.Verdict:
    return pb.Verdict(
        key=_key(verdict.key),
        state=_STATES[verdict.state],
        reason_code=verdict.reason_code,
        reason=verdict.reason,
        decided_by=verdict.decided_by,
        generation=verdict.generation,
        epoch=verdict.epoch,
    )


def _to_verdict(verdict: pb.Verdict) -> m.Verdict:
    state = _STATE_NAMES.get(verdict.state)
    if state is None:
        raise DecodeError(f"a verdict of the unknown state {verdict.state}")
    return m.Verdict(
        _to_key(verdict.key),
        state,
        verdict.reason_code,
        verdict.reason,
        verdict.decided_by,
        verdict.generation,
        verdict.epoch,
    )


# ------------------------------------------------------------------ child -> parent


def encode_up(message: m.UpMessage) -> bytes:
    match message:
        case m.Hello():
            hello = pb.Hello(
                protocol=message.protocol,
                node=message.node,
                node_id=message.node_id,
                incarnation=message.incarnation,
                data_address=message.data_address,
                below=message.labels,
                claims_digest=message.claims_digest,
            )
            up = pb.Up(hello=hello)
        case m.UpState():
            state = pb.UpState(
                seq=message.seq,
                full=message.full,
                claims=[_claim(claim) for claim in message.claims],
                withdrawn=[_key(key) for key in message.withdrawn],
                policies=[_policy(doc) for doc in message.policies],
            )
            up = pb.Up(state=state)
        case m.Beat():
            up = pb.Up(beat=pb.Beat(sent=message.sent, received=message.received))
        case m.Ask():
            up = pb.Up(ask=pb.Ask(id=message.id, method=message.method, path=message.path, body=message.body))
        case m.Bye():
            up = pb.Up(bye=pb.Bye())
    return up.SerializeToString()


def decode_up(raw: bytes) -> m.UpMessage:
    """Raises DecodeError."""
    try:
        up = pb.Up.FromString(raw)
    except ProtobufError as error:
        raise DecodeError(str(error)) from None
    match up.WhichOneof("kind"):
        case "hello":
            hello = up.hello
            if max(len(hello.node), len(hello.node_id), len(hello.data_address)) > NAME_CHARS_MAX:
                raise DecodeError("a Hello with a name of absurd length")
            return m.Hello(
                hello.node,
                hello.node_id,
                hello.incarnation,
                hello.data_address,
                hello.claims_digest,
                tuple(hello.below),
                hello.protocol,
            )
        case "state":
            return m.UpState(
                up.state.seq,
                up.state.full,
                tuple(_to_claim(claim) for claim in up.state.claims),
                tuple(_to_key(key) for key in up.state.withdrawn),
                tuple(_to_policy(doc) for doc in up.state.policies),
            )
        case "beat":
            return m.Beat(up.beat.sent, up.beat.received)
        case "ask":
            return m.Ask(up.ask.id, up.ask.method, up.ask.path, up.ask.body)
        case "bye":
            return m.Bye()
        case _:
            raise DecodeError("a message of no known kind")


# ------------------------------------------------------------------ parent -> child


def encode_down(message: m.DownMessage) -> bytes:
    match message:
        case m.Welcome():
            welcome = pb.Welcome(
                node=message.node,
                node_id=message.node_id,
                incarnation=message.incarnation,
                ancestors=message.ancestors,
                claims_digest=message.claims_digest,
                lease_ms=message.lease_ms,
                roots=message.roots,
            )
            down = pb.Down(welcome=welcome)
        case m.Refused():
            down = pb.Down(refused=pb.Refused(code=message.code, detail=message.detail))
        case m.DownState():
            state = pb.DownState(
                seq=message.seq,
                full=message.full,
                verdicts=[_verdict(verdict) for verdict in message.verdicts],
                forgotten=[_key(key) for key in message.forgotten],
                drained=[pb.DrainAck(key=_key(ack.key), leaving=ack.leaving) for ack in message.drained],
                policies=[_policy(doc) for doc in message.policies],
                ancestors=message.ancestors,
                roots=message.roots,
                received=message.received,
            )
            down = pb.Down(state=state)
        case m.Beat():
            down = pb.Down(beat=pb.Beat(sent=message.sent, received=message.received))
        case m.Answer():
            answers = [pb.RootAnswer(root=each.root, status=each.status, body=each.body) for each in message.answers]
            down = pb.Down(answer=pb.Answer(id=message.id, answers=answers, unreachable=message.unreachable))
    return down.SerializeToString()


def decode_down(raw: bytes) -> m.DownMessage:
    """Raises DecodeError."""
    try:
        down = pb.Down.FromString(raw)
    except ProtobufError as error:
        raise DecodeError(str(error)) from None
    match down.WhichOneof("kind"):
        case "welcome":
            welcome = down.welcome
            return m.Welcome(
                welcome.node,
                welcome.node_id,
                welcome.incarnation,
                tuple(welcome.ancestors),
                welcome.claims_digest,
                welcome.lease_ms,
                tuple(welcome.roots),
            )
        case "refused":
            return m.Refused(down.refused.code, down.refused.detail)
        case "state":
            return m.DownState(
                down.state.seq,
                down.state.full,
                tuple(_to_verdict(verdict) for verdict in down.state.verdicts),
                tuple(_to_key(key) for key in down.state.forgotten),
                tuple(m.DrainAck(_to_key(ack.key), ack.leaving) for ack in down.state.drained),
                tuple(_to_policy(doc) for doc in down.state.policies),
                tuple(down.state.ancestors),
                tuple(down.state.roots),
                down.state.received,
            )
        case "beat":
            return m.Beat(down.beat.sent, down.beat.received)
        case "answer":
            answers = tuple(m.RootAnswer(each.root, each.status, each.body) for each in down.answer.answers)
            return m.Answer(down.answer.id, answers, tuple(down.answer.unreachable))
        case _:
            raise DecodeError("a message of no known kind")
