"""One behavioural suite over both engines, for what HAProxy can do; real processes, driven through the seam."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from sdlb.core.effects import Apply, EndpointPut, Pick, UpstreamPut
from sdlb.core.events import EngineAttached, EngineDrained, EngineJoined, EngineLost
from sdlb.model.site import Site
from sdlb.seams.engine import EngineConfig, EngineFailed, Listener
from tests.certificates import Authority, needs_openssl, shown
from tests.engines.play import (
    CONFIG,
    WEBSOCKET,
    Played,
    answer,
    both,
    connect,
    control,
    endpoints,
    key,
    one,
    put,
    request,
    route,
    run,
    started,
    upstream,
)

pytestmark = both


async def _accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _names(played: Played, count: int = 20) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(count):
        found[(await played.ask()).body] += 1
    return found


@pytest.mark.promise(3)
def test_a_compatible_version_joins_and_the_old_one_leaves_and_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("old", "new") as (old, new), started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(old),), (put("1.0.0", old),), (route(one("1.0.0")),)))
            stop = asyncio.Event()

            async def client() -> Counter[str]:
                found: Counter[str] = Counter()
                while not stop.is_set():
                    got = await played.ask()
                    found[f"{got.status} {got.body}"] += 1
                return found

            clients = [asyncio.create_task(client()) for _ in range(4)]
            both_versions = route([Pick("1.0.0", 0, 0), Pick("1.0.1", 0, 0)])
            await played.apply(Apply(0, False, (upstream(new),), (put("1.0.1", new),), (both_versions,)))
            await played.until(lambda: new.got > 10 and old.got > 10)
            await played.apply(Apply(0, put_routes=(route(one("1.0.1")),), delete_endpoints=(key("1.0.0", "i:old"),)))
            served = old.got
            assert (await played.wait(EngineDrained))[0].key == key("1.0.0", "i:old")
            await asyncio.sleep(0.1)
            stop.set()
            total = sum(await asyncio.gather(*clients), Counter[str]())
            assert set(total) == {"200 old", "200 new"}
            assert old.got - served <= len(clients), "only what was chosen before"

    run(scenario)


def test_a_canary_of_10_percent_gets_10_percent(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("old", "new") as (old, new), started(kind, tmp_path) as played:
            picks = [Pick("1.0.0", 0, 9000), Pick("1.0.1", 0, 1000)]
            await played.apply(
                Apply(0, True, (upstream(old), upstream(new)), (put("1.0.0", old), put("1.0.1", new)), (route(picks),))
            )

            async def client(count: int) -> None:
                reader, writer = await connect(played.address)
                for _ in range(count):
                    assert (await request(reader, writer)).status == 200
                writer.close()

            await asyncio.gather(*(client(1250) for _ in range(8)))
            assert old.got + new.got == 10_000
            assert abs(new.got - 1000) <= 50

    run(scenario)


@pytest.mark.promise(1)
def test_an_incompatible_version_waits_parked_and_the_two_never_overlap(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("old", "new") as (old, new), started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(old),), (put("1.0.0", old),), (route(one("1.0.0")),)))
            assert (await played.ask()).body == "old"
            closed = route([], park_requests_max=10, park_timeout_s=20.0)
            await played.apply(Apply(0, put_routes=(closed,), delete_endpoints=(key("1.0.0", "i:old"),)))
            await played.wait(EngineDrained)
            waiting = [asyncio.create_task(played.ask()) for _ in range(5)]
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in waiting)
            assert (old.got, new.got) == (1, 0)
            await played.apply(Apply(0, False, (upstream(new),), (put("2.0.0", new),), (route(one("2.0.0")),)))
            assert [(await task).body for task in waiting] == ["new"] * 5
            assert old.got == 1

    run(scenario)


def test_parking_is_bounded_in_number_and_time(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, put_routes=(route([], park_requests_max=2, park_timeout_s=1.0),)))
            answers = await asyncio.gather(*(played.ask(path=f"/{n}") for n in range(6)))
            assert [each.status for each in answers] == [503] * 6
            assert all(each.fields["retry-after"] for each in answers)
            await played.apply(Apply(0, put_routes=(route([]),)))
            got = await asyncio.wait_for(played.ask(), 0.9)
            assert (got.status, got.fields.get("retry-after") is not None) == (503, True)

    run(scenario)


@pytest.mark.promise(3)
def test_a_drain_waits_for_slow_requests_and_loses_none(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("old", "new") as (old, new), started(kind, tmp_path) as played:
            await played.apply(
                Apply(
                    0,
                    True,
                    (upstream(old), upstream(new)),
                    (put("1.0.0", old), put("1.0.1", new)),
                    (route(one("1.0.0")),),
                )
            )
            slow = [asyncio.create_task(played.ask(path="/slow")) for _ in range(5)]
            await played.until(lambda: old.got == 5)
            await played.apply(Apply(0, put_routes=(route(one("1.0.1")),), delete_endpoints=(key("1.0.0", "i:old"),)))
            assert set(await _names(played)) == {"new"}
            await asyncio.sleep(0.3)
            assert not [event for event in played.events if isinstance(event, EngineDrained)]
            old.release.set()
            assert [(await task).body for task in slow] == ["old"] * 5
            await played.wait(EngineDrained)

    run(scenario)


def test_a_killed_engine_starts_again_and_serves_what_it_had(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started(kind, tmp_path) as played:
            table = Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),))
            await played.apply(table)
            address = played.address
            os.kill(played.engine.stats.pid, signal.SIGKILL)
            await played.wait(EngineLost)
            first, second = await played.wait(EngineAttached, 2)
            assert first.boot_id != second.boot_id
            await played.apply(table)
            if kind == "haproxy":  # the native engine chooses another free port for port 0
                assert played.address == address
            assert (await played.ask()).body == "a"

    run(scenario)


@pytest.mark.promise(4)
def test_control_may_restart_and_the_engine_serves_on(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b):
            first = control(kind, tmp_path)
            await first.engine.start(CONFIG)
            both_versions = route([Pick("1.0.0", 0, 1), Pick("1.0.1", 0, 1)])
            await first.apply(
                Apply(0, True, (upstream(a), upstream(b)), (put("1.0.0", a), put("1.0.1", b)), (both_versions,))
            )
            slow = asyncio.create_task(first.ask(path="/slow"))
            await first.until(lambda: a.got + b.got == 1)
            await first.engine.detach()
            async with started(kind, tmp_path) as second:
                (attached,) = await second.wait(EngineAttached)
                assert (attached.epoch, attached.endpoints) == (1, 2)
                assert second.address == first.address
                assert set(await _names(second)) == {"a", "b"}
                second.epoch = attached.epoch
                await second.apply(
                    Apply(
                        0,
                        True,
                        (upstream(a),),
                        (put("1.0.0", a),),
                        (route(one("1.0.0")),),
                        left_out=(key("1.0.1", "i:b"),),
                    )
                )
                assert set(await _names(second)) == {"a"}
                a.release.set()
                b.release.set()
                assert (await slow).status == 200
                await second.wait(EngineDrained)

    run(scenario)


def test_the_preferred_version_gets_all_and_the_next_one_its_overflow(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("old", "new") as (old, new), started(kind, tmp_path) as played:
            picks = [Pick("1.0.1", 0, 0), Pick("1.0.0", 1, 0)]
            puts = (put("1.0.0", old), put("1.0.1", new, capacity=4))
            await played.apply(Apply(0, True, (upstream(old), upstream(new)), puts, (route(picks),)))
            assert set(await _names(played)) == {"new"}
            busy = [asyncio.create_task(played.ask(path="/slow")) for _ in range(4)]
            await played.until(lambda: new.got == 24)
            await asyncio.sleep(2.6)
            assert "old" in await _names(played, 40)
            new.release.set()
            assert {(await task).body for task in busy} == {"new"}
            await played.apply(Apply(0, delete_endpoints=(key("1.0.1", "i:new"),)))
            assert set(await _names(played)) == {"old"}

    run(scenario)


@pytest.mark.parametrize("by", ["cookie", "header"])
def test_a_client_stays_at_its_version(kind: str, by: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("old", "new") as (old, new), started(kind, tmp_path) as played:
            picks = [Pick("1.0.0", 0, 5000), Pick("1.0.1", 0, 5000)]
            puts = (put("1.0.0", old), put("1.0.1", new))
            sticky = route(picks, sticky_by=by, sticky_name="x-who")
            await played.apply(Apply(0, True, (upstream(old), upstream(new)), puts, (sticky,)))
            found: Counter[str] = Counter()
            for who in range(60):
                field = f"cookie: a=b; x-who=u{who}" if by == "cookie" else f"X-Who: u{who}"
                got = {(await played.ask(fields=f"{field}\r\n")).body for _ in range(3)}
                assert len(got) == 1
                found[got.pop()] += 1
            assert min(found["old"], found["new"]) > 10

    run(scenario)


def test_fields_that_only_an_entry_sets_are_replaced(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
            forged = "X-Forwarded-For: 9.9.9.9\r\nX_Forwarded_For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\n"
            forged += "sdlb-to: web/9.9.9.9 x\r\nX-Request-Id: 9.9 9.9\r\nX-Forwarded-Proto: 9.9.9.9\r\nX-Own: kept\r\n"
            head = (await played.ask(path="/fields", fields=forged)).body.lower()
            assert "9.9.9.9" not in head
            assert "9.9 9.9" not in head
            for line in (
                "x-forwarded-for: 127.0.0.1",
                "x-real-ip: 127.0.0.1",
                "x-forwarded-proto: http",
                "x-own: kept",
            ):
                assert f"\r\n{line}\r\n" in head, line
            assert "x-forwarded-host: example.com" in head

    run(scenario)


def test_a_dead_endpoint_costs_no_request(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), started(kind, tmp_path) as played:
            puts = (put("1.0.0", a), put("1.0.0", b))
            await played.apply(Apply(0, True, (upstream(a), upstream(b)), puts, (route(one("1.0.0")),)))
            assert set(await _names(played)) == {"a", "b"}
            await b.stop()
            for _ in range(60):
                assert (await played.ask()).body == "a"
            await played.until(lambda: "i:b" in played.engine.stats.ejected, "ejected")
            assert "i:a" not in played.engine.stats.ejected

    run(scenario)


def test_the_last_endpoint_is_never_ejected(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
            for _ in range(10):
                assert (await played.ask(path="/bad")).status == 503
            await asyncio.sleep(1.3)
            assert (await played.ask()).body == "a"

    run(scenario)


def test_a_listener_that_cannot_open_changes_nothing(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
            taken = await asyncio.start_server(_accept, "127.0.0.1", 0)
            bad = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
            address = played.address
            error = await played.engine.configure(EngineConfig("n", (Listener("http", bad),), ""))
            assert error
            taken.close()
            assert played.address == address
            assert (await played.ask()).body == "a"
            config = replace(CONFIG, listeners=(Listener("http", address),), limits={"head_bytes": 20000})
            assert await played.engine.configure(config) == ""
            assert (await played.ask()).body == "a"

    run(scenario)


def test_a_port_that_is_taken_fails_the_start(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        taken = await asyncio.start_server(_accept, "127.0.0.1", 0)
        bad = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
        played = control(kind, tmp_path)
        with pytest.raises(EngineFailed, match=bad):
            await played.engine.start(EngineConfig("n", (Listener("http", bad),), ""))
        taken.close()

    run(scenario)


def test_figures_by_version_and_endpoint(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), started(kind, tmp_path) as played:
            picks = [Pick("1.0.0", 0, 1), Pick("1.0.1", 0, 1)]
            puts = (put("1.0.0", a), put("1.0.1", b))
            await played.apply(Apply(0, True, (upstream(a), upstream(b)), puts, (route(picks),)))
            for _ in range(20):
                await played.ask()
            for _ in range(2):
                await played.ask(path="/bad")
            stats = played.engine.stats
            await played.until(lambda: sum(row.requests for row in stats.groups.values()) == 22, "figures")
            rows = [stats.groups["web", version] for version in ("1.0.0", "1.0.1")]
            got = [row.requests for row in rows]
            assert sum(got) == 22
            assert min(got) >= 9
            assert sum(row.status[1] for row in rows) == 20
            assert sum(row.status[4] for row in rows) == 2
            instances = [row.at_instances for row in rows if row.at_instances is not None]
            assert [each.requests for each in instances] == got
            assert sum(each.answers[4] for each in instances) == 2
            assert stats.upstreams["i:a"].requests == a.got

    run(scenario)


def test_an_engine_that_stands_still_is_reported_and_catches_up(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started(kind, tmp_path) as played:
            pids = [played.engine.stats.pid]
            if kind == "haproxy":
                pids.append((await played.haproxy.processes()).master)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            try:
                work = asyncio.create_task(
                    played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
                )
                await played.until(lambda: played.engine.stats.hangs, "hangs")
                assert not work.done()
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
            await work
            await played.until(lambda: not played.engine.stats.hangs)
            assert (await played.ask()).body == "a"

    run(scenario)


def test_an_endpoint_with_another_address_and_one_that_serves_two_routes(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), started(kind, tmp_path) as played:
            routes = (route(one("1.0.0")), route(one("1.0.0"), "example.org/x"))
            puts = (put("1.0.0", a), put("1.0.0", a, "example.org/x"))
            await played.apply(Apply(0, True, (upstream(a),), puts, routes))
            assert (await played.ask("example.org", "/x")).body == "a"
            assert (await played.ask("example.org", "/y")).status == 404
            await played.apply(Apply(0, put_upstreams=(UpstreamPut("i:a", False, b.address),)))
            assert {(await played.ask("example.org", "/x")).body, (await played.ask()).body} == {"b"}
            gone = EndpointPut(key("1.0.0", "i:a", "example.org/x"), 1).key
            await played.apply(Apply(0, delete_routes=("example.org/x",), delete_endpoints=(gone,)))
            assert (await played.ask("example.org", "/x")).status == 421
            assert (await played.ask()).body == "b"

    run(scenario)


def test_requests_on_one_connection_follow_the_table(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("old", "new") as (old, new), started(kind, tmp_path) as played:
            puts = (put("1.0.0", old), put("2.0.0", new))
            await played.apply(Apply(0, True, (upstream(old), upstream(new)), puts, (route(one("1.0.0")),)))
            reader, writer = await connect(played.address)
            for _ in range(5):
                assert (await request(reader, writer)).body == "old"
            await played.apply(Apply(0, put_routes=(route(one("2.0.0")),)))
            for _ in range(5):
                assert (await request(reader, writer)).body == "new"
            writer.close()

    run(scenario)


@needs_openssl
def test_a_certificate_is_exchanged_and_a_bad_one_refused(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path / "authority")
        first, second, other = (authority.issue("a.example") for _ in range(3))
        config = EngineConfig("n", (Listener("https", "127.0.0.1:0", tls=True),), "")
        played = control(kind, tmp_path)
        sites = played.engine.sites
        sites.put([Site("a.example", ("a.example",), (first.pem.encode(),))], ["a.example"])
        await played.engine.start(config)
        try:

            async def seen(host: str) -> bytes | None:
                return await asyncio.to_thread(shown, played.engine.stats.bound["https"], host)

            assert await seen("a.example") == first.der
            assert await seen("b.example") is None
            sites.put([Site("a.example", ("a.example",), (second.pem.encode(),))])
            await played.until(lambda: len(played.states) == 2)
            await asyncio.sleep(0.2)
            assert await seen("a.example") == second.der
            mixed = other.chain.read_text() + first.key.read_text()
            sites.put([Site("a.example", ("a.example",), (mixed.encode(),))])
            await played.until(lambda: len(played.states) == 3)
            assert "key" in played.states[2].error
            assert await seen("a.example") == second.der
            sites.put([Site("b.example", ("b.example",), (other.pem.encode(),))], ["b.example"])
            await played.until(lambda: len(played.states) == 4)
            for _ in range(100):
                if await seen("b.example") is not None:
                    break
                await asyncio.sleep(0.05)
            assert (await seen("a.example"), await seen("b.example")) == (None, other.der)
        finally:
            await played.engine.shut_down(0.0)

    run(scenario)


def test_an_http10_client_without_a_host_is_refused(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with started(kind, tmp_path) as played:
            for head in (
                "GET / HTTP/1.1\r\n\r\n",
                "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
                "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
            ):
                reader, writer = await connect(played.address)
                writer.write(head.encode())
                assert (await answer(reader)).status == 400, head
                writer.close()

    run(scenario)


@pytest.mark.promise(3)
def test_a_hot_restart_under_load_loses_nothing(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
            slow = asyncio.create_task(played.ask(path="/slow"))
            await played.until(lambda: a.got == 1)
            stop = asyncio.Event()

            async def client() -> set[tuple[int, str]]:
                found: set[tuple[int, str]] = set()
                while not stop.is_set():
                    got = await played.ask()
                    found.add((got.status, got.body))
                return found

            clients = [asyncio.create_task(client()) for _ in range(3)]

            async def table() -> None:  # a new native process gets the whole table; HAProxy has it in its files
                await played.wait(EngineJoined)
                await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))

            joined = asyncio.create_task(table())
            done = await played.engine.upgrade(10.0)
            if kind == "native":
                await joined
            joined.cancel()
            assert done.pid != done.before_pid == done.before_pid
            await played.until(lambda: played.engine.stats.pid == done.pid)
            await asyncio.sleep(0.3)
            stop.set()
            assert set().union(*await asyncio.gather(*clients)) == {(200, "a")}
            a.release.set()
            assert (await slow).body == "a"

    run(scenario)


def test_an_upgraded_connection_counts_until_it_closes(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), started(kind, tmp_path) as played:
            await played.apply(
                Apply(0, True, (upstream(a), upstream(b)), (put("1.0.0", a), put("1.0.1", b)), (route(one("1.0.0")),))
            )
            reader, writer = await connect(played.address)
            writer.write(b"GET /echo HTTP/1.1\r\nhost: example.com\r\n" + WEBSOCKET + b"\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            await played.apply(Apply(0, put_routes=(route(one("1.0.1")),), delete_endpoints=(key("1.0.0", "i:a"),)))
            for text in (b"one", b"two"):
                writer.write(text)
                assert await reader.readexactly(3) == text
            await asyncio.sleep(0.3)
            assert not any(isinstance(event, EngineDrained) for event in played.events)
            writer.close()
            await played.wait(EngineDrained)

    run(scenario)


@pytest.mark.promise(3)
def test_clients_are_drained_before_the_node_leaves(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started(kind, tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
            slow = asyncio.create_task(played.ask(path="/slow"))
            await played.until(lambda: a.got == 1)
            leaving = asyncio.create_task(played.engine.drain_clients(10.0))
            await asyncio.sleep(0.3)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await played.ask()
            assert not leaving.done()
            a.release.set()
            assert (await slow).body == "a"
            await leaving

    run(scenario)
