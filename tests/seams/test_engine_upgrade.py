"""Hot restart of the engine under one adapter: the core sees a single engine, whatever fails."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sdlb.adapters.engine_process import find_binary
from sdlb.core.effects import Apply
from sdlb.core.events import EngineApplied, EngineAttached, EngineDrained, EngineJoined, EngineLost
from sdlb.seams.engine import EngineConfig, EngineFailed, Upgraded
from tests.seams.test_engine import CONFIG, MEMBER, Control, control, scenario, started, whole

REQUEST = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Backend:
    """Answers when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.asked = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                await self.may.wait()
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def backend() -> AsyncGenerator[Backend]:
    made = Backend()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.may.set()
        server.close()
        await asyncio.sleep(0.05)


class Node:
    """A control with an engine that serves. Its core sends the whole table to a process that joins."""

    def __init__(self, made: Control, port: int) -> None:
        self.made = made
        self.port = port
        self.epoch = 5

    async def run(self) -> None:
        told = 0
        while True:
            joined = sum(isinstance(event, EngineJoined) for event in self.made.events)
            if joined > told:
                told, self.epoch = joined, self.epoch + 1
                self.made.engine.apply(whole(self.epoch, self.port))
            await asyncio.sleep(0.002)

    async def upgrade(self, deadline_s: float = 20.0) -> Upgraded:
        return await self.made.engine.upgrade(deadline_s)

    async def take_out(self) -> None:
        self.epoch += 1
        gone = Apply(
            self.epoch, delete_endpoints=(MEMBER,), delete_routes=("example.com/*",), delete_upstreams=("i:a",)
        )
        self.made.engine.apply(gone)
        await until(lambda: EngineApplied(self.epoch) in self.made.events)

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.made.engine.stats.bound["http"].rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def ask(self) -> None:
        reader, writer = await self.dial()
        writer.write(REQUEST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    @property
    def drained(self) -> list[EngineDrained]:
        return [event for event in self.made.events if isinstance(event, EngineDrained)]


async def until(done: Callable[[], bool]) -> None:
    for _ in range(4000):
        if done():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


@asynccontextmanager
async def serving(folder: Path, held: Backend) -> AsyncGenerator[Node]:
    async with started(folder) as made:
        node = Node(made, held.port)
        made.engine.apply(whole(5, held.port))
        await made.wait(EngineApplied)
        core = asyncio.create_task(node.run())
        try:
            yield node
        finally:
            core.cancel()


def sockets(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.sock")]


def alive(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.promise(2)
@scenario
async def test_an_endpoint_is_drained_when_both_processes_report_it(folder: Path) -> None:
    async with backend() as held, serving(folder, held) as node:
        await node.ask()
        held.may.clear()
        reader, writer = await node.dial()
        writer.write(REQUEST)
        await until(lambda: held.asked == 2)
        events = list(node.made.events)
        upgraded = await node.upgrade()
        assert node.made.engine.stats.pid == upgraded.pid != upgraded.before_pid
        assert alive(upgraded.before_pid), "it has a request open"
        await node.take_out()
        await asyncio.sleep(1.2)  # the new process has reported long ago that it has none of it
        assert not node.drained
        assert node.made.engine.stats.draining == {MEMBER: 1}
        held.may.set()
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer.lower()
        writer.close()
        await until(lambda: bool(node.drained))
        assert node.drained == [EngineDrained(MEMBER, node.epoch)]
        await until(lambda: not alive(upgraded.before_pid))
        kinds = {type(event) for event in node.made.events[len(events) :]}
        assert kinds == {EngineJoined, EngineApplied, EngineDrained}, "the core was never without an engine"


@scenario
async def test_what_is_counted_goes_on_from_process_to_process(folder: Path) -> None:
    async with backend() as held, serving(folder, held) as node:
        stats = node.made.engine.stats

        async def another(requests: int) -> None:
            await node.ask()
            await until(lambda: bool(stats.groups) and stats.groups["web", "1.0.0"].requests == requests)
            upgraded = await node.upgrade()
            await until(lambda: [note.code for note in node.made.notes].count("engine-ended") == requests)
            assert not alive(upgraded.before_pid)
            assert stats.groups["web", "1.0.0"].requests == requests
            assert stats.counters["connections_total"] == requests
            assert stats.upstreams["i:a"].requests == requests

        for requests in range(1, 4):
            await another(requests)
        assert sockets(folder) == ["engine-b.sock"], "after three of them; each leaves nothing behind"


@scenario
async def test_a_process_that_dies_while_draining_holds_nothing_up(folder: Path) -> None:
    async with backend() as held, serving(folder, held) as node:
        held.may.clear()
        _, writer = await node.dial()
        writer.write(REQUEST)
        await until(lambda: held.asked == 1)
        upgraded = await node.upgrade()
        await node.take_out()
        os.kill(upgraded.before_pid, signal.SIGKILL)
        await until(lambda: bool(node.drained))
        assert node.made.engine.stats.pid == upgraded.pid
        assert not [event for event in node.made.events if isinstance(event, EngineLost)]
        writer.close()


@scenario
async def test_the_newer_process_dies_and_the_older_drains_on(folder: Path) -> None:
    """A third process is started. The requests in flight at the older one are reported to the core, which would
    otherwise not wait for them."""
    async with backend() as held, serving(folder, held) as node:
        held.may.clear()
        reader, writer = await node.dial()
        writer.write(REQUEST)
        await until(lambda: held.asked == 1)
        upgraded = await node.upgrade()
        await node.take_out()
        os.kill(upgraded.pid, signal.SIGKILL)
        attached = (await node.made.wait(EngineAttached, 2))[1]
        assert attached.draining == ((MEMBER, 1),)
        assert alive(upgraded.before_pid)
        node.made.engine.apply(Apply(node.epoch + 1, True))
        held.may.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await until(lambda: bool(node.drained))
        writer.close()


@scenario
async def test_a_control_that_starts_again_finds_both(folder: Path) -> None:
    first = control(folder)
    async with backend() as held:
        await first.engine.start(CONFIG)
        node = Node(first, held.port)
        core = asyncio.create_task(node.run())
        first.engine.apply(whole(5, held.port))
        await first.wait(EngineApplied)
        held.may.clear()
        reader, writer = await node.dial()
        writer.write(REQUEST)
        await until(lambda: held.asked == 1)
        upgraded = await node.upgrade()
        await node.take_out()
        core.cancel()
        await first.engine.detach()
        async with started(folder) as second:
            (attached,) = await second.wait(EngineAttached)
            assert attached.draining == ((MEMBER, 1),) and attached.epoch == node.epoch
            assert second.engine.stats.pid == upgraded.pid and alive(upgraded.before_pid)
            second.engine.apply(Apply(node.epoch + 1, True))
            await second.wait(EngineApplied)
            held.may.set()
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert (await second.wait(EngineDrained))[0].key == MEMBER
            await until(lambda: not alive(upgraded.before_pid))
            writer.close()
        assert not sockets(folder)


def wrapper(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """An engine that is not what it should be."""
    script = folder / "bad-engine"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o700)
    monkeypatch.setenv("SDLB_ENGINE", str(script))
    return script


BROKEN = {
    "ends at once": ("echo 'it is broken' >&2; exit 1", "exited at start: it is broken"),
    "never asks for the sockets": ("exec sleep 60", "did not ask for the listening sockets"),
    "does not know the option": ('[ "$5" = --take-over ] && exit 2; exec ENGINE "$@"', "exited at start"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_new_engine_that_fails_leaves_the_old_one_as_it_was(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, told = BROKEN[how]
    binary = find_binary()

    async def run() -> None:
        async with backend() as held, serving(tmp_path, held) as node:
            pid = node.made.engine.stats.pid
            with monkeypatch.context() as bad:
                bad.setattr("sdlb.adapters.engine_native.START_WITHIN_S", 1.5)
                wrapper(tmp_path, bad, body.replace("ENGINE", binary))
                with pytest.raises(EngineFailed, match=told) as caught:
                    await node.upgrade()
            assert f"process {pid}" in str(caught.value)
            await node.ask()
            node.epoch += 1
            node.made.engine.apply(Apply(node.epoch))
            await until(lambda: EngineApplied(node.epoch) in node.made.events)
            assert node.made.engine.stats.pid == pid
            assert (await node.upgrade()).before_pid == pid, "and it can be tried again"
            await node.ask()

    tmp_path.chmod(0o700)
    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_new_engine_that_is_killed_before_it_has_the_table_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = find_binary()
    told = tmp_path / "pid"

    async def run() -> None:
        async with backend() as held, started(tmp_path) as made:
            node = Node(made, held.port)  # its core sends nothing
            made.engine.apply(whole(5, held.port))
            await made.wait(EngineApplied)
            with monkeypatch.context() as bad:
                wrapper(tmp_path, bad, f'{binary} "$@" & echo $! > {told}; wait')
                upgrading = asyncio.create_task(node.upgrade())
                await made.wait(EngineJoined)
            os.kill(int(await asyncio.to_thread(told.read_text)), signal.SIGKILL)
            with pytest.raises(EngineFailed, match="it exited"):
                await upgrading
            await node.ask()
            await node.take_out()
            await until(lambda: bool(node.drained))

    tmp_path.chmod(0o700)
    asyncio.run(asyncio.wait_for(run(), 60))


@scenario
async def test_a_second_upgrade_waits_for_the_end_of_the_first(folder: Path) -> None:
    async with backend() as held, serving(folder, held) as node:
        held.may.clear()
        _, writer = await node.dial()
        writer.write(REQUEST)
        await until(lambda: held.asked == 1)
        upgraded = await node.upgrade()
        with pytest.raises(EngineFailed, match=f"process {upgraded.before_pid}\\) still drains"):
            await node.upgrade()
        held.may.set()
        writer.close()
        await until(lambda: not alive(upgraded.before_pid))
        await until(lambda: "engine-ended" in [note.code for note in node.made.notes])
        await node.upgrade()


@scenario
async def test_a_configuration_goes_to_the_process_that_serves(folder: Path) -> None:
    async with backend() as held, serving(folder, held) as node:
        await node.upgrade()
        bound = node.made.engine.stats.bound
        config = EngineConfig("n", CONFIG.listeners, "", {"head_bytes": 9000})
        assert await node.made.engine.configure(config) == ""
        assert node.made.engine.stats.bound == bound
        await node.ask()
