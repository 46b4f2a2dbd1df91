"""The instances of a run: a small web application that logs each request that it receives. A program, started by its path.

    PORT=8001 python app.py SERVICE VERSION INSTANCE LOG

Every answer names the instance, the request and the time (`received_ns`: CLOCK_MONOTONIC, which all processes of a machine share, in
any namespace). `?slow=MS` answers in two parts, the second one MS later. `/health` is 200. On SIGTERM it answers open requests, then
exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from urllib.parse import parse_qs, urlsplit


class App:
    def __init__(self, service: str, version: str, instance: str, log: int) -> None:
        self._identity = {"service": service, "version": version, "instance": instance}
        self._log = log
        self._ending = asyncio.Event()
        self._busy: dict[asyncio.Task[None], bool] = {}
        """The open connections; True: a request is in flight."""

    async def run(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ending.set)
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=512)
        await self._ending.wait()
        server.close()
        for task, busy in list(self._busy.items()):
            if not busy:
                task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy[task] = False
        try:
            while not self._ending.is_set():
                head = await reader.readuntil(b"\r\n\r\n")
                self._busy[task] = True
                await self._answer(head.decode("latin-1"), reader, writer)
                self._busy[task] = False
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # closed by one side or the other
        finally:
            del self._busy[task]
            with contextlib.suppress(Exception):
                writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received_ns = time.monotonic_ns()
        lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        await reader.readexactly(int(fields.get("content-length", "0")))
        method, target, _ = lines[0].split(" ")
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/health":
            entry = {"id": query.get("id", ""), "method": method, "received_ns": received_ns, **self._identity}
            os.write(self._log, json.dumps(entry).encode() + b"\n")
        slow_s = int(query.get("slow", "0")) / 1000
        await asyncio.sleep(slow_s / 2)
        content = json.dumps({"id": query.get("id", ""), **self._identity, "received_ns": received_ns}).encode()
        close = b"Connection: close\r\n" if self._ending.is_set() else b""
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
        writer.write(start % (close, len(content) + 1) + content)
        if slow_s:
            await writer.drain()
            await asyncio.sleep(slow_s / 2)
        writer.write(b"\n")
        await writer.drain()


def main(service: str, version: str, instance: str, log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    asyncio.run(App(service, version, instance, file).run(int(os.environ["PORT"])))


if __name__ == "__main__":
    main(*sys.argv[1:])
