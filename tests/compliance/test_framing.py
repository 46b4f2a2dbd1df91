"""HTTP/1 framing: what two parsers could read differently is answered 400, the connection closed, nothing forwarded.

Each case is sent with a second request right behind it, the one an attacker would want smuggled. The endpoint must see
neither. Where a body is already flowing when its framing breaks, its head may have been forwarded, but the endpoint
must never have seen a whole request.
"""

from __future__ import annotations

import itertools

import pytest

from sdlb.node.audit.attack_rows import FRAMING, Attack, chunks, get, post
from tests.compliance.recorder import Recorder
from tests.compliance.wire import SITE, Talk, counts, dial, listen, request, say
from tests.e2e.cluster import Node

_numbers = itertools.count(1)


def play(edge: Node, recorder: Recorder, attack: Attack) -> tuple[Talk, bytes, bytes]:
    """(the exchange, the case's own path, the smuggled path)."""
    number = next(_numbers)
    mark, smuggled = f"/mark-{number}".encode(), f"/smuggled-{number}".encode()
    raw = attack.raw.replace(b"MARK", mark)
    return say(edge, raw + request(smuggled.decode())), mark, smuggled


@pytest.mark.parametrize("attack", FRAMING, ids=lambda attack: attack.name)
def test_refused_closed_and_nothing_forwarded(edge: Node, recorder: Recorder, attack: Attack) -> None:
    before = len(recorder.received)
    talk, mark, smuggled = play(edge, recorder, attack)
    assert talk.statuses and talk.statuses[0] in attack.statuses, talk.raw[:300]
    assert len(talk.statuses) == 1, f"something behind it was answered: {talk.raw[:600]}"
    assert talk.closed, "the connection was kept"
    assert b"proxy-status" in talk.raw.lower(), "nobody may take it for the application's answer"
    assert smuggled not in recorder.received
    if attack.streams:
        assert not any(mark in request for request in recorder.completed)
    else:
        assert len(recorder.received) == before, recorder.received[before:][:300]


# ------------------------------------------------------------------ what must still work

