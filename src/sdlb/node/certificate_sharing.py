"""Certificates, open challenges and ticket keys shared with the other entries (`[peers]`), so that one order serves all of them,
and a client that comes to another entry resumes its session.

Every entry calls every other one, at each change and every `EVERY_S`. A call reports what the caller has; the answer names the
certificates that are newer there than here, and the next call brings them. So private keys go only to entries whose names
and addresses are configured, over mutual TLS. Which entry orders is decided by all from the same reports
(`core.certificates.orderer`). A wrong decision costs an order, never a certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct, field

from sdlb.core.certificates import Entry, orderer
from sdlb.core.effects import Note
from sdlb.model.acme import ChallengeAnswer, Peer
from sdlb.model.site import SiteSpec, TicketKey
from sdlb.seams.certificates import Issued
from sdlb.seams.peers import PeerFailed, PeerLinks
from sdlb.seams.store import NoteSink
from sdlb.wire import sharing as wire

EVERY_S = 3.0
CALL_S = 5.0
SILENT_S = 15.0
"""An entry that was not heard for this time does not count, and its challenges are forgotten."""
SETTLE_S = 10.0
"""How long a started entry waits for the reports of the others before it begins an order."""
STUCK_S = 600.0
"""An entry that has not reached the CA for this time leaves the orders to others."""
CERTIFICATES_AT_ONCE = 50
SITES_MAX = 20_000

Rank = tuple[float, float, str]


class Tickets(Protocol):
    """The keys of session tickets, as `node.sites.SiteWatch` has them. Entries that share them resume each other's sessions."""

    def ticket_keys(self) -> Sequence[TicketKey]: ...
    async def accept_ticket_keys(self, keys: Sequence[TicketKey]) -> None: ...


class Certificates(Protocol):
    """What is shared, as `node.acme.Acme` has it."""

    @property
    def challenges(self) -> Sequence[ChallengeAnswer]: ...
    @property
    def ordering(self) -> str: ...
    def outage_s(self) -> float: ...
    def wanted(self) -> dict[str, SiteSpec]: ...
    def issued(self) -> dict[str, Issued]: ...
    @property
    def changes(self) -> int:
        """Counts the changes of `wanted` and `issued`."""
        ...

    async def accept(self, peer: str, site: str, pem: bytes) -> None: ...
    async def put_challenges(self, of_peers: Sequence[ChallengeAnswer]) -> str: ...
    def peers_changed(self) -> None: ...


class _Known(Struct):
    """What is known about an entry."""

    peer: Peer
    poke: asyncio.Event = field(default_factory=asyncio.Event)
    heard_at: float = float("-inf")  # of its last report
    digest: str = ""  # of its last complete report
    held: dict[str, Rank | None] = field(default_factory=dict[str, "Rank | None"])
    ordering: str = ""
    stuck: bool = False
    challenges: tuple[ChallengeAnswer, ...] = ()
    has: str = ""  # the digest of this node's report that it has
    wants: tuple[str, ...] = ()
    failed: str = ""


