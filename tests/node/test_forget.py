"""`DELETE /v1/children/{name}`: refused with one clear error, and done only when it is on disk."""

from __future__ import annotations

import asyncio

import pytest

from sdlb.core.events import ChildConnected
from sdlb.core.messages import Hello
from sdlb.node import schema
from tests.node.lone import Lone
from tests.node.test_api import check, problem, scenario


async def silent(node: Lone, name: str, link: int) -> None:
    """A child that was connected and whose lease has expired."""
    await node.loop.do(ChildConnected(link, Hello(name, f"id-{name}", 1, "127.0.0.1:7001")))
    problem(await node.http.delete(f"/v1/children/{name}"), "child-in-touch")
    while (node.balancer.view.child(name) or {"state": ""})["state"] != "suspect":
        await asyncio.sleep(0.02)


@scenario
async def test_a_silent_child_is_forgotten(node: Lone) -> None:
    await silent(node, "host-1", 1)
    assert check(await node.http.delete("/v1/children/host-1"), schema.Child)["state"] == "suspect"
    problem(await node.http.delete("/v1/children/host-1"), "no-such-child")
    assert "child/host-1" not in node.store.disk


@pytest.mark.promise(8)
@scenario
async def test_it_is_not_reported_as_done_before_it_is_on_disk(node: Lone) -> None:
    await silent(node, "host-1", 1)
    node.store.fails = "disk full"
    problem(await node.http.delete("/v1/children/host-1"), "not-written")
    assert "child/host-1" in node.store.disk
    node.store.fails = ""
    while not node.loop.writes:
        await asyncio.sleep(0.02)
    assert "child/host-1" not in node.store.disk
