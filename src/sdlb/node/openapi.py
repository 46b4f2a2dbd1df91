"""The calls of the local API as one table, from which its routes, OpenAPI document and page at /docs are made."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

import msgspec

from sdlb.node import schema
from sdlb.node.problems import CODES, MEDIA_TYPE
from sdlb.node.specs import InstanceBody

WAIT = {"wait": "a state (active, drained, ...): answer when it is reached or the time is up"}
TIMEOUT = {"timeout_s": "how long to wait, 0 to 3600 (30)"}
DEADLINE = {"deadline_s": "how long requests in flight may take, 0 to 86400 (30)"}
SCOPE = {"scope": "`local`: what this node knows itself, without asking the roots"}


@dataclass(frozen=True, slots=True)
class Call:
    """`answer`: a msgspec type (JSON), or the media type of something else."""

    operation: str
    method: str
    path: str
    summary: str
    answer: type[Any] | str
    body: type[Any] | None = None
    query: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    created: bool = False


def version() -> str:
    """Of this package, as it is installed."""
    try:
        return metadata.version("sdlb")
    except metadata.PackageNotFoundError:
        return "0"


def _query(*parts: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(item for part in parts for item in part.items())


_BODY = ("bad-json", "too-large")
CALLS: tuple[Call, ...] = (
    Call("list_instances", "GET", "/v1/instances", "The instances of this host", schema.Instances),
    Call(
        "put_instance",
        "PUT",
        "/v1/instances/{id}",
        "Registers an instance, changes it, or renews its lease",
        schema.Instance,
        InstanceBody,
        problems=(*_BODY, "bad-id", "bad-route", "bad-version", "bad-endpoint", "bad-health", "bad-pid", "stopping"),
        created=True,
    ),
    Call(
        "get_instance",
        "GET",
        "/v1/instances/{id}",
        "An instance, its state and the reason; long-polls with `wait`",
        schema.Instance,
        query=_query(WAIT, TIMEOUT),
        problems=("no-such-instance", "bad-query"),
    ),
    Call(
        "drain_instance",
        "POST",
        "/v1/instances/{id}/drain",
        "Takes new traffic away; answers when nothing is in flight anywhere, or when the time is up",
        schema.Instance,
        query=_query(DEADLINE),
        problems=("no-such-instance", "bad-query"),
    ),
    Call(
        "delete_instance",
        "DELETE",
        "/v1/instances/{id}",
        "Drains, then forgets; answers the instance as it was",
        schema.Instance,
        query=_query(DEADLINE, {"gone": "`1`: its process has ended; out at once"}),
        problems=("no-such-instance", "bad-query"),
    ),
    Call(
        "list_services",
        "GET",
        "/v1/services",
        "All services, asked of the roots",
        schema.Services,
        query=_query(SCOPE),
        problems=("no-root",),
    ),
    Call(
        "get_service",
        "GET",
        "/v1/services/{name}",
        "One service: which version is active or waiting, and for what",
        schema.Services,
        query=_query(SCOPE),
        problems=("no-such-service", "no-root"),
    ),
    Call("get_tree", "GET", "/v1/tree", "This node, its parents, children and instances", schema.Tree),
    Call(
        "forget_child",
        "DELETE",
        "/v1/children/{name}",
        "Says that a silent child has stopped: it is forgotten with all that it claimed; answers it as it was",
        schema.Child,
        problems=("no-such-child", "child-in-touch", "not-written"),
    ),
    Call(
        "upgrade_engine",
        "POST",
        "/v1/engine/upgrade",
        "The engine that is installed now takes over from the one that runs; answers when it serves",
        schema.EngineUpgrade,
        query=_query({"deadline_s": "seconds that the old one has to answer what is open (30)"}),
        problems=("bad-query", "engine-not-upgraded", "stopping"),
    ),
    Call(
        "list_sites", "GET", "/v1/sites", "The sites of this node, their certificates and what is wrong", schema.Sites
    ),
    Call("list_routes", "GET", "/v1/routes", "The routes at this node, most specific first", schema.Routes),
    Call(
        "explain",
        "GET",
        "/v1/explain",
        "Which route, version and target a request for a URL would get at this node, and why",
        schema.Explanation,
        query=_query({"url": "http://host/path"}, SCOPE),
        problems=("bad-query", "bad-url"),
    ),
    Call(
        "events",
        "GET",
        "/v1/events",
        "What happened: server-sent events, the recent ones first (`Last-Event-ID` continues)",
        "text/event-stream",
        query=_query(
            {"follow": "`0`: end after the recent ones"}, {"since": "a JSON list of the events after this id instead"}
        ),
        problems=("bad-query",),
    ),
    Call(
        "get_policy",
        "GET",
        "/v1/policies/{service}",
        "The policy in force, asked of the roots",
        schema.Policy,
        query=_query(SCOPE),
        problems=("bad-service", "no-root"),
    ),
    Call(
        "put_policy",
        "PUT",
        "/v1/policies/{service}",
        "Sets the policy at every root that can be reached",
        schema.Policy,
        schema.PolicyDocument,
        problems=("too-large", "bad-service", "bad-policy", "no-root", "policy-not-everywhere", "not-written"),
    ),
    Call("metrics", "GET", "/metrics", "Figures for Prometheus", "text/plain"),
    Call("healthz", "GET", "/healthz", "200 while control turns", "text/plain"),
    Call("readyz", "GET", "/readyz", "200 when the node serves, else 503 and why", "text/plain"),
    Call("openapi", "GET", "/openapi.json", "This description", "application/json"),
    Call("docs", "GET", "/docs", "The calls, for people", "text/html"),
)


def document() -> dict[str, Any]:
    types = [schema.Problem, schema.Events]
    types += [call.answer for call in CALLS if not isinstance(call.answer, str)]
    types += [call.body for call in CALLS if call.body is not None]
    unique = list(dict.fromkeys(types))
    references, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
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
            content["application/json"] = {"schema": by_type[schema.Events]}
        if call.operation == "openapi":
            content = {"application/json": {"schema": {"type": "object"}}}
    else:
        content = {"application/json": {"schema": by_type[call.answer]}}
    responses: dict[str, Any] = {"200": {"description": "Done", "content": content}}
    if call.created:
        responses["201"] = {"description": "New", "content": content}
    by_status: dict[int, list[str]] = {}
    for code in call.problems:
        by_status.setdefault(CODES[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        problem = {MEDIA_TYPE: {"schema": by_type[schema.Problem]}}
        responses[str(status)] = {"description": ", ".join(codes), "content": problem}
    if call.operation == "readyz":
        responses["503"] = {"description": "Not ready, and why", "content": content}
    operation: dict[str, Any] = {"operationId": call.operation, "summary": call.summary, "responses": responses}
    parameters = [_parameter(part[1:-1], "path", "") for part in call.path.split("/") if part.startswith("{")]
    parameters += [_parameter(name, "query", text) for name, text in call.query]
    if parameters:
        operation["parameters"] = parameters
    if call.body is not None:
        schema_of = {"application/json": {"schema": by_type[call.body]}}
        operation["requestBody"] = {"required": True, "content": schema_of}
    return operation


def _parameter(name: str, place: str, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}
    if name == "url":
        found["required"] = True
    return {**found, "description": text} if text else found
