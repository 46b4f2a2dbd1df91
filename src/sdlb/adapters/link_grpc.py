"""Node links over gRPC: the bidirectional stream `sdlb.tree.v1.Tree/Link`.

A parent serves it on a Unix socket of its state folder; the only TCP port of a node is its engine's NODE listener,
which hands the byte streams of children (HTTP/2) through to that socket untouched. A child dials that TCP port.

Every stream has one bounded queue of outgoing messages. When the queue of a slow peer is full, its link is closed; the
next link starts with the full state.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Generic, TypeVar

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # child processes are only started by fork + exec
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from sdlb.adapters.credentials import Credentials, Refused
from sdlb.adapters.hook_program import printable
from sdlb.core.effects import Note
from sdlb.core.events import (
    ChildClosed,
    ChildConnected,
    ChildMessage,
    Event,
    ParentClosed,
    ParentConnected,
    ParentMessage,
)
from sdlb.core.messages import DownMessage, Hello, UpMessage
from sdlb.seams.store import NoteSink
from sdlb.wire import tree

SERVICE, METHOD = "sdlb.tree.v1.Tree", "Link"
MESSAGE_BYTES_MAX = 64 << 20
"""A full state of 100,000 claims is about 20 MB."""
QUEUE_MESSAGES_MAX = 4096
HELLO_WITHIN_S = 10.0
CONNECT_WITHIN_S = 5.0
FLUSH_WITHIN_S = 2.0
LINKS_MAX = 20_000
PING_S = 10.0

_SIZES: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
]
_KEPT: list[tuple[str, int]] = [
    ("grpc.max_metadata_size", 8192),
    ("grpc.keepalive_time_ms", int(PING_S * 1000)),
    ("grpc.keepalive_timeout_ms", int(PING_S * 1000)),
    ("grpc.http2.max_pings_without_data", 0),
]
_SERVER = [
    *_SIZES,
    *_KEPT,
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.http2.max_ping_strikes", 5),
]
DIALED: list[tuple[str, int]] = [
    *_SIZES,
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # each dial makes a new connection, without the backoff of an older one
]
_CLIENT = [*DIALED, *_KEPT, ("grpc.keepalive_permit_without_calls", 0)]

M = TypeVar("M")
Post = Callable[[Event], None]


class _Outbox(Generic[M]):
    """The messages to be sent on one stream. `None` ends it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[M | None] = asyncio.Queue(QUEUE_MESSAGES_MAX)

    def put(self, message: M | None) -> bool:
        """Queues a message. False: the queue is full, because the peer does not read."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            return False
        return True

    async def __aiter__(self) -> AsyncIterator[M]:
        while (message := await self._queue.get()) is not None:
            yield message


# ------------------------------------------------------------------ children


class GrpcChildren:
    """The parent's side. `socket_path` is made by gRPC in a folder that only this user may enter."""

    def __init__(self, socket_path: str, post: Post, report: NoteSink, credentials: Credentials) -> None:
        self._path = socket_path
        self._credentials = credentials
        self._post = post
        self._report = report
        self._numbers = itertools.count(1)
        self._links: dict[int, tuple[_Outbox[DownMessage], asyncio.Task[Any]]] = {}
        self._server: grpc.aio.Server | None = None
        self.calls: dict[str, Any] = {}
        """Further methods of the service, by name. Set before `start`."""

    async def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        server = grpc.aio.server(options=_SERVER)
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve, request_deserializer=bytes, response_serializer=tree.encode_down
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler, **self.calls}),)
        )
        server.add_insecure_port(f"unix:{self._path}")
        await server.start()
        os.chmod(self._path, 0o600)
        self._server = server

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await context.send_initial_metadata(())
        try:
            hello = tree.decode_up(await asyncio.wait_for(anext(requests), HELLO_WITHIN_S))
        except (TimeoutError, StopAsyncIteration):
            return
        except tree.DecodeError as error:
            self._report(
                Note("protocol", f"a child link was closed: its first message cannot be read: {error}", "warning")
            )
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the first message cannot be read: {error}")
            return
        if not isinstance(hello, Hello):
            self._report(Note("protocol", "a child link was closed: its first message is not a Hello", "warning"))
            return
        why = self._credentials.refuse(context.peer(), hello.node)
        if why:
            text = f"a link from a child that claims to be {hello.node} was refused: {why}"
            self._report(Note("impostor", text, "error", {"child": hello.node}))
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"the link from {hello.node} was refused: {why}")
        if len(self._links) >= LINKS_MAX:
            self._report(
                Note(
                    "too-many-links",
                    f"the link from {hello.node} was refused: {LINKS_MAX} links are already open",
                    "error",
                )
            )
            return
        link = next(self._numbers)
        outbox: _Outbox[DownMessage] = _Outbox()
        reader = asyncio.create_task(self._read(link, hello.node, requests), name=f"link {link}")
        self._links[link] = (outbox, reader)
        self._post(ChildConnected(link, hello))
        writer = asyncio.create_task(_write(outbox, context.write), name=f"link {link} out")
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if link not in self._links and not writer.done():  # dropped by `drop`: the queued messages are still sent
                await asyncio.wait((writer,), timeout=FLUSH_WITHIN_S)
        finally:
            reader.cancel()
            writer.cancel()
            if self._links.pop(link, None) is not None:
                self._post(ChildClosed(link))

    async def _read(self, link: int, child: str, requests: AsyncIterator[bytes]) -> None:
        """Reads until the stream ends or the child sends an invalid message, which closes its link."""
        async for raw in requests:
            if link not in self._links:
                return
            try:
                message = tree.decode_up(raw)
            except tree.DecodeError as error:
                text = f"{child} sent an invalid message, its link is closed: {error}"
                self._report(Note("protocol", text, "error", {"child": child}))
                return
            self._post(ChildMessage(link, message))

    def send(self, link: int, message: DownMessage) -> None:
        found = self._links.get(link)
        if found is not None and not found[0].put(message):
            self._report(Note("link-slow", f"child link {link} does not read; it is closed", "warning"))
            del self._links[link]
            found[1].cancel()
            self._post(ChildClosed(link))

    def drop(self, link: int) -> None:
        found = self._links.pop(link, None)
        if found is not None:
            found[0].put(None)
            found[1].cancel()

    async def close(self) -> None:
        for link in list(self._links):
            self.drop(link)
        if self._server is not None:
            await self._server.stop(0.5)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


