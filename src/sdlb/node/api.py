"""The local API: HTTP and JSON on a Unix socket (docs/reference/api.md; the calls are listed in `node.openapi`).

Handlers translate a body into an event and a view into JSON. Calls that only the roots can answer go through
`node.authority`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sdlb.core.events import ForgetChild, InstanceDrain, InstanceGone, InstancePut, InstanceRemove
from sdlb.model.instance import InstanceSpec
from sdlb.model.policy_layers import check_name
from sdlb.model.problem import Invalid
from sdlb.model.route import Pattern
from sdlb.model.version import check_service, check_version
from sdlb.node import docs_page, metrics, openapi, problems, reads, schema_orders
from sdlb.node.acme import Acme
from sdlb.node.api_rollouts import RolloutCalls
from sdlb.node.api_sites import SiteCalls
from sdlb.node.authority import Authority
from sdlb.node.ejected import with_ejected
from sdlb.node.hardening import Part
from sdlb.node.health import Health, owner_of, start_time
from sdlb.node.idempotency import Repeats
from sdlb.node.in_flight import at_instance
from sdlb.node.journal import Event, Journal
from sdlb.node.listeners import listeners
from sdlb.node.lists import Lists
from sdlb.node.loop import NodeLoop
from sdlb.node.orders import Orders
from sdlb.node.parameters import ETAG, check
from sdlb.node.peer import acting_user
from sdlb.node.policies import merge_one, read_body
from sdlb.node.problems import Refusal
from sdlb.node.requests import BODY_BYTES_MAX, as_json, body_of
from sdlb.node.restart import Restart
from sdlb.node.sites import SiteWatch
from sdlb.node.specs import InstanceBody, check_id, decode, read_spec
from sdlb.seams.engine import Engine, EngineFailed

POLICIES_BYTES_MAX = 1024 * 1024
KEPT_BYTES_MAX = 2048
KEEP_ALIVE_S = 15.0
"""Interval of the comment lines that show that an idle event stream is alive."""
Handler = Callable[[Request], Awaitable[Response]]


def _spec(instance_id: str, content: bytes) -> InstanceSpec:
    """Raises Invalid."""
    return read_spec(instance_id, decode(InstanceBody, content, "bad-json", f"instance {instance_id}"))


_spec_as_before = lru_cache(maxsize=256)(_spec)  # A renewal sends the same body every few seconds.


def _seconds(request: Request, name: str, default: float) -> float:
    return float(request.query_params.get(name, default))


class Api:
    def __init__(
        self,
        loop: NodeLoop,
        authority: Authority,
        engine: Engine,
        journal: Journal,
        health: Health,
        sites: SiteWatch,
        acme: Acme,
        restart: Restart,
        listen: dict[str, str],
        hardening: Callable[[], Sequence[Part]],
        repeats: Repeats,
    ) -> None:
        self._loop = loop
        self._lists = Lists(loop.balancer.view)
        self._authority = authority
        self._orders = Orders(authority, loop.balancer.settings.name)
        self._rollouts = RolloutCalls(loop, authority)
        self._engine = engine
        self._journal = journal
        self._health = health
        self._sites = sites
        self._site_calls = SiteCalls(loop.balancer.settings.name, sites, acme)
        self._restart = restart
        self._repeats = repeats
        self._listen = listen
        self._hardening = hardening

    def app(self, paths: Collection[str] = ()) -> Starlette:
        """`paths`: serves only these."""
        routes = [
            Route(call.path, _guarded(self._handler(call.operation), call), methods=[call.method])
            for call in openapi.CALLS
            if not paths or call.path in paths
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_exception})

    def _handler(self, operation: str) -> Handler:
        owner = next(each for each in (self, self._rollouts, self._site_calls) if hasattr(each, operation))
        handler: Handler = getattr(owner, operation)
        if operation not in openapi.REPEATED:
            return handler
        most = POLICIES_BYTES_MAX if operation == "put_policies" else BODY_BYTES_MAX
        return partial(self._repeats.answer, handler=handler, body_max=most)

    def _pace(self) -> reads.Pace:
        return reads.Pace(self._loop.quiet)

    def _long(self, pieces: list[bytes]) -> Response:
        """Written in parts, because copying some megabytes takes as long as many decisions."""
        headers = {"content-length": str(sum(map(len, pieces)))}
        return StreamingResponse(reads.blocks(pieces, self._pace()), 200, headers, "application/json")

    # ------------------------------------------------------------------ instances

    def _view(self, found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "in_flight": at_instance(found["id"], self._engine.stats)}

    def _instance(self, instance_id: str) -> dict[str, Any]:
        found = self._loop.balancer.view.instance(check_id(instance_id))
        if found is None:
            raise Refusal("no-such-instance", f"{instance_id} is not registered at {self._loop.balancer.settings.name}")
        return self._view(found)

    async def _known(self, instance_id: str, timeout_s: float) -> dict[str, Any]:
        """As `_instance`, but does not report an instance as unknown while requests to it may be in flight: its program
        would exit. (After a start with an older copy of the state folder, the node may not know the instance.)"""
        end = time.monotonic() + timeout_s
        while self._may_carry(check_id(instance_id)) and (left := end - time.monotonic()) > 0:
            await self._loop.instances.wait(instance_id, min(left, 0.5))
        return self._instance(instance_id)

    def _may_carry(self, instance_id: str) -> bool:
        view, draining = self._loop.balancer.view, self._engine.stats.draining
        if view.healthy(instance_id) is not None:
            return False
        return view.may_carry(instance_id) or any(key.target == f"i:{instance_id}" for key in draining)

    async def list_instances(self, request: Request) -> Response:
        return self._long(reads.pieces({"node": self._lists.settings.name}, instances=await self._instances()))

    async def _instances(self) -> list[bytes]:
        found = reads.instances(self._lists, self._pace())
        return await reads.encoded(self._view(instance) async for instance in found)

    async def put_instance(self, request: Request) -> Response:
        instance_id = check_id(request.path_params["id"])
        content = await body_of(request)
        spec = (_spec_as_before if len(content) <= KEPT_BYTES_MAX else _spec)(instance_id, content)
        balancer = self._loop.balancer
        known = balancer.view.healthy(instance_id)
        if known is None and self._loop.stopping:
            raise Refusal(
                "stopping",
                f"{balancer.settings.name} is draining and accepts no new instances; register at another node",
            )
        if spec.pid and not start_time(spec.pid):
            raise Refusal(
                "bad-pid", f"instance {instance_id}: there is no process {spec.pid}; correct pid or leave it out"
            )
        unchecked = spec.health.kind != "none"
        healthy = known if known is not None and self._health.known(spec) else not unchecked
        owner = owner_of(spec.pid)
        if owner and self._owner(instance_id) not in ("", owner):
            self._health.check_process(
                instance_id
            )  # A restarted program must not be refused because of its predecessor.
        there = self._listeners(spec, healthy)
        await self._loop.do(InstancePut(spec, healthy, owner, there))
        if owner and self._owner(instance_id) not in ("", owner):
            raise Refusal("owner-conflict", self._conflict(instance_id))
        self._health.put(spec, healthy)
        return as_json(self._instance(instance_id), 201 if known is None else 200)

    def _listeners(self, spec: InstanceSpec, healthy: bool) -> frozenset[str]:
        """The sockets at the endpoint if they may have changed; reading all sockets is too expensive for each
        renewal."""
        if not self._health.may_have_moved(spec, healthy):
            return frozenset()
        for other in self._loop.balancer.view.at_endpoint(spec.endpoint):
            if other != spec.id:
                self._health.check_process(other)  # Its process may have exited and freed the port for this instance.
        return listeners(spec.endpoint)

    def _owner(self, instance_id: str) -> str:
        found = self._loop.balancer.view.instance(instance_id)
        return found["owner"] if found is not None else ""

    def _conflict(self, instance_id: str) -> str:
        """The text of a conflict about an id; the core has kept the registration that arrived first."""
        found = self._instance(instance_id)
        name = f"{found['service']}-{found['version']} on {found['endpoint']}"
        if found["state"] == "lapsed":
            text = f"{instance_id} was registered by {found['owner']} as {name}, and may still run (on_silence is wait)"
            return f"{text}; stop it, then deregister it"
        text = f"{instance_id} is registered by {found['owner']} as {name}, which is still alive"
        return f"{text}; use another id, or stop it first"

    async def get_instance(self, request: Request) -> Response:
        instance_id = request.path_params["id"]
        wanted = request.query_params.get("wait")
        timeout_s = _seconds(request, "timeout_s", 30.0)
        found = self._instance(instance_id)
        if wanted is not None:
            await self._until(instance_id, lambda now: now is None or now["state"] == wanted, timeout_s)
            found = self._instance(instance_id)
        return as_json(found)

    async def drain_instance(self, request: Request) -> Response:
        instance_id = request.path_params["id"]
        own_s, within_s = self._deadline(request, instance_id)
        await self._known(instance_id, within_s)
        await self._loop.do(InstanceDrain(instance_id, own_s))
        await self._until(instance_id, lambda now: now is None or now["drained"], within_s)
        return as_json(self._instance(instance_id))

    def _deadline(self, request: Request, instance_id: str) -> tuple[float | None, float]:
        """(deadline of the call, seconds until the answer). None: it has none, so the policy of the service decides."""
        if "deadline_s" in request.query_params:
            own_s = _seconds(request, "deadline_s", 30.0)
            return own_s, own_s
        view = self._loop.balancer.view
        found = view.instance(instance_id)
        return None, view.policy_layers.of(found["service"]).drain.deadline_s if found is not None else 30.0

    async def delete_instance(self, request: Request) -> Response:
        instance_id = request.path_params["id"]
        own_s, deadline_s = self._deadline(request, instance_id)
        owner = owner_of(int(request.query_params.get("pid", "0")))
        gone = request.query_params.get("gone") == "1"
        last = await self._known(instance_id, 0.0 if gone else deadline_s)
        if gone:
            await self._loop.do(InstanceGone(instance_id, "its program reported that it exited", owner))
        if owner and last["owner"] not in ("", owner):
            if not gone:
                await self._loop.do(InstanceRemove(instance_id, own_s, owner))
            text = (
                f"{instance_id} is now registered by {last['owner']} and stays; the registration of {owner} is removed"
            )
            raise Refusal("owner-conflict", text)
        if gone:
            return as_json({**last, "drained": True, "in_flight": 0})

        def removed(now: dict[str, Any] | None) -> bool:
            nonlocal last
            last = last if now is None else self._view(now)
            return now is None

        started = time.monotonic()
        await self._loop.do(InstanceRemove(instance_id, own_s, owner))
        # At the deadline the instance is removed as soon as the engine sends it nothing new: that needs the extra second.
        gone = await self._until(instance_id, removed, deadline_s + 1.0)
        drained = gone and time.monotonic() - started < deadline_s
        return as_json(
            {**last, "drained": drained or bool(last["drained"]), "state": "drained" if drained else last["state"]}
        )

    async def _until(self, instance_id: str, done: Callable[[dict[str, Any] | None], bool], timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while not done(self._loop.balancer.view.instance(instance_id)):
            left = end - time.monotonic()
            if left <= 0:
                return False
            await self._loop.instances.wait(instance_id, left)
        return True

    # ------------------------------------------------------------------ services and policies, from the roots

    def _local(self, request: Request) -> bool:
        return request.query_params.get("scope") == "local"

    def _here(self, **more: object) -> dict[str, object]:
        return {"node": self._loop.balancer.settings.name, "roots": [], "unreachable": [], "disagree": [], **more}

    async def list_services(self, request: Request) -> Response:
        if self._local(request):
            services = await reads.encoded(reads.services(self._lists, self._pace()))
            return self._long(reads.pieces(self._here(), services=services))
        return self._long(await self._authority.services())

    async def get_service(self, request: Request) -> Response:
        name = check_service(request.path_params["name"])
        if not self._local(request):
            return self._long(await self._authority.services(name))
        found = self._loop.balancer.view.service(name)
        if found is None:
            raise Refusal("no-such-service", f"no service named {name} is known here")
        return as_json(self._here(services=[found]))

    async def get_policy(self, request: Request) -> Response:
        name = check_name(request.path_params["policy"])
        if not self._local(request):
            return as_json(await self._authority.policy(name))
        return as_json(self._here(**merge_one({"": self._authority.policies_here.one(name)})))

    async def put_policy(self, request: Request) -> Response:
        name = check_name(request.path_params["policy"])
        refuse = request.query_params.get("unknown") == "refuse"
        return as_json(await self._authority.set_policy(name, await body_of(request), refuse_unknown=refuse))

    async def list_policies(self, request: Request) -> Response:
        local = self._local(request)
        found = self._here(**self._authority.policies_here.all()) if local else await self._authority.policies()
        response = as_json(found)
        response.headers["etag"] = str(found["etag"])
        return response

    async def put_policies(self, request: Request) -> Response:
        query, if_match = request.query_params, request.headers.get("if-match", "")
        if "if-match" in request.headers and not ETAG.match(if_match):
            raise Refusal("bad-query", f"If-Match is {if_match[:40]!r}; use the etag that GET /v1/policies returns")
        found = await self._authority.change_policies(
            read_body(await body_of(request, POLICIES_BYTES_MAX)),
            if_match=if_match,
            dry_run=query.get("dry_run") == "1",
            refuse_unknown=query.get("unknown") == "refuse",
        )
        return as_json(found)

    # ------------------------------------------------------------------ orders of operators, for the roots

    async def approve_version(self, request: Request) -> Response:
        service, version = self._named(request)
        body = decode(schema_orders.Approval, await body_of(request), "bad-json", f"approval of {service}-{version}")
        by = await acting_user(request, body.by)
        return as_json(await self._orders.approve(service, version, body.gate, by))

    async def promote_version(self, request: Request) -> Response:
        service, version = self._named(request)
        body = decode(schema_orders.Promotion, await body_of(request), "bad-json", f"promotion of {service}-{version}")
        by = await acting_user(request, body.by)
        return as_json(await self._orders.promote(service, version, body.no_gates.strip(), by))

    async def transfer_route(self, request: Request) -> Response:
        body = decode(schema_orders.Transfer, await body_of(request), "bad-json", "transfer of a route")
        route, to = str(Pattern.parse(body.route)), check_service(body.to)
        return as_json(await self._orders.transfer(route, to, await acting_user(request, body.by)))

    def _named(self, request: Request) -> tuple[str, str]:
        return check_service(request.path_params["service"]), check_version(request.path_params["version"])

    # ------------------------------------------------------------------ this node

    async def get_tree(self, request: Request) -> Response:
        tree = self._lists.node()
        listen = {**self._listen, **self._engine.stats.bound}
        parents = sorted(tree["parents"], key=lambda parent: parent["name"] or parent["address"])
        instances = await self._instances()
        children = await reads.encoded(reads.children(self._lists, self._pace()))
        ready, detail = self._loop.ready()
        health = {"ready": ready, "detail": detail, "writes": self._loop.writes}
        stats = self._engine.stats
        degraded = [
            {"what": each.what, "instead": each.instead, "services": list(each.services)}
            for each in self._engine.degraded()
        ]
        engine = {"pid": stats.pid, "version": stats.version, "attached": stats.attached, "degraded": degraded}
        ejected = [{"target": name, "reason": why} for name, why in sorted(stats.ejected.items())]
        hardening = [part.view() for part in self._hardening()]
        head = {**tree, **health, "engine": engine, "listen": listen, "hardening": hardening}
        head |= {"parents": parents, "ejected": ejected}
        return self._long(reads.pieces(head, children=children, instances=instances))

    async def forget_child(self, request: Request) -> Response:
        name = request.path_params["name"]
        balancer = self._loop.balancer
        here, child = balancer.settings.name, balancer.view.child(name)
        if child is None:
            raise Refusal("no-such-child", f"{here} has no child named {name[:80]!r}; 'sdlb tree' lists them")
        if child["state"] != "suspect":
            heard = f"{name} was heard {child['silent_s']:g} s ago and counts as alive"
            raise Refusal("child-in-touch", f"{heard}; if it has stopped, forget it when its lease has expired")
        if not self._loop.writes:
            raise Refusal("not-written", f"{here}: {self._loop.ready()[1]}; try again later")
        await self._loop.do(ForgetChild(name))
        if balancer.view.child(name) is not None:
            raise Refusal("child-in-touch", f"{name} has just reconnected; it is not forgotten")
        if self._loop.held is not None:
            raise Refusal("not-written", f"{name} is forgotten as soon as {here} can write it: {self._loop.ready()[1]}")
        return as_json(child)

    async def upgrade_engine(self, request: Request) -> Response:
        here = self._loop.balancer.settings.name
        if self._loop.stopping:
            raise Refusal("stopping", f"{here} is draining: its engine ends with it")
        deadline_s = _seconds(request, "deadline_s", 30.0)
        try:
            done = await self._engine.upgrade(deadline_s)
        except EngineFailed as error:
            raise Refusal("engine-not-upgraded", f"{here}: {error}") from None
        now = {"pid": done.pid, "version": done.version}
        before = {"pid": done.before_pid, "version": done.before_version}
        return as_json({"node": here, "now": now, "before": before, "deadline_s": deadline_s})

    async def restart_control(self, request: Request) -> Response:
        settings, stats = self._loop.balancer.settings, self._engine.stats
        if self._loop.stopping or self._restart.requested.is_set():
            raise Refusal("stopping", f"{settings.name} is already stopping")
        await self._restart.request()
        engine = {"pid": stats.pid, "version": stats.version}
        return as_json(
            {"node": settings.name, "incarnation": settings.incarnation, "pid": os.getpid(), "engine": engine}
        )

    async def list_routes(self, request: Request) -> Response:
        routes = await reads.encoded(reads.routes(self._lists, self._pace()))
        return self._long(reads.pieces({"node": self._lists.settings.name}, routes=routes))

    async def explain(self, request: Request) -> Response:
        url = request.query_params["url"]
        full = url if "://" in url else f"http://{url}"
        do = "write it as http://host/path"
        bad = next((character for character in url if character <= " " or character == "\x7f"), None)
        if bad is not None:
            raise Refusal(
                "bad-url", f"the URL {url[:80]!r} contains {bad!r}, which a request cannot; write %{ord(bad):02X}"
            )
        try:
            parts = urlsplit(full)
            host, _ = parts.hostname or "", parts.port  # reading the port checks it
        except ValueError as error:
            raise Refusal("bad-url", f"the URL {url[:80]!r} cannot be read ({error}); {do}") from None
        if parts.scheme not in ("http", "https") or not host:
            raise Refusal("bad-url", f"the URL {url[:80]!r} has no http or https scheme, or no host; {do}")
        if ":" in host:
            host = f"[{host}]"
        path = parts.path or "/"
        explanation = with_ejected(self._loop.balancer.view.explain(host, path), self._engine.stats.ejected)
        if not self._local(request):
            at_roots = await self._authority.explained(host, path)
            explanation = {**explanation, "others": _with_roots(explanation, at_roots)}
        return as_json({**explanation, "url": full})

    async def events(self, request: Request) -> Response:
        since = request.query_params.get("since")
        if since is not None:
            return as_json({"events": self._journal.after(int(since))})
        last = request.headers.get("last-event-id", "")
        last_id = int(last) if last.isdigit() and len(last) <= 18 else 0
        if last_id > self._journal.last_id:
            last_id = 0  # an id from before the last restart of control
        follow = request.query_params.get("follow", "1") not in ("0", "false")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._stream(last_id, follow), media_type="text/event-stream", headers=headers)

    async def _stream(self, last_id: int, follow: bool) -> AsyncIterator[bytes]:
        while True:
            events = self._journal.after(last_id)
            if events:
                last_id = events[-1].id
                yield b"".join(_server_sent(event) for event in events)
            elif not follow:
                return
            elif last_id == 0:
                yield b": nothing yet\n\n"
            if not follow:
                return
            if self._journal.last_id > last_id:
                continue
            try:
                await asyncio.wait_for(self._journal.wait(), KEEP_ALIVE_S)
            except TimeoutError:
                yield b": still here\n\n"

    async def metrics(self, request: Request) -> Response:
        parts = metrics.render(self._loop, self._engine.stats, self._journal, self._sites)
        return StreamingResponse(parts, headers={"content-type": metrics.CONTENT_TYPE})

    async def healthz(self, request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(self, request: Request) -> Response:
        ready, why = self._loop.ready()
        return PlainTextResponse(f"{why}\n", 200 if ready else 503)

    async def openapi(self, request: Request) -> Response:
        return as_json(openapi.document())

    async def docs(self, request: Request) -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        page = docs_page.page(self._loop.balancer.settings.name)
        return HTMLResponse(page, headers={"content-security-policy": policy, "x-content-type-options": "nosniff"})


def _with_roots(here: dict[str, Any], roots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The other routes: those of this node, and those by which the roots decide differently from this node."""
    others: list[dict[str, Any]] = list(here["others"])
    for root in roots:
        route, service = root.get("route", ""), root.get("service", "")
        known = {(each["route"], each["service"]) for each in others}
        if route and (route, service) != (here["route"], here["service"]) and (route, service) not in known:
            why = f"{root.get('node', 'a root')} routes such requests here: {root.get('rule', '')}"
            others.append({"route": route, "service": service, "why": why})
    return others


def _server_sent(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.code.encode(), msgspec.json.encode(event))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-query")
    path = request.url.path
    response = problems.answer(code, f"{request.method} {path[:200]}: {error.detail}; see /docs", error.status_code)
    if error.status_code == 405:
        response.headers["allow"] = openapi.allowed(path)  # the router knows the methods of one call only
    return response


def _guarded(handler: Handler, call: openapi.Call) -> Handler:
    return partial(_answer, handler, call)


async def _answer(handler: Handler, call: openapi.Call, request: Request) -> Response:
    """Answers every error with a problem document."""
    try:
        if call.checked:
            check(call.query, request.query_params.multi_items())
        return await handler(request)
    except Invalid as error:
        return problems.of_invalid(error)
    except Refusal as error:
        return problems.answer(error.code, error.detail, error.status)
    except ClientDisconnect:
        return Response(status_code=499)
    except UnicodeError:
        return problems.answer("bad-query", f"{request.method}: the request is not UTF-8; encode it as UTF-8")
