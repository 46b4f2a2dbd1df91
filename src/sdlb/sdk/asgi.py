"""`lifespan`: a Starlette or FastAPI application under uvicorn that registers itself and is drained before it stops.

    app = FastAPI(lifespan=sdlb.lifespan("catalog-1.0.1", routes=["example.com/catalog*"], port=8001))

uvicorn closes its sockets on SIGTERM and ends the lifespan afterwards, so requests in flight would be refused. The
signal is therefore held back until the instance is drained, then passed to uvicorn; a second one is passed immediately.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any

from sdlb.sdk.listening import until_listening
from sdlb.sdk.problem import Problem
from sdlb.sdk.serving import Serving, serve

log = logging.getLogger("sdlb")
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
ENDING = (signal.SIGTERM, signal.SIGINT)


def lifespan(name_version: str | tuple[str, str], *, inner: Lifespan | None = None, **fields: Any) -> Lifespan:
    """Takes what `serve` takes. `inner`: the application's own lifespan, which begins before and ends after.

    For one process: with several workers on one port register from outside (`sdlb run`), or use gunicorn's hooks.
    """

    @contextlib.asynccontextmanager
    async def run(app: Any) -> AsyncGenerator[Any]:
        async with contextlib.AsyncExitStack() as stack:
            state = None if inner is None else await stack.enter_async_context(inner(app))
            registration = Registration(serve(name_version, **fields))
            registration.start()
            try:
                yield state
            finally:
                await registration.leave()
                registration.give_back()

    return run


class Registration:
    """Registers the program when it listens, and drains it before a stop signal reaches the server."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._entering: asyncio.Task[None] | None = None
        self._entered = False
        self._leaving: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._entering = asyncio.create_task(self._enter(), name="sdlb-register")
        if threading.current_thread() is not threading.main_thread():
            return  # Not the main thread, which gets no signals: the code that stops the server waits for `leave`.
        for number in ENDING:
            if callable(before := signal.getsignal(number)):
                self._before[number] = before
                signal.signal(number, self._on_signal)

    async def _enter(self) -> None:
        await until_listening(self._serving.spec.endpoint)
        try:
            await self._serving.__aenter__()
        except Problem as problem:
            log.error("%s cannot be registered: %s", self._serving.spec.label, problem.detail)
        else:
            self._entered = True

    async def leave(self) -> None:
        """Returns when the instance is drained. Concurrent calls wait for the same drain."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="sdlb-leave")
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        assert self._entering is not None
        self._entering.cancel()
        await asyncio.wait((self._entering,))
        if self._entered:
            await self._serving.__aexit__(None, None, None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._leaving is not None or self._loop is None:
            self._before[number](number, frame)
        else:
            self._loop.call_soon_threadsafe(self._drain_first, number)

    def _drain_first(self, number: int) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="sdlb-leave")
        self._leaving.add_done_callback(lambda _: self._before[number](number, None))

    def give_back(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, before)
