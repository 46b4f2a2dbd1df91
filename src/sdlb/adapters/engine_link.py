"""One connection to one engine process: it sends and receives frames, and matches answers to requests."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from pathlib import Path
from typing import Protocol, TypeVar

from sdlb.adapters.engine_stats import Rows
from sdlb.core.events import EndpointKey
from sdlb.seams.engine import EngineConfig, EngineFailed
from sdlb.wire import engine as wire
from sdlb.wire.engine_pb2 import Attached, ClientsDrained, Configured, FromEngine, HandedOver, ToEngine

FRAME_BYTES_MAX = 16 << 20
ANSWER_WITHIN_S = 10.0
PING_S = 1.0
PONG_WITHIN_S = 3.0
"""An engine whose control thread is healthy answers a ping immediately: the thread does nothing that blocks."""
UNSENT_BYTES_MAX = 64 << 20
"""The link to an engine that does not read is closed when more than this is unsent. The next link starts with the full
state."""


T = TypeVar("T")


class Owner(Protocol):
    """Receives the messages and the state changes of a link."""

    def on_message(self, link: EngineLink, message: FromEngine) -> None: ...
    def lost(self, link: EngineLink, why: str) -> None:
        """Called once when the link breaks; not called after `close`."""
        ...

    def hangs(self, link: EngineLink, hangs: bool) -> None:
        """Called when the engine's control thread stops answering on an open connection, and when it answers again."""
        ...


class EngineLink:
    """`undrained`: endpoint -> epoch of its deletion, until the engine reports the endpoint as drained.

    `has_table`: the engine receives deltas. A new engine in a hot restart has none until it has received a complete one.
    """

    def __init__(self, path: Path, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.path = path
        self.attached = Attached()
        self.rows = Rows()
        self.undrained: dict[EndpointKey, int] = {}
        self.has_table = False
        self._reader, self._writer = streams
        self._configured: asyncio.Future[Configured] | None = None
        self._handed_over: asyncio.Future[HandedOver] | None = None
        self._drained: asyncio.Future[ClientsDrained] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._pong: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def pid(self) -> int:
        return self.attached.pid

    async def wait_for_greeting(self) -> None:
        """Waits for the engine's first message. Raises EngineFailed."""
        try:
            message = await asyncio.wait_for(self._frame(), ANSWER_WITHIN_S)
        except (TimeoutError, asyncio.IncompleteReadError, OSError, wire.DecodeError):
            raise EngineFailed(f"the engine does not answer at {self.path}") from None
        if message.WhichOneof("kind") != "attached":
            raise EngineFailed(f"the process that listens at {self.path} is not an engine")
        self.attached = message.attached
        self.undrained = {wire.endpoint_key(each.key): self.attached.epoch for each in self.attached.draining}

    def listen(self, owner: Owner) -> None:
        self._reading = asyncio.create_task(self._read(owner), name=f"engine {self.pid}")
        if self.attached.answers_pings:
            self._watching = asyncio.create_task(self._watch(owner), name=f"watch of engine {self.pid}")

    async def _watch(self, owner: Owner) -> None:
        while True:
            await asyncio.sleep(PING_S)
            self._pong = asyncio.get_running_loop().create_future()
            message = ToEngine()
            message.ping.SetInParent()
            self.send(message)
            await asyncio.wait((self._pong,), timeout=PONG_WITHIN_S)
            await asyncio.sleep(0.05)  # if this process was suspended, the answer is already there
            if not self._pong.done():
                owner.hangs(self, True)
                await self._pong
                owner.hangs(self, False)

    async def _frame(self) -> FromEngine:
        size = int.from_bytes(await self._reader.readexactly(4), "big")
        if size > FRAME_BYTES_MAX:
            raise ConnectionError(f"a frame of {size} bytes")
        return FromEngine.FromString(await self._reader.readexactly(size))

    async def _read(self, owner: Owner) -> None:
        why = ""
        try:
            while True:
                message = await self._frame()
                match message.WhichOneof("kind"):
                    case "configured":
                        _answer(self._configured, message.configured)
                    case "handed_over":
                        _answer(self._handed_over, message.handed_over)
                    case "pong":
                        _answer(self._pong, None)
                    case "clients_drained":
                        _answer(self._drained, message.clients_drained)
                    case _:
                        owner.on_message(self, message)
        except (asyncio.IncompleteReadError, OSError):
            pass
        except wire.DecodeError as error:
            why = f"the engine sent an invalid message: {error}"
        except Exception:  # an internal error: a new connection starts with the full state
            why = traceback.format_exc(limit=-4)
        if not self._closed:
            self.close()
            owner.lost(self, why)

    # ------------------------------------------------------------------ requests to the engine

    def send(self, message: ToEngine) -> bool:
        """Sends a message. False: the engine does not read, and the connection is aborted."""
        if self._closed:
            return True
        frame = message.SerializeToString()
        self._writer.write(len(frame).to_bytes(4, "big") + frame)
        if self._writer.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self._writer.transport.abort()
            return False
        return True

    async def drain(self) -> None:
        """Returns when the engine has read most of what was sent."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def configure(self, config: EngineConfig, settle_s: float = 0.0) -> Configured:
        """Configures the engine. If the answer has an `error`, nothing has changed."""
        if self._closed:
            return Configured(error="the engine is gone")
        self._configured = asyncio.get_running_loop().create_future()
        self.send(wire.to_configure(config, settle_s))
        try:
            return await asyncio.wait_for(self._configured, ANSWER_WITHIN_S)
        except (TimeoutError, ConnectionError):
            return Configured(error="the engine does not answer")

    async def hand_over(self, path: Path) -> str:
        """Makes the engine pass its listening sockets to the process that listens at `path`. Returns "", or the error."""
        if self._closed:
            return "the engine is gone"
        self._handed_over = asyncio.get_running_loop().create_future()
        message = ToEngine()
        message.hand_over.path = str(path)
        self.send(message)
        try:
            return (await asyncio.wait_for(self._handed_over, ANSWER_WITHIN_S + 2.0)).error
        except (TimeoutError, ConnectionError):
            return "the engine does not answer"

    async def drain_clients(self, deadline_s: float) -> int | None:
        """Waits until the last client has gone; returns the number that are left at the deadline. None: the engine is
        gone or does not answer."""
        if self._closed:
            return None
        self._drained = asyncio.get_running_loop().create_future()
        message = ToEngine()
        message.drain_clients.deadline_ms = round(deadline_s * 1000)
        self.send(message)
        try:
            return (await asyncio.wait_for(self._drained, deadline_s + ANSWER_WITHIN_S)).left
        except (TimeoutError, ConnectionError):
            return None

    def shut_down(self, deadline_s: float) -> None:
        message = ToEngine()
        message.shutdown.deadline_ms = round(deadline_s * 1000)
        self.send(message)

    def close(self) -> None:
        self._closed = True
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        if self._watching is not None:
            self._watching.cancel()
        for waited in (self._configured, self._handed_over, self._drained):
            if waited is not None and not waited.done():
                waited.set_exception(ConnectionError("the engine is gone"))
                waited.exception()  # marks the exception as retrieved
        self._writer.close()


def _answer(waited: asyncio.Future[T] | None, message: T) -> None:
    if waited is not None and not waited.done():
        waited.set_result(message)
