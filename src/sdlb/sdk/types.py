"""What the local API answers, as typed values. `docs/reference/api.md` has the meanings.

Every key has a default and unknown keys are ignored, so that a client and a node of different releases understand
each other. All values are frozen.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import msgspec

from sdlb.model import version
from sdlb.model.problem import Invalid
from sdlb.sdk.problem import BASE, Problem


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all answers. `to_dict` gives plain values, ready for JSON."""

    def to_dict(self) -> dict[str, object]:
        return msgspec.to_builtins(self)


class Health(Value, frozen=True):
    """How the host node checks the health of the instance. `kind`: "http", "tcp" or "none".

    `host`: the Host header of an HTTP check ("": the endpoint); `status`: the healthy status codes, "200-399" or
    "200,204".
    """

    kind: str = "tcp"
    path: str = "/"
    interval_s: float = 2.0
    timeout_s: float = 1.0
    rise: int = 1
    fall: int = 2
    host: str = ""
    status: str = "200-399"


class Claim(Value, frozen=True):
    """One route of an instance or of a version, and what was decided about it."""

    route: str = ""
    state: str = ""
    reason_code: str = ""
    reason: str = ""
    decided_by: str = ""


class Former(Value, frozen=True):
    """An earlier registration of the id that still drains. `state`: "registered", "draining", "drained",
    "lapsed"."""

    version: str = ""
    endpoint: str = ""
    state: str = ""


class Instance(Value, frozen=True):
    """`state`: "waiting", "active", "draining", "drained", "refused" or "unhealthy". `owner`: the process that has
    registered it, or "" when that is not known."""

    id: str = ""
    service: str = ""
    version: str = ""
    routes: tuple[str, ...] = ()
    endpoint: str = ""
    protocol: str = "http1"
    compatible: tuple[str, ...] = ()
    capacity: int = 0
    health: Health = Health()
    ttl_s: float = 0.0
    pid: int = 0
    labels: dict[str, str] = {}
    state: str = ""
    reason_code: str = ""
    reason: str = ""
    decided_by: str = ""
    healthy: bool = False
    health_detail: str = ""
    drained: bool = False
    in_flight: int = 0
    claims: tuple[Claim, ...] = ()
    owner: str = ""
    former: tuple[Former, ...] = ()


class Version(Value, frozen=True):
    """One version of a service as its roots see it. `share`: percent of the service's new requests; `silent`: how many
    of the instances are on nodes that are silent."""

    version: str = ""
    state: str = ""
    reason_code: str = ""
    reason: str = ""
    decided_by: str = ""
    instances: int = 0
    capacity: int = 0
    share: float = 0.0
    hosts: tuple[str, ...] = ()
    silent: int = 0
    compatible: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


class GateProgress(Value, frozen=True):
    """`state`: "open", "waiting", "running", "refused" or "timed-out". `age_s`: since it began to be evaluated, or opened."""

    name: str = ""
    kind: str = ""
    at: str = "before"
    state: str = ""
    age_s: float = 0.0
    reason: str = ""
    by: tuple[str, ...] = ()
    attempts: int = 0


class Candidate(Value, frozen=True):
    """A version that waits. `clear`: its gates and the cut-over let it open."""

    clear: bool = False
    age_s: float = 0.0
    gates: tuple[GateProgress, ...] = ()
    promoted: str = ""
    no_gates: str = ""


class Opening(Value, frozen=True):
    """The gates of waiting versions, and the cut-over to `to`. `phase`: "", "prepare", "closing", "gap", "opening" or
    "reverted"."""

    conductor: str = ""
    here: bool = False
    phase: str = ""
    to: str = ""
    since_s: float = 0.0
    detail: str = ""
    versions: dict[str, Candidate] = {}


class Approved(Value, frozen=True):
    """`conductor`: the root that has recorded it; `by`: the recorded name."""

    node: str = ""
    conductor: str = ""
    service: str = ""
    version: str = ""
    gate: str = ""
    by: str = ""


class Promoted(Value, frozen=True):
    """As `Approved`."""

    node: str = ""
    conductor: str = ""
    service: str = ""
    version: str = ""
    no_gates: str = ""
    by: str = ""


