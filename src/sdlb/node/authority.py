"""The calls that only roots can answer: this root runs them (`run_here`), and the node that received a call merges
the answers.

A node sends the call itself (method, path, body) to the roots. Each root returns a status and a JSON body:
`{"services": [...]}` for services (one a line), what `node.policies` returns for policies, otherwise a problem document. The
list of all services is long, so it is made and merged in slices (`node.reads`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from sdlb.core.effects import Answered, Execute
from sdlb.core.events import AskUp
from sdlb.core.messages import RootAnswer
from sdlb.model.policy import Policy, loads
from sdlb.model.problem import Invalid
from sdlb.model.version import check_service
from sdlb.node import orders, reads, releases, rollouts
from sdlb.node.answers import body_of as _body
from sdlb.node.answers import first_refusal as _first_refusal
from sdlb.node.loop import NodeLoop
from sdlb.node.policies import Ask, Policies, merge_all, merge_one, merge_plans
from sdlb.node.problems import Refusal, body_of

Json = dict[str, Any]
SERVICES = "/v1/services"


class Authority:
    def __init__(self, loop: NodeLoop) -> None:
        self._loop = loop
        self.policies_here = Policies(loop)

    # ------------------------------------------------------------------ on a root

    async def run_here(self, call: Execute) -> tuple[int, bytes]:
        """Never raises: errors become answers."""
        try:
            if (call.method, call.path) in (("GET", SERVICES), ("GET", releases.PATH)):
                pace, view = reads.Pace(self._loop.quiet), self._loop.balancer.view
                of_services = call.path == SERVICES
                found = await reads.encoded((reads.services if of_services else reads.releases)(view, pace))
                await pace.pause()
                return 200, reads.document({}, **{"services" if of_services else "releases": found})
            return 200, msgspec.json.encode(await self._run(call))
        except Invalid as error:
            return body_of(error.code, str(error), 400)
        except Refusal as error:
            return body_of(error.code, error.detail, error.status)
        except Exception as error:  # The node that sent the call must get an answer even for an internal error.
            self._loop.errors += 1
            return body_of("internal-error", f"{type(error).__name__}: {error}")

    async def _run(self, call: Execute) -> Json:
        view = self._loop.balancer.view
        match (call.method, call.path.split("/")[1:]):
            case ("GET", ["v1", "services", name]):
                found = view.service(check_service(unquote(name)))
                if found is None:
                    raise Refusal("no-such-service", f"no service named {unquote(name)} is known")
                return {"services": [found]}
            case ("GET", ["v1", "explain", host, route]):
                return view.explain(unquote(host), unquote(route))
            case ("GET", ["v1", "policies"]):
                return self.policies_here.all()
            case ("PUT", ["v1", "policies"]):
                return await self.policies_here.put_all(call.body, call.asker)
            case ("GET", ["v1", "policies", name]):
                return self.policies_here.one(unquote(name))
            case ("PUT", ["v1", "policies", name]):
                return await self.policies_here.put(unquote(name), call.body, call.asker)
            case ("POST", ["v1", "releases"]):
                return await releases.run_here(self._loop, call)
            case ("POST", ["v1", "rollouts", *_]):
                return await rollouts.run_here(self._loop, call)
            case ("GET", ["v1", "rollouts", which, "record"]):
                return rollouts.record_here(self._loop, unquote(which))
            case ("GET", ["v1", "rollouts" | "roles"]):
                return rollouts.read_here(self._loop, call.path)
            case ("POST", _):
                return await orders.run_here(self._loop, call)
            case _:
                raise Refusal("not-found", f"{call.method} {call.path} is not a call of the authority")

    # ------------------------------------------------------------------ on any node

    async def call_roots(self, method: str, path: str, body: bytes = b"") -> Answered:
        """The answers of all roots that could be reached, at least one. Raises Refusal."""
        answered = await self._loop.ask(AskUp(secrets.token_hex(12), method, path, body))
        if not answered.answers:
            parents = self._loop.balancer.view.parents()
            refused = {str(p["address"]): f"{p['address']}: {p['detail']}" for p in parents if p["state"] == "refused"}
            missing = "; ".join(refused.get(name, name) for name in answered.unreachable) or "none is known"
            raise Refusal("no-root", f"no root could be reached ({missing}); traffic is served as before")
        return answered

    async def order(self, path: str, body: bytes) -> Answered:
        """Sends the order of an operator to the roots (`node.orders`)."""
        return await self.call_roots("POST", path, body)

    async def services(self, name: str = "") -> list[bytes]:
        """All services, or one, as pieces of JSON. Where roots differ, the first root by name that knows the service
        wins."""
        answered = await self.call_roots("GET", f"{SERVICES}/{quote(name, safe='')}" if name else SERVICES)
        pace = reads.Pace(self._loop.quiet)
        reported = {answer.root: _entries(answer) for answer in answered.answers if answer.status == 200}
        if not reported:
            raise _first_refusal(answered.answers)
        disagree, services = await merge_services(reported, pace)
        await pace.pause()
        return reads.pieces({**self.origin(answered), "disagree": disagree}, services=services)

    async def explained(self, host: str, path: str) -> list[Json]:
        """The answer of each reachable root; empty at a root, which answers itself, and when no root is reachable."""
        balancer = self._loop.balancer
        if balancer.settings.is_root or balancer.view.cut_off():
            return []
        try:
            answered = await self.call_roots("GET", f"/v1/explain/{quote(host, safe='')}/{quote(path, safe='')}")
        except Refusal:
            return []
        return [_body(answer) for answer in answered.answers if answer.status == 200]

    async def policy(self, name: str) -> Json:
        answered = await self.call_roots("GET", f"/v1/policies/{quote(name, safe='')}")
        return {**self.origin(answered), **merge_one(_reported(answered))}

    async def policies(self) -> Json:
        answered = await self.call_roots("GET", "/v1/policies")
        return {**self.origin(answered), **merge_all(_reported(answered))}

    async def set_policy(self, name: str, body: bytes, *, refuse_unknown: bool = False) -> Json:
        """Sets the document at every reachable root; succeeds only if all of them accept it. `refuse_unknown`: a name that
        no root knows is refused; otherwise it becomes one of the `warnings` in the answer."""
        data = loads(body.decode("utf-8", "replace"), f"policy of {name}")
        Policy.from_data(data, f"policy of {name}")  # checked here before any root receives it
        warnings: list[str] = []
        try:
            plan = await self.change_policies({name: data}, dry_run=True, refuse_unknown=refuse_unknown)
            warnings = plan["warnings"]
        except Refusal as refusal:
            if refusal.code != "not-found":
                raise  # else the roots have an earlier release, which knows this call only for one policy
        answered = await self.call_roots("PUT", f"/v1/policies/{quote(name, safe='')}", body)
        self._all_accepted(answered, f"the policy of {name}")
        return {**self.origin(answered), **merge_one(_reported(answered)), "warnings": warnings}

    async def change_policies(
        self, documents: Json, *, if_match: str = "", dry_run: bool = False, refuse_unknown: bool = False
    ) -> Json:
        """Sets several documents at every reachable root, all or none, and returns what that changes. All roots check them
        before any root sets them."""
        ask = Ask(documents, if_match, dry_run=True)
        answered = await self.call_roots("PUT", "/v1/policies", msgspec.json.encode(ask))
        self._all_accepted(answered, "the policies", nothing_set=True)
        plan = merge_plans(_reported(answered))
        doubts = plan.pop("doubts")
        if doubts and refuse_unknown:
            raise Refusal(doubts[0][0], "; ".join(text for _, _, text in doubts))
        if plan["changes"] and not dry_run:
            ask = Ask(documents, if_match)
            answered = await self.call_roots("PUT", "/v1/policies", msgspec.json.encode(ask))
            self._all_accepted(answered, "the policies")
        warnings = [text for _, _, text in doubts]
        return {**self.origin(answered), **plan, "dry_run": dry_run, "warnings": warnings}

    @staticmethod
    def _all_accepted(answered: Answered, what: str, *, nothing_set: bool = False) -> None:
        """Raises Refusal that names the roots that refused, and what holds now."""
        refused = [answer for answer in answered.answers if answer.status != 200]
        if len(refused) == len(answered.answers):
            raise _first_refusal(refused)
        if refused:
            why = "; ".join(f"{answer.root}: {_body(answer).get('detail', answer.status)}" for answer in refused)
            accepted = ", ".join(answer.root for answer in answered.answers if answer.status == 200)
            now = "nothing was changed" if nothing_set else f"the new one is in force at {accepted}"
            raise Refusal("policy-not-everywhere", f"not every root accepted {what} ({why}); {now}")

    def origin(self, answered: Answered) -> Json:
        return {
            "node": self._loop.balancer.settings.name,
            "roots": sorted(answer.root for answer in answered.answers),
            "unreachable": list(answered.unreachable),
        }


class _Version(msgspec.Struct):
    version: str
    state: str


class _Service(msgspec.Struct):
    """The fields that are compared; the others are passed on unchanged."""

    service: str
    versions: list[_Version]


async def merge_services(reported: Mapping[str, Sequence[bytes]], pace: reads.Pace) -> tuple[list[Json], list[bytes]]:
    """Merges the services that each root reported (root -> its services, encoded).

    Returns the services of which the roots have different versions active, and all services by name. An entry that
    cannot be decoded is left out: it comes from another node.
    """
    services: dict[str, bytes] = {}
    active: dict[str, dict[str, str]] = {}
    for root in sorted(reported):
        for entry in reported[root]:
            await pace.pause()  # also before the first one, because parsing an answer takes time
            try:
                service = msgspec.json.decode(entry, type=_Service)
            except msgspec.DecodeError:
                continue
            services.setdefault(service.service, entry)
            if len(reported) > 1:
                names = [version.version for version in service.versions if version.state == "active"]
                active.setdefault(service.service, {})[root] = ", ".join(names) or "nothing"
    disagree = [
        {"service": name, "text": ", ".join(f"{root} has {what} active" for root, what in by_root.items())}
        for name, by_root in sorted(active.items())
        if len(set(by_root.values())) > 1
    ]
    return disagree, [services[name] for name in sorted(services)]


def _reported(answered: Answered) -> dict[str, Json]:
    """root -> its answer. Raises Refusal if no root has answered with 200."""
    found = {answer.root: _body(answer) for answer in answered.answers if answer.status == 200}
    if not found:
        raise _first_refusal(answered.answers)
    return found


def _entries(answer: RootAnswer) -> list[bytes]:
    try:
        return reads.entries_of(answer.body, "services")
    except msgspec.DecodeError:
        return []
