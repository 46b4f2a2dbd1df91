"""The loop: decide, write, act, in that order; and a disk that cannot be written causes no outage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from sdlb.core.effects import Note, ReleaseHeld
from sdlb.core.events import (
    ChildConnected,
    InstancePut,
    ParentClosed,
    ParentConnected,
    ParentMessage,
    Stop,
    StoreStuck,
    StoreWritten,
    Tick,
)
from sdlb.core.messages import Beat, Hello, Refused
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.node.journal import Journal
from tests.node.lone import Lone, lone

NONE = HealthCheck("none")


def spec(name: str, version: str = "1.0.0") -> InstanceSpec:
    return InstanceSpec(name, "web", version, ("example.com/*",), "127.0.0.1:9", health=NONE, ttl_s=0)


async def active(node: Lone, name: str) -> None:
    while True:
        found = node.balancer.view.instance(name)
        if found is not None and found["state"] == "active":
            return
        await node.loop.instances.wait(name, 5.0)


@pytest.mark.promise(8)
def test_nothing_takes_effect_before_it_is_on_disk(tmp_path: Path) -> None:
    """The engine gets what a durable decision of the same iteration allows only when that is written."""

    async def run() -> None:
        async with lone(tmp_path) as node:
            await asyncio.sleep(0.05)
            order: list[str] = []
            commit, apply = node.store.commit, node.engine.apply

            async def slow_commit(puts: Any, durable: bool) -> None:
                order.append(f"write {durable}")
                await asyncio.sleep(0.05)
                await commit(puts, durable)
                order.append(f"written {durable}")

            def seen_apply(delta: Any) -> None:
                if delta.put_endpoints:
                    order.append("apply")
                apply(delta)

            node.store.commit, node.engine.apply = slow_commit, seen_apply  # type: ignore[method-assign]
            await node.loop.do(InstancePut(spec("a")))
            await active(node, "a")
            assert "written True" in order
            assert order.index("written True") < order.index("apply")

    asyncio.run(run())


@pytest.mark.promise(8)
def test_a_decision_that_cannot_be_written_waits_and_what_is_served_goes_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            await node.loop.do(InstancePut(spec("a")))
            await active(node, "a")
            node.store.fails = "disk full"
            applied: list[Any] = []
            apply = node.engine.apply

            def seen_apply(delta: Any) -> None:
                applied.append(delta)
                apply(delta)

            node.engine.apply = seen_apply  # type: ignore[method-assign]
            other = InstanceSpec("b", "other", "1.0.0", ("other.com/*",), "127.0.0.1:10", health=NONE, ttl_s=0)
            await node.loop.do(InstancePut(other))
            await node.loop.do(InstancePut(spec("c")))
            await node.loop.do(InstancePut(spec("a")))  # a renewal
            await asyncio.sleep(1.3)  # longer than the lease, and past the first try again
            codes = [event.code for event in node.journal.recent]
            assert (codes.count("state-not-written"), codes.count("decisions-wait")) == (1, 1)
            assert (node.loop.writes, node.loop.held) == (False, 1)
            assert applied == []
            assert (node.balancer.view.instance("a") or {})["state"] == "active"
            assert (node.balancer.view.instance("b") or {})["state"] == "waiting"
            ready = await node.http.get("/readyz")
            assert (ready.status_code, "disk full" in ready.text) == (503, True)
            tree = (await node.http.get("/v1/tree")).json()
            assert (tree["writes"], tree["ready"]) == (False, False)
            page = (await node.http.get("/metrics")).text
            assert "sdlb_state_written 0" in page
            assert "sdlb_decisions_wait 1" in page
            assert "sdlb_effects_held 1" in page
            policy = await node.http.put("/v1/policies/web", json={"priority": "higher"})
            assert (policy.status_code, policy.json()["type"].rpartition("/")[2]) == (503, "not-written")
            node.store.fails = ""
            for name in "abc":
                await active(node, name)
            assert {"instance/a", "instance/b", "instance/c", "service/web", "service/other"} <= set(node.store.disk)
            assert (node.loop.writes, node.loop.held) == (True, None)
            assert (await node.http.get("/readyz")).status_code == 200
            assert "state-written" in [event.code for event in node.journal.recent]

    asyncio.run(run())


@pytest.mark.promise(4)
def test_a_disk_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdlb.node.loop.STALL_S", 0.1)

    async def run() -> None:
        async with lone(tmp_path) as node:
            await node.loop.do(InstancePut(spec("a")))
            await active(node, "a")
            commit, answers = node.store.commit, asyncio.Event()

            async def stuck(puts: Any, durable: bool) -> None:
                await answers.wait()
                await commit(puts, durable)

            node.store.commit = stuck  # type: ignore[method-assign]
            other = InstanceSpec("b", "other", "1.0.0", ("other.com/*",), "127.0.0.1:10", health=NONE, ttl_s=0)
            await asyncio.wait_for(node.loop.do(InstancePut(other)), 5.0)
            assert (node.loop.writes, node.loop.held) == (False, 1)
            await asyncio.wait_for(node.loop.do(InstancePut(spec("a"))), 5.0)
            assert "has not answered" in (await node.http.get("/readyz")).text
            answers.set()
            await active(node, "b")
            assert {"instance/b", "service/other"} <= set(node.store.disk)
            assert node.loop.writes

    asyncio.run(run())


def test_a_node_whose_disk_is_full_can_be_stopped(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            node.store.fails = "disk full"
            await node.loop.do(InstancePut(spec("a")))
            await node.loop.do(Stop(0.3))
            await asyncio.wait_for(node.loop.stopped, 5.0)

    asyncio.run(run())


@pytest.mark.promise(8)
def test_what_the_store_has_is_there_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        disk: dict[str, bytes] = {}
        (tmp_path / "1").mkdir(mode=0o700)
        (tmp_path / "2").mkdir(mode=0o700)
        async with lone(tmp_path / "1", disk=disk) as node:
            await node.loop.do(InstancePut(spec("a")))
            await active(node, "a")
        async with lone(tmp_path / "2", disk=disk) as node:
            await active(node, "a")

    asyncio.run(run())


def test_an_internal_error_is_reported_and_the_loop_continues(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            wrong: Any = object()
            node.engine.apply = wrong  # not callable: a bug in an adapter
            await node.loop.do(InstancePut(spec("a")))
            assert node.loop.errors >= 1
            assert "internal-error" in [event.code for event in node.journal.recent]
            assert (await node.http.get("/healthz")).status_code == 200
            assert node.balancer.view.instance("a") is not None

    asyncio.run(run())


def test_one_event_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    """It affects neither earlier events of the same iteration, whose effects the core still holds, nor later ones."""

    async def run() -> None:
        async with lone(tmp_path) as node:
            events: list[Any] = [InstancePut(spec("a")), InstancePut(cast("Any", None)), InstancePut(spec("b"))]
            for event in events:
                node.loop.post(event)
            await node.loop.do(InstancePut(spec("c")))
            assert node.loop.errors == 1
            for name in "abc":
                await active(node, name)
            assert {"instance/a", "instance/b", "instance/c"} <= set(node.store.disk)

    asyncio.run(run())


def test_one_effect_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            apply, failed = node.engine.apply, list[Any]()

            def fails_once(delta: Any) -> None:
                if not failed:
                    failed.append(delta)
                    raise ValueError("a fault of the adapter")
                apply(delta)

            node.engine.apply = fails_once  # type: ignore[method-assign]
            await node.loop.do(InstancePut(spec("a")))
            assert "instance-registered" in [event.code for event in node.journal.recent], "after the delta"
            await active(node, "a")  # the core has sent the delta again
            assert failed[0].put_endpoints in [delta.put_endpoints for delta in node.engine.applied]
            assert node.loop.errors == 1

    asyncio.run(run())


def test_a_commit_that_fails_in_another_way_holds_what_follows(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            commit = node.store.commit

            async def broken(puts: Any, durable: bool) -> None:
                raise TypeError("a fault of the adapter")

            node.store.commit = broken  # type: ignore[method-assign]
            await node.loop.do(InstancePut(spec("a")))
            assert node.loop.held == 1
            assert all(not delta.put_endpoints for delta in node.engine.applied)
            node.store.commit = commit  # type: ignore[method-assign]
            await active(node, "a")
            assert node.loop.held is None

    asyncio.run(run())


def test_the_core_gets_an_event_when_decisions_wait_for_the_disk_and_when_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdlb.node.loop.RETRY_FIRST_S", 0.1)

    async def run() -> None:
        async with lone(tmp_path) as node:
            told: list[Any] = []
            handle_all = node.balancer.handle_all

            def seen(events: Iterable[Any], now: float, wall_s: float) -> Any:
                listed = list(events)
                told.extend(event for event in listed if isinstance(event, StoreStuck | StoreWritten))
                return handle_all(listed, now, wall_s)

            node.balancer.handle_all = seen  # type: ignore[method-assign]
            child = ChildConnected(1, Hello("host-1", "id-2", 1, "127.0.0.1:8"))
            await node.loop.do(child)
            sent: list[Any] = []
            node.loop.children.send = lambda link, message: sent.append(message)  # type: ignore[method-assign]
            node.store.fails = "disk full"
            await node.loop.do(InstancePut(spec("a")))
            await node.loop.do(Tick())
            assert told == [StoreStuck()]
            assert [each.has_say for each in sent if isinstance(each, Beat)][-1:] == [False]
            node.store.fails = ""
            await active(node, "a")
            await node.loop.do(Tick())
            assert told == [StoreStuck(), StoreWritten()]
            assert [each.has_say for each in sent if isinstance(each, Beat)][-1:] == [True]

    asyncio.run(run())


def test_what_is_released_is_carried_out_though_the_disk_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdlb.node.loop.RETRY_FIRST_S", 0.1)

    async def run() -> None:
        async with lone(tmp_path) as node:
            node.store.fails = "disk full"
            await node.loop.do(InstancePut(spec("a")))
            assert node.loop.held == 1
            handle_all = node.balancer.handle_all

            def releases(events: Iterable[Any], now: float, wall_s: float) -> Any:
                node.balancer.handle_all = handle_all  # type: ignore[method-assign]
                return [ReleaseHeld(), *handle_all(events, now, wall_s)]

            node.balancer.handle_all = releases  # type: ignore[method-assign]
            await node.loop.do(Tick())
            assert (node.loop.held, node.loop.writes) == (None, False)
            await active(node, "a")
            await node.loop.do(InstancePut(spec("b")))
            await active(node, "b")
            assert (node.loop.held, node.loop.writes) == (None, False), "what follows is not held either"
            assert "instance/b" not in node.store.disk
            node.store.fails = ""
            while "instance/b" not in node.store.disk:
                await node.loop.do(Tick())
            node.store.fails = "full again"
            other = InstanceSpec("c", "other", "1.0.0", ("other.com/*",), "127.0.0.1:10", health=NONE, ttl_s=0)
            await node.loop.do(InstancePut(other))
            assert node.loop.held == 1, "it decides again, and waits for the disk again"

    asyncio.run(run())


@pytest.mark.promise(8)
def test_a_new_incarnation_is_on_disk_before_it_is_sent(tmp_path: Path) -> None:
    """A node that was restored from an older copy of its state is refused, takes a higher number, and comes again."""

    async def run() -> None:
        async with lone(tmp_path, parents=("127.0.0.1:7700",)) as node:
            order: list[Any] = []
            commit = node.store.commit

            async def seen_commit(puts: Any, durable: bool) -> None:
                await commit(puts, durable)
                order.extend((value, durable) for key, value in puts.items() if key == "node/incarnation")

            def send(parent: str, message: Any) -> None:
                order.append(message.incarnation)

            node.store.commit = seen_commit  # type: ignore[method-assign]
            node.loop.parents.send = send  # type: ignore[method-assign]
            dialed: asyncio.Queue[str] = asyncio.Queue()
            node.loop.parents.dial = dialed.put_nowait  # type: ignore[method-assign]
            connected = ParentConnected("127.0.0.1:7700", "127.0.0.1:8")
            node.loop.post(ParentClosed("127.0.0.1:7700", "as if it had been dialed before the test could see it"))
            await asyncio.wait_for(dialed.get(), 10.0)
            await node.loop.do(connected)
            await node.loop.do(ParentMessage("127.0.0.1:7700", Refused("older-incarnation", "old", 41)))
            await asyncio.wait_for(dialed.get(), 10.0)
            await node.loop.do(connected)
            assert order == [1, (42, True), 42]

    asyncio.run(run())


# ------------------------------------------------------------------ the journal


class Terminal:
    def __init__(self, tty: bool) -> None:
        self.text = ""
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...


def test_the_log_is_json_in_a_file_and_plain_on_a_terminal() -> None:
    file: Any = Terminal(False)
    Journal("n", file, wall=lambda: 0.25).report(
        Note("a-code", "some\ntext", "warning", {"service": "web", "code": "no"})
    )
    line = json.loads(file.text)
    expected = {
        "at": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "node": "n",
        "code": "a-code",
        "text": "some\ntext",
    }
    assert line == {**expected, "service": "web"}
    tty: Any = Terminal(True)
    Journal("n", tty).report(Note("a-code", "evil \x1b[2J text"))
    assert "a-code" in tty.text
    assert "\x1b" not in tty.text
    assert tty.text.count("\n") == 1
