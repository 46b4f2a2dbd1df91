"""Rollouts over the local API: which root carries an order out, what is refused and why, and what the answers have."""

from __future__ import annotations

import asyncio
import getpass
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from sdlb.core.effects import Answered, Execute
from sdlb.core.messages import RootAnswer
from sdlb.model.rollout import RolloutSpec
from sdlb.node import rollouts as calls
from sdlb.node import schema_rollouts as schema
from sdlb.node.answers import shaped
from sdlb.node.authority import Authority
from sdlb.node.problems import Refusal, body_of
from tests.node import rollout_acts as acts
from tests.node.lone import Lone, lone
from tests.node.test_api import check, problem, scenario

ME = getpass.getuser()
DEFAULT = shaped(schema.RolloutSettings, msgspec.to_builtins(RolloutSpec(drain_by_policy=True)))


async def start(node: Lone, version: str = "1.0.2", **more: Any) -> dict[str, Any]:
    answer = await node.http.post("/v1/rollouts", json={"service": "catalog", "version": version, **more})
    return check(answer, schema.RolloutOrdered)


async def order(node: Lone, verb: str, which: str = "catalog", **more: Any) -> dict[str, Any]:
    return check(await node.http.post(f"/v1/rollouts/{which}/{verb}", json=more), schema.RolloutOrdered)


async def found(node: Lone, which: str = "catalog") -> dict[str, Any]:
    return check(await node.http.get(f"/v1/rollouts/{which}"), schema.RolloutFound)["rollout"]


@scenario
async def test_a_rollout_is_planned_started_and_shown(node: Lone) -> None:
    await acts.release(node, "1.0.2")
    await acts.report(node)
    body = {"service": "catalog", "version": "1.0.2", "soak_s": 5, "by": "release-bot"}
    planned = check(await node.http.post("/v1/rollouts?dry_run=1", json=body), schema.RolloutOrdered)
    assert (planned["dry_run"], planned["objection"], planned["rollout"]) == (True, "", None)
    assert (planned["plan"]["nodes"], planned["plan"]["baseline"], planned["plan"]["floor"]) == (4, 400, 300)
    assert check(await node.http.get("/v1/rollouts"), schema.Rollouts)["rollouts"] == []
    done = check(await node.http.post("/v1/rollouts", json=body), schema.RolloutOrdered)
    assert (done["node"], done["owner"], done["verb"], done["by"]) == ("edge-1", "edge-1", "start", "release-bot")
    assert (done["rollout"]["id"], done["plan"]["to"]) == ("r-1", "1.0.2")
    rollout = await found(node)
    assert rollout == await found(node, "r-1")
    assert (rollout["state"], rollout["by"], rollout["owner_here"]) == ("preparing", "release-bot", True)
    assert rollout["spec"] == {**DEFAULT, "soak_s": 5}
    assert rollout["digest"] == "a" * 64
    assert [each["id"] for each in rollout["history"]] == ["r-1"]
    (one,) = check(await node.http.get("/v1/rollouts"), schema.Rollouts)["rollouts"]
    assert one == rollout


@scenario
async def test_settings_come_from_the_call_then_from_the_policy_then_from_the_default(node: Lone) -> None:
    await acts.release(node, "1.0.1", "1.0.2")
    await acts.report(node)
    for name, table in (("*", {"soak_s": 7, "first": 2}), ("catalog", {"soak_s": 9, "nodes_out_max": 3})):
        answer = await node.http.put(f"/v1/policies/{name}", json={"rollout": table})
        assert answer.status_code == 200, answer.text
    done = await start(node, "1.0.1", drain_s=4)
    expected = {**DEFAULT, "first": 2, "soak_s": 9, "nodes_out_max": "3", "drain_s": 4, "drain_by_policy": False}
    assert done["rollout"]["spec"] == expected
    await node.http.put("/v1/policies/catalog", json={})
    assert (await found(node))["spec"] == expected, "what has begun ends as it began"
    done = await start(node, "1.0.2", supersede=True, soak_s=0)
    assert done["rollout"]["spec"] == {**DEFAULT, "first": 2, "soak_s": 0}


@scenario
async def test_settings_of_another_release_are_refused(node: Lone) -> None:
    await acts.release(node, "1.0.1")
    await acts.report(node)
    order = calls.Order("start", "catalog", "ann", "1.0.1", {"soak_s": "long"}, owner="edge-1")
    with pytest.raises(Refusal, match="the settings of the rollout cannot be read") as refused:
        await calls.run_here(node.loop, Execute("1", "POST", calls.PATH, msgspec.json.encode(order), "host-1"))
    assert refused.value.code == "bad-json"


