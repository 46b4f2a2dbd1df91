"""The request of one health check, and which answers are healthy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdlb.model.instance import HealthCheck
from sdlb.node.probe import is_among, probe


@contextlib.asynccontextmanager
async def server(answer: bytes, path: str = "", host: str = "127.0.0.1") -> AsyncIterator[tuple[str, list[bytes]]]:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    made = await (asyncio.start_unix_server(serve, path) if path else asyncio.start_server(serve, host, 0))
    async with made:
        if path:
            yield f"unix:{path}", heads
        else:
            port = made.sockets[0].getsockname()[1]
            yield (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), heads


def check(status: str = "200-399", **fields: object) -> HealthCheck:
    return HealthCheck(kind="http", path="/health", status=status, **fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("answer", "status", "why"),
    [
        ("200", "200-399", ""),
        ("302", "200-399", ""),
        ("404", "200-399", "GET /health answered 404"),
        ("302", "200-299", "GET /health answered 302, not 200-299"),
        ("401", "200,401", ""),
        ("503", "100-199,503", ""),
        ("204", "200", "GET /health answered 204, not 200"),
    ],
)
def test_the_instance_decides_which_answers_are_healthy(answer: str, status: str, why: str) -> None:
    async def run() -> None:
        async with server(f"HTTP/1.1 {answer} x\r\n\r\n".encode()) as (endpoint, _):
            assert await probe(endpoint, check(status)) == why

    asyncio.run(run())


def test_host_is_what_was_set_else_the_endpoint(tmp_path: Path) -> None:
    async def run() -> None:
        async with server(b"HTTP/1.1 200 OK\r\n\r\n") as (endpoint, heads):
            assert await probe(endpoint, check()) == ""
            assert await probe(endpoint, check(host="shop.example")) == ""
        assert [head.split(b"\r\n")[1] for head in heads] == [f"Host: {endpoint}".encode(), b"Host: shop.example"]
        async with server(b"HTTP/1.1 200 OK\r\n\r\n", path=str(tmp_path / "s")) as (endpoint, heads):
            assert await probe(endpoint, check()) == ""
        assert heads[0].split(b"\r\n")[1] == b"Host: localhost"
        async with server(b"HTTP/1.1 200 OK\r\n\r\n", host="::1") as (endpoint, heads):
            assert endpoint.startswith("[::1]:") and await probe(endpoint, check()) == ""

    asyncio.run(run())


def test_a_failed_check_reports_the_systems_message(tmp_path: Path) -> None:
    async def run() -> None:
        assert await probe("127.0.0.1:1", check()) == "cannot connect: Connection refused"
        assert await probe(f"unix:{tmp_path}/none", check()) == "cannot connect: No such file or directory"
        async with server(b"220 smtp\r\n") as (endpoint, _):
            assert await probe(endpoint, check()) == "GET /health was not answered with HTTP"

    asyncio.run(run())


def test_ranges() -> None:
    assert is_among(200, "200") and is_among(250, "100,200-299") and not is_among(300, "200-299,301")
