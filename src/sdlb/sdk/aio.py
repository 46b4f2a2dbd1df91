"""The asyncio client of a node's local API: `Client`, with `await`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import httpx

from sdlb.sdk import calls, http
from sdlb.sdk.problem import Problem, Unreachable
from sdlb.sdk.repeat import PAUSE_S, Repeat
from sdlb.sdk.rollout_types import (
    Agent,
    ReleaseChanged,
    Releases,
    Roles,
    Rollout,
    RolloutOrdered,
    RolloutRecords,
    Rollouts,
)
from sdlb.sdk.sse import Parser
from sdlb.sdk.types import (
    Approved,
    Child,
    ControlRestart,
    EngineUpgrade,
    Event,
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

T = TypeVar("T")


class AsyncClient:
    """Talks to the node at `socket` (None: SDLB_SOCKET, or /run/sdlb/sdlb.sock). For one event loop.

    Every method raises `Problem` when the node refuses, and its subclass `Unreachable` when none answers.
    """

    def __init__(self, socket: str | None = None) -> None:
        self.socket = socket or calls.default_socket()
        self._http = http.async_transport(self.socket)

    async def register(self, spec: Spec) -> Instance:
        """Registers an instance, or renews it. It must be renewed within `spec.ttl_s`."""
        return await self._do(calls.register(spec))

    renew = register

    async def drain(self, id: str, deadline_s: float = 30.0) -> Instance:
        """Drains the instance; returns when no request is in flight anywhere or after the deadline: see `drained`."""
        return await self._do(calls.drain(id, deadline_s))

    async def deregister(self, id: str, deadline_s: float = 30.0, *, gone: bool = False, pid: int = 0) -> Instance:
        """Drains the instance and removes it. `gone`: the process has exited; do not drain. `pid`: only what this
        process registered; a Problem of status 409 when another one has registered the id since.
        """
        return await self._do(calls.deregister(id, deadline_s, gone, pid))

    async def instance(self, id: str, wait: str | None = None, timeout_s: float = 30.0) -> Instance:
        """The instance; with `wait` ("active", "drained") as soon as it has that state, or after `timeout_s`."""
        return await self._do(calls.instance(id, wait, timeout_s))

    async def instances(self) -> tuple[Instance, ...]:
        """The instances of this node's host."""
        return (await self._do(calls.instances())).instances

    async def services(self, *, local: bool = False) -> Services:
        """All services as the roots see them; `local`: what this node knows on its own, without asking a root."""
        return await self._do(calls.services(local))

    async def service(self, name: str, *, local: bool = False) -> Services:
        """As `services`, with one service only; a Problem of status 404 when no root knows it."""
        return await self._do(calls.service(name, local))

    async def tree(self) -> Tree:
        return await self._do(calls.tree())

    async def forget(self, name: str) -> Child:
        """Removes a silent child that has stopped. Problem: the child is connected (409) or unknown (404)."""
        return await self._do(calls.forget(name))

    async def upgrade_engine(self, deadline_s: float = 30.0) -> EngineUpgrade:
        """As `Client.upgrade_engine`."""
        return await self._do(calls.upgrade_engine(deadline_s))

    async def restart_control(self) -> ControlRestart:
        """Restarts control with the installed program; returns before the restart. Problem (503): it was not
        restarted."""
        return await self._do(calls.restart_control())

    async def routes(self) -> Routes:
        return await self._do(calls.routes())

    async def sites(self) -> Sites:
        """The sites of this node with the state of their certificates."""
        return await self._do(calls.sites())

    async def revoke_certificate(self, site: str, reason: str = "unspecified", *, by: str = "") -> Revoked:
        """Revokes the certificate that this node has for the site, and orders another one with a new key. Problem: the CA refuses
        (409) or cannot be reached (503)."""
        return await self._do(calls.revoke(site, reason, by))

    async def explain(self, url: str) -> Explanation:
        return await self._do(calls.explain(url))

    async def policy(self, name: str) -> Policy:
        """The policy of a service, or of the services of a pattern ("catalog*", "*")."""
        return await self._do(calls.policy(name))

    async def set_policy(self, name: str, document: Mapping[str, object], *, unknown: str = "accept") -> Policy:
        """Replaces the document of a service or pattern; a key that is left out is not set. `unknown`: services and versions
        that no root knows, "accept" with `warnings`, or "refuse" (a Problem of status 409)."""
        return await self._do(calls.set_policy(name, document, unknown))

    async def policies(self) -> Policies:
        """All policy documents."""
        return await self._do(calls.policies())

    async def set_policies(
        self,
        documents: Mapping[str, Mapping[str, object]],
        *,
        if_match: str = "",
        dry_run: bool = False,
        unknown: str = "accept",
    ) -> PolicyPlan:
        """Replaces several documents, all or none; an empty one removes a policy. `if_match`: an etag of `policies`; a Problem of
        status 412 when they have changed since. `dry_run`: only returns what would change. `unknown`: as in `set_policy`."""
        return await self._do(calls.set_policies(documents, if_match, dry_run, unknown))

    async def approve(self, service: str, version: str, gate: str, *, by: str = "") -> Approved:
        """Approves a gate of a waiting version, in the name of this process's user. `by`: another name, which only root and
        the node's own user may give. Problem: it would have no effect (409), or the name is not permitted (403)."""
        return await self._do(calls.approve(service, version, gate, by))

    async def promote(self, service: str, version: str, *, no_gates: str = "", by: str = "") -> Promoted:
        """Promotes a waiting version: failed gates are retried, and a flip does not wait for more capacity. `no_gates`: skip
        the gates, for this reason. `by`: as in `approve`."""
        return await self._do(calls.promote(service, version, no_gates, by))

    async def transfer_route(self, route: str, to: str, *, by: str = "") -> Transferred:
        """Gives the route to the service `to`; the service that holds it is drained. Problem: a root did not answer (503), or
        the service does not claim the route (409). `by`: as in `approve`."""
        return await self._do(calls.transfer_route(route, to, by))

    async def releases(self, service: str = "") -> Releases:
        """The releases that are known: all, or those of a service."""
        return await self._do(calls.releases(service))

    async def add_release(self, release: Mapping[str, object], *, by: str = "") -> ReleaseChanged:
        """Adds a release: the keys of a release file. Problem: it is known with another digest (409). `by`: as in `approve`."""
        return await self._do(calls.add_release(release, by))

    async def withdraw_release(self, name: str, *, by: str = "") -> ReleaseChanged:
        """Withdraws "catalog-1.0.2": no rollout to it can start. Problem: it is unknown (404) or in use (409)."""
        return await self._do(calls.withdraw_release(name, by))

    async def rollouts(self) -> Rollouts:
        """The last rollout of each service."""
        return await self._do(calls.rollouts())

    async def rollout(self, which: str) -> Rollout:
        """A rollout by its id, or the last one of a service; a Problem of status 404 when there is none."""
        return (await self._do(calls.rollout(which))).rollout

    async def rollout_record(self, which: str) -> RolloutRecords:
        """The record at each root of a rollout (its id), or of the last one of a service."""
        return await self._do(calls.rollout_record(which))

    async def start_rollout(
        self,
        service: str,
        version: str,
        settings: Mapping[str, object] | None = None,
        *,
        supersede: bool = False,
        dry_run: bool = False,
        also: Mapping[str, str] | None = None,
        by: str = "",
    ) -> RolloutOrdered:
        """Starts a rollout of a release. `settings`: as `RolloutStart` in the API reference. `supersede`: replace the one in progress.
        `also`: service -> version of others that are rolled out together with it. `dry_run`: only return its plan. Problem: it
        cannot start (409). `by`: as in `approve`."""
        call = calls.start_rollout(
            service, version, settings or {}, supersede=supersede, dry_run=dry_run, also=also or {}, by=by
        )
        return await self._do(call)

    async def order_rollout(self, which: str, verb: str, *, dry_run: bool = False, by: str = "") -> RolloutOrdered:
        """`verb`: "pause", "resume", "promote", "abort", "undo" or "adopt", for the rollout `which` (its service or id). Problem: it
        would have no effect (409), or the owner of the rollout could not be reached (503)."""
        return await self._do(calls.order_rollout(which, verb, dry_run=dry_run, by=by))

    async def roles(self) -> Roles:
        """The services that nodes of the tree run as their roles."""
        return await self._do(calls.roles())

    async def agent(self) -> Agent:
        """The services that this node runs as its roles."""
        return await self._do(calls.agent())

    async def events(
        self, *, follow: bool = True, lost: Callable[[Problem], None] | None = None
    ) -> AsyncIterator[Event]:
        """The node's recent events, then (with `follow`) each new one, also across restarts of its control.

        `lost` is called when the connection breaks. A node that cannot be reached at the start raises Unreachable.
        """
        parser = Parser()
        wait_s = 0.0
        while True:
            try:
                async for event in self._stream(parser, follow):
                    wait_s = 0.0
                    yield event
                if not follow:
                    return
                failure: Problem = Unreachable(self.socket, "the connection was closed")
            except Problem as error:
                if not parser.opened or 400 <= error.status < 500:
                    raise
                failure = error
            if lost is not None:
                lost(failure)
            wait_s = min(max(wait_s * 2, http.RETRY_FIRST_S), http.RETRY_MAX_S)
            await asyncio.sleep(wait_s)

    async def _stream(self, parser: Parser, follow: bool) -> AsyncIterator[Event]:
        try:
            answer = await self._http.handle_async_request(http.events_request(parser, follow=follow))
            try:
                if answer.status_code >= 400:
                    raise calls.problem(answer.status_code, await answer.aread())
                parser.opened = True
                async for line in answer.aiter_lines():
                    event = parser.line(line)
                    if event is not None:
                        yield event
            finally:
                await answer.aclose()
        except httpx.TransportError as error:
            raise http.unreachable(self.socket, error) from error

    async def _do(self, call: calls.Call[T]) -> T:
        repeat = Repeat(call)
        while True:
            try:
                answer = await self._http.handle_async_request(http.request(call, repeat.headers))
                try:
                    content = await answer.aread()
                finally:
                    await answer.aclose()
                if not repeat.after_answer(answer.status_code, content):
                    return call.read(answer.status_code, content)
            except httpx.TransportError as error:
                if not repeat.after_error(error):
                    raise http.unreachable(self.socket, error) from error
            await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
