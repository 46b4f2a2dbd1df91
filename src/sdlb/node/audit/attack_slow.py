"""Plays the slow clients of `slow_rows`, all at the same time and beside the other attacks, because each takes as long as a limit."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from sdlb.node.audit.attack_target import QUIET_S, Target, result
from sdlb.node.audit.checks import CHECKS, PASS, Finding
from sdlb.node.audit.slow_rows import PAUSE_S, SLOW, WAITING, Slow

SECTION = "slow clients"
WAIT_S_MAX = 32.0
"""Rows whose limit is longer are not played: the audit takes less than a minute."""
SLACK_S = 8.0
"""How much later than its limit a connection may be closed on a busy machine."""
RECEIVE_BYTES = 16 * 1024


class SlowAttacks:
    """Begins when it is made; `findings` waits for the end. `limits`: of the node file."""

    def __init__(self, target: Target, limits: Mapping[str, int]) -> None:
        self._target = target
        self._pool = ThreadPoolExecutor(len(SLOW) + 1, "slow attacks")
        self._stop = threading.Event()
        self._played: list[tuple[str, Future[str] | str]] = []
        many = f"{WAITING} half heads at the same time"
        self._played.append((many, self._pool.submit(play_many, target)))
        for row in SLOW:
            limit_ms = limits.get(row.limit, row.default_ms)
            if row.tls and not target.tls:
                continue
            if limit_ms / 1000 > WAIT_S_MAX:
                self._played.append((row.name, f"not played: limits.{row.limit} = {limit_ms} is longer than the audit"))
            else:
                self._played.append((row.name, self._pool.submit(play_slow, target, row, limit_ms / 1000, self._stop)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def findings(self) -> Iterator[Finding]:
        for name, played in self._played:
            if isinstance(played, str):
                setting = f"{self._target.listener}: {SECTION}: {name}"
                yield Finding("attacks", PASS, setting, played, CHECKS["attacks"].why)
            else:
                yield result(self._target, SECTION, name, played.result())


def play_many(target: Target) -> str:
    """Other clients are served while many wait."""
    with contextlib.ExitStack() as opened:
        for _ in range(WAITING):
            try:
                connection = opened.enter_context(target.dial())
            except OSError:
                break  # no more are accepted from this address
            connection.sendall(target.raw(b"GET MARK HTTP/1.1\r\nHost: ", target.mark()))
        return "" if target.reaches_canary() else "no other client was served"


def play_slow(target: Target, row: Slow, limit_s: float, stop: threading.Event) -> str:
    """`stop`: nobody waits for the result."""
    mark = target.mark()
    if not row.reads:
        target.canary.endless(mark.encode())
    until = time.monotonic() + limit_s + SLACK_S
    try:
        connection = socket.create_connection(target.address, QUIET_S) if row.tls else target.dial()
    except OSError:
        return "no connection could be opened"
    with connection:
        if not row.reads:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        with contextlib.suppress(OSError):
            connection.sendall(target.raw(row.opens, mark))
        while time.monotonic() < until and not stop.is_set():
            if _closed(connection, row) if row.reads else _gave_up(target, mark):
                return ""
    return f"still open {limit_s + SLACK_S:g} s later; limits.{row.limit} is {limit_s:g} s"


def _closed(connection: socket.socket, row: Slow) -> bool:
    connection.settimeout(PAUSE_S)
    try:
        if not connection.recv(65536):
            return True
    except TimeoutError:
        pass
    except OSError:
        return True
    if row.piece:
        with contextlib.suppress(OSError):
            connection.sendall(row.piece)
    return False


def _gave_up(target: Target, mark: str) -> bool:
    """Whether the load balancer has closed the endpoint's connection."""
    time.sleep(0.2)
    return target.canary.gave_up(mark.encode())
