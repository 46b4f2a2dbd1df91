"""A Hello is validated before any of its values reach an engine or a disk."""

from __future__ import annotations

import pytest

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import Hello, Refused
from tests.core.forest import Forest


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("host-9", ""),
        ("host-9", "example.com:80"),
        ("host-9", "10.0.0.1:0"),
        ("host-9", "10.0.0.1:70000"),
        ("host-9", "0.0.0.0:80"),
        ("host-9", "10.0.0.1"),
        ("", "10.0.0.1:80"),
        ("host 9", "10.0.0.1:80"),
        ("host-9\n", "10.0.0.1:80"),
        ("n" * 65, "10.0.0.1:80"),
        ("host-1", "[fe80::1%eth0]:80"),  # the engine would refuse the whole table
    ],
)
def test_a_child_that_cannot_be_reached_by_name_and_address_is_refused(name: str, address: str) -> None:
    root = Forest({"root": ()})["root"]
    effects = root.balancer.handle(ev.ChildConnected(7, Hello(name, "id", 1, address)), root.forest.now)
    refused = [effect.message for effect in effects if isinstance(effect, ef.ToChild)]
    assert [type(message) for message in refused] == [Refused]
    assert "expected" in refused[0].detail
    assert ef.DropChild(7) in effects
    assert not any(isinstance(effect, ef.Apply | ef.Persist) for effect in effects)
    assert root.balancer.view.tree()["children"] == []
