"""Plays the misbehaving endpoints of `endpoint_rows`: the canary answers so, and a client must not be harmed by it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from sdlb.node.audit.attack_target import QUIET_S, Target, result
from sdlb.node.audit.checks import Finding
from sdlb.node.audit.endpoint_rows import ENDPOINTS, Answer

SECTION = "misbehaving endpoints"
EJECTED_S = 10.0
"""How long the canary may be ejected after a broken response."""
BYTES_MAX = 1 << 20


def play_endpoints(target: Target) -> Iterator[Finding]:
    for row in ENDPOINTS:
        yield result(target, SECTION, row.name, play_answer(target, row))


def play_answer(target: Target, row: Answer) -> str:
    mark = target.mark()
    target.canary.script(mark.encode(), row)
    raw, closed = _get(target, mark)
    if b"poison" in raw:
        return "the client got a response that it did not request"
    statuses = [int(part[:3]) for part in raw.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    final = [status for status in statuses if status >= 200 or status == 101]
    if row.cut and closed and not final:
        return _next(target)  # the head of the response was still held
    if len(final) != 1 or final[0] not in row.statuses:
        return f"the client got {final or 'nothing'}, expected {' or '.join(map(str, sorted(row.statuses)))}"
    if row.cut and final == [200] and not (closed and cut_off(raw)):
        return "the client got a whole response"
    if row.later:
        target.canary.wait_for_later(mark.encode())
    return _next(target)


def cut_off(raw: bytes) -> bool:
    """Whether a response to the client shows that it is not complete."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if b"\r\ntransfer-encoding:" in head.lower():
        return not body.endswith(b"0\r\n\r\n")
    return b"\r\ncontent-length: 100" in head.lower() and len(body) < 100


def _next(target: Target) -> str:
    """The next requests are served, with their own responses."""
    until = time.monotonic() + EJECTED_S
    while True:
        raw, _ = _get(target, target.mark())
        if b"poison" in raw:
            return "the next client got its response"
        if raw.startswith(b"HTTP/1.1 200 ") and raw.endswith(b"ok"):
            return ""
        if time.monotonic() > until:
            return f"the next request got {raw[:12].decode('latin-1') or 'no response'}"
        time.sleep(0.2)


def _get(target: Target, mark: str) -> tuple[bytes, bool]:
    """What came, and whether the listener closed."""
    raw = b""
    with contextlib.suppress(OSError), target.dial() as connection:
        connection.sendall(f"GET {mark} HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n\r\n".encode())
        connection.settimeout(QUIET_S)
        while len(raw) < BYTES_MAX:
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                return raw, False
            if not piece:
                break
            raw += piece
    return raw, True
