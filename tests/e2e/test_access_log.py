"""The access log of a real node: one line for each request, and a new file when the old one was moved away."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, api, until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.json"


@pytest.fixture
def node(cluster: Cluster, log: Path) -> Node:
    node = cluster.node("edge-1", entry=True, start=False)
    node.settings["log"] = {"access": str(log)}
    node.start()
    node.wait_ready()
    return node


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def line(log: Path, status: int) -> dict[str, Any]:
    """The one with this status, once it is written."""
    until(f"a line with {status}", lambda: any(each["status"] == status for each in lines(log)))
    (found,) = [each for each in lines(log) if each["status"] == status]
    return found


def get(node: Node, host: str, path: str = "/") -> int:
    return httpx.get(f"http://{node.http}{path}", headers={"host": host}, timeout=10).status_code


def send(node: Node, sent: bytes) -> bytes:
    """The first line of the answer to these bytes."""
    host, _, port = node.http.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(sent)
        return connection.makefile("rb").readline()


def test_a_request_and_whoever_served_it(cluster: Cluster, node: Node, log: Path) -> None:
    with Backend() as backend:
        instance = cluster.register(node, "web-1.0.0", "web.example", backend)
        assert get(node, "web.example", "/some/page?x=1") == 200
        told = line(log, 200)
    assert told["target"] == "/some/page?x=1" and told["host"] == "web.example" and told["tries"] == 1
    assert (told["service"], told["version"], told["endpoint"]) == ("web", "1.0.0", f"i:{instance.spec.id}")
    assert "error" not in told


def test_the_log_line_of_a_failed_request_names_the_last_version(cluster: Cluster, node: Node, log: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        endpoint = f"127.0.0.1:{gone.getsockname()[1]}"
    with node.client() as client:
        client.set_policy("web", {"park": {"timeout_s": 0}})
    cluster.register(node, "web-1.0.0", "web.example", endpoint)
    assert get(node, "web.example") == 502
    told = line(log, 502)
    assert (told["service"], told["version"], told["error"]) == ("web", "1.0.0", "connection_refused")


def test_a_request_that_a_limit_refuses_is_logged_with_its_service(cluster: Cluster, node: Node, log: Path) -> None:
    with Backend() as backend:
        cluster.register(node, "web-1.0.0", "web.example", backend)
        assert cluster.sdlb("policy", "set", "web", "--set", "limits.in_flight=1", node=node).returncode == 0
        with socket.create_connection(("127.0.0.1", int(node.http.rpartition(":")[2])), 10) as held:
            held.sendall(b"GET /hang?until=gate HTTP/1.1\r\nHost: web.example\r\n\r\n")
            until("it is in flight", lambda: backend.seen)
            assert get(node, "web.example") == 503
            told = line(log, 503)
            backend.gate.set()
            assert held.makefile("rb").readline().startswith(b"HTTP/1.1 200")
    assert told["service"] == "web" and "version" not in told and told["tries"] == 0
    failed = 'sdlb_failed_total{service="web",version=""} 1'
    with api(node) as http:
        until("it is counted", lambda: failed in http.get("/metrics").text.splitlines())


@pytest.mark.parametrize(
    ("sent", "status", "method", "target"),
    [
        (b"GET /two HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "GET", "/two"),
        (b"GET / HTTP/7.1\r\nHost: a\r\n\r\n", 505, "GET", "/"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "GET", "/" + "a" * 255),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            400,
            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "",
        ),
    ],
    ids=["two hosts", "version", "long", "no HTTP"],
)
def test_what_was_refused_before_it_was_understood(
    node: Node, log: Path, sent: bytes, status: int, method: str, target: str
) -> None:
    assert send(node, sent).split()[1] == str(status).encode()
    told = line(log, status)
    assert (told["method"], told["target"], told["host"], told["tries"]) == (method, target, "", 0)
    assert told["error"]


def test_a_log_that_was_moved_away_is_begun_anew(node: Node, log: Path) -> None:
    assert get(node, "a.example") == 421
    assert line(log, 421)["host"] == "a.example"
    log.rename(log.with_suffix(".1"))
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    until("the new file is there", log.exists)
    assert get(node, "b.example") == 421
    assert line(log, 421)["host"] == "b.example"
    assert [each["host"] for each in lines(log.with_suffix(".1"))] == ["a.example"]
