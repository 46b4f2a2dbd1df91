"""The demo's load generator: a process of its own, so that the demo does not disturb its measurements.

    python -m sdlb.cli.demo.load 127.0.0.1:20080 127.0.0.1:20081

It sends requests at a bounded rate over keep-alive connections to all entries, round robin; a late response does not delay
the next request. It checks every response completely. It never retries: what a client would lose counts as lost.

Standard input: one JSON object a line, `{"do": ...}` (see `Load.obey`). Standard output: one JSON object a line, the
statistics of all phases five times a second, and a last one with `"done": true` after `{"do": "stop"}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import sys
import time
from collections import deque
from typing import Any

from sdlb.cli.demo.check import Answer, Rules, Tally
from sdlb.cli.demo.http1 import BadResponse, Connection, Response

HOST = "shop.example"
IN_FLIGHT_MAX = 2000
TIMEOUT_S = 40.0
REPORT_S = 0.2
FAILURES_MAX = 20
SLOW_SHARE, POST_SHARE = 0.05, 0.25
"""Shares of slow (chunked) answers and of requests with a body, when the story allows them."""
POST_BYTES_MAX = 32 << 10
MS, S = 1_000_000, 1_000_000_000


class Load:
    def __init__(self, entries: list[tuple[str, int]], rng: random.Random) -> None:
        self._entries = entries
        self._rng = rng
        self._idle: dict[tuple[str, int], deque[Connection]] = {entry: deque() for entry in entries}
        self._rules = Rules()
        self._tallies: dict[str, Tally] = {}
        self._tally = Tally()
        self._failures: deque[str] = deque(maxlen=FAILURES_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._kinds: list[str] = []
        self._rate = 0.0
        self._posts = self._slow = True
        self._count = 0
        self.stopped = asyncio.Event()

    # ------------------------------------------------------------- orders of the story

    def obey(self, order: dict[str, Any]) -> None:
        match order:
            case {"do": "phase", "name": str(name)}:
                self._tally = self._tallies.setdefault(name, Tally())
            case {"do": "start", "service": str(service), "version": str(version), "at_ns": int(at_ns)}:
                self._rules.start(service, version, at_ns)
            case {"do": "end", "service": str(service), "version": str(version), "at_ns": int(at_ns)}:
                self._rules.end(service, version, at_ns)
            case {"do": "expect", "kind": str(kind), "services": [*services]}:
                self._rules.expect(kind, frozenset(str(service) for service in services))
                if kind not in self._kinds:
                    self._kinds.append(kind)
            case {"do": "traffic", "rate": rate, "posts": bool(posts), "slow": bool(slow)}:
                self._rate, self._posts, self._slow = float(rate), posts, slow
            case {"do": "stop"}:
                self._rate = 0.0
                self.stopped.set()
            case _:
                raise ValueError(f"unknown order {order}")

    def report(self, *, done: bool = False) -> dict[str, object]:
        failures = list(self._failures)
        self._failures.clear()
        return {
            "phases": {name: tally.to_dict() for name, tally in self._tallies.items()},
            "in_flight": len(self._tasks),
            "failures": failures,
            "done": done,
        }

    # ------------------------------------------------------------- sending

    async def run(self) -> None:
        """Sends until stopped, then waits for the outstanding responses."""
        due = time.monotonic()
        while not self.stopped.is_set():
            if self._rate <= 0 or not self._kinds or len(self._tasks) >= IN_FLIGHT_MAX:
                await asyncio.sleep(0.01)
                due = time.monotonic()
                continue
            due = max(due + 1 / self._rate, time.monotonic() - 0.1)
            delay = due - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(self._one())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TIMEOUT_S)
        for idle in self._idle.values():
            while idle:
                idle.popleft().close()

    async def _one(self) -> None:
        self._count += 1
        kind = self._kinds[self._count % len(self._kinds)]
        entry = self._entries[self._count // len(self._kinds) % len(self._entries)]
        expected, tally = self._rules.expected(kind), self._tally
        post = self._posts and self._rng.random() < POST_SHARE
        slow_ms = 120 if self._slow and not post and self._rng.random() < SLOW_SHARE else 0
        path = "/catalog/search" if kind == "search" else "/catalog/items"
        target = f"{path}?n={self._count}" + (f"&slow={slow_ms}" if slow_ms else "")
        content = self._rng.randbytes(self._rng.randrange(1, POST_BYTES_MAX)) if post else b""
        digest = hashlib.sha256(content).hexdigest()
        head, body = self._message(target, content, digest)
        tally.sent()
        sent_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._send_request(entry, head, body)
            answer = _read(response, "POST" if post else "GET", target, digest)
        except (BadResponse, TimeoutError) as error:
            wait_ms = (time.monotonic_ns() - sent_ns) / MS
            tally.lose(wait_ms)
            text = str(error) or f"no response within {TIMEOUT_S:g} s"
            self._failures.append(f"lost: {target} at port {entry[1]} after {wait_ms:.0f} ms: {text}")
            return
        wait_ns = time.monotonic_ns() - sent_ns - (answer.finished_ns - answer.received_ns)
        why = self._rules.wrong(answer, expected)
        tally.answer(f"{answer.service}-{answer.version}", wait_ns / MS, wrong=bool(why))
        if why:
            self._failures.append(f"wrong: {target} at port {entry[1]}: {why}")

    def _message(self, target: str, content: bytes, digest: str) -> tuple[bytes, tuple[bytes, ...]]:
        """A GET, or a POST whose body goes with its length or, every other time, in chunks."""
        fields = f"Host: {HOST}\r\nUser-Agent: sdlb-demo\r\n"
        if not content:
            return f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode(), ()
        fields += f"Content-Type: application/octet-stream\r\nX-Body-SHA256: {digest}\r\n"
        if self._count % 2:
            return f"POST {target} HTTP/1.1\r\n{fields}Content-Length: {len(content)}\r\n\r\n".encode(), (content,)
        half = len(content) // 2 or 1
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (content[:half], content[half:]) if piece]
        head = f"POST {target} HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n".encode()
        return head, (*pieces, b"0\r\n\r\n")

    async def _send_request(self, entry: tuple[str, int], head: bytes, body: tuple[bytes, ...]) -> Response:
        idle = self._idle[entry]
        connection = Connection(entry)
        while idle:
            candidate = idle.popleft()
            if candidate.reusable:
                connection = candidate
                break
            candidate.close()
        try:
            response = await connection.send(head, body)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            idle.append(connection)
        else:
            connection.close()
        return response


def _read(response: Response, method: str, target: str, digest: str) -> Answer:
    """The application's response; raises BadResponse when it is not the application's or not to this request."""
    if response.status != 200:
        why = response.headers.get("proxy-status", "") or response.body[:120].decode("latin-1")
        raise BadResponse(f"answered {response.status} ({why})")
    try:
        seen = json.loads(response.body)
        echoed = (seen["method"], seen["target"], seen["body_sha256"])
        answer = Answer(seen["service"], seen["version"], seen["received_ns"], seen["finished_ns"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadResponse(f"a response that is not the application's: {response.body[:80]!r} ({error})") from error
    if echoed != (method, target, digest):
        raise BadResponse(f"the response to another request: {echoed[0]} {echoed[1]}, body {echoed[2][:12]}")
    return answer


# ------------------------------------------------------------------ the process


def _write(value: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(value).encode() + b"\n")


async def _orders(load: Load) -> None:
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        load.obey(json.loads(line))
    load.obey({"do": "stop"})  # the process that plays the story has exited


async def _reports(load: Load) -> None:
    while True:
        await asyncio.sleep(REPORT_S)
        _write(load.report())


async def main(entries: list[str]) -> None:
    addresses = [(host, int(port)) for host, _, port in (entry.rpartition(":") for entry in entries)]
    load = Load(addresses, random.Random(7))
    orders, reports = asyncio.create_task(_orders(load)), asyncio.create_task(_reports(load))
    await load.run()
    reports.cancel()
    orders.cancel()
    _write(load.report(done=True))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
