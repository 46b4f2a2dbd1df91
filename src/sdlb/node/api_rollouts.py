"""The calls of the local API about releases, rollouts and roles: bodies are checked here, and the roots do the rest."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from sdlb.model.canary_reader import bad, read_analysis, read_steps
from sdlb.model.problem import Invalid
from sdlb.model.release import CODE, read_release
from sdlb.model.rollout_reader import SPEC_KEYS
from sdlb.model.version import check_service, check_version
from sdlb.node import schema_rollouts as schema
from sdlb.node.answers import shaped
from sdlb.node.authority import Authority
from sdlb.node.loop import NodeLoop
from sdlb.node.peer import acting_user
from sdlb.node.problems import Refusal
from sdlb.node.releases import Releases
from sdlb.node.requests import as_json, body_of
from sdlb.node.rollouts import Order, Rollouts
from sdlb.node.specs import decode


def _canary(body: schema.RolloutStart) -> dict[str, Any]:
    """The keys that were given, as in `RolloutSpec`. Raises Invalid."""
    fail = bad(lambda path: f"rollout: {'.'.join(path)}", "bad-rollout")
    found: dict[str, object] = {}
    steps = None if body.step is UNSET else read_steps(msgspec.to_builtins(body.step), fail)
    if steps is not None:
        found["step"] = steps
    if body.analysis is not UNSET:
        given = msgspec.to_builtins(body.analysis)
        found["analysis"] = None if given is None else read_analysis(given, fail, steps)
    return msgspec.to_builtins(found)


class RolloutCalls:
    def __init__(self, loop: NodeLoop, authority: Authority) -> None:
        name = loop.balancer.settings.name
        self._loop = loop
        self._releases = Releases(authority)
        self._rollouts = Rollouts(authority, name)

    # ------------------------------------------------------------------ releases

    async def list_releases(self, request: Request) -> Response:
        service = request.query_params.get("service", "")
        return as_json(await self._releases.all(check_service(service) if service else ""))

    async def add_release(self, request: Request) -> Response:
        return await self._put_release(request, "")

    async def put_release(self, request: Request) -> Response:
        return await self._put_release(request, request.path_params["release"])

    async def _put_release(self, request: Request, name: str) -> Response:
        body = decode(schema.ReleaseBody, await body_of(request), "bad-json", "release")
        by = await acting_user(request, body.by)
        data = msgspec.to_builtins(body)
        del data["by"]
        for artifact in data["artifact"].values():
            if not artifact["signature"]:
                del artifact["signature"]
        release = read_release(data, f"release {body.service}-{body.version}"[:80])
        if name not in ("", release.name):
            raise Invalid(
                CODE, f"release {name[:80]!r}", f"is not {release.name}, as the body has it", "correct one of them"
            )
        return as_json(await self._releases.put(release, by))

    async def withdraw_release(self, request: Request) -> Response:
        by = await acting_user(request, request.query_params.get("by", ""))
        return as_json(await self._releases.withdraw(request.path_params["release"], by))

    # ------------------------------------------------------------------ rollouts

    async def list_rollouts(self, request: Request) -> Response:
        return as_json(await self._rollouts.all())

    async def get_rollout(self, request: Request) -> Response:
        return as_json(await self._rollouts.one(check_service(request.path_params["rollout"])))

    async def get_rollout_record(self, request: Request) -> Response:
        return as_json(await self._rollouts.record(check_service(request.path_params["rollout"])))

    async def start_rollout(self, request: Request) -> Response:
        body = decode(schema.RolloutStart, await body_of(request), "bad-json", "rollout")
        service, version = check_service(body.service), check_version(body.version)
        by = await acting_user(request, body.by)
        given = {key: value for key, value in msgspec.to_builtins(body).items() if key in SPEC_KEYS}
        also = [(each.service, each.version) for each in body.also]
        order = Order("start", service, by, version, {**given, **_canary(body)}, body.supersede, also=also)
        return await self._order(request, order)

    async def order_rollout(self, request: Request) -> Response:
        which, verb = check_service(request.path_params["rollout"]), request.path_params["verb"]
        if verb not in schema.VERBS:
            raise Refusal("bad-query", f"{verb[:40]!r} is not an order for a rollout; use {', '.join(schema.VERBS)}")
        body = decode(schema.RolloutOrder, await body_of(request) or b"{}", "bad-json", f"{verb} of {which}")
        by = await acting_user(request, body.by)
        return await self._order(request, Order(verb, which, by))

    async def _order(self, request: Request, order: Order) -> Response:
        return as_json(await self._rollouts.order(order, dry_run=request.query_params.get("dry_run") == "1"))

    async def get_agent(self, request: Request) -> Response:
        balancer = self._loop.balancer
        view: Any = balancer.view
        roles = [shaped(schema.AgentRole, each) for each in view.agent()]
        return as_json({"node": balancer.settings.name, "roles": roles})

    async def list_roles(self, request: Request) -> Response:
        return as_json(await self._rollouts.roles())
