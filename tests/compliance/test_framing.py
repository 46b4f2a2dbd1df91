"""HTTP/1 framing: what two parsers could read differently is answered 400, the connection closed, nothing forwarded.

Each case is sent with a second request right behind it, the one an attacker would want smuggled. The endpoint must see
neither. Where a body is already flowing when its framing breaks, its head may have been forwarded, but the endpoint
must never have seen a whole request.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from tests.compliance.recorder import Recorder
from tests.compliance.wire import HOST, SITE, Talk, counts, dial, listen, request, say
from tests.e2e.cluster import Node

REFUSED = frozenset({400})
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Attack:
    """`raw`: MARK stands for a path of the case's own. `streams`: its head may be forwarded before the fault shows."""

    name: str
    raw: bytes
    statuses: frozenset[int] = REFUSED
    streams: bool = False


def get(*lines: bytes, first: bytes = b"GET MARK HTTP/1.1", host: bytes = HOST, end: bytes = b"\r\n") -> bytes:
    return first + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + end


def post(*lines: bytes, body: bytes = b"hello", **options: bytes) -> bytes:
    return get(*lines, first=b"POST MARK HTTP/1.1", **options) + body


def chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


def with_length(value: bytes, body: bytes = b"hello") -> bytes:
    return post(b"Content-Length: " + value, body=body)


def with_coding(value: bytes) -> bytes:
    return post(b"Transfer-Encoding: " + value, body=b"5\r\nhello\r\n0\r\n\r\n")