class Transferred(Value, frozen=True):
    """`roots`: all roots; each of them has recorded it."""

    node: str = ""
    roots: tuple[str, ...] = ()
    route: str = ""
    to: str = ""
    by: str = ""


class Service(Value, frozen=True):
    name: str = msgspec.field(default="", name="service")
    generation: int = 0
    routes: tuple[str, ...] = ()
    versions: tuple[Version, ...] = ()
    opening: Opening | None = None


class Disagreement(Value, frozen=True):
    """Roots that answer differently about one service."""

    service: str = ""
    text: str = ""


class Services(Value, frozen=True):
    """`roots`: the roots that answered; `unreachable`: parents or roots that did not."""

    node: str = ""
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    disagree: tuple[Disagreement, ...] = ()
    services: tuple[Service, ...] = ()


class Parent(Value, frozen=True):
    """`state`: "connected", "connecting", "lost" (its lease has expired) or "refused"; `silent_s`: since it was last
    heard."""

    address: str = ""
    name: str = ""
    state: str = ""
    detail: str = ""
    silent_s: float = 0.0


class Child(Value, frozen=True):
    """A child node. `state`: "connected", "disconnected" or "suspect" (its lease has expired; only a last resort).

    `services`: what it claims, as "name-version".
    """

    name: str = ""
    address: str = ""
    state: str = ""
    detail: str = ""
    silent_s: float = 0.0
    instances: int = 0
    capacity: int = 0
    services: tuple[str, ...] = ()


class Degraded(Value, frozen=True):
    """Something that settings or policies ask for and the engine does not have. `instead`: what the engine does.
    `services`: those whose policy asks for it; empty: the node's settings do."""

    what: str = ""
    instead: str = ""
    services: tuple[str, ...] = ()


class EngineProcess(Value, frozen=True):
    """The engine process. `attached`: control is connected to it."""

    pid: int = 0
    version: str = ""
    attached: bool = True
    degraded: tuple[Degraded, ...] = ()


class EngineUpgrade(Value, frozen=True):
    """A hot restart: `now` serves; `before` drains for `deadline_s` at most and exits."""

    node: str = ""
    now: EngineProcess = EngineProcess()
    before: EngineProcess = EngineProcess()
    deadline_s: float = 0.0


class ControlRestart(Value, frozen=True):
    """Control restarts. `incarnation`: of the control that exits. `engine` keeps serving."""

    node: str = ""
    incarnation: int = 0
    pid: int = 0
    engine: EngineProcess = EngineProcess()


class Ejected(Value, frozen=True):
    """An endpoint that passive health ejected. `target`: "i:ID" (an instance) or "n:NAME" (a child)."""

    target: str = ""
    reason: str = ""


class Hardening(Value, frozen=True):
    """One part of the hardened preset of a node. `setting`: the key of its node file; `default`: the value on a public node;
    `fixed`: no key changes it; `listeners`: the listeners that it concerns."""

    setting: str = ""
    value: bool | int | str = ""
    default: bool | int | str = ""
    why: str = ""
    fixed: bool = False
    listeners: tuple[str, ...] = ()


class Tree(Value, frozen=True):
    """The node that answers, and its neighbours."""

    node: str = ""
    incarnation: int = 0
    root: bool = False
    ready: bool = False
    detail: str = ""
    guarded: bool = False
    cut_off: bool = False
    writes: bool = True
    labels: dict[str, str] = {}
    roots: tuple[str, ...] = ()
    ancestors: tuple[str, ...] = ()
    listen: dict[str, str] = {}
    hardening: tuple[Hardening, ...] = ()
    engine: EngineProcess = EngineProcess()
    parents: tuple[Parent, ...] = ()
    children: tuple[Child, ...] = ()
    instances: tuple[Instance, ...] = ()
    ejected: tuple[Ejected, ...] = ()


class SiteOrders(Value, frozen=True):
    """Orders of a site's certificate. `ordered_by`: the other entry that orders; "": this node. `next_try_s`: earliest Unix time
    of the next order. `error`: why the last one failed. `revoked`: it still serves with a certificate that was revoked."""

    ordered_by: str = ""
    ordering: bool = False
    next_try_s: int = 0
    error: str = ""
    revoked: bool = False


