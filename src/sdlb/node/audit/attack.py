"""Plays the attacks of `attack_rows` against one listener of a node, one connection after the other, through a canary route.

Only addresses of this machine are connected to. What is sent is bounded, and each connection is closed before the next one; so
clients of the node notice nothing.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from msgspec import Struct

from sdlb.node.audit import attack_rows as rows
from sdlb.node.audit.attack_target import QUIET_S, Target, result, say
from sdlb.node.audit.checks import CHECKS, PASS, WARN, Finding

FRAMING, NAMES, HTTP2, TLS = "HTTP/1 framing", "Names, paths, headers", "HTTP/2", "TLS"


def play(target: Target) -> Iterator[Finding]:
    yield from _framing(target)
    yield from _names(target)
    yield from _http2(target)
    if target.tls:
        yield from _tls(target)


# ------------------------------------------------------------------ HTTP/1.1


def _framing(target: Target) -> Iterator[Finding]:
    for row in rows.FRAMING:
        yield result(target, FRAMING, row.name, play_framing(target, row))


def play_framing(target: Target, row: rows.Attack) -> str:
    mark, smuggled = target.mark(), target.mark()
    behind = f"GET {smuggled} HTTP/1.1\r\nHost: {target.host}\r\n\r\n".encode()
    talk = say(target, target.raw(row.raw, mark) + behind)
    if target.canary.received(smuggled.encode()):
        return "a request behind it was forwarded"
    forwarded = target.canary.completed(mark.encode()) if row.streams else target.canary.received(mark.encode())
    if forwarded:
        return "it was forwarded"
    if not talk.statuses or talk.statuses[0] not in row.statuses:
        return f"the answer was {talk.statuses[:1] or 'none'}, expected {' or '.join(map(str, sorted(row.statuses)))}"
    if len(talk.statuses) > 1:
        return "what is behind it was answered"
    return "" if talk.closed else "the connection was kept"


def _names(target: Target) -> Iterator[Finding]:
    if target.public:
        for path in rows.ENCODED_PATHS:
            talk = say(target, f"GET {target.mark()}{path} HTTP/1.1\r\nHost: {target.host}\r\n\r\n".encode(), answers=1)
            wrong = "" if talk.statuses == [400] else f"the answer was {talk.statuses}, expected 400"
            yield result(target, NAMES, f"encoded path {path}", wrong)
    for name, value in rows.FORGED.items():
        if target.forges and (target.public or name[1] not in "_."):
            yield result(target, NAMES, f"forged field {name}", play_forged(target, name, value))
    if target.tls:
        data = f"GET {target.mark()} HTTP/1.1\r\nHost: other.invalid\r\n\r\n".encode()
        statuses = say(target, data, answers=1).statuses
        wrong = "" if statuses in ([421], [404]) else f"the answer was {statuses}, expected 421"
        yield result(target, NAMES, "another host than in the TLS handshake", wrong)


def play_forged(target: Target, name: str, value: bytes) -> str:
    mark = target.mark()
    start = f"GET {mark} HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n{name}: ".encode()
    talk = say(target, start + value + b"\r\n\r\n")
    seen = target.canary.completed(mark.encode())
    if talk.statuses == [400]:
        return "it was forwarded" if seen else ""
    if talk.statuses != [200] or not seen:
        return f"the answer was {talk.statuses}, expected 200"
    fields = seen[0].partition(b"\r\n")[2].lower()
    return "the endpoint saw it" if any(evil in fields for evil in rows.EVIL) else ""


# ------------------------------------------------------------------ HTTP/2


def _http2(target: Target) -> Iterator[Finding]:
    if not serves_http2(target):
        yield Finding("attacks", PASS, f"{target.listener}: {HTTP2}", "not spoken here", CHECKS["attacks"].why)
        return
    for name, fields in rows.HTTP2_HEADS.items():
        yield result(target, HTTP2, name, _play_head(target, fields))
    get, post = (_block(target, rows.head(method=method), target.mark()) for method in ("GET", "POST"))
    for name, flood in rows.http2_floods(get, post).items():
        yield result(target, HTTP2, f"flood: {name}", _play_flood(target, flood))
        target.canary.forget()


def _block(target: Target, fields: list[rows.Field], mark: str) -> bytes:
    def own(name: str, value: str) -> str:
        if name == ":scheme":
            return "https" if target.tls else "http"
        return value.replace("/MARK", mark).replace("MARK", mark[1:]).replace("www.example", target.host)

    return rows.block([(name, own(name, value)) for name, value in fields])


def serves_http2(target: Target) -> bool:
    mark = target.mark()
    _ask(target, rows.head(), mark)
    return bool(target.canary.completed(mark.encode()))


def _ask(target: Target, fields: list[rows.Field], mark: str) -> _Heard:
    head = rows.frame(rows.HEADERS, rows.END_STREAM | rows.END_HEADERS, 1, _block(target, fields, mark))
    return _exchange(target, rows.Flood(b"", head, 1), answers=True)


class _Heard(Struct):
    """`closed`: the listener has closed the connection, or said that it does (GOAWAY). `answered`: the stream 1 has an answer, or was
    reset. `served`: with the status 200."""

    closed: bool = False
    answered: bool = False
    served: bool = False

    def take(self, kind: int, stream: int, payload: bytes) -> None:
        self.closed |= kind == rows.GOAWAY
        self.answered |= stream == 1 and kind in (rows.HEADERS, rows.RST_STREAM)
        # 200 has an index of its own (RFC 7541, appendix A); a change of the table's size may come before it.
        self.served |= kind == rows.HEADERS and b"\x88" in payload[:4]


def _exchange(target: Target, sent: rows.Flood, *, answers: bool) -> _Heard:
    """Sends the frames, then reads until the connection is closed, or with `answers` until stream 1 is answered."""
    heard = _Heard()
    try:
        connection = target.dial("h2")
    except OSError:
        return heard
    with connection:
        with contextlib.suppress(OSError):  # it was closed: what it sent before can still be read
            connection.sendall(rows.PREFACE + rows.frame(rows.SETTINGS, 0, 0) + sent.opens)
            for _ in range(sent.times):
                connection.sendall(sent.piece)
        rest, until = b"", time.monotonic() + QUIET_S
        while time.monotonic() < until and not heard.closed and not (answers and heard.answered):
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                break
            except OSError:
                piece = b""
            if not piece:
                heard.closed = True
                break
            rest += piece
            while len(rest) >= 9 and len(rest) >= 9 + (size := int.from_bytes(rest[:3], "big")):
                heard.take(rest[3], int.from_bytes(rest[5:9], "big"), rest[9 : 9 + size])
                rest = rest[9 + size :]
    return heard


def _play_head(target: Target, fields: list[rows.Field]) -> str:
    mark = target.mark()
    heard = _ask(target, fields, mark)
    if target.canary.received(mark[1:].encode()):
        return "it was forwarded"
    if heard.served:
        return "it was served"
    return "" if heard.answered or heard.closed else "there was no answer"


def _play_flood(target: Target, flood: rows.Flood) -> str:
    return "" if _exchange(target, flood, answers=False).closed else "the connection was kept"


# ------------------------------------------------------------------ TLS


def hellos(target: Target) -> dict[str, rows.Hello]:
    """Those that the target must refuse as it is set up."""
    found = rows.HELLOS
    if target.every_name:
        found = {name: hello for name, hello in found.items() if hello.name == b"CANARY"}
    return {name: hello for name, hello in found.items() if not (target.dhe and name == rows.FINITE_FIELD)}


def finite_field(target: Target) -> Finding:
    """What a site with `dhe = true` offers; only a certificate with an RSA key can be used with it."""
    setting, why = f"{target.listener}: {TLS}: {rows.FINITE_FIELD}", CHECKS["attacks"].why
    if _shakes(target, rows.HELLOS[rows.FINITE_FIELD]):
        seen = "the handshake was continued, as a site with dhe = true offers: a few clients can use up the CPU (CVE-2002-20001)"
        return Finding("attacks", WARN, setting, seen, why, "remove dhe = true from the site")
    return Finding("attacks", PASS, setting, "no effect, although a site has dhe = true", why)


def _tls(target: Target) -> Iterator[Finding]:
    if not _shakes(target, rows.HELLO):
        seen = "not played: the listener answers no handshake of TLS 1.2 with ECDHE"
        yield Finding(
            "attacks", WARN, f"{target.listener}: {TLS}", seen, CHECKS["attacks"].why, "correct the certificate"
        )
        return
    for name, hello in hellos(target).items():
        wrong = "the handshake was continued" if _shakes(target, hello) else ""
        yield result(target, TLS, name, wrong)
    if target.dhe:
        yield finite_field(target)


def _shakes(target: Target, hello: rows.Hello) -> bool:
    """Whether a ServerHello comes."""
    with socket.create_connection(target.address, timeout=QUIET_S) as connection:
        try:
            connection.sendall(hello.record(target.host.encode()))
            return connection.recv(1) == b"\x16"
        except OSError:
            return False
