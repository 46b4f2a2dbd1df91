from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ToEngine(_message.Message):
    __slots__ = ("configure", "delta", "shutdown", "sites", "ticket_keys", "hand_over", "drain_clients", "ping", "cut", "challenges")
    CONFIGURE_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    SHUTDOWN_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    TICKET_KEYS_FIELD_NUMBER: _ClassVar[int]
    HAND_OVER_FIELD_NUMBER: _ClassVar[int]
    DRAIN_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    CHALLENGES_FIELD_NUMBER: _ClassVar[int]
    configure: Configure
    delta: Delta
    shutdown: Shutdown
    sites: Sites
    ticket_keys: TicketKeys
    hand_over: HandOver
    drain_clients: DrainClients
    ping: Ping
    cut: Cut
    challenges: Challenges
    def __init__(self, configure: _Optional[_Union[Configure, _Mapping]] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ..., shutdown: _Optional[_Union[Shutdown, _Mapping]] = ..., sites: _Optional[_Union[Sites, _Mapping]] = ..., ticket_keys: _Optional[_Union[TicketKeys, _Mapping]] = ..., hand_over: _Optional[_Union[HandOver, _Mapping]] = ..., drain_clients: _Optional[_Union[DrainClients, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., cut: _Optional[_Union[Cut, _Mapping]] = ..., challenges: _Optional[_Union[Challenges, _Mapping]] = ...) -> None: ...

class FromEngine(_message.Message):
    __slots__ = ("attached", "configured", "applied", "rejected", "drained", "in_flight", "target_health", "stats", "stalled", "sites_applied", "handed_over", "memory_short", "clients_drained", "pong", "challenges_applied")
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    TARGET_HEALTH_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    STALLED_FIELD_NUMBER: _ClassVar[int]
    SITES_APPLIED_FIELD_NUMBER: _ClassVar[int]
    HANDED_OVER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SHORT_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_DRAINED_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    CHALLENGES_APPLIED_FIELD_NUMBER: _ClassVar[int]
    attached: Attached
    configured: Configured
    applied: Applied
    rejected: Rejected
    drained: Drained
    in_flight: InFlight
    target_health: TargetHealth
    stats: Stats
    stalled: Stalled
    sites_applied: SitesApplied
    handed_over: HandedOver
    memory_short: MemoryShort
    clients_drained: ClientsDrained
    pong: Pong
    challenges_applied: ChallengesApplied
    def __init__(self, attached: _Optional[_Union[Attached, _Mapping]] = ..., configured: _Optional[_Union[Configured, _Mapping]] = ..., applied: _Optional[_Union[Applied, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ..., drained: _Optional[_Union[Drained, _Mapping]] = ..., in_flight: _Optional[_Union[InFlight, _Mapping]] = ..., target_health: _Optional[_Union[TargetHealth, _Mapping]] = ..., stats: _Optional[_Union[Stats, _Mapping]] = ..., stalled: _Optional[_Union[Stalled, _Mapping]] = ..., sites_applied: _Optional[_Union[SitesApplied, _Mapping]] = ..., handed_over: _Optional[_Union[HandedOver, _Mapping]] = ..., memory_short: _Optional[_Union[MemoryShort, _Mapping]] = ..., clients_drained: _Optional[_Union[ClientsDrained, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., challenges_applied: _Optional[_Union[ChallengesApplied, _Mapping]] = ...) -> None: ...

class Configure(_message.Message):
    __slots__ = ("node", "listeners", "control_socket", "limits", "access_log", "identity", "settle_ms")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_SOCKET_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ACCESS_LOG_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SETTLE_MS_FIELD_NUMBER: _ClassVar[int]
    node: str
    listeners: _containers.RepeatedCompositeFieldContainer[Listener]
    control_socket: str
    limits: Limits
    access_log: AccessLog
    identity: Identity
    settle_ms: int
    def __init__(self, node: _Optional[str] = ..., listeners: _Optional[_Iterable[_Union[Listener, _Mapping]]] = ..., control_socket: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., access_log: _Optional[_Union[AccessLog, _Mapping]] = ..., identity: _Optional[_Union[Identity, _Mapping]] = ..., settle_ms: _Optional[int] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("pem", "ca_pem")
    PEM_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    pem: bytes
    ca_pem: bytes
    def __init__(self, pem: _Optional[bytes] = ..., ca_pem: _Optional[bytes] = ...) -> None: ...

class Listener(_message.Message):
    __slots__ = ("key", "address", "kind", "public", "tls", "hardening", "trusted_proxies")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ENTRY: _ClassVar[Listener.Kind]
        NODE: _ClassVar[Listener.Kind]
    ENTRY: Listener.Kind
    NODE: Listener.Kind
    KEY_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    HARDENING_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_PROXIES_FIELD_NUMBER: _ClassVar[int]
    key: str
    address: str
    kind: Listener.Kind
    public: bool
    tls: bool
    hardening: Hardening
    trusted_proxies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[str] = ..., address: _Optional[str] = ..., kind: _Optional[_Union[Listener.Kind, str]] = ..., public: _Optional[bool] = ..., tls: _Optional[bool] = ..., hardening: _Optional[_Union[Hardening, _Mapping]] = ..., trusted_proxies: _Optional[_Iterable[str]] = ...) -> None: ...

class Hardening(_message.Message):
    __slots__ = ("refuse_encoded_paths", "drop_underscore_fields", "replace_request_ids", "handshakes_per_address", "redirect_to_https", "hsts_s")
    REFUSE_ENCODED_PATHS_FIELD_NUMBER: _ClassVar[int]
    DROP_UNDERSCORE_FIELDS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    HANDSHAKES_PER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_TO_HTTPS_FIELD_NUMBER: _ClassVar[int]
    HSTS_S_FIELD_NUMBER: _ClassVar[int]
    refuse_encoded_paths: bool
    drop_underscore_fields: bool
    replace_request_ids: bool
    handshakes_per_address: bool
    redirect_to_https: bool
    hsts_s: int
    def __init__(self, refuse_encoded_paths: _Optional[bool] = ..., drop_underscore_fields: _Optional[bool] = ..., replace_request_ids: _Optional[bool] = ..., handshakes_per_address: _Optional[bool] = ..., redirect_to_https: _Optional[bool] = ..., hsts_s: _Optional[int] = ...) -> None: ...

class Sites(_message.Message):
    __slots__ = ("put", "prune", "keep")
    PUT_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    put: _containers.RepeatedCompositeFieldContainer[Site]
    prune: bool
    keep: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, put: _Optional[_Iterable[_Union[Site, _Mapping]]] = ..., prune: _Optional[bool] = ..., keep: _Optional[_Iterable[str]] = ...) -> None: ...

class Site(_message.Message):
    __slots__ = ("key", "hosts", "certificates", "client_ca_pem", "client_certificate_required", "redirects", "fields", "error_pages", "tls13_only", "no_session_tickets")
    KEY_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CA_PEM_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CERTIFICATE_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    REDIRECTS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_PAGES_FIELD_NUMBER: _ClassVar[int]
    TLS13_ONLY_FIELD_NUMBER: _ClassVar[int]
    NO_SESSION_TICKETS_FIELD_NUMBER: _ClassVar[int]
    key: str
    hosts: _containers.RepeatedScalarFieldContainer[str]
    certificates: _containers.RepeatedCompositeFieldContainer[Certificate]
    client_ca_pem: bytes
    client_certificate_required: bool
    redirects: _containers.RepeatedCompositeFieldContainer[Redirect]
    fields: _containers.RepeatedCompositeFieldContainer[Field]
    error_pages: _containers.RepeatedCompositeFieldContainer[ErrorPage]
    tls13_only: bool
    no_session_tickets: bool
    def __init__(self, key: _Optional[str] = ..., hosts: _Optional[_Iterable[str]] = ..., certificates: _Optional[_Iterable[_Union[Certificate, _Mapping]]] = ..., client_ca_pem: _Optional[bytes] = ..., client_certificate_required: _Optional[bool] = ..., redirects: _Optional[_Iterable[_Union[Redirect, _Mapping]]] = ..., fields: _Optional[_Iterable[_Union[Field, _Mapping]]] = ..., error_pages: _Optional[_Iterable[_Union[ErrorPage, _Mapping]]] = ..., tls13_only: _Optional[bool] = ..., no_session_tickets: _Optional[bool] = ...) -> None: ...

class Redirect(_message.Message):
    __slots__ = ("prefix", "target")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    target: str
    def __init__(self, prefix: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ErrorPage(_message.Message):
    __slots__ = ("status_from", "status_to", "html")
    STATUS_FROM_FIELD_NUMBER: _ClassVar[int]
    STATUS_TO_FIELD_NUMBER: _ClassVar[int]
    HTML_FIELD_NUMBER: _ClassVar[int]
    status_from: int
    status_to: int
    html: bytes
    def __init__(self, status_from: _Optional[int] = ..., status_to: _Optional[int] = ..., html: _Optional[bytes] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("pem",)
    PEM_FIELD_NUMBER: _ClassVar[int]
    pem: bytes
    def __init__(self, pem: _Optional[bytes] = ...) -> None: ...

class TicketKeys(_message.Message):
    __slots__ = ("keys",)
    class Key(_message.Message):
        __slots__ = ("name", "secret")
        NAME_FIELD_NUMBER: _ClassVar[int]
        SECRET_FIELD_NUMBER: _ClassVar[int]
        name: bytes
        secret: bytes
        def __init__(self, name: _Optional[bytes] = ..., secret: _Optional[bytes] = ...) -> None: ...
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[TicketKeys.Key]
    def __init__(self, keys: _Optional[_Iterable[_Union[TicketKeys.Key, _Mapping]]] = ...) -> None: ...

class Challenges(_message.Message):
    __slots__ = ("http", "tls")
    HTTP_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    http: _containers.RepeatedCompositeFieldContainer[HttpChallenge]
    tls: _containers.RepeatedCompositeFieldContainer[TlsChallenge]
    def __init__(self, http: _Optional[_Iterable[_Union[HttpChallenge, _Mapping]]] = ..., tls: _Optional[_Iterable[_Union[TlsChallenge, _Mapping]]] = ...) -> None: ...

class HttpChallenge(_message.Message):
    __slots__ = ("host", "token", "content")
    HOST_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    host: str
    token: str
    content: str
    def __init__(self, host: _Optional[str] = ..., token: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class TlsChallenge(_message.Message):
    __slots__ = ("host", "certificate")
    HOST_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    host: str
    certificate: Certificate
    def __init__(self, host: _Optional[str] = ..., certificate: _Optional[_Union[Certificate, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("head_bytes", "fields", "connect_timeout_ms", "head_timeout_ms", "idle_timeout_ms", "body_timeout_ms", "response_timeout_ms", "upgrade_idle_timeout_ms", "connections", "retry_budget_percent", "body_bytes", "connections_per_address", "response_idle_timeout_ms", "body_bytes_per_s", "requests_per_s_per_address", "requests_burst_per_address", "handshake_timeout_ms", "http2_streams", "handshakes", "memory_mb", "event_stream_idle_timeout_ms")
    HEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    CONNECT_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    HEAD_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    BODY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    UPGRADE_IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    RETRY_BUDGET_PERCENT_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_PER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_S_PER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_BURST_PER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HANDSHAKE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    HTTP2_STREAMS_FIELD_NUMBER: _ClassVar[int]
    HANDSHAKES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    EVENT_STREAM_IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    head_bytes: int
    fields: int
    connect_timeout_ms: int
    head_timeout_ms: int
    idle_timeout_ms: int
    body_timeout_ms: int
    response_timeout_ms: int
    upgrade_idle_timeout_ms: int
    connections: int
    retry_budget_percent: int
    body_bytes: int
    connections_per_address: int
    response_idle_timeout_ms: int
    body_bytes_per_s: int
    requests_per_s_per_address: int
    requests_burst_per_address: int
    handshake_timeout_ms: int
    http2_streams: int
    handshakes: int
    memory_mb: int
    event_stream_idle_timeout_ms: int
    def __init__(self, head_bytes: _Optional[int] = ..., fields: _Optional[int] = ..., connect_timeout_ms: _Optional[int] = ..., head_timeout_ms: _Optional[int] = ..., idle_timeout_ms: _Optional[int] = ..., body_timeout_ms: _Optional[int] = ..., response_timeout_ms: _Optional[int] = ..., upgrade_idle_timeout_ms: _Optional[int] = ..., connections: _Optional[int] = ..., retry_budget_percent: _Optional[int] = ..., body_bytes: _Optional[int] = ..., connections_per_address: _Optional[int] = ..., response_idle_timeout_ms: _Optional[int] = ..., body_bytes_per_s: _Optional[int] = ..., requests_per_s_per_address: _Optional[int] = ..., requests_burst_per_address: _Optional[int] = ..., handshake_timeout_ms: _Optional[int] = ..., http2_streams: _Optional[int] = ..., handshakes: _Optional[int] = ..., memory_mb: _Optional[int] = ..., event_stream_idle_timeout_ms: _Optional[int] = ...) -> None: ...

class AccessLog(_message.Message):
    __slots__ = ("enabled", "path")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    path: str
    def __init__(self, enabled: _Optional[bool] = ..., path: _Optional[str] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("epoch", "replace", "put_targets", "put_members", "put_routes", "delete_members", "delete_routes", "delete_targets", "put_services", "delete_services")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    PUT_TARGETS_FIELD_NUMBER: _ClassVar[int]
    PUT_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PUT_ROUTES_FIELD_NUMBER: _ClassVar[int]
    DELETE_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    DELETE_ROUTES_FIELD_NUMBER: _ClassVar[int]
    DELETE_TARGETS_FIELD_NUMBER: _ClassVar[int]
    PUT_SERVICES_FIELD_NUMBER: _ClassVar[int]
    DELETE_SERVICES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    replace: bool
    put_targets: _containers.RepeatedCompositeFieldContainer[Target]
    put_members: _containers.RepeatedCompositeFieldContainer[Member]
    put_routes: _containers.RepeatedCompositeFieldContainer[Route]
    delete_members: _containers.RepeatedCompositeFieldContainer[MemberKey]
    delete_routes: _containers.RepeatedScalarFieldContainer[str]
    delete_targets: _containers.RepeatedScalarFieldContainer[str]
    put_services: _containers.RepeatedCompositeFieldContainer[Service]
    delete_services: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, epoch: _Optional[int] = ..., replace: _Optional[bool] = ..., put_targets: _Optional[_Iterable[_Union[Target, _Mapping]]] = ..., put_members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., put_routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., delete_members: _Optional[_Iterable[_Union[MemberKey, _Mapping]]] = ..., delete_routes: _Optional[_Iterable[str]] = ..., delete_targets: _Optional[_Iterable[str]] = ..., put_services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ..., delete_services: _Optional[_Iterable[str]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("name", "balance", "outlier", "limits", "timeout_ms", "try_timeout_ms", "retries_max", "proxy_protocol", "keep_encoded_slash", "hedge_ms")
    class ProxyProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OFF: _ClassVar[Service.ProxyProtocol]
        V1: _ClassVar[Service.ProxyProtocol]
        V2: _ClassVar[Service.ProxyProtocol]
    OFF: Service.ProxyProtocol
    V1: Service.ProxyProtocol
    V2: Service.ProxyProtocol
    NAME_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TRY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_MAX_FIELD_NUMBER: _ClassVar[int]
    PROXY_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    KEEP_ENCODED_SLASH_FIELD_NUMBER: _ClassVar[int]
    HEDGE_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    balance: Balance
    outlier: Outlier
    limits: ServiceLimits
    timeout_ms: int
    try_timeout_ms: int
    retries_max: int
    proxy_protocol: Service.ProxyProtocol
    keep_encoded_slash: bool
    hedge_ms: int
    def __init__(self, name: _Optional[str] = ..., balance: _Optional[_Union[Balance, _Mapping]] = ..., outlier: _Optional[_Union[Outlier, _Mapping]] = ..., limits: _Optional[_Union[ServiceLimits, _Mapping]] = ..., timeout_ms: _Optional[int] = ..., try_timeout_ms: _Optional[int] = ..., retries_max: _Optional[int] = ..., proxy_protocol: _Optional[_Union[Service.ProxyProtocol, str]] = ..., keep_encoded_slash: _Optional[bool] = ..., hedge_ms: _Optional[int] = ...) -> None: ...

class Balance(_message.Message):
    __slots__ = ("algorithm", "hash_by", "hash_name", "hash_load_percent", "slow_start_ms", "near_first")
    class Algorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LEAST_REQUESTS: _ClassVar[Balance.Algorithm]
        PEAK_EWMA: _ClassVar[Balance.Algorithm]
        PREQUAL: _ClassVar[Balance.Algorithm]
        ROUND_ROBIN: _ClassVar[Balance.Algorithm]
        HASH: _ClassVar[Balance.Algorithm]
    LEAST_REQUESTS: Balance.Algorithm
    PEAK_EWMA: Balance.Algorithm
    PREQUAL: Balance.Algorithm
    ROUND_ROBIN: Balance.Algorithm
    HASH: Balance.Algorithm
    class By(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CLIENT: _ClassVar[Balance.By]
        HEADER: _ClassVar[Balance.By]
        COOKIE: _ClassVar[Balance.By]
        PATH: _ClassVar[Balance.By]
    CLIENT: Balance.By
    HEADER: Balance.By
    COOKIE: Balance.By
    PATH: Balance.By
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    HASH_BY_FIELD_NUMBER: _ClassVar[int]
    HASH_NAME_FIELD_NUMBER: _ClassVar[int]
    HASH_LOAD_PERCENT_FIELD_NUMBER: _ClassVar[int]
    SLOW_START_MS_FIELD_NUMBER: _ClassVar[int]
    NEAR_FIRST_FIELD_NUMBER: _ClassVar[int]
    algorithm: Balance.Algorithm
    hash_by: Balance.By
    hash_name: str
    hash_load_percent: int
    slow_start_ms: int
    near_first: bool
    def __init__(self, algorithm: _Optional[_Union[Balance.Algorithm, str]] = ..., hash_by: _Optional[_Union[Balance.By, str]] = ..., hash_name: _Optional[str] = ..., hash_load_percent: _Optional[int] = ..., slow_start_ms: _Optional[int] = ..., near_first: _Optional[bool] = ...) -> None: ...

class Outlier(_message.Message):
    __slots__ = ("success_deviations_percent", "latency_factor_percent", "ejected_percent_max", "interval_ms", "requests_min")
    SUCCESS_DEVIATIONS_PERCENT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FACTOR_PERCENT_FIELD_NUMBER: _ClassVar[int]
    EJECTED_PERCENT_MAX_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_MIN_FIELD_NUMBER: _ClassVar[int]
    success_deviations_percent: int
    latency_factor_percent: int
    ejected_percent_max: int
    interval_ms: int
    requests_min: int
    def __init__(self, success_deviations_percent: _Optional[int] = ..., latency_factor_percent: _Optional[int] = ..., ejected_percent_max: _Optional[int] = ..., interval_ms: _Optional[int] = ..., requests_min: _Optional[int] = ...) -> None: ...

class ServiceLimits(_message.Message):
    __slots__ = ("in_flight", "endpoint_in_flight", "endpoint_connections", "pending", "pending_timeout_ms", "body_bytes", "adaptive")
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    PENDING_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_FIELD_NUMBER: _ClassVar[int]
    in_flight: int
    endpoint_in_flight: int
    endpoint_connections: int
    pending: int
    pending_timeout_ms: int
    body_bytes: int
    adaptive: bool
    def __init__(self, in_flight: _Optional[int] = ..., endpoint_in_flight: _Optional[int] = ..., endpoint_connections: _Optional[int] = ..., pending: _Optional[int] = ..., pending_timeout_ms: _Optional[int] = ..., body_bytes: _Optional[int] = ..., adaptive: _Optional[bool] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("key", "kind", "address", "protocol")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INSTANCE: _ClassVar[Target.Kind]
        NODE: _ClassVar[Target.Kind]
    INSTANCE: Target.Kind
    NODE: Target.Kind
    class Protocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HTTP1: _ClassVar[Target.Protocol]
        H2C: _ClassVar[Target.Protocol]
    HTTP1: Target.Protocol
    H2C: Target.Protocol
    KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    key: str
    kind: Target.Kind
    address: str
    protocol: Target.Protocol
    def __init__(self, key: _Optional[str] = ..., kind: _Optional[_Union[Target.Kind, str]] = ..., address: _Optional[str] = ..., protocol: _Optional[_Union[Target.Protocol, str]] = ...) -> None: ...

class MemberKey(_message.Message):
    __slots__ = ("service", "version", "pattern", "target")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: str
    pattern: str
    target: str
    def __init__(self, service: _Optional[str] = ..., version: _Optional[str] = ..., pattern: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("key", "capacity", "last_resort", "far")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    LAST_RESORT_FIELD_NUMBER: _ClassVar[int]
    FAR_FIELD_NUMBER: _ClassVar[int]
    key: MemberKey
    capacity: int
    last_resort: bool
    far: bool
    def __init__(self, key: _Optional[_Union[MemberKey, _Mapping]] = ..., capacity: _Optional[int] = ..., last_resort: _Optional[bool] = ..., far: _Optional[bool] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("pattern", "service", "picks", "park", "sticky")
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PICKS_FIELD_NUMBER: _ClassVar[int]
    PARK_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    pattern: str
    service: str
    picks: _containers.RepeatedCompositeFieldContainer[Pick]
    park: Park
    sticky: Sticky
    def __init__(self, pattern: _Optional[str] = ..., service: _Optional[str] = ..., picks: _Optional[_Iterable[_Union[Pick, _Mapping]]] = ..., park: _Optional[_Union[Park, _Mapping]] = ..., sticky: _Optional[_Union[Sticky, _Mapping]] = ...) -> None: ...

class Pick(_message.Message):
    __slots__ = ("version", "tier", "weight", "ends_sessions")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ENDS_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    version: str
    tier: int
    weight: int
    ends_sessions: bool
    def __init__(self, version: _Optional[str] = ..., tier: _Optional[int] = ..., weight: _Optional[int] = ..., ends_sessions: _Optional[bool] = ...) -> None: ...

class Park(_message.Message):
    __slots__ = ("requests_max", "timeout_ms")
    REQUESTS_MAX_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    requests_max: int
    timeout_ms: int
    def __init__(self, requests_max: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class Sticky(_message.Message):
    __slots__ = ("by", "name")
    class By(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[Sticky.By]
        COOKIE: _ClassVar[Sticky.By]
        HEADER: _ClassVar[Sticky.By]
        CLIENT: _ClassVar[Sticky.By]
        SESSION: _ClassVar[Sticky.By]
    NONE: Sticky.By
    COOKIE: Sticky.By
    HEADER: Sticky.By
    CLIENT: Sticky.By
    SESSION: Sticky.By
    BY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    by: Sticky.By
    name: str
    def __init__(self, by: _Optional[_Union[Sticky.By, str]] = ..., name: _Optional[str] = ...) -> None: ...

class Shutdown(_message.Message):
    __slots__ = ("deadline_ms",)
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    def __init__(self, deadline_ms: _Optional[int] = ...) -> None: ...

class DrainClients(_message.Message):
    __slots__ = ("deadline_ms",)
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    def __init__(self, deadline_ms: _Optional[int] = ...) -> None: ...

class Cut(_message.Message):
    __slots__ = ("members", "streams_only")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_ONLY_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[MemberKey]
    streams_only: bool
    def __init__(self, members: _Optional[_Iterable[_Union[MemberKey, _Mapping]]] = ..., streams_only: _Optional[bool] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HandOver(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ("engine_version", "pid", "boot_id", "epoch", "routes", "members", "draining", "serving", "ending", "answers_pings")
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_PINGS_FIELD_NUMBER: _ClassVar[int]
    engine_version: str
    pid: int
    boot_id: str
    epoch: int
    routes: int
    members: int
    draining: _containers.RepeatedCompositeFieldContainer[MemberCount]
    serving: bool
    ending: bool
    answers_pings: bool
    def __init__(self, engine_version: _Optional[str] = ..., pid: _Optional[int] = ..., boot_id: _Optional[str] = ..., epoch: _Optional[int] = ..., routes: _Optional[int] = ..., members: _Optional[int] = ..., draining: _Optional[_Iterable[_Union[MemberCount, _Mapping]]] = ..., serving: _Optional[bool] = ..., ending: _Optional[bool] = ..., answers_pings: _Optional[bool] = ...) -> None: ...

class MemberCount(_message.Message):
    __slots__ = ("key", "in_flight")
    KEY_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    key: MemberKey
    in_flight: int
    def __init__(self, key: _Optional[_Union[MemberKey, _Mapping]] = ..., in_flight: _Optional[int] = ...) -> None: ...

class Configured(_message.Message):
    __slots__ = ("listeners", "error", "identity_not_after_unix_s", "identity_warnings")
    class Bound(_message.Message):
        __slots__ = ("key", "address")
        KEY_FIELD_NUMBER: _ClassVar[int]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        key: str
        address: str
        def __init__(self, key: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_NOT_AFTER_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_WARNINGS_FIELD_NUMBER: _ClassVar[int]
    listeners: _containers.RepeatedCompositeFieldContainer[Configured.Bound]
    error: str
    identity_not_after_unix_s: int
    identity_warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, listeners: _Optional[_Iterable[_Union[Configured.Bound, _Mapping]]] = ..., error: _Optional[str] = ..., identity_not_after_unix_s: _Optional[int] = ..., identity_warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class HandedOver(_message.Message):
    __slots__ = ("sockets", "error")
    SOCKETS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sockets: int
    error: str
    def __init__(self, sockets: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClientsDrained(_message.Message):
    __slots__ = ("left",)
    LEFT_FIELD_NUMBER: _ClassVar[int]
    left: int
    def __init__(self, left: _Optional[int] = ...) -> None: ...

class SitesApplied(_message.Message):
    __slots__ = ("sites",)
    class State(_message.Message):
        __slots__ = ("key", "error", "not_after_unix_s", "warnings")
        KEY_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        NOT_AFTER_UNIX_S_FIELD_NUMBER: _ClassVar[int]
        WARNINGS_FIELD_NUMBER: _ClassVar[int]
        key: str
        error: str
        not_after_unix_s: int
        warnings: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, key: _Optional[str] = ..., error: _Optional[str] = ..., not_after_unix_s: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...
    SITES_FIELD_NUMBER: _ClassVar[int]
    sites: _containers.RepeatedCompositeFieldContainer[SitesApplied.State]
    def __init__(self, sites: _Optional[_Iterable[_Union[SitesApplied.State, _Mapping]]] = ...) -> None: ...

class ChallengesApplied(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class Applied(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("epoch", "reason")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    reason: str
    def __init__(self, epoch: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Drained(_message.Message):
    __slots__ = ("key", "epoch")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    key: MemberKey
    epoch: int
    def __init__(self, key: _Optional[_Union[MemberKey, _Mapping]] = ..., epoch: _Optional[int] = ...) -> None: ...

class InFlight(_message.Message):
    __slots__ = ("draining",)
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    draining: _containers.RepeatedCompositeFieldContainer[MemberCount]
    def __init__(self, draining: _Optional[_Iterable[_Union[MemberCount, _Mapping]]] = ...) -> None: ...

class TargetHealth(_message.Message):
    __slots__ = ("target", "ejected", "for_ms", "reason")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FIELD_NUMBER: _ClassVar[int]
    FOR_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    target: str
    ejected: bool
    for_ms: int
    reason: str
    def __init__(self, target: _Optional[str] = ..., ejected: _Optional[bool] = ..., for_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Stats(_message.Message):
    __slots__ = ("groups", "targets", "counters")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[GroupStats]
    targets: _containers.RepeatedCompositeFieldContainer[TargetStats]
    counters: _containers.RepeatedCompositeFieldContainer[Counter]
    def __init__(self, groups: _Optional[_Iterable[_Union[GroupStats, _Mapping]]] = ..., targets: _Optional[_Iterable[_Union[TargetStats, _Mapping]]] = ..., counters: _Optional[_Iterable[_Union[Counter, _Mapping]]] = ...) -> None: ...

class GroupStats(_message.Message):
    __slots__ = ("service", "version", "requests", "status_1xx", "status_2xx", "status_3xx", "status_4xx", "status_5xx", "failed", "retries", "parked", "latency_buckets", "latency_us_sum", "grpc_status", "asked", "answers", "broken", "unreached", "head_buckets", "head_us_sum", "grpc_errors")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    STATUS_1XX_FIELD_NUMBER: _ClassVar[int]
    STATUS_2XX_FIELD_NUMBER: _ClassVar[int]
    STATUS_3XX_FIELD_NUMBER: _ClassVar[int]
    STATUS_4XX_FIELD_NUMBER: _ClassVar[int]
    STATUS_5XX_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_US_SUM_FIELD_NUMBER: _ClassVar[int]
    GRPC_STATUS_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    UNREACHED_FIELD_NUMBER: _ClassVar[int]
    HEAD_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    HEAD_US_SUM_FIELD_NUMBER: _ClassVar[int]
    GRPC_ERRORS_FIELD_NUMBER: _ClassVar[int]
    service: str
    version: str
    requests: int
    status_1xx: int
    status_2xx: int
    status_3xx: int
    status_4xx: int
    status_5xx: int
    failed: int
    retries: int
    parked: int
    latency_buckets: _containers.RepeatedScalarFieldContainer[int]
    latency_us_sum: int
    grpc_status: _containers.RepeatedScalarFieldContainer[int]
    asked: int
    answers: _containers.RepeatedScalarFieldContainer[int]
    broken: int
    unreached: int
    head_buckets: _containers.RepeatedScalarFieldContainer[int]
    head_us_sum: int
    grpc_errors: int
    def __init__(self, service: _Optional[str] = ..., version: _Optional[str] = ..., requests: _Optional[int] = ..., status_1xx: _Optional[int] = ..., status_2xx: _Optional[int] = ..., status_3xx: _Optional[int] = ..., status_4xx: _Optional[int] = ..., status_5xx: _Optional[int] = ..., failed: _Optional[int] = ..., retries: _Optional[int] = ..., parked: _Optional[int] = ..., latency_buckets: _Optional[_Iterable[int]] = ..., latency_us_sum: _Optional[int] = ..., grpc_status: _Optional[_Iterable[int]] = ..., asked: _Optional[int] = ..., answers: _Optional[_Iterable[int]] = ..., broken: _Optional[int] = ..., unreached: _Optional[int] = ..., head_buckets: _Optional[_Iterable[int]] = ..., head_us_sum: _Optional[int] = ..., grpc_errors: _Optional[int] = ...) -> None: ...

class TargetStats(_message.Message):
    __slots__ = ("target", "requests", "connects", "connect_failures", "failures", "in_flight", "idle_connections")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CONNECTS_FIELD_NUMBER: _ClassVar[int]
    CONNECT_FAILURES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    IDLE_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    target: str
    requests: int
    connects: int
    connect_failures: int
    failures: int
    in_flight: int
    idle_connections: int
    def __init__(self, target: _Optional[str] = ..., requests: _Optional[int] = ..., connects: _Optional[int] = ..., connect_failures: _Optional[int] = ..., failures: _Optional[int] = ..., in_flight: _Optional[int] = ..., idle_connections: _Optional[int] = ...) -> None: ...

class Counter(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...

class MemoryShort(_message.Message):
    __slots__ = ("full", "limit_bytes", "resident_bytes", "held_bytes")
    FULL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    full: bool
    limit_bytes: int
    resident_bytes: int
    held_bytes: int
    def __init__(self, full: _Optional[bool] = ..., limit_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., held_bytes: _Optional[int] = ...) -> None: ...

class Stalled(_message.Message):
    __slots__ = ("worker", "for_ms")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    FOR_MS_FIELD_NUMBER: _ClassVar[int]
    worker: int
    for_ms: int
    def __init__(self, worker: _Optional[int] = ..., for_ms: _Optional[int] = ...) -> None: ...
