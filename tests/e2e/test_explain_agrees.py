"""`explain` agrees with the engine: both get the same requests, at a public node and at another one."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sdlb.cli.demo.launch import Node
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, api

CLAIMS = {
    "any": "*/*",
    "host": "a.example/*",
    "prefix": "a.example/api*",
    "exact": "a.example/api/v1",
    "slashes": "a.example//own*",
    "encoded": "a.example/x%2Fy*",
    "kept": "b.example/*",
    "kept-api": "b.example/api/*",
    "wild": "*.c.example/only",
}
KEPT = ("kept", "kept-api")
HOSTS = ("a.example", "A.Example.", "b.example", "other.example", "x.c.example", "c.example", "_a-.example", "[::1]")
PARTS = (
    "/",
    "//",
    "api",
    "v1",
    "own",
    "x",
    "y",
    ".",
    "..",
    "%2F",
    "%2f",
    "%5c",
    "%00",
    "%2e",
    "%41",
    "%",
    "%zz",
    "%7e",
)
ODD = ("*", '"', "<", "`", "\\", "|", "é", "{", "^", "~", ";a=b", "%c3%a9", ":", "@", "only", "%0a")


@dataclass
class Both:
    node: Node
    connection: socket.socket | None = field(default=None)

    def explained(self, host: str, path: str) -> tuple[int, str]:
        """The status and the service in the result of `explain`."""
        with api(self.node) as http:
            answer = http.get("/v1/explain", params={"url": f"http://{host}{path}", "scope": "local"})
        told = answer.json()
        assert answer.status_code == 200, answer.text
        return told["status"] or 200, told["service"]

    def answered(self, host: str, path: str) -> tuple[int, str]:
        """The same as the engine answers."""
        where, port = self.node.http.split(":")
        with contextlib.closing(socket.create_connection((where, int(port)), timeout=10)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            raw = b"".join(iter(lambda: client.recv(65_536), b""))
        head, _, body = raw.partition(b"\r\n\r\n")
        status = int(head[9:12])
        return status, json.loads(body)["service"] if status == 200 else ""


@pytest.fixture(scope="module", params=[True, False], ids=["public", "private"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    with Cluster() as cluster, contextlib.ExitStack() as stack:
        node = cluster.node("solo", entry=True, public=request.param)
        node.wait_ready()
        with node.client() as client:
            for service in KEPT:
                client.set_policy(service, {"path": {"encoded_slash": "keep"}})
        for service, route in CLAIMS.items():
            if service == "any" and not request.param:
                continue  # so that 404 and 421 are seen as well
            cluster.register(node, f"{service}-1.0.0", route, stack.enter_context(Backend(service, "1.0.0")))
            if service != "encoded":  # refused at the public one, whatever claims it
                cluster.reachable([node], f"http://{_url(route)}", f"{service}-1.0.0")
        yield Both(node)


def _url(route: str) -> str:
    host, _, path = route.partition("/")
    return f"{host.replace('*.', 'x.').replace('*', 'z.example')}/{path.removesuffix('*')}"


def paths() -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(PARTS) | st.sampled_from(ODD), max_size=7).map(lambda parts: "/" + "".join(parts))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(host=st.sampled_from(HOSTS), path=paths())
@example(host="a.example", path="//x")
@example(host="a.example", path="//api/v1")
@example(host="a.example", path="//own/x")
@example(host="a.example", path="/x%2fy")
@example(host="b.example", path="/api%2Fv1")
@example(host="b.example", path="/..%2fapi/v1")
@example(host="b.example", path="/a/%2E%2e/%2F")
@example(host="x.c.example", path="/")
def test_they_agree(both: Both, host: str, path: str) -> None:
    answered, explained = both.answered(host, path), both.explained(host, path)
    assert answered[0] == explained[0], (answered, explained)
    if answered[0] == 200:
        assert answered[1] == explained[1]
