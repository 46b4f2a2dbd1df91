"""Long lists are made in slices, and come out whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.effects import Execute
from sdlb.core.events import ChildConnected, ChildMessage, InstancePut, InstanceRemove
from sdlb.core.messages import Claim, ClaimKey, Hello, UpState
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.node import reads, schema
from sdlb.node.authority import merge_services
from sdlb.node.lists import Lists
from tests.node.lone import Lone, lone
from tests.node.test_api import check

COUNT = 40
ENTRIES = st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=8) | st.integers(-9, 9)), max_size=4)


class Ticks:
    """A clock on which each look takes a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture(autouse=True)
def _every_step_is_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads.Pace.__init__, "__defaults__", (0.0005, Ticks()))


async def quiet(most_s: float) -> None:
    """Nothing is ever decided."""


def spec(n: int, capacity: int = 100) -> InstanceSpec:
    route, check = f"h{n}.com/*", HealthCheck("none")
    return InstanceSpec(f"i-{n}", f"s-{n}", "1.0.0", (route,), "127.0.0.1:9", health=check, ttl_s=0, capacity=capacity)


async def fill(node: Lone) -> None:
    for n in range(COUNT):
        node.loop.post(InstancePut(spec(n)))
    for n in range(3):
        await node.loop.do(ChildConnected(n, Hello(f"host-{n}", f"id-{n}", 1, "127.0.0.1:8")))
        claims = (Claim(ClaimKey("s-1", "1.0.0", "h1.com/*"), count=1), Claim(ClaimKey("s-1", "1.0.0", "h1.com/a/*")))
        await node.loop.do(ChildMessage(n, UpState(1, True, claims)))


def scenario(test: Any) -> Any:
    def run(tmp_path: Path) -> None:
        async def all_of_it() -> None:
            async with lone(tmp_path) as node:
                await fill(node)
                await test(node)

        asyncio.run(all_of_it())

    run.__name__ = test.__name__
    return run


async def turns(work: Any) -> tuple[Any, int]:
    """What comes of it, and how often the loop ran meanwhile."""
    count = 0

    async def counting() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0)
            count += 1

    beside = asyncio.create_task(counting())
    try:
        return await work, count
    finally:
        beside.cancel()


