"""Events for operators: waiting versions, instances that never become healthy, services without a ready instance."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sdlb.core.events import InstanceHealth
from sdlb.node import health, service_watch
from tests.node.lone import Lone
from tests.node.test_api import put, scenario


def told(node: Lone, *codes: str) -> list[tuple[str, str, str]]:
    return [(each.code, each.level, each.text) for each in node.journal.recent if each.code in codes]


async def until(node: Lone, code: str) -> None:
    async with asyncio.timeout(5):
        while not told(node, code):
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_watch, "LOST_AFTER_S", 0.1)


@scenario
async def test_what_is_away_for_a_moment_is_not_lost(node: Lone) -> None:
    await put(node)
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    for _ in range(3):
        await node.loop.do(InstanceHealth("a", False, "no answer within 1 s"))
        await node.loop.do(InstanceHealth("a", True))
    await asyncio.sleep(0.3)
    assert not told(node, "service-lost", "service-back")


@scenario
async def test_the_loss_of_the_last_instance_is_an_error_and_its_return_is_reported(node: Lone) -> None:
    await put(node)
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    await node.loop.do(InstanceHealth("a", False, "no answer within 1 s"))
    await until(node, "service-lost")
    (version,) = (await node.http.get("/v1/services/web")).json()["services"][0]["versions"]
    assert (version["state"], version["reason_code"]) == ("active", "nothing-ready")
    assert version["reason"] == "no instance is ready on edge-1 (a: no answer within 1 s)"
    await node.loop.do(InstanceHealth("a", True))
    await until(node, "service-back")
    await node.http.delete("/v1/instances/a")
    await until(node, "service-gone")
    assert told(node, "service-lost", "service-back", "service-gone") == [
        ("service-lost", "error", "web has no ready instance any more"),
        ("service-back", "info", "web has a ready instance again"),
        ("service-gone", "warning", "the last version of web is gone: no claim is left"),
    ]


@scenario
async def test_a_wait_is_reported_once_with_its_reason(node: Lone) -> None:
    await put(node)
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    await put(node, "b", version="2.0.0")
    await node.http.get("/v1/instances/b?wait=waiting&timeout_s=5")
    await put(node, "c", service="other")
    await until(node, "claim-refused")
    waits = told(node, "claim-waiting", "claim-refused")
    assert waits == [
        ("claim-waiting", "info", "web-2.0.0 on example.com/* is waiting: 1.0.0 still has 1 instance on edge-1"),
        (
            "claim-refused",
            "warning",
            "other-1.0.0 on example.com/* is refused: example.com/* is held by web (decided by edge-1)",
        ),
    ]


def test_an_instance_that_never_becomes_healthy_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "NEVER_S", 0.3)

    @scenario
    async def run(node: Lone) -> None:
        node.health._report = node.journal.report
        await put(node, health={"kind": "tcp", "interval_s": 0.05, "timeout_s": 0.05}, endpoint="127.0.0.1:1")
        await until(node, "instance-never-healthy")
        await asyncio.sleep(0.3)
        assert told(node, "instance-never-healthy") == [
            (
                "instance-never-healthy",
                "warning",
                "a (web-1.0.0 on 127.0.0.1:1) has not been healthy since it was registered: cannot connect: "
                "Connection refused",
            )
        ]

    run(tmp_path)


@scenario
async def test_ejected_targets_are_reported(node: Lone) -> None:
    await put(node)
    await put(node, "b", endpoint="127.0.0.1:10")
    for name in ("a", "b"):
        await node.http.get(f"/v1/instances/{name}?wait=active&timeout_s=5")
    node.engine.stats.ejected = {"i:a": "5 answers with 5xx in a row"}
    tree = (await node.http.get("/v1/tree")).json()
    assert tree["ejected"] == [{"target": "i:a", "reason": "5 answers with 5xx in a row"}]
    targets = (await node.http.get("/v1/explain?url=example.com/x")).json()["targets"]
    assert [(each["name"], each["chosen"], each["why"]) for each in targets] == [
        ("i:a", False, "ejected by passive health: 5 answers with 5xx in a row"),
        ("i:b", True, ""),
    ]
    node.engine.stats.ejected = {"i:a": "", "i:b": "refused"}
    targets = (await node.http.get("/v1/explain?url=example.com/x")).json()["targets"]
    assert [(each["name"], each["chosen"], each["why"]) for each in targets] == [
        ("i:a", True, "ejected by passive health: requests failed there; chosen because all endpoints are ejected"),
        ("i:b", True, "ejected by passive health: refused; chosen because all endpoints are ejected"),
    ]