class Site(Value, frozen=True):
    """Hosts with a certificate of their own. `state`: "waiting", "serving", "kept" (with an earlier certificate) or
    "refused"; `not_before_s`, `not_after_s`: Unix time between which the certificate is valid."""

    name: str = msgspec.field(default="", name="site")
    hosts: tuple[str, ...] = ()
    state: str = ""
    reason_code: str = ""
    reason: str = ""
    not_before_s: int = 0
    not_after_s: int = 0
    warnings: tuple[str, ...] = ()
    acme: SiteOrders | None = None


class Sites(Value, frozen=True):
    node: str = ""
    sites: tuple[Site, ...] = ()


class Revoked(Value, frozen=True):
    """A revoked certificate. `digest`: its SHA-256. `already`: it had been revoked before. `by`: the recorded name."""

    node: str = ""
    site: str = ""
    reason: str = ""
    by: str = ""
    digest: str = ""
    already: bool = False


class RefusedClaim(Value, frozen=True):
    service: str = ""
    version: str = ""
    reason_code: str = ""
    reason: str = ""
    decided_by: str = ""


class Route(Value, frozen=True):
    """One pattern at this node. `shadows`: less specific patterns that it takes requests from."""

    route: str = ""
    service: str = ""
    versions: tuple[str, ...] = ()
    capacity: int = 0
    state: str = ""
    reason_code: str = ""
    reason: str = ""
    shadows: tuple[str, ...] = ()
    shadowed_by: tuple[str, ...] = ()
    refused: tuple[RefusedClaim, ...] = ()


class Routes(Value, frozen=True):
    node: str = ""
    routes: tuple[Route, ...] = ()


class VersionChoice(Value, frozen=True):
    """A version that could take the request: `chosen` or not, and why."""

    version: str = ""
    chosen: bool = False
    tier: int = 0
    share: float = 0.0
    why: str = ""


class TargetChoice(Value, frozen=True):
    """An instance or child node that could take the request. `kind`: "instance" or "node"."""

    version: str = ""
    name: str = ""
    kind: str = ""
    address: str = ""
    capacity: int = 0
    hosts: tuple[str, ...] = ()
    chosen: bool = False
    why: str = ""


class OtherRoute(Value, frozen=True):
    route: str = ""
    service: str = ""
    why: str = ""


class Explanation(Value, frozen=True):
    """Where a request for `url` would go from this node. `status`: 0, or what this node would answer itself."""

    node: str = ""
    url: str = ""
    host: str = ""
    path: str = ""
    route: str = ""
    service: str = ""
    version: str = ""
    rule: str = ""
    status: int = 0
    reason_code: str = ""
    reason: str = ""
    versions: tuple[VersionChoice, ...] = ()
    targets: tuple[TargetChoice, ...] = ()
    others: tuple[OtherRoute, ...] = ()


class Event(Value, frozen=True):
    """Something that happened at the node. `at`: RFC 3339, UTC; `code` is stable, `text` is one sentence."""

    id: int = 0
    at: str = ""
    level: str = "info"
    code: str = ""
    text: str = ""
    fields: dict[str, str] = {}


class Policy(Value, frozen=True):
    """The policy of a service, or of the services of a pattern ("catalog*"). `policy`: the merged document; `document`: what
    is set for this name (see docs/reference/policy.md); `revision` 0: nothing.

    `sources`: key -> name of the document that sets it; a key without one has its default. `warnings`: names in the new policy
    that no root knows.
    """

    service: str = ""
    revision: int = 0
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    disagree: tuple[Disagreement, ...] = ()
    policy: dict[str, object] = {}
    document: dict[str, object] = {}
    sources: dict[str, str] = {}
    warnings: tuple[str, ...] = ()


class PolicyEntry(Value, frozen=True):
    """The document of a service or pattern. `origin`: the root at which it was set."""

    name: str = ""
    revision: int = 0
    origin: str = ""
    document: dict[str, object] = {}


class Policies(Value, frozen=True):
    """All documents. `etag`: of their content."""

    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    disagree: tuple[Disagreement, ...] = ()
    etag: str = ""
    policies: tuple[PolicyEntry, ...] = ()


class PolicyChange(Value, frozen=True):
    """A document that changes; `changes`: one text for each setting."""

    name: str = ""
    changes: tuple[str, ...] = ()


