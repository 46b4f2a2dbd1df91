"""`serve`: a program that registers itself.

    with sdlb.serve("catalog-1.0.1", routes=["example.com/catalog*"], port=8001):
        stop.wait()        # the program serves in other threads
    server.shutdown()      # only now: until here requests may still arrive

On leaving the block the instance is drained: the program must go on serving until the block is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec

from sdlb.sdk.aio import AsyncClient
from sdlb.sdk.calls import default_socket
from sdlb.sdk.client import Client
from sdlb.sdk.pids import visible_pid
from sdlb.sdk.problem import Problem, Unreachable
from sdlb.sdk.renewal import Renewal
from sdlb.sdk.types import Health, Instance, Spec

log = logging.getLogger("sdlb")
_DRAIN_RETRY_S = 0.2


class Serving:
    """Keeps an instance registered while its `with` (or `async with`) block runs. Made by `serve`; used once."""

    def __init__(self, spec: Spec, socket: str, drain_deadline_s: float) -> None:
        self.spec = spec
        self.socket = socket
        self.drain_deadline_s = drain_deadline_s
        self._renewal = Renewal(spec, log.info)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._leave: asyncio.Event | None = None

    @property
    def instance(self) -> Instance | None:
        """The last state from the node; None before the node was reached."""
        return self._renewal.instance

    def wait_active(self, timeout_s: float = 30.0) -> Instance:
        """Returns when the instance gets traffic. Raises TimeoutError with the reason why it does not."""
        until = time.monotonic() + timeout_s
        with Client(self.socket) as client:
            while True:
                left_s = max(0.0, until - time.monotonic())
                try:
                    instance = client.instance(self.spec.id, "active", left_s)
                except Problem as problem:
                    if left_s == 0.0:
                        raise TimeoutError(f"{self.spec.label} is not active: {problem.detail}") from problem
                    time.sleep(min(_DRAIN_RETRY_S, left_s))
                    continue
                if instance.state == "active":
                    return instance
                if left_s == 0.0:
                    raise TimeoutError(f"{self.spec.label} is {instance.state}: {instance.reason}")

    async def wait_active_async(self, timeout_s: float = 30.0) -> Instance:
        """As `wait_active`, for `async with`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        async with AsyncClient(self.socket) as client:
            while True:
                left_s = max(0.0, until - loop.time())
                try:
                    instance = await client.instance(self.spec.id, "active", left_s)
                except Problem as problem:
                    if left_s == 0.0:
                        raise TimeoutError(f"{self.spec.label} is not active: {problem.detail}") from problem
                    await asyncio.sleep(min(_DRAIN_RETRY_S, left_s))
                    continue
                if instance.state == "active":
                    return instance
                if left_s == 0.0:
                    raise TimeoutError(f"{self.spec.label} is {instance.state}: {instance.reason}")

    def _settle(self, pid: int) -> None:
        """The process to watch; 0 if the node sees it under another process id."""
        self.spec = self._renewal.spec = msgspec.structs.replace(self.spec, pid=pid)

    # ------------------------------------------------------------------ with

    def __enter__(self) -> Self:
        self._settle(visible_pid(self.socket, os.getpid()))
        client = Client(self.socket)
        try:
            wait_s = self._attempt(client)
        except BaseException:
            client.close()
            raise
        self._thread = threading.Thread(target=self._renew, args=(client, wait_s), name="sdlb-renew", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if not self._renewal.registered:
            return
        until = time.monotonic() + self.drain_deadline_s
        with Client(self.socket) as client:
            while (left_s := until - time.monotonic()) > 0:
                try:
                    self._left(client.deregister(self.spec.id, left_s, pid=self.spec.pid))
                    return
                except Unreachable:
                    time.sleep(min(_DRAIN_RETRY_S, left_s))
                except Problem as problem:
                    self._refused(problem)
                    return
        log.warning("%s", self._unseen())

    def _attempt(self, client: Client) -> float:
        try:
            return self._renewal.succeeded(client.register(self.spec))
        except Problem as problem:
            if self._renewal.is_final(problem):
                raise
            return self._renewal.failed(problem)

    def _renew(self, client: Client, wait_s: float) -> None:
        with client:
            while not self._stop.wait(wait_s):
                try:
                    wait_s = self._attempt(client)
                except Problem as problem:
                    log.error("%s cannot be registered: %s", self.spec.label, problem.detail)
                    return

    # ------------------------------------------------------------------ async with

    async def __aenter__(self) -> Self:
        # A hanging node blocks the connection, so this must not run in the loop's thread.
        self._settle(await asyncio.to_thread(visible_pid, self.socket, os.getpid()))
        client = AsyncClient(self.socket)
        try:
            wait_s = await self._attempt_async(client)
        except BaseException:
            await client.close()
            raise
        self._leave = asyncio.Event()
        self._task = asyncio.create_task(self._renew_async(client, wait_s, self._leave), name="sdlb-renew")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._leave is not None and self._task is not None:
            self._leave.set()  # Not cancelled: a renewal in progress must not arrive after the deregistration.
            await self._task
        if not self._renewal.registered:
            return
        until = time.monotonic() + self.drain_deadline_s
        async with AsyncClient(self.socket) as client:
            while (left_s := until - time.monotonic()) > 0:
                try:
                    self._left(await client.deregister(self.spec.id, left_s, pid=self.spec.pid))
                    return
                except Unreachable:
                    await asyncio.sleep(min(_DRAIN_RETRY_S, left_s))
                except Problem as problem:
                    self._refused(problem)
                    return
        log.warning("%s", self._unseen())

    async def _attempt_async(self, client: AsyncClient) -> float:
        try:
            return self._renewal.succeeded(await client.register(self.spec))
        except Problem as problem:
            if self._renewal.is_final(problem):
                raise
            return self._renewal.failed(problem)

    async def _renew_async(self, client: AsyncClient, wait_s: float, leave: asyncio.Event) -> None:
        async with client:
            while not leave.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(leave.wait(), wait_s)
                    return
                try:
                    wait_s = await self._attempt_async(client)
                except Problem as problem:
                    log.error("%s cannot be registered: %s", self.spec.label, problem.detail)
                    return

    # ------------------------------------------------------------------ the result of draining

    def _left(self, instance: Instance) -> None:
        if instance.drained:
            log.info("%s is drained", self.spec.label)
        else:
            text = "%s still has %d requests in flight after %g s"
            log.warning(text, self.spec.label, instance.in_flight, self.drain_deadline_s)

    def _refused(self, problem: Problem) -> None:
        if problem.status not in (404, 409):  # removed by hand, its lease has expired, or another program has the id
            log.warning("%s was not drained: %s", self.spec.label, problem.detail)

    def _unseen(self) -> str:
        return (
            f"{self.spec.label} was not drained: no node answered at {self.socket} within {self.drain_deadline_s:g} s"
        )


def serve(
    name_version: str | tuple[str, str],
    *,
    routes: Sequence[str],
    port: int | None = None,
    endpoint: str | None = None,
    id: str | None = None,
    health: Health | str = "tcp",
    protocol: str = "http1",
    compatible: Sequence[str] = (),
    capacity: int = 100,
    ttl_s: float = 10.0,
    labels: Mapping[str, str] | None = None,
    drain_deadline_s: float = 30.0,
    socket: str | None = None,
) -> Serving:
    """A context manager, for `with` and `async with`, that keeps this program registered and drains it on leaving.

    `port` (on 127.0.0.1) or `endpoint` is where the program already listens. Entering raises Problem when the node
    refuses the registration as invalid. If no node is running, it waits for one in the background and logs this (logger
    "sdlb").
    """
    at = socket or default_socket()
    spec = Spec.of(
        name_version,
        routes=routes,
        port=port,
        endpoint=endpoint,
        id=id,
        health=health,
        protocol=protocol,
        compatible=compatible,
        capacity=capacity,
        ttl_s=ttl_s,
        pid=os.getpid(),
        labels=labels,
    )
    return Serving(spec, at, drain_deadline_s)
