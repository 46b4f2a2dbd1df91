"""The answers of the local API, for its OpenAPI description. Meanings: docs/reference/api.md.

The answers themselves come from `core.view` as plain dictionaries; a test holds them against these types.
"""

from __future__ import annotations

import msgspec

from sdlb.node.journal import Event
from sdlb.node.specs import Health


class Problem(msgspec.Struct):
    """RFC 9457; the last part of `type` is a stable code."""

    type: str
    title: str
    status: int
    detail: str


class Claim(msgspec.Struct):
    """One route of an instance or version, and what was decided about it."""

    route: str
    state: str
    reason_code: str
    reason: str
    decided_by: str


class Instance(msgspec.Struct):
    """`state`: waiting, active, draining, drained, refused or unhealthy."""

    id: str
    service: str
    version: str
    routes: list[str]
    endpoint: str
    protocol: str
    compatible: list[str]
    capacity: int
    health: Health
    ttl_s: float
    pid: int
    labels: dict[str, str]
    state: str
    reason_code: str
    reason: str
    decided_by: str
    healthy: bool
    health_detail: str
    drained: bool
    in_flight: int
    claims: list[Claim]
    node: str


class Instances(msgspec.Struct):
    node: str
    instances: list[Instance]


class Version(msgspec.Struct):
    """`share`: percent of the service's new requests; `silent`: instances on nodes that are not heard of."""

    version: str
    state: str
    reason_code: str
    reason: str
    decided_by: str
    instances: int
    capacity: int
    share: float
    hosts: list[str]
    silent: int
    compatible: list[str]
    claims: list[Claim]


class Service(msgspec.Struct):
    service: str
    generation: int
    decided_by: list[str]
    priority: str
    shares: dict[str, float]
    routes: list[str]
    versions: list[Version]


class Disagreement(msgspec.Struct):
    service: str
    text: str


class Services(msgspec.Struct):
    """`roots`: who answered; `unreachable`: parents or roots that did not."""

    node: str
    roots: list[str]
    unreachable: list[str]
    disagree: list[Disagreement]
    services: list[Service]


class Parent(msgspec.Struct):
    """`state`: connected, connecting, lost or refused."""

    address: str
    name: str
    state: str
    detail: str
    silent_s: float


class Child(msgspec.Struct):
    """`state`: connected, disconnected or suspect."""

    name: str
    address: str
    state: str
    silent_s: float
    instances: int
    capacity: int
    services: list[str]


class Engine(msgspec.Struct):
    """The process that moves the bytes. `attached`: control is in touch with it."""

    pid: int
    version: str
    attached: bool


class EngineProcess(msgspec.Struct):
    pid: int
    version: str


class EngineUpgrade(msgspec.Struct):
    """`now` serves; `before` answers what it has open, for `deadline_s` at most, and ends."""

    node: str
    now: EngineProcess
    before: EngineProcess
    deadline_s: float


class Tree(msgspec.Struct):
    node: str
    root: bool
    ready: bool
    detail: str
    guarded: bool
    cut_off: bool
    writes: bool
    labels: dict[str, str]
    roots: list[str]
    ancestors: list[str]
    listen: dict[str, str]
    engine: Engine
    parents: list[Parent]
    children: list[Child]
    instances: list[Instance]


class Site(msgspec.Struct):
    """`state`: waiting, serving, kept or refused. `not_after_s`: Unix time; 0: nothing is served for it."""

    site: str
    hosts: list[str]
    state: str
    reason_code: str
    reason: str
    not_after_s: int
    warnings: list[str]


class Sites(msgspec.Struct):
    node: str
    sites: list[Site]


class RefusedClaim(msgspec.Struct):
    service: str
    version: str
    reason_code: str
    reason: str
    decided_by: str


class Route(msgspec.Struct):
    route: str
    service: str
    versions: list[str]
    capacity: int
    state: str
    reason_code: str
    reason: str
    shadows: list[str]
    shadowed_by: list[str]
    refused: list[RefusedClaim]


class Routes(msgspec.Struct):
    node: str
    routes: list[Route]


class VersionChoice(msgspec.Struct):
    version: str
    chosen: bool
    tier: int
    share: float
    why: str


class TargetChoice(msgspec.Struct):
    version: str
    name: str
    kind: str
    address: str
    capacity: int
    hosts: list[str]
    chosen: bool
    why: str


class OtherRoute(msgspec.Struct):
    route: str
    service: str
    why: str


class Explanation(msgspec.Struct):
    """`status`: 0 when a request would be passed on, else what this node would answer itself."""

    node: str
    url: str
    host: str
    path: str
    route: str
    service: str
    version: str
    rule: str
    status: int
    reason_code: str
    reason: str
    versions: list[VersionChoice]
    targets: list[TargetChoice]
    others: list[OtherRoute]


class Events(msgspec.Struct):
    events: list[Event]


class PolicySticky(msgspec.Struct):
    by: str
    name: str = ""


class PolicyCompatibility(msgspec.Struct):
    scheme: str = "numeric"
    rule: str = "patch"
    ranges: list[str] = []
    allow: list[list[str]] = []
    deny: list[list[str]] = []


class PolicyPark(msgspec.Struct):
    requests_max: int = 1000
    timeout_s: float = 30.0


class PolicyBalance(msgspec.Struct):
    """`algorithm`: least_requests, peak_ewma, prequal, round_robin or hash. `hash_by`: client, header, cookie or path.
    `zones`: ignore, or prefer: the node's own zone first."""

    algorithm: str = "least_requests"
    hash_by: str = "client"
    hash_name: str = ""
    hash_load: float = 1.25
    slow_start_s: float = 0.0
    zones: str = "ignore"


class PolicyOutlier(msgspec.Struct):
    """0: not compared by this."""

    success_deviations: float = 0.0
    latency_factor: float = 0.0
    ejected_percent_max: int = 10
    interval_s: float = 10.0
    requests_min: int = 100


class PolicyLimits(msgspec.Struct):
    """0: no limit."""

    in_flight: int = 0
    endpoint_in_flight: int = 0
    endpoint_connections: int = 0
    pending: int = 0
    pending_timeout_s: float = 1.0
    adaptive: bool = False


class PolicyDocument(msgspec.Struct):
    """What is left out is the default. `shares`: version -> percent, for the priority "share"."""

    priority: str = "even"
    shares: dict[str, float] = {}
    sticky: PolicySticky | None = None
    compatibility: PolicyCompatibility = msgspec.field(default_factory=PolicyCompatibility)
    on_silence: str = "open"
    park: PolicyPark = msgspec.field(default_factory=PolicyPark)
    balance: PolicyBalance = msgspec.field(default_factory=PolicyBalance)
    outlier: PolicyOutlier = msgspec.field(default_factory=PolicyOutlier)
    limits: PolicyLimits = msgspec.field(default_factory=PolicyLimits)
    timeout_s: float = 0.0
    try_timeout_s: float = 0.0
    retries_max: int = -1
    hedge_s: float = 0.0


class Policy(msgspec.Struct):
    """`revision` 0: nothing was set, these are the defaults."""

    node: str
    service: str
    revision: int
    roots: list[str]
    unreachable: list[str]
    disagree: list[Disagreement]
    policy: PolicyDocument
