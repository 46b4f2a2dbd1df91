"""The calls of the local API as one table, from which its routes, OpenAPI document and page at /docs are made."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any, get_args

import msgspec
from msgspec import Struct

from sdlb.model.address import NAME
from sdlb.model.version import NAME_CHARS_MAX, SERVICE, VERSION
from sdlb.node import schema, schema_orders, schema_rollouts
from sdlb.node.idempotency import KEY
from sdlb.node.parameters import ETAG, INTEGER_MAX, Parameter
from sdlb.node.problems import CODES, MEDIA_TYPE
from sdlb.node.specs import ID, ID_CHARS_MAX, InstanceBody, json_schema_pattern

STATES: tuple[str, ...] = get_args(schema.InstanceState)
WAIT = Parameter("wait", "a state: answer when the instance reaches it or the timeout expires", STATES)
TIMEOUT = Parameter("timeout_s", "the timeout (30)", most=3600)
DEADLINE = Parameter("deadline_s", "maximum time to drain (none: `drain` of the policy decides)", most=86_400)
SCOPE = Parameter("scope", "`local`: what this node knows on its own, without asking the roots", ("local",))
GONE = Parameter("gone", "`1`: the process has exited; remove the instance without draining", ("0", "1"))
PID = Parameter("pid", "remove only what this process registered", most=2**31 - 1, whole=True)
UPGRADE = Parameter("deadline_s", "maximum time for the old engine to drain (30)", most=86_400)
URL = Parameter("url", "http://host/path", required=True, chars_max=8192, format="sdlb-url")
FOLLOW = Parameter("follow", "`0`: end after the recent events", ("0", "1", "false", "true"))
SINCE = Parameter("since", "return a JSON list of the events after this id instead", most=INTEGER_MAX, whole=True)
UNKNOWN = Parameter(
    "unknown",
    "services and versions that no root knows: `accept` with `warnings` (the default), or `refuse`",
    ("accept", "refuse"),
)
DRY_RUN = Parameter("dry_run", "`1`: only return what would change", ("0", "1"))
OF_SERVICE = Parameter(
    "service", "only those of this service", chars_max=NAME_CHARS_MAX, pattern=json_schema_pattern(SERVICE)
)
BY = Parameter("by", "as in ReleaseBody", chars_max=128, format="sdlb-printable")
IF_MATCH: dict[str, Any] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": json_schema_pattern(ETAG)},
    "description": "the etag of `GET /v1/policies`: set nothing if the policies have changed since",
}
REPEATED = (
    *("put_policy", "put_policies", "approve_version", "promote_version", "transfer_route"),
    *("add_release", "put_release", "withdraw_release", "start_rollout", "order_rollout"),
    *("delete_instance", "forget_child", "upgrade_engine", "revoke_certificate"),
)
"""Calls that take an Idempotency-Key. The others may be repeated without one: to register, renew and drain an instance, where a kept answer
would renew no lease, and to restart control."""
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": json_schema_pattern(KEY)},
    "description": "a text of your choice, for one request: repeated with the same key, it gets the first answer for 24 h, at this node. "
    "Errors are not kept",
}
PATHS: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX, "pattern": json_schema_pattern(ID)},
    "name": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": json_schema_pattern(NAME)},
    "service": {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX, "pattern": json_schema_pattern(SERVICE)},
    "version": {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX, "pattern": json_schema_pattern(VERSION)},
    "release": {"type": "string", "minLength": 1, "maxLength": 2 * NAME_CHARS_MAX + 1, "pattern": r"^[ -~]+$"},
    "rollout": {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX, "pattern": json_schema_pattern(SERVICE)},
    "verb": {"type": "string", "enum": list(schema_rollouts.VERBS)},
    "site": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": r"^[!-.0-~]+$"},
    "policy": {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX, "pattern": schema.POLICY_NAME},
}


class Call(Struct, frozen=True):
    """`answer`: a msgspec type (JSON), or the media type of something else."""

    operation: str
    method: str
    path: str
    summary: str
    answer: type[Any] | str
    body: type[Any] | None = None
    query: tuple[Parameter, ...] = ()
    problems: tuple[str, ...] = ()
    if_match: bool = False
    created: bool = False

    @property
    def checked(self) -> bool:
        """Whether unknown parameters are refused. Probes may send any."""
        return self.path.startswith("/v1/")


@cache
def version() -> str:
    """The version of the installed package."""
    try:
        return metadata.version("sdlb")
    except metadata.PackageNotFoundError:
        return "0"


_BODY = ("bad-json", "too-large")
_SPEC = (
    *("bad-id", "bad-service", "bad-version", "bad-compatible", "bad-route", "bad-host", "bad-path", "bad-endpoint"),
    *("bad-protocol", "bad-health", "bad-label", "bad-ttl", "bad-pid"),
)
_RELEASE = ("bad-release", "release-refused", "not-permitted", "no-root", "not-written")
_ROLLOUT = ("rollout-refused", "no-owner", "not-permitted", "no-root", "not-written")
_ORDER = ("not-permitted", "no-root", "no-conductor", "not-written")
CALLS: tuple[Call, ...] = (
    Call("list_instances", "GET", "/v1/instances", "The instances of this host", schema.Instances),
    Call(
        "put_instance",
        "PUT",
        "/v1/instances/{id}",
        "Registers an instance, changes it, or renews its lease",
        schema.Instance,
        InstanceBody,
        problems=(
            *_BODY,
            *_SPEC,
            *("owner-conflict", "stopping"),
        ),
        created=True,
    ),
    Call(
        "get_instance",
        "GET",
        "/v1/instances/{id}",
        "An instance with its state and the reason; long-polls with `wait`",
        schema.Instance,
        query=(WAIT, TIMEOUT),
        problems=("no-such-instance", "bad-query"),
    ),
    Call(
        "drain_instance",
        "POST",
        "/v1/instances/{id}/drain",
        "Drains an instance; answers when no request is in flight anywhere, or after the deadline",
        schema.Instance,
        query=(DEADLINE,),
        problems=("no-such-instance", "bad-query"),
    ),
    Call(
        "delete_instance",
        "DELETE",
        "/v1/instances/{id}",
        "Drains an instance and removes it; returns its last state",
        schema.Instance,
        query=(DEADLINE, GONE, PID),
        problems=("no-such-instance", "bad-query", "owner-conflict"),
    ),
    Call(
        "list_services",
        "GET",
        "/v1/services",
        "All services, as the roots see them",
        schema.Services,
        query=(SCOPE,),
        problems=("no-root",),
    ),
    Call(
        "get_service",
        "GET",
        "/v1/services/{name}",
        "One service: which versions are active or waiting, and why",
        schema.Services,
        query=(SCOPE,),
        problems=("no-such-service", "no-root"),
    ),
    Call("get_tree", "GET", "/v1/tree", "This node with its parents, children and instances", schema.Tree),
    Call(
        "forget_child",
        "DELETE",
        "/v1/children/{name}",
        "Removes a silent child that has stopped, with all its claims; returns its last state",
        schema.Child,
        problems=("no-such-child", "child-in-touch", "not-written"),
    ),
    Call(
        "upgrade_engine",
        "POST",
        "/v1/engine/upgrade",
        "Hot restart: the installed engine replaces the running one; answers when it serves",
        schema.EngineUpgrade,
        query=(UPGRADE,),
        problems=("bad-query", "engine-not-upgraded", "stopping"),
    ),
    Call(
        "restart_control",
        "POST",
        "/v1/control/restart",
        "Restarts control with the installed program; the engine keeps serving. Answers before the restart",
        schema.ControlRestart,
        problems=("control-not-restarted", "stopping"),
    ),
    Call("list_sites", "GET", "/v1/sites", "The sites of this node with the state of their certificates", schema.Sites),
    Call(
        "revoke_certificate",
        "POST",
        "/v1/sites/{site}/revoke",
        "Revokes the certificate that this node has from the CA of `[acme]`, and orders another one with a new key",
        schema_orders.Revoked,
        schema_orders.Revocation,
        problems=(*_BODY, "not-permitted", "no-such-site", "revocation-refused", "ca-not-reached"),
    ),
    Call("list_routes", "GET", "/v1/routes", "The routes at this node, most specific first", schema.Routes),
    Call(
        "explain",
        "GET",
        "/v1/explain",
        "Which route, version and endpoint a request for a URL would get at this node, and why",
        schema.Explanation,
        query=(URL, SCOPE),
        problems=("bad-query", "bad-url"),
    ),
    Call(
        "events",
        "GET",
        "/v1/events",
        "Events of this node as server-sent events, recent ones first (`Last-Event-ID` continues)",
        "text/event-stream",
        query=(FOLLOW, SINCE),
        problems=("bad-query",),
    ),
    Call(
        "list_policies",
        "GET",
        "/v1/policies",
        "All policy documents, and an etag of their content",
        schema.Policies,
        query=(SCOPE,),
        problems=("no-root",),
    ),
    Call(
        "put_policies",
        "PUT",
        "/v1/policies",
        "Sets several policy documents at every root that can be reached, all or none. An empty document removes a policy",
        schema.PolicyPlan,
        schema.PoliciesBody,
        query=(DRY_RUN, UNKNOWN),
        problems=(
            *(
                *_BODY,
                "bad-query",
                "bad-service",
                "bad-policy",
                "unknown-service",
                "unknown-version",
                "policies-changed",
            ),
            *("no-root", "policy-not-everywhere", "not-written"),
        ),
        if_match=True,
    ),
    Call(
        "get_policy",
        "GET",
        "/v1/policies/{policy}",
        "The policy of a service or pattern as the roots have it, and the document that sets each key",
        schema.Policy,
        query=(SCOPE,),
        problems=("bad-service", "no-root"),
    ),
    Call(
        "put_policy",
        "PUT",
        "/v1/policies/{policy}",
        "Sets the policy document of a service or pattern at every root that can be reached",
        schema.Policy,
        schema.PolicyDocument,
        query=(UNKNOWN,),
        problems=(
            *("too-large", "bad-query", "bad-service", "bad-policy", "unknown-service", "unknown-version"),
            *("no-root", "policy-not-everywhere", "not-written"),
        ),
    ),
    Call(
        "approve_version",
        "POST",
        "/v1/services/{service}/versions/{version}/approve",
        "Approves a gate of a waiting version",
        schema_orders.Approved,
        schema_orders.Approval,
        problems=(*_BODY, *_ORDER, "approval-refused"),
    ),
    Call(
        "promote_version",
        "POST",
        "/v1/services/{service}/versions/{version}/promote",
        "Promotes a waiting version: failed gates are retried, and a flip does not wait for more capacity",
        schema_orders.Promoted,
        schema_orders.Promotion,
        problems=(*_BODY, *_ORDER, "promotion-refused"),
    ),
    Call(
        "transfer_route",
        "POST",
        "/v1/routes/transfer",
        "Gives a route to another service that claims it; the service that holds it is drained",
        schema_orders.Transferred,
        schema_orders.Transfer,
        problems=(
            *_BODY,
            *("bad-service", "bad-route", "bad-host", "bad-path", "transfer-refused", "not-permitted", "no-root"),
            *("root-missing", "not-written"),
        ),
    ),
    Call(
        "list_releases",
        "GET",
        "/v1/releases",
        "The releases that are known, by service and version",
        schema_rollouts.Releases,
        query=(OF_SERVICE,),
        problems=("bad-query", "bad-service", "no-root"),
    ),
    Call(
        "add_release",
        "POST",
        "/v1/releases",
        "Adds a release at every root that can be reached. One that is known may get more platforms, and nothing else",
        schema_rollouts.ReleaseChanged,
        schema_rollouts.ReleaseBody,
        problems=(*_BODY, "bad-service", "bad-version", *_RELEASE),
    ),
    Call(
        "put_release",
        "PUT",
        "/v1/releases/{release}",
        "As `POST /v1/releases`; the name is SERVICE-VERSION",
        schema_rollouts.ReleaseChanged,
        schema_rollouts.ReleaseBody,
        problems=(*_BODY, "bad-service", "bad-version", *_RELEASE),
    ),
    Call(
        "withdraw_release",
        "DELETE",
        "/v1/releases/{release}",
        "Withdraws a release: no rollout to it can start until it is added again, with the same digests",
        schema_rollouts.ReleaseChanged,
        query=(BY,),
        problems=("bad-json", "no-such-release", *_RELEASE),
    ),
    Call(
        "list_rollouts",
        "GET",
        "/v1/rollouts",
        "The last rollout of each service, as its owner has it",
        schema_rollouts.Rollouts,
        problems=("no-root",),
    ),
    Call(
        "start_rollout",
        "POST",
        "/v1/rollouts",
        "Starts a rollout at the first root by name, which owns it from then on",
        schema_rollouts.RolloutOrdered,
        schema_rollouts.RolloutStart,
        query=(DRY_RUN,),
        problems=(*_BODY, "bad-service", "bad-version", *_ROLLOUT),
    ),
    Call(
        "get_rollout",
        "GET",
        "/v1/rollouts/{rollout}",
        "A rollout by its id, or the last one of a service",
        schema_rollouts.RolloutFound,
        problems=("no-such-rollout", "rollout-refused", "no-root"),
    ),
    Call(
        "get_rollout_record",
        "GET",
        "/v1/rollouts/{rollout}/record",
        "The records of a rollout, or of the last one of a service, at each root: entries that are chained by their SHA-256",
        schema_rollouts.RolloutRecords,
        problems=("no-such-rollout", "no-root"),
    ),
    Call(
        "order_rollout",
        "POST",
        "/v1/rollouts/{rollout}/{verb}",
        "An order about the rollout in progress of a service, for the root that owns it: `pause`, `resume`, `promote`, `abort`; `undo` the "
        "last one; `adopt` one after its owner is lost",
        schema_rollouts.RolloutOrdered,
        schema_rollouts.RolloutOrder,
        query=(DRY_RUN,),
        problems=(*_BODY, "bad-query", "no-such-rollout", *_ROLLOUT),
    ),
    Call(
        "list_roles",
        "GET",
        "/v1/roles",
        "The services that nodes of the tree run as their roles, with the version that they have",
        schema_rollouts.Roles,
        problems=("no-root",),
    ),
    Call("get_agent", "GET", "/v1/agent", "The services that this node runs as its roles", schema_rollouts.Agent),
    Call("metrics", "GET", "/metrics", "Metrics for Prometheus", "text/plain"),
    Call("healthz", "GET", "/healthz", "Liveness: 200 while control runs", "text/plain"),
    Call("readyz", "GET", "/readyz", "Readiness: 200 when the node serves, else 503 with the reason", "text/plain"),
    Call("openapi", "GET", "/openapi.json", "This OpenAPI document", "application/json"),
    Call("docs", "GET", "/docs", "The API reference as a web page", "text/html"),
)


def document() -> dict[str, Any]:
    types = [schema.Problem, schema.Events]
    types += [call.answer for call in CALLS if not isinstance(call.answer, str)]
    types += [call.body for call in CALLS if call.body is not None]
    unique = list(dict.fromkeys(types))
    references, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    for name, rule in schema.RULES.items():
        components[name] |= rule
    by_type = dict(zip(unique, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sdlb local API",
            "version": version(),
            "description": "HTTP and JSON on a node's Unix socket. Errors are RFC 9457 problem documents; the last "
            "part of their `type` is a stable code:\n\n"
            + "\n".join(f"- `{code}` ({status}): {meaning}" for code, (status, meaning) in CODES.items()),
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(call: Call, by_type: dict[Any, Any]) -> dict[str, Any]:
    if isinstance(call.answer, str):
        content: dict[str, Any] = {call.answer: {"schema": {"type": "string"}}}
        if call.operation == "events":
            content[call.answer] = {}
            content["application/json"] = {"schema": by_type[schema.Events]}
        if call.operation == "openapi":
            content = {"application/json": {"schema": {"type": "object"}}}
    else:
        content = {"application/json": {"schema": by_type[call.answer]}}
    responses: dict[str, Any] = {"200": {"description": "Done", "content": content}}
    if call.created:
        responses["201"] = {"description": "New", "content": content}
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys((*_always(call), *call.problems)):
        by_status.setdefault(CODES[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        problem = {MEDIA_TYPE: {"schema": by_type[schema.Problem]}}
        responses[str(status)] = {"description": ", ".join(codes), "content": problem}
    if call.operation == "readyz":
        responses["503"] = {"description": "Not ready, with the reason", "content": content}
    operation: dict[str, Any] = {"operationId": call.operation, "summary": call.summary, "responses": responses}
    parameters = [_in_path(call, part[1:-1]) for part in call.path.split("/") if part[:1] == "{"]
    parameters += [_in_query(each) for each in call.query]
    parameters += [IF_MATCH] if call.if_match else []
    parameters += [IDEMPOTENCY_KEY] if call.operation in REPEATED else []
    if parameters:
        operation["parameters"] = parameters
    if call.body is not None:
        schema_of = {"application/json": {"schema": by_type[call.body]}}
        operation["requestBody"] = {"required": True, "content": schema_of}
    return operation


def _always(call: Call) -> tuple[str, ...]:
    """The problem codes that any call of its kind may return."""
    names = {"{id}": "bad-id", "{version}": "bad-version"}
    names |= dict.fromkeys(("{service}", "{name}", "{policy}", "{rollout}"), "bad-service")
    found = [code for part, code in names.items() if part in call.path and not call.path.startswith("/v1/children")]
    found += ["key-reused", "key-in-use"] if call.operation in REPEATED else []
    found += ["outcome-unknown"] if call.operation in REPEATED and call.method == "POST" else []
    found += ["not-written"] if call.operation in REPEATED else []
    return (*found, "bad-query") if call.checked else ()


def _in_path(call: Call, name: str) -> dict[str, Any]:
    what = PATHS["service" if name == "name" and call.path.startswith("/v1/services/") else name]
    return {"name": name, "in": "path", "required": True, "schema": what}


def _in_query(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"name": parameter.name, "in": "query", "required": parameter.required}
    return {**found, "schema": parameter.schema(), "description": parameter.text}


def allowed(path: str) -> str:
    """The methods of a path, as in the header field Allow; "" for an unknown path."""
    parts = path.split("/")
    methods: set[str] = set()
    for call in CALLS:
        mine = call.path.split("/")
        if len(parts) == len(mine) and all(m[:1] == "{" or m == part for m, part in zip(mine, parts, strict=True)):
            methods |= {call.method, "HEAD"} if call.method == "GET" else {call.method}
    return ", ".join(sorted(methods))
