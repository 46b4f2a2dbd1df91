"""Sites and ticket keys at a real engine: sent before the listeners, sent to each new engine, refused separately."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sdlb.adapters.engine_native import NativeEngine
from sdlb.adapters.engine_sites import BATCH_BYTES
from sdlb.core.effects import Note
from sdlb.core.events import EngineAttached, EngineLost, Event
from sdlb.model.site import Site, SiteState
from sdlb.seams.engine import EngineConfig, Listener
from tests.certificates import Authority, Issued, needs_openssl, shown

CONFIG = EngineConfig("n", (Listener("https", "127.0.0.1:0", tls=True), Listener("node", "127.0.0.1:0")), "/nowhere")


@dataclass
class Control:
    folder: Path
    events: list[Event] = field(default_factory=list[Event])
    notes: list[Note] = field(default_factory=list[Note])
    states: list[SiteState] = field(default_factory=list[SiteState])

    def __post_init__(self) -> None:
        self.engine = NativeEngine(
            self.folder / "engine.sock", self.folder / "engine.log", 2, self.events.append, self.notes.append
        )
        self.engine.sites.on_states = self.states.extend

    async def until(self, done: Callable[[], bool]) -> None:
        for _ in range(3000):
            if done():
                return
            await asyncio.sleep(0.005)
        raise TimeoutError(f"{self.states} {self.events}")

    async def shown(self, host: str) -> bytes | None:
        return await asyncio.to_thread(shown, self.engine.stats.bound["https"], host)


@asynccontextmanager
async def started(folder: Path, *sites: Site) -> AsyncGenerator[Control]:
    made = Control(folder)
    made.engine.sites.put(sites, [site.key for site in sites])
    await made.engine.start(CONFIG)
    try:
        yield made
    finally:
        await made.engine.shut_down(0.0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def site(issued: Issued, *hosts: str) -> Site:
    return Site(hosts[0], hosts, (issued.pem.encode(),))


def run(folder: Path, test: Callable[[Path], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        await asyncio.wait_for(asyncio.ensure_future(test(folder)), 60)

    folder.chmod(0o700)
    asyncio.run(all_of_it())


@needs_openssl
def test_sites_are_there_when_the_listener_opens_and_each_has_its_own(tmp_path: Path, authority: Authority) -> None:
    a, b = authority.issue("a.example"), authority.issue("*.b.example")

    async def test(folder: Path) -> None:
        async with started(folder, site(a, "a.example"), site(b, "*.b.example")) as made:
            assert await made.shown("a.example") == a.der
            assert await made.shown("x.b.example") == b.der
            assert await made.shown("nobody.example") is None
            await made.until(lambda: len(made.states) == 2)
            assert [(state.key, state.error) for state in made.states] == [("a.example", ""), ("*.b.example", "")]
            assert all(state.not_after_s > 1_700_000_000 for state in made.states)
            made.engine.sites.put([], ["a.example"])
            other = authority.issue("a.example")
            made.engine.sites.put([site(other, "a.example")])
            await made.until(lambda: len(made.states) == 3)
            assert await made.shown("a.example") == other.der
            assert await made.shown("x.b.example") is None, "it is no longer among those that are kept"

    run(tmp_path, test)


@needs_openssl
def test_what_is_refused_leaves_what_was_there_also_in_the_next_engine(tmp_path: Path, authority: Authority) -> None:
    a, b, other = authority.issue("a.example"), authority.issue("b.example"), authority.issue("b.example")
    mixed = Site("a.example", ("a.example",), (a.chain.read_bytes() + other.key.read_bytes(),))

    async def test(folder: Path) -> None:
        async with started(folder, site(a, "a.example"), site(b, "b.example")) as made:
            await made.until(lambda: len(made.states) == 2)
            made.engine.sites.put([mixed, site(other, "b.example")])
            await made.until(lambda: len(made.states) == 4)
            refused, taken = made.states[2:]
            assert (refused.key, refused.not_after_s) == ("a.example", made.states[0].not_after_s)
            assert "key" in refused.error
            assert taken.error == ""
            assert (await made.shown("a.example"), await made.shown("b.example")) == (a.der, other.der)
            os.kill(made.engine.stats.pid, signal.SIGKILL)
            await made.until(lambda: sum(isinstance(event, EngineAttached) for event in made.events) == 2)
            assert any(isinstance(event, EngineLost) for event in made.events)
            assert (await made.shown("a.example"), await made.shown("b.example")) == (a.der, other.der)

    run(tmp_path, test)


@needs_openssl
def test_a_site_that_never_had_a_valid_certificate_is_reported(tmp_path: Path, authority: Authority) -> None:
    async def test(folder: Path) -> None:
        bad = Site("a.example", ("a.example",), (b"no PEM",))
        async with started(folder, bad, site(authority.issue("b.example"), "b.example")) as made:
            await made.until(lambda: len(made.states) == 2)
            assert made.states[0].error and made.states[0].not_after_s == 0
            assert await made.shown("a.example") is None
            assert await made.shown("b.example")

    run(tmp_path, test)


@needs_openssl
@pytest.mark.promise(4)
def test_a_control_that_comes_later_finds_the_sites_and_changes_them(tmp_path: Path, authority: Authority) -> None:
    a, b = authority.issue("a.example"), authority.issue("b.example")

    async def test(folder: Path) -> None:
        first = Control(folder)
        first.engine.sites.put([site(a, "a.example")], ["a.example"])
        await first.engine.start(CONFIG)
        await first.engine.detach()
        address = first.engine.stats.bound["https"]
        assert await asyncio.to_thread(shown, address, "a.example") == a.der, "without any control"
        async with started(folder, site(b, "b.example")) as second:
            assert second.engine.stats.bound["https"] == address
            await second.until(lambda: len(second.states) == 1)
            assert (await second.shown("a.example"), await second.shown("b.example")) == (None, b.der)

    run(tmp_path, test)


@needs_openssl
def test_thousands_of_sites(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue("*.example")
    count = 3000
    names = [f"host-{number}.example" for number in range(count)]
    sites = [site(issued, name) for name in names]
    assert sum(len(each.certificates[0]) for each in sites) > 2 * BATCH_BYTES

    async def test(folder: Path) -> None:
        async with started(folder, *sites) as made:
            assert await made.shown(names[-1]) == issued.der, "the listener opens when all are there"
            await made.until(lambda: len(made.states) == count)
            assert [state.key for state in made.states] == names
            assert not any(state.error for state in made.states)
            for name in (names[0], names[count // 2], names[-1]):
                assert await made.shown(name) == issued.der

    run(tmp_path, test)