async def listed(values: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [value async for value in values]


@scenario
async def test_lists_in_slices_are_those_of_the_view(node: Lone) -> None:
    view = Lists(node.balancer.view)
    for found, expected in (
        (reads.services(view, reads.Pace(quiet)), view.services()),
        (reads.instances(view, reads.Pace(quiet)), view.instances()),
        (reads.routes(view, reads.Pace(quiet)), view.routes()),
        (reads.children(view, reads.Pace(quiet)), view.tree()["children"]),
    ):
        values, ran = await turns(listed(found))
        assert [{**each, "silent_s": 0} for each in values] == [{**each, "silent_s": 0} for each in expected]
        assert ran >= len(expected) - 1
    tree = view.tree()
    assert {**view.node(), "children": tree["children"], "instances": tree["instances"]} == tree


@scenario
async def test_what_goes_while_a_list_is_made_is_left_out(node: Lone) -> None:
    view = Lists(node.balancer.view)
    found = reads.instances(view, reads.Pace(quiet))
    first = await anext(found)
    await node.loop.do(InstanceRemove("i-9", 0.0))
    while view.healthy("i-9") is not None:
        await node.loop.instances.wait("i-9", 5.0)
    assert [first["id"], *[each["id"] async for each in found]] == [each["id"] for each in view.instances()]


@scenario
async def test_the_calls_answer_whole_lists(node: Lone) -> None:
    services = check(await node.http.get("/v1/services"), schema.Services)
    assert [each["service"] for each in services["services"]] == sorted(f"s-{n}" for n in range(COUNT))
    local = check(await node.http.get("/v1/services?scope=local"), schema.Services)
    assert local["services"] == services["services"]
    one = check(await node.http.get("/v1/services/s-3"), schema.Services)
    assert one["services"] == [each for each in services["services"] if each["service"] == "s-3"]
    instances = check(await node.http.get("/v1/instances"), schema.Instances)
    assert len(instances["instances"]) == COUNT
    routes = check(await node.http.get("/v1/routes"), schema.Routes)
    assert routes["routes"] == node.balancer.view.routes()
    tree = check(await node.http.get("/v1/tree"), schema.Tree)
    assert [each["name"] for each in tree["children"]] == ["host-0", "host-1", "host-2"]
    assert tree["instances"] == instances["instances"]
    page = (await node.http.get("/metrics")).text
    assert page.count("sdlb_version_instances{") == COUNT


@scenario
async def test_a_root_answers_with_an_entry_a_line(node: Lone) -> None:
    status, content = await node.authority.run_here(Execute("x", "GET", "/v1/services", b""))
    assert status == 200
    assert json.loads(content) == {"services": node.balancer.view.services()}
    assert content.count(b"\n") == COUNT + 1


def test_a_decision_goes_before_a_read(tmp_path: Path) -> None:
    """Once something is to be decided, no slice is taken until it is carried out."""

    async def run() -> None:
        async with lone(tmp_path) as node:
            await fill(node)
            order: list[str] = []
            commit, at_disk, go_on = node.store.commit, asyncio.Event(), asyncio.Event()

            async def slow_commit(puts: Any, durable: bool) -> None:
                at_disk.set()
                await go_on.wait()
                await commit(puts, durable)

            async def decide() -> None:
                await node.loop.do(InstancePut(spec(0, capacity=7)))
                order.append("decided")

            async def read() -> None:
                async for _ in reads.instances(Lists(node.balancer.view), reads.Pace(node.loop.quiet)):
                    order.append("read")

            node.store.commit = slow_commit  # type: ignore[method-assign]
            deciding = asyncio.create_task(decide())
            await at_disk.wait()
            reading = asyncio.create_task(read())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            before = len(order)
            go_on.set()
            await asyncio.gather(deciding, reading)
            assert before == 1
            assert order.index("decided") == 1
            assert order.count("read") == COUNT

    asyncio.run(run())


def test_a_disk_that_hangs_does_not_stop_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "YIELD_S", 0.0)

    async def run() -> None:
        async with lone(tmp_path) as node:
            await fill(node)
            answers = asyncio.Event()
            commit = node.store.commit

            async def stuck(puts: Any, durable: bool) -> None:
                await answers.wait()
                await commit(puts, durable)

            node.store.commit = stuck  # type: ignore[method-assign]
            deciding = asyncio.create_task(node.loop.do(InstancePut(spec(0, capacity=7))))
            listed = check(await node.http.get("/v1/instances"), schema.Instances)
            assert len(listed["instances"]) == COUNT
            assert not deciding.done()
            answers.set()
            await deciding

    asyncio.run(run())


# ------------------------------------------------------------------ encoded lists


@given(ENTRIES)
def test_a_list_can_be_taken_apart(entries: list[dict[str, Any]]) -> None:
    content = reads.document({}, services=[msgspec.json.encode(entry) for entry in entries])
    assert json.loads(content) == {"services": entries}
    assert [json.loads(entry) for entry in reads.entries_of(content, "services")] == entries


@given(ENTRIES)
def test_a_list_in_one_line_can_be_taken_apart_too(entries: list[dict[str, Any]]) -> None:
    """As the release before writes it."""
    found = reads.entries_of(msgspec.json.encode({"services": entries}), "services")
    assert [json.loads(entry) for entry in found] == entries


def test_fields_and_lists_make_one_object() -> None:
    assert json.loads(reads.document({"a": 1, "b": "\n"}, c=[b"1"], d=[])) == {"a": 1, "b": "\n", "c": [1], "d": []}


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda inner: b'{"services":[\n' + inner + b"\n]}"))
def test_anything_is_a_list_or_an_error_that_is_expected(content: bytes) -> None:
    try:
        entries = reads.entries_of(content, "services")
    except msgspec.DecodeError:
        return
    _, merged = asyncio.run(merge_services({"edge-1": entries}, reads.Pace(quiet)))
    assert all(isinstance(json.loads(entry), dict) for entry in merged)


def _service(name: str, active: str) -> bytes:
    return msgspec.json.encode({"service": name, "versions": [{"version": active, "state": "active"}], "more": [name]})


def test_roots_that_disagree_are_named() -> None:
    told = {
        "edge-2": [_service("a", "1"), _service("b", "1"), b"[]", b"{"],
        "edge-1": [_service("b", "2"), _service("c", "1")],
    }
    disagree, merged = asyncio.run(merge_services(told, reads.Pace(quiet)))
    assert merged == [_service("a", "1"), _service("b", "2"), _service("c", "1")]
    assert disagree == [{"service": "b", "text": "edge-1 has 2 active, edge-2 has 1 active"}]
