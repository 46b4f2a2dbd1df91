"""Certificates that a node orders: the task around the plan, with real files and keys, and a CA in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sdlb.adapters import acme_keys
from sdlb.core.certificates import DAY_S, LIMITED, OUTAGE, REFUSED
from sdlb.core.effects import Note
from sdlb.model.acme import AcmeSettings, Peer
from sdlb.model.site import PemFile, SiteSpec
from sdlb.node import certificate_sharing
from sdlb.node.acme import Acme
from sdlb.node.sites import SiteWatch
from sdlb.seams.acme import AcmeFailed
from sdlb.seams.certificates import OpenOrder
from sdlb.seams.peers import PeerFailed
from tests.seams.fake_acme import FakeCa, FakeParts
from tests.seams.fake_engine import FakeChallenges, FakeSites
from tests.seams.test_certificate_files import made

HTTP = AcmeSettings("https://ca/dir", challenge="http-01")
SHOP = SiteSpec(("shop.example",), (), acme=True)
ON_CLAIM = AcmeSettings("https://ca/dir", challenge="http-01", on_claim=("*.customers.example",))


@dataclass
class Network:
    """Calls between the entries of a test. A name in `cut` cannot be reached."""

    links: dict[str, PeerLinksOf] = field(default_factory=dict[str, "PeerLinksOf"])
    cut: set[str] = field(default_factory=set[str])
    calls: int = 0


@dataclass
class PeerLinksOf:
    network: Network

    def __post_init__(self) -> None:
        self.on_call: Callable[[str, bytes], Awaitable[bytes]] = _nobody
        self.known: Callable[[str], bool] = lambda name: False

    async def call(self, peer: Peer, name: str, body: bytes, timeout_s: float) -> bytes:
        self.network.calls += 1
        there = self.network.links.get(peer.name)
        if there is None or peer.name in self.network.cut or name in self.network.cut or not there.known(name):
            raise PeerFailed("refused")
        return await there.on_call(name, body)

    async def close(self) -> None: ...


async def _nobody(name: str, body: bytes) -> bytes:
    raise PeerFailed("nobody")


@dataclass
class Clock:
    now_s: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Entry:
    """One entry with its own folder. `claims`: service -> routes of its active claims."""

    def __init__(self, folder: Path, name: str, ca: FakeCa, network: Network, clock: Clock) -> None:
        folder.mkdir(exist_ok=True)
        self.notes: list[Note] = []
        self.sink = FakeSites()
        self.engine = FakeChallenges()
        self.claims: dict[str, list[str]] = {}
        self.parts = FakeParts(folder / "acme", ca)
        self.sites = SiteWatch(self.sink, self.notes.append, folder / "ticket-keys", clock)
        links = network.links[name] = PeerLinksOf(network)
        self.acme = Acme(
            name, self.notes.append, self.sites, self.engine, links, lambda: self.parts, self.routes, Random(1), clock
        )

    def routes(self, service: str) -> Iterable[str]:
        return self.claims.get(service, ())

    def claim(self, service: str, *routes: str) -> None:
        self.claims[service] = list(routes)
        self.acme.claims_changed((service,))

    async def settle(self) -> None:
        """Until nothing is due at this moment."""
        while await self.acme.work() is None:
            pass

    def codes(self) -> list[str]:
        return [note.code for note in self.notes if note.code.startswith("certificate-")]

    def serves(self, host: str) -> bytes | None:
        site = self.sink.sites.get(host)
        return None if site is None else site.certificates[0]

    async def served(self, host: str) -> bytes | None:
        """As `serves`, with files that have changed since."""
        for _ in range(2):
            await self.sites.look()
        return self.serves(host)

    def view(self, host: str) -> dict[str, Any]:
        return next(view for view in self.sites.views() if view["site"] == host)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.ca = FakeCa(self.clock)
        self.network = Network()

    def entry(self, name: str = "edge-1") -> Entry:
        """Also after a restart: with the files of before."""
        return Entry(self.folder / name, name, self.ca, self.network, self.clock)


def played(test: Callable[[World], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def all_of_it() -> None:
            await test(World(tmp_path))

        asyncio.run(all_of_it())

    run.__name__ = test.__name__
    return run


# ------------------------------------------------------------------ one entry


@played
async def test_a_site_is_ordered_served_renewed_and_survives_a_restart(world: World) -> None:
    edge = world.entry()
    await edge.acme.adopt(HTTP, [SHOP])
    assert edge.view("shop.example")["state"] == "waiting"
    await edge.settle()
    first = edge.serves("shop.example")
    assert first is not None and edge.codes() == ["certificate-issued"]
    assert [len(answers) for answers in edge.engine.history] == [1, 0]  # presented and cleaned up
    again = world.entry()
    await again.acme.adopt(HTTP, [SHOP])
    await again.settle()
    assert again.serves("shop.example") == first and len(world.ca.orders) == 1
    world.clock.now_s += 61 * DAY_S
    await again.settle()
    await again.sites.look()
    await again.sites.look()
    assert again.serves("shop.example") not in (first, None)
    assert again.codes()[0] == "certificate-renewed"


@played
async def test_a_failed_renewal_keeps_the_certificate_and_shows_days_and_next_attempt(world: World) -> None:
    edge = world.entry()
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    world.clock.now_s += 70 * DAY_S
    world.ca.fails = AcmeFailed(LIMITED, "too many", retry_after_s=7200.0)
    await edge.settle()
    (warning,) = [each for each in edge.view("shop.example")["warnings"] if "too many" in each]
    assert (
        warning == "its certificate has 20 days left, and no new one was issued: too many; the next attempt is in 2 h"
    )
    assert edge.serves("shop.example") is not None
    world.ca.fails = None
    world.clock.now_s += 7199
    await edge.settle()
    assert len(world.ca.orders) == 1
    world.clock.now_s += 2
    await edge.settle()
    assert len(world.ca.orders) == 2
    assert not [each for each in edge.view("shop.example")["warnings"] if "too many" in each]


@played
async def test_waits_go_on_after_a_restart(world: World) -> None:
    edge = world.entry()
    world.ca.fails = AcmeFailed(LIMITED, "too many", retry_after_s=7200.0)
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    view = edge.view("shop.example")
    assert (view["state"], view["reason_code"]) == ("refused", "certificate-not-issued")
    world.ca.fails = None
    again = world.entry()
    await again.acme.adopt(HTTP, [SHOP])
    world.clock.now_s += 3600
    await again.settle()
    assert world.ca.orders == []
    world.clock.now_s += 3601
    await again.settle()
    assert len(world.ca.orders) == 1


@played
async def test_the_window_of_the_ca_decides(world: World) -> None:
    edge, start_s = world.entry(), world.clock.now_s
    world.ca.suggests = (start_s + 5 * DAY_S, start_s + 6 * DAY_S)
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    world.clock.now_s = start_s + 5 * DAY_S - 1
    await edge.settle()
    assert len(world.ca.orders) == 1
    world.clock.now_s = start_s + 6 * DAY_S
    await edge.settle()
    assert len(world.ca.orders) == 2
    assert world.ca.orders[0][1] == "" and world.ca.orders[1][1] != ""  # the second replaces the first


@played
async def test_a_challenge_that_the_engine_does_not_answer_is_not_sent_to_the_ca(world: World) -> None:
    edge = world.entry()
    edge.engine.error = "the engine is of an older release"
    world.ca.sees = lambda host, token, proof: False
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    assert "older release" in str(edge.view("shop.example")["reason"])


@played
async def test_dns_01_sets_and_removes_both_records_of_a_wildcard(world: World) -> None:
    edge = world.entry()
    hosts = ("shop.example", "*.shop.example")
    settings = AcmeSettings("https://ca/dir", challenge="dns-01", hook=("/hook",))
    await edge.acme.adopt(settings, [SiteSpec(hosts, (), acme=True)])
    await edge.settle()
    done = [(call["SDLB_ACTION"], call["SDLB_RECORD"]) for call in edge.parts.hooks]
    record = "_acme-challenge.shop.example"
    assert done == [("present", record)] * 2 + [("cleanup", record)] * 2
    assert len({call["SDLB_VALUE"] for call in edge.parts.hooks}) == 2
    assert edge.engine.history == []


@played
async def test_a_site_that_changes_from_files_keeps_its_certificate_until_the_first_order(world: World) -> None:
    edge = world.entry()
    file = world.folder / "shop.pem"
    file.write_bytes(made("shop.example"))
    file.chmod(0o600)
    world.clock.now_s = file.stat().st_mtime
    await edge.sites.adopt([SiteSpec(("shop.example",), ((PemFile(str(file)), None),))])
    world.ca.fails = AcmeFailed(OUTAGE, "down")
    await edge.sites.adopt([SHOP])
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    assert edge.serves("shop.example") == file.read_bytes()


@played
async def test_a_damaged_certificate_on_disk_is_ordered_anew(world: World) -> None:
    edge = world.entry()
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    edge.parts.store.path("shop.example").write_bytes(b"torn")
    again = world.entry()
    await again.acme.adopt(HTTP, [SHOP])
    await again.settle()
    assert again.codes() == ["certificate-unreadable", "certificate-issued"]
    assert len(world.ca.orders) == 2


# ------------------------------------------------------------------ claims


@played
async def test_only_an_active_claim_for_exactly_one_host_inside_on_claim_is_ordered(world: World) -> None:
    edge = world.entry()
    await edge.acme.adopt(ON_CLAIM, [SHOP])
    await edge.settle()
    edge.claim("web", "*.customers.example/*", "other.example/*", "customers.example/*", "shop.example/*")
    await edge.settle()
    assert len(world.ca.orders) == 1
    edge.claim("web", "a.customers.example/*", "a.customers.example/pay*")
    await edge.settle()
    assert [hosts for hosts, _ in world.ca.orders[1:]] == [("a.customers.example",)]
    assert edge.serves("a.customers.example") is not None


@played
async def test_a_host_without_a_claim_serves_until_it_expires_and_is_not_renewed(world: World) -> None:
    edge = world.entry()
    await edge.acme.adopt(ON_CLAIM, [])
    edge.claim("web", "a.customers.example/*")
    await edge.settle()
    edge.claim("web")
    again = world.entry()
    await again.acme.adopt(ON_CLAIM, [])
    world.clock.now_s += 80 * DAY_S
    await again.settle()
    assert len(world.ca.orders) == 1
    assert again.serves("a.customers.example") is not None
    again.claim("web", "a.customers.example/*")
    await again.settle()
    assert len(world.ca.orders) == 2


@played
async def test_a_configured_host_is_no_site_by_claim(world: World) -> None:
    edge = world.entry()
    own = SiteSpec(("a.customers.example",), ((PemFile("/nowhere"), None),))
    await edge.acme.adopt(ON_CLAIM, [own])
    edge.claim("web", "a.customers.example/*")
    await edge.settle()
    assert world.ca.orders == []


# ------------------------------------------------------------------ several entries

PEERS = (Peer("edge-1", "a:1"), Peer("edge-2", "b:1"))


async def together(*entries: Entry, rounds: int = 3) -> None:
    """They run beside each other for a while."""
    tasks = [asyncio.create_task(entry.acme.run()) for entry in entries]
    await asyncio.sleep(0.3 * rounds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@played
async def test_one_order_serves_two_entries_and_both_answer_its_challenges(world: World) -> None:
    one, two = world.entry("edge-1"), world.entry("edge-2")
    world.ca.sees = lambda host, token, proof: bool(
        one.engine.history[-1] and two.engine.history and two.engine.history[-1]
    )
    await one.acme.adopt(HTTP, [SHOP], PEERS[1:])
    await two.acme.adopt(HTTP, [SHOP], PEERS[:1])
    await together(one, two)
    assert len(world.ca.orders) == 1
    assert one.serves("shop.example") == two.serves("shop.example") is not None
    assert one.engine.history[-1] == two.engine.history[-1] == ()
    assert two.view("shop.example")["acme"]["ordered_by"] == "edge-1"


@played
async def test_an_entry_takes_no_certificate_that_is_older_or_that_it_cannot_use(world: World) -> None:
    two = world.entry("edge-2")
    await two.acme.adopt(HTTP, [SHOP])
    await two.settle()
    kept = two.serves("shop.example")
    await two.acme.accept("edge-1", "shop.example", b"nonsense")
    await two.acme.accept("edge-1", "shop.example", made("other.example"))
    await two.acme.accept("edge-1", "other.example", made("other.example"))
    await two.acme.accept("edge-1", "shop.example", made("shop.example"))  # issued years before
    assert two.serves("shop.example") == kept
    assert two.codes().count("certificate-failed") == 2


@played
async def test_an_entry_whose_peer_is_down_orders_after_a_while(world: World) -> None:
    two = world.entry("edge-2")
    await two.acme.adopt(HTTP, [SHOP], PEERS[:1])
    await together(two, rounds=1)
    assert world.ca.orders == [] and "peer-lost" in [note.code for note in two.notes]
    two.acme.sharing._settle_at = 0.0  # pyright: ignore[reportPrivateUsage]
    await two.settle()
    assert len(world.ca.orders) == 1


@played
async def test_strangers_get_nothing(world: World) -> None:
    one, stranger = world.entry("edge-1"), world.entry("edge-9")
    await one.acme.adopt(HTTP, [SHOP], PEERS[1:])
    await stranger.acme.adopt(HTTP, [SHOP], PEERS[:1])
    one.acme.sharing._settle_at = 0.0  # pyright: ignore[reportPrivateUsage]
    await together(one, stranger)
    assert one.serves("shop.example") is not None and stranger.serves("shop.example") is None


def test_the_state_of_sharing_is_bounded() -> None:
    assert certificate_sharing.CERTIFICATES_AT_ONCE * 16_384 < 64 << 20


@played
async def test_what_an_entry_reports_is_worked_out_when_it_has_changed(world: World) -> None:
    edge = world.entry("edge-1")
    sharing: Any = edge.acme.sharing
    await edge.acme.adopt(ON_CLAIM, [SHOP])
    digests: list[str] = []
    for host in ("", "a.customers.example", "b.customers.example"):
        if host:
            edge.claim(host.partition(".")[0], f"{host}/*")
        await edge.settle()
        digest, held = sharing._held()
        assert (digest, held) == sharing._held_now() and sharing._held()[1] is held
        digests.append(digest)
    assert len(set(digests)) == 3
    await edge.acme.adopt(HTTP, [SHOP])
    assert sharing._held()[0] == digests[0]
    await edge.acme.accept("edge-2", "shop.example", made("shop.example"))
    assert sharing._held() == sharing._held_now()


# ------------------------------------------------------------------ revocation


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60.0):
        while not await done():
            await asyncio.sleep(0.02)


@played
async def test_a_revoked_certificate_is_replaced_by_one_with_another_key(world: World) -> None:
    edge = world.entry()
    await edge.acme.adopt(HTTP, [SHOP])
    assert await edge.acme.revoke("shop.example", "superseded", "ann") is None, "there is none yet"
    await edge.settle()
    first = edge.serves("shop.example")
    assert first is not None
    world.clock.now_s += 1
    done = await edge.acme.revoke("shop.example", "keyCompromise", "ann")
    assert done is not None and not done["already"] and world.ca.revoked == [(first, "keyCompromise")]
    view = edge.view("shop.example")
    assert view["acme"]["revoked"] and "its certificate is revoked" in "".join(view["warnings"])
    assert edge.serves("shop.example") == first, "it serves until there is another one"
    await edge.settle()
    second = await edge.served("shop.example")
    assert second is not None and len(world.ca.orders) == 2
    assert acme_keys.load_key(second).public_key() != acme_keys.load_key(first).public_key()
    view = edge.view("shop.example")
    assert not view["acme"]["revoked"] and view["warnings"] == []
    assert [note.code for note in edge.notes if "revoked" in note.code] == ["certificate-revoked"]


@played
async def test_a_revocation_is_remembered_when_control_is_killed_before_the_next_order(world: World) -> None:
    edge = world.entry()
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    world.clock.now_s += 1
    await edge.acme.revoke("shop.example", "superseded", "ann")
    again = world.entry()
    await again.acme.adopt(HTTP, [SHOP])
    assert again.view("shop.example")["acme"]["revoked"]
    await again.settle()
    assert len(world.ca.orders) == 2 and not again.view("shop.example")["acme"]["revoked"]


@played
async def test_a_ca_that_refuses_a_revocation_leaves_everything_as_it_is(world: World) -> None:
    edge = world.entry()
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    for kind in (REFUSED, OUTAGE):
        world.ca.fails = AcmeFailed(kind, "no")
        with pytest.raises(AcmeFailed):
            await edge.acme.revoke("shop.example", "superseded", "ann")
    world.ca.fails = None
    await edge.settle()
    assert len(world.ca.orders) == 1 and not edge.view("shop.example")["acme"]["revoked"]
    again = world.entry()
    await again.acme.adopt(HTTP, [SHOP])
    await again.settle()
    assert len(world.ca.orders) == 1


@played
async def test_the_key_of_an_interrupted_order_is_not_used_after_a_compromise(world: World) -> None:
    """It lies beside the one that is known to others."""
    edge = world.entry()
    await edge.acme.adopt(HTTP, [SHOP])
    await edge.settle()
    for reason, kept in (("superseded", True), ("keyCompromise", False)):
        old = acme_keys.new_key()
        edge.parts.store.save_order(OpenOrder("shop.example", SHOP.hosts, old))
        world.clock.now_s += 1
        await edge.acme.revoke("shop.example", reason, "ann")
        await edge.settle()
        served = await edge.served("shop.example")
        assert served is not None and (old in served) is kept


@played
async def test_an_entry_that_does_not_order_replaces_what_it_revoked_for_all(world: World) -> None:
    one, two = world.entry("edge-1"), world.entry("edge-2")
    await one.acme.adopt(HTTP, [SHOP], PEERS[1:])
    await two.acme.adopt(HTTP, [SHOP], PEERS[:1])
    tasks = [asyncio.create_task(entry.acme.run()) for entry in (one, two)]

    async def same(before: bytes | None) -> bool:
        found = {await entry.served("shop.example") for entry in (one, two)}
        return len(found) == 1 and found.isdisjoint((before, None))

    try:
        await until(lambda: same(None))
        first = one.serves("shop.example")
        world.clock.now_s += 1
        await two.acme.revoke("shop.example", "superseded", "ann")
        await until(lambda: same(first))
        assert len(world.ca.orders) == 2
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
