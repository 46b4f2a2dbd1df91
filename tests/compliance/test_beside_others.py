"""HAProxy and nginx in front of a node and behind it: the same requests come through, and the attacks don't.

What one of them passes on and we serve must be one request to both: the endpoint sees as many as the client got answers
to.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sdlb.node.audit.attack_rows import FRAMING, Attack
from tests.compliance.recorder import Recorder
from tests.compliance.wire import SITE, listen, request
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, until

_numbers = itertools.count(1)

HAPROXY = """
global
    maxconn 256
defaults
    mode http
    timeout client 5s
    timeout server 5s
    timeout connect 2s
frontend f
    bind 127.0.0.1:{port}{takes}
    default_backend b
backend b
    server s {target}{gives}
"""
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream u {{ server {target}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port}{takes};
        location / {{
            proxy_pass http://u;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_buffering off;
        }}
    }}
}}
"""


def start(cluster: Cluster, kind: str, target: str, *, takes_http2: bool = False, gives_http2: bool = False) -> str:
    """Runs the other proxy in front of `target`; returns its host:port. HTTP/2 is unencrypted, with prior knowledge."""
    binary = shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if binary is None:
        pytest.skip(f"{kind} is not installed")
    port = cluster.ports.take()
    folder = cluster.folder / f"{kind}-{port}"
    folder.mkdir()
    folder.chmod(0o777)  # nginx's worker is another user when it is started as root
    cluster.folder.chmod(0o711)
    file = folder / "conf"
    takes = (" proto h2" if kind == "haproxy" else " http2") if takes_http2 else ""
    gives = " proto h2" if gives_http2 else ""
    text = HAPROXY if kind == "haproxy" else NGINX
    file.write_text(text.format(port=port, target=target, folder=folder, takes=takes, gives=gives))
    words = [binary, "-f", str(file), "-db"] if kind == "haproxy" else [binary, "-c", str(file), "-p", str(folder)]
    with Path(folder / "log").open("wb") as log:
        cluster.program(words, stdout=log, stderr=subprocess.STDOUT)

    def up() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    until(f"{kind} listens", up, 10)
    return f"127.0.0.1:{port}"


@pytest.fixture(scope="module", params=["haproxy", "haproxy-h2", "nginx"])
def before(request: pytest.FixtureRequest, nodes: Cluster, edge: Node) -> str:
    """The other one in front of our public node; nginx speaks HTTP/1.1 only to what is behind it."""
    kind, _, http2 = request.param.partition("-")
    return start(nodes, kind, edge.http, gives_http2=bool(http2))


def test_attacks_through_another_proxy_smuggle_nothing(before: str, recorder: Recorder) -> None:
    """All at once, because the other proxies let most of these connections hang for a while."""
    host, port = before.split(":")

    def play(attack: Attack) -> str:
        number = next(_numbers)
        mark, smuggled = f"/x-mark-{number}-".encode(), f"/x-smuggled-{number}-"
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(attack.raw.replace(b"MARK", mark) + request(smuggled, b"Connection: close"))
            talk = listen(connection, 1.5)
        answered = talk.raw.count(b"HTTP/1.1 200")
        seen = sum(mark in item or smuggled.encode() in item for item in list(recorder.completed))
        return (
            "" if seen == answered else f"{attack.name}: {seen} at the endpoint, {answered} answers: {talk.raw[:300]}"
        )

    with ThreadPoolExecutor(24) as pool:
        wrong = [why for why in pool.map(play, FRAMING) if why]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module", params=["haproxy", "haproxy-h2", "nginx", "nginx-h2"])
def behind(request: pytest.FixtureRequest, nodes: Cluster, edge: Node) -> Iterator[tuple[str, Backend]]:
    """(host name, backend): the other one between our node and the backend."""
    name = f"behind-{request.param}"
    with Backend(name, "1.0.0") as backend:
        kind, _, http2 = request.param.partition("-")
        address = start(nodes, kind, backend.endpoint, takes_http2=bool(http2))
        protocol = "h2c" if http2 else "http1"
        registration = nodes.register(edge, f"{name}-1.0.0", f"{name}.example", address, protocol=protocol)
        nodes.reachable([edge], f"http://{name}.example/", f"{name}-1.0.0")
        yield f"{name}.example", backend
        registration.gone()


def test_bodies_and_connections_pass_through_another_proxy(edge: Node, behind: tuple[str, Backend]) -> None:
    name, _ = behind
    with httpx.Client(base_url=f"http://{edge.http}", headers={"host": name}, timeout=10, trust_env=False) as client:
        for size in (0, 1, 1000, 1_000_000):
            content = b"z" * size
            assert client.post("/sized", content=content).json()["body_bytes"] == size
            assert client.post("/chunked", content=iter([content, b"end"])).json()["body_bytes"] == size + 3
            assert len(client.get(f"/bytes/{size}").content) == size
            assert len(client.get(f"/chunks/{size}").content) == size
        assert client.head("/head").status_code == 200
        assert client.get("/status/204").status_code == 204
        assert client.get("/status/503").status_code == 503
        again = [client.get(f"/again-{number}").json()["target"] for number in range(20)]
    assert again == [f"/again-{number}" for number in range(20)]


def test_bodies_and_connections_pass_through_us_behind_another_proxy(before: str, recorder: Recorder) -> None:
    with httpx.Client(base_url=f"http://{before}", headers={"host": SITE}, timeout=10, trust_env=False) as client:
        for size in (0, 1, 1000, 300_000):
            count = len(recorder.completed)
            assert client.post(f"/front-{size}", content=b"z" * size).text == "ok"
            assert client.post(f"/front-{size}", content=iter([b"z" * size, b"end"])).text == "ok"
            assert len(recorder.completed) == count + 2
