"""Two programs that take the same id: the one that lives keeps it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from sdlb.node import schema
from tests.node.lone import Lone, lone
from tests.node.test_api import check, problem, put


@contextmanager
def program() -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def put_by(node: Lone, pid: int, **fields: Any) -> httpx.Response:
    return await put(node, pid=pid, **fields)


def test_another_process_that_lives_keeps_the_id(tmp_path: Path) -> None:
    async def run() -> None:
        with program() as first:
            async with lone(tmp_path) as node:
                told = check(await put_by(node, first.pid), schema.Instance, 201)
                assert (told["owner"], told["former"]) == (f"process {first.pid}", [])
                detail = problem(await put_by(node, os.getpid(), version="2.0.0"), "owner-conflict")
                assert f"process {first.pid} as web-1.0.0 on 127.0.0.1:9" in detail
                told = check(await node.http.get("/v1/instances/a"), schema.Instance)
                assert (told["version"], told["pid"]) == ("1.0.0", first.pid)
                assert "owner-conflict" in [event.code for event in node.journal.recent]
                check(await put_by(node, first.pid), schema.Instance)

    asyncio.run(run())


def test_of_two_that_register_at_once_one_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        with program() as first, program() as second:
            async with lone(tmp_path) as node:
                pids = (first.pid, second.pid)
                answers = await asyncio.gather(*(put_by(node, pid) for pid in pids))
                statuses = [answer.status_code for answer in answers]
                assert sorted(statuses) == [201, 409]
                told = check(await node.http.get("/v1/instances/a"), schema.Instance)
                assert told["owner"] == f"process {pids[statuses.index(201)]}"

    asyncio.run(run())


def test_the_id_of_a_process_that_has_ended_is_free_at_once(tmp_path: Path) -> None:
    """Also before the event loop has had the kernel's word of it."""

    async def run() -> None:
        async with lone(tmp_path) as node:
            with program() as first:
                check(await put_by(node, first.pid), schema.Instance, 201)
                asyncio.get_running_loop().remove_reader(node.health._watches["a"].fd)  # it comes late
            told = check(await put_by(node, os.getpid(), version="2.0.0"), schema.Instance)
            assert (told["owner"], told["version"]) == (f"process {os.getpid()}", "2.0.0")
            await node.loop.instances.wait("a", 0.05)
            assert node.balancer.view.healthy("a") is not None
            codes = [event.code for event in node.journal.recent]
            assert codes.index("instance-gone") < len(codes) - 1 - codes[::-1].index("instance-registered")

    asyncio.run(run())


def test_a_registration_without_a_process_conflicts_with_none(tmp_path: Path) -> None:
    async def run() -> None:
        with program() as first:
            async with lone(tmp_path) as node:
                check(await put_by(node, first.pid), schema.Instance, 201)
                told = check(await put(node, capacity=7), schema.Instance)
                assert (told["owner"], told["capacity"]) == (f"process {first.pid}", 7)

    asyncio.run(run())


def test_what_was_registered_before_is_shown_while_it_drains(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            await put(node)
            await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
            node.engine.apply = lambda delta: None  # the new one is never confirmed
            told = check(await put(node, endpoint="127.0.0.1:10", version="1.0.1"), schema.Instance)
            assert told["former"] == [{"version": "1.0.0", "endpoint": "127.0.0.1:9", "state": "registered"}]

    asyncio.run(run())


async def taken_over(node: Lone, first: int, second: int) -> None:
    """The instance of one process drains, and does not end, when another process takes its id."""
    await put_by(node, first)
    await node.http.get("/v1/instances/a?wait=active&timeout_s=5")
    node.engine.apply = lambda delta: None  # so that the drain does not end
    drain = asyncio.create_task(node.http.post("/v1/instances/a/drain?deadline_s=1"))
    await node.loop.instances.wait("a", 1.0)
    check(await put_by(node, second, version="2.0.0", endpoint="127.0.0.1:10"), schema.Instance)
    await drain


def test_a_program_that_has_lost_the_id_removes_only_what_it_registered(tmp_path: Path) -> None:
    """A program that is slow to end deregisters after another one has taken its id."""

    async def run() -> None:
        with program() as first, program() as second:
            async with lone(tmp_path) as node:
                await taken_over(node, first.pid, second.pid)
                for query in ("deadline_s=1", "gone=1"):
                    answer = await node.http.delete(f"/v1/instances/a?{query}&pid={first.pid}")
                    assert f"now registered by process {second.pid}" in problem(answer, "owner-conflict")
                told = check(await node.http.get("/v1/instances/a"), schema.Instance)
                assert (told["owner"], told["former"]) == (f"process {second.pid}", [])
                assert problem(await node.http.delete("/v1/instances/a?pid=-1"), "bad-query").startswith("pid is '-1'")

    asyncio.run(run())


def test_the_end_of_a_process_is_noticed_after_another_has_its_id(tmp_path: Path) -> None:
    async def run() -> None:
        with program() as second, program() as first:
            async with lone(tmp_path) as node:
                await taken_over(node, first.pid, second.pid)
                first.kill()
                first.wait()
                await until_no_former(node)

    async def until_no_former(node: Lone) -> None:
        for _ in range(50):
            told = check(await node.http.get("/v1/instances/a"), schema.Instance)
            if not told["former"]:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(told)

    asyncio.run(run())


def listening(port: int = 0) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen()
    return made


def test_the_sockets_of_a_program_that_listens_late_are_known_with_its_next_renewal(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            with listening() as made:
                endpoint = f"127.0.0.1:{made.getsockname()[1]}"
            await put(node, endpoint=endpoint)
            assert not node.balancer._local.by_id["a"].listeners
            with listening(int(endpoint.rpartition(":")[2])):
                await put(node, endpoint=endpoint)
                known = node.balancer._local.by_id["a"].listeners
                assert known
            await put(node, endpoint=endpoint)  # nothing listens: that was not looked at
            assert node.balancer._local.by_id["a"].listeners == known

    asyncio.run(run())


def test_another_program_at_a_port_does_not_answer_for_the_first(tmp_path: Path) -> None:
    shop = {"service": "shop", "version": "1.0.0", "routes": ["shop.example/*"], "health": {"kind": "none"}}

    async def run() -> None:
        async with lone(tmp_path) as node:
            with listening() as first:
                port = first.getsockname()[1]
                shop["endpoint"] = f"127.0.0.1:{port}"
                check(await put(node, endpoint=f"127.0.0.1:{port}"), schema.Instance, 201)
                check(await node.http.put("/v1/instances/b", json=shop), schema.Instance, 201)
                told = check(await node.http.get("/v1/instances/a?wait=active&timeout_s=5"), schema.Instance)
                assert told["state"] == "active", "one program serves both"
                await node.http.delete("/v1/instances/b")
            with listening(port):
                check(await node.http.put("/v1/instances/b", json=shop), schema.Instance, 201)
                told = check(await node.http.get("/v1/instances/a"), schema.Instance)
                assert (told["state"], told["reason_code"]) == ("unhealthy", "superseded")

    asyncio.run(run())