async def _write(outbox: _Outbox[Any], write: Callable[[Any], Any]) -> None:
    async for message in outbox:
        await write(message)


# ------------------------------------------------------------------ parents


class GrpcParents:
    """The child's side. `data_address(parent)`: the address at which that parent reaches this node's engine."""

    def __init__(
        self, post: Post, report: NoteSink, credentials: Credentials, data_address: Callable[[str], str]
    ) -> None:
        self._post = post
        self._report = report
        self._credentials = credentials
        self._data_address = data_address
        self._links: dict[str, tuple[_Outbox[UpMessage], asyncio.Task[None]]] = {}
        self._warned: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def dial(self, parent: str) -> None:
        self.hang_up(parent)
        outbox: _Outbox[UpMessage] = _Outbox()
        task = asyncio.create_task(self._live(parent, outbox), name=f"link to {parent}")
        self._links[parent] = (outbox, task)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def send(self, parent: str, message: UpMessage) -> None:
        found = self._links.get(parent)
        if found is not None and not found[0].put(message):
            del self._links[parent]
            found[1].cancel()
            self._post(ParentClosed(parent, "the parent does not read"))

    def hang_up(self, parent: str) -> None:
        found = self._links.pop(parent, None)
        if found is not None and not found[0].put(None):
            found[1].cancel()

    async def close(self) -> None:
        for parent in list(self._links):
            self.hang_up(parent)
        if self._closing:
            _, late = await asyncio.wait(list(self._closing), timeout=FLUSH_WITHIN_S)
            for task in late:
                task.cancel()

    def _current(self, parent: str, outbox: _Outbox[UpMessage]) -> bool:
        found = self._links.get(parent)
        return found is not None and found[0] is outbox

    async def _live(self, parent: str, outbox: _Outbox[UpMessage]) -> None:
        detail = "the parent closed the link"
        try:
            await self._credentials.check(parent)
            await self._talk(parent, outbox)
        except Refused as error:
            detail = str(error)
        except TimeoutError:
            detail = f"no connection within {CONNECT_WITHIN_S:g} s"
        except grpc.aio.AioRpcError as error:
            detail = _reason(error)
        except tree.DecodeError as error:
            detail = f"it sent an invalid message: {error}"
            self._report(Note("protocol", f"{parent} sent an invalid message: {error}", "error", {"parent": parent}))
        except OSError as error:
            detail = str(error)
        if self._current(parent, outbox):
            del self._links[parent]
            self._post(ParentClosed(parent, detail))

    async def _talk(self, parent: str, outbox: _Outbox[UpMessage]) -> None:
        channel = open_channel(parent, self._credentials, _CLIENT)
        try:
            method = channel.stream_stream(
                f"/{SERVICE}/{METHOD}", request_serializer=tree.encode_up, response_deserializer=bytes
            )
            call: Any = method()
            await asyncio.wait_for(call.wait_for_connection(), CONNECT_WITHIN_S)
            if not self._current(parent, outbox):
                return
            self._warn(parent)
            self._post(ParentConnected(parent, self._data_address(parent)))
            writer = asyncio.create_task(_write_all(outbox, call), name=f"link to {parent} out")
            reader = asyncio.create_task(self._read(parent, outbox, call), name=f"link to {parent} in")
            try:
                await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
                if reader.done():
                    reader.result()
                else:  # this node hangs up: the parent reads what was sent, then ends the stream
                    await asyncio.wait((reader,), timeout=FLUSH_WITHIN_S)
            finally:
                reader.cancel()
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await asyncio.gather(reader, writer, return_exceptions=True)
        finally:
            await channel.close(0)

    async def _read(self, parent: str, outbox: _Outbox[UpMessage], call: Any) -> None:
        """Raises DecodeError."""
        async for raw in call:
            if self._current(parent, outbox):
                self._post(ParentMessage(parent, tree.decode_down(raw)))

    def _warn(self, parent: str) -> None:
        if self._credentials.note and parent not in self._warned:
            self._warned.add(parent)
            text = f"the link to {parent} is {self._credentials.note}"
            self._report(Note("insecure-link", text, "warning", {"parent": parent}))


