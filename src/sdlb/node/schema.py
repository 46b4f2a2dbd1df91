"""The answers of the local API, for its OpenAPI description. Meanings: docs/reference/api.md.

The answers themselves come from `core.view` as plain dictionaries; a test holds them against these types.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from sdlb.model.rollout import RolloutSpec
from sdlb.model.traffic import BODY_BYTES_MAX
from sdlb.model.version import NAME_CHARS_MAX, SERVICE, VERSION
from sdlb.node.journal import Event
from sdlb.node.schema_spec import CanaryAnalysis, Drain, Failures, First, NodesOut, Progress, SideBySide, Soak, Steps
from sdlb.node.specs import Declaration, Health, Protocol, Version_, json_schema_pattern
from sdlb.node.specs import Service as Service_

Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Pid = Annotated[int, Meta(ge=0)]
Decided = Literal["active", "waiting", "refused"]
_SPEC = RolloutSpec()


Limit = Annotated[int, Meta(ge=0, le=1_000_000)]


def _zero_or(**rest: float) -> dict[str, Any]:
    return {"anyOf": [{"const": 0}, rest]}


Seconds = Annotated[float, Meta(ge=0, le=3600, extra_json_schema=_zero_or(minimum=0.001))]
Factor = Annotated[float, Meta(ge=0, le=1000, extra_json_schema=_zero_or(exclusiveMinimum=1))]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Has these keys and no others."""


