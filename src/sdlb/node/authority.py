"""The calls that only roots can answer: run on this root (`run_here`), and merged on the node that was asked.

What travels up is the call itself (method, path, body), what comes back a status and a JSON body for each root:
`{"services": [...]}` for services, `{"service", "revision", "origin", "policy"}` for a policy, else a problem document.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote, unquote

import msgspec

from sdlb.core.effects import Answered
from sdlb.core.events import AskUp, PolicyPut
from sdlb.core.messages import PolicyDoc, RootAnswer
from sdlb.model.policy import Policy
from sdlb.model.problem import Invalid
from sdlb.model.version import check_service
from sdlb.node.loop import NodeLoop
from sdlb.node.problems import Refusal, body_of

Json = dict[str, Any]


class Authority:
    def __init__(self, loop: NodeLoop) -> None:
        self._loop = loop

    # ------------------------------------------------------------------ on a root

    async def run_here(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The effect Execute. Never raises: what goes wrong is an answer too."""
        try:
            return 200, msgspec.json.encode(await self._run(method, path, body))
        except Invalid as error:
            return body_of(error.code, str(error), 400)
        except Refusal as error:
            return body_of(error.code, error.detail, error.status)
        except Exception as error:  # an asker must get an answer, whatever is wrong with us
            self._loop.errors += 1
            return body_of("internal-error", f"{type(error).__name__}: {error}")

    async def _run(self, method: str, path: str, body: bytes) -> Json:
        balancer = self._loop.balancer
        match (method, path.split("/")[1:]):
            case ("GET", ["v1", "services"]):
                return {"services": balancer.services()}
            case ("GET", ["v1", "services", name]):
                found = balancer.service(check_service(unquote(name)))
                if found is None:
                    raise Refusal("no-such-service", f"no service named {unquote(name)} is known")
                return {"services": [found]}
            case ("GET", ["v1", "explain", host, route]):
                return balancer.explain(unquote(host), unquote(route))
            case ("GET", ["v1", "policies", name]):
                return self._policy(check_service(unquote(name)))
            case ("PUT", ["v1", "policies", name]):
                service = check_service(unquote(name))
                policy = Policy.from_json(body.decode("utf-8", "replace"), f"policy of {service}")
                if not self._loop.writes:
                    raise Refusal("not-written", f"{balancer.settings.name}: {self._loop.ready()[1]}; try again later")
                await self._loop.do(PolicyPut(PolicyDoc(service, 0, balancer.settings.name, policy.to_json())))
                if self._loop.held is not None:
                    text = f"the policy of {service} takes effect when {balancer.settings.name} can write it"
                    raise Refusal("not-written", f"{text}: {self._loop.ready()[1]}")
                return self._policy(service)
            case _:
                raise Refusal("not-found", f"{method} {path} is no call of the authority")

    def _policy(self, service: str) -> Json:
        doc = self._loop.balancer.policy(service)
        return {
            "service": service,
            "revision": doc.revision if doc is not None else 0,
            "origin": doc.origin if doc is not None else "",
            "policy": msgspec.json.decode(self._loop.balancer.policy_text(service)),
        }

    # ------------------------------------------------------------------ on any node

    async def _ask(self, method: str, path: str, body: bytes = b"") -> Answered:
        answered = await self._loop.ask(AskUp(secrets.token_hex(12), method, path, body))
        if not answered.answers:
            missing = ", ".join(answered.unreachable) or "none is known"
            raise Refusal("no-root", f"no root could be asked ({missing}); what is served goes on as it was")
        return answered

    async def services(self, name: str = "") -> Json:
        """All services, or one. Where roots differ, the first by name that knows a service is believed."""
        path = f"/v1/services/{quote(name, safe='')}" if name else "/v1/services"
        answered = await self._ask("GET", path)
        told = {answer.root: _body(answer) for answer in answered.answers if answer.status == 200}
        if not told:
            raise _first_refusal(answered.answers)
        return {**self._who(answered), **merge_services({root: body["services"] for root, body in told.items()})}

    async def explained(self, host: str, path: str) -> list[Json]:
        """What each root that can be reached says; empty at a root, which asks itself, and when none is."""
        balancer = self._loop.balancer
        if balancer.settings.is_root or balancer.cut_off():
            return []
        try:
            answered = await self._ask("GET", f"/v1/explain/{quote(host, safe='')}/{quote(path, safe='')}")
        except Refusal:
            return []
        return [_body(answer) for answer in answered.answers if answer.status == 200]

    async def policy(self, service: str) -> Json:
        return self._merge_policy(await self._ask("GET", f"/v1/policies/{quote(service, safe='')}"))

    async def set_policy(self, service: str, body: bytes) -> Json:
        """On every root that can be reached; done only when all of these took it."""
        Policy.from_json(
            body.decode("utf-8", "replace"), f"policy of {service}"
        )  # refused here, before anybody is asked
        answered = await self._ask("PUT", f"/v1/policies/{quote(service, safe='')}", body)
        refused = [answer for answer in answered.answers if answer.status != 200]
        if len(refused) == len(answered.answers):
            raise _first_refusal(refused)
        if refused:
            why = "; ".join(f"{answer.root}: {_body(answer).get('detail', answer.status)}" for answer in refused)
            raise Refusal("policy-not-everywhere", f"not every root took the policy of {service}: {why}")
        return self._merge_policy(answered)

    def _merge_policy(self, answered: Answered) -> Json:
        told = {answer.root: _body(answer) for answer in answered.answers if answer.status == 200}
        if not told:
            raise _first_refusal(answered.answers)
        newest = max(sorted(told), key=lambda root: (told[root]["revision"], told[root]["origin"]))
        believed = told[newest]
        differing = [root for root in sorted(told) if told[root]["policy"] != believed["policy"]]
        text = f"{', '.join(differing)} has another policy than {newest}"
        return {
            **self._who(answered),
            "disagree": [{"service": believed["service"], "text": text}] if differing else [],
            "service": believed["service"],
            "revision": believed["revision"],
            "policy": believed["policy"],
        }

    def _who(self, answered: Answered) -> Json:
        return {
            "node": self._loop.balancer.settings.name,
            "roots": sorted(answer.root for answer in answered.answers),
            "unreachable": list(answered.unreachable),
        }


def merge_services(told: Mapping[str, Sequence[Json]]) -> Json:
    """`told`: root -> its services. Roots disagree about a service when they have different versions active."""
    services: dict[str, Json] = {}
    active: dict[str, dict[str, str]] = {}
    for root in sorted(told):
        for service in told[root]:
            name = str(service["service"])
            services.setdefault(name, service)
            versions = cast("list[Json]", service["versions"])
            names = [str(version["version"]) for version in versions if version["state"] == "active"]
            active.setdefault(name, {})[root] = ", ".join(names) or "nothing"
    disagree = [
        {"service": name, "text": ", ".join(f"{root} has {what} active" for root, what in by_root.items())}
        for name, by_root in sorted(active.items())
        if len(set(by_root.values())) > 1
    ]
    return {"disagree": disagree, "services": [services[name] for name in sorted(services)]}


def _body(answer: RootAnswer) -> Json:
    """Comes from another node, perhaps of another version: what isn't an object is an empty one."""
    try:
        body = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        return {}
    return cast("Json", body) if isinstance(body, dict) else {}


def _first_refusal(answers: Sequence[RootAnswer]) -> Refusal:
    first = min(answers, key=lambda answer: answer.root)
    body = _body(first)
    code = str(body.get("type", "internal-error")).rpartition("/")[2]
    return Refusal(code, str(body.get("detail", f"{first.root} answered {first.status}")), first.status)