@scenario
async def test_nodes_slots_and_capacity_are_counted(node: Lone) -> None:
    await acts.release(node, "1.0.1", "1.0.2")
    await acts.report(node)
    await start(node)
    await acts.report(node, counts={"prepared": 3})
    rollout = await found(node)
    assert (rollout["nodes"]["prepared"], rollout["detail"]) == (3, "3 of 4 nodes have fetched 1.0.2")
    await acts.report(node, counts={"prepared": 4})
    await acts.out(node, "host-4", prepared=3)
    rollout = await found(node)
    assert rollout["capacity"] == {"ready": 300, "baseline": 400, "floor": 300}
    (slot,) = rollout["slots"]
    assert (slot["node"], slot["phase"], slot["share"], slot["detail"]) == ("host-4", "draining", 100, "2 in flight")
    assert rollout["nodes"] == {
        "all": 4,
        "done": 0,
        "out": 1,
        "queued": 0,
        "ready": 0,
        "failed": 0,
        "prepared": 4,
        "waiting": 3,
    }
    assert rollout["next"] == "another node, when host-4 is verified"
    await acts.back(node, "host-4", done=4)
    rollout = await found(node)
    assert (rollout["state"], rollout["settled"]) == ("done", "1.0.2")


@scenario
async def test_orders_are_carried_out_and_refused_with_the_reason(node: Lone) -> None:
    await acts.release(node, "1.0.1", "1.0.2")
    await acts.report(node)
    await start(node, "1.0.1")
    await acts.report(node, counts={"done": 4})
    await acts.report(node, counts={"done": 4})
    assert (await found(node))["state"] == "done"
    for verb in ("pause", "resume", "promote", "abort", "adopt"):
        answer = await node.http.post(f"/v1/rollouts/catalog/{verb}", json={})
        assert answer.status_code == 409
        assert problem(answer, "rollout-refused") == "no rollout of catalog is in progress"
    await start(node)
    answer = await node.http.post("/v1/rollouts", json={"service": "catalog", "version": "1.0.1"})
    assert "r-2 to 1.0.2 is preparing; abort it first" in problem(answer, "rollout-refused")
    assert (await order(node, "pause", "r-2", by="ann"))["rollout"]["detail"] == "paused by ann"
    assert (await order(node, "resume"))["rollout"]["state"] == "preparing"
    answer = await node.http.post("/v1/rollouts/r-1/pause", json={})
    assert problem(answer, "rollout-refused") == "rollout r-1 of catalog is finished: done"
    assert (await found(node, "r-1"))["state"] == "done"
    answer = await node.http.post("/v1/rollouts/catalog/adopt", json={})
    assert "edge-1 owns rollout r-2 of catalog and can be reached" in problem(answer, "rollout-refused")
    superseding = await start(node, "1.0.2", supersede=True)
    assert (superseding["rollout"]["id"], (await found(node, "r-2"))["state"]) == ("r-3", "superseded")
    aborted = await node.http.post("/v1/rollouts/catalog/abort")  # without a body
    assert check(aborted, schema.RolloutOrdered)["rollout"]["state"] == "undone"
    codes = [each.code for each in node.journal.recent if each.code == "rollout-state"]
    assert len(codes) >= 6


@scenario
async def test_undo_goes_back_and_shows_it_before(node: Lone) -> None:
    await acts.release(node, "1.0.1", "1.0.2")
    await acts.report(node)
    for version in ("1.0.1", "1.0.2"):
        await start(node, version, soak_s=7)
        for _ in range(2):
            await acts.report(node, counts={"done": 4})
    shown = check(await node.http.post("/v1/rollouts/catalog/undo?dry_run=1", json={}), schema.RolloutOrdered)
    assert (shown["plan"]["before"], shown["plan"]["to"], shown["objection"]) == ("1.0.2", "1.0.1", "")
    assert (await found(node))["id"] == "r-2"
    undone = (await order(node, "undo"))["rollout"]
    assert (undone["id"], undone["undoes"], undone["before"], undone["to"]) == ("r-3", "r-2", "1.0.2", "1.0.1")
    assert undone["spec"]["soak_s"] == 7
    detail = problem(await node.http.delete("/v1/releases/catalog-1.0.1"), "release-refused")
    assert detail == "rollout r-3 of catalog is in progress and needs catalog-1.0.1; end it first"


