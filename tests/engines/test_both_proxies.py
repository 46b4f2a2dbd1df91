"""Proxies in front of an entry, with both engines: their word about clients is believed where the listener trusts it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from sdlb.core.effects import Apply
from sdlb.model.hardening import Hardening
from sdlb.model.site import Site
from sdlb.seams.engine import Listener
from tests.certificates import Authority, needs_openssl
from tests.engines.play import (
    CONFIG,
    WITHIN_S,
    Answer,
    Played,
    answer,
    both,
    endpoints,
    one,
    put,
    route,
    run,
    started,
    upstream,
)

pytestmark = both
TRUSTED = ("127.0.0.0/8", "10.0.0.0/8", "fd00::/8")
V1 = b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 80\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([198, 51, 100, 7, 127, 0, 0, 1]) + struct.pack(">HH", 4711, 80)
V2_MORE = V2[:15] + b"\x10" + V2[16:] + b"\xe0\x00\x01\x09"
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"


@asynccontextmanager
async def entry(
    kind: str, folder: Path, trusted: tuple[str, ...] = TRUSTED, limits: Mapping[str, int] | None = None
) -> AsyncGenerator[Played]:
    hardening = replace(Hardening.preset(False), hsts_s=1000)
    config = replace(
        CONFIG,
        listeners=(Listener("http", "127.0.0.1:0", trusted_proxies=trusted, hardening=hardening),),
        limits=limits or {},
    )
    async with endpoints("a") as (a,), started(kind, folder, config) as played:
        await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
        yield played


async def ask(played: Played, before: bytes = b"", *fields: str, pieces: bool = False) -> Answer | None:
    """None: the connection was closed without an answer."""
    host, _, port = played.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = "".join(f"{field}\r\n" for field in fields)
    raw = before + f"GET /fields HTTP/1.1\r\nhost: example.com\r\n{lines}\r\n".encode()
    try:
        for piece in [raw[at : at + 5] for at in range(0, len(raw), 5)] if pieces else [raw]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        return await answer(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        writer.close()


async def told(played: Played, before: bytes = b"", *fields: str, pieces: bool = False) -> dict[str, list[str]]:
    """The forwarding fields that the endpoint got."""
    got = await ask(played, before, *fields, pieces=pieces)
    assert got is not None and got.status == 200, got
    found: dict[str, list[str]] = {}
    for line in got.body.split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        if "forwarded" in name.lower() or name.lower() == "x-real-ip":
            found.setdefault(name.lower(), []).append(value)
    return found


def of_client(address: str, scheme: str = "http") -> dict[str, list[str]]:
    quoted = f'"[{address}]"' if ":" in address else address
    return {
        "x-forwarded-for": [address],
        "x-real-ip": [address],
        "x-forwarded-proto": [scheme],
        "x-forwarded-host": ["example.com"],
        "forwarded": [f"for={quoted};host=example.com;proto={scheme}"],
    }


def plain(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """HAProxy quotes the host in `Forwarded`, which means the same."""
    return {
        name: [value.replace('host="example.com"', "host=example.com") for value in values]
        for name, values in found.items()
    }


@pytest.mark.parametrize(
    ("noted", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9:99,10.0.0.2"], "203.0.113.9"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["nonsense, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.9x, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.9, , 10.0.0.2"], "203.0.113.9"),
        (["[2001:db8::1]:99, fd00::7"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["unknown"], "127.0.0.1"),
        ([", ".join(["203.0.113.9"] + ["10.0.0.2"] * 9)], "203.0.113.9"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxy(
    kind: str, tmp_path: Path, noted: list[str], client: str
) -> None:
    async def scenario() -> None:
        async with entry(kind, tmp_path) as played:
            fields = [f"X-Forwarded-For: {value}" for value in noted]
            assert plain(await told(played, b"", *fields)) == of_client(client)

    run(scenario)


@pytest.mark.parametrize(
    ("noted", "scheme"),
    [
        (["HTTPS"], "https"),
        (["http"], "http"),
        (["ftp"], "http"),
        (["https", "http"], "http"),
        (["http, https"], "http"),
    ],
)
def test_the_scheme_is_what_the_last_proxy_says(kind: str, tmp_path: Path, noted: list[str], scheme: str) -> None:
    async def scenario() -> None:
        async with entry(kind, tmp_path) as played:
            fields = [f"X-Forwarded-Proto: {value}" for value in noted]
            got = await ask(played, b"", *fields)
            assert got is not None
            assert f"x-forwarded-proto: {scheme}\r\n" in got.body
            assert got.fields.get("strict-transport-security") == ("max-age=1000" if scheme == "https" else None)

    run(scenario)


def test_nobody_else_is_believed(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with entry(kind, tmp_path, ("192.0.2.0/24",)) as played:
            forged = (
                "X-Forwarded-For: 192.0.2.1",
                "X-Forwarded-Proto: https",
                "X-Real-IP: 192.0.2.1",
                "Forwarded: for=192.0.2.1",
            )
            assert plain(await told(played, b"", *forged)) == of_client("127.0.0.1")
            for header in (V1, V2, b"PROXY TCP4 nonsense\r\n"):
                got = await ask(played, header)
                assert got is None or got.status == 400

    run(scenario)


@pytest.mark.parametrize("header", [V1, V2, V2_MORE], ids=["version 1", "version 2", "version 2 with more"])
@pytest.mark.parametrize("pieces", [False, True])
def test_the_proxy_protocol_names_the_client(kind: str, tmp_path: Path, header: bytes, pieces: bool) -> None:
    """Whom it names is believed no further."""

    async def scenario() -> None:
        async with entry(kind, tmp_path) as played:
            forged = ("X-Forwarded-For: 203.0.113.1", "X-Forwarded-Proto: https")
            assert plain(await told(played, header, *forged, pieces=pieces)) == of_client("198.51.100.7")
            assert await ask(played, b"PROXY TCP4 nonsense\r\n") is None

    run(scenario)


@pytest.mark.parametrize("header", [V2_LOCAL, b"PROXY UNKNOWN\r\n"], ids=["version 2", "version 1"])
def test_a_proxy_may_check_the_node(kind: str, tmp_path: Path, header: bytes) -> None:
    async def scenario() -> None:
        async with entry(kind, tmp_path) as played:
            # HAProxy does not know whose check it is.
            assert plain(await told(played, header)) == of_client("127.0.0.1" if kind == "native" else "0.0.0.0")

    run(scenario)


def test_limits_are_those_of_the_client(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        limits = {"requests_per_s_per_address": 2, "connections_per_address": 3}
        async with entry(kind, tmp_path, limits=limits) as played:
            for number in range(12):
                assert await told(played, b"", f"X-Forwarded-For: 203.0.113.{number}")
            got = await asyncio.gather(*(ask(played, b"", "X-Forwarded-For: 203.0.113.99") for _ in range(12)))
            assert [each.status for each in got if each is not None].count(429) >= 6
            host, _, port = played.address.rpartition(":")
            held = [socket.create_connection((host, int(port)), WITHIN_S) for _ in range(8)]
            try:
                for each in held:
                    each.sendall(V1)

                def closed() -> int:
                    found = 0
                    for each in held:
                        each.setblocking(False)
                        try:
                            found += each.recv(1) == b""
                        except BlockingIOError:
                            pass
                        except ConnectionError:
                            found += 1
                    return found

                await played.until(lambda: closed() >= 5, "five are too many of one client")
                assert closed() == 5
                assert await told(played, b"", "X-Forwarded-For: 203.0.113.77"), "the proxy itself has no such limit"
            finally:
                for each in held:
                    each.close()

    run(scenario)


@needs_openssl
def test_over_tls_the_header_stands_before_the_handshake(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path / "ca")
        leaf = authority.issue("example.com")
        (tmp_path / "node").mkdir()
        async with endpoints("a") as (a,), started(kind, tmp_path / "node") as played:
            await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
            played.engine.sites.put([Site("a", ("example.com",), (leaf.pem.encode(),))])
            await played.until(lambda: bool(played.states), "site")
            listener = Listener("https", "127.0.0.1:0", tls=True, trusted_proxies=TRUSTED)
            assert await played.engine.configure(replace(CONFIG, listeners=(listener,))) == ""
            host, _, port = played.engine.stats.bound["https"].rpartition(":")
            context = ssl.create_default_context(cafile=str(authority.pem))

            def asked(header: bytes) -> bytes:
                with socket.create_connection((host, int(port)), WITHIN_S) as raw:
                    raw.sendall(header)
                    with context.wrap_socket(raw, server_hostname="example.com") as client:
                        client.sendall(b"GET /fields HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n\r\n")
                        return b"".join(iter(lambda: client.recv(65_536), b"")).lower()

            for header, expected in ((V2, b"198.51.100.7"), (b"", b"127.0.0.1")):
                got = await asyncio.to_thread(asked, header)
                assert b"\r\nx-forwarded-for: " + expected + b"\r\n" in got
                assert b"\r\nx-forwarded-proto: https\r\n" in got

    run(scenario)
