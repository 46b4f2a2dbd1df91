"""Requests that may not reach an endpoint as they are, with both engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sdlb.core.effects import Apply
from tests.engines.play import (
    WEBSOCKET,
    Answer,
    Endpoint,
    Played,
    answer,
    both,
    connect,
    endpoints,
    one,
    put,
    route,
    run,
    started,
    upstream,
)

pytestmark = both
H2C = "connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\nupgrade: "
KEY = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@asynccontextmanager
async def entry(kind: str, folder: Path) -> AsyncGenerator[Played]:
    async with endpoints("a") as (a,), started(kind, folder) as played:
        await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
        yield played


async def raw(played: Played, head: str) -> Answer:
    reader, writer = await connect(played.address)
    try:
        writer.write(head.encode())
        return await answer(reader)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "protocol", ["h2c", "H2C", "h2c, websocket", "websocket\r\nupgrade: h2c", "HTTP/2.0", "TLS/1.0"]
)
def test_an_upgrade_to_http_again_is_a_plain_request(kind: str, tmp_path: Path, protocol: str) -> None:
    """A tunnel of HTTP/2 would carry requests past every rule of the node."""

    async def scenario() -> None:
        async with entry(kind, tmp_path) as played:
            got = await played.ask(path="/fields", fields=f"{H2C}{protocol}\r\n{KEY}")
            assert got.status == 200
            head = got.body.lower()
            assert "h2c" not in head and "http2-settings:" not in head, head
            if "upgrade: websocket" in head:  # of several, HAProxy 3.4 leaves this one
                assert "websocket" in protocol
                return
            assert "upgrade" not in head and "http2-settings" not in head, head
            # An endpoint that changes the protocol all the same.
            assert (await played.ask(path="/echo", fields=f"{H2C}{protocol}\r\n{KEY}")).status == 502

    run(scenario)


def test_a_websocket_is_an_upgrade(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with entry(kind, tmp_path) as played:
            reader, writer = await connect(played.address)
            writer.write(
                b"GET /echo HTTP/1.1\r\nhost: example.com\r\n"
                + WEBSOCKET.replace(b"websocket\r", b"WebSocket\r")
                + b"\r\n"
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.write(b"one")
            assert await asyncio.wait_for(reader.readexactly(3), 10) == b"one"
            writer.close()

    run(scenario)


class Chunked(Endpoint):
    """Keeps the request with its chunks and trailers."""

    request = b""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while data := await reader.read(1000):
                self.request += data
                if b"\r\n0\r\n" in self.request and self.request.endswith(b"\r\n\r\n"):
                    writer.write(b"HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                    break


def test_trailers_have_no_fields_that_an_entry_removes(kind: str, tmp_path: Path) -> None:
    """Older versions of HAProxy pass them on; the node reports that."""

    async def scenario() -> None:
        a = Chunked("a")
        await a.start()
        async with started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
            fields = "x_forwarded_for: 9.9.9.9\r\nx-forwarded-proto: forged\r\nsdlb-to: forged\r\n"
            head = "POST / HTTP/1.1\r\nhost: example.com\r\ntransfer-encoding: chunked\r\n\r\n"
            assert (await raw(played, f"{head}1\r\nx\r\n0\r\n{fields}\r\n")).status == 200
            passed = b"9.9.9.9" in a.request or b"forged" in a.request
            said = {each.instead for each in played.engine.degraded() if each.what == "trailers of requests"}
            assert passed == any("passed on" in instead for instead in said), a.request
            assert kind == "haproxy" or not passed
        await a.stop()

    run(scenario)


def test_a_request_that_passed_this_node_before_is_a_loop(kind: str, tmp_path: Path) -> None:
    """Another node of the same name is another one."""

    async def scenario() -> None:
        async with entry(kind, tmp_path) as played:
            got = await played.ask(path="/fields", fields="via: 1.1 n, 1.0 fred (n)\r\n")
            assert got.status == 200
            own = [line for line in got.body.split("\r\n") if line.lower().startswith("via: ")][-1].split()[-1]
            assert own.startswith("n-")
            for via in (f"1.1 {own}", f"1.0 fred, HTTP/1.1 {own} (x)\r\nvia: 1.1 m", f"2  {own}"):
                assert (await played.ask(fields=f"via: {via}\r\n")).status == 508, via
            for other in (f"{own}0", own.upper(), f"x{own}", f"m ({own})"):
                assert (await played.ask(fields=f"via: 1.1 {other}\r\n")).status == 200, other
            hops = ["1.1 m"] * 16
            assert (await played.ask(fields=f"via: {', '.join(hops)}\r\n")).status == 200
            assert (await played.ask(fields=f"via: {', '.join(hops)}\r\nvia: 1.1 m\r\n")).status == 508

    run(scenario)


def test_ranges_methods_and_versions_have_bounds(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with entry(kind, tmp_path) as played:
            for count, status in ((64, 200), (65, 416)):
                fields = f"range: bytes={','.join(['0-1'] * count)}\r\n"
                assert (await played.ask(fields=fields)).status == status
            for method, status in (("M" * 32, 200), ("M" * 33, 400), ("get", 400), ("A-1_B", 200), ("1A", 400)):
                assert (await played.ask(method=method)).status == status, method
            for version, status in (("1.1", 200), ("2.0", 505), ("1.2", 505), ("3.0", 505)):
                got = await raw(played, f"GET / HTTP/{version}\r\nhost: example.com\r\n\r\n")
                assert got.status == status, version

    run(scenario)
