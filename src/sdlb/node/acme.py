"""Certificates that the node orders itself: the sites with `acme = true`, and hosts that are claimed inside `on_claim`.

One task carries out what `core.certificates` decides. An issued certificate is stored and given to the watch of the sites as a
file, so the engine gets it in the same way as one that an operator has put there. Until then, and whenever an order fails,
the site keeps what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from msgspec.structs import replace

from sdlb.core.certificates import OUTAGE, AskWindow, CertificatePlan, Order, Wait
from sdlb.core.effects import Note
from sdlb.model.acme import KEY_COMPROMISE, AcmeSettings, ChallengeAnswer, Peer, inside
from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, SiteSpec
from sdlb.node.acme_challenges import Challenges
from sdlb.node.acme_claims import ClaimedHosts
from sdlb.node.acme_order import OrderRun
from sdlb.node.acme_view import SiteFacts, with_acme
from sdlb.node.certificate_sharing import Sharing
from sdlb.node.sites import SiteWatch
from sdlb.seams.acme import AcmeFailed, AcmeParts, AcmeServer
from sdlb.seams.certificates import BadCertificate, Issued
from sdlb.seams.engine import ChallengeSink
from sdlb.seams.peers import PeerLinks
from sdlb.seams.store import NoteSink

CLAIMED_MAX = 10_000
"""Sites by claims; further hosts get no certificate."""
LOOK_S = 30.0
"""The longest pause: peers come and go, and the clock may be set."""

REVOKE_S = 60.0
"""The time of a revocation."""


class Acme:
    """`parts`: makes what is needed for orders; not called on nodes without `[acme]`. `active`: the routes of a service's active
    claims at this node."""

    def __init__(
        self,
        name: str,
        report: NoteSink,
        sites: SiteWatch,
        engine: ChallengeSink,
        links: PeerLinks,
        parts: Callable[[], AcmeParts],
        active: Callable[[str], Iterable[str]],
        rng: Random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._report = report
        self._sites = sites
        self._engine = engine
        self._make_parts = parts
        self._wall = wall
        self._parts: AcmeParts | None = None
        self._settings: AcmeSettings | None = None
        self._server: AcmeServer | None = None
        self._plan = CertificatePlan(rng)
        self._specs: dict[str, SiteSpec] = {}  # the sites, also those by claims
        self._configured: dict[str, SiteSpec] = {}
        self._covered: set[str] = set()  # hosts of all configured sites, of any kind
        self._issued: dict[str, Issued] = {}
        self._changes = 0  # of the sites and of the issued certificates
        self._claimed = ClaimedHosts(active)
        self._reported: dict[str, str] = {}  # site -> why its last order failed
        self._orders = {"issued": 0, "renewed": 0, "failed": 0}
        self._loaded = False
        self._stale = False  # the claimed hosts have changed
        self._replaced = False  # the server is that of earlier settings
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._mine: tuple[ChallengeAnswer, ...] = ()
        self.sharing = Sharing(name, links, report, self, sites)
        sites.annotate = self._annotate

    # ------------------------------------------------------------------ settings

    async def adopt(self, settings: AcmeSettings | None, specs: Sequence[SiteSpec], peers: Sequence[Peer] = ()) -> None:
        """Sets the sites and the CA. Certificates on disk serve at once."""
        async with self._lock:
            self._configured = {spec.key: spec for spec in specs if spec.acme}
            self._covered = {host for spec in specs for host in spec.hosts}
            if settings is not None and self._parts is None:
                self._parts = await asyncio.to_thread(self._make_parts)
            if settings is not None:
                self._sites.orders = self._orders
            self._replaced |= settings != self._settings
            self._settings = settings
            self.sharing.adopt(peers)
            await self._rebuild()
        self._changed.set()

    async def _close(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None

    async def _rebuild(self) -> None:
        """The wanted sites have changed."""
        specs = dict(self._configured)
        patterns = self._settings.on_claim if self._settings is not None else ()
        if patterns:
            for host in await asyncio.to_thread(self._remembered, patterns):
                specs.setdefault(host, SiteSpec((host,), (), acme=True))
        self._specs = specs
        self._changes += 1
        self._plan.want({key: spec.hosts for key, spec in specs.items()})
        for key in [key for key in self._issued if key not in specs]:
            del self._issued[key]
            self._changes += 1
        for key, spec in specs.items():
            if key not in self._issued and self._parts is not None:
                await self._load(key, spec)
            self._plan.renews(key, key in self._configured or key in self._claimed)
        if not self._loaded and self._parts is not None:
            self._loaded = True
            saved = await asyncio.to_thread(self._parts.store.load_plan)
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a damaged file: nothing is waited for
                if saved:
                    self._plan.load(saved)
        await self._serve()

    def _remembered(self, patterns: tuple[str, ...]) -> list[str]:
        """Hosts by claims, and those that had a certificate before a restart, until it expires."""
        assert self._parts is not None
        claimed = [host for host in self._claimed if self._is_wanted(host, patterns)]
        kept = [host for host in self._parts.store.hosts() if self._is_wanted(host, patterns)]
        return list(dict.fromkeys((*claimed, *kept)))[:CLAIMED_MAX]

    def _is_wanted(self, host: str, patterns: tuple[str, ...]) -> bool:
        return host not in self._covered and inside(host, patterns)

    async def _load(self, key: str, spec: SiteSpec) -> None:
        assert self._parts is not None
        try:
            issued = await asyncio.to_thread(self._parts.store.load, key, spec.hosts)
        except BadCertificate as error:
            self._note("certificate-unreadable", key, f"its stored certificate is not used: {error}", "warning")
            return
        if issued is not None:
            self._take(key, issued)

    def _take(self, key: str, issued: Issued) -> None:
        self._issued[key] = issued
        self._changes += 1
        self._plan.hold(key, issued.lifetime)

    async def _serve(self) -> None:
        """Gives the certificates to the watch of the sites."""
        if self._parts is None:
            return
        now_s = self._wall()
        ready: list[SiteSpec] = []
        for key, spec in self._specs.items():
            issued = self._issued.get(key)
            if issued is not None and (key in self._configured or issued.lifetime.not_after_s > now_s):
                file = PemFile(str(self._parts.store.path(key)), f"site {key}")
                ready.append(replace(spec, certificates=((file, None),)))
        try:
            await self._sites.adopt_issued(ready)
        except Invalid as error:
            self._report(Note("certificate-unreadable", f"certificates of [acme] cannot be read: {error}", "error"))

    # ------------------------------------------------------------------ claims

    def claims_changed(self, services: Iterable[str]) -> None:
        """The claims of these services may have changed."""
        if self._settings is None or not self._settings.on_claim:
            return
        if self._claimed.update(self._settings.on_claim, services):
            self._stale = True
            self._changed.set()

    # ------------------------------------------------------------------ the task

    async def run(self) -> None:
        """Orders and renews until it is cancelled; does nothing on a node without `[acme]`."""
        sharing = asyncio.create_task(self.sharing.run(), name="certificate sharing")
        try:
            while True:
                pause_s = await self._work_safely()
                if pause_s is not None:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), pause_s)
        finally:
            sharing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sharing
            await self._close()

    async def _work_safely(self) -> float | None:
        """An error of ours costs the step in which it happens: traffic does not depend on it."""
        try:
            return await self.work()
        except Exception:
            self._report(Note("internal-error", traceback.format_exc(limit=-6), "error"))
            self._plan.order_dropped()
            self._changed.clear()
            return LOOK_S

    async def work(self) -> float | None:
        """Carries out one thing that is due. Returns None, or for how many seconds nothing is."""
        self._changed.clear()
        await self._refresh()
        if self._settings is None:
            return LOOK_S
        now_s = self._wall()
        windows = self._server is not None and self._server.windows
        match self._plan.next_step(now_s, self.sharing.orders_here, windows=windows):
            case Order(site):
                await self._order(site)
            case AskWindow(site):
                await self._ask_window(site)
            case Wait(until_s):
                return LOOK_S if until_s is None else min(LOOK_S, max(0.05, until_s - now_s))
        return None

    async def _refresh(self) -> None:
        """Between two steps: a changed `[acme]`, and changed claims."""
        if self._replaced:
            self._replaced = False
            await self._close()
        if self._stale:
            self._stale = False
            async with self._lock:
                await self._rebuild()

    async def _open(self) -> tuple[AcmeSettings, AcmeParts, AcmeServer]:
        """Raises AcmeFailed."""
        assert self._settings is not None and self._parts is not None
        if self._server is None:
            try:
                self._server = await asyncio.to_thread(self._parts.server, self._settings)
            except OSError as error:
                text = f"{error.filename or 'the state folder'} cannot be written: {error.strerror}"
                raise AcmeFailed(OUTAGE, text) from None
            except ValueError as error:
                raise AcmeFailed(OUTAGE, f"the key of the account cannot be read: {error}") from None
        return self._settings, self._parts, self._server

    async def _order(self, site: str) -> None:
        hosts, before = self._specs[site].hosts, self._issued.get(site)
        self._plan.order_started(site)
        self.sharing.poke()
        try:
            settings, parts, server = await self._open()
            challenges = Challenges(settings, parts, self._publish)
            issued = await OrderRun(server, parts.store, parts.tools, challenges, self._wall).run(site, hosts, before)
        except AcmeFailed as error:
            self._plan.order_failed(site, error.kind, str(error), error.retry_after_s, self._wall())
            self._failed(site, error)
        else:
            await self._done(site, hosts, issued, renewed=before is not None)
        self.sharing.poke()
        await self._save()

    async def _ask_window(self, site: str) -> None:
        issued = self._issued[site]
        try:
            _, _, server = await self._open()
            await server.open()
            if not issued.id:
                raise AcmeFailed(OUTAGE, "its certificate has no key identifier")
            window = await server.window(issued.id)
        except AcmeFailed as error:
            self._plan.window_unknown(site, error.retry_after_s, self._wall())
            return
        self._plan.window_is(site, window.start_s, window.end_s, window.retry_after_s, self._wall())
        if window.explanation and window.start_s <= self._wall():
            self._note("certificate-warning", site, f"the CA wants it renewed: {window.explanation}", "warning")

    async def _save(self) -> None:
        """The waits. Without them, a restart only orders earlier."""
        if self._parts is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._parts.store.save_plan, self._plan.saved())

    # ------------------------------------------------------------------ revocation

    async def revoke(self, site: str, reason: str, by: str) -> dict[str, Any] | None:
        """Revokes the site's certificate, and orders another one with a new key. That it must be replaced is on disk first. None: it
        has no certificate. Raises AcmeFailed."""
        issued, parts, settings = self._issued.get(site), self._parts, self._settings
        if issued is None or parts is None or settings is None:
            return None
        try:
            if reason == KEY_COMPROMISE and self._plan.open != site:
                await asyncio.to_thread(parts.store.drop_order, site)  # its key may be known too
            self._plan.revoke(site)
            await self._save()
            server = await asyncio.to_thread(parts.server, settings)  # its own: an order may be in progress
            try:
                async with asyncio.timeout(REVOKE_S):
                    fresh = await server.revoke(issued.pem, reason)
            finally:
                await server.close()
        except (OSError, ValueError, AcmeFailed) as error:
            if self._issued.get(site) is issued:
                self._plan.revoke(site, False)
            await self._save()
            text = str(error) or f"the CA did not answer within {REVOKE_S:g} s"
            raise error if isinstance(error, AcmeFailed) else AcmeFailed(OUTAGE, text) from None
        self._changed.set()
        text = f"{by} revoked its certificate {issued.digest[:16]} ({reason}); another one is ordered with a new key"
        self._note("certificate-revoked", site, text, "warning")
        return {"digest": issued.digest, "already": not fresh}

    # ------------------------------------------------------------------ challenges

    async def _publish(self, answers: Sequence[ChallengeAnswer]) -> str:
        self._mine = tuple(answers)
        return await self.sharing.publish()

    async def put_challenges(self, of_peers: Sequence[ChallengeAnswer]) -> str:
        """Gives all open challenges to the engine: this node's and its peers'. Returns "" or why it cannot answer them."""
        return await self._engine.challenges((*self._mine, *of_peers))

    # ------------------------------------------------------------------ for the peers

    @property
    def challenges(self) -> tuple[ChallengeAnswer, ...]:
        return self._mine

    @property
    def ordering(self) -> str:
        return self._plan.open

    @property
    def changes(self) -> int:
        return self._changes

    def outage_s(self) -> float:
        return self._plan.outage_s(self._wall())

    def wanted(self) -> dict[str, SiteSpec]:
        return self._specs

    def issued(self) -> dict[str, Issued]:
        return self._issued

    async def accept(self, peer: str, site: str, pem: bytes) -> None:
        """Takes a certificate of a peer, if it is newer than its own."""
        spec, parts = self._specs.get(site), self._parts
        if spec is None or parts is None:
            return
        try:
            issued = await asyncio.to_thread(parts.tools.read, pem, spec.hosts)
            if not issued.newer_than(self._issued.get(site)) or issued.lifetime.not_after_s <= self._wall():
                return
            await asyncio.to_thread(parts.store.save, site, issued)
        except (BadCertificate, OSError) as error:
            self._note("certificate-failed", site, f"the certificate from {peer} is not used: {error}", "error")
            return
        renewed = site in self._issued
        self._take(site, issued)
        self._reported.pop(site, None)
        await self._serve()
        self._note_new(site, issued, renewed, f"by {peer}")
        self._changed.set()

    def peers_changed(self) -> None:
        self._changed.set()

    # ------------------------------------------------------------------ reports

    async def _done(self, site: str, hosts: tuple[str, ...], issued: Issued, renewed: bool) -> None:
        self._orders["renewed" if renewed else "issued"] += 1
        spec = self._specs.get(site)
        if spec is None or spec.hosts != hosts:  # the node file was changed meanwhile
            self._plan.order_dropped()
            return
        self._plan.order_done(site, issued.lifetime, self._wall())
        self._issued[site] = issued
        self._changes += 1
        self._reported.pop(site, None)
        await self._serve()
        self._note_new(site, issued, renewed, "")

    def _note_new(self, site: str, issued: Issued, renewed: bool, by: str) -> None:
        code = "certificate-renewed" if renewed else "certificate-issued"
        verb = "renewed" if renewed else "issued"
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(issued.lifetime.not_after_s))
        text = f"its certificate was {verb}{f' {by}' if by else ''}; it is valid until {until}"
        self._note(code, site, text, "info")

    def _failed(self, site: str, error: AcmeFailed) -> None:
        self._orders["failed"] += 1
        if self._reported.get(site) == str(error):
            return
        self._reported[site] = str(error)
        held = self._issued.get(site)
        then = "it keeps its certificate" if held is not None else "it has no certificate yet"
        self._note("certificate-failed", site, f"no certificate was issued: {error}; {then}", "error")

    def _note(self, code: str, site: str, text: str, level: str) -> None:
        self._report(Note(code, f"site {site}: {text}", level, {"site": site}))

    def _annotate(self, views: list[dict[str, Any]]) -> list[dict[str, Any]]:
        now_s = self._wall()
        facts: dict[str, SiteFacts] = {}
        for key, spec in self._specs.items():
            issued = self._issued.get(key)
            facts[key] = SiteFacts(
                spec.hosts,
                self._plan.why(key),
                self._plan.next_try_s(key, now_s),
                self._plan.open == key,
                self.sharing.orderer(key),
                0.0 if issued is None else issued.lifetime.not_after_s,
                self._plan.is_revoked(key),
            )
        return with_acme(views, facts, now_s)
