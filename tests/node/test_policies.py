"""Policies of services and patterns over the local API: where values come from, and several of them at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import sdlb
from sdlb.core.effects import Answered
from sdlb.core.events import Event, PoliciesPut, PolicyPut
from sdlb.core.messages import RootAnswer
from sdlb.node import schema
from sdlb.node.authority import Authority
from sdlb.node.problems import Refusal, body_of
from tests.node.lone import Lone, lone
from tests.node.test_api import check, problem, put, scenario

Send = Callable[..., Awaitable[httpx.Response]]


async def change(node: Lone, policies: dict[str, Any], query: str = "", **headers: str) -> httpx.Response:
    return await node.http.put(f"/v1/policies{query}", json={"policies": policies}, headers=headers)


async def listed(node: Lone) -> dict[str, Any]:
    found = check(await node.http.get("/v1/policies"), schema.Policies)
    return {each["name"]: each["document"] for each in found["policies"]}


@scenario
async def test_each_value_has_its_source(node: Lone) -> None:
    for name, document in (("*", {"park": {"timeout_s": 5, "requests_max": 9}}), ("we*", {"priority": "higher"})):
        check(await node.http.put(f"/v1/policies/{name}", json=document), schema.Policy)
    told = check(await node.http.put("/v1/policies/web", json={"park": {"timeout_s": 7}}), schema.Policy)
    assert told["policy"]["park"] == {"timeout_s": 7, "requests_max": 9}
    assert told["policy"]["priority"] == "higher" and told["policy"]["on_silence"] == "open"
    assert told["document"] == {"park": {"timeout_s": 7}}
    assert told["sources"] == {"park.timeout_s": "web", "park.requests_max": "*", "priority": "we*"}
    told = check(await node.http.get("/v1/policies/we*"), schema.Policy)
    assert (told["service"], told["document"], told["revision"]) == ("we*", {"priority": "higher"}, 1)
    assert told["sources"]["park.timeout_s"] == "*"
    local = check(await node.http.get("/v1/policies/other?scope=local"), schema.Policy)
    assert (local["revision"], local["document"], local["policy"]["park"]["timeout_s"]) == (0, {}, 5)
    events = [event.text for event in node.journal.recent if event.code == "policy-set"]
    assert events[-1] == "the policy of web was changed (set at edge-1): park.timeout_s: 5 -> 7"
    problem(await node.http.put("/v1/policies/a**", json={}), "bad-service")
    problem(await node.http.get("/v1/policies/*a"), "bad-service")


@scenario
async def test_a_pattern_acts_on_what_runs(node: Lone) -> None:
    await put(node)
    await put(node, "b", version="2.0.0", endpoint="127.0.0.1:10")
    assert (await node.http.get("/v1/instances/b")).json()["state"] == "waiting"
    await node.http.put("/v1/policies/w*", json={"compatibility": {"rule": "any"}})
    told = check(await node.http.get("/v1/instances/b?wait=active&timeout_s=5"), schema.Instance)
    assert told["state"] == "active"


@scenario
async def test_several_are_set_at_once_or_none(node: Lone) -> None:
    before = check(await node.http.get("/v1/policies"), schema.Policies)
    assert before["policies"] == []
    wanted = {"*": {"priority": "higher"}, "web": {"park": {"timeout_s": 5}}}
    plan = check(await change(node, wanted, "?dry_run=1"), schema.PolicyPlan)
    assert await listed(node) == {} and plan["dry_run"]
    done = check(await change(node, wanted, **{"If-Match": before["etag"]}), schema.PolicyPlan)
    assert await listed(node) == wanted
    assert [each["name"] for each in done["changes"]] == ["*", "web"]
    assert done["changes"][0]["changes"] == ["priority: even -> higher"]
    assert {**done, "dry_run": True} == plan
    answer = await node.http.get("/v1/policies")
    assert answer.headers["etag"] == answer.json()["etag"] == done["etag"] != before["etag"]
    bad = {"*": {"priority": "lower"}, "web": {"priority": "sideways"}}
    assert "policy of web: priority" in problem(await change(node, bad), "bad-policy")
    assert await listed(node) == wanted
    again = check(await change(node, wanted), schema.PolicyPlan)
    assert again["changes"] == [] and again["etag"] == done["etag"]
    assert (await node.http.get("/v1/policies/web")).json()["revision"] == 1, "what is the same is not set again"
    removed = check(await change(node, {"*": {}}), schema.PolicyPlan)
    assert removed["unnamed"] == ["web"] and await listed(node) == {"web": wanted["web"]}
    assert len({event.at for event in node.journal.recent if event.code == "policy-set"}) <= 3


@scenario
async def test_several_are_one_event(node: Lone) -> None:
    """So they are written in one step."""
    events: list[Event] = []
    do = node.loop.do

    async def seen(event: Event) -> None:
        events.append(event)
        await do(event)

    node.loop.do = seen  # type: ignore[method-assign]
    await change(node, {"*": {"priority": "higher"}, "web": {"timeout_s": 3}, "x*": {"timeout_s": 3}})
    (put_all,) = [event for event in events if isinstance(event, PoliciesPut | PolicyPut)]
    assert isinstance(put_all, PoliciesPut) and [each.service for each in put_all.puts] == ["*", "web", "x*"]


@scenario
async def test_an_etag_of_other_policies_changes_nothing(node: Lone) -> None:
    etag = (await node.http.get("/v1/policies")).json()["etag"]
    await node.http.put("/v1/policies/web", json={"priority": "lower"})
    for query in ("", "?dry_run=1"):
        detail = problem(
            await change(node, {"*": {"priority": "higher"}}, query, **{"If-Match": etag}), "policies-changed"
        )
        assert "at edge-1 have changed" in detail
    assert list(await listed(node)) == ["web"]
    problem(await change(node, {"*": {}}, **{"If-Match": "web"}), "bad-query")
    await node.http.put("/v1/policies/web", json={})
    assert (await node.http.get("/v1/policies")).json()["etag"] == etag, "of the content alone"


@scenario
async def test_a_dry_run_tells_what_happens_to_versions_and_shares(node: Lone) -> None:
    await put(node)
    await put(node, "b", version="1.0.1", endpoint="127.0.0.1:10")
    await node.http.get("/v1/instances/b?wait=active&timeout_s=5")
    plan = check(await change(node, {"w*": {"compatibility": {"rule": "exact"}}}, "?dry_run=1"), schema.PolicyPlan)
    (effect,) = plan["effects"]
    assert effect["service"] == "web"
    assert [(each["version"], each["before"], each["after"]) for each in effect["versions"]] == [
        ("1.0.1", "active", "waiting")
    ]
    assert [(each["version"], each["before"], each["after"]) for each in effect["shares"]] == [
        ("1.0.0", 50, 100),
        ("1.0.1", 50, 0),
    ]
    share = {"priority": "share", "shares": {"1.0.1": 5}}
    plan = check(await change(node, {"web": share}, "?dry_run=1"), schema.PolicyPlan)
    assert [(each["version"], each["before"], each["after"]) for each in plan["effects"][0]["shares"]] == [
        ("1.0.0", 50, 95),
        ("1.0.1", 50, 5),
    ]


@scenario
async def test_what_no_root_knows_is_a_warning_or_refused(node: Lone) -> None:
    await put(node)
    unknown = {
        "wob": ({}, {"priority": "higher"}, "unknown-service", "no root knows a service named wob"),
        "wo*": ({}, {"priority": "higher"}, "unknown-service", "no root knows a service that matches wo*"),
        "web": (
            {},
            {"hold": ["1.0.9"]},
            "unknown-version",
            "web has no version 1.0.9 (did you mean 1.0.0?); it has 1.0.0",
        ),
        "w*": ({}, {"pin": ["3.7", ">=1"]}, "unknown-version", "w* has no version 3.7; it has 1.0.0"),
        "we*": (
            {},
            {"gate": [{"name": "a", "kind": "depends_on", "service": "wb", "version": "1"}]},
            "unknown-service",
            "we* depends on wb, and no root knows a service of that name (did you mean web?)",
        ),
    }
    for name, (_, document, code, text) in unknown.items():
        assert problem(await change(node, {name: document}, "?unknown=refuse"), code) == text
        plan = check(await change(node, {name: document}, "?dry_run=1"), schema.PolicyPlan)
        assert plan["warnings"] == [text]
    assert await listed(node) == {}
    fits = {"hold": ["1.0.0", ">=3", "*"], "never_below": "0.9"}
    assert check(await change(node, {"w*": fits}, "?unknown=refuse"), schema.PolicyPlan)["warnings"] == []


@pytest.mark.parametrize(
    ("policies", "says"),
    [
        ({"web": {"gate": [{"name": "w", "kind": "window", "zone": "Europe/Berlni"}]}}, "did you mean 'Europe/Berlin'"),
        ({"web": {"gate": [{"name": "w", "kind": "window", "zone": "../etc/passwd"}]}}, "not known at this node"),
        (
            {
                "*": {"balance": {"algorithm": "hash", "hash_by": "header", "hash_name": "x-user"}},
                "web": {"balance": {"hash_name": ""}},
            },
            "the policy of * they do not fit together",
        ),
        (
            {
                "web": {"gate": [{"name": "a", "kind": "depends_on", "service": "db", "version": "1"}]},
                "d*": {"gate": [{"name": "a", "kind": "depends_on", "service": "web", "version": "1"}]},
            },
            "db -> web -> db",
        ),
        ({"*": {"gate": [{"name": "a", "kind": "depends_on", "service": "db", "version": "1"}]}}, "db -> db"),
    ],
)
def test_documents_that_do_not_fit_together_are_refused(tmp_path: Path, policies: dict[str, Any], says: str) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            for query in ("", "?dry_run=1"):
                assert says in problem(await change(node, policies, query), "bad-policy")
            *first, last = policies
            for name in first:
                assert (await node.http.put(f"/v1/policies/{name}", json=policies[name])).status_code == 200
            assert says.replace("db -> web -> db", "-> db") in problem(
                await node.http.put(f"/v1/policies/{last}", json=policies[last]), "bad-policy"
            )
            assert set(await listed(node)) == set(first)

    asyncio.run(run())


@scenario
async def test_a_long_chain_of_dependencies_is_no_circle(node: Lone) -> None:
    def needs(service: str) -> dict[str, Any]:
        return {"gate": [{"name": "a", "kind": "depends_on", "service": service, "version": "1"}]}

    chain = {f"s{number}": needs(f"s{number + 1}") for number in range(1500)}
    assert (await change(node, chain)).status_code == 200
    assert "s3 -> s4 -> " in (await change(node, {"s10": needs("s3")})).json()["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "bad-json"),
        (b"[]", "bad-json"),
        (b"{}", "bad-json"),
        (b'{"policies": []}', "bad-json"),
        (b'{"policies": {}, "more": 1}', "bad-json"),
        (b'{"policies": {"a b": {}}}', "bad-service"),
        (b'{"policies": {"web": 5}}', "bad-policy"),
        (b"[" * 100_000, "bad-json"),
        (b" " * (1024 * 1024 + 1), "too-large"),
    ],
)
def test_a_bad_body_is_one_problem(tmp_path: Path, body: bytes, code: str) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            problem(await node.http.put("/v1/policies", content=body), code)

    asyncio.run(run())


def test_what_was_set_is_there_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            await change(node, {"*": {"priority": "even"}, "w*": {"sticky": None, "shares": {"1.0.0": 5}}})
            before = (await node.http.get("/v1/policies")).json()
            disk = node.store.disk
        async with lone(tmp_path, disk=disk) as node:
            after = (await node.http.get("/v1/policies")).json()
            assert (after["etag"], after["policies"]) == (before["etag"], before["policies"])
            assert await listed(node) == {"*": {"priority": "even"}, "w*": {"sticky": None, "shares": {"1.0.0": 5}}}

    asyncio.run(run())


# ------------------------------------------------------------------ several roots


def answer(root: str, **body: Any) -> RootAnswer:
    return RootAnswer(root, 200, msgspec.json.encode(body))


def refusal(root: str, code: str, detail: str) -> RootAnswer:
    return RootAnswer(root, *body_of(code, detail))


PLAN: dict[str, Any] = {
    "etag": "e",
    "changes": [{"name": "*", "changes": ["x"]}],
    "effects": [],
    "unnamed": [],
    "doubts": [],
}


class Roots(Authority):
    """Calls to roots get the next answers of a list; `sent` has the calls."""

    def __init__(self, node: Lone, *answers: tuple[RootAnswer, ...]) -> None:
        super().__init__(node.loop)
        self.answers = list(answers)
        self.sent: list[tuple[str, str, dict[str, Any]]] = []

    async def call_roots(self, method: str, path: str, body: bytes = b"") -> Answered:
        self.sent.append((method, path, json.loads(body or b"{}")))
        return Answered("id", self.answers.pop(0), ("edge-9",))


@scenario
async def test_all_roots_check_before_any_root_sets(node: Lone) -> None:
    refused = refusal("edge-2", "policies-changed", "the policies at edge-2 have changed")
    roots = Roots(node, (answer("edge-1", **PLAN), refused))
    with pytest.raises(Exception, match=r"edge-2: the policies at edge-2 have changed.*nothing was changed"):
        await roots.change_policies({"*": {}}, if_match='"e"')
    ((_, _, sent),) = roots.sent
    assert sent == {"policies": {"*": {}}, "if_match": '"e"', "dry_run": True}
    good = (answer("edge-1", **PLAN), answer("edge-2", **PLAN))
    roots = Roots(node, good, (answer("edge-1", **PLAN), refused))
    with pytest.raises(Exception, match=r"edge-2: .*in force at edge-1"):
        await roots.change_policies({"*": {}})
    assert [sent["dry_run"] for _, _, sent in roots.sent] == [True, False]
    roots = Roots(node, good)
    assert (await roots.change_policies({"*": {}}, dry_run=True))["unreachable"] == ["edge-9"]
    assert len(roots.sent) == 1
    roots = Roots(node, (refused,))
    with pytest.raises(Exception, match=r"^the policies at edge-2 have changed$"):
        await roots.change_policies({"*": {}})


@scenario
async def test_one_policy_is_set_at_roots_of_an_earlier_release(node: Lone) -> None:
    """They do not know the call for several."""
    older = refusal("edge-1", "not-found", "PUT /v1/policies is not a call of the authority")
    done = answer("edge-1", service="web", revision=1, origin="edge-1", policy={"priority": "lower"})
    roots = Roots(node, (older,), (done,))
    found = await roots.set_policy("web", b'{"priority": "lower"}')
    assert (found["revision"], found["warnings"], found["document"]) == (1, [], {"priority": "lower"})
    roots = Roots(node, (older,))
    with pytest.raises(Refusal, match="not a call"):
        await roots.change_policies({"web": {}})


@scenario
async def test_a_name_is_unknown_when_no_root_knows_it(node: Lone) -> None:
    doubts = [["unknown-version", "web 1", "web has no version 1; it has 2"], ["unknown-service", "db", "no db"]]
    other = [["unknown-version", "web 1", "web has no version 1; it has 3"]]
    plans = (answer("edge-1", **{**PLAN, "doubts": doubts}), answer("edge-2", **{**PLAN, "doubts": other}))
    found = await Roots(node, plans).change_policies({"*": {}}, dry_run=True)
    assert found["warnings"] == ["web has no version 1; it has 2"]


@scenario
async def test_roots_that_differ_are_named(node: Lone) -> None:
    def entry(revision: int, **document: Any) -> dict[str, Any]:
        return {"name": "web", "revision": revision, "origin": "edge-1", "document": document}

    lists = (
        answer("edge-1", etag="1", policies=[entry(2, priority="lower")]),
        answer("edge-2", etag="2", policies=[entry(1, priority="higher")]),
    )
    found = await Roots(node, lists).policies()
    assert found["policies"] == [entry(2, priority="lower")]
    assert found["disagree"] == [{"service": "web", "text": "the policy at edge-2 differs"}]


# ------------------------------------------------------------------ the clients


def test_the_clients_set_several_policies(tmp_path: Path) -> None:
    def blocking() -> None:
        with sdlb.Client(str(tmp_path / "api.sock")) as client:
            etag = client.policies().etag
            plan = client.set_policies({"*": {"priority": "higher"}}, if_match=etag, dry_run=True)
            assert plan.dry_run and plan.changes[0].changes == ("priority: even -> higher",)
            assert client.policies().policies == ()
            assert client.set_policies({"*": {"priority": "higher"}}, if_match=etag).etag == client.policies().etag
            with pytest.raises(sdlb.Problem, match="have changed") as failure:
                client.set_policies({"*": {}}, if_match=etag)
            assert (failure.value.status, failure.value.code) == (412, "policies-changed")
            with pytest.raises(sdlb.Problem, match="no root knows"):
                client.set_policies({"w*": {"priority": "lower"}}, unknown="refuse")
            assert client.policy("web").sources == {"priority": "*"}

    async def run() -> None:
        async with lone(tmp_path):
            await asyncio.to_thread(blocking)
            async with sdlb.AsyncClient(str(tmp_path / "api.sock")) as client:
                found = await client.policies()
                assert [(each.name, each.document) for each in found.policies] == [("*", {"priority": "higher"})]
                with pytest.raises(sdlb.Problem, match="have changed"):
                    await client.set_policies({"*": {}}, if_match='"0123456789abcdef"')
                assert (await client.set_policies({"*": {}}, if_match=found.etag)).warnings == ()
                assert (await client.policies()).policies == ()

    asyncio.run(run())
