"""Releases over the local API: who may add them, what never changes, and what bad ones are answered."""

from __future__ import annotations

import asyncio
import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from sdlb.node import schema_rollouts as schema
from tests.node.lone import Lone, lone
from tests.node.test_api import check, problem, scenario

ME = getpass.getuser()
A, B = "a" * 64, "b" * 64
URL = "https://repo.example/c-1.0.2.tgz"


def body(version: str = "1.0.2", sha256: str = A, platform: str = "linux-x86_64", **more: Any) -> dict[str, Any]:
    artifact = {platform: {"url": URL, "sha256": sha256}}
    return {"service": "catalog", "version": version, "artifact": artifact, **more}


async def listed(node: Lone, query: str = "") -> list[str]:
    found = check(await node.http.get(f"/v1/releases{query}"), schema.Releases)
    assert (found["roots"], found["disagree"]) == (["edge-1"], [])
    return [each["name"] + (" withdrawn" if each["withdrawn"] else "") for each in found["releases"]]


@scenario
async def test_releases_are_added_listed_and_withdrawn(node: Lone) -> None:
    for version in ("1.0.10", "1.0.9"):
        check(
            await node.http.post("/v1/releases", json=body(version, requires=["pricing>=3.1"])), schema.ReleaseChanged
        )
    answer = check(
        await node.http.put("/v1/releases/pricing-3.1", json={"service": "pricing", "version": "3.1"}),
        schema.ReleaseChanged,
    )
    assert answer == {
        "node": "edge-1",
        "roots": ["edge-1"],
        "unreachable": [],
        "changed": True,
        "by": ME,
        "release": {
            "name": "pricing-3.1",
            "service": "pricing",
            "version": "3.1",
            "withdrawn": False,
            "requires": [],
            "artifacts": [],
        },
    }
    assert await listed(node) == ["catalog-1.0.9", "catalog-1.0.10", "pricing-3.1"]
    assert await listed(node, "?service=pricing") == ["pricing-3.1"]
    answer = check(await node.http.delete("/v1/releases/catalog-1.0.9?by=release-bot"), schema.ReleaseChanged)
    assert (answer["changed"], answer["by"], answer["release"]["withdrawn"]) == (True, "release-bot", True)
    assert answer["release"]["artifacts"] == [{"platform": "linux-x86_64", "url": URL, "sha256": A, "signature": ""}]
    assert answer["release"]["requires"] == ["pricing>=3.1"]
    assert await listed(node, "?service=catalog") == ["catalog-1.0.9 withdrawn", "catalog-1.0.10"]
    assert [each.text for each in node.journal.recent if each.code.startswith("release-")][-2:] == [
        f"{ME} added release pricing-3.1",
        "release-bot withdrew release catalog-1.0.9",
    ]


@scenario
async def test_a_known_release_may_get_more_platforms_and_nothing_else(node: Lone) -> None:
    check(await node.http.post("/v1/releases", json=body()), schema.ReleaseChanged)
    again = check(await node.http.post("/v1/releases", json=body()), schema.ReleaseChanged)
    assert again["changed"] is False
    for changed in (body(sha256=B), body(requires=["x>=1"])):
        answer = await node.http.post("/v1/releases", json=changed)
        assert answer.status_code == 409
        assert problem(answer, "release-refused").endswith("a release never changes: use a new version")
    more = check(
        await node.http.post(
            "/v1/releases", json=body(sha256=B, platform="any") | {"artifact": {"any": {"url": "/srv/c", "sha256": B}}}
        ),
        schema.ReleaseChanged,
    )
    assert [each["platform"] for each in more["release"]["artifacts"]] == ["any", "linux-x86_64"]
    check(await node.http.delete("/v1/releases/catalog-1.0.2"), schema.ReleaseChanged)
    problem(await node.http.post("/v1/releases", json=body(sha256=B)), "release-refused")
    back = check(await node.http.post("/v1/releases", json=body()), schema.ReleaseChanged)
    assert (back["changed"], back["release"]["withdrawn"]) == (True, False)


@scenario
async def test_releases_outlive_a_restart(node: Lone) -> None:
    check(await node.http.post("/v1/releases", json=body()), schema.ReleaseChanged)
    assert any(name == "doc/release/catalog-1.0.2" for name in await node.store.load())


@pytest.mark.parametrize(
    ("method", "path", "content", "code", "says"),
    [
        ("POST", "", b"{", "bad-json", "is not JSON"),
        ("POST", "", b"[" * 60_000, "bad-json", "is not JSON"),
        ("POST", "", b"x" * 70_000, "too-large", "70000 bytes"),
        ("POST", "", {"service": "catalog"}, "bad-json", "`version`"),
        ("POST", "", body(sha="x"), "bad-json", "`sha`"),
        ("POST", "", body(sha256="A" * 64), "bad-json", "sha256"),
        ("POST", "", body(by="a\x1b[2J"), "bad-json", "cannot be printed"),
        ("POST", "", body(platform="linux-amd64"), "bad-release", "did you mean 'linux-x86_64'"),
        ("POST", "", body(platform="windows"), "bad-release", "is not a platform"),
        ("POST", "", body("1 0"), "bad-release", "version"),
        ("POST", "", body(service="a/b"), "bad-release", "service"),
        ("POST", "", body(requires=["catalog>=1"]), "bad-release", "catalog itself"),
        ("POST", "", body(artifact={"any": {"url": "ftp://x/y", "sha256": A}}), "bad-release", "ftp"),
        ("PUT", "/catalog-1.0.3", body(), "bad-release", "is not catalog-1.0.2, as the body has it"),
        ("DELETE", "/catalog-9", None, "no-such-release", "'sdlb release list' shows them"),
        ("DELETE", "/catalog-9?force=1", None, "bad-query", "force"),
        ("GET", "?service=a%20b", None, "bad-service", "a b"),
        ("GET", "?service=", None, "bad-query", "service"),
    ],
)
def test_bad_releases(tmp_path: Path, method: str, path: str, content: Any, code: str, says: str) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            raw = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
            detail = problem(await node.http.request(method, f"/v1/releases{path}", content=raw), code)
            assert says in detail and "\n" not in detail
            assert await listed(node) == []

    asyncio.run(run())
