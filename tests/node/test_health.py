"""When an instance is checked again."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.events import InstanceHealth
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.node.health import GREETINGS, Health, probe, until_next


@given(st.floats(0, 1e7), st.floats(0.05, 3600))
def test_the_next_check_comes_about_an_interval_later(now: float, interval_s: float) -> None:
    assert 0.87 * interval_s <= until_next(now, interval_s) <= 1.13 * interval_s


@given(st.floats(0, 1e6), st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_instances_are_checked_at_few_moments(began: float, joined: list[float]) -> None:
    moments = {round((began + at + until_next(began + at, 2.0)) * 1e3) % 2000 for at in joined}
    assert moments <= {0, 500, 1000, 1500, 2000}


def test_it_keeps_to_its_moments() -> None:
    now = 1234.5678
    for _ in range(100):
        now += until_next(now, 2.0) + 0.003  # what a check takes
    assert until_next(now, 2.0) == pytest.approx(1.997)


class Greeted:
    """A program that wants a header of the PROXY protocol, and then answers."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(len(self.greeting)) == self.greeting:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_check_begins_as_requests_do_where_the_policy_wants_the_proxy_protocol(version: str) -> None:
    async def check() -> tuple[str, str]:
        greeting = GREETINGS[version]
        async with Greeted(greeting) as endpoint:
            asked = HealthCheck(kind="http", path="/", timeout_s=5.0)
            return await probe(endpoint, asked, greeting), await probe(endpoint, asked)

    with_it, without = asyncio.run(check())
    assert with_it == "" and without != ""


@pytest.mark.parametrize("protocol", ["http1", "h2c"])
def test_the_policy_counts_for_every_protocol(protocol: str) -> None:
    async def check() -> object:
        found: asyncio.Queue[object] = asyncio.Queue()
        async with Greeted(GREETINGS["v2"]) as endpoint:
            health = Health(
                found.put_nowait, Random(1), lambda _key, _value: None, proxy_protocol=lambda _service: "v2"
            )
            asked = HealthCheck(kind="http", path="/", timeout_s=5.0, rise=1)
            spec = InstanceSpec("a", "web", "1.0.0", (), endpoint, protocol=protocol, health=asked)
            health.put(spec, healthy=False)
            try:
                return await asyncio.wait_for(found.get(), 10)
            finally:
                health.close()

    assert asyncio.run(check()) == InstanceHealth("a", True)


@pytest.mark.parametrize("kind", ["tcp", "none"])
def test_a_program_that_exited_is_unhealthy_until_the_next_one_passes(kind: str) -> None:
    """Although nothing is wrong at the moment of a check: the program may be back before the next one."""

    async def check() -> list[object]:
        found: asyncio.Queue[object] = asyncio.Queue()
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        health = Health(found.put_nowait, Random(1), lambda _key, _value: None)
        checks = HealthCheck(kind=kind, interval_s=0.1, timeout_s=5.0)
        spec = InstanceSpec("a", "web", "1.0.0", (), f"127.0.0.1:{server.sockets[0].getsockname()[1]}", health=checks)
        health.put(spec, healthy=True)
        try:
            health.suspend("a", "it exited with code 3")
            health.suspend("b", "nobody knows it")
            health.put(spec, healthy=False)  # a renewal
            await asyncio.sleep(0.3)  # no check changes that meanwhile
            events = [found.get_nowait() for _ in range(found.qsize())]
            health.resume("a")
            return [*events, await asyncio.wait_for(found.get(), 10)]
        finally:
            health.close()
            server.close()

    assert asyncio.run(check()) == [InstanceHealth("a", False, "it exited with code 3"), InstanceHealth("a", True)]
