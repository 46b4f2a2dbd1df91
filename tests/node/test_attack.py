"""The audit's attacks on a server that accepts everything: they find it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from sdlb.node.audit import attack, attack_slow
from sdlb.node.audit import attack_rows as rows
from sdlb.node.audit.attack_endpoints import cut_off, play_answer
from sdlb.node.audit.attack_slow import SlowAttacks, play_slow
from sdlb.node.audit.attack_target import Target
from sdlb.node.audit.canary import Canary, whole
from sdlb.node.audit.endpoint_rows import ENDPOINTS
from sdlb.node.audit.slow_rows import SLOW


@pytest.fixture
def naive() -> Iterator[Target]:
    """The canary without a load balancer in front: it answers whatever has the form of a request."""
    with Canary() as canary:
        host, _, port = canary.endpoint.rpartition(":")
        yield Target("listen.http", (host, int(port)), "a.example", "/.audit-", canary)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Content-Length: equal twice", "a request behind it was forwarded"),
        ("line: folded", "a request behind it was forwarded"),
        ("start line: two spaces", "a request behind it was forwarded"),
    ],
)
def test_requests_that_should_be_refused(naive: Target, name: str, expected: str) -> None:
    row = next(each for each in rows.FRAMING if each.name == name)
    assert attack.play_framing(naive, row) == expected


def test_a_forged_field_and_heads_of_http2(naive: Target) -> None:
    assert naive.reaches_canary()
    assert attack.play_forged(naive, "X-Forwarded-For", b"6.6.6.6") == "the endpoint saw it"
    assert not attack.serves_http2(naive)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"GET / HTTP/1.1\r\n\r\nGET", 18),
        (b"GET / HTTP/1.1\r\n", None),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabc", 40),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", None),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET", 59),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX: y\r\n\r\n", 65),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", None),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nab\r\n", 54),
    ],
)
def test_where_a_request_ends(data: bytes, size: int | None) -> None:
    assert whole(data) == size


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("both lengths", "the client got [200], expected 502"),
        ("another protocol", "the client got nothing, expected 502"),
        ("a second response", "the client got a response that it did not request"),
        ("204 with a body", "the client got a response that it did not request"),
    ],
)
def test_endpoints_that_are_believed(naive: Target, name: str, expected: str) -> None:
    row = next(each for each in ENDPOINTS if each.name == name)
    assert play_answer(naive, row) == expected


def test_what_a_client_must_not_take_for_a_whole_response() -> None:
    chunked, announced = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"\r\nContent-Length: 100\r\n\r\nhalf",
    )
    assert cut_off(chunked) and not cut_off(chunked + b"0\r\n\r\n")
    assert cut_off(announced) and not cut_off(announced + b"x" * 96)
    assert not cut_off(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")


def test_slow_clients_that_are_kept(naive: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary itself closes nothing."""
    monkeypatch.setattr(attack_slow, "SLACK_S", 0.5)
    row = next(each for each in SLOW if each.name == "half a head")
    assert play_slow(naive, row, 0.5, threading.Event()) == "still open 1 s later; limits.head_timeout_ms is 0.5 s"
    stopped = threading.Event()
    stopped.set()
    assert play_slow(naive, row, 600.0, stopped)
    assert attack_slow.play_many(naive) == ""


def test_a_limit_that_is_longer_than_the_audit_is_not_waited_for(naive: Target) -> None:
    with SlowAttacks(naive, {each.limit: 100_000 for each in SLOW}) as slow:
        found = list(slow.findings())
    assert [each.result for each in found] == ["pass"] * len(found)
    assert all("not played: limits." in each.seen for each in found[1:])


def test_only_what_the_sites_allow_is_left_out_of_the_handshakes(naive: Target) -> None:
    """A site with `dhe = true` offers finite-field Diffie-Hellman, and a wildcard site serves every name."""
    assert attack.hellos(naive) == rows.HELLOS
    assert rows.HELLOS.keys() - attack.hellos(replace(naive, dhe=True)).keys() == {rows.FINITE_FIELD}
    named = {name for name, hello in rows.HELLOS.items() if hello.name != b"CANARY"}
    assert rows.HELLOS.keys() - attack.hellos(replace(naive, every_name=True)).keys() == named != set()
