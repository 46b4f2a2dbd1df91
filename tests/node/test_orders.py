"""Approvals, promotions and transfers over the local API: who may, what is refused, and what it changes."""

from __future__ import annotations

import asyncio
import getpass
import http.client
import json
import os
import pwd
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from sdlb.node import peer, schema, schema_orders
from sdlb.node.problems import Refusal
from tests.node.lone import Lone, lone
from tests.node.test_api import check, problem, put, scenario

ME = getpass.getuser()
APPROVE = "/v1/services/web/versions/2.0.0/approve"
PROMOTE = "/v1/services/web/versions/2.0.0/promote"
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")


def approval(*by: str, name: str = "sign-off", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "approval", "by": list(by), **more}


async def waiting(node: Lone, *gates: dict[str, Any], **policy: Any) -> None:
    """1.0.0 is active, and 2.0.0 waits for the gates; the policy is set before."""
    document = {"gate": list(gates), "cut_over": "flip", **policy}
    check(await node.http.put("/v1/policies/web", json=document), schema.Policy)
    await put(node, "old")
    await node.http.get("/v1/instances/old?wait=active&timeout_s=5")
    await put(node, "new", version="2.0.0", endpoint="127.0.0.1:10")


async def version(node: Lone, name: str = "2.0.0") -> dict[str, Any]:
    found = check(await node.http.get("/v1/services/web"), schema.Services)["services"][0]
    opening = found["opening"] or {"versions": {}}
    return opening["versions"].get(name, {})


async def state(node: Lone, name: str) -> str:
    answer = await node.http.get(f"/v1/instances/{name}?wait=active&timeout_s=3")
    return answer.json()["state"]


@scenario
async def test_an_approval_opens_the_gate(node: Lone) -> None:
    await waiting(node, approval(ME, "someone"))
    (gate,) = (await version(node))["gates"]
    assert (gate["name"], gate["state"]) == ("sign-off", "waiting")
    answer = check(await node.http.post(APPROVE, json={"gate": "sign-off"}), schema_orders.Approved)
    assert answer == {
        "node": "edge-1",
        "conductor": "edge-1",
        "service": "web",
        "version": "2.0.0",
        "gate": "sign-off",
        "by": ME,
    }
    assert await state(node, "new") == "active"
    (event,) = [each for each in node.journal.recent if each.code == "gate-approved"]
    assert event.text == f"{ME} approved gate sign-off of web-2.0.0"


@scenario
async def test_two_have_to_approve_and_nobody_counts_twice(node: Lone) -> None:
    await waiting(node, approval(ME, "bob", "carol", count=2))
    for _ in range(2):
        check(await node.http.post(APPROVE, json={"gate": "sign-off"}), schema_orders.Approved)
    (gate,) = (await version(node))["gates"]
    assert (gate["state"], gate["by"]) == ("waiting", [ME])
    assert (await node.http.get("/v1/instances/new")).json()["reason_code"] == "gate"
    check(await node.http.post(APPROVE, json={"gate": "sign-off", "by": "carol"}), schema_orders.Approved)
    assert await state(node, "new") == "active"


@scenario
async def test_refused_approvals_say_why(node: Lone) -> None:
    await waiting(
        node, approval("bob", "carol"), {"name": "night", "kind": "depends_on", "service": "x", "version": "1"}
    )
    detail = problem(await node.http.post(APPROVE, json={"gate": "sign-off"}), "approval-refused")
    assert detail == f"{ME} may not approve gate sign-off of web; bob and carol may"
    detail = problem(await node.http.post(APPROVE, json={"gate": "night", "by": "bob"}), "approval-refused")
    assert "its gates of this kind: sign-off" in detail
    path = APPROVE.replace("2.0.0", "3.0.0")
    detail = problem(await node.http.post(path, json={"gate": "sign-off", "by": "bob"}), "approval-refused")
    assert "web-3.0.0 does not wait" in detail
    path = APPROVE.replace("web", "other")
    detail = problem(await node.http.post(path, json={"gate": "sign-off", "by": "bob"}), "approval-refused")
    assert "no version of other waits" in detail
    gate, _ = (await version(node))["gates"]
    assert gate["by"] == []


