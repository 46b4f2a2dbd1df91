"""The audit's attacks on a server that accepts everything: they find it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from sdlb.node.audit import attack
from sdlb.node.audit import attack_rows as rows
from sdlb.node.audit.attack import Target
from sdlb.node.audit.canary import Canary, whole


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


def test_only_what_the_sites_allow_is_left_out_of_the_handshakes(naive: Target) -> None:
    """A site with `dhe = true` offers finite-field Diffie-Hellman, and a wildcard site serves every name."""
    assert attack.hellos(naive) == rows.HELLOS
    assert rows.HELLOS.keys() - attack.hellos(replace(naive, dhe=True)).keys() == {rows.FINITE_FIELD}
    named = {name for name, hello in rows.HELLOS.items() if hello.name != b"CANARY"}
    assert rows.HELLOS.keys() - attack.hellos(replace(naive, every_name=True)).keys() == named != set()