class Problem(Strict):
    """RFC 9457; the last part of `type` is a stable code."""

    type: Annotated[str, Meta(pattern="^https://sdlb.dev/problems/[a-z-]+$")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str


class Claim(Strict):
    """One route of an instance or version, and what was decided about it."""

    route: str
    state: Decided
    reason_code: str
    reason: str
    decided_by: str


class Former(Strict):
    """An earlier registration of the id that still drains. `state`: registered, draining, drained or lapsed."""

    version: str
    endpoint: str
    state: Literal["registered", "draining", "drained", "lapsed"]


InstanceState = Literal["waiting", "active", "draining", "drained", "refused", "unhealthy", "lapsed"]


class Instance(Strict):
    """`owner`: the process that registered it, or "". `target`: its name among the engine's statistics."""

    id: str
    service: str
    version: str
    routes: list[str]
    endpoint: str
    protocol: Protocol
    compatible: list[str]
    capacity: Annotated[int, Meta(ge=1)]
    health: Health
    ttl_s: Amount
    pid: Pid
    labels: dict[str, str]
    state: InstanceState
    reason_code: str
    reason: str
    decided_by: str
    healthy: bool
    health_detail: str
    drained: bool
    in_flight: Count
    claims: list[Claim]
    owner: str
    target: str
    former: list[Former]
    node: str


class Instances(Strict):
    node: str
    instances: list[Instance]


class VersionClaim(Claim):
    """`sources`: the instances of this host ("i:ID") and children ("n:NAME") that have it."""

    instances: Count
    sources: list[str]


class Version(Strict):
    """`share`: percent of the service's new requests; `silent`: instances on silent nodes."""

    version: str
    state: Literal["active", "waiting", "draining", "refused"]
    reason_code: str
    reason: str
    decided_by: str
    generation: Count
    instances: Count
    capacity: Count
    share: Percent
    hosts: list[str]
    silent: Count
    compatible: list[str]
    claims: list[VersionClaim]


class GateProgress(Strict):
    """`age_s`: since it began to be evaluated, or opened. `by`: names that approved. `attempts`: calls of a hook."""

    name: str
    kind: Literal["min_ready", "soak", "window", "depends_on", "approval", "hook"]
    at: Literal["before", "gap", "after"]
    state: Literal["open", "waiting", "running", "refused", "timed-out"]
    age_s: Amount
    reason: str
    by: list[str]
    attempts: Count


class Candidate(Strict):
    """A version that waits. `clear`: its gates and the cut-over let it open. `promoted`: name of the operator, or "";
    `no_gates`: why its gates are skipped, or ""."""

    clear: bool
    age_s: Amount
    gates: list[GateProgress]
    promoted: str
    no_gates: str


class Opening(Strict):
    """The gates of waiting versions, and the cut-over to `to`. `conductor`: the root that decides; `here`: it is the node that
    answers. `since_s`: age of the phase."""

    conductor: str
    here: bool
    phase: Literal["", "prepare", "closing", "gap", "opening", "reverted"]
    to: str
    since_s: Amount
    detail: str
    versions: dict[str, Candidate]


Priority = Literal["even", "higher", "lower", "share"]


class Service(Strict):
    """`authority`: the name of the root that answers; "" at other nodes. `opening`: null while no version waits for a gate or a
    cut-over."""

    service: str
    generation: Count
    authority: str
    decided_by: list[str]
    priority: Priority
    shares: dict[str, Percent]
    routes: list[str]
    versions: list[Version]
    opening: Opening | None


class Disagreement(Strict):
    service: str
    text: str


class Services(Strict):
    """`roots`: the roots that answered; `unreachable`: parents or roots that did not."""

    node: str
    roots: list[str]
    unreachable: list[str]
    disagree: list[Disagreement]
    services: list[Service]


class Parent(Strict):
    """`in_touch`: its decisions count; `silent_s`: seconds since it was last heard."""

    address: str
    name: str
    state: Literal["connected", "connecting", "lost", "refused"]
    detail: str
    silent_s: Amount
    in_touch: bool


class Child(Strict):
    """`claims`: how many it has; `incarnation`: how often it has started."""

    name: str
    address: str
    state: Literal["connected", "disconnected", "suspect"]
    silent_s: Amount
    incarnation: Count
    labels: list[list[str]]
    claims: Count
    services: list[str]
    instances: Count
    capacity: Count


class Degraded(Strict):
    """Something that settings or policies ask for and the engine does not have. `instead`: what the engine does. `services`: those whose
    policy asks for it; empty: the node's settings do."""

    what: str
    instead: str
    services: list[str]


class Engine(Strict):
    """The engine process. `attached`: control is connected to it."""

    pid: Pid
    version: str
    attached: bool
    degraded: list[Degraded]


class EngineProcess(Strict):
    pid: Pid
    version: str


class EngineUpgrade(Strict):
    """`now` serves; `before` drains, for `deadline_s` at most, and exits."""

    node: str
    now: EngineProcess
    before: EngineProcess
    deadline_s: Amount


class ControlRestart(Strict):
    """`incarnation`: of the control that exits; the next one has a higher one and the same `pid`. `engine` keeps serving."""

    node: str
    incarnation: Count
    pid: Pid
    engine: EngineProcess


class Remnant(Strict):
    """A node that no longer reports its claims, and the number of claims that are kept for it."""

    name: str
    claims: Count


class Ejected(Strict):
    """An endpoint that passive health ejected at this node. `target`: "i:ID" (an instance) or "n:NAME" (a child)."""

    target: str
    reason: str


class Hardening(Strict):
    """One part of the hardened preset. `setting`: the key of the node file; `default`: its value on a public node; `fixed`: no key
    changes it; `listeners`: the listeners of this node that it concerns."""

    setting: str
    value: bool | int | str
    default: bool | int | str
    why: str
    fixed: bool
    listeners: list[str]


class Tree(Strict):
    node: str
    incarnation: Count
    stopping: bool
    claims: Count
    remnants: list[Remnant]
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
    hardening: list[Hardening]
    engine: Engine
    parents: list[Parent]
    children: list[Child]
    instances: list[Instance]
    ejected: list[Ejected]


class SiteOrders(Strict):
    """`ordered_by`: the other entry that orders for the site; "": this node. `next_try_s`: earliest Unix time of the next order.
    `error`: why the last order failed. `revoked`: it still serves with a certificate that was revoked."""

    ordered_by: str
    ordering: bool
    next_try_s: Count
    error: str
    revoked: bool


class Site(Strict):
    """`not_before_s`, `not_after_s`: Unix time; 0: nothing is served for it, or not known. `acme`: null for certificates from
    files."""

    site: str
    hosts: list[str]
    state: Literal["waiting", "serving", "kept", "refused"]
    reason_code: str
    reason: str
    not_before_s: Count
    not_after_s: Count
    warnings: list[str]
    acme: SiteOrders | None


class Sites(Strict):
    node: str
    sites: list[Site]


class RouteClaim(Strict):
    service: str
    version: str
    reason_code: str
    reason: str
    decided_by: str
    state: Decided


class Route(Strict):
    route: str
    service: str
    versions: list[str]
    capacity: Count
    state: Decided
    parking: bool
    claims: list[RouteClaim]
    reason_code: str
    reason: str
    shadows: list[str]
    shadowed_by: list[str]
    refused: list[RouteClaim]


class Routes(Strict):
    node: str
    routes: list[Route]


class VersionChoice(Strict):
    version: str
    chosen: bool
    tier: Count
    share: Percent
    why: str


class TargetChoice(Strict):
    version: str
    name: str
    kind: Literal["instance", "node"]
    address: str
    capacity: Count
    hosts: list[str]
    chosen: bool
    why: str


class OtherRoute(Strict):
    route: str
    service: str
    why: str


class Explanation(Strict):
    """`status`: 0 when a request is forwarded, else the status of this node's own response."""

    node: str
    url: str
    host: str
    path: str
    route: str
    service: str
    version: str
    rule: str
    status: Literal[0, 404, 421, 503]
    reason_code: str
    reason: str
    versions: list[VersionChoice]
    targets: list[TargetChoice]
    others: list[OtherRoute]


class Events(Strict):
    events: list[Event]


COOKIE = r"^[!#-+\-./0-9<>-~]*$"


class PolicySticky(Strict):
    by: Literal["cookie", "header", "client", "session"]
    name: Annotated[str, Meta(max_length=128, pattern="^[ -~]*$")] | None = ""


Year = Annotated[float, Meta(ge=0, le=31_536_000)]
HOURS = "^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
FLOOR: dict[str, Any] = {"maxLength": NAME_CHARS_MAX, "pattern": f"^$|{json_schema_pattern(VERSION)}"}
UNAVAILABLE = "^(0*(100|[0-9]{1,2})%|0*(1000000|[0-9]{1,6}))$"
POLICY_NAME = "^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|([A-Za-z0-9][A-Za-z0-9._-]*)?[*])$"
PolicyName = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX, pattern=POLICY_NAME)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Printable = {"format": "sdlb-printable"}
Held = Annotated[str, Meta(min_length=1, max_length=128, extra_json_schema={"format": "sdlb-held"})]
"""A version, a range, or * for every version that was not active in this generation."""
Pair = Annotated[list[Version_], Meta(min_length=2, max_length=2)]


