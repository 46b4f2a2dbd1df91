"""What is particular to HAProxy: reloads and their absence, leaving workers, names, and disagreement with the workers."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from pathlib import Path

import pytest
from msgspec.structs import replace

from sdlb.adapters.acme_keys import challenge_certificate
from sdlb.adapters.haproxy import program
from sdlb.adapters.haproxy.files import Files
from sdlb.adapters.haproxy.sites import Sites
from sdlb.adapters.haproxy.tables import Tables
from sdlb.core.effects import Apply, EndpointPut, Pick, RoutePut, UpstreamPut
from sdlb.core.events import EndpointKey, EngineApplied, EngineAttached, EngineDrained, EngineLost
from sdlb.core.messages import ClaimKey
from sdlb.model.acme import HTTP, TLS, WELL_KNOWN, ChallengeAnswer
from sdlb.model.hardening import Hardening
from sdlb.model.identity import Identity
from sdlb.model.site import Site
from sdlb.node.config import LIMITS
from sdlb.seams.engine import EngineConfig, Listener
from tests.certificates import Authority, needs_openssl
from tests.engines.play import (
    CONFIG,
    Endpoint,
    Played,
    connect,
    control,
    endpoints,
    key,
    needs_haproxy,
    one,
    put,
    request,
    route,
    run,
    started,
    upstream,
)

pytestmark = needs_haproxy


async def serve(played: Played, *made: Endpoint) -> None:
    await played.apply(
        Apply(0, True, tuple(map(upstream, made)), tuple(put("1.0.0", each) for each in made), (route(one("1.0.0")),))
    )


def test_instances_come_and_go_without_a_reload(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), started("haproxy", tmp_path) as played:
            await serve(played, a)
            for _ in range(20):
                await played.apply(Apply(0, put_upstreams=(upstream(b),), put_endpoints=(put("1.0.0", b),)))
                await played.apply(Apply(0, delete_endpoints=(key("1.0.0", "i:b"),), delete_upstreams=("i:b",)))
            await played.wait(EngineDrained)
            now = await played.haproxy.processes()
            assert (now.reloads, now.leaving) == (0, ())
            await played.until(lambda: not played.haproxy.tables.leaving, "deleted")
            assert (await played.ask()).body == "a"

    run(scenario)


def test_spare_backends_are_doubled_by_one_reload_and_old_workers_follow(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), started("haproxy", tmp_path) as played:
            await serve(played, a, b)
            slow = [asyncio.create_task(played.ask(path="/slow")) for _ in range(6)]
            await played.until(lambda: a.got + b.got == 6)
            patterns = [f"example.com/{n}" for n in range(60)]
            puts = tuple(put("1.0.0", b, pattern) for pattern in patterns)
            routes = tuple(route(one("1.0.0"), pattern) for pattern in patterns)
            await played.apply(Apply(0, put_endpoints=puts, put_routes=routes))
            for pattern in (patterns[0], patterns[-1]):
                assert (await played.ask(path=pattern.removeprefix("example.com"))).body == "b"
            before = played.engine.stats.pid
            await played.until(lambda: played.engine.stats.pid != before, "a reload")
            now = await played.haproxy.processes()
            assert (now.reloads, now.leaving) == (1, (before,))
            await played.apply(Apply(0, delete_endpoints=(key("1.0.0", "i:a"),)))
            late = put("1.0.0", b, "late.example/*")
            await played.apply(Apply(0, put_endpoints=(late,), put_routes=(route(one("1.0.0"), "late.example/*"),)))
            assert "late.example" in await played.haproxy.tell(before, "show map prefix.map")
            await asyncio.sleep(0.3)
            busy = a.got > 0
            assert busy != any(isinstance(event, EngineDrained) for event in played.events)
            a.release.set()
            b.release.set()
            assert {(await task).status for task in slow} == {200}
            await played.wait(EngineDrained)
            assert (await played.haproxy.processes()).reloads == 1
            many = [f"{n}.example/*" for n in range(200)]  # more than all spare backends
            puts = tuple(put("1.0.0", b, pattern) for pattern in many)
            await played.apply(
                Apply(0, put_endpoints=puts, put_routes=tuple(route(one("1.0.0"), pattern) for pattern in many))
            )
            assert (await played.ask("199.example")).body == "b"

    run(scenario)


def test_no_name_becomes_a_command_or_a_line(tmp_path: Path) -> None:
    names = (
        "a; shutdown frontend http",
        "b\n\n@1 del map exact.map",
        "c <<\n",
        "d\\; \\",
        "e|f|g",
        "%3B%0A",
        "ü \x00 #",
        "$(x) `y`",
    )

    async def scenario() -> None:
        async with endpoints("a") as (a,), started("haproxy", tmp_path) as played:
            up = UpstreamPut("i:\n\nx; y", False, a.address)
            claims = [ClaimKey(name, name, f"example.com/{n}$&'();=@:,") for n, name in enumerate(names)]
            puts = tuple(EndpointPut(EndpointKey(claim, up.key), 1) for claim in claims)
            routes = tuple(
                RoutePut(claim.route, claim.service, tuple(one(claim.version)), 5, 1.0, "header", name)
                for claim, name in zip(claims, names, strict=True)
            )
            await played.apply(Apply(0, True, (up,), puts, routes))
            for claim in claims:
                assert (await played.ask(path=claim.route.removeprefix("example.com"))).body == "a"
            assert (await played.haproxy.processes()).reloads == 0
            restored = {
                server.key for server in (played.haproxy.tables.server(f"g{n}/s{n}") for n in range(99)) if server
            }
            assert restored <= {each.key for each in puts}
            played.haproxy.tables.restore(played.haproxy.tables.maps)
            assert {pool.claim for pool in played.haproxy.tables.pools} == set(claims)

    run(scenario)


def test_an_address_that_haproxy_cannot_have_is_reported_and_the_others_serve(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started("haproxy", tmp_path) as played:
            bad = UpstreamPut("i:bad", False, "unix:/tmp/a b; x")
            puts = (put("1.0.0", a), EndpointPut(key("1.0.0", "i:bad"), 1))
            await played.apply(Apply(0, True, (upstream(a), bad), puts, (route(one("1.0.0")),)))
            assert (await played.ask()).body == "a"
            assert any(each.what == "endpoint" and "i:bad" in each.instead for each in played.engine.degraded())
            await played.apply(Apply(0, delete_endpoints=(key("1.0.0", "i:bad"),), delete_upstreams=("i:bad",)))
            await played.wait(EngineDrained)
            assert not any(each.what == "endpoint" for each in played.engine.degraded())

    run(scenario)


def test_a_refused_reload_changes_nothing_and_a_later_one_works(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started("haproxy", tmp_path) as played:
            await serve(played, a)
            listeners = (Listener("http", played.address), Listener("node", "127.0.0.1:0", tls=True))
            broken = Identity(b"no PEM", b"no PEM")
            good = (tmp_path / "haproxy" / "haproxy.cfg").read_bytes()
            error = await played.engine.configure(EngineConfig("n", listeners, "", identity=broken))
            assert (tmp_path / "haproxy" / "haproxy.cfg").read_bytes() == good
            assert "identity.pem" in error
            assert (await played.ask()).body == "a"
            os.kill(played.engine.stats.pid, signal.SIGKILL)
            await played.wait(EngineAttached, 2)
            assert (await played.ask()).body == "a", "the last good files"
            assert await played.engine.configure(replace(CONFIG, listeners=(Listener("http", played.address),))) == ""

    run(scenario)


def test_workers_that_differ_from_the_table_are_reloaded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), started("haproxy", tmp_path) as played:
            await serve(played, a)
            pid = (await played.haproxy.processes()).current
            await played.haproxy.tell(pid, "clear map prefix.map")
            picks = [Pick("1.0.0", 0, 0), Pick("1.0.1", 0, 0)]
            await played.apply(Apply(0, False, (upstream(b),), (put("1.0.1", b),), (route(picks),)))
            assert {(await played.ask()).body for _ in range(10)} == {"a", "b"}
            assert (await played.haproxy.processes()).reloads == 1
            assert "engine-command" in [note.code for note in played.notes]

    run(scenario)


def test_a_killed_master_leaves_no_worker_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started("haproxy", tmp_path) as played:
            await serve(played, a)
            before = await played.haproxy.processes()
            os.kill(before.master, signal.SIGKILL)
            await played.wait(EngineLost)
            await played.wait(EngineAttached, 2)
            assert (await played.ask()).body == "a"
            await played.until(
                lambda: not Path(f"/proc/{before.current}/cmdline").exists() or not played.haproxy.owns(before.current)
            )

    run(scenario)


async def eject_b(played: Played, a: Endpoint, b: Endpoint) -> None:
    await serve(played, a, b)
    await b.stop()
    for _ in range(60):
        assert (await played.ask()).body == "a"
    await played.until(lambda: "i:b" in played.engine.stats.ejected, "ejected")
    while "MAINT" not in await played.haproxy.tell(played.engine.stats.pid, "show stat -1 4 -1"):
        await asyncio.sleep(0.02)


def test_an_ejected_endpoint_gets_requests_after_a_restart_of_control(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b):
            first = control("haproxy", tmp_path)
            await first.engine.start(CONFIG)
            await eject_b(first, a, b)
            await first.engine.detach()
            await b.start(b.port)
            async with started("haproxy", tmp_path) as second:
                assert {(await second.ask()).body for _ in range(60)} == {"a", "b"}
                second.epoch = first.epoch
                await serve(second, a, b)
                assert (await second.haproxy.processes()).reloads == 0

    run(scenario)


def test_an_ejected_endpoint_that_leaves_is_reported_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), started("haproxy", tmp_path) as played:
            await eject_b(played, a, b)
            await played.apply(Apply(0, delete_endpoints=(key("1.0.0", "i:b"),), delete_upstreams=("i:b",)))
            await played.until(lambda: not played.engine.stats.ejected, "reported no more")

    run(scenario)


def test_challenges_over_http_are_answered_and_others_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with started("haproxy", tmp_path) as played:
            answer = ChallengeAnswer(HTTP, "a.example", "tok-en_1", "tok-en_1.x Y")
            assert await played.engine.challenges.challenges([answer]) == ""
            got = await played.ask("a.example", f"{WELL_KNOWN}tok-en_1")
            assert (got.status, got.body) == (200, "tok-en_1.x Y")
            assert (await played.ask("b.example", f"{WELL_KNOWN}tok-en_1")).status == 421
            refused = ChallengeAnswer(TLS, "a.example", "", challenge_certificate("a.example", "t.x"))
            assert "only on nodes with" in await played.engine.challenges.challenges([refused])
            assert (await played.ask("a.example", f"{WELL_KNOWN}tok-en_1")).status == 421

    run(scenario)


def test_one_address_has_so_many_connections_and_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        limits = {"connections_per_address": 3, "requests_per_s_per_address": 5, "body_bytes": 10}
        config = replace(CONFIG, limits=limits)
        async with endpoints("a") as (a,), started("haproxy", tmp_path, config) as played:
            await serve(played, a)
            held = [await connect(played.address) for _ in range(3)]
            for reader, writer in held:
                assert (await request(reader, writer)).status == 200
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await played.ask()
            reader, writer = held[0]
            assert (await request(reader, writer, fields="content-length: 11\r\n", method="POST")).status == 413
            for _, writer in held:
                writer.close()
            await asyncio.sleep(1.2)
            answers = [await played.ask() for _ in range(40)]
            assert {each.status for each in answers} == {200, 429}
            assert all("retry-after" in each.fields for each in answers if each.status == 429)

    run(scenario)


@needs_openssl
def test_a_host_of_another_site_than_that_of_the_handshake_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path / "authority")
        issued = authority.issue("a.example", "*.b.example", "c.example")
        pem = (issued.pem.encode(),)
        strict = Hardening(redirect_to_https=True, hsts_s=60)
        listeners = (
            Listener("https", "127.0.0.1:0", tls=True, hardening=strict),
            Listener("http", "127.0.0.1:0", hardening=strict),
        )
        config = EngineConfig("n", listeners, "")
        played = control("haproxy", tmp_path)
        ca = authority.pem.read_bytes()
        sites = [Site("a.example", ("a.example", "*.b.example"), pem), Site("c.example", ("c.example",), pem, ca, True)]
        played.engine.sites.put(sites, {site.key for site in sites})
        await played.engine.start(config)
        try:
            assert ("site *.b.example", ()) in [(each.what, each.services) for each in played.engine.degraded()]
            trust = ssl.create_default_context(cafile=str(authority.pem))
            trust.check_hostname = False
            host, _, port = played.engine.stats.bound["https"].rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port), ssl=trust, server_hostname="a.example")
            got = await request(reader, writer, "a.example")
            assert (got.status, got.fields["strict-transport-security"]) == (421, "max-age=60")
            writer.close()
            for asked, place in (("x.b.example", "x.b.example"), ("X.b.example:80", f"x.b.example:{port}")):
                got = await played.ask(asked, "/p/q?r=1")
                assert (got.status, got.fields["location"]) == (308, f"https://{place}/p/q?r=1")
            assert (await played.ask("d.example")).status == 421
            for name, asked, status in (
                ("a.example", "a.example", 421),
                ("a.example", "x.b.example", 421),
                ("x.b.example", "A.example:443", 421),
                ("a.example", "c.example", 421),
                ("a.example", "d.example", 421),
            ):
                reader, writer = await asyncio.open_connection(host, int(port), ssl=trust, server_hostname=name)
                got = await request(reader, writer, asked)
                assert got.status == status
                assert ("misdirected" in got.body) == (asked[0] in "cd"), (name, asked)
                writer.close()
        finally:
            await played.engine.shut_down(0.0)

    run(scenario)


def test_without_lua_nothing_waits_and_that_is_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        real = (await program.find()).path
        binary = tmp_path / "no-lua"
        binary.write_text(
            f'#!/bin/sh\n[ "$1" = -vv ] && {{ {real} -vv | sed s/+LUA/-LUA/; exit; }}\nexec {real} "$@"\n'
        )
        binary.chmod(0o755)
        async with endpoints("a", "b") as (a, b), started("haproxy", tmp_path, binary=str(binary)) as played:
            assert {"parking", "sticky"} <= {each.what for each in played.engine.degraded()}
            picks = [Pick("1.0.0", 0, 1), Pick("1.0.1", 0, 1)]
            sticky = route(picks, sticky_by="client")
            parked = route([], "parked.example/*", park_requests_max=10, park_timeout_s=20.0)
            puts = (put("1.0.0", a), put("1.0.1", b))
            await played.apply(Apply(0, True, (upstream(a), upstream(b)), puts, (sticky, parked)))
            assert len({(await played.ask()).body for _ in range(10)}) == 1
            got = await asyncio.wait_for(played.ask("parked.example"), 2.0)
            assert (got.status, got.fields["retry-after"]) == (503, "1")
            assert "lua" not in (tmp_path / "haproxy" / "haproxy.cfg").read_text()

    run(scenario)


def test_every_setting_makes_a_configuration_that_haproxy_accepts(tmp_path: Path) -> None:
    async def scenario() -> None:
        limits = dict.fromkeys(LIMITS, 20000) | {"http2_streams": 50, "handshakes": 10, "fields": 200}
        listeners = tuple(
            Listener(name, f"[::1]:{n + 4000}", True, name == "https")
            for n, name in enumerate(("http", "https", "node"))
        )
        config = EngineConfig("n-1.x_y", listeners, "", limits, access_log=str(tmp_path / "access.json"))
        folder = tmp_path / "a b 'c'"
        folder.mkdir(mode=0o700)
        sites = Sites(folder, lambda: None)
        sites.take()
        found = await program.find()
        Files(folder, 2).write(config, found, Tables(4), sites)
        assert await program.check(found, folder) == ""

    run(scenario)


def test_before_the_first_table_requests_wait_for_a_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started("haproxy", tmp_path, settle_s=5.0) as played:
            early = asyncio.create_task(played.ask())
            await asyncio.sleep(0.2)
            assert not early.done()
            await serve(played, a)
            assert (await early).body == "a"

    run(scenario)


def test_a_stamped_request_reaches_its_group_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = EngineConfig("n", (Listener("http", "127.0.0.1:0"), Listener("node", "127.0.0.1:0")), "")
        async with endpoints("a", "b") as (a, b), started("haproxy", tmp_path, config) as played:
            puts = (put("1.0.0", a), put("1.0.1", b))
            await played.apply(Apply(0, True, (upstream(a), upstream(b)), puts, (route(one("1.0.0")),)))
            played.engine.stats.bound["http"] = played.engine.stats.bound["node"]
            assert (await played.ask(fields="sdlb-to: web/1.0.1 example.com/*\r\n")).body == "b"
            gone = await played.ask(fields="sdlb-to: web/1.0.2 example.com/*\r\n")
            assert (gone.status, gone.fields["sdlb-not-here"]) == (421, "1")
            assert (await played.ask()).status == 421
            await played.apply(Apply(0, delete_endpoints=(key("1.0.1", "i:b"),)))
            assert (await played.ask(fields="sdlb-to: web/1.0.1 example.com/*\r\n")).fields["sdlb-not-here"] == "1"

    run(scenario)


def test_the_state_of_a_delta_that_is_not_applied_is_repaired_by_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started("haproxy", tmp_path) as played:
            deep = "*.a.b.c.d.e.f.g.h.example.com/*"
            with pytest.raises(ValueError, match="8 labels"):
                await played.apply(
                    Apply(0, True, (upstream(a),), (put("1.0.0", a, deep),), (route(one("1.0.0"), deep),))
                )
            await serve(played, a)
            assert (await played.ask()).body == "a"
            assert [event.epoch for event in played.events if isinstance(event, EngineApplied)] == [2]

    run(scenario)
