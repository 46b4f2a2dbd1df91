"""A web application that registers itself: python examples/catalog.py 1.0.1

On SIGTERM or Ctrl-C it leaves the `with` block, which returns when no request is in flight at any node. Only then it stops
listening. In this order no request is lost.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import sdlb


def handler(version: str) -> type[BaseHTTPRequestHandler]:
    class Catalog(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = f"catalog {version}: {self.path}\n".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """No log."""

    return Catalog


def main(version: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = threading.Event()

    def leave(*_: object) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(version))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sdlb.serve(f"catalog-{version}", routes=["example.com/catalog*"], port=server.server_port):
        stop.wait()
    server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "1.0.1")
