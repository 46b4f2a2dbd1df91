"""The local API over a real Unix socket, by a client that isn't ours."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from sdlb.core.events import EndpointKey
from sdlb.core.messages import ClaimKey
from sdlb.node import openapi, schema
from sdlb.node.problems import BASE, CODES
from tests.node.lone import Lone, lone

GOOD: dict[str, Any] = {
    "service": "web",
    "version": "1.0.0",
    "routes": ["example.com/*"],
    "endpoint": "127.0.0.1:9",
    "health": {"kind": "none"},
    "ttl_s": 0,
}


def scenario(test: Callable[[Lone], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def all_of_it() -> None:
            async with lone(tmp_path) as node:
                await test(node)

        asyncio.run(all_of_it())

    run.__name__ = test.__name__
    return run


async def put(node: Lone, name: str = "a", **fields: Any) -> httpx.Response:
    return await node.http.put(f"/v1/instances/{name}", json={**GOOD, **fields})


def check(answer: httpx.Response, kind: type[Any], status: int = 200) -> Any:
    """The answer matches the OpenAPI document."""
    assert answer.status_code == status, answer.text
    msgspec.json.decode(answer.content, type=kind)
    return answer.json()


def problem(answer: httpx.Response, code: str) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == BASE + code, document
    assert document["status"] == answer.status_code == CODES[code][0]
    assert document["title"]
    assert document["detail"]
    assert len(document["detail"]) < 600
    return document["detail"]


# ------------------------------------------------------------------ instances


@scenario
async def test_an_instance_from_registration_to_its_end(node: Lone) -> None:
    check(await put(node), schema.Instance, 201)
    told = check(await node.http.get("/v1/instances/a?wait=active&timeout_s=5"), schema.Instance)
    assert told["state"] == "active"
    assert told["decided_by"] == "edge-1"
    assert told["endpoint"] == "127.0.0.1:9"
    assert told["in_flight"] == 0
    check(await put(node), schema.Instance, 200)
    listed = check(await node.http.get("/v1/instances"), schema.Instances)
    assert [each["id"] for each in listed["instances"]] == ["a"]
    drained = check(await node.http.post("/v1/instances/a/drain?deadline_s=5"), schema.Instance)
    assert drained["drained"]
    assert drained["state"] == "drained"
    gone = check(await node.http.delete("/v1/instances/a?deadline_s=5"), schema.Instance)
    assert gone["drained"]
    problem(await node.http.get("/v1/instances/a"), "no-such-instance")
    assert any(delta.delete_endpoints for delta in node.engine.applied)


@scenario
async def test_deregistering_drains_first(node: Lone) -> None:
    await put(node)
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    gone = check(await node.http.delete("/v1/instances/a?deadline_s=5"), schema.Instance)
    assert gone["drained"]
    assert gone["state"] == "drained"
    codes = [event.code for event in node.journal.recent]
    assert codes.index("instance-draining") < codes.index("instance-drained") < codes.index("instance-removed")


@scenario
async def test_an_unknown_instance_is_waited_for_while_its_requests_are_in_flight(node: Lone) -> None:
    """Its node was restored from an older copy of its state folder."""
    member = EndpointKey(ClaimKey("web", "1.0.0", "web.example/*"), "i:a")
    for method, path in (("DELETE", "/v1/instances/a"), ("POST", "/v1/instances/a/drain")):
        node.engine.stats.draining[member] = 1
        asked = asyncio.create_task(node.http.request(method, f"{path}?deadline_s=30"))
        await asyncio.sleep(0.7)
        assert not asked.done()
        problem(await node.http.request(method, f"{path}?deadline_s=0.2"), "no-such-instance")  # its time is up
        node.engine.stats.draining.clear()
        problem(await asked, "no-such-instance")


@scenario
async def test_a_long_poll_answers_when_its_time_is_up(node: Lone) -> None:
    await put(node)
    await put(node, "b", version="2.0.0")
    started = time.monotonic()
    told = check(await node.http.get("/v1/instances/b?wait=active&timeout_s=0.3"), schema.Instance)
    assert 0.3 <= time.monotonic() - started < 3
    assert (told["state"], told["reason_code"]) == ("waiting", "still-running")
    assert "1.0.0" in told["reason"]
    # and at once when what it waits for happens
    polling = asyncio.create_task(node.http.get("/v1/instances/b?wait=active&timeout_s=20"))
    await asyncio.sleep(0.05)
    await node.http.delete("/v1/instances/a")
    assert (await polling).json()["state"] == "active"


@scenario
async def test_an_instance_that_reports_its_exit_is_removed_immediately(node: Lone) -> None:
    await put(node)
    check(await node.http.delete("/v1/instances/a?gone=1"), schema.Instance)
    problem(await node.http.get("/v1/instances/a"), "no-such-instance")


@scenario
async def test_a_process_that_ends_takes_its_instance_along(node: Lone) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    await put(node, pid=process.pid)
    assert "pid/a" in node.store.disk
    process.kill()
    ended = time.monotonic()
    while node.balancer.view.instance("a") is not None:
        assert time.monotonic() - ended < 1.0
        await asyncio.sleep(0.01)
    await process.wait()
    await asyncio.sleep(0.05)
    assert "pid/a" not in node.store.disk
    problem(await put(node, pid=process.pid), "bad-pid")


@scenario
async def test_an_instance_is_active_once_its_check_is_good(node: Lone) -> None:
    answers = ["503 Busy", "503 Busy", "200 OK"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"GET /health HTTP/1.1")
        status = answers.pop(0) if len(answers) > 1 else answers[0]
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    health = {"kind": "http", "path": "/health", "interval_s": 0.05, "fall": 2}
    told = check(await put(node, endpoint=endpoint, health=health), schema.Instance, 201)
    assert not told["healthy"]
    told = check(await node.http.get("/v1/instances/a?wait=active&timeout_s=5"), schema.Instance)
    assert told["state"] == "active"
    assert told["healthy"]
    answers[:] = ["500 Broken"]
    told = check(await node.http.get("/v1/instances/a?wait=unhealthy&timeout_s=5"), schema.Instance)
    assert "answered 500" in told["health_detail"]
    server.close()


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no route": ({"routes": []}, "bad-json", "routes"),
    "routes as a text": ({"routes": "example.com/"}, "bad-json", "routes"),
    "a star inside": ({"routes": ["a.*.b/"]}, "bad-route", "a.*.b"),
    "unknown key": ({"colour": "red"}, "bad-json", "colour"),
    "unknown key in the check": ({"health": {"colour": "red"}}, "bad-json", "colour"),
    "a service with a slash": ({"service": "a/b"}, "bad-service", "a/b"),
    "an empty version": ({"version": ""}, "bad-version", "version"),
    "a range": ({"compatible": [">=1.0,<<2"]}, "bad-compatible", ""),
    "an endpoint without port": ({"endpoint": "127.0.0.1"}, "bad-endpoint", "127.0.0.1:8001"),
    "an endpoint for nobody": ({"endpoint": "0.0.0.0:80"}, "bad-endpoint", "0.0.0.0"),
    "an endpoint on an interface by name": ({"endpoint": "[fe80::1%eth0]:80"}, "bad-endpoint", "eth0"),
    "a relative socket": ({"endpoint": "unix:run/a"}, "bad-endpoint", "unix:"),
    "a later protocol": ({"protocol": "tcp"}, "bad-protocol", "not supported in this version"),
    "an unknown protocol": ({"protocol": "gopher"}, "bad-protocol", "unknown"),
    "no capacity": ({"capacity": 0}, "bad-json", "capacity"),
    "a capacity that is a half": ({"capacity": 1.5}, "bad-json", "capacity"),
    "a negative ttl": ({"ttl_s": -1}, "bad-json", "ttl_s"),
    "a health path": ({"health": {"kind": "http", "path": "a b"}}, "bad-health", "path"),
    "a kind of check": ({"health": {"kind": "smell"}}, "bad-health", "smell"),
    "a label": ({"labels": {"a\nb": ""}}, "bad-label", "label"),
    "a process that is not there": ({"pid": 4194303}, "bad-pid", "4194303"),
}


def test_a_bad_body_is_one_problem_and_changes_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            await put(node)
            before = (await node.http.get("/v1/instances")).json()
            for what, (fields, code, named) in BAD.items():
                detail = problem(await put(node, "a", **fields), code)
                assert named in detail, (what, detail)
            assert (await node.http.get("/v1/instances")).json() == before

    asyncio.run(run())


@scenario
async def test_bodies_are_bounded(node: Lone) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 1000

    problem(await node.http.put("/v1/instances/a", content=b"[" * 70_000), "too-large")
    problem(await node.http.put("/v1/instances/a", content=endless()), "too-large")
    problem(await node.http.put("/v1/instances/a", content=b"[" * 60_000), "bad-json")
    problem(await node.http.put("/v1/instances/a", content=b'{"labels":' + b'{"a":' * 12_000), "bad-json")
    problem(await node.http.put("/v1/policies/web", content=b"[" * 60_000), "bad-policy")


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/nothing", "not-found"),
        ("PATCH", "/v1/instances/a", "method-not-allowed"),
        ("GET", "/v1/instances/a?wait=active&timeout_s=forever", "bad-query"),
        ("POST", "/v1/instances/a/drain?deadline_s=-1", "bad-query"),
        ("DELETE", "/v1/instances/nobody", "no-such-instance"),
        ("PUT", "/v1/instances/" + "x" * 300, "bad-id"),
        ("PUT", "/v1/instances/a%00b", "bad-id"),
        ("GET", "/v1/services/nobody", "no-such-service"),
        ("GET", "/v1/services?scope=moon", "bad-query"),
        ("GET", "/v1/explain", "bad-query"),
        ("GET", "/v1/explain?url=::::", "bad-url"),
        ("GET", "/v1/explain?url=ftp://a/b", "bad-url"),
        ("GET", "/v1/explain?url=http://a/b%20c", "bad-url"),
        ("GET", "/v1/explain?url=http://a/b%0Ac", "bad-url"),
        ("GET", "/v1/events?since=now", "bad-query"),
        ("GET", "/v1/policies/a%2Fb", "not-found"),
    ],
)
def test_bad_calls(tmp_path: Path, method: str, path: str, code: str) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            problem(await node.http.request(method, path), code)

    asyncio.run(run())


def test_every_code_is_described() -> None:
    """What the checks of words and bodies raise, `CODES` explains."""
    source = Path(openapi.__file__).parents[1]
    raised: set[str] = set()
    for file in [*(source / "model").glob("*.py"), *(source / "node").glob("*.py")]:
        if file.name not in (
            "local_paths.py",
            "config.py",
            "config_identity.py",
            "config_reader.py",
        ):  # those end a start, not a call
            raised |= set(re.findall(r'(?:Invalid|Refusal|answer|body_of)\(\s*"([a-z-]+)"', file.read_text()))
    assert "bad-route" in raised
    assert raised - {"bad-name"} <= set(CODES)


# ------------------------------------------------------------------ reads


@scenario
async def test_reads_are_as_described(node: Lone) -> None:
    await put(node)
    second = {"version": "2.0.0", "routes": ["example.com/*", "*.example.com/b*"], "endpoint": "127.0.0.1:10"}
    await put(node, "b", **second)
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    services = check(await node.http.get("/v1/services"), schema.Services)
    assert services["roots"] == ["edge-1"]
    assert [s["service"] for s in services["services"]] == ["web"]
    assert check(await node.http.get("/v1/services/web"), schema.Services)["services"] == services["services"]
    local = check(await node.http.get("/v1/services?scope=local"), schema.Services)
    assert local["services"] == services["services"]
    assert local["roots"] == []
    tree = check(await node.http.get("/v1/tree"), schema.Tree)
    assert tree["root"]
    assert tree["ready"]
    assert tree["listen"]["http"] == "127.0.0.1:80"
    routes = check(await node.http.get("/v1/routes"), schema.Routes)
    assert routes["routes"][0]["route"] == "example.com/*"
    explained = check(await node.http.get("/v1/explain?url=http://Example.com:8080/x?y"), schema.Explanation)
    assert (explained["service"], explained["version"], explained["status"]) == ("web", "1.0.0", 0)
    assert explained["targets"][0]["name"] == "i:a"
    nothing = check(await node.http.get("/v1/explain?url=http://other/"), schema.Explanation)
    assert nothing["status"] == 421


@scenario
async def test_a_policy_is_set_kept_and_read_back(node: Lone) -> None:
    told = check(await node.http.get("/v1/policies/web"), schema.Policy)
    assert told["revision"] == 0
    assert told["policy"]["priority"] == "even"
    told = check(await node.http.put("/v1/policies/web", json={"priority": "higher"}), schema.Policy)
    assert told["revision"] == 1
    assert told["policy"]["priority"] == "higher"
    assert told["roots"] == ["edge-1"]
    assert "doc/policy/web" in node.store.disk
    (changed,) = [event for event in node.journal.recent if event.code == "policy-set"]
    assert changed.text == "the policy of web was changed (set at edge-1): priority: even -> higher"
    assert changed.fields == {"service": "web"}
    problem(await node.http.put("/v1/policies/web", json={"priority": "sideways"}), "bad-policy")
    told = check(await node.http.get("/v1/policies/web?scope=local"), schema.Policy)
    assert (told["revision"], told["policy"]["priority"]) == (1, "higher")


@scenario
async def test_names_that_no_root_knows_are_reported(node: Lone) -> None:
    canary = {"priority": "share", "shares": {"9.9.9": 50}}
    problem(await node.http.put("/v1/policies/web?unknown=refuse", json=canary), "unknown-service")
    problem(await node.http.put("/v1/policies/web?unknown=perhaps", json=canary), "bad-query")
    await put(node)
    detail = problem(await node.http.put("/v1/policies/web?unknown=refuse", json=canary), "unknown-version")
    assert detail == "web has no version 9.9.9; it has 1.0.0"
    near = {"compatibility": {"deny": [["1.0.0", "1.0.9"]]}}
    detail = problem(await node.http.put("/v1/policies/web?unknown=refuse", json=near), "unknown-version")
    assert "1.0.9 (did you mean 1.0.0?)" in detail
    assert check(await node.http.get("/v1/policies/web"), schema.Policy)["revision"] == 0
    told = check(await node.http.put("/v1/policies/web", json=canary), schema.Policy)
    assert told["revision"] == 1 and told["warnings"] == ["web has no version 9.9.9; it has 1.0.0"]
    again = check(await node.http.put("/v1/policies/web?unknown=refuse", json=canary), schema.Policy)
    assert again["warnings"] == [], "it was named before"
    fits = {"shares": {"1.0.0": 50}, "compatibility": {"ranges": [">=3"]}}
    assert check(await node.http.put("/v1/policies/web?unknown=refuse", json=fits), schema.Policy)["warnings"] == []


@scenario
async def test_events_stream_and_continue(node: Lone) -> None:
    await put(node)
    listed = check(await node.http.get("/v1/events?since=0"), schema.Events)["events"]
    assert [event["id"] for event in listed] == list(range(1, len(listed) + 1))
    ended = await node.http.get("/v1/events?follow=0")
    assert ended.headers["content-type"].startswith("text/event-stream")
    assert ended.text.count("\nevent: ") == len(listed)
    last = str(listed[-1]["id"])
    async with node.http.stream("GET", "/v1/events", headers={"last-event-id": last}) as stream:
        lines = stream.aiter_lines()
        await put(node, "b", service="other", routes=["other.example/"], endpoint="127.0.0.1:10")
        async with asyncio.timeout(5):
            while not (line := await anext(lines)).startswith("data: "):
                pass
    event = json.loads(line[6:])
    assert event["id"] == listed[-1]["id"] + 1
    assert "other" in event["text"]


@scenario
async def test_metrics_are_prometheus_text(node: Lone) -> None:
    await put(node)
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    answer = await node.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families: dict[str, str] = {}
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families, f"{name} twice"
            families[name] = kind
        elif not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            float(value)
            assert any(name.startswith(family) for family in families), line
    assert families["sdlb_requests_total" if node.engine.stats.groups else "sdlb_claims"]
    assert 'sdlb_claims{state="active"} 1' in answer.text
    assert 'sdlb_instances{state="active"} 1' in answer.text


@scenario
async def test_the_description_has_every_call_and_every_reference(node: Lone) -> None:
    document = (await node.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == {(call.path, call.method) for call in openapi.CALLS}
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]
    page = await node.http.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for call in openapi.CALLS:
        assert call.path in page.text
    linked = set(re.findall(r"<a href=#(\w+)>", page.text))
    assert "InstanceBody" in linked and linked <= set(re.findall(r"<tr id=(\w+)>", page.text))
    assert "`" not in page.text


@scenario
async def test_alive_and_ready(node: Lone) -> None:
    assert (await node.http.get("/healthz")).status_code == 200
    await put(node)
    assert (await node.http.get("/readyz")).status_code == 200


def test_a_node_without_reachable_parents_is_alive_and_has_a_reason_for_not_being_ready(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path, parents=("127.0.0.1:1",)) as node:
            assert (await node.http.get("/healthz")).status_code == 200
            ready = await node.http.get("/readyz")
            assert ready.status_code == 503
            assert ready.text.strip()
            assert "127.0.0.1:1" in problem(await node.http.get("/v1/services"), "no-root")
            check(await node.http.get("/v1/services?scope=local"), schema.Services)

    asyncio.run(run())


@scenario
async def test_a_node_that_is_stopped_takes_nothing_new(node: Lone) -> None:
    from sdlb.core.events import Stop

    await put(node)
    await node.loop.do(Stop(5.0))
    problem(await put(node, "b"), "stopping")
    assert await asyncio.wait_for(asyncio.shield(node.loop.stopped), 5.0) in (True, False)


def test_the_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path):
            assert os.lstat(tmp_path / "api.sock").st_mode & 0o777 == 0o600

    asyncio.run(run())
