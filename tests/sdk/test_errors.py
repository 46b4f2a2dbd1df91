"""Whatever goes wrong between a client and its node is one Problem with one sentence.

Most of it no real node does, so a tiny HTTP server on a Unix socket answers what a test tells it.
"""

from __future__ import annotations

import asyncio
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import sdlb
from sdlb.sdk import Unreachable, calls
from sdlb.sdk.asyncio_http import carry_out

Respond = Callable[[BaseHTTPRequestHandler], None]


class TinyNode:
    """`respond` handles every request; `seen` has the request lines."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.seen: list[str] = []
        self.respond: Respond = lambda request: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                outer.seen.append(f"{self.command} {self.path}")
                outer.respond(self)
                self.wfile.flush()

            def address_string(self) -> str:
                return "unix"

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that has heard enough and has gone."""

            def get_request(self) -> Any:
                connection, _ = self.socket.accept()
                return connection, ("unix", 0)

        self._server = Server(self.path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        def respond(request: BaseHTTPRequestHandler) -> None:
            request.rfile.read(int(request.headers.get("content-length", "0")))
            request.send_response(status)
            request.send_header("content-type", kind)
            request.send_header("content-length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

        self.respond = respond

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[TinyNode]:
    node = TinyNode(tmp_path / "api.sock")
    yield node
    node.close()


REFUSAL = {
    "type": "https://sdlb.dev/problems/bad-route",
    "title": "Bad route",
    "status": 400,
    "detail": "route 'x': bad",
}


def get_tree(path: str) -> object:
    with sdlb.Client(path) as client:
        return client.tree()


def get_tree_async(path: str) -> object:
    async def get() -> object:
        async with sdlb.AsyncClient(path) as client:
            return await client.tree()

    return asyncio.run(get())


def get_tree_lean(path: str) -> object:
    return asyncio.run(carry_out(path, calls.tree()))


ALL = pytest.mark.parametrize("get", [get_tree, get_tree_async, get_tree_lean])
Get = Callable[[str], object]


@ALL
def test_a_problem_document_becomes_a_problem(tiny: TinyNode, get: Get) -> None:
    tiny.answer(400, json.dumps(REFUSAL).encode(), "application/problem+json")
    with pytest.raises(sdlb.Problem) as caught:
        get(tiny.path)
    problem = caught.value
    assert (problem.type, problem.code, problem.status) == (REFUSAL["type"], "bad-route", 400)
    assert problem.detail == str(problem) == "route 'x': bad"


@ALL
@pytest.mark.parametrize("body", [b"", b"oops", b"[]", b'{"detail": 7}', b"\xff"])
def test_an_error_that_is_no_problem_document_has_a_sentence_all_the_same(
    tiny: TinyNode, get: Get, body: bytes
) -> None:
    tiny.answer(500, body, "text/plain")
    with pytest.raises(sdlb.Problem) as caught:
        get(tiny.path)
    assert caught.value.status == 500
    assert "500" in caught.value.detail


@ALL
@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"children": 7}'])
def test_an_answer_that_is_not_the_apis_is_told(tiny: TinyNode, get: Get, body: bytes) -> None:
    tiny.answer(200, body)
    with pytest.raises(sdlb.Problem, match="cannot be read"):
        get(tiny.path)


@ALL
def test_a_node_of_another_age_is_understood(tiny: TinyNode, get: Get) -> None:
    tiny.answer(200, b'{"node": "n", "to_come": {"x": [1]}, "children": [{"name": "c", "silent_s": 3, "new": 1}]}')
    assert get(tiny.path).children[0].name == "c"  # pyright: ignore[reportAttributeAccessIssue]


@ALL
def test_no_node(tmp_path: Path, get: Get) -> None:
    path = str(tmp_path / "none.sock")
    with pytest.raises(Unreachable) as caught:
        get(path)
    assert caught.value.status == 0
    assert path in caught.value.detail
    assert "No such file" in caught.value.detail


@ALL
def test_a_file_that_is_no_socket_or_has_no_listener(tmp_path: Path, get: Get) -> None:
    path = tmp_path / "plain"
    path.touch()
    with pytest.raises(Unreachable, match="Connection refused"):
        get(str(path))


@ALL
def test_a_connection_that_breaks_in_the_middle(tiny: TinyNode, get: Get) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        request.close_connection = True

    tiny.respond = cut
    with pytest.raises(Unreachable):
        get(tiny.path)


def test_events_go_on_over_a_broken_connection(tiny: TinyNode) -> None:
    asked: list[str | None] = []

    def stream(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers.get("last-event-id"))
        number = len(asked)
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        request.wfile.write(f'id: {number}\ndata: {{"id": {number}}}\n\n'.encode())
        request.close_connection = True

    tiny.respond = stream
    lost: list[sdlb.Problem] = []
    with sdlb.Client(tiny.path) as client:
        events = client.events(lost=lost.append)
        assert [next(events).id for _ in range(3)] == [1, 2, 3]
        events.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert asked[:3] == [None, "1", "2"]
    assert len(lost) == 2


def test_ids_and_names_are_quoted_into_paths(tiny: TinyNode) -> None:
    tiny.answer(200, b"{}")
    with sdlb.Client(tiny.path) as client:
        client.instance("a/../b?c#d")
        client.service("a b")
        client.explain("http://example.com/a?b=c&d#e")
    assert tiny.seen[0] == "GET /v1/instances/a%2F..%2Fb%3Fc%23d"
    assert tiny.seen[1] == "GET /v1/services/a%20b"
    assert tiny.seen[2].startswith("GET /v1/explain?url=http%3A%2F%2Fexample.com%2Fa%3Fb%3Dc%26d%23e")
