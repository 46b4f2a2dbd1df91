"""Orders of operators: to approve a gate, promote a version, or transfer a route.

Any node takes an order and sends it to all roots. A version is approved or promoted at one of them, the root that conducts its
opening; the others refuse with `no-conductor`. A route is transferred at every root, and only if all of them answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from sdlb.core.effects import Answered, Execute
from sdlb.core.events import Approve, Event, Promote, RouteTransfer
from sdlb.core.messages import RootAnswer
from sdlb.model.route import Pattern
from sdlb.model.version import check_service, check_version
from sdlb.node.answers import body_of, code_of, first_refusal
from sdlb.node.problems import Refusal
from sdlb.node.specs import decode

if TYPE_CHECKING:
    from sdlb.node.authority import Authority
    from sdlb.node.loop import NodeLoop

Json = dict[str, Any]
TRANSFER = "/v1/routes/transfer"
CHECK = f"{TRANSFER}/check"
"""Between nodes only: whether a root would transfer the route."""
CONDUCTOR = "no-conductor"


class _Body(msgspec.Struct):
    """What travels between nodes. Only the keys of the order are set."""

    by: str = ""
    gate: str = ""
    no_gates: str = ""
    route: str = ""
    to: str = ""


# ---------------------------------------------------------------------- on a root


async def run_here(loop: NodeLoop, call: Execute) -> Json:
    """Raises Invalid or Refusal."""
    body: _Body = decode(_Body, call.body, "bad-json", f"{call.path} from {call.asker}")
    view, name = loop.balancer.view, loop.balancer.settings.name
    match call.path.split("/")[1:]:
        case ["v1", "services", service, "versions", version, ("approve" | "promote") as verb]:
            service, version = check_service(unquote(service)), check_version(unquote(version))
            opening = view.opening(service)
            if opening is not None and not opening["here"]:
                raise Refusal(CONDUCTOR, f"{opening['conductor']} conducts the opening of {service}, not {name}")
            if verb == "approve":
                objection = view.approval_objection(service, version, body.gate, body.by)
                await carry_out(loop, "approval-refused", objection, Approve(service, version, body.gate, body.by))
            else:
                objection = view.promotion_objection(service, version)
                await carry_out(loop, "promotion-refused", objection, Promote(service, version, body.by, body.no_gates))
        case ["v1", "routes", "transfer", *check]:
            route, to = str(Pattern.parse(body.route)), check_service(body.to)
            objection = view.transfer_objection(route, to)
            event = RouteTransfer(route, to, body.by)
            await carry_out(loop, "transfer-refused", objection, None if check else event)
        case _:
            raise Refusal("not-found", f"{call.method} {call.path} is not a call of the authority")
    return {"root": name}


async def carry_out(loop: NodeLoop, code: str, objection: str, event: Event | None) -> None:
    """`event` None: only says whether it would be carried out. Raises Refusal."""
    here = loop.balancer.settings.name
    if objection:
        raise Refusal(code, objection)
    if not loop.writes:
        raise Refusal("not-written", f"{here}: {loop.ready()[1]}; try again later")
    if event is None:
        return
    await loop.do(event)
    if loop.held is not None:
        raise Refusal("not-written", f"it takes effect when {here} can write its state: {loop.ready()[1]}")


# ---------------------------------------------------------------------- on any node


class Orders:
    def __init__(self, authority: Authority, name: str) -> None:
        self._authority = authority
        self._name = name

    async def approve(self, service: str, version: str, gate: str, by: str) -> Json:
        root = await self._at_conductor(_path(service, version, "approve"), service, _Body(by=by, gate=gate))
        return {"node": self._name, "conductor": root, "service": service, "version": version, "gate": gate, "by": by}

    async def promote(self, service: str, version: str, no_gates: str, by: str) -> Json:
        body = _Body(by=by, no_gates=no_gates)
        root = await self._at_conductor(_path(service, version, "promote"), service, body)
        found = {"node": self._name, "conductor": root, "service": service, "version": version}
        return {**found, "no_gates": no_gates, "by": by}

    async def _at_conductor(self, path: str, service: str, body: _Body) -> str:
        """The root that has carried out the order."""
        answered = await self._authority.order(path, msgspec.json.encode(body))
        done = [answer.root for answer in answered.answers if answer.status == 200]
        if done:
            return done[0]
        others = [answer for answer in answered.answers if code_of(answer) != CONDUCTOR]
        if others:
            raise first_refusal(others)
        detail = str(body_of(answered.answers[0]).get("detail", ""))
        missing = ", ".join(answered.unreachable)
        raise Refusal(CONDUCTOR, f"{detail}; not reached: {missing}" if missing else f"{detail}; try again")

    async def transfer(self, route: str, to: str, by: str) -> Json:
        body = msgspec.json.encode(_Body(route=route, to=to, by=by))
        _all(await self._authority.order(CHECK, body), f"the transfer of {route}", "nothing was changed")
        answered = await self._authority.order(TRANSFER, body)
        roots = sorted(answer.root for answer in answered.answers if answer.status == 200)
        names = ", ".join(roots) or "none"
        _all(answered, f"the transfer of {route}", f"recorded by {names}, and the other roots take it from there")
        return {"node": self._name, "roots": roots, "route": route, "to": to, "by": by}


def _all(answered: Answered, what: str, state: str) -> None:
    """Raises Refusal unless every root has agreed."""
    if answered.unreachable:
        names = ", ".join(answered.unreachable)
        raise Refusal("root-missing", f"{what} needs an answer of every root, and {names} gave none; {state}")
    refused: list[RootAnswer] = [answer for answer in answered.answers if answer.status != 200]
    if refused:
        raise first_refusal(refused)


def _path(service: str, version: str, verb: str) -> str:
    return f"/v1/services/{quote(service, safe='')}/versions/{quote(version, safe='')}/{verb}"