class Sharing:
    """`name`: this node's."""

    def __init__(
        self, name: str, links: PeerLinks, report: NoteSink, certificates: Certificates, tickets: Tickets
    ) -> None:
        self._tickets = tickets
        self._name = name
        self._links = links
        self._report = report
        self._certificates = certificates
        self._known: dict[str, _Known] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running = False
        self._settle_at = 0.0
        self._held_last: tuple[int, str, dict[str, Rank | None]] | None = None
        links.on_call = self._on_call
        links.known = lambda caller: caller in self._known

    def adopt(self, peers: Sequence[Peer]) -> None:
        known = {peer.name: self._known.get(peer.name) or _Known(peer) for peer in peers}
        for peer in peers:
            known[peer.name].peer = peer
        if known.keys() != self._known.keys():
            self._settle_at = asyncio.get_running_loop().time() + SETTLE_S
        self._known = known
        self._start()

    # ------------------------------------------------------------------ who orders

    def orderer(self, site: str) -> str:
        """The other entry that orders for this site; "": this node does, or none yet."""
        name = self._orderer(site)
        return "" if name == self._name else name

    def orders_here(self, site: str) -> bool:
        return self._orderer(site) == self._name

    def _orderer(self, site: str) -> str:
        if not self._known:
            return self._name
        own = Entry(
            self._name,
            self._certificates.wanted().keys(),
            self._certificates.ordering,
            self._certificates.outage_s() >= STUCK_S,
        )
        now = asyncio.get_running_loop().time()
        heard = [each for each in self._known.values() if now - each.heard_at < SILENT_S]
        others = [Entry(each.peer.name, each.held.keys(), each.ordering, each.stuck) for each in heard]
        return orderer(site, own, others, settled=len(heard) == len(self._known) or now >= self._settle_at)

    # ------------------------------------------------------------------ calls to others

    def poke(self) -> None:
        """Something that is shared has changed."""
        for each in self._known.values():
            each.poke.set()

    def _start(self) -> None:
        for name in [name for name in self._tasks if name not in self._known]:
            self._tasks.pop(name).cancel()
        for name, known in self._known.items():
            if self._running and name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._keep_calling(known), name=f"peer {name}")

    async def run(self) -> None:
        """Calls the others until it is cancelled."""
        self._running = True
        self._start()
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                await self._forget()
        finally:
            self._running = False
            tasks = list(self._tasks.values())
            self._tasks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._links.close()

    async def _keep_calling(self, known: _Known) -> None:
        while True:
            known.poke.clear()
            more = await self._call(known)
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(known.poke.wait(), EVERY_S)

    async def _call(self, known: _Known) -> bool:
        """One call. Returns whether another one shall follow at once."""
        digest, held = self._held()
        brings = known.wants[:CERTIFICATES_AT_ONCE]
        issued = self._certificates.issued()
        report = wire.Report(
            digest,
            None if known.has == digest else held,
            self._certificates.ordering,
            self._certificates.outage_s() >= STUCK_S,
            tuple(
                wire.Challenge(each.kind, each.host, each.token, each.content) for each in self._certificates.challenges
            ),
            tuple(wire.Certificate(site, issued[site].pem.decode()) for site in brings if site in issued),
            tuple(wire.Ticket(key.name.hex(), key.secret.hex(), key.made_s) for key in self._tickets.ticket_keys()),
        )
        try:
            raw = await self._links.call(known.peer, self._name, wire.encode(report), CALL_S)
            answer = wire.decode_answer(raw)
        except Exception as error:  # also one of ours: the other entries are still called
            self._failed(known, str(error) or type(error).__name__)
            return False
        if known.failed:
            known.failed = ""
            self._report(Note("peer-back", f"{known.peer.name} can be reached again", fields={"peer": known.peer.name}))
        behind = answer.digest != digest and known.has == digest  # it was restarted since
        known.has = answer.digest
        known.wants = tuple(site for site in answer.wants if site in issued)
        return behind or bool(known.wants and (not brings or set(known.wants) != set(brings)))

    def _held(self) -> tuple[str, dict[str, Rank | None]]:
        """Sites and ranks with their digest. It is asked for every few seconds and peer, and there may be thousands of sites."""
        changes = self._certificates.changes
        if self._held_last is None or self._held_last[0] != changes:
            self._held_last = (changes, *self._held_now())
        return self._held_last[1:]

    def _held_now(self) -> tuple[str, dict[str, Rank | None]]:
        issued = self._certificates.issued()
        sites = list(self._certificates.wanted())[:SITES_MAX]
        held: dict[str, Rank | None] = {site: issued[site].rank if site in issued else None for site in sites}
        return hashlib.sha256(repr(held).encode()).hexdigest()[:32], held

    def _failed(self, known: _Known, why: str) -> None:
        known.has = ""
        if known.failed != why:
            known.failed = why
            text = f"nothing is shared with {known.peer.name} at {known.peer.address}: {why}"
            self._report(Note("peer-lost", text, "warning", {"peer": known.peer.name}))

    # ------------------------------------------------------------------ calls of others

    async def _on_call(self, caller: str, raw: bytes) -> bytes:
        """Raises DecodeError, or PeerFailed for an unknown caller."""
        known = self._known.get(caller)
        if known is None:
            raise PeerFailed(f"{self._name} has no peer {caller}")
        report = wire.decode_report(raw)
        first = not self._is_heard(known)
        known.heard_at = asyncio.get_running_loop().time()
        if report.held is not None:
            known.digest, known.held = report.digest, report.held
        changed = first or report.held is not None or known.ordering != report.ordering or known.stuck != report.stuck
        known.ordering, known.stuck = report.ordering, report.stuck
        why = await self._take_challenges(known, report)
        for certificate in report.certificates:
            await self._certificates.accept(caller, certificate.site, certificate.pem.encode())
        keys = [TicketKey(bytes.fromhex(each.name), bytes.fromhex(each.secret), each.made_s) for each in report.tickets]
        await self._tickets.accept_ticket_keys(keys)
        if changed:
            self._certificates.peers_changed()
        if first:
            known.poke.set()
        return wire.encode(wire.Answer(known.digest, self._wants(known), why))

    def _is_heard(self, known: _Known) -> bool:
        return asyncio.get_running_loop().time() - known.heard_at < SILENT_S

    def _wants(self, known: _Known) -> tuple[str, ...]:
        """Sites of this node whose certificate is newer there."""
        issued = self._certificates.issued()
        return tuple(
            site
            for site in self._certificates.wanted()
            if (theirs := known.held.get(site)) is not None and (site not in issued or theirs > issued[site].rank)
        )[:CERTIFICATES_AT_ONCE]

    # ------------------------------------------------------------------ challenges

    async def publish(self) -> str:
        """This node's open challenges have changed. Returns, once its engine and all entries in touch have them, "" or why
        they cannot be answered."""
        why = await self._put()
        if why or not self._certificates.challenges:
            self.poke()
            return why
        heard = [known for known in self._known.values() if self._is_heard(known)]
        await asyncio.gather(*(self._call(known) for known in heard))
        return ""

    async def _take_challenges(self, known: _Known, report: wire.Report) -> str:
        challenges = tuple(
            ChallengeAnswer(each.kind, each.host, each.token, each.content) for each in report.challenges
        )
        if challenges == known.challenges:
            return ""
        known.challenges = challenges
        return await self._put()

    async def _put(self) -> str:
        of_peers = [answer for known in self._known.values() for answer in known.challenges]
        return await self._certificates.put_challenges(of_peers)

    async def _forget(self) -> None:
        """Entries that have gone have no open challenges."""
        gone = [known for known in self._known.values() if known.challenges and not self._is_heard(known)]
        for known in gone:
            known.challenges = ()
        if gone:
            await self._put()