class VersionEffect(Value, frozen=True):
    """A version that changes its state. `before`, `after`: "active" or "waiting"."""

    version: str = ""
    before: str = ""
    after: str = ""
    reason: str = ""


class ShareEffect(Value, frozen=True):
    """A version that gets another percentage of the new requests."""

    version: str = ""
    before: float = 0.0
    after: float = 0.0


class PolicyEffect(Value, frozen=True):
    service: str = ""
    versions: tuple[VersionEffect, ...] = ()
    shares: tuple[ShareEffect, ...] = ()


class PolicyPlan(Value, frozen=True):
    """What a change of policies does. `etag`: after the change; `unnamed`: documents that it leaves alone."""

    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    disagree: tuple[Disagreement, ...] = ()
    dry_run: bool = False
    etag: str = ""
    changes: tuple[PolicyChange, ...] = ()
    effects: tuple[PolicyEffect, ...] = ()
    unnamed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Spec(Value, frozen=True):
    """What an instance registers. `endpoint`: "127.0.0.1:8001" or "unix:/path"; `capacity`: concurrent requests."""

    id: str
    service: str
    version: str
    routes: tuple[str, ...]
    endpoint: str
    protocol: str = "http1"
    compatible: tuple[str, ...] = ()
    capacity: int = 100
    health: Health = Health()
    ttl_s: float = 10.0
    pid: int = 0
    labels: dict[str, str] = {}

    @property
    def label(self) -> str:
        return f"{self.service}-{self.version}"

    def body(self) -> dict[str, object]:
        """The body of PUT /v1/instances/{id}."""
        body = self.to_dict()
        del body["id"]
        # A node of an older release refuses unknown keys, so new ones are sent only when they are set.
        default = Health()
        left_out = [name for name in ("host", "status") if getattr(self.health, name) == getattr(default, name)]
        body["health"] = {name: each for name, each in self.health.to_dict().items() if name not in left_out}
        return body

    @classmethod
    def of(
        cls,
        name_version: str | tuple[str, str],
        *,
        routes: Sequence[str],
        port: int | None = None,
        endpoint: str | None = None,
        id: str | None = None,
        health: Health | str = "tcp",
        protocol: str = "http1",
        compatible: Sequence[str] = (),
        capacity: int = 100,
        ttl_s: float = 10.0,
        pid: int = 0,
        labels: Mapping[str, str] | None = None,
    ) -> Spec:
        """A spec from its short form.

        `name_version`: "catalog-1.0.1", or ("catalog", "1.0.1"). Either `port` (on 127.0.0.1) or `endpoint`.
        `health`: a `Health`, or "tcp", "none", or a path for an HTTP check. Raises Problem.
        """
        service, version = split_name(name_version) if isinstance(name_version, str) else name_version
        if (port is None) == (endpoint is None):
            raise Problem(BASE + "bad-endpoint", 400, f"{service}-{version}: give either a port or an endpoint")
        if isinstance(routes, str):
            raise Problem(BASE + "bad-route", 400, f"{service}-{version}: routes is one string; give a list of them")
        return cls(
            id=id or f"{service}-{version}-{secrets.token_hex(4)}",
            service=service,
            version=version,
            routes=tuple(routes),
            endpoint=endpoint if endpoint is not None else f"127.0.0.1:{port}",
            protocol=protocol,
            compatible=tuple(compatible),
            capacity=capacity,
            health=health if isinstance(health, Health) else health_of(health),
            ttl_s=ttl_s,
            pid=pid,
            labels=dict(labels or {}),
        )


def split_name(name_version: str) -> tuple[str, str]:
    """("catalog", "1.0.1") from "catalog-1.0.1". Raises Problem."""
    try:
        return version.split_name(name_version)
    except Invalid as error:
        raise Problem(BASE + error.code, 400, str(error)) from error


def health_of(text: str) -> Health:
    """A check from its short form: "tcp", "none", or a path that begins with "/" (an HTTP check)."""
    if text in ("tcp", "none"):
        return Health(kind=text)
    if text.startswith("/"):
        return Health(kind="http", path=text)
    raise Problem(
        BASE + "bad-health", 400, f"health check '{text}' is unknown; use a path like /health, 'tcp' or 'none'"
    )