FINE = {
    "one leading blank line": b"\r\n" + get(),
    "white space around a value": get(b"X:   a \t"),
    "empty value": get(b"X:"),
    "tab in a value": get(b"X: a\tb"),
    "8-bit value": get("X: é".encode()),
    "absolute form, same host": get(first=b"GET http://www.exampleMARK HTTP/1.1"),
    "odd case of the host": get(host=b"Host: WWW.Example\r\n"),
    "trailing dot and port": get(host=b"hOST: www.example.:80\r\n"),
    "method of our own": get(first=b"BREW MARK HTTP/1.1"),
    "HTTP/1.0 with a host": get(first=b"GET MARK HTTP/1.0"),
    "length with leading zeros": post(b"Content-Length: 005"),
    "length in odd case": post(b"cOnTeNt-LeNgTh: 5"),
    "chunked": chunks(b"5\r\nhello\r\n0\r\n\r\n"),
    "chunk size in capitals": chunks(b"A\r\nhellohello\r\n0\r\n\r\n"),
    "chunk size with zeros": chunks(b"0000000000000005\r\nhello\r\n00\r\n\r\n"),
    "chunk extension": chunks(b'5;a;b=c;d="e;\\"f"\r\nhello\r\n0;x\r\n\r\n'),
    "trailer": chunks(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
}


@pytest.mark.parametrize("raw", FINE.values(), ids=FINE)
def test_what_the_standard_allows_is_served_once(edge: Node, recorder: Recorder, raw: bytes) -> None:
    mark = f"/fine-{next(_numbers)}".encode()
    with dial(edge) as connection:
        connection.sendall(raw.replace(b"MARK", mark))
        talk = listen(connection, 3.0, whole=1)
    assert talk.statuses == [200], talk.raw
    assert sum(b" " + mark + b" " in item for item in recorder.completed) == 1


def test_chunk_extensions_are_not_forwarded(edge: Node, recorder: Recorder) -> None:
    mark = f"/fine-{next(_numbers)}".encode()
    with dial(edge) as connection:
        connection.sendall(chunks(b"5;secret=1\r\nhello\r\n0;secret=2\r\n\r\n").replace(b"MARK", mark))
        assert listen(connection, 3.0, whole=1).statuses == [200]
    (seen,) = (item for item in recorder.completed if mark in item)
    assert b"secret" not in seen and b"hello" in seen


@pytest.mark.parametrize(
    "body",
    [b"5;" + b"x" * 20_000 + b"\r\nhello\r\n0\r\n\r\n", (b"1;" + b"x" * 100 + b"\r\nh\r\n") * 20_000 + b"0\r\n\r\n"],
    ids=["one long", "many"],
)
def test_chunk_extensions_are_bounded(edge: Node, recorder: Recorder, body: bytes) -> None:
    mark = f"/bounded-{next(_numbers)}".encode()
    talk = say(edge, chunks(body).replace(b"MARK", mark))
    assert talk.closed and talk.statuses in ([400], [413], [431], [])
    assert not any(mark in item for item in recorder.completed)


def test_trailers_that_frame_route_or_authenticate_are_dropped(edge: Node, recorder: Recorder) -> None:
    mark = f"/fine-{next(_numbers)}".encode()
    bad = (
        b"Content-Length: 9\r\nTransfer-Encoding: x\r\nHost: other.example\r\nAuthorization: Basic eDp5\r\n"
        b"Cookie: a=b\r\nX-Forwarded-For: 6.6.6.6\r\nsdlb-to: a/1 b/*\r\nConnection: close\r\nTrailer: X\r\n"
    )
    with dial(edge) as connection:
        raw = chunks(b"5\r\nhello\r\n0\r\n" + bad + b"X-Sum: 1\r\n\r\n")
        connection.sendall(raw.replace(b"MARK", mark))
        talk = listen(connection, 3.0, whole=1)
    seen = [item for item in recorder.completed if mark in item]
    if talk.statuses == [400]:
        assert not seen
        return
    assert talk.statuses == [200]
    trailers = seen[0].rpartition(b"0\r\n")[2].lower()
    for name in (b"content-length", b"transfer-encoding", b"host", b"authorization", b"cookie", b"forwarded", b"sdlb"):
        assert name not in trailers


def test_trailers_are_bounded(edge: Node, recorder: Recorder) -> None:
    mark = f"/bounded-{next(_numbers)}".encode()
    many = b"".join(b"X-%d: y\r\n" % number for number in range(5000))
    talk = say(edge, chunks(b"5\r\nhello\r\n0\r\n" + many + b"\r\n").replace(b"MARK", mark))
    assert talk.closed and talk.statuses in ([400], [431])
    assert not any(mark in item for item in recorder.completed)


def test_nothing_behind_a_last_request_is_served(edge: Node, recorder: Recorder) -> None:
    number = next(_numbers)
    with counts(edge, "behind_last_request_total"):
        talk = say(edge, request(f"/last-{number}", b"Connection: close") + request(f"/behind-{number}"))
    assert talk.statuses == [200] and talk.closed
    assert f"/behind-{number}".encode() not in recorder.received


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_request_in_pieces_is_the_same_request(edge: Node, recorder: Recorder, size: int) -> None:
    mark = f"/pieces-{next(_numbers)}".encode()
    raw = chunks(b"5;e=1\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n").replace(b"MARK", mark)
    with dial(edge) as connection:
        for start in range(0, len(raw), size):
            connection.sendall(raw[start : start + size])
        assert listen(connection, 3.0, whole=1).statuses == [200]
    assert sum(mark in item for item in recorder.completed) == 1


def test_the_host_forwarded_is_the_one_that_was_matched(edge: Node, recorder: Recorder) -> None:
    mark = f"/fine-{next(_numbers)}".encode()
    with dial(edge) as connection:
        connection.sendall(b"GET http://www.example" + mark + b" HTTP/1.1\r\nHost: WWW.EXAMPLE.\r\n\r\n")
        assert listen(connection, 3.0, whole=1).statuses == [200]
    (seen,) = (item for item in recorder.completed if mark in item)
    assert seen.startswith(b"GET " + mark + b" HTTP/1.1\r\n")
    assert seen.lower().count(b"\r\nhost: " + SITE.encode() + b"\r\n") == 1
