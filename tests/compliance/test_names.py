"""Names, paths and headers: what is matched is what is forwarded, and forged header fields are not trusted."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from sdlb.node.audit.attack_rows import ENCODED_PATHS, FORGED
from tests.compliance.recorder import Recorder
from tests.compliance.wire import HOST, Talk, counts, dial, listen, request, say
from tests.e2e.cluster import Cluster, Node

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def two(nodes: Cluster, edge: Node) -> Iterator[tuple[Recorder, Recorder]]:
    """(open, closed): two services of paths.example; /closed* belongs to the second."""
    with Recorder() as open_, Recorder() as closed:
        first = nodes.register(edge, "open-1.0.0", "paths.example/*", open_.endpoint)
        second = nodes.register(edge, "closed-1.0.0", "paths.example/closed*", closed.endpoint)
        nodes.reachable([edge], "http://paths.example/", "open-1.0.0")
        nodes.reachable([edge], "http://paths.example/closed", "closed-1.0.0")
        yield open_, closed
        first.gone()
        second.gone()


def path_request(target: str) -> bytes:
    return request(target, b"Connection: close").replace(HOST, b"Host: paths.example\r\n")


TRICKS = {
    "dots": "/open/../closed/x",
    "dots to the top": "/../../closed/x",
    "dot": "/./closed/x",
    "encoded dots": "/open/%2e%2e/closed/x",
    "half-encoded dots": "/open/.%2E/closed/x",
    "encoded dots up": "/%2e%2e/%2e%2e/closed/x",
    "encoded letter": "/%63losed/x",
    "encoded letters": "/%43losed/x",
    "double slash": "//closed/x",
    "double slash inside": "/open//../closed/x",
    "parameters": "/open;/../closed/x",
    "parameter on dots": "/open/..;/closed/x",
    "backslash": "/open\\..\\closed/x",
    "encoded backslash": "/open%5c..%5cclosed/x",
    "encoded slash": "/open%2f..%2fclosed/x",
    "slash before": "/%2fclosed/x",
    "NUL": "/closed%00/x",
    "NUL before": "/%00/../closed/x",
    "overlong": "/open/%c0%ae%c0%ae/closed/x",
    "double encoding": "/open/%252e%252e/closed/x",
    "three dots": "/open/.../closed/x",
    "trailing dots": "/closed/x/..",
    "trailing dot": "/closed/.",
    "odd case": "/CLOSED/x",
    "query with dots": "/open?/../closed/x",
    "bad escape": "/open/%zz/../closed/x",
    "cut escape": "/closed%2",
    "only dots": "/..",
    "absolute": "http://paths.example/open/../closed/x",
    "IIS unicode": "/open/%u002e%u002e/closed/x",
    "tab": "/open/..%09/closed/x",
    "colon": "/open/..:/closed/x",
}


@pytest.mark.parametrize("target", TRICKS.values(), ids=TRICKS)
def test_what_is_matched_is_what_is_forwarded(edge: Node, two: tuple[Recorder, Recorder], target: str) -> None:
    """Whoever gets it: its path, read once more by the endpoint, must still lie on that endpoint's own side."""
    before = [len(recorder.completed) for recorder in two]
    talk = say(edge, path_request(target))
    assert talk.statuses in ([200], [400]), talk.raw[:300]
    got = [recorder.completed[was:] for recorder, was in zip(two, before, strict=True)]
    if talk.statuses == [400]:
        assert got == [[], []]
        return
    assert len(got[0]) + len(got[1]) == 1
    is_closed = bool(got[1])
    forwarded = (got[0] or got[1])[0].split(b" ")[1].decode().partition("?")[0]
    resolved = posixpath.normpath("/" + unquote(forwarded).lstrip("/"))
    assert forwarded.startswith("/closed") == is_closed, forwarded
    assert resolved.startswith("/closed") == is_closed, f"{forwarded} is {resolved} to the endpoint"


@pytest.mark.parametrize("target", ENCODED_PATHS)
def test_encoded_slash_backslash_and_nul_are_refused_on_public_nodes(edge: Node, target: str) -> None:
    assert say(edge, request(target)).statuses == [400]


