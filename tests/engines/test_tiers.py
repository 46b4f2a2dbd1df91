"""Requests through two tiers, with HAProxy above, below and both, over mutual TLS, and unencrypted; driven through the seam."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from sdlb.core.effects import Apply, EndpointPut, UpstreamPut
from sdlb.core.events import EngineAttached, EngineDrained, EngineJoined
from sdlb.model.identity import Identity
from sdlb.seams.engine import EngineConfig, Listener
from tests.certificates import Authority, needs_openssl
from tests.engines.play import (
    WEBSOCKET,
    Endpoint,
    Played,
    answer,
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
    upstream,
)

pytestmark = [needs_haproxy, needs_openssl]
LINKS = ("haproxy-native-clear", "haproxy-native-tls", "native-haproxy-tls", "haproxy-haproxy-tls")
links = pytest.mark.parametrize("link", LINKS)
below_haproxy = pytest.mark.parametrize("link", LINKS[:2])


Identities = Callable[[str], Identity]


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """Certificates of nodes by name, all of one CA."""
    authority = Authority(tmp_path_factory.mktemp("authority"))

    @functools.cache
    def identity(name: str) -> Identity:
        issued = authority.issue(name, use="serverAuth,clientAuth")
        return Identity(issued.pem.encode(), authority.pem.read_bytes())

    return identity


@dataclass
class Tiers:
    """`config`: of the parent."""

    parent: Played
    children: list[Played]
    config: EngineConfig

    def at(self, child: Played) -> UpstreamPut:
        return UpstreamPut(f"n:{child.folder.name}", True, child.engine.stats.bound["node"])


def here(child: Played, version: str = "1.0.0", capacity: int = 100) -> EndpointPut:
    return EndpointPut(key(version, f"n:{child.folder.name}"), capacity)


@asynccontextmanager
async def tiers(
    link: str, folder: Path, identities: Identities, children: int = 1, settle_s: float = 0.0
) -> AsyncGenerator[Tiers]:
    top, below, security = link.split("-")
    secured = security == "tls"

    def config(name: str) -> EngineConfig:
        listeners = (Listener("http", "127.0.0.1:0"), Listener("node", "127.0.0.1:0", tls=secured))
        return EngineConfig(name, listeners, "/nowhere/links.sock", identity=identities(name) if secured else None)

    names = ["top", *(f"below-{n}" for n in range(children))]
    made = [control(below if at else top, _folder(folder / name)) for at, name in enumerate(names)]
    try:
        configs = [config(each.folder.name) for each in made]
        for each, its in zip(made, configs, strict=True):
            await each.engine.start(its, settle_s if each is not made[0] else 0.0)
        tree = Tiers(made[0], made[1:], configs[0])
        yield tree
        made[0] = tree.parent
    finally:
        for each in made:
            await each.engine.shut_down(0.0)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


async def serve(tree: Tiers, *made: Endpoint) -> None:
    """Each child has one of the endpoints, and the parent has the children."""
    for child, endpoint in zip(tree.children, made, strict=True):
        await child.apply(Apply(0, True, (upstream(endpoint),), (put("1.0.0", endpoint),), (route(one("1.0.0")),)))
    ups = tuple(map(tree.at, tree.children))
    await tree.parent.apply(Apply(0, True, ups, tuple(map(here, tree.children)), (route(one("1.0.0")),)))


@links
def test_a_request_passes_two_tiers_and_private_fields_do_not(
    link: str, tmp_path: Path, identities: Identities
) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), tiers(link, tmp_path, identities) as tree:
            await serve(tree, a)
            forged = "sdlb-to: web/9.9.9 x\r\nsdlb-not-here: 425\r\nX-Forwarded-For: 9.9.9.9\r\n"
            got = await tree.parent.ask("Example.com.:81", "/fields/../fields/%61?q=%61", forged)
            head = got.body.lower()
            assert (
                head.startswith("get /fields/a?q=%61 http/1.1\r\nhost: example.com:81\r\n")
                or "host: example.com:81" in head
            )
            assert got.status == 200
            assert "sdlb-" not in head
            assert "9.9.9.9" not in head
            assert "x-forwarded-for: 127.0.0.1" in head
            assert not [name for name in got.fields if name.startswith("sdlb-")]
            reader, writer = await connect(tree.parent.address)
            body = "x" * 300_000
            writer.write(
                f"POST /fields HTTP/1.1\r\nhost: example.com\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()

    run(scenario)


@links
def test_a_child_that_has_lost_the_version_costs_no_request(link: str, tmp_path: Path, identities: Identities) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), tiers(link, tmp_path, identities, 2) as tree:
            await serve(tree, a, b)
            assert {(await tree.parent.ask()).body for _ in range(30)} == {"a", "b"}
            await tree.children[1].apply(Apply(0, delete_endpoints=(key("1.0.0", "i:b"),)))
            assert {(await tree.parent.ask()).body for _ in range(30)} == {"a"}
            if link.startswith("native"):  # which waits
                return
            await tree.children[0].apply(Apply(0, delete_endpoints=(key("1.0.0", "i:a"),)))
            got = await tree.parent.ask()
            assert (got.status, "retry-after" in got.fields, "sdlb-not-here" in got.fields) == (503, True, False)

    run(scenario)


@links
@pytest.mark.parametrize("body", [0, 5, 16_000])
def test_a_child_that_has_lost_the_version_costs_no_request_that_may_not_be_repeated(
    link: str, body: int, tmp_path: Path, identities: Identities
) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), tiers(link, tmp_path, identities, 2) as tree:
            await serve(tree, a, b)
            await tree.children[1].apply(Apply(0, delete_endpoints=(key("1.0.0", "i:b"),)))
            for number in range(20):
                reader, writer = await connect(tree.parent.address)
                fields = f"content-length: {body}\r\n"
                writer.write(f"POST /body/{number} HTTP/1.1\r\nhost: example.com\r\n{fields}\r\n".encode())
                await asyncio.sleep(0.02)  # so that the parent has the head alone at first
                writer.write(b"x" * body)
                got = await answer(reader)
                writer.close()
                assert (got.status, got.body) == (200, f"a {body}")
            assert (a.got, b.got) == (20, 0)

    run(scenario)


@links
@pytest.mark.promise(3)
def test_a_child_is_drained_and_loses_no_slow_request(link: str, tmp_path: Path, identities: Identities) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), tiers(link, tmp_path, identities, 2) as tree:
            await serve(tree, a, b)
            slow = [asyncio.create_task(tree.parent.ask(path="/slow")) for _ in range(8)]
            await tree.parent.until(lambda: a.got + b.got == 8)
            leaving = key("1.0.0", "n:below-0")
            await tree.parent.apply(Apply(0, delete_endpoints=(leaving,), delete_upstreams=("n:below-0",)))
            assert {(await tree.parent.ask()).body for _ in range(10)} == {"b"}
            if a.got:
                assert not [event for event in tree.parent.events if isinstance(event, EngineDrained)]
            a.release.set()
            b.release.set()
            assert {(await task).status for task in slow} == {200}
            assert (await tree.parent.wait(EngineDrained))[0].key == leaving

    run(scenario)


@below_haproxy
def test_instances_and_child_nodes_of_one_version_share_its_requests(
    link: str, tmp_path: Path, identities: Identities
) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), tiers(link, tmp_path, identities) as tree:
            await serve(tree, a)
            both = (put("1.0.0", b, capacity=300), here(tree.children[0]))
            await tree.parent.apply(Apply(0, put_upstreams=(upstream(b),), put_endpoints=both))
            reader, writer = await connect(tree.parent.address)
            for _ in range(200):
                assert (await request(reader, writer)).status == 200
            assert (a.got, b.got) == (50, 150)
            assert "sdlb-" not in (await request(reader, writer, path="/fields")).body
            writer.close()
            tree.parent.engine.stats.bound["http"] = tree.parent.engine.stats.bound["node"]
            if link.endswith("-clear"):
                stamp = "sdlb-to: web/1.0.0 example.com/*\r\n"
                assert {(await tree.parent.ask(fields=stamp)).body for _ in range(60)} == {"a", "b"}
                await tree.parent.apply(Apply(0, delete_endpoints=(key("1.0.0", "i:b"),)))
                assert {(await tree.parent.ask(fields=stamp)).body for _ in range(20)} == {"a"}

    run(scenario)


@links
def test_a_websocket_passes_two_tiers(link: str, tmp_path: Path, identities: Identities) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), tiers(link, tmp_path, identities) as tree:
            await serve(tree, a)
            reader, writer = await connect(tree.parent.address)
            writer.write(b"GET /echo HTTP/1.1\r\nhost: example.com\r\n" + WEBSOCKET + b"\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            writer.close()

    run(scenario)


@links
def test_a_child_with_another_name_gets_nothing(link: str, tmp_path: Path, identities: Identities) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), tiers(link, tmp_path, identities) as tree:
            await serve(tree, a)
            wrong = UpstreamPut("n:somebody", True, tree.at(tree.children[0]).address)
            there = EndpointPut(key("1.0.0", "n:somebody"), 100)
            await tree.parent.apply(Apply(0, True, (wrong,), (there,), (route(one("1.0.0")),)))
            assert (await tree.parent.ask()).status in ((502, 503) if link.endswith("-tls") else (200,))
            assert a.got == link.endswith("-clear")

    run(scenario)


@links
@pytest.mark.promise(3)
def test_a_hot_restart_of_a_child_loses_nothing(link: str, tmp_path: Path, identities: Identities) -> None:
    """GET and POST through an engine of either kind, while the engine of the node below is replaced."""

    async def scenario() -> None:
        async with endpoints("a") as (a,), tiers(link, tmp_path, identities) as tree:
            await serve(tree, a)
            (child,) = tree.children
            stop = asyncio.Event()

            async def client(method: str, keep: bool) -> set[tuple[int, str]]:
                found: set[tuple[int, str]] = set()
                reader, writer = await connect(tree.parent.address)
                while not stop.is_set():
                    got = await request(reader, writer, fields="content-length: 0\r\n", method=method)
                    found.add((got.status, got.body))
                    if not keep:
                        writer.close()
                        reader, writer = await connect(tree.parent.address)
                writer.close()
                return found

            clients = [
                asyncio.create_task(client(method, keep)) for method in ("GET", "POST") for keep in (False, True)
            ]

            async def table() -> None:  # a new native process gets the whole table; HAProxy has it in its files
                await child.wait(EngineJoined)
                await child.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))

            joined = asyncio.create_task(table())
            done = await child.engine.upgrade(10.0)
            await child.until(lambda: child.engine.stats.pid == done.pid)
            if "-native-" in link:
                await joined
            joined.cancel()
            served = a.got
            await child.until(lambda: a.got > served + 40)
            stop.set()
            assert set().union(*await asyncio.gather(*clients)) == {(200, "a")}

    run(scenario)


@pytest.mark.parametrize("link", ["haproxy-native-clear", "haproxy-haproxy-tls"])
def test_what_may_not_be_repeated_waits_for_a_child_that_has_just_started(
    link: str, tmp_path: Path, identities: Identities
) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), tiers(link, tmp_path, identities, settle_s=20.0) as tree:
            await tree.parent.apply(
                Apply(0, True, (tree.at(tree.children[0]),), (here(tree.children[0]),), (route(one("1.0.0")),))
            )
            assert (await tree.parent.ask()).status == 503
            post = asyncio.create_task(tree.parent.ask(fields="content-length: 0\r\n", method="POST"))
            await asyncio.sleep(0.3)
            assert not post.done()
            await serve(tree, a)
            assert (await post).body == "a"

    run(scenario)


@below_haproxy
def test_a_restarted_control_finds_the_child_nodes_and_reloads_for_other_settings_only(
    link: str, tmp_path: Path, identities: Identities
) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), tiers(link, tmp_path, identities) as tree:
            await serve(tree, a)
            first, config = tree.parent, tree.config
            for limits, reloads in (({}, 0), ({"head_bytes": 20_000}, 1)):
                await first.engine.detach()
                second = control("haproxy", first.folder)
                tree.parent = second
                await second.engine.start(replace(config, limits=limits))
                (attached,) = await second.wait(EngineAttached)
                assert (attached.epoch, attached.endpoints) == (first.epoch, 1)
                second.epoch = first.epoch
                child = tree.at(tree.children[0])
                await second.apply(Apply(0, True, (child,), (here(tree.children[0]),), (route(one("1.0.0")),)))
                assert (await second.ask()).body == "a"
                assert (await second.haproxy.processes()).reloads == reloads
                first = second

    run(scenario)


@below_haproxy
def test_an_instance_below_that_cannot_be_reached_is_no_missing_version(
    link: str, tmp_path: Path, identities: Identities
) -> None:
    async def scenario() -> None:
        async with endpoints("a", "b") as (a, b), tiers(link, tmp_path, identities, 2) as tree:
            await serve(tree, a, b)
            await b.stop()
            assert {(await tree.parent.ask()).body for _ in range(10)} == {"a"}
            await a.stop()
            assert (await tree.parent.ask()).status == 502

    run(scenario)
