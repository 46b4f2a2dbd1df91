"""Errors of the local API: RFC 9457 problem documents whose `type` ends in a stable code."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from sdlb.model.problem import Invalid

BASE = "https://sdlb.dev/problems/"
MEDIA_TYPE = "application/problem+json"
CODES: dict[str, tuple[int, str]] = {
    "not-found": (404, "no call has this path"),
    "method-not-allowed": (405, "this path does not support the method"),
    "no-such-instance": (404, "this host has no instance with that id"),
    "no-such-service": (404, "no root knows a service of that name"),
    "unknown-service": (409, "a policy for a service that no root knows, and `unknown=refuse` was given"),
    "unknown-version": (409, "a policy names a version that no root knows, and `unknown=refuse` was given"),
    "no-such-child": (404, "this node has no child of that name"),
    "child-in-touch": (409, "the child is connected or its lease has not expired: it is not forgotten"),
    "policies-changed": (412, "the policies have changed since the etag in `If-Match` was read; nothing was set"),
    "owner-conflict": (409, "another running process has registered the id"),
    "no-root": (503, "the answer needs a root, and none could be reached"),
    "policy-not-everywhere": (503, "some roots accepted the policy and others did not"),
    "key-reused": (422, "the `Idempotency-Key` belongs to another request"),
    "key-in-use": (409, "the first request with this `Idempotency-Key` is in progress"),
    "outcome-unknown": (409, "control stopped while it carried out the request with this `Idempotency-Key`"),
    "not-permitted": (403, "this user may not act under that name"),
    "approval-refused": (409, "the approval would have no effect; `detail` has the reason"),
    "promotion-refused": (409, "the version cannot be promoted; `detail` has the reason"),
    "transfer-refused": (409, "the route cannot be transferred; `detail` has the reason"),
    "no-such-release": (404, "no root knows a release of that name"),
    "release-refused": (409, "the release cannot be added or withdrawn; `detail` has the reason"),
    "no-such-rollout": (404, "no root knows a rollout of that service or id"),
    "rollout-refused": (409, "the rollout cannot start, or the order would have no effect; `detail` has the reason"),
    "no-owner": (503, "the root that owns the rollout could not be reached"),
    "no-conductor": (503, "the root that conducts the opening of the service could not be reached"),
    "root-missing": (503, "the call needs an answer of every root, and some could not be reached"),
    "not-written": (503, "the disk cannot be written: decisions wait until it can"),
    "no-such-site": (404, "this node has no site of that name"),
    "revocation-refused": (409, "the certificate cannot be revoked; `detail` has the reason"),
    "ca-not-reached": (503, "the CA did not answer: repeat the request, because it may have revoked the certificate"),
    "engine-not-upgraded": (503, "the hot restart failed; the old engine keeps serving"),
    "control-not-restarted": (503, "the new program cannot start; control keeps running"),
    "stopping": (503, "the node is draining and accepts nothing new"),
    "too-large": (413, "the body is longer than 64 KiB, or that of several policies longer than 1 MiB"),
    "bad-json": (400, "the body is not JSON, or does not match the schema"),
    "bad-query": (400, "a query parameter is unknown or has an invalid value"),
    "bad-url": (400, "the URL to explain is invalid"),
    "bad-id": (400, "the instance id is invalid"),
    "bad-route": (400, "a route pattern is invalid"),
    "bad-release": (400, "a release is invalid"),
    "bad-service": (400, "a service name is invalid"),
    "bad-version": (400, "a version is invalid"),
    "bad-compatible": (400, "a declaration of compatible versions is invalid"),
    "bad-host": (400, "a host name or address is invalid"),
    "bad-path": (400, "a path is invalid"),
    "bad-endpoint": (400, "the endpoint is invalid"),
    "bad-protocol": (400, "the protocol is unknown or not supported in this version"),
    "bad-health": (400, "the health check is invalid"),
    "bad-label": (400, "a label is invalid"),
    "bad-pid": (409, "there is no process with this id"),
    "bad-ttl": (400, "the lease is invalid"),
    "bad-policy": (400, "the policy is invalid"),
    "internal-error": (500, "an internal error of the node; see its log"),
}
"""Every code of the local API: its status, and what it means."""


class Refusal(Exception):
    """An error that becomes a problem document."""

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
