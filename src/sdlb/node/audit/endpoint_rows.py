"""The misbehaving endpoints of `sdlb audit --attack`, as data: what the canary answers. docs/operate/attacks.md lists them."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

POISON: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
"""A response that nobody requested: no client may see it."""
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSED: Final = frozenset({502})


class Answer(Struct, frozen=True):
    """`raw`: what the endpoint answers, and `later` a moment after that. `statuses`: what the client may get; `closes`: the endpoint
    closes the connection then. `cut`: the response has no end, and the client must not get one."""

    name: str
    raw: bytes
    statuses: frozenset[int] = REFUSED
    closes: bool = False
    cut: bool = False
    later: bytes = b""


def _head(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", body: bytes = b"ok") -> bytes:
    return b"".join(line + b"\r\n" for line in (first, *lines)) + b"\r\n" + body


TWO: Final = b"Content-Length: 2"
CHUNKED: Final = b"Transfer-Encoding: chunked"
SERVED: Final = frozenset({200})
SERVED_OR_REFUSED: Final = frozenset({200, 502})

ENDPOINTS: Final = (
    Answer("both lengths", _head(TWO, CHUNKED, body=b"0\r\n\r\n")),
    Answer("two different lengths", _head(TWO, b"Content-Length: 3", body=b"okk")),
    Answer("negative length", _head(b"Content-Length: -2")),
    Answer("unknown coding", _head(b"Transfer-Encoding: gzip")),
    Answer("chunked twice", _head(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    Answer("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    Answer("NUL in a field", _head(b"X: a\x00b", TWO)),
    Answer("bare CR in a field", _head(b"X: a\rSet-Cookie: b", TWO)),
    Answer("no colon", _head(b"nonsense", TWO)),
    Answer("space before the colon", _head(b"Content-Length : 2")),
    Answer("a status of letters", _head(TWO, first=b"HTTP/1.1 fine OK")),
    Answer("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    Answer("binary", bytes(range(256)) * 8),
    Answer("101 that was not requested", _head(b"Upgrade: x", first=b"HTTP/1.1 101 Switching Protocols", body=POISON)),
    Answer("a head over 1 MiB", _head(b"X: " + b"y" * 1_100_000, TWO)),
    Answer("20,000 fields", _head(*[b"X: y"] * 20_000, TWO)),
    Answer("interim responses without end", _head(first=b"HTTP/1.1 103 Early Hints", body=b"") * 50_000),
    Answer("closed without a response", b"", closes=True),
    Answer("closed within the head", b"HTTP/1.1 200 OK\r\nContent-Le", closes=True),
    Answer("closed within the body", _head(b"Content-Length: 100", body=b"half"), SERVED_OR_REFUSED, closes=True, cut=True),
    Answer("closed within a chunk", _head(CHUNKED, body=b"64\r\nhalf"), SERVED_OR_REFUSED, closes=True, cut=True),
    Answer("a chunk size of letters", _head(CHUNKED, body=b"4\r\nhalf\r\nzz\r\n"), SERVED_OR_REFUSED, cut=True),
    Answer("a chunk without CRLF behind", _head(CHUNKED, body=b"4\r\nhalfX\r\n0\r\n\r\n"), SERVED_OR_REFUSED, cut=True),
    Answer("a longer body than announced", _head(TWO) + POISON, SERVED_OR_REFUSED),
    Answer("a second response", OK + POISON, SERVED_OR_REFUSED),
    Answer("204 with a body", _head(first=b"HTTP/1.1 204 No Content", body=POISON), frozenset({204, 502})),
    Answer("bytes after the last chunk", _head(CHUNKED, body=b"2\r\nok\r\n0\r\n\r\n") + POISON, SERVED_OR_REFUSED),
    Answer("a response without a request, later", OK, SERVED, later=POISON),
)  # fmt: skip
"""The client gets 502, or a response that is cut off; nothing of it reaches the next request."""
