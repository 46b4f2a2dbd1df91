"""A proxy in front of an ACME server: it counts orders, and plays rate limits and outages."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.certificates import Authority


class Front:
    """`target`: URL of the server's directory. `windows` False: it suggests no renewal windows."""

    def __init__(self, folder: Path, target: str, *, windows: bool = False) -> None:
        authority = Authority(folder)
        issued = authority.issue("localhost", "IP:127.0.0.1")
        self.ca_file = authority.pem
        self.orders = 0  # that the server has seen
        self.refused = 0  # by the rate limit
        self.retry_after_s: int | None = None  # with a rate limit
        self.down = False
        self.date = ""  # another time than the real one
        base = target.rpartition("/")[0]
        front = self
        client = httpx.Client(verify=False, timeout=30.0)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", "0")))
                if front.down:
                    self.close_connection = True
                    return
                if "order-plz" in self.path:
                    if front.retry_after_s is not None:
                        front.refused += 1
                        body = b'{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many new orders"}'
                        self.answer(429, {"Retry-After": str(front.retry_after_s)}, body)
                        return
                    front.orders += 1
                kept = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                answer = client.request(self.command, base + self.path, content=content, headers=kept)
                body = answer.content
                if self.path == "/dir" and not windows:
                    body = body.replace(b'"renewalInfo"', b'"none"')
                skipped = ("content-length", "connection", "transfer-encoding", "date")
                self.answer(answer.status_code, {k: v for k, v in answer.headers.items() if k not in skipped}, body)

            do_GET = do_HEAD = do_POST = do_any

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return front.date or super().date_time_string(timestamp)

            def log_message(self, format: str, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is no error of the test."""

        self._client = client
        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.chain, issued.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.directory = f"https://127.0.0.1:{self._server.server_port}/dir"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._client.close()
