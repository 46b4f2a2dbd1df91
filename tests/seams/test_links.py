"""Node links over real gRPC on loopback: both sides of `seams.links`, through a splice as in the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sdlb.adapters import link_grpc
from sdlb.adapters.credentials import Insecure, Refused
from sdlb.adapters.link_grpc import GrpcChildren, GrpcParents, address_towards
from sdlb.core import messages as m
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
from sdlb.model.reason import StillRunning
from sdlb.wire import tree
from sdlb.wire import tree_pb2 as pb
from tests.seams.splice import Splice

KEY = m.ClaimKey("web", "1.0.0", "example.com/*")
HELLO = m.Hello("host-1", "id-1", 7, "127.0.0.1:9", 42, ("zone=a",), nonce="n-1", verdicts_digest=1 << 63)
CLAIM = m.Claim(KEY, 10, 2, ("host-1",), 99, (">=1",), m.Stage.OPEN, True, 5, 3, ("id-2",), ("id-2",), 4, 6, lease_s=10)
PATH = m.Path(("edge-1",), ("edge-1",), ("id-2",))
UP: list[m.UpMessage] = [
    m.UpState(1, True, (CLAIM,), (m.Gone(KEY, m.Cause.STOPPED), m.Gone(KEY, m.Cause.LEFT)), roots=("id-2",)),
    m.UpState(2, docs=(m.Doc("policy", "web", 3, "edge-1", b'{"priority":"even"}'), m.Doc("k", "n", 1, "x", b"\xff"))),
    m.Beat(2, 1),
    m.Ask("a1", "PUT", "/v1/policies/web", b"\x00{}", "host-1"),
    m.Bye((KEY,)),
]
DOWN: list[m.DownMessage] = [
    m.Welcome("edge-1", "id-2", 3, PATH, 42, "n-2", 2, verdicts_kept=True),
    m.DownState(
        1,
        True,
        (m.Verdict(KEY, m.WAITING, StillRunning("1.0", 2, ("h",)), "edge-1", 3, ("id-2",), 8, 4),),
        (m.DrainAck(KEY, 9),),
        path=PATH,
    ),
    m.DownState(2, docs=(m.Doc("policy", "web", 1, "x", b"{}"),), path=m.Path(("a", "b"), ("a",))),
    m.Beat(1, 2, has_say=False),
    m.Answer("a1", (m.RootAnswer("edge-1", 200, b"\xff"),), ("edge-2",)),
    m.Refused("older-incarnation", "no", 9),
]


@dataclass
class Side:
    """The events that one side got."""

    events: list[Event] = field(default_factory=list[Event])
    notes: list[Note] = field(default_factory=list[Note])

    async def wait(self, kind: type[Any], count: int = 1) -> list[Any]:
        for _ in range(2000):
            if len(found := [event for event in self.events if isinstance(event, kind)]) >= count:
                return found
            await asyncio.sleep(0.005)
        raise TimeoutError(f"no {kind.__name__} among {self.events}")


@dataclass
class Pair:
    parent: Side
    child: Side
    children: GrpcChildren
    parents: GrpcParents
    splice: Splice

    async def connect(self) -> int:
        """The number of the link, when both sides know of it."""
        self.parents.dial(self.splice.address)
        await self.child.wait(ParentConnected)
        self.parents.send(self.splice.address, HELLO)
        (connected,) = await self.parent.wait(ChildConnected)
        assert connected.hello == HELLO
        return connected.link


@asynccontextmanager
async def pair(folder: Path) -> AsyncGenerator[Pair]:
    above, below = Side(), Side()
    path = str(folder / "links.sock")
    children = GrpcChildren(path, above.events.append, above.notes.append, Insecure())
    await children.start()
    parents = GrpcParents(below.events.append, below.notes.append, Insecure(), lambda parent: f"data of {parent}")
    try:
        async with Splice(path) as splice:
            yield Pair(above, below, children, parents, splice)
            await parents.close()
    finally:
        await parents.close()
        await children.close()


def scenario(test: Callable[[Pair], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def all_of_it() -> None:
            async with pair(tmp_path) as both:
                await test(both)

        asyncio.run(all_of_it())

    run.__name__ = test.__name__
    return run


@scenario
async def test_all_messages_arrive_in_order_and_unchanged(both: Pair) -> None:
    link = await both.connect()
    (connected,) = await both.child.wait(ParentConnected)
    assert connected == ParentConnected(both.splice.address, f"data of {both.splice.address}")
    for up in UP:
        both.parents.send(both.splice.address, up)
    for down in DOWN:
        both.children.send(link, down)
    arrived = await both.parent.wait(ChildMessage, len(UP))
    assert arrived == [ChildMessage(link, message) for message in UP]
    arrived = await both.child.wait(ParentMessage, len(DOWN))
    assert arrived == [ParentMessage(both.splice.address, message) for message in DOWN]


@scenario
async def test_clear_text_is_warned_of_once_for_each_parent(both: Pair) -> None:
    await both.connect()
    both.parents.dial(both.splice.address)
    await both.child.wait(ParentConnected, 2)
    assert [note.code for note in both.child.notes] == ["insecure-link"]


@scenario
async def test_a_child_that_hangs_up_sends_its_last_message(both: Pair) -> None:
    link = await both.connect()
    both.parents.send(both.splice.address, m.Bye())
    both.parents.hang_up(both.splice.address)
    await both.parent.wait(ChildClosed)
    assert both.parent.events[1:] == [ChildMessage(link, m.Bye()), ChildClosed(link)]
    await asyncio.sleep(0.05)
    assert not [event for event in both.child.events if isinstance(event, ParentClosed)], "hung up by ourselves"


@scenario
async def test_a_parent_that_drops_a_link_sends_its_last_message(both: Pair) -> None:
    link = await both.connect()
    both.children.send(link, m.Refused("name-taken", "another"))
    both.children.drop(link)
    await both.child.wait(ParentClosed)
    assert both.child.events[1] == ParentMessage(both.splice.address, m.Refused("name-taken", "another"))
    both.parents.send(both.splice.address, m.Beat(1, 1))
    await asyncio.sleep(0.05)
    assert len(both.parent.events) == 1, "nothing comes of a link that was dropped"


@scenario
async def test_a_broken_link_is_reported_on_both_sides_and_can_be_dialed_again(both: Pair) -> None:
    link = await both.connect()
    both.splice.cut()
    await both.child.wait(ParentClosed)
    assert await both.parent.wait(ChildClosed) == [ChildClosed(link)]
    both.parents.dial(both.splice.address)
    await both.child.wait(ParentConnected, 2)
    both.parents.send(both.splice.address, HELLO)
    connected = await both.parent.wait(ChildConnected, 2)
    assert connected[1].link != link
    assert both.splice.accepted == 2, "a connection of its own, without an old one's back-off"


@scenario
async def test_a_child_that_reads_nothing_is_dropped(both: Pair) -> None:
    link = await both.connect()
    both.splice.freeze()
    big = m.Refused("x", "y" * 10_000)
    for _ in range(link_grpc.QUEUE_MESSAGES_MAX + 1000):
        both.children.send(link, big)
        await asyncio.sleep(0)
        if any(isinstance(event, ChildClosed) for event in both.parent.events):
            break
    assert both.parent.events[-1] == ChildClosed(link)
    assert [note.code for note in both.parent.notes] == ["link-slow"]


@scenario
async def test_a_link_that_does_not_begin_with_hello_is_nothing(both: Pair) -> None:
    both.parents.dial(both.splice.address)
    await both.child.wait(ParentConnected)
    both.parents.send(both.splice.address, m.Beat(1, 1))
    await both.child.wait(ParentClosed)
    assert not both.parent.events


@scenario
async def test_a_parent_that_is_not_there_is_reported(both: Pair) -> None:
    both.parents.dial("127.0.0.1:1")
    (closed,) = await both.child.wait(ParentClosed)
    assert closed == ParentClosed("127.0.0.1:1", "connection refused")


@asynccontextmanager
async def raw_link(both: Pair) -> AsyncGenerator[Any]:
    """A stream on which any bytes can be sent."""
    async with grpc.aio.insecure_channel(f"ipv4:{both.splice.address}") as channel:
        anything: Any = channel
        yield anything.stream_stream(f"/{link_grpc.SERVICE}/{link_grpc.METHOD}")()


@scenario
async def test_a_link_that_begins_with_garbage_is_nothing(both: Pair) -> None:
    link = await both.connect()
    async with raw_link(both) as call:
        await call.write(b"\xff\xff\xff no protobuf")
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be read"):
            await call.read()
    both.children.send(link, m.Beat(1, 1))
    await both.child.wait(ParentMessage)
    assert len([event for event in both.parent.events if isinstance(event, ChildConnected)]) == 1
    assert [note.code for note in both.parent.notes] == ["protocol"]


BAD_UP = {
    "garbage": b"\xff\xff\xff",
    "a huge generation": pb.Up(state=pb.UpState(claims=[pb.Claim(generation=1 << 60)])).SerializeToString(),
    "too many names": pb.Up(state=pb.UpState(hears=pb.Roots(ids=["r"] * 65))).SerializeToString(),
}


@pytest.mark.parametrize("bad", BAD_UP.values(), ids=BAD_UP)
def test_a_bad_message_costs_a_child_its_link_and_the_others_nothing(tmp_path: Path, bad: bytes) -> None:
    async def run() -> None:
        async with pair(tmp_path) as both:
            good = await both.connect()
            async with raw_link(both) as call:
                await call.write(tree.encode_up(m.Hello("host-2", "id-3", 1, "127.0.0.1:8")))
                _, connected = await both.parent.wait(ChildConnected, 2)
                await call.write(bad)
                assert await both.parent.wait(ChildClosed) == [ChildClosed(connected.link)]
                assert await call.read() is grpc.aio.EOF  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
            (note,) = both.parent.notes
            assert (note.code, note.fields) == ("protocol", {"child": "host-2"})
            both.parents.send(both.splice.address, m.Beat(1, 1))
            assert await both.parent.wait(ChildMessage) == [ChildMessage(good, m.Beat(1, 1))]

    asyncio.run(run())


def closed_by(tmp_path: Path, answer: Callable[[Any, Any], AsyncGenerator[bytes]]) -> tuple[str, list[str]]:
    """The reason with which a link to such a parent ends, and the codes of the events."""

    async def run() -> tuple[str, list[str]]:
        below = Side()
        server: Any = grpc.aio.server()
        library: Any = grpc
        handler = library.stream_stream_rpc_method_handler(answer)
        generic = grpc.method_handlers_generic_handler(link_grpc.SERVICE, {link_grpc.METHOD: handler})
        server.add_generic_rpc_handlers((generic,))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        parents = GrpcParents(below.events.append, below.notes.append, Insecure(), lambda parent: "")
        parents.dial(address)
        (closed,) = await below.wait(ParentClosed)
        await parents.close()
        await server.stop(None)
        return closed.detail, [note.code for note in below.notes]

    return asyncio.run(run())


def test_a_parent_that_sends_garbage_is_hung_up(tmp_path: Path) -> None:
    async def garbage(requests: Any, context: Any) -> AsyncGenerator[bytes]:
        yield b"\xff\xff\xff"
        async for _ in requests:
            pass

    detail, codes = closed_by(tmp_path, garbage)
    assert "invalid message" in detail
    assert codes == ["insecure-link", "protocol"]


def test_what_a_parent_gives_as_its_reason_cannot_change_a_terminal(tmp_path: Path) -> None:
    """It goes to the log and to `sdlb tree`."""

    async def refuse(requests: Any, context: Any) -> AsyncGenerator[bytes]:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "go \x1b[2Jaway\x07\u202e!" + "x" * 500)
        yield b""

    detail, _ = closed_by(tmp_path, refuse)
    assert detail.startswith("go  [2Jaway  !xx") and detail.isprintable() and len(detail) == 200


def test_clear_text_goes_to_loopback_and_private_addresses_only() -> None:
    async def check(parent: str) -> None:
        await Insecure().check(parent)

    for parent in ("127.0.0.1:1", "10.1.2.3:1", "192.168.0.1:1", "[::1]:1", "[fd00::1]:1"):
        asyncio.run(check(parent))
    for parent in ("8.8.8.8:1", "[2001:4860:4860::8888]:1"):
        with pytest.raises(Refused, match="unencrypted"):
            asyncio.run(check(parent))


def test_the_address_that_a_parent_is_sent() -> None:
    assert address_towards("127.0.0.1:7700", "127.0.0.1:7711") == "127.0.0.1:7711"
    assert address_towards("127.0.0.1:7700", "0.0.0.0:7711") == "127.0.0.1:7711"