@scenario
async def test_a_rollout_that_cannot_start_says_why(node: Lone) -> None:
    body = {"service": "catalog", "version": "1.0.2"}
    answer = await node.http.post("/v1/rollouts", json=body)
    assert problem(answer, "rollout-refused") == "there is no release catalog-1.0.2; add it with 'sdlb release add'"
    await acts.release(node, "1.0.2")
    detail = problem(await node.http.post("/v1/rollouts", json=body), "rollout-refused")
    assert detail == "no node runs catalog: its node files have no [role.ROLE.catalog]"
    planned = check(await node.http.post("/v1/rollouts?dry_run=1", json=body), schema.RolloutOrdered)
    assert planned["objection"] == detail
    assert planned["plan"]["problems"] == [detail]
    await node.http.delete("/v1/releases/catalog-1.0.2")
    await acts.report(node)
    problem(await node.http.post("/v1/rollouts", json=body), "rollout-refused")


@scenario
async def test_an_analysis_needs_steps_of_the_call_or_of_the_policy(node: Lone) -> None:
    await acts.release(node, "1.0.2")
    await acts.report(node)
    body = {"service": "catalog", "version": "1.0.2", "analysis": {}}
    detail = problem(await node.http.post("/v1/rollouts", json=body), "rollout-refused")
    assert detail == "the analysis stands without a step, and the policy of catalog has none; add step"
    assert check(await node.http.get("/v1/rollouts"), schema.Rollouts)["rollouts"] == []


@scenario
async def test_what_the_tree_runs_is_listed(node: Lone) -> None:
    await acts.release(node, "1.0.2")
    await acts.report(node, waiting={"1.0.2": 50})
    (role,) = check(await node.http.get("/v1/roles"), schema.Roles)["roles"]
    expected = {"service": "catalog", "version": "", "rollout": "", "state": "", "to": ""}
    assert role == {**expected, "nodes": 4, "ready": 400, "waiting": {"1.0.2": 50}}
    await start(node)
    (role,) = check(await node.http.get("/v1/roles"), schema.Roles)["roles"]
    assert (role["rollout"], role["state"], role["to"]) == ("r-1", "preparing", "1.0.2")
    assert check(await node.http.get("/v1/agent"), schema.Agent) == {"node": "edge-1", "roles": []}


@pytest.mark.parametrize(
    ("path", "body", "code", "says"),
    [
        ("", b"{", "bad-json", "is not JSON"),
        ("", {"service": "catalog"}, "bad-json", "`version`"),
        ("", {"service": "c d", "version": "1"}, "bad-service", "c d"),
        ("", {"service": "c", "version": "1 0"}, "bad-version", "1 0"),
        ("", {"service": "c", "version": "1", "first": 0}, "bad-json", "first"),
        ("", {"service": "c", "version": "1", "soak": 1}, "bad-json", "`soak`"),
        ("", {"service": "c", "version": "1", "soak_s": -1}, "bad-json", "soak_s"),
        ("", {"service": "c", "version": "1", "nodes_out_max": "0%"}, "bad-json", "nodes_out_max"),
        ("", {"service": "c", "version": "1", "side_by_side": "maybe"}, "bad-json", "side_by_side"),
        ("?dry_run=yes", {"service": "c", "version": "1"}, "bad-query", "dry_run"),
        ("/catalog/pause", {}, "no-such-rollout", "a service catalog, or with that id"),
        ("/r-9/abort", {}, "no-such-rollout", "r-9"),
        ("/catalog/stop", {}, "bad-query", "'stop' is not an order for a rollout; use pause, resume"),
        ("/catalog/start", {}, "bad-query", "'start'"),
        ("/c%20d/pause", {}, "bad-service", "c d"),
        ("/catalog/pause", {"why": "x"}, "bad-json", "`why`"),
    ],
)
def test_bad_orders(tmp_path: Path, path: str, body: Any, code: str, says: str) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            detail = problem(await node.http.post(f"/v1/rollouts{path}", content=raw), code)
            assert says in detail and "\n" not in detail
            problem(await node.http.get("/v1/rollouts/catalog"), "no-such-rollout")

    asyncio.run(run())


# ---------------------------------------------------------------------- several roots


