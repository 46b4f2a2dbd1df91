"""The body of `PUT /v1/instances/{id}` -> a checked `InstanceSpec`. Raises `Invalid`, one clear sentence each."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sdlb.model.address import check_address
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.model.problem import Invalid
from sdlb.model.route import PATTERN_CHARS_MAX, Pattern
from sdlb.model.version import NAME_CHARS_MAX, SERVICE, VERSION, check_service, check_version, parse_declaration
from sdlb.node.probe import STATUS

ID_CHARS_MAX = 200
UNIX_PATH_BYTES_MAX = 107
PROTOCOLS = ("http1", "h2c")
ID = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._:@+~-]*[A-Za-z0-9])?\Z")
_HOST = re.compile(r"^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])?(:[0-9]{1,5})?\Z")
_STATUS = re.compile(r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?(,[1-5][0-9]{2}(-[1-5][0-9]{2})?)*\Z")
_PATH = re.compile(r"^/[!-~]*\Z")


def json_schema_pattern(pattern: re.Pattern[str]) -> str:
    """The pattern in the syntax of JSON Schema."""
    return pattern.pattern.replace(r"\Z", "$")


def _text(pattern: re.Pattern[str] | None, most: int, **more: str) -> Meta:
    """The constraints for /openapi.json only: the model validates the value and has better messages."""
    found: dict[str, Any] = {"minLength": 1, "maxLength": most, **more}
    if pattern is not None:
        found["pattern"] = json_schema_pattern(pattern)
    return Meta(extra_json_schema=found)


Short = Annotated[str, Meta(max_length=1024)]
Service = Annotated[str, _text(SERVICE, NAME_CHARS_MAX)]
Version_ = Annotated[str, _text(VERSION, NAME_CHARS_MAX)]
Route = Annotated[str, _text(None, PATTERN_CHARS_MAX, format="sdlb-route")]
Endpoint = Annotated[str, _text(None, 1024, format="sdlb-endpoint")]
Declaration = Annotated[str, _text(None, 256, format="sdlb-versions")]
Protocol = Literal["http1", "h2c"]
TTL: dict[str, Any] = {"anyOf": [{"const": 0}, {"minimum": 0.1}]}
LABELS: dict[str, Any] = {
    "propertyNames": {"minLength": 1, "maxLength": 64, "format": "sdlb-printable"},
    "additionalProperties": {"type": "string", "maxLength": 256, "format": "sdlb-printable"},
}


class Health(msgspec.Struct, forbid_unknown_fields=True):
    """How the host node checks the health of the instance. `host`: the Host of an HTTP check, "": the endpoint.
    `status`: the healthy status codes, as ranges and numbers."""

    kind: Annotated[str, Meta(extra_json_schema={"enum": ["http", "tcp", "none"]})] = "tcp"
    path: Annotated[str, _text(_PATH, 1024)] = "/"
    interval_s: Annotated[float, Meta(ge=0.05, le=3600)] = 2.0
    timeout_s: Annotated[float, Meta(ge=0.01, le=600)] = 1.0
    rise: Annotated[int, Meta(ge=1, le=100)] = 1
    fall: Annotated[int, Meta(ge=1, le=100)] = 2
    host: Annotated[str, Meta(extra_json_schema={"maxLength": 260, "pattern": json_schema_pattern(_HOST)})] = ""
    status: Annotated[str, _text(_STATUS, 200)] = STATUS


class InstanceBody(msgspec.Struct, forbid_unknown_fields=True):
    """What an instance registers; renewing is sending the same again. `ttl_s` 0: no lease."""

    service: Service
    version: Version_
    routes: Annotated[list[Route], Meta(min_length=1, max_length=64)]
    endpoint: Endpoint
    protocol: Annotated[str, Meta(extra_json_schema={"enum": list(PROTOCOLS)})] = "http1"
    compatible: Annotated[list[Declaration], Meta(max_length=32)] = []
    capacity: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    health: Health = msgspec.field(default_factory=Health)
    ttl_s: Annotated[float, Meta(ge=0, le=86400, extra_json_schema=TTL)] = 10.0
    pid: Annotated[int, Meta(ge=0, le=1 << 22)] = 0
    labels: Annotated[dict[str, str], Meta(max_length=64, extra_json_schema=LABELS)] = {}


def check_id(text: str) -> str:
    if len(text) > ID_CHARS_MAX or not ID.match(text):
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        do = f"use up to {ID_CHARS_MAX} letters, digits and . _ - : @ + ~, a letter or digit first and last"
        raise Invalid("bad-id", f"instance id {shown!r}", "cannot be used", do)
    return text


def read_spec(instance_id: str, body: InstanceBody) -> InstanceSpec:
    """Canonical: two bodies that mean the same give equal specs."""
    where = f"instance {check_id(instance_id)}"
    if body.protocol not in PROTOCOLS:
        known = body.protocol == "tcp"
        what = f"has the protocol {body.protocol[:20]!r}, which {'is not supported in this version' if known else 'is unknown'}"
        raise Invalid("bad-protocol", where, what, f"use {' or '.join(PROTOCOLS)}")
    if 0 < body.ttl_s < 0.1:
        raise Invalid("bad-ttl", where, f"has a ttl_s of {body.ttl_s:g}", "use at least 0.1, or 0 for no lease")
    for text in body.compatible:
        parse_declaration(text)
    routes = tuple(dict.fromkeys(str(Pattern.parse(route)) for route in body.routes))
    return InstanceSpec(
        id=instance_id,
        service=check_service(body.service),
        version=check_version(body.version),
        routes=routes,
        endpoint=_endpoint(where, body.endpoint),
        protocol=body.protocol,
        compatible=tuple(dict.fromkeys(body.compatible)),
        capacity=body.capacity,
        health=read_health(where, body.health),
        ttl_s=float(body.ttl_s),
        pid=body.pid,
        labels=_labels(where, body.labels),
    )


def _endpoint(where: str, text: str) -> str:
    expected = "write it as 127.0.0.1:8001 or unix:/path"
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith("/") or not path.isprintable() or len(path.encode()) > UNIX_PATH_BYTES_MAX:
            raise Invalid("bad-endpoint", where, f"has the endpoint {text[:120]!r}", expected)
        return text
    try:
        return check_address(text, wildcard=False)
    except ValueError:
        raise Invalid("bad-endpoint", where, f"has the endpoint {text[:120]!r}", expected) from None


def read_health(where: str, health: Health) -> HealthCheck:
    """The texts are checked here, the numbers by the type. Raises Invalid."""
    if health.kind not in ("http", "tcp", "none"):
        do = "use http, tcp or none"
        raise Invalid("bad-health", where, f"has a health check of kind {health.kind[:40]!r}", do)
    if not _PATH.match(health.path):
        do = "write a path like /health, percent-encoded"
        raise Invalid("bad-health", where, f"has the health path {health.path[:60]!r}", do)
    if not _HOST.match(health.host):
        raise Invalid("bad-health", where, f"has the health host {health.host[:60]!r}", "write it as example.com")
    if len(health.status) > 200 or not _STATUS.match(health.status):
        do = "write it as 200-399, or 200,204"
        raise Invalid("bad-health", where, f"has the health status {health.status[:60]!r}", do)
    return HealthCheck(
        health.kind,
        health.path,
        float(health.interval_s),
        float(health.timeout_s),
        health.rise,
        health.fall,
        health.host,
        health.status,
    )


def _labels(where: str, labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    for name, value in labels.items():
        if not name or len(name) > 64 or len(value) > 256 or not (name + value).isprintable():
            do = "use names of up to 64 and values of up to 256 printable characters"
            raise Invalid("bad-label", where, f"has the label {name[:40]!r}", do)
    return tuple(sorted(labels.items()))


def _number(text: str) -> float:
    """ "5.0" is a whole number in JSON Schema."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_JSON = msgspec.json.Decoder(float_hook=_number)


def decode(kind: type[Any], content: bytes, code: str, where: str) -> Any:
    """JSON, strictly, into a msgspec type. Raises Invalid."""
    try:
        return msgspec.convert(_JSON.decode(content), kind)
    except msgspec.ValidationError as error:
        text = str(error)
        text = text if len(text) <= 200 else f"{text[:197]}..."
        raise Invalid(code, where, f"does not match the schema: {text}", "see /docs") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(code, where, f"is not JSON ({str(error)[:120]})", "send one JSON object") from None
