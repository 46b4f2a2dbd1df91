"""A lone root with nodes that are only reports: what rollouts show, without programs that run."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from sdlb.core.events import Tick
from sdlb.model.rollout import GIVE_BACK, TAKE, RoleReport, SlotAsk, SlotReport
from tests.node.lone import Lone

RELEASE: dict[str, Any] = {"service": "catalog", "artifact": {"any": {"url": "/srv/c.tgz", "sha256": "a" * 64}}}


async def release(node: Lone, *versions: str) -> None:
    for version in versions:
        answer = await node.http.post("/v1/releases", json={**RELEASE, "version": version})
        assert answer.status_code == 200, answer.text


async def report(node: Lone, service: str = "catalog", **fields: Any) -> None:
    """What all nodes together report, at the heartbeat of the root; `counts` by phase, of the rollout in progress."""
    found = RoleReport(**{"nodes": 4, "ready": 400, **fields})
    rollout = node.balancer.view.rollout(service)
    if rollout is not None:
        found = replace(found, counts={f"{rollout['id']} {phase}": count for phase, count in found.counts.items()})
        found = replace(found, slots=tuple(replace(slot, rollout=rollout["id"]) for slot in found.slots))
    node.balancer._reports.put_own(service, found)
    node.balancer._rollouts.on_beat()
    await node.loop.do(Tick())


async def out(node: Lone, name: str, phase: str = "draining", share: int = 100, **counts: int) -> None:
    """A node takes a slot, and reports it."""
    rollout = node.balancer.view.rollout("catalog")
    assert rollout is not None
    answer = node.balancer._rollouts.on_ask(
        SlotAsk("catalog", rollout["id"], rollout["term"], name, TAKE, share), node.balancer._state.now
    )
    assert answer is not None and answer.granted, answer
    slots = (SlotReport(name, "", phase, share, "2 in flight"),)
    await report(node, ready=400 - share, counts={"prepared": 4, **counts, phase: 1}, slots=slots)


async def back(node: Lone, name: str, **counts: int) -> None:
    rollout = node.balancer.view.rollout("catalog")
    assert rollout is not None
    ask = SlotAsk("catalog", rollout["id"], rollout["term"], name, GIVE_BACK, 0)
    node.balancer._rollouts.on_ask(ask, node.balancer._state.now)
    await report(node, counts=counts)