@scenario
async def test_a_promotion_tries_failed_gates_again_or_skips_all(node: Lone) -> None:
    await waiting(node, {"name": "migrate", "kind": "hook", "run": "no-such"}, approval("bob"))
    answer = check(await node.http.post(PROMOTE, json={}), schema_orders.Promoted)
    assert (answer["by"], answer["conductor"], answer["no_gates"]) == (ME, "edge-1", "")
    assert (await version(node))["promoted"] == ME
    gate, _ = (await version(node))["gates"]
    assert gate["state"] in ("waiting", "running")
    answer = check(
        await node.http.post(PROMOTE, json={"no_gates": "  the hook is broken ", "by": "release-bot"}),
        schema_orders.Promoted,
    )
    assert (answer["by"], answer["no_gates"]) == ("release-bot", "the hook is broken")
    assert await state(node, "new") == "active"
    assert [each.text for each in node.journal.recent if each.code == "version-promoted"] == [
        f"{ME} promoted web-2.0.0",
        "release-bot promoted web-2.0.0 without its gates: the hook is broken",
    ]
    problem(await node.http.post(PROMOTE, json={}), "promotion-refused")


@scenario
async def test_a_hook_of_the_node_file_opens_its_gate(node: Lone) -> None:
    await waiting(node, {"name": "migrate", "kind": "hook", "at": "gap", "run": "yes"})
    assert await state(node, "new") == "active"
    assert (await node.http.get("/v1/instances/old")).json()["state"] == "waiting"


def test_a_control_that_stops_leaves_its_hook_running(tmp_path: Path) -> None:
    async def run() -> int:
        async with lone(tmp_path) as node:
            await waiting(node, {"name": "migrate", "kind": "hook", "run": "slow"})
            while not (locks := list((tmp_path / "hooks").glob("*.lock"))) or not locks[0].read_text():
                await asyncio.sleep(0.02)
            await node.loop.close()
            return int(locks[0].read_text())

    pid = asyncio.run(run())
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sleep")
    os.kill(pid, signal.SIGKILL)


@scenario
async def test_a_hook_that_the_node_file_lacks_is_named(node: Lone) -> None:
    await waiting(node, {"name": "migrate", "kind": "hook", "run": "yse"})
    for _ in range(100):
        (gate,) = (await version(node))["gates"]
        if gate["reason"]:
            break
        await asyncio.sleep(0.02)
    assert gate["reason"] == "node.toml has no table [hook.yse]; did you mean 'yes'?"
    assert (await node.http.get("/v1/instances/old")).json()["state"] == "active"


@scenario
async def test_a_route_is_transferred(node: Lone) -> None:
    await put(node, "a")
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    await put(node, "b", service="shop", endpoint="127.0.0.1:10")
    assert (await node.http.get("/v1/instances/b")).json()["state"] == "refused"
    body = {"route": "EXAMPLE.com/*", "to": "shop"}
    answer = check(await node.http.post("/v1/routes/transfer", json=body), schema_orders.Transferred)
    assert answer == {"node": "edge-1", "roots": ["edge-1"], "route": "example.com/*", "to": "shop", "by": ME}
    assert await state(node, "b") == "active"
    assert (await node.http.get("/v1/instances/a")).json()["state"] == "refused"
    detail = problem(await node.http.post("/v1/routes/transfer", json=body), "transfer-refused")
    assert detail == "shop holds example.com/* already"


@scenario
async def test_a_transfer_to_a_service_without_a_claim_changes_nothing(node: Lone) -> None:
    await put(node, "a")
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    body = {"route": "example.com/*", "to": "shop"}
    detail = problem(await node.http.post("/v1/routes/transfer", json=body), "transfer-refused")
    assert detail == "shop does not claim example.com/*; these do: web"
    body = {"route": "example.com/other", "to": "web"}
    problem(await node.http.post("/v1/routes/transfer", json=body), "transfer-refused")
    assert await state(node, "a") == "active"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (APPROVE, b"{}", "bad-json"),
        (APPROVE, b'{"gate": "sign off"}', "bad-json"),
        (APPROVE, b'{"gate": "x", "gat": 1}', "bad-json"),
        (APPROVE, b'{"gate": "x", "by": "a\\u001b[2J"}', "bad-json"),
        (APPROVE, json.dumps({"gate": "x", "by": "n" * 129}).encode(), "bad-json"),
        (APPROVE, b"[" * 60000, "bad-json"),
        (APPROVE, b"x" * 70000, "too-large"),
        (APPROVE.replace("web", "we%20b"), b'{"gate": "x"}', "bad-service"),
        (APPROVE.replace("2.0.0", "2%200"), b'{"gate": "x"}', "bad-version"),
        (PROMOTE, json.dumps({"no_gates": "n" * 501}).encode(), "bad-json"),
        ("/v1/routes/transfer", b'{"route": "a.example/*/b", "to": "web"}', "bad-route"),
        ("/v1/routes/transfer", b'{"route": "a.example/b", "to": "a b"}', "bad-service"),
        ("/v1/routes/transfer?force=1", b'{"route": "a.example/b", "to": "a"}', "bad-query"),
    ],
)
def test_bad_orders(tmp_path: Path, path: str, body: bytes, code: str) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            problem(await node.http.post(path, content=body), code)

    asyncio.run(run())