class PolicyCompatibility(Strict):
    scheme: Literal["numeric", "semver", "opaque"] = "numeric"
    rule: Literal["patch", "minor", "exact", "any"] = "patch"
    ranges: Annotated[list[Declaration], Meta(max_length=64)] = []
    allow: Annotated[list[Pair], Meta(max_length=64)] = []
    deny: Annotated[list[Pair], Meta(max_length=64)] = []


class PolicyPark(Strict):
    requests_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0


class PolicyDrain(Strict):
    """`then`: at the deadline, the drain goes on (wait), or what is in flight is cut off (cut)."""

    deadline_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    then: Literal["wait", "cut"] = "wait"
    streams_s: Annotated[float, Meta(ge=0, le=86_400)] = 60.0


class PolicyRollout(Strict):
    """Settings of rollouts that start from then on, where the call that starts one gives no others."""

    side_by_side: SideBySide = "incompatible"
    first: First = _SPEC.first
    soak_s: Soak = _SPEC.soak_s
    failures_max: Failures = _SPEC.failures_max
    progress_s: Progress = _SPEC.progress_s
    nodes_out_max: NodesOut | Annotated[int, Meta(ge=1, le=999_999)] = _SPEC.nodes_out_max
    drain_s: Drain | None = None
    step: Steps = []
    analysis: CanaryAnalysis | None = None


class PolicyBalance(Strict):
    """`hash_name` is required for `hash` by header or cookie. `zones` prefer: the node's own zone first."""

    algorithm: Literal["least_requests", "peak_ewma", "prequal", "round_robin", "hash"] = "least_requests"
    hash_by: Literal["client", "header", "cookie", "path"] = "client"
    hash_name: Annotated[str, Meta(max_length=128, pattern=COOKIE)] | None = ""
    hash_load: Annotated[float, Meta(ge=1, le=100)] = 1.25
    slow_start_s: Seconds = 0.0
    zones: Literal["ignore", "prefer"] = "ignore"


class PolicyOutlier(Strict):
    """0: off."""

    success_deviations: Annotated[float, Meta(ge=0, le=100)] = 0.0
    latency_factor: Factor = 0.0
    ejected_percent_max: Annotated[int, Meta(ge=0, le=100)] = 10
    interval_s: Annotated[float, Meta(ge=1, le=3600)] = 10.0
    requests_min: Limit = 100


