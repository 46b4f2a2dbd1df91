from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Up(_message.Message):
    __slots__ = ("hello", "state", "beat", "ask", "bye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    state: UpState
    beat: Beat
    ask: Ask
    bye: Bye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., state: _Optional[_Union[UpState, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., ask: _Optional[_Union[Ask, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...

class Down(_message.Message):
    __slots__ = ("welcome", "refused", "state", "beat", "answer")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    refused: Refused
    state: DownState
    beat: Beat
    answer: Answer
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., state: _Optional[_Union[DownState, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "node", "node_id", "incarnation", "data_address", "below", "claims_digest", "protocol_max", "nonce", "verdicts_digest", "features", "docs_digest")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DOCS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    node: str
    node_id: str
    incarnation: int
    data_address: str
    below: _containers.RepeatedScalarFieldContainer[str]
    claims_digest: int
    protocol_max: int
    nonce: str
    verdicts_digest: int
    features: _containers.RepeatedScalarFieldContainer[str]
    docs_digest: int
    def __init__(self, protocol: _Optional[int] = ..., node: _Optional[str] = ..., node_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., data_address: _Optional[str] = ..., below: _Optional[_Iterable[str]] = ..., claims_digest: _Optional[int] = ..., protocol_max: _Optional[int] = ..., nonce: _Optional[str] = ..., verdicts_digest: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., docs_digest: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("node", "node_id", "incarnation", "ancestors", "claims_digest", "lease_ms", "roots", "root_ids", "nonce", "protocol", "verdicts_kept", "docs_kept")
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    ROOT_IDS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_KEPT_FIELD_NUMBER: _ClassVar[int]
    DOCS_KEPT_FIELD_NUMBER: _ClassVar[int]
    node: str
    node_id: str
    incarnation: int
    ancestors: _containers.RepeatedScalarFieldContainer[str]
    claims_digest: int
    lease_ms: int
    roots: _containers.RepeatedScalarFieldContainer[str]
    root_ids: _containers.RepeatedScalarFieldContainer[str]
    nonce: str
    protocol: int
    verdicts_kept: bool
    docs_kept: bool
    def __init__(self, node: _Optional[str] = ..., node_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., ancestors: _Optional[_Iterable[str]] = ..., claims_digest: _Optional[int] = ..., lease_ms: _Optional[int] = ..., roots: _Optional[_Iterable[str]] = ..., root_ids: _Optional[_Iterable[str]] = ..., nonce: _Optional[str] = ..., protocol: _Optional[int] = ..., verdicts_kept: _Optional[bool] = ..., docs_kept: _Optional[bool] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("code", "detail", "incarnation")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    incarnation: int
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("sent", "received", "no_say")
    SENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    NO_SAY_FIELD_NUMBER: _ClassVar[int]
    sent: int
    received: int
    no_say: bool
    def __init__(self, sent: _Optional[int] = ..., received: _Optional[int] = ..., no_say: _Optional[bool] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("left",)
    LEFT_FIELD_NUMBER: _ClassVar[int]
    left: _containers.RepeatedCompositeFieldContainer[ClaimKey]
    def __init__(self, left: _Optional[_Iterable[_Union[ClaimKey, _Mapping]]] = ...) -> None: ...

class ClaimKey(_message.Message):
    __slots__ = ("service", "version", "route")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: str
    route: str
    def __init__(self, service: _Optional[str] = ..., version: _Optional[str] = ..., route: _Optional[str] = ...) -> None: ...

class Claim(_message.Message):
    __slots__ = ("key", "capacity", "count", "hosts", "compatible", "stamp", "open", "generation", "leaving", "seen", "presumed", "opening", "granted", "capacity_wide", "count_wide", "stage", "hosts_digest", "scope", "granted_by", "lease_s", "doubted", "why", "refused_by", "able", "healthy", "joined")
    class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ABSENT: _ClassVar[Claim.Stage]
        SILENT: _ClassVar[Claim.Stage]
        WAITING: _ClassVar[Claim.Stage]
        OPEN: _ClassVar[Claim.Stage]
    ABSENT: Claim.Stage
    SILENT: Claim.Stage
    WAITING: Claim.Stage
    OPEN: Claim.Stage
    KEY_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    COMPATIBLE_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    PRESUMED_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_WIDE_FIELD_NUMBER: _ClassVar[int]
    COUNT_WIDE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    HOSTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BY_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    DOUBTED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    REFUSED_BY_FIELD_NUMBER: _ClassVar[int]
    ABLE_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    key: ClaimKey
    capacity: int
    count: int
    hosts: _containers.RepeatedScalarFieldContainer[str]
    compatible: _containers.RepeatedScalarFieldContainer[str]
    stamp: int
    open: bool
    generation: int
    leaving: int
    seen: int
    presumed: bool
    opening: bool
    granted: bool
    capacity_wide: int
    count_wide: int
    stage: Claim.Stage
    hosts_digest: int
    scope: _containers.RepeatedScalarFieldContainer[str]
    granted_by: _containers.RepeatedScalarFieldContainer[str]
    lease_s: int
    doubted: int
    why: str
    refused_by: _containers.RepeatedScalarFieldContainer[str]
    able: int
    healthy: int
    joined: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[_Union[ClaimKey, _Mapping]] = ..., capacity: _Optional[int] = ..., count: _Optional[int] = ..., hosts: _Optional[_Iterable[str]] = ..., compatible: _Optional[_Iterable[str]] = ..., stamp: _Optional[int] = ..., open: _Optional[bool] = ..., generation: _Optional[int] = ..., leaving: _Optional[int] = ..., seen: _Optional[int] = ..., presumed: _Optional[bool] = ..., opening: _Optional[bool] = ..., granted: _Optional[bool] = ..., capacity_wide: _Optional[int] = ..., count_wide: _Optional[int] = ..., stage: _Optional[_Union[Claim.Stage, str]] = ..., hosts_digest: _Optional[int] = ..., scope: _Optional[_Iterable[str]] = ..., granted_by: _Optional[_Iterable[str]] = ..., lease_s: _Optional[int] = ..., doubted: _Optional[int] = ..., why: _Optional[str] = ..., refused_by: _Optional[_Iterable[str]] = ..., able: _Optional[int] = ..., healthy: _Optional[int] = ..., joined: _Optional[_Iterable[str]] = ...) -> None: ...

class Gone(_message.Message):
    __slots__ = ("key", "cause")
    class Cause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STOPPED: _ClassVar[Gone.Cause]
        PRESUMED: _ClassVar[Gone.Cause]
        LEFT: _ClassVar[Gone.Cause]
        UNKNOWN: _ClassVar[Gone.Cause]
    STOPPED: Gone.Cause
    PRESUMED: Gone.Cause
    LEFT: Gone.Cause
    UNKNOWN: Gone.Cause
    KEY_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    key: ClaimKey
    cause: Gone.Cause
    def __init__(self, key: _Optional[_Union[ClaimKey, _Mapping]] = ..., cause: _Optional[_Union[Gone.Cause, str]] = ...) -> None: ...

class Roots(_message.Message):
    __slots__ = ("ids", "names")
    IDS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class UpState(_message.Message):
    __slots__ = ("seq", "full", "claims", "withdrawn", "policies", "gone", "docs", "hears", "lost", "reports")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    DOCS_FIELD_NUMBER: _ClassVar[int]
    HEARS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    full: bool
    claims: _containers.RepeatedCompositeFieldContainer[Claim]
    withdrawn: _containers.RepeatedCompositeFieldContainer[ClaimKey]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    gone: _containers.RepeatedCompositeFieldContainer[Gone]
    docs: _containers.RepeatedCompositeFieldContainer[Doc]
    hears: Roots
    lost: Roots
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    def __init__(self, seq: _Optional[int] = ..., full: _Optional[bool] = ..., claims: _Optional[_Iterable[_Union[Claim, _Mapping]]] = ..., withdrawn: _Optional[_Iterable[_Union[ClaimKey, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., gone: _Optional[_Iterable[_Union[Gone, _Mapping]]] = ..., docs: _Optional[_Iterable[_Union[Doc, _Mapping]]] = ..., hears: _Optional[_Union[Roots, _Mapping]] = ..., lost: _Optional[_Union[Roots, _Mapping]] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("service", "json")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    service: str
    json: bytes
    def __init__(self, service: _Optional[str] = ..., json: _Optional[bytes] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("key", "state", "reason_code", "reason", "decided_by", "generation", "epoch", "scope", "stamp", "reason_fields", "joined")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        WAITING: _ClassVar[Verdict.State]
        ACTIVE: _ClassVar[Verdict.State]
        REFUSED: _ClassVar[Verdict.State]
    WAITING: Verdict.State
    ACTIVE: Verdict.State
    REFUSED: Verdict.State
    class ReasonFieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELDS_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    key: ClaimKey
    state: Verdict.State
    reason_code: str
    reason: str
    decided_by: str
    generation: int
    epoch: int
    scope: _containers.RepeatedScalarFieldContainer[str]
    stamp: int
    reason_fields: _containers.ScalarMap[str, str]
    joined: str
    def __init__(self, key: _Optional[_Union[ClaimKey, _Mapping]] = ..., state: _Optional[_Union[Verdict.State, str]] = ..., reason_code: _Optional[str] = ..., reason: _Optional[str] = ..., decided_by: _Optional[str] = ..., generation: _Optional[int] = ..., epoch: _Optional[int] = ..., scope: _Optional[_Iterable[str]] = ..., stamp: _Optional[int] = ..., reason_fields: _Optional[_Mapping[str, str]] = ..., joined: _Optional[str] = ...) -> None: ...

class DrainAck(_message.Message):
    __slots__ = ("key", "leaving")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    key: ClaimKey
    leaving: int
    def __init__(self, key: _Optional[_Union[ClaimKey, _Mapping]] = ..., leaving: _Optional[int] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("service", "revision", "origin", "json", "scope")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    service: str
    revision: int
    origin: str
    json: str
    scope: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service: _Optional[str] = ..., revision: _Optional[int] = ..., origin: _Optional[str] = ..., json: _Optional[str] = ..., scope: _Optional[_Iterable[str]] = ...) -> None: ...

class Doc(_message.Message):
    __slots__ = ("kind", "name", "revision", "origin", "body", "scope")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    revision: int
    origin: str
    body: bytes
    scope: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., revision: _Optional[int] = ..., origin: _Optional[str] = ..., body: _Optional[bytes] = ..., scope: _Optional[_Iterable[str]] = ...) -> None: ...

class DownState(_message.Message):
    __slots__ = ("seq", "full", "verdicts", "forgotten", "drained", "policies", "ancestors", "roots", "received", "root_ids", "docs", "dropped_docs")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    ROOT_IDS_FIELD_NUMBER: _ClassVar[int]
    DOCS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_DOCS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    full: bool
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    forgotten: _containers.RepeatedCompositeFieldContainer[ClaimKey]
    drained: _containers.RepeatedCompositeFieldContainer[DrainAck]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    ancestors: _containers.RepeatedScalarFieldContainer[str]
    roots: _containers.RepeatedScalarFieldContainer[str]
    received: int
    root_ids: _containers.RepeatedScalarFieldContainer[str]
    docs: _containers.RepeatedCompositeFieldContainer[Doc]
    dropped_docs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, seq: _Optional[int] = ..., full: _Optional[bool] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., forgotten: _Optional[_Iterable[_Union[ClaimKey, _Mapping]]] = ..., drained: _Optional[_Iterable[_Union[DrainAck, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., ancestors: _Optional[_Iterable[str]] = ..., roots: _Optional[_Iterable[str]] = ..., received: _Optional[int] = ..., root_ids: _Optional[_Iterable[str]] = ..., docs: _Optional[_Iterable[_Union[Doc, _Mapping]]] = ..., dropped_docs: _Optional[_Iterable[str]] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("id", "method", "path", "body", "asker")
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ASKER_FIELD_NUMBER: _ClassVar[int]
    id: str
    method: str
    path: str
    body: bytes
    asker: str
    def __init__(self, id: _Optional[str] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., body: _Optional[bytes] = ..., asker: _Optional[str] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("id", "answers", "unreachable")
    ID_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    id: str
    answers: _containers.RepeatedCompositeFieldContainer[RootAnswer]
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., answers: _Optional[_Iterable[_Union[RootAnswer, _Mapping]]] = ..., unreachable: _Optional[_Iterable[str]] = ...) -> None: ...

class RootAnswer(_message.Message):
    __slots__ = ("root", "status", "body")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    root: str
    status: int
    body: bytes
    def __init__(self, root: _Optional[str] = ..., status: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...