def open_channel(
    address: str, credentials: Credentials, options: Sequence[tuple[str, int]], name: str = ""
) -> grpc.aio.Channel:
    """To a node listener ("HOST:PORT"). `name`: the one that its certificate must have; "": the host."""
    secret = credentials.channel()
    host = address.rpartition(":")[0]
    scheme = "ipv6:" if host.startswith("[") else "ipv4:" if host.replace(".", "").isdigit() else "dns:///"
    target = f"{scheme}{address}"
    if secret is None:
        return grpc.aio.insecure_channel(target, options=options)
    named = [("grpc.ssl_target_name_override", name)] if name else []
    return grpc.aio.secure_channel(target, secret, options=[*options, *named])


async def _write_all(outbox: _Outbox[UpMessage], call: Any) -> None:
    await _write(outbox, call.write)
    await call.done_writing()


def _reason(error: grpc.aio.AioRpcError) -> str:
    details = (error.details() or error.code().name).splitlines()[0]
    if error.code() is grpc.StatusCode.UNAVAILABLE and "onnection refused" in details:
        return "connection refused"
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return "its certificate is not from a CA that this node trusts, or it has expired"
    if "Hostname Verification Check failed" in details:
        return "its certificate does not name the host in the parent's address"
    return printable(details)[:200]


def address_towards(parent: str, listen: str) -> str:
    """The address at which `parent` reaches a listener: `listen`, or for a wildcard the local address of the route to it."""
    host, _, port = listen.rpartition(":")
    if host.strip("[]") not in ("0.0.0.0", "::"):
        return listen
    to_host, _, to_port = parent.rpartition(":")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        to_host.strip("[]"), int(to_port), type=socket.SOCK_DGRAM
    ):
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            found = str(probe.getsockname()[0])
            return f"[{found}]:{port}" if family == socket.AF_INET6 else f"{found}:{port}"
    return f"127.0.0.1:{port}"
