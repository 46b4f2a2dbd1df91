"""The native engine's adapter against a real engine process: attach, apply, outlive control, start again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sdlb.adapters.engine_native import NativeEngine
from sdlb.adapters.engine_stats import ROWS_MAX, Rows, Totals
from sdlb.core.effects import Apply, EndpointPut, Note, Pick, RoutePut, UpstreamPut
from sdlb.core.events import (
    EndpointKey,
    EngineApplied,
    EngineAttached,
    EngineDrained,
    EngineLost,
    EngineRejected,
    Event,
)
from sdlb.core.messages import ClaimKey
from sdlb.seams.engine import EngineConfig, EngineFailed, EngineStats, Listener
from sdlb.wire.engine_pb2 import GroupStats, Stats

CONFIG = EngineConfig("n", (Listener("http", "127.0.0.1:0"), Listener("node", "127.0.0.1:0")), "/nowhere/links.sock")
CLAIM = ClaimKey("web", "1.0.0", "example.com/*")
MEMBER = EndpointKey(CLAIM, "i:a")


def whole(epoch: int, port: int = 9) -> Apply:
    return Apply(
        epoch,
        True,
        (UpstreamPut("i:a", False, f"127.0.0.1:{port}"),),
        (EndpointPut(MEMBER, 10),),
        (RoutePut("example.com/*", "web", (Pick("1.0.0", 0, 0),)),),
    )


@dataclass
class Control:
    """One life of control."""

    engine: NativeEngine
    events: list[Event]
    notes: list[Note] = field(default_factory=list[Note])

    async def wait(self, kind: type[Any], count: int = 1) -> list[Any]:
        for _ in range(3000):
            if len(found := [event for event in self.events if isinstance(event, kind)]) >= count:
                return found
            await asyncio.sleep(0.005)
        raise TimeoutError(f"no {kind.__name__} among {self.events}")


def control(folder: Path) -> Control:
    events: list[Event] = []
    notes: list[Note] = []
    engine = NativeEngine(folder / "engine.sock", folder / "engine.log", 1, events.append, notes.append)
    return Control(engine, events, notes)


@asynccontextmanager
async def started(folder: Path) -> AsyncGenerator[Control]:
    made = control(folder)
    await made.engine.start(CONFIG)
    try:
        yield made
    finally:
        await made.engine.shut_down(0.0)


def scenario(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        asyncio.run(asyncio.wait_for(_awaited(test(tmp_path)), 60))

    run.__name__ = test.__name__
    return run


async def _awaited(work: Awaitable[None]) -> None:
    await work


@scenario
async def test_a_delta_is_applied_and_what_it_deletes_is_drained(folder: Path) -> None:
    async with started(folder) as made:
        (attached,) = await made.wait(EngineAttached)
        assert (attached.epoch, attached.endpoints, attached.draining) == (0, 0, ())
        assert set(made.engine.stats.bound) == {"http", "node"}
        made.engine.apply(whole(5))
        assert await made.wait(EngineApplied) == [EngineApplied(5)]
        made.engine.apply(
            Apply(6, delete_endpoints=(MEMBER,), delete_routes=("example.com/*",), delete_upstreams=("i:a",))
        )
        assert await made.wait(EngineDrained) == [EngineDrained(MEMBER, 6)]
        kinds = [type(event) for event in made.events]
        assert kinds[2:] == [EngineApplied, EngineDrained], "applied first, then drained"


@scenario
async def test_a_delta_that_cannot_be_applied_is_rejected_whole(folder: Path) -> None:
    async with started(folder) as made:
        made.engine.apply(whole(5))
        await made.wait(EngineApplied)
        made.engine.apply(Apply(6, put_endpoints=(EndpointPut(EndpointKey(CLAIM, "i:unknown"), 1),)))
        (rejected,) = await made.wait(EngineRejected)
        assert rejected.epoch == 6
        assert rejected.reason


@pytest.mark.promise(4)
@scenario
async def test_the_engine_outlives_control_and_the_next_control_attaches(folder: Path) -> None:
    first = control(folder)
    await first.engine.start(CONFIG)
    first.engine.apply(whole(5))
    await first.wait(EngineApplied)
    pid, bound = first.engine.stats.pid, dict(first.engine.stats.bound)
    assert os.getsid(pid) == pid, "a session of its own"
    await first.engine.detach()
    async with started(folder) as second:
        (attached,) = await second.wait(EngineAttached)
        (before,) = await first.wait(EngineAttached)
        assert (attached.boot_id, attached.epoch, attached.endpoints) == (before.boot_id, 5, 1)
        assert second.engine.stats.pid == pid
        assert second.engine.stats.bound == bound
        # A control that has lost its state leaves the table as it is for a while, and sends what it learns meanwhile.
        second.engine.apply(Apply(6, put_endpoints=(EndpointPut(MEMBER, 7),)))
        assert await second.wait(EngineApplied) == [EngineApplied(6)]
    assert not (folder / "engine.sock").exists(), "ended with the one that took over"


@pytest.mark.promise(3)
@scenario
async def test_it_attaches_again_for_the_requests_in_flight_to_endpoints_that_control_did_not_know(
    folder: Path,
) -> None:
    """The delta replaces a table that control does not know. What it deletes has a request in flight."""
    arrived = asyncio.Event()

    async def instance(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(instance, "127.0.0.1", 0)
    async with server, started(folder) as made:
        made.engine.apply(whole(5, server.sockets[0].getsockname()[1]))
        await made.wait(EngineApplied)
        host, port = made.engine.stats.bound["http"].rsplit(":", 1)
        _, client = await asyncio.open_connection(host, int(port))
        client.write(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        await arrived.wait()
        made.engine.apply(Apply(6, True))
        await made.wait(EngineApplied, 2)
        pid = made.engine.stats.pid
        made.engine.attach_again()
        (before, again) = await made.wait(EngineAttached, 2)
        assert (again.boot_id, again.epoch, again.endpoints) == (before.boot_id, 6, 0)
        assert again.draining == ((MEMBER, 1),) and made.engine.stats.pid == pid
        made.engine.apply(Apply(7, True))
        await made.wait(EngineApplied, 3)
        assert not [each for each in made.events if isinstance(each, EngineDrained)]
        client.close()
        assert await made.wait(EngineDrained) == [EngineDrained(MEMBER, 6)]


@scenario
async def test_an_engine_that_dies_is_started_again(folder: Path) -> None:
    async with started(folder) as made:
        (before,) = await made.wait(EngineAttached)
        os.kill(made.engine.stats.pid, signal.SIGKILL)
        await made.wait(EngineLost)
        after = (await made.wait(EngineAttached, 2))[1]
        assert after.boot_id != before.boot_id
        assert after.epoch == 0
        assert "engine-restarting" in [note.code for note in made.notes]
        made.engine.apply(whole(9))
        assert await made.wait(EngineApplied) == [EngineApplied(9)]


@scenario
async def test_a_port_that_is_taken_fails_the_start_and_leaves_nothing_behind(folder: Path) -> None:
    async with started(folder) as made:
        taken = made.engine.stats.bound["http"]
        (folder / "other").mkdir(mode=0o700)
        other = control(folder / "other")
        with pytest.raises(EngineFailed, match=taken):
            await other.engine.start(EngineConfig("m", (Listener("http", taken),), ""))
        assert not (folder / "other" / "engine.sock").exists()
        assert not other.events


@scenario
async def test_a_new_configuration_is_applied_whole_or_not_at_all(folder: Path) -> None:
    async with started(folder) as made:
        bound = dict(made.engine.stats.bound)
        node = Listener("node", bound["node"])
        error = await made.engine.configure(EngineConfig("n", (node, Listener("http", "127.0.0.1:1x")), ""))
        assert error
        assert made.engine.stats.bound == bound
        assert await made.engine.configure(EngineConfig("n", (node,), "", {"head_bytes": 9000})) == ""
        assert set(made.engine.stats.bound) == {"node"}


def test_a_program_that_is_not_there_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDLB_ENGINE", str(tmp_path / "none"))
    tmp_path.chmod(0o700)
    with pytest.raises(EngineFailed, match="cannot be started"):
        asyncio.run(control(tmp_path).engine.start(CONFIG))
    monkeypatch.setenv("SDLB_ENGINE", "/bin/false")
    with pytest.raises(EngineFailed, match="exited at start"):
        asyncio.run(control(tmp_path).engine.start(CONFIG))


def test_the_figures_of_what_is_gone_do_not_pile_up() -> None:
    stats, rows = EngineStats(), Rows()
    totals = Totals(stats)
    totals.begin(rows)
    last = ROWS_MAX // 1000 * 1000 + 1000
    for start in range(0, last + 1000, 1000):
        groups = [GroupStats(service="web", version=f"1.0.{n}", requests=1) for n in range(start, start + 1000)]
        totals.on_stats(rows, Stats(groups=[*groups, GroupStats(service="busy", version="1", requests=start)]))
    assert len(stats.groups) == ROWS_MAX
    assert stats.groups["busy", "1"].requests == last
    assert ("web", "1.0.0") not in stats.groups
    assert ("web", f"1.0.{last + 999}") in stats.groups
