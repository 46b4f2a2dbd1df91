"""What an instance registers is checked to the last character: a line break in a name would end a header."""

from __future__ import annotations

from typing import Any

import pytest

from sdlb.model.address import check_address
from sdlb.model.problem import Invalid
from sdlb.node.specs import Health, InstanceBody, check_id, read_spec

GOOD: dict[str, Any] = {
    "service": "web",
    "version": "1.0.0",
    "routes": ["example.com/x"],
    "endpoint": "127.0.0.1:8001",
    "health": Health(kind="http", path="/health"),
}


def test_good() -> None:
    assert read_spec("web-1", InstanceBody(**GOOD)).routes == ("example.com/x",)


def test_what_it_speaks() -> None:
    assert read_spec("web-1", InstanceBody(**GOOD)).protocol == "http1"
    spec = read_spec("grpc-1", InstanceBody(**{**GOOD, "protocol": "h2c", "health": Health()}))
    assert (spec.protocol, spec.health.kind) == ("h2c", "tcp")


BAD: dict[str, Any] = {
    "service": "web\n",
    "version": "1.0.0\n",
    "routes": ["example.com/x\n"],
    "endpoint": "127.0.0.1:8001\n",
    "compatible": ["1.0.1\n"],
    "health": Health(kind="http", path="/health\n"),
}


@pytest.mark.parametrize("key", BAD)
def test_a_line_break_at_the_end_is_refused(key: str) -> None:
    with pytest.raises(Invalid):
        read_spec("web-1", InstanceBody(**{**GOOD, key: BAD[key]}))


@pytest.mark.parametrize("text", ["a\n", "a\r", "a b", "", "é"])
def test_bad_ids(text: str) -> None:
    with pytest.raises(Invalid):
        check_id(text)


@pytest.mark.parametrize("text", ["host\n:80", "host:80\n", "host\r:80", "[::1%lo]:80", "[fe80::1%eth0]:80"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises((Invalid, ValueError)):
        check_address(text)