class Roots:
    """Answers of several roots, in the place of the tree that carries the calls. A root is a `Lone` node's own code."""

    def __init__(self, nodes: dict[str, Lone], lost: tuple[str, ...] = ()) -> None:
        self.nodes = nodes
        self.lost = lost
        self.origin: Any = lambda answered: Authority.origin(nodes["edge-1"].authority, answered)

    async def call_roots(self, method: str, path: str, body: bytes = b"") -> Answered:
        answers: list[RootAnswer] = []
        for name, node in self.nodes.items():
            if name not in self.lost:
                status, content = await node.authority.run_here(Execute("x", method, path, body, "host-1"))
                answers.append(RootAnswer(name, status, content))
        return Answered("x", tuple(reversed(answers)), self.lost)


def with_two_roots(test: Any) -> Any:
    """Two roots that know the same documents and reports. Their names differ, all else is their own."""

    def run(tmp_path: Path) -> None:
        async def both() -> None:
            (tmp_path / "1").mkdir()
            (tmp_path / "2").mkdir()
            async with lone(tmp_path / "1") as one, lone(tmp_path / "2") as two:
                named = replace(one.balancer.settings, name="edge-2", node_id="id-2")
                two.balancer.settings = two.balancer._state.settings = named
                await test(one, two)

        asyncio.run(both())

    run.__name__ = test.__name__
    return run


def share(source: Lone, *others: Lone) -> None:
    """The documents reach the other roots, as through their children."""
    for node in others:
        for doc in source.balancer._state.policies.docs.values():
            node.balancer._state.policies.adopt(doc)


async def at(roots: Roots, verb: str, *, dry_run: bool = False) -> dict[str, Any]:
    rollouts = calls.Rollouts(roots, "host-1")  # pyright: ignore[reportArgumentType]
    return await rollouts.order(calls.Order(verb, "catalog", "ann", "1.0.2"), dry_run=dry_run)


@with_two_roots
async def test_a_rollout_starts_at_the_first_root_only_and_orders_go_to_it(one: Lone, two: Lone) -> None:
    for node in (one, two):
        await acts.release(node, "1.0.2")
        await acts.report(node)
    both = Roots({"edge-1": one, "edge-2": two})
    assert (await at(both, "start"))["owner"] == "edge-1"
    assert two.balancer.view.rollouts() == []
    share(one, two)
    assert two.balancer.view.rollouts()[0]["owner_here"] is False
    assert (await at(both, "pause"))["owner"] == "edge-1"
    with pytest.raises(Refusal, match="edge-1 owns rollout r-1 of catalog and can be reached"):
        await at(both, "adopt")
    shown = await calls.Rollouts(both, "host-1").all()  # pyright: ignore[reportArgumentType]
    assert [(each["state"], each["owner_here"]) for each in shown["rollouts"]] == [("paused", True)]
    roles = await calls.Rollouts(both, "host-1").roles()  # pyright: ignore[reportArgumentType]
    assert [(each["nodes"], each["ready"]) for each in roles["roles"]] == [(8, 800)]


@with_two_roots
async def test_without_the_owner_another_root_may_adopt(one: Lone, two: Lone) -> None:
    for node in (one, two):
        await acts.release(node, "1.0.2")
        await acts.report(node)
    await at(Roots({"edge-1": one, "edge-2": two}), "start")
    share(one, two)
    alone = Roots({"edge-1": one, "edge-2": two}, lost=("edge-1",))
    with pytest.raises(Refusal) as refused:
        await at(alone, "pause")
    assert (refused.value.code, refused.value.status) == ("no-owner", 503)
    assert refused.value.detail == (
        "pause catalog: edge-1 owns rollout r-1 of catalog, not edge-2; not reached: edge-1; "
        "if its owner is lost, 'sdlb rollout adopt' continues it at another root"
    )
    adopted = await at(alone, "adopt")
    assert (adopted["owner"], adopted["rollout"]["owner"], adopted["rollout"]["term"]) == ("edge-2", "edge-2", 2)
    assert (await at(alone, "pause"))["owner"] == "edge-2"


@with_two_roots
async def test_a_root_that_was_not_meant_starts_nothing(one: Lone, two: Lone) -> None:
    await acts.release(two, "1.0.2")
    await acts.report(two)
    body = msgspec.json.encode(calls.Order("start", "catalog", "ann", "1.0.2", owner="edge-1"))
    status, content = await two.authority.run_here(Execute("x", "POST", calls.PATH, body, "host-1"))
    assert (status, content) == body_of("no-owner", "edge-1 was to carry it out, not edge-2")
    assert two.balancer.view.rollouts() == []
