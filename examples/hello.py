"""A small web application without any knowledge of sdlb: it listens on the port in PORT and stops on SIGTERM.

sdlb run --route 'example.com/hello*' --health /health hello-1.0.0 -- python examples/hello.py
Its arguments are the name that it answers with: python examples/hello.py 1.0.0
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = " ".join(sys.argv[1:]) or f"process {os.getpid()}"


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open

    def do_GET(self) -> None:
        body = b"ok\n" if self.path == "/health" else f"hello from {NAME}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No log: the node has an access log."""


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A proxy may reset an idle connection: no reason for a traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Hello)

    def stop(*_: object) -> None:
        # In a thread, because shutdown waits for serve_forever, which this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()


if __name__ == "__main__":
    main()