@pytest.mark.parametrize(
    "host",
    ["unknown.example", "www.example.evil", "127.0.0.1", "[::1]", "evilwww.example", "www.exampl", "xn--mnchen-3ya.de"],
)
def test_a_host_without_a_claim_has_no_route(edge: Node, recorder: Recorder, host: str) -> None:
    before = len(recorder.completed)
    talk = say(edge, b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n\r\n")
    assert talk.statuses[0] in (404, 421) and len(recorder.completed) == before


# ------------------------------------------------------------------ headers


def forwarded(edge: Node, recorder: Recorder, *fields: bytes) -> tuple[Talk, bytes]:
    """(the answer, the head that the endpoint was sent, in lower case)"""
    mark = f"/head-{next(_numbers)}"
    talk = say(edge, request(mark, b"Connection: close", *fields))
    seen = [item for item in recorder.completed if mark.encode() in item]
    return talk, (seen[0].lower() if seen else b"")


ENDS_HERE = {"Proxy", "Proxy-Connection", "Proxy-Authorization"}
"""For the next proxy by their meaning: they end here without being forged."""


@pytest.mark.parametrize(
    ("name", "value"), [*FORGED.items(), ("Content_Length", b"6.6.6.6")], ids=[*FORGED, "Content_Length"]
)
def test_what_a_client_forges_is_dropped(edge: Node, recorder: Recorder, name: str, value: bytes) -> None:
    with counts(edge, "forged_fields_total" if name not in ENDS_HERE else None):
        talk, head = forwarded(edge, recorder, name.encode() + b": " + value)
    assert talk.statuses == [200]
    assert b"evil" not in head and b"6.6.6.6" not in head and b"port: 6666" not in head
    assert b"\r\nx-forwarded-for: 127.0.0.1\r\n" in head


def test_stripping_our_headers_by_connection_does_not_work(edge: Node, recorder: Recorder) -> None:
    with counts(edge, "forged_fields_total"):
        talk, head = forwarded(
            edge,
            recorder,
            b"Connection: x-forwarded-for, x-forwarded-proto, forwarded, via, host, content-length, authorization, x-mine",
            b"Authorization: Basic eDp5",
            b"X-Mine: hop",
        )
    if talk.statuses == [400]:
        assert not head
        return
    assert talk.statuses == [200]
    for needed in (b"x-forwarded-for: 127.0.0.1", b"x-forwarded-proto: http", b"host: www.example", b"via: "):
        assert b"\r\n" + needed in head
    assert b"\r\nauthorization: basic edp5\r\n" in head, "credentials are kept or refused, never silently lost"
    assert b"x-mine" not in head


def test_hop_by_hop_fields_end_here(edge: Node, recorder: Recorder) -> None:
    _, head = forwarded(edge, recorder, b"Keep-Alive: timeout=9", b"TE: gzip", b"Upgrade: x", b"Trailer: y")
    for name in (b"\r\nkeep-alive:", b"\r\nte: gzip", b"\r\nupgrade:"):
        assert name not in head


def test_a_loop_is_answered_508(edge: Node, recorder: Recorder) -> None:
    """By a name that only this node has: that of its host is put there by other proxies, too."""
    talk, head = forwarded(edge, recorder, b"Via: 1.1 edge, 1.1 edge (Varnish/6.0)")
    assert talk.statuses == [200]
    own = head.rpartition(b"\r\nvia: ")[2].partition(b"\r\n")[0]
    talk, head = forwarded(edge, recorder, b"Via: " + own)
    assert talk.statuses == [508], "our own name in Via: it has been here before"
    assert not head


def test_via_of_others_is_kept_in_order(edge: Node, recorder: Recorder) -> None:
    talk, head = forwarded(edge, recorder, b"Via: 1.0 fred, 1.1 other.example")
    assert talk.statuses == [200]
    assert b"fred" not in head or head.index(b"fred") < head.index(b"edge")


LIMITS = {
    "a long target": (request("/" + "x" * 70_000), {414, 431}),
    "a long field": (request("/", b"X: " + b"y" * 70_000), {431}),
    "a huge cookie": (request("/", b"Cookie: a=" + b"y" * 70_000), {431}),
    "thousands of fields": (request("/", *(b"X-%d: y" % n for n in range(3000))), {431}),
    "one field over a hundred": (request("/", *(b"X-%d: y" % n for n in range(101))), {431}),
    "a long name": (request("/", b"X" * 70_000 + b": y"), {431}),
    "a start line without an end": (b"GET /" + b"x" * 100_000, {414, 431, 400}),
    "hundreds of ranges": (
        request("/", b"Range: bytes=" + b",".join(b"0-%d" % n for n in range(500))),
        {416, 431, 400},
    ),
}


@pytest.mark.parametrize(("raw", "statuses"), LIMITS.values(), ids=LIMITS)
def test_limits_of_size_and_number(edge: Node, recorder: Recorder, raw: bytes, statuses: set[int]) -> None:
    before = len(recorder.received)
    talk = say(edge, raw)
    assert len(talk.statuses) == 1 and talk.statuses[0] in statuses, talk.raw[:200]
    assert talk.closed and len(recorder.received) == before


def test_what_is_within_the_limits_passes(edge: Node) -> None:
    fields = [b"X-%d: " % number + b"y" * 500 for number in range(80)]
    with dial(edge) as connection:
        connection.sendall(request("/" + "x" * 8000, *fields))
        assert listen(connection, 3.0, whole=1).statuses == [200]
