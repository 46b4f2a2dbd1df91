"""The calls of the local API as values: the request, and the type of its response. No I/O.

`Client` and `AsyncClient` both use them, so that they cannot differ.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import Generic, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.rollout_types import (
    Agent,
    ReleaseChanged,
    Releases,
    Roles,
    RolloutFound,
    RolloutOrdered,
    RolloutRecords,
    Rollouts,
)
from sdlb.sdk.types import (
    Approved,
    Child,
    ControlRestart,
    EngineUpgrade,
    Explanation,
    Instance,
    Policies,
    Policy,
    PolicyPlan,
    Promoted,
    Revoked,
    Routes,
    Services,
    Sites,
    Spec,
    Transferred,
    Tree,
)

DEFAULT_SOCKET = "/run/sdlb/sdlb.sock"
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
"""After this time control counts as not responding (a read is sent to all roots: two tiers at 2 s each)."""

UPGRADE_TIMEOUT_S = 60.0
REVOKE_TIMEOUT_S = 75.0
"""A new engine starts, receives the full state and takes over the sockets within seconds; longer is an error."""

T = TypeVar("T")


def default_socket() -> str:
    """SDLB_SOCKET, else the node's default socket: the system's, or the user's when there is one.

    Raises Problem when the user has several nodes.
    """
    configured = os.environ.get("SDLB_SOCKET")
    if configured or os.path.exists(DEFAULT_SOCKET):
        return configured or DEFAULT_SOCKET
    found: list[str] = []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        found = glob.glob(f"{glob.escape(runtime)}/sdlb/*.sock")
    state = os.environ.get("XDG_STATE_HOME") or f"{os.environ.get('HOME') or '/tmp'}/.local/state"
    found = sorted(found or glob.glob(f"{glob.escape(state)}/sdlb/*/sdlb.sock"))
    if len(found) > 1:
        text = f"several nodes run here ({', '.join(found)}); select one with --socket or SDLB_SOCKET"
        raise Problem(BASE + "which-node", 0, text)
    return found[0] if found else DEFAULT_SOCKET


class Call(Struct, Generic[T], frozen=True):
    """One request. The answer is awaited for `timeout_s`. `keyed`: it takes an `Idempotency-Key`, and may be sent again."""

    method: str
    path: str
    answer: type[T]
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    body: object = None
    timeout_s: float = ANSWER_TIMEOUT_S
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    keyed: bool = False

    def content(self) -> bytes | None:
        return None if self.body is None else msgspec.json.encode(self.body)

    def read(self, status: int, content: bytes) -> T:
        """The typed answer. Raises Problem for a status of 400 or more, or for an answer that isn't the API's."""
        if status >= 400:
            raise problem(status, content)
        try:
            return msgspec.convert(msgspec.json.decode(content) if content else {}, self.answer, strict=False)
        except msgspec.MsgspecError as error:
            text = f"{self.method} {self.path}: the node's response cannot be read ({error}); use the same version of sdlb on both sides"
            raise Problem(BASE + "bad-answer", status, text) from error


class _Document(msgspec.Struct):
    type: str = "about:blank"
    title: str = ""
    detail: str = ""


def problem(status: int, content: bytes) -> Problem:
    """The Problem in an error answer. `detail` is always one sentence, whatever the answer contains."""
    try:
        document = msgspec.json.decode(content, type=_Document)
    except msgspec.MsgspecError:
        text = content.decode("utf-8", "replace").strip()[:200]
        return Problem("about:blank", status, f"the node answered {status}: {text or 'no details'}")
    detail = document.detail or document.title or f"the node answered {status}"
    return Problem(document.type, status, detail, document.title)


def _seconds(value: float) -> str:
    return f"{value:g}"


def _id(id: str) -> str:
    return f"/v1/instances/{quote(id, safe='')}"


def register(spec: Spec) -> Call[Instance]:
    return Call("PUT", _id(spec.id), Instance, body=spec.body())


def instance(id: str, wait: str | None, timeout_s: float) -> Call[Instance]:
    if wait is None:
        return Call("GET", _id(id), Instance)
    params = {"wait": wait, "timeout_s": _seconds(timeout_s)}
    return Call("GET", _id(id), Instance, params, timeout_s=timeout_s + ANSWER_TIMEOUT_S)


def drain(id: str, deadline_s: float) -> Call[Instance]:
    params = {"deadline_s": _seconds(deadline_s)}
    return Call("POST", f"{_id(id)}/drain", Instance, params, timeout_s=deadline_s + ANSWER_TIMEOUT_S)


def deregister(id: str, deadline_s: float, gone: bool, pid: int = 0) -> Call[Instance]:
    whose = {"pid": str(pid)} if pid else {}
    if gone:
        return Call("DELETE", _id(id), Instance, {"gone": "1", **whose})
    params = {"deadline_s": _seconds(deadline_s), **whose}
    return Call("DELETE", _id(id), Instance, params, timeout_s=deadline_s + ANSWER_TIMEOUT_S)


class InstanceList(msgspec.Struct, frozen=True):
    instances: tuple[Instance, ...] = ()


def instances() -> Call[InstanceList]:
    return Call("GET", "/v1/instances", InstanceList)


def services(local: bool) -> Call[Services]:
    return Call("GET", "/v1/services", Services, _scope(local))


def service(name: str, local: bool) -> Call[Services]:
    return Call("GET", f"/v1/services/{quote(name, safe='')}", Services, _scope(local))


def _scope(local: bool) -> dict[str, str]:
    return {"scope": "local"} if local else {}


def tree() -> Call[Tree]:
    return Call("GET", "/v1/tree", Tree)


def forget(name: str) -> Call[Child]:
    return Call("DELETE", f"/v1/children/{quote(name, safe='')}", Child)


def upgrade_engine(deadline_s: float) -> Call[EngineUpgrade]:
    params = {"deadline_s": f"{deadline_s:g}"}
    return Call("POST", "/v1/engine/upgrade", EngineUpgrade, params, timeout_s=UPGRADE_TIMEOUT_S)


def restart_control() -> Call[ControlRestart]:
    return Call("POST", "/v1/control/restart", ControlRestart, timeout_s=UPGRADE_TIMEOUT_S + ANSWER_TIMEOUT_S)


def routes() -> Call[Routes]:
    return Call("GET", "/v1/routes", Routes)


def sites() -> Call[Sites]:
    return Call("GET", "/v1/sites", Sites)


def revoke(site: str, reason: str, by: str) -> Call[Revoked]:
    path = f"/v1/sites/{quote(site, safe='')}/revoke"
    return Call("POST", path, Revoked, body={"reason": reason, "by": by}, timeout_s=REVOKE_TIMEOUT_S, keyed=True)


def explain(url: str) -> Call[Explanation]:
    return Call("GET", "/v1/explain", Explanation, {"url": url})


def policy(name: str) -> Call[Policy]:
    return Call("GET", f"/v1/policies/{quote(name, safe='')}", Policy)


def set_policy(name: str, document: Mapping[str, object], unknown: str) -> Call[Policy]:
    params = {} if unknown == "accept" else {"unknown": unknown}
    return Call("PUT", f"/v1/policies/{quote(name, safe='')}", Policy, params, body=dict(document), keyed=True)


def policies() -> Call[Policies]:
    return Call("GET", "/v1/policies", Policies)


def set_policies(
    documents: Mapping[str, Mapping[str, object]], if_match: str, dry_run: bool, unknown: str
) -> Call[PolicyPlan]:
    params = {**({} if unknown == "accept" else {"unknown": unknown}), **({"dry_run": "1"} if dry_run else {})}
    headers = {"if-match": if_match} if if_match else {}
    return Call("PUT", "/v1/policies", PolicyPlan, params, {"policies": dict(documents)}, headers=headers, keyed=True)


def approve(service: str, version: str, gate: str, by: str) -> Call[Approved]:
    return Call("POST", f"{_version(service, version)}/approve", Approved, body={"gate": gate, "by": by}, keyed=True)


def promote(service: str, version: str, no_gates: str, by: str) -> Call[Promoted]:
    return Call(
        "POST", f"{_version(service, version)}/promote", Promoted, body={"no_gates": no_gates, "by": by}, keyed=True
    )


def transfer_route(route: str, to: str, by: str) -> Call[Transferred]:
    return Call("POST", "/v1/routes/transfer", Transferred, body={"route": route, "to": to, "by": by}, keyed=True)


def releases(service: str) -> Call[Releases]:
    return Call("GET", "/v1/releases", Releases, {"service": service} if service else {})


def add_release(release: Mapping[str, object], by: str) -> Call[ReleaseChanged]:
    return Call("POST", "/v1/releases", ReleaseChanged, body={**release, "by": by}, keyed=True)


def withdraw_release(name: str, by: str) -> Call[ReleaseChanged]:
    return Call("DELETE", f"/v1/releases/{quote(name, safe='')}", ReleaseChanged, {"by": by} if by else {}, keyed=True)


def rollouts() -> Call[Rollouts]:
    return Call("GET", "/v1/rollouts", Rollouts)


def rollout(which: str) -> Call[RolloutFound]:
    return Call("GET", f"/v1/rollouts/{quote(which, safe='')}", RolloutFound)


def rollout_record(which: str) -> Call[RolloutRecords]:
    return Call("GET", f"/v1/rollouts/{quote(which, safe='')}/record", RolloutRecords)


def start_rollout(
    service: str,
    version: str,
    settings: Mapping[str, object],
    *,
    supersede: bool,
    dry_run: bool,
    also: Mapping[str, str],
    by: str,
) -> Call[RolloutOrdered]:
    body = {**settings, "service": service, "version": version, "supersede": supersede, "by": by}
    body |= {"also": [{"service": other, "version": its} for other, its in also.items()]} if also else {}
    return Call("POST", "/v1/rollouts", RolloutOrdered, _dry(dry_run), body, keyed=True)


def order_rollout(which: str, verb: str, *, dry_run: bool, by: str) -> Call[RolloutOrdered]:
    path = f"/v1/rollouts/{quote(which, safe='')}/{quote(verb, safe='')}"
    return Call("POST", path, RolloutOrdered, _dry(dry_run), {"by": by}, keyed=True)


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dry_run": "1"} if dry_run else {}


def roles() -> Call[Roles]:
    return Call("GET", "/v1/roles", Roles)


def agent() -> Call[Agent]:
    return Call("GET", "/v1/agent", Agent)


def _version(service: str, version: str) -> str:
    return f"/v1/services/{quote(service, safe='')}/versions/{quote(version, safe='')}"
