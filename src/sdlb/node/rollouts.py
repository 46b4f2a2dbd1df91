"""The calls about rollouts: a root runs them (`run_here`); the node that got the call finds the root (`Rollouts`).

A rollout starts at one root, the first by name that can be reached. So does the adoption of one after its owner is lost. Every other
order goes to the owner. A root that is not the one answers `no-owner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from sdlb.core.effects import Answered, Execute
from sdlb.core.events import RolloutOrder
from sdlb.core.messages import RootAnswer
from sdlb.model.rollout import DONE, ENDED, RolloutSpec
from sdlb.model.rollout_reader import merged
from sdlb.node import schema_rollouts as schema
from sdlb.node.answers import body_of, code_of, first_refusal, shaped
from sdlb.node.orders import carry_out
from sdlb.node.problems import Refusal
from sdlb.node.specs import decode

if TYPE_CHECKING:
    from sdlb.node.authority import Authority
    from sdlb.node.loop import NodeLoop

Json = dict[str, Any]
PATH = "/v1/rollouts"
ROLES = "/v1/roles"
CHECK = f"{PATH}/check"
"""Between nodes only: whether a root would carry the order out, and what it would do."""
NO_OWNER, REFUSED, UNKNOWN = "no-owner", "rollout-refused", "no-such-rollout"
ANY_ROOT: Final = ("start", "adopt")
"""Verbs that another root than the owner carries out."""


class Order(msgspec.Struct):
    """What travels between nodes. `which`: a service, or the id of a rollout. `given`: the settings of "start" that are not left to
    the policy. `owner`: the root that shall carry it out, for a verb of ANY_ROOT. `also`: (service, version) of the others that start
    together with it."""

    verb: str
    which: str
    by: str = ""
    version: str = ""
    given: dict[str, Any] = {}
    supersede: bool = False
    owner: str = ""
    also: list[tuple[str, str]] = []


# ---------------------------------------------------------------------- on a root


def read_here(loop: NodeLoop, path: str) -> Json:
    view = loop.balancer.view
    return {"roles": view.roles()} if path == ROLES else {"rollouts": view.rollouts()}


def record_here(loop: NodeLoop, which: str) -> Json:
    """Raises Refusal."""
    found = loop.balancer.view.record(which)
    if not found:
        raise Refusal(
            UNKNOWN, f"{loop.balancer.settings.name} has no record of a rollout {which}, or of a service of this name"
        )
    return {"records": found}


async def run_here(loop: NodeLoop, call: Execute) -> Json:
    """Raises Invalid or Refusal."""
    order: Order = decode(Order, call.body, "bad-json", f"{call.path} from {call.asker}")
    view, name = loop.balancer.view, loop.balancer.settings.name
    found = None if order.verb == "start" else _find(view.rollouts(), order.which)
    service = str(found["service"]) if found is not None else order.which
    if found is not None and found["id"] != (view.rollout(service) or {}).get("id"):
        raise Refusal(REFUSED, f"rollout {found['id']} of {service} is finished: {found['state']}")
    if order.verb not in ANY_ROOT and found is not None and not found.get("owner_here"):
        raise Refusal(NO_OWNER, f"{found['owner']} owns rollout {found['id']} of {service}, not {name}")
    spec = _spec(loop, service, order)
    event = RolloutOrder(service, order.verb, order.by, order.version, spec, order.supersede)
    others = [msgspec.structs.replace(order, which=name, version=version, also=[]) for name, version in order.also]
    event = replace(event, also=tuple(_event(loop, each) for each in others))
    objection = view.rollout_objection(event)
    if call.path == CHECK:
        plan = view.rollout_plan(event) if order.verb in ("start", "undo") else None
        if plan is not None:
            plan["settings"] = msgspec.to_builtins(spec)
        last = view.rollout(service) or {"state": DONE}
        owner = "" if last["state"] in ENDED else last["owner"]
        joint = view.joint_plans(event)
        return {"root": name, "objection": objection, "plan": plan, "joint": joint, "rollout": found, "owner": owner}
    if order.verb in ANY_ROOT and order.owner != name:
        raise Refusal(NO_OWNER, f"{order.owner} was to carry it out, not {name}")
    await carry_out(loop, REFUSED, objection, event)
    return {"root": name, "rollout": view.rollout(service)}


def _event(loop: NodeLoop, start: Order) -> RolloutOrder:
    spec = _spec(loop, start.which, start)
    return RolloutOrder(start.which, start.verb, start.by, start.version, spec, start.supersede)


def _spec(loop: NodeLoop, service: str, order: Order) -> RolloutSpec:
    """Raises Refusal."""
    try:
        spec = merged(loop.balancer.view.policy_layers.of(service).rollout, order.given)
    except ValueError as error:  # of another release
        raise Refusal("bad-json", f"the settings of the rollout cannot be read: {error}") from None
    if order.given.get("analysis") is not None and not spec.step:
        raise Refusal(REFUSED, f"the analysis stands without a step, and the policy of {service} has none; add step")
    return spec


def _find(rollouts: Iterable[Json], which: str) -> Json:
    """By service or by id, also a finished one. Raises Refusal."""
    listed = list(rollouts)
    found = [each for each in listed if each["service"] == which] or [each for each in listed if each["id"] == which]
    found = found or [_past(each, old) for each in listed for old in each["history"] if old["id"] == which]
    if not found:
        raise Refusal(UNKNOWN, f"there is no rollout of a service {which}, or with that id")
    if len(found) > 1:
        services = ", ".join(str(each["service"]) for each in found)
        raise Refusal(REFUSED, f"several rollouts have the id {which} ({services}); name the service")
    return found[0]


def _past(now: Json, old: Mapping[str, Any]) -> Json:
    """An earlier rollout, of which the rest is no longer known."""
    return {"service": now["service"], "owner": "", "history": now["history"], **old}


# ---------------------------------------------------------------------- on any node


class Rollouts:
    def __init__(self, authority: Authority, name: str) -> None:
        self._authority = authority
        self._name = name

    async def all(self) -> Json:
        answered, found = await self._read()
        return {**self._authority.origin(answered), "rollouts": [shaped(schema.Rollout, each) for each in found]}

    async def one(self, which: str) -> Json:
        answered, found = await self._read()
        rollout = shaped(schema.Rollout, _find(found, which))
        return {**self._authority.origin(answered), "rollout": rollout}

    async def record(self, which: str) -> Json:
        """As each root has it, by its name."""
        answered = await self._authority.call_roots("GET", f"{PATH}/{quote(which, safe='')}/record")
        records = [shaped(schema.RolloutRecord, each) for each in _listed(answered, "records")]
        return {**self._authority.origin(answered), "records": records}

    async def roles(self) -> Json:
        """A node reports to one root, so the numbers of the roots are added. What else they say comes from the one that knows most."""
        answered = await self._authority.call_roots("GET", ROLES)
        roles: dict[str, list[Json]] = {}
        for each in _listed(answered, "roles"):
            roles.setdefault(str(each.get("service", "")), []).append(shaped(schema.TreeRole, each))
        return {**self._authority.origin(answered), "roles": [_sum(roles[service]) for service in sorted(roles)]}

    async def _read(self) -> tuple[Answered, list[Json]]:
        """By service: as its owner has it, else as the first root by name whose term is the highest."""
        answered = await self._authority.call_roots("GET", PATH)
        best: dict[str, Json] = {}
        for each in _listed(answered, "rollouts"):
            known = best.get(str(each.get("service", "")))
            if known is None or _rank(each) > _rank(known):
                best[str(each.get("service", ""))] = each
        return answered, [best[service] for service in sorted(best)]

    async def order(self, order: Order, *, dry_run: bool) -> Json:
        """Carries it out at one root, or (`dry_run`) only returns what it would do."""
        what = f"{order.verb} {order.which}"
        answered = await self._authority.call_roots("POST", CHECK, msgspec.json.encode(order))
        if order.verb in ANY_ROOT:
            owner, checked = _first(answered, adopt=order.verb == "adopt")
            order = msgspec.structs.replace(order, owner=owner)
        else:
            owner, checked = _done(answered, what)
        found = {"node": self._name, "owner": owner, "verb": order.verb, "dry_run": dry_run, "by": order.by}
        if dry_run:
            return _ordered({**checked, **found})
        answered = await self._authority.call_roots("POST", PATH, msgspec.json.encode(order))
        owner, done = _done(answered, what)
        plans = {"plan": checked.get("plan"), "joint": checked.get("joint")}
        return _ordered({**found, **plans, "owner": owner, "rollout": done.get("rollout")})


def _ordered(found: Json) -> Json:
    return shaped(schema.RolloutOrdered, found)


def _listed(answered: Answered, name: str) -> Iterable[Json]:
    """The entries of all roots, by the name of the root. Raises Refusal if none has answered with 200."""
    reported = [answer for answer in answered.answers if answer.status == 200]
    if not reported:
        raise first_refusal(answered.answers)
    for answer in sorted(reported, key=lambda answer: answer.root):
        listed = body_of(answer).get(name)
        yield from cast("list[Json]", listed) if isinstance(listed, list) else ()


def _rank(rollout: Json) -> tuple[bool, int]:
    term = rollout.get("term")
    return rollout.get("owner_here") is True, term if isinstance(term, int) else 0


def _sum(roles: Sequence[Json]) -> Json:
    waiting: dict[str, int] = {}
    for each in roles:
        for version, capacity in each["waiting"].items():
            waiting[version] = waiting.get(version, 0) + capacity
    nodes, ready = sum(each["nodes"] for each in roles), sum(each["ready"] for each in roles)
    return {**max(roles, key=lambda each: each["nodes"]), "nodes": nodes, "ready": ready, "waiting": waiting}


def _first(answered: Answered, *, adopt: bool) -> tuple[str, Json]:
    """The root that owns the rollout in progress, else the first one by name that can carry it out, and its answer to CHECK. Raises
    Refusal."""
    able = sorted((answer for answer in answered.answers if answer.status == 200), key=lambda answer: answer.root)
    if not able:
        raise first_refusal(answered.answers)
    found = body_of(able[0])
    rollout: Json = found.get("rollout") or {}
    owner = next((each for each in able if each.root == found.get("owner")), None)
    if adopt and owner is not None:
        text = f"{owner.root} owns rollout {rollout.get('id', '')} of {rollout.get('service', '')} and can be reached"
        raise Refusal(REFUSED, f"{text}; it needs no other owner")
    owner = owner or able[0]
    return owner.root, body_of(owner)


def _done(answered: Answered, what: str) -> tuple[str, Json]:
    """The root that has carried it out, and its answer. Raises Refusal."""
    for answer in answered.answers:
        if answer.status == 200:
            return answer.root, body_of(answer)
    others: Sequence[RootAnswer] = [answer for answer in answered.answers if code_of(answer) not in (NO_OWNER, UNKNOWN)]
    if others:
        raise first_refusal(others)
    elsewhere = [answer for answer in answered.answers if code_of(answer) == NO_OWNER]
    if not elsewhere:
        raise first_refusal(answered.answers)
    detail = str(body_of(elsewhere[0]).get("detail", ""))
    missing = f"not reached: {', '.join(answered.unreachable)}; " if answered.unreachable else ""
    raise Refusal(
        NO_OWNER, f"{what}: {detail}; {missing}if its owner is lost, 'sdlb rollout adopt' continues it at another root"
    )