class PolicyLimits(Strict):
    """0: no limit."""

    in_flight: Limit = 0
    endpoint_in_flight: Limit = 0
    endpoint_connections: Limit = 0
    pending: Limit = 0
    pending_timeout_s: Seconds = 1.0
    adaptive: bool = False
    body_bytes: Annotated[int, Meta(ge=0, le=BODY_BYTES_MAX)] = 0


class PolicyPath(Strict):
    """`encoded_slash`: a path with %2F is refused on public nodes (refuse), or kept as it is (keep)."""

    encoded_slash: Literal["refuse", "keep"] = "refuse"


class _Gate(Strict, kw_only=True, tag_field="kind"):
    name: Annotated[str, Meta(max_length=64, pattern=json_schema_pattern(SERVICE))]
    at: Literal["before", "gap", "after"] = "before"
    applies: Literal["incompatible", "every"] = msgspec.field(default="incompatible", name="for")
    timeout_s: Year = 0.0
    on_timeout: Literal["hold", "abort"] = "hold"


class GateMinReady(_Gate, tag="min_ready", kw_only=True):
    """Opens when N instances are healthy. `percent`: of the capacity of the versions that it replaces. 0: not required."""

    instances: Limit = 0
    percent: Annotated[float, Meta(ge=0, le=1000)] = 0.0


class GateSoak(_Gate, tag="soak", kw_only=True):
    """Opens when all instances of the version have been healthy for this time."""

    healthy_s: Year = 30.0


class GateWindow(_Gate, tag="window", kw_only=True):
    """Opens in this window of the week. A window that ends before it starts belongs to the day on which it starts."""

    days: Annotated[list[Day], Meta(min_length=1, max_length=7)] = msgspec.field(
        default_factory=lambda: list(get_args(Day))
    )
    hours: Annotated[str, Meta(max_length=11, pattern=HOURS, extra_json_schema={"format": "sdlb-hours"})] = (
        "00:00-24:00"
    )
    zone: Annotated[str, Meta(min_length=1, max_length=64, extra_json_schema={"format": "sdlb-zone"})] = "UTC"


class GateDependsOn(_Gate, tag="depends_on", kw_only=True):
    """Opens when a version of `service` that matches `version` is active."""

    service: Service_
    version: Declaration


class GateApproval(_Gate, tag="approval", kw_only=True):
    """Opens when `count` of the people or pipelines in `by` have approved."""

    by: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=128, extra_json_schema=Printable)]],
        Meta(min_length=1, max_length=64),
    ]
    count: Annotated[int, Meta(ge=1, le=64)] = 1


class GateHook(_Gate, tag="hook", kw_only=True):
    """Opens when `url` answers 2xx, or when the program that the node files of the roots name `run` exits with 0."""

    timeout_s: Year = 300.0
    run: Annotated[str, Meta(max_length=64, extra_json_schema=Printable)] = ""
    url: Annotated[str, Meta(max_length=1024, pattern="^(https?://|$)", extra_json_schema=Printable)] = ""
    back: bool = True


Gate = GateMinReady | GateSoak | GateWindow | GateDependsOn | GateApproval | GateHook
GATES: tuple[type[Strict], ...] = get_args(Gate)


class PolicyDocument(Strict):
    """A key that is left out is not set: a less specific document or the default counts. `shares`: version -> percent, for the
    priority "share", of at most 100 together."""

    priority: Priority = "even"
    shares: Annotated[dict[Version_, Percent], Meta(max_length=64)] | None = {}
    sticky: PolicySticky | None = None
    compatibility: PolicyCompatibility | None = msgspec.field(default_factory=PolicyCompatibility)
    on_silence: Literal["open", "wait"] = "open"
    park: PolicyPark | None = msgspec.field(default_factory=PolicyPark)
    drain: PolicyDrain | None = msgspec.field(default_factory=PolicyDrain)
    cut_over: Literal["stopped", "flip"] = "stopped"
    max_unavailable: Annotated[str, Meta(max_length=16, pattern=UNAVAILABLE)] | Limit = "25%"
    gate: Annotated[list[Gate], Meta(max_length=16)] = []
    hold: Annotated[list[Held], Meta(max_length=64)] = []
    pin: Annotated[list[Declaration], Meta(max_length=64)] = []
    never_below: Annotated[str, Meta(extra_json_schema=FLOOR)] = ""
    auto: Literal["off", "compatible"] = "off"
    rollout: PolicyRollout | None = msgspec.field(default_factory=PolicyRollout)
    balance: PolicyBalance | None = msgspec.field(default_factory=PolicyBalance)
    outlier: PolicyOutlier | None = msgspec.field(default_factory=PolicyOutlier)
    limits: PolicyLimits | None = msgspec.field(default_factory=PolicyLimits)
    timeout_s: Seconds = 0.0
    try_timeout_s: Seconds = 0.0
    retries_max: Annotated[int, Meta(ge=-1, le=30)] = -1
    hedge_s: Seconds = 0.0
    path: PolicyPath | None = msgspec.field(default_factory=PolicyPath)
    proxy_protocol: Literal["off", "v1", "v2"] = "off"


