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
    __slots__ = ("protocol", "node", "node_id", "incarnation", "data_address", "below", "claims_digest")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    DATA_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    node: str
    node_id: str
    incarnation: int
    data_address: str
    below: _containers.RepeatedScalarFieldContainer[str]
    claims_digest: int
    def __init__(self, protocol: _Optional[int] = ..., node: _Optional[str] = ..., node_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., data_address: _Optional[str] = ..., below: _Optional[_Iterable[str]] = ..., claims_digest: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("node", "node_id", "incarnation", "ancestors", "claims_digest", "lease_ms", "roots")
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    node: str
    node_id: str
    incarnation: int
    ancestors: _containers.RepeatedScalarFieldContainer[str]
    claims_digest: int
    lease_ms: int
    roots: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., node_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., ancestors: _Optional[_Iterable[str]] = ..., claims_digest: _Optional[int] = ..., lease_ms: _Optional[int] = ..., roots: _Optional[_Iterable[str]] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("sent", "received")
    SENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    sent: int
    received: int
    def __init__(self, sent: _Optional[int] = ..., received: _Optional[int] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

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
    __slots__ = ("key", "capacity", "count", "hosts", "compatible", "stamp", "open", "generation", "leaving", "seen", "presumed", "opening", "granted")
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
    def __init__(self, key: _Optional[_Union[ClaimKey, _Mapping]] = ..., capacity: _Optional[int] = ..., count: _Optional[int] = ..., hosts: _Optional[_Iterable[str]] = ..., compatible: _Optional[_Iterable[str]] = ..., stamp: _Optional[int] = ..., open: _Optional[bool] = ..., generation: _Optional[int] = ..., leaving: _Optional[int] = ..., seen: _Optional[int] = ..., presumed: _Optional[bool] = ..., opening: _Optional[bool] = ..., granted: _Optional[bool] = ...) -> None: ...

class UpState(_message.Message):
    __slots__ = ("seq", "full", "claims", "withdrawn", "policies")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    seq: int
    full: bool
    claims: _containers.RepeatedCompositeFieldContainer[Claim]
    withdrawn: _containers.RepeatedCompositeFieldContainer[ClaimKey]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, seq: _Optional[int] = ..., full: _Optional[bool] = ..., claims: _Optional[_Iterable[_Union[Claim, _Mapping]]] = ..., withdrawn: _Optional[_Iterable[_Union[ClaimKey, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("key", "state", "reason_code", "reason", "decided_by", "generation", "epoch")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        WAITING: _ClassVar[Verdict.State]
        ACTIVE: _ClassVar[Verdict.State]
        REFUSED: _ClassVar[Verdict.State]
    WAITING: Verdict.State
    ACTIVE: Verdict.State
    REFUSED: Verdict.State
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    key: ClaimKey
    state: Verdict.State
    reason_code: str
    reason: str
    decided_by: str
    generation: int
    epoch: int
    def __init__(self, key: _Optional[_Union[ClaimKey, _Mapping]] = ..., state: _Optional[_Union[Verdict.State, str]] = ..., reason_code: _Optional[str] = ..., reason: _Optional[str] = ..., decided_by: _Optional[str] = ..., generation: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class DrainAck(_message.Message):
    __slots__ = ("key", "leaving")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    key: ClaimKey
    leaving: int
    def __init__(self, key: _Optional[_Union[ClaimKey, _Mapping]] = ..., leaving: _Optional[int] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("service", "revision", "origin", "json")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    service: str
    revision: int
    origin: str
    json: str
    def __init__(self, service: _Optional[str] = ..., revision: _Optional[int] = ..., origin: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...

class DownState(_message.Message):
    __slots__ = ("seq", "full", "verdicts", "forgotten", "drained", "policies", "ancestors", "roots", "received")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    seq: int
    full: bool
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    forgotten: _containers.RepeatedCompositeFieldContainer[ClaimKey]
    drained: _containers.RepeatedCompositeFieldContainer[DrainAck]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    ancestors: _containers.RepeatedScalarFieldContainer[str]
    roots: _containers.RepeatedScalarFieldContainer[str]
    received: int
    def __init__(self, seq: _Optional[int] = ..., full: _Optional[bool] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., forgotten: _Optional[_Iterable[_Union[ClaimKey, _Mapping]]] = ..., drained: _Optional[_Iterable[_Union[DrainAck, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., ancestors: _Optional[_Iterable[str]] = ..., roots: _Optional[_Iterable[str]] = ..., received: _Optional[int] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("id", "method", "path", "body")
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    id: str
    method: str
    path: str
    body: bytes
    def __init__(self, id: _Optional[str] = ..., method: _Optional[str] = ..., path: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

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
