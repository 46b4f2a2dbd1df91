"""Conversion for node links: `core.messages` to and from proto/tree.proto.

Decoding returns the values that were encoded, except values over the limits of `wire.limits`. It raises DecodeError for
bytes that are not a message, an unknown kind, a value over a limit, and a name that no instance could register.

Protocol 1, of the previous release, has fewer fields. Encoding also writes the fields that protocol 1 reads (`open`,
`presumed`, `granted`, `withdrawn`, the sentence of a reason). Decoding reads them where the newer field is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError as ProtobufError

from sdlb.core import messages as m
from sdlb.model.problem import Invalid
from sdlb.model.reason import reason_of, to_fields
from sdlb.model.route import Pattern
from sdlb.model.version import check_service, check_version, parse_declaration
from sdlb.wire import limits as at
from sdlb.wire import tree_pb2 as pb
from sdlb.wire.limits import DecodeError

__all__ = ["DecodeError", "decode_down", "decode_up", "encode_down", "encode_up"]

_STATES = {m.WAITING: pb.Verdict.WAITING, m.ACTIVE: pb.Verdict.ACTIVE, m.REFUSED: pb.Verdict.REFUSED}
_STATE_NAMES = {number: name for name, number in _STATES.items()}
_STAGES = {m.Stage.SILENT: pb.Claim.SILENT, m.Stage.WAITING: pb.Claim.WAITING, m.Stage.OPEN: pb.Claim.OPEN}
_STAGE_OF = {number: stage for stage, number in _STAGES.items()}
_CAUSES = {m.Cause.PRESUMED: pb.Gone.PRESUMED, m.Cause.LEFT: pb.Gone.LEFT, m.Cause.UNKNOWN: pb.Gone.UNKNOWN}
_CAUSE_OF = {number: cause for cause, number in _CAUSES.items()}


# ------------------------------------------------------------------ keys


def _key(key: m.ClaimKey) -> pb.ClaimKey:
    return pb.ClaimKey(service=key.service, version=key.version, route=key.route)


def _to_key(key: pb.ClaimKey) -> m.ClaimKey:
    if max(len(key.service), len(key.version), len(key.route)) > at.KEY_CHARS_MAX:
        raise DecodeError(f"a claim has a name longer than {at.KEY_CHARS_MAX} characters")
    return _checked_key(key.service, key.version, key.route)


@lru_cache(maxsize=65536)
def _checked_key(service: str, version: str, route: str) -> m.ClaimKey:
    """Applies the checks for local instances to claims of other nodes too: one bad name makes the engine refuse a delta."""
    try:
        key = m.ClaimKey(check_service(service), check_version(version), str(Pattern.parse(route)))
    except Invalid as problem:
        raise DecodeError(f"a claim has an invalid key: {problem}") from None
    if key.route != route:
        raise DecodeError(f"a claim has a route that is not canonical, which is {key.route!r}")
    return key


def _declarations(texts: Sequence[str]) -> tuple[str, ...]:
    if not texts:
        return ()
    if len(texts) > at.COMPATIBLE_MAX:
        raise DecodeError(f"a claim has {len(texts)} declarations; the limit is {at.COMPATIBLE_MAX}")
    try:
        for text in texts:
            parse_declaration(text)
    except Invalid as problem:
        raise DecodeError(f"a claim has an invalid declaration: {problem}") from None
    return tuple(texts)


# ------------------------------------------------------------------ claims


def _claim(claim: m.Claim) -> pb.Claim:
    """Protocol 1 has 32 bits for sums. It has no stage SILENT, so a silent claim is also written as `open`: it must not count
    as stopped."""
    capacity, count = at.at_most(claim.capacity), at.at_most(claim.count)
    message = pb.Claim(
        key=_key(claim.key),
        capacity=at.at_most(capacity, at.U32_MAX),
        count=at.at_most(count, at.U32_MAX),
        hosts=at.first(claim.hosts),
        compatible=at.first(claim.compatible, at.COMPATIBLE_MAX),
        stamp=at.at_most(claim.stamp),
        open=claim.stage is not m.Stage.WAITING,
        generation=at.at_most(claim.generation),
        leaving=at.at_most(claim.leaving, at.NUMBER_MAX),
        seen=at.at_most(claim.seen, at.NUMBER_MAX),
        presumed=claim.stage is m.Stage.SILENT,
        opening=claim.opening,
        granted=bool(claim.granted),
        stage=_STAGES[claim.stage],
        hosts_digest=at.at_most(claim.hosts_digest),
        scope=at.first(claim.scope),
        granted_by=at.first(claim.granted),
        lease_s=at.at_most(claim.lease_s, at.LEASE_S_MAX),
        doubted=at.at_most(claim.doubted),
        refused_by=at.first(claim.refused),
        why=claim.why[: at.WHY_CHARS_MAX],
        able=at.at_most(claim.able),
        healthy=at.at_most(claim.healthy),
        joined=at.first(claim.joined),
    )
    if capacity > at.U32_MAX:
        message.capacity_wide = capacity
    if count > at.U32_MAX:
        message.count_wide = count
    return message


def _to_claim(claim: pb.Claim) -> m.Claim:
    return m.Claim(
        key=_to_key(claim.key),
        capacity=at.number(claim.capacity_wide or claim.capacity, at.COUNT_MAX, "a capacity"),
        count=at.number(claim.count_wide or claim.count, at.COUNT_MAX, "a count of instances"),
        hosts=at.names(claim.hosts, "hosts"),
        hosts_digest=at.number(claim.hosts_digest, at.COUNT_MAX, "the digest of the hosts"),
        compatible=_declarations(claim.compatible),
        stage=_to_stage(claim),
        opening=claim.opening,
        stamp=at.number(claim.stamp, at.COUNT_MAX, "a stamp"),
        generation=at.number(claim.generation, at.COUNT_MAX, "a generation"),
        scope=at.names(claim.scope, "roots of a scope"),
        granted=at.names(claim.granted_by, "roots that have granted a claim"),
        leaving=at.number(claim.leaving, at.NUMBER_MAX, "the number of a drain"),
        seen=at.number(claim.seen, at.NUMBER_MAX, "an epoch"),
        lease_s=at.number(claim.lease_s, at.LEASE_S_MAX, "a lease"),
        doubted=at.number(claim.doubted, at.COUNT_MAX, "a generation"),
        refused=at.names(claim.refused_by, "roots that have refused a claim"),
        why=at.text(claim.why, at.WHY_CHARS_MAX, "why a claim is not ready"),
        able=at.number(claim.able, at.COUNT_MAX, "a capacity"),
        healthy=at.number(claim.healthy, at.COUNT_MAX, "a count of instances"),
        joined=at.names(claim.joined, "roots that follow an opening"),
    )


def _to_stage(claim: pb.Claim) -> m.Stage:
    if claim.stage:
        stage = _STAGE_OF.get(claim.stage)
        if stage is None:
            raise DecodeError(f"a claim has the unknown stage {claim.stage}")
        return stage
    if claim.presumed:
        return m.Stage.SILENT
    return m.Stage.OPEN if claim.open else m.Stage.WAITING


def _to_gone(message: pb.UpState) -> tuple[m.Gone, ...]:
    """Stopped claims come first, because the message lists them separately."""
    stopped = [m.Gone(_to_key(key), m.Cause.STOPPED) for key in message.withdrawn]
    others = [m.Gone(_to_key(gone.key), _CAUSE_OF.get(gone.cause, m.Cause.UNKNOWN)) for gone in message.gone]
    return (*stopped, *others)


def _to_reports(reports: Sequence[pb.Report]) -> tuple[tuple[str, bytes], ...]:
    if len(reports) > at.REPORTS_MAX:
        raise DecodeError(f"{len(reports)} reports; the limit is {at.REPORTS_MAX}")
    return tuple(
        [(at.name(each.service, "the service of a report"), at.body(each.json, "a report")) for each in reports]
    )


# ------------------------------------------------------------------ documents


def _docs(docs: Iterable[m.Doc]) -> tuple[list[pb.Policy], list[pb.Doc]]:
    policies: list[pb.Policy] = []
    others: list[pb.Doc] = []
    for doc in docs:
        json = _utf8(doc.body) if doc.kind == m.POLICY else None
        revision, origin, scope = at.at_most(doc.revision), doc.origin, at.first(doc.scope)
        if json is not None:
            policies.append(pb.Policy(service=doc.name, revision=revision, origin=origin, json=json, scope=scope))
        else:
            others.append(
                pb.Doc(kind=doc.kind, name=doc.name, revision=revision, origin=origin, body=doc.body, scope=scope)
            )
    return policies, others


def _utf8(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _to_docs(policies: Sequence[pb.Policy], others: Sequence[pb.Doc]) -> tuple[m.Doc, ...]:
    found = [_to_doc(m.POLICY, doc.service, doc, doc.json.encode()) for doc in policies]
    found += [_to_doc(doc.kind, doc.name, doc, doc.body) for doc in others]
    return tuple(found)


def _to_doc(kind: str, name: str, doc: pb.Policy | pb.Doc, body: bytes) -> m.Doc:
    if not kind or "/" in kind or not name:
        raise DecodeError(f"a document has the kind {kind[:40]!r} and the name {name[:40]!r}")
    if kind == m.POLICY:
        try:
            check_service(name)  # the engine gets the name
        except Invalid as problem:
            raise DecodeError(f"a policy has an invalid name: {problem}") from None
    return m.Doc(
        at.name(kind, "the kind of a document"),
        at.name(name, "the name of a document"),
        at.number(doc.revision, at.COUNT_MAX, "a revision"),
        at.name(doc.origin, "the origin of a document"),
        at.body(body, f"the document {kind}/{name}"),
        at.names(doc.scope, "roots of a document"),
    )


# ------------------------------------------------------------------ verdicts


def _verdict(verdict: m.Verdict) -> pb.Verdict:
    reason = verdict.reason
    return pb.Verdict(
        key=_key(verdict.key),
        state=_STATES[verdict.state],
        reason_code=reason.code,
        reason=str(reason)[: at.TEXT_CHARS_MAX],
        decided_by=verdict.decided_by,
        generation=at.at_most(verdict.generation),
        epoch=at.at_most(verdict.epoch, at.NUMBER_MAX),
        scope=at.first(verdict.scope),
        stamp=at.at_most(verdict.stamp),
        reason_fields={name: value[: at.TEXT_CHARS_MAX] for name, value in to_fields(reason).items()},
        joined=verdict.joined,
    )


def _to_verdict(verdict: pb.Verdict) -> m.Verdict:
    state = _STATE_NAMES.get(verdict.state)
    if state is None:
        raise DecodeError(f"a verdict has the unknown state {verdict.state}")
    fields = dict(verdict.reason_fields)
    if len(fields) > at.FIELDS_MAX:
        raise DecodeError(f"a reason has {len(fields)} fields; the limit is {at.FIELDS_MAX}")
    for name, value in fields.items():
        at.name(name, "a field of a reason")
        at.text(value, at.TEXT_CHARS_MAX, "a field of a reason")
    code = at.name(verdict.reason_code, "the code of a reason")
    sentence = at.text(verdict.reason, at.TEXT_CHARS_MAX, "a reason")
    return m.Verdict(
        key=_to_key(verdict.key),
        state=state,
        reason=reason_of(code, fields, sentence),
        decided_by=at.name(verdict.decided_by, "the node that decided"),
        generation=at.number(verdict.generation, at.COUNT_MAX, "a generation"),
        scope=at.names(verdict.scope, "roots of a scope"),
        stamp=at.number(verdict.stamp, at.COUNT_MAX, "a stamp"),
        epoch=at.number(verdict.epoch, at.NUMBER_MAX, "an epoch"),
        joined=at.name(verdict.joined, "the ticket of an opening"),
    )


def _path(ancestors: Sequence[str], roots: Sequence[str], root_ids: Sequence[str]) -> m.Path:
    return m.Path(
        at.names(ancestors, "nodes above", at.ANCESTORS_MAX),
        at.names(roots, "roots"),
        at.names(root_ids, "ids of roots"),
    )


def _beat(beat: m.Beat) -> pb.Beat:
    return pb.Beat(sent=at.at_most(beat.sent), received=at.at_most(beat.received), no_say=not beat.has_say)


def _to_beat(beat: pb.Beat) -> m.Beat:
    sent = at.number(beat.sent, at.COUNT_MAX, "a sequence number")
    return m.Beat(sent, at.number(beat.received, at.COUNT_MAX, "a sequence number"), not beat.no_say)


# ------------------------------------------------------------------ child -> parent


def encode_up(message: m.UpMessage) -> bytes:
    match message:
        case m.Hello():
            hello = pb.Hello(
                protocol=message.protocol,
                protocol_max=message.protocol_max,
                node=message.node,
                node_id=message.node_id,
                incarnation=at.at_most(message.incarnation, at.INCARNATION_MAX),
                data_address=message.data_address,
                below=message.labels,
                claims_digest=message.claims_digest,
                nonce=message.nonce,
                verdicts_digest=message.verdicts_digest,
                features=at.first(message.features),
                docs_digest=message.docs_digest,
            )
            up = pb.Up(hello=hello)
        case m.UpState():
            policies, others = _docs(message.docs)
            state = pb.UpState(
                seq=at.at_most(message.seq),
                full=message.full,
                claims=[_claim(claim) for claim in message.claims],
                withdrawn=[_key(key) for key, cause in message.withdrawn if cause is m.Cause.STOPPED],
                policies=policies,
                gone=[
                    pb.Gone(key=_key(key), cause=_CAUSES[cause])
                    for key, cause in message.withdrawn
                    if cause is not m.Cause.STOPPED
                ],
                docs=others,
                reports=[pb.Report(service=service, json=body) for service, body in message.reports[: at.REPORTS_MAX]],
            )
            if message.roots is not None:
                state.hears.ids.extend(at.first(message.roots))
                state.hears.names.extend(at.first(message.root_names))
                state.hears.SetInParent()
            if message.lost is not None:
                state.lost.ids.extend(at.first(message.lost))
                state.lost.SetInParent()
            up = pb.Up(state=state)
        case m.Beat():
            up = pb.Up(beat=_beat(message))
        case m.Ask():
            ask = pb.Ask(
                id=message.id, method=message.method, path=message.path, body=message.body, asker=message.asker
            )
            up = pb.Up(ask=ask)
        case m.Bye():
            up = pb.Up(bye=pb.Bye(left=[_key(key) for key in message.left]))
    return up.SerializeToString()


def decode_up(raw: bytes) -> m.UpMessage:
    """Reads a message of a child. Raises DecodeError."""
    try:
        up = pb.Up.FromString(raw)
    except ProtobufError as error:
        raise DecodeError(str(error)) from None
    match up.WhichOneof("kind"):
        case "hello":
            return _to_hello(up.hello)
        case "state":
            state = up.state
            return m.UpState(
                at.number(state.seq, at.COUNT_MAX, "a sequence number"),
                state.full,
                tuple([_to_claim(claim) for claim in state.claims]),
                _to_gone(state),
                _to_docs(state.policies, state.docs),
                at.names(state.hears.ids, "roots in reach") if state.HasField("hears") else None,
                at.names(state.lost.ids, "roots out of reach") if state.HasField("lost") else None,
                at.names(state.hears.names, "names of roots"),
                _to_reports(state.reports),
            )
        case "beat":
            return _to_beat(up.beat)
        case "ask":
            ask = up.ask
            return m.Ask(
                at.name(ask.id, "the id of a forwarded call"),
                at.name(ask.method, "a method"),
                at.text(ask.path, at.PATH_CHARS_MAX, "a path"),
                at.body(ask.body, "a forwarded call"),
                at.name(ask.asker, "the asking node"),
            )
        case "bye":
            return m.Bye(tuple(_to_key(key) for key in up.bye.left))
        case _:
            raise DecodeError("a message has an unknown kind")


def _to_hello(hello: pb.Hello) -> m.Hello:
    protocol = at.number(hello.protocol, at.PROTOCOLS_MAX, "a protocol")
    return m.Hello(
        node=at.name(hello.node, "the name of a node"),
        node_id=at.name(hello.node_id, "the id of a node"),
        incarnation=at.number(hello.incarnation, at.INCARNATION_MAX, "an incarnation"),
        data_address=at.text(hello.data_address, at.ADDRESS_CHARS_MAX, "an address"),
        claims_digest=hello.claims_digest,
        labels=_labels(hello.below),
        protocol=protocol,
        protocol_max=at.number(hello.protocol_max, at.PROTOCOLS_MAX, "a protocol") or protocol,
        nonce=at.name(hello.nonce, "a nonce"),
        verdicts_digest=hello.verdicts_digest,
        features=at.names(hello.features, "features"),
        docs_digest=hello.docs_digest,
    )


def _labels(labels: Sequence[str]) -> tuple[str, ...]:
    if len(labels) > at.LABELS_MAX:
        raise DecodeError(f"{len(labels)} labels; the limit is {at.LABELS_MAX}")
    return tuple(at.text(label, at.LABEL_CHARS_MAX, "a label") for label in labels)


# ------------------------------------------------------------------ parent -> child


def encode_down(message: m.DownMessage) -> bytes:
    match message:
        case m.Welcome():
            path = message.path
            welcome = pb.Welcome(
                node=message.node,
                node_id=message.node_id,
                incarnation=at.at_most(message.incarnation, at.INCARNATION_MAX),
                ancestors=at.first(path.ancestors, at.ANCESTORS_MAX),
                claims_digest=message.claims_digest,
                roots=at.first(path.roots),
                root_ids=at.first(path.root_ids),
                nonce=message.nonce,
                protocol=message.protocol,
                verdicts_kept=message.verdicts_kept,
                docs_kept=message.docs_kept,
            )
            down = pb.Down(welcome=welcome)
        case m.Refused():
            incarnation = at.at_most(message.incarnation, at.REFUSED_INCARNATION_MAX)
            refused = pb.Refused(code=message.code, detail=message.detail[: at.TEXT_CHARS_MAX], incarnation=incarnation)
            down = pb.Down(refused=refused)
        case m.DownState():
            path = message.path
            policies, others = _docs(message.docs)
            state = pb.DownState(
                seq=at.at_most(message.seq),
                full=message.full,
                verdicts=[_verdict(verdict) for verdict in message.verdicts],
                drained=[
                    pb.DrainAck(key=_key(ack.key), leaving=at.at_most(ack.leaving, at.NUMBER_MAX))
                    for ack in message.drained
                ],
                policies=policies,
                ancestors=at.first(path.ancestors, at.ANCESTORS_MAX),
                roots=at.first(path.roots),
                received=at.at_most(message.received),
                root_ids=at.first(path.root_ids),
                docs=others,
                dropped_docs=message.dropped,
            )
            down = pb.Down(state=state)
        case m.Beat():
            down = pb.Down(beat=_beat(message))
        case m.Answer():
            answers = [pb.RootAnswer(root=each.root, status=each.status, body=each.body) for each in message.answers]
            down = pb.Down(answer=pb.Answer(id=message.id, answers=answers, unreachable=message.unreachable))
    return down.SerializeToString()


def decode_down(raw: bytes) -> m.DownMessage:
    """Reads a message of a parent. Raises DecodeError."""
    try:
        down = pb.Down.FromString(raw)
    except ProtobufError as error:
        raise DecodeError(str(error)) from None
    match down.WhichOneof("kind"):
        case "welcome":
            return _to_welcome(down.welcome)
        case "refused":
            refused = down.refused
            return m.Refused(
                at.name(refused.code, "a code"),
                at.text(refused.detail, at.TEXT_CHARS_MAX, "a detail"),
                at.number(refused.incarnation, at.REFUSED_INCARNATION_MAX, "an incarnation"),
            )
        case "state":
            state = down.state
            return m.DownState(
                at.number(state.seq, at.COUNT_MAX, "a sequence number"),
                state.full,
                tuple([_to_verdict(verdict) for verdict in state.verdicts]),
                tuple([_to_drained(ack) for ack in state.drained]),
                _to_docs(state.policies, state.docs),
                _path(state.ancestors, state.roots, state.root_ids),
                at.number(state.received, at.COUNT_MAX, "a sequence number"),
                at.names(state.dropped_docs, "dropped documents", at.DROPPED_MAX, 2 * at.NAME_CHARS_MAX),
            )
        case "beat":
            return _to_beat(down.beat)
        case "answer":
            return _to_answer(down.answer)
        case _:
            raise DecodeError("a message has an unknown kind")


def _to_welcome(welcome: pb.Welcome) -> m.Welcome:
    return m.Welcome(
        node=at.name(welcome.node, "the name of a node"),
        node_id=at.name(welcome.node_id, "the id of a node"),
        incarnation=at.number(welcome.incarnation, at.INCARNATION_MAX, "an incarnation"),
        path=_path(welcome.ancestors, welcome.roots, welcome.root_ids),
        claims_digest=welcome.claims_digest,
        nonce=at.name(welcome.nonce, "a nonce"),
        protocol=at.number(welcome.protocol, at.PROTOCOLS_MAX, "a protocol") or m.PROTOCOL_MIN,
        verdicts_kept=welcome.verdicts_kept,
        docs_kept=welcome.docs_kept,
    )


def _to_drained(ack: pb.DrainAck) -> m.DrainAck:
    return m.DrainAck(_to_key(ack.key), at.number(ack.leaving, at.NUMBER_MAX, "the number of a drain"))


def _to_answer(answer: pb.Answer) -> m.Answer:
    if len(answer.answers) > at.ANCESTORS_MAX:
        raise DecodeError(f"{len(answer.answers)} answers to one call; the limit is {at.ANCESTORS_MAX}")
    answers = tuple(
        m.RootAnswer(at.name(each.root, "the name of a root"), _status(each.status), each.body)
        for each in answer.answers
    )
    unreachable = at.names(answer.unreachable, "nodes without an answer", at.ANCESTORS_MAX, at.ADDRESS_CHARS_MAX)
    return m.Answer(at.name(answer.id, "the id of a forwarded call"), answers, unreachable)


def _status(status: int) -> int:
    if not 100 <= status <= 599:
        raise DecodeError(f"{status} is not a valid status of an answer")
    return status