class Policy(Strict):
    """`policy`: the merged one; `document`: what is set for this name; `sources`: key -> name of the document that sets it (a key
    without one has its default). `revision` 0: there is no document. `warnings`: names that no root knows."""

    node: str
    service: str
    revision: Count
    roots: list[str]
    unreachable: list[str]
    disagree: list[Disagreement]
    policy: PolicyDocument
    document: PolicyDocument
    sources: dict[str, str]
    warnings: list[str]


class PolicyEntry(Strict):
    """`name`: a service or pattern; `origin`: the root at which it was set."""

    name: str
    revision: Count
    origin: str
    document: PolicyDocument


class Policies(Strict):
    """`etag`: of the content of all documents, for `If-Match`."""

    node: str
    roots: list[str]
    unreachable: list[str]
    disagree: list[Disagreement]
    etag: str
    policies: list[PolicyEntry]


class PoliciesBody(Strict):
    """Documents by name. Others stay as they are."""

    policies: Annotated[dict[PolicyName, PolicyDocument], Meta(max_length=10_000)]


class PolicyChange(Strict):
    """A document that changes. `changes`: one text for each setting."""

    name: str
    changes: list[str]


class PolicyVersionEffect(Strict):
    version: str
    before: Literal["active", "waiting"]
    after: Literal["active", "waiting"]
    reason: str


class PolicyShareEffect(Strict):
    """Percent of the service's new requests."""

    version: str
    before: Percent
    after: Percent


class PolicyEffect(Strict):
    """What a change of policies does to a service: versions that change their state, and shares."""

    service: str
    versions: list[PolicyVersionEffect]
    shares: list[PolicyShareEffect]


class PolicyPlan(Strict):
    """`etag`: after the change; `unnamed`: documents that the call does not name and that stay; `warnings`: names that no root
    knows."""

    node: str
    roots: list[str]
    unreachable: list[str]
    disagree: list[Disagreement]
    dry_run: bool
    etag: str
    changes: list[PolicyChange]
    effects: list[PolicyEffect]
    unnamed: list[str]
    warnings: list[str]


_FIELD: dict[str, Any] = {
    "properties": {"by": {"enum": ["cookie", "header"]}, "name": {"type": "string", "minLength": 1}},
    "required": ["name"],
}
_SESSION: dict[str, Any] = {"properties": {"by": {"const": "session"}, "name": {"pattern": COOKIE}}}
_HASH_NAMED: dict[str, Any] = {
    "properties": {"hash_name": {"type": "string", "minLength": 1}},
    "required": ["hash_name"],
}
_NO_HASH: dict[str, Any] = {"properties": {"algorithm": {"not": {"const": "hash"}}}}
_MORE: dict[str, Any] = {"exclusiveMinimum": 0}
_RUN: dict[str, Any] = {"properties": {"run": {"type": "string", "minLength": 1}}, "required": ["run"]}
_URL: dict[str, Any] = {"properties": {"url": {"type": "string", "minLength": 1}}, "required": ["url"]}
RULES: dict[str, dict[str, Any]] = {
    "GateMinReady": {"anyOf": [{"properties": {key: _MORE}, "required": [key]} for key in ("instances", "percent")]},
    "GateHook": {"oneOf": [_RUN, _URL]},
    "PolicySticky": {"anyOf": [{"properties": {"by": {"const": "client"}}}, _SESSION, _FIELD]},
    "PolicyBalance": {
        "anyOf": [_NO_HASH, {"properties": {"hash_by": {"enum": ["client", "path"]}}}, _HASH_NAMED],
    },
}
"""What keys of one object demand of each other.

What cannot be said here: shares are at most 100 together, the gates of a policy have different names, a window has a length,
`count` is at most the number of names in `by`.
"""