UNKNOWN_CODING = frozenset({400, 501})
VERSION = frozenset({400, 505})
LENGTHS = {
    "equal twice": post(b"Content-Length: 5", b"Content-Length: 5"),
    "different": post(b"Content-Length: 5", b"Content-Length: 6"),
    "equal list": with_length(b"5, 5"),
    "list": with_length(b"5, 6"),
    "plus": with_length(b"+5"),
    "minus": with_length(b"-5"),
    "minus zero": with_length(b"-0"),
    "inner space": with_length(b"5 0"),
    "hex": with_length(b"0x5"),
    "hex digit": with_length(b"a"),
    "fraction": with_length(b"5.0"),
    "exponent": with_length(b"5e0"),
    "empty": with_length(b""),
    "quoted": with_length(b'"5"'),
    "64 bits": with_length(b"9223372036854775808"),
    "over 64 bits": with_length(b"18446744073709551621"),
    "300 digits": with_length(b"0" * 299 + b"5"),
    "other digits": with_length("\uff15".encode()),
    "vertical tab": with_length(b"5\x0b"),
    "underscore": with_length(b"1_0"),
}
BOTH = {
    "length first": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "coding first": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "length zero": post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "coding unknown": post(b"Content-Length: 5", b"Transfer-Encoding: x", body=b"hello"),
}
CODINGS = {
    "unknown": with_coding(b"gzip"),
    "unknown before": with_coding(b"gzip, chunked"),
    "chunked not last": with_coding(b"chunked, gzip"),
    "twice in a list": with_coding(b"chunked, chunked"),
    "twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "identity": with_coding(b"identity"),
    "identity then chunked": post(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "quoted": with_coding(b'"chunked"'),
    "vertical tab behind": with_coding(b"chunked\x0b"),
    "vertical tab before": with_coding(b"\x0bchunked"),
    "form feed": with_coding(b"\x0cchunked"),
    "parameter": with_coding(b"chunked;q=1"),
    "comma behind": with_coding(b"chunked,"),
    "comma before": with_coding(b",chunked"),
    "prefix": with_coding(b"xchunked"),
    "two words": with_coding(b"x chunked"),
    "empty": with_coding(b""),
    "folded": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "HTTP/1.0": get(b"Transfer-Encoding: chunked", first=b"POST MARK HTTP/1.0") + b"0\r\n\r\n",
}
CHUNKS = {
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "no hex": b"g\r\nhello\r\n0\r\n\r\n",
    "17 digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "overflow": b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "wraps to five": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "tab before": b"\t5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
    "data too long": b"5\r\nhelloX\r\n0\r\n\r\n",
    "data not ended": b"5\r\nhello0\r\n\r\n",
    "bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "bare CR behind the size": b"5\rhello\r\n0\r\n\r\n",
    "two CR behind the size": b"5\r\r\nhello\r\n0\r\n\r\n",
    "bare LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "bare CR behind the data": b"5\r\nhello\r0\r\n\r\n",
    "bare LF behind the last": b"5\r\nhello\r\n0\n\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
    "bare LF in a trailer": b"0\r\nX: a\nY: b\r\n\r\n",
    "no colon in a trailer": b"0\r\nnonsense\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
}
LINES = {
    "bare LF behind the start line": b"GET MARK HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF behind a field": b"GET MARK HTTP/1.1\r\nX: y\n" + HOST + b"\r\n",
    "bare LF as the end": b"GET MARK HTTP/1.1\r\n" + HOST + b"\n",
    "all LF": b"GET MARK HTTP/1.1\nHost: www.example\n\n",
    "bare CR in a value": get(b"X: a\rb"),
    "bare CR behind a field": b"GET MARK HTTP/1.1\r\nX: y\r" + HOST + b"\r\n",
    "NUL in a value": get(b"X: a\x00b"),
    "NUL in a name": get(b"X\x00: a"),
    "NUL in the target": get(first=b"GET MARK\x00 HTTP/1.1"),
    "escape in a value": get(b"X: a\x1b[31mb"),
    "DEL in a value": get(b"X: a\x7fb"),
    "vertical tab in a value": get(b"X: a\x0bb"),
    "folded": get(b"X: a\r\n b"),
    "folded with a tab": get(b"X: a\r\n\tb"),
    "folded first": b"GET MARK HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n",
    "space before the colon": get(b"X : a"),
    "tab before the colon": get(b"X\t: a"),
    "empty name": get(b": a"),
    "bracket in a name": get(b"X(y): a"),
    "space in a name": get(b"X y: a"),
    "quote in a name": get(b'"X": a'),
    "non-ASCII name": get("Xé: a".encode()),
    "no colon": get(b"nonsense"),
    "second start line": get(b"GET /x HTTP/1.1"),
}
STARTS = {
    "two spaces": b"GET  MARK HTTP/1.1",
    "two spaces before the version": b"GET MARK  HTTP/1.1",
    "tab": b"GET\tMARK HTTP/1.1",
    "tab before the version": b"GET MARK\tHTTP/1.1",
    "space behind": b"GET MARK HTTP/1.1 ",
    "space before": b" GET MARK HTTP/1.1",
    "space in the target": b"GET MARK x HTTP/1.1",
    "no target": b"GET HTTP/1.1",
    "empty target": b"GET  HTTP/1.1",
    "no method": b"MARK HTTP/1.1",
    "bracket in the method": b"G(T MARK HTTP/1.1",
    "lower-case version": b"GET MARK http/1.1",
    "no minor": b"GET MARK HTTP/1",
    "two digits": b"GET MARK HTTP/1.10",
    "comma": b"GET MARK HTTP/1,1",
    "other protocol": b"GET MARK ICAP/1.1",
    "non-ASCII in the target": "GET MARK/é HTTP/1.1".encode(),
    "quote in the target": b'GET MARK/"x HTTP/1.1',
}
VERSIONS = {
    "HTTP/0.9": b"GET MARK",
    "HTTP/0.9 said": b"GET MARK HTTP/0.9",
    "HTTP/1.2": b"GET MARK HTTP/1.2",
    "HTTP/2.0": b"GET MARK HTTP/2.0",
    "HTTP/3": b"GET MARK HTTP/3.0",
}
METHODS = {
    "33 bytes": b"X" * 33 + b" MARK HTTP/1.1",
    "lower case over 32 bytes": b"x" * 40 + b" MARK HTTP/1.1",
    "8 KiB": b"X" * 8192 + b" MARK HTTP/1.1",
}
TARGETS = {
    "absolute form with another host": b"GET http://other.exampleMARK HTTP/1.1",
    "userinfo": b"GET http://me@www.exampleMARK HTTP/1.1",
    "fragment": b"GET MARK#frag HTTP/1.1",
    "authority form": b"GET www.example:80 HTTP/1.1",
    "authority form with POST": b"POST www.example:80 HTTP/1.1",
    "* with GET": b"GET * HTTP/1.1",
    "relative": b"GET x/y HTTP/1.1",
    "another scheme": b"GET ftp://www.exampleMARK HTTP/1.1",
    "absolute form without a host": b"GET http://MARK HTTP/1.1",
}
HOSTS = {
    "missing": b"",
    "twice": HOST + b"Host: other.example\r\n",
    "twice the same": HOST + HOST,
    "empty": b"Host: \r\n",
    "userinfo": b"Host: me@www.example\r\n",
    "path": b"Host: www.example/x\r\n",
    "query": b"Host: www.example?x\r\n",
    "port of letters": b"Host: www.example:http\r\n",
    "port too high": b"Host: www.example:65536\r\n",
    "negative port": b"Host: www.example:-80\r\n",
    "two ports": b"Host: www.example:80:80\r\n",
    "list": b"Host: www.example, other.example\r\n",
    "space": b"Host: www.example other\r\n",
    "non-ASCII": "Host: wwé.example\r\n".encode(),
    "open bracket": b"Host: [::1\r\n",
    "empty label": b"Host: www..example\r\n",
    "scheme": b"Host: http://www.example\r\n",
}

ATTACKS = [
    *(Attack(f"Content-Length: {name}", raw) for name, raw in LENGTHS.items()),
    *(Attack(f"Content-Length and Transfer-Encoding: {name}", raw) for name, raw in BOTH.items()),
    *(Attack(f"Transfer-Encoding: {name}", raw, UNKNOWN_CODING) for name, raw in CODINGS.items()),
    *(Attack(f"chunk: {name}", chunks(body), streams=True) for name, body in CHUNKS.items()),
    *(Attack(f"line: {name}", raw) for name, raw in LINES.items()),
    *(Attack(f"start line: {name}", get(first=first), VERSION) for name, first in STARTS.items()),
    *(Attack(f"version: {name}", get(first=first), VERSION) for name, first in VERSIONS.items()),
    *(Attack(f"method: {name}", get(first=first), frozenset({400, 501})) for name, first in METHODS.items()),
    *(Attack(f"target: {name}", get(first=first), frozenset({400, 421})) for name, first in TARGETS.items()),
    *(Attack(f"Host: {name}", get(host=host)) for name, host in HOSTS.items()),
    Attack("CONNECT", get(first=b"CONNECT www.example:80 HTTP/1.1"), frozenset({400, 405})),
    Attack("CONNECT with a path", get(first=b"CONNECT MARK HTTP/1.1"), frozenset({400, 405})),
    Attack("several leading blank lines", b"\r\n\r\n\r\n" + get()),
    Attack("leading LF", b"\n\n" + get()),
    Attack("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 64),
    Attack("binary", bytes(range(256))),
]


def play(edge: Node, recorder: Recorder, attack: Attack) -> tuple[Talk, bytes, bytes]:
    """(the exchange, the case's own path, the smuggled path)."""
    number = next(_numbers)
    mark, smuggled = f"/mark-{number}".encode(), f"/smuggled-{number}".encode()
    raw = attack.raw.replace(b"MARK", mark)
    return say(edge, raw + request(smuggled.decode())), mark, smuggled


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
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
