"""Errors of the local API: RFC 9457 problem documents whose `type` ends in a stable code."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from sdlb.model.problem import Invalid

BASE = "https://sdlb.dev/problems/"
MEDIA_TYPE = "application/problem+json"
CODES: dict[str, tuple[int, str]] = {
    "not-found": (404, "there is nothing at this path"),
    "method-not-allowed": (405, "the path does not take this method"),
    "no-such-instance": (404, "this host has no instance with that id"),
    "no-such-service": (404, "no root knows a service of that name"),
    "unknown-service": (409, "a policy for a service that no root knows, and `unknown=refuse` was given"),
    "unknown-version": (409, "a policy names a version that no root knows, and `unknown=refuse` was given"),
    "no-such-child": (404, "this node has no child of that name"),
    "child-in-touch": (409, "the child is in touch, or its lease still runs: it is not forgotten"),
    "owner-conflict": (409, "another process that is alive has registered the id"),
    "no-root": (503, "the answer needs the roots, and none was reached"),
    "policy-not-everywhere": (503, "some roots took the policy and others did not"),
    "not-written": (503, "the disk cannot be written: what is decided waits until it can"),
    "engine-not-upgraded": (503, "the new engine did not take over; the old one serves on as before"),
    "control-not-restarted": (503, "the program that would take over cannot start; control stays as it was"),
    "stopping": (503, "the node is draining and takes nothing new"),
    "too-large": (413, "the body is longer than 64 KiB"),
    "bad-json": (400, "the body is not JSON, or not of the right shape"),
    "bad-query": (400, "a query parameter has a value that cannot be used"),
    "bad-url": (400, "the URL to explain cannot be read"),
    "bad-id": (400, "the instance id cannot be used"),
    "bad-route": (400, "a route pattern cannot be read"),
    "bad-service": (400, "a service name cannot be used"),
    "bad-version": (400, "a version cannot be used"),
    "bad-compatible": (400, "a declaration of compatible versions cannot be read"),
    "bad-host": (400, "a host name or address cannot be read"),
    "bad-path": (400, "a path cannot be read"),
    "bad-endpoint": (400, "the endpoint cannot be used"),
    "bad-protocol": (400, "the protocol is unknown or not in this version"),
    "bad-health": (400, "the health check cannot be used"),
    "bad-label": (400, "a label cannot be used"),
    "bad-pid": (409, "no process has that number"),
    "bad-ttl": (400, "the lease cannot be used"),
    "bad-policy": (400, "the policy cannot be used"),
    "internal-error": (500, "a fault of the node; its log says more"),
}
"""Every code of the local API: its status, and what it means."""


class Refusal(Exception):
    """Answered as a problem document."""

    def __init__(self, code: str, detail: str, status: int = 0) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status or CODES.get(code, (400, ""))[0]
        self.detail = detail


def document(code: str, status: int, detail: str) -> dict[str, object]:
    title = code.replace("-", " ").capitalize()
    return {"type": BASE + code, "title": title, "status": status, "detail": detail}


def body_of(code: str, detail: str, status: int = 0) -> tuple[int, bytes]:
    """Status and body, for answers that travel between nodes."""
    status = status or CODES.get(code, (400, ""))[0]
    return status, msgspec.json.encode(document(code, status, detail))


def answer(code: str, detail: str, status: int = 0) -> Response:
    status, body = body_of(code, detail, status)
    return Response(body, status, media_type=MEDIA_TYPE)


def of_invalid(error: Invalid) -> Response:
    return answer(error.code, str(error), CODES.get(error.code, (400, ""))[0])
