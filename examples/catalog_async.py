"""`catalog.py` with asyncio and a minimal HTTP server: python examples/catalog_async.py 1.0.2"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import sdlb


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str) -> None:
    """Supports GET, one request for each connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].decode("latin-1")
        body = f"catalog {version}: {path}\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has closed the connection, or it was a health check that only connects
    finally:
        writer.close()


async def main(version: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await asyncio.start_server(lambda r, w: answer(r, w, version), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with sdlb.serve(f"catalog-{version}", routes=["example.com/catalog*"], port=port):
        await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "1.0.2"))
