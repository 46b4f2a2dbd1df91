"""The slow clients of `sdlb audit --attack`, as data. docs/operate/attacks.md lists them."""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Slow(Struct, frozen=True):
    """`opens`: sent at first, with MARK and www.example as in `attack_rows`; `piece`: sent every `PAUSE_S` after that. `limit`: the limit
    after which the connection is closed, and its default in ms. `tls`: before the TLS handshake. `reads`: the client reads;
    otherwise the canary answers with more than the connection can hold."""

    name: str
    opens: bytes
    limit: str
    default_ms: int
    piece: bytes = b""
    tls: bool = False
    reads: bool = True


PAUSE_S: Final = 1.0
WAITING: Final = 50
"""Connections of the first row, all at the same time."""
HELLO_START: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
HALF_HEAD: Final = b"GET MARK HTTP/1.1\r\nHost: www.example\r\n"
POST: Final = b"POST MARK HTTP/1.1\r\nHost: www.example\r\n"
HEAD_MS: Final = ("head_timeout_ms", 10_000)
BODY_MS: Final = ("body_timeout_ms", 30_000)
HANDSHAKE_MS: Final = ("handshake_timeout_ms", 5_000)

SLOW: Final = (
    Slow("half a head", HALF_HEAD, *HEAD_MS),
    Slow("a field each second (slowloris)", HALF_HEAD, *HEAD_MS, piece=b"X: y\r\n"),
    Slow("a byte of the head each second", b"G", *HEAD_MS, piece=b"E"),
    Slow("a body that stops", POST + b"Content-Length: 1000\r\n\r\nhello", *BODY_MS),
    Slow("a chunked body that stops", POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", *BODY_MS),
    Slow("a byte of the body each second", POST + b"Content-Length: 1000\r\n\r\n", *BODY_MS, piece=b"x"),
    Slow("a client that does not read", HALF_HEAD + b"\r\n", *BODY_MS, reads=False),
    Slow("no ClientHello", b"", *HANDSHAKE_MS, tls=True),
    Slow("half a ClientHello", HELLO_START, *HANDSHAKE_MS, tls=True),
    Slow("a byte of the ClientHello each second", HELLO_START, *HANDSHAKE_MS, piece=b"x", tls=True),
)
"""The connection is closed after the limit, with 408 where a response can still be sent. All rows are played at the same time."""
