"""Other people's clients over TLS, against an edge with a child below it: both protocols, WebSockets, event streams."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from sdlb.wire.engine_pb2 import Listener, ToEngine
from tests.certificates import needs_openssl
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine
from tests.engine.fixtures import recording

pytestmark = needs_openssl
HAPROXY = """
global
    maxconn 64
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 5s
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    server s {target} ssl verify required ca-file {ca} sni str(www.example) alpn {alpn}
"""


recorder = recording("module")


@pytest.fixture(scope="module")
def host(recorder: Recorder) -> Iterator[Engine]:
    listeners = [Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)]
    with Engine(listeners, name="host-1") as host:
        host.serve("*", recorder.endpoint)
        yield host


@pytest.fixture(scope="module")
def edge(host: Engine, authority: Authority) -> Iterator[Engine]:
    listeners = [Listener(key="https", address="127.0.0.1:0", tls=True, public=True)]
    with Engine(listeners) as edge:
        edge.serve("*", place(host, "node"), node="host-1")
        message = ToEngine()
        pem = authority.issue("www.example").pem
        message.sites.put.add(key="a", hosts=["www.example"]).certificates.add(pem=pem)
        assert not edge.sites(message).sites[0].error
        yield edge


def place(engine: Engine, key: str) -> str:
    return "{}:{}".format(*engine.address[key])


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.root.certificate))


def httpx_client(edge: Engine, authority: Authority, *, http2: bool) -> httpx.Client:
    """It goes to the edge for the name in the certificate."""
    return httpx.Client(
        base_url=f"https://{place(edge, 'https')}", headers={"host": "www.example"}, http1=not http2, http2=http2,
        verify=trusting(authority), timeout=15, trust_env=False,
    )  # fmt: skip


def get(client: httpx.Client, path: str) -> httpx.Request:
    return client.build_request("GET", path, extensions={"sni_hostname": "www.example"})


@pytest.mark.parametrize("http2", [False, True])
def test_httpx(edge: Engine, authority: Authority, recorder: Recorder, http2: bool) -> None:
    with httpx_client(edge, authority, http2=http2) as client:
        for number in range(20):
            answer = client.send(get(client, f"/{http2}/{number}"))
            assert (answer.status_code, answer.content) == (200, b"ok")
            assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert sum(f"GET /{http2}/".encode() in request for request in recorder.completed) == 20


def test_websockets(edge: Engine, host: Engine, authority: Authority) -> None:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        below(edge, host, "www.example/ws", f"127.0.0.1:{server.socket.getsockname()[1]}", "2.0.0")
        plain = socket.create_connection(edge.address["https"], timeout=10)
        with connect("wss://www.example/ws", sock=plain, ssl=trusting(authority), max_size=None) as client:
            for message in ("hi", bytes(1_000_000)):
                client.send(message)
                assert client.recv(timeout=10) == message
        server.shutdown()


def below(edge: Engine, host: Engine, pattern: str, endpoint: str, version: str) -> None:
    host.serve(pattern, endpoint, version=version)
    edge.serve(pattern, place(host, "node"), version=version, node="host-1")


class Events(BaseHTTPRequestHandler):
    """Three events; each waits until the one before was seen."""

    protocol_version = "HTTP/1.1"
    seen = threading.Semaphore(0)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(3):
            self.wfile.write(b"9\r\ndata: %d\n\n\r\n" % number)
            if not self.seen.acquire(timeout=10):
                return
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Never answers."""


@pytest.mark.parametrize("http2", [False, True])
def test_events_are_not_kept_back(edge: Engine, host: Engine, authority: Authority, http2: bool) -> None:
    """Nothing more comes before what has come was seen: a buffer on the way would stop it for ever."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Events) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        below(edge, host, "www.example/events", f"127.0.0.1:{server.server_address[1]}", "3.0.0")
        with httpx_client(edge, authority, http2=http2) as client:
            answer = client.send(get(client, "/events"), stream=True)
            lines: list[str] = []
            for line in answer.iter_lines():
                lines.append(line)
                if line.startswith("data"):
                    Events.seen.release()
            assert [line for line in lines if line] == ["data: 0", "data: 1", "data: 2"]
            answer.close()
        server.shutdown()


@pytest.mark.parametrize("program", ["nghttp", "h2load", "curl", "openssl"])
def test_programs(edge: Engine, authority: Authority, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    address, port = place(edge, "https"), edge.address["https"][1]
    ca = str(authority.root.certificate)
    words, said = {
        # These two send only the host of the URL in their handshake.
        "nghttp": (["nghttp", "-v", "-y", "-H:authority: www.example", f"https://localhost:{port}/"], ":status: 200"),
        "h2load": (["h2load", "-n", "400", "-c", "4", "-m", "8", "-H:authority: www.example",
                    f"https://localhost:{port}/"], "400 2xx"),
        "curl": (["curl", "-sS", "--http2", "--cacert", ca, "--resolve", f"www.example:{port}:127.0.0.1",
                  "-w", "%{http_version} %{http_code}", f"https://www.example:{port}/"], "ok2 200"),
        "openssl": (["openssl", "s_client", "-quiet", "-connect", address, "-servername", "www.example", "-CAfile", ca,
                     "-verify_return_error"], "HTTP/1.1 200"),
    }[program]  # fmt: skip
    if program in ("nghttp", "h2load"):
        site(edge, authority, "localhost")
        words = [word.replace("www.example", f"localhost:{port}") for word in words]
    request = "GET / HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n"
    done = subprocess.run(words, input=request, capture_output=True, text=True, timeout=30, check=False)
    assert said in done.stdout, done.stdout + done.stderr


def site(edge: Engine, authority: Authority, name: str) -> None:
    message = ToEngine()
    message.sites.put.add(key=name, hosts=[name]).certificates.add(pem=authority.issue(name).pem)
    assert not edge.sites(message).sites[0].error


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_haproxy_in_front(edge: Engine, authority: Authority, recorder: Recorder, alpn: str, tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if haproxy is None:
        pytest.skip("needs haproxy")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    file = tmp_path / "conf"
    file.write_text(HAPROXY.format(port=port, target=place(edge, "https"), ca=authority.root.certificate, alpn=alpn))
    program = subprocess.Popen([haproxy, "-f", str(file), "-db"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base, headers={"host": "www.example"}, timeout=15, trust_env=False) as client:
            end = time.monotonic() + 10
            while True:
                try:
                    client.get("/")
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            for size in (0, 1000, 1_000_000):
                assert client.post("/up", content=bytes(size)).text == "ok"
                assert recorder.completed[-1].endswith(b"\r\n\r\n" + bytes(size))
        version = b"via: 2.0 edge-1-" if alpn == "h2" else b"via: 1.1 edge-1-"
        assert version in recorder.completed[-1]
    finally:
        program.terminate()
        program.wait()