# ---------------------------------------------------------------------- who


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def post_as(uid: int, address: str, path: str, body: object) -> tuple[int, Any]:
    """A call by a process of another user: the kernel notes who connects."""
    connection = http.client.HTTPConnection("node", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    os.seteuid(uid)
    try:
        connection.sock.connect(address)
    finally:
        os.seteuid(0)
    try:
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@needs_root
def test_another_user_acts_in_its_own_name_only(open_folder: Path) -> None:
    async def run() -> None:
        async with lone(open_folder) as node:
            address = open_folder / "api.sock"
            address.chmod(0o666)
            await waiting(node, approval("nobody", "root"), approval("bob", name="second"))

            async def post(path: str, body: object) -> tuple[int, Any]:
                return await asyncio.to_thread(post_as, NOBODY, str(address), path, body)

            for path, body in (
                (APPROVE, {"gate": "sign-off", "by": "root"}),
                (PROMOTE, {"by": "bob", "no_gates": "x"}),
                ("/v1/routes/transfer", {"route": "example.com/*", "to": "web", "by": "bob"}),
            ):
                status, found = await post(path, body)
                assert (status, found["type"].rpartition("/")[2]) == (403, "not-permitted")
                assert "nobody may not act as" in found["detail"]
            assert [gate["by"] for gate in (await version(node))["gates"]] == [[], []]
            status, found = await post(APPROVE, {"gate": "second"})
            assert (status, found["detail"]) == (409, "nobody may not approve gate second of web; bob may")
            for body in ({"gate": "sign-off"}, {"gate": "sign-off", "by": "nobody"}):
                status, found = await post(APPROVE, body)
                assert (status, found["by"]) == (200, "nobody")
            assert [gate["by"] for gate in (await version(node))["gates"]] == [["nobody"], []]

    asyncio.run(run())


def test_over_tcp_nobody_is_known(tmp_path: Path) -> None:
    async def run() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with lone(tmp_path, listening=listening), httpx.AsyncClient(base_url=address) as client:
            for body in ({"gate": "x"}, {"gate": "x", "by": "root"}):
                answer = await client.post(APPROVE, json=body)
                assert answer.status_code == 403
                problem(answer, "not-permitted")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("uid", "own", "stated", "acts"),
    [
        (0, 990, "", "root"),
        (0, 990, "bob", "bob"),
        (990, 990, "bob", "bob"),
        (990, 990, "", "uid:990"),
        (991, 990, "", "uid:991"),
        (991, 990, "uid:991", "uid:991"),
        (991, 990, "bob", ""),
        (991, 990, "root", ""),
        (991, 0, "bob", ""),
        (-1, 990, "", ""),
        (-1, 990, "bob", ""),
    ],
)
def test_who_may_state_another_name(
    uid: int, own: int, stated: str, acts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such(number: int) -> Any:
        raise KeyError(number)

    known = pwd.getpwuid(0)
    monkeypatch.setattr(os, "geteuid", lambda: own)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: known if number == 0 else no_such(number))
    request: Any = SimpleNamespace(state=SimpleNamespace(uid=uid))
    if acts:
        assert asyncio.run(peer.acting_user(request, stated)) == acts
        return
    with pytest.raises(Refusal) as found:
        asyncio.run(peer.acting_user(request, stated))
    assert (found.value.code, found.value.status) == ("not-permitted", 403)
