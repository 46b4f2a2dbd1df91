"""Targets as browsers and curl send them, and paths that begin with several slashes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlb.wire.engine_pb2 import Listener, Target
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine
from tests.engine.fixtures import recording
from tests.engine.frames import Client, request
from tests.engine.http1 import status
from tests.engine.http2_endpoint import Http2Endpoint

HTTP = Listener(key="http", address="127.0.0.1:0", public=True)
QUERIES = [b"\\", b"`", b'"', b"<>", b"{|}^", b"[]", b"\xc3\xa9", b"\xe9", b"%zz", b"a=/../b"]
recorder = recording("module")


def ask(engine: Engine, target: bytes, host: bytes = b"a.example") -> bytes:
    with socket.create_connection(engine.address["http"], timeout=10) as client:
        client.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        return b"%d" % status(client)


@pytest.fixture(scope="module")
def engine(recorder: Recorder) -> Iterator[Engine]:
    with Engine([HTTP], workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_passed_on_as_it_was_sent(engine: Engine, recorder: Recorder, query: bytes) -> None:
    assert ask(engine, b"/x?q=" + query) == b"200"
    assert recorder.completed[-1].startswith(b"GET /x?q=" + query + b" HTTP/1.1\r\n")


@pytest.mark.parametrize("byte", [b"\\", b"`", b'"', b"<", b">", b"\xc3\xa9"])
def test_the_path_stays_strict(engine: Engine, byte: bytes) -> None:
    assert ask(engine, b"/x" + byte + b"?q") == b"400"


def test_a_query_for_http2_is_encoded_where_it_must_be(engine: Engine) -> None:
    """What the endpoint's protocol cannot carry is not the endpoint's fault."""
    with Http2Endpoint(lambda connection, stream, _count: connection.answer(stream)) as endpoint:
        engine.serve("h2.example/*", endpoint.endpoint, service="h2", protocol=Target.H2C)
        for query in QUERIES * 2:
            assert ask(engine, b"/x?q=" + query, b"h2.example") == b"200"
        assert len(endpoint.connections) == 1


# ------------------------------------------------------------------ slashes


@pytest.fixture(scope="module")
def services(engine: Engine) -> Iterator[dict[str, Recorder]]:
    """By path; all of one host."""
    with ExitStack() as stack:
        made = {path: stack.enter_context(Recorder()) for path in ("*", "closed*", "/api*")}
        for number, (path, endpoint) in enumerate(made.items()):
            engine.serve(f"paths.example/{path}", endpoint.endpoint, service=f"s{number}")
        yield made


@pytest.mark.parametrize(
    ("target", "taken_by"),
    [
        ("//index.html", "*"),
        ("///index.html?q=//", "*"),
        ("/a//closed", "*"),
        ("//api/x", "/api*"),
        ("/..//api/x", "/api*"),
        ("//closed/x", None),
        ("///closed/x", None),
        ("/.//closed/x", None),
        ("/api/x", "*"),
        ("/closed//x", "closed*"),
    ],
)
def test_several_slashes_at_the_start(
    engine: Engine, services: dict[str, Recorder], target: str, taken_by: str | None
) -> None:
    """A path of its own, but no way to what another service holds."""
    before = {path: len(endpoint.completed) for path, endpoint in services.items()}
    assert ask(engine, target.encode(), b"paths.example") == (b"200" if taken_by else b"400")
    got = [path for path, endpoint in services.items() if len(endpoint.completed) > before[path]]
    assert got == ([taken_by] if taken_by else [])


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.lists(st.sampled_from(["/", "a", "closed", "api", ".", "..", "?"]), max_size=8))
def test_what_a_service_gets_is_its_own_however_slashes_are_read(
    engine: Engine, services: dict[str, Recorder], words: list[str]
) -> None:
    before = {path: len(endpoint.completed) for path, endpoint in services.items()}
    status = ask(engine, ("/" + "".join(words)).encode(), b"paths.example")
    got = {path: endpoint.completed[before[path] :] for path, endpoint in services.items()}
    seen = [(path, each) for path, all_ in got.items() for each in all_]
    assert len(seen) == (status == b"200")
    for path, each in seen:
        forwarded = each.split(b" ")[1].decode().partition("?")[0]
        if forwarded.startswith("//api"):
            assert path == "/api*"
        else:
            assert ("/" + forwarded.lstrip("/")).startswith("/closed") == (path == "closed*")


def test_the_field_for_this_between_nodes_is_not_a_clients(engine: Engine, recorder: Recorder) -> None:
    with Client(engine.address["http"]) as client:
        assert client.ask(1, [*request(path="/own"), ("sdlb-target", "/forged")]) == "200"
    assert recorder.completed[-1].startswith(b"GET /own HTTP/1.1\r\n") and b"forged" not in recorder.completed[-1]
