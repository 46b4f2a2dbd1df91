"""An engine that routes nothing and confirms everything in the next turn; nothing is ever in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from sdlb.core.effects import Apply
from sdlb.core.events import EndpointKey, EngineApplied, EngineAttached, EngineDrained, Event
from sdlb.model.acme import ChallengeAnswer
from sdlb.model.site import Site, SiteState, TicketKey
from sdlb.seams.engine import FEATURES, Degraded, EngineConfig, EngineFailed, EngineStats, Feature, Upgraded


class FakeSites:
    """Accepts every site with certificates and reports that in the next iteration."""

    checks_keys = True

    def __init__(self) -> None:
        self.on_states: Callable[[Sequence[SiteState]], None] = lambda _: None
        self.sites: dict[str, Site] = {}
        self.keys: tuple[TicketKey, ...] = ()
        self.until_s = 0
        """When all certificates expire."""

    def put(self, sites: Sequence[Site], keep: Collection[str] | None = None) -> None:
        self.sites.update((site.key, site) for site in sites if site.certificates)
        if keep is not None:
            self.sites = {key: site for key, site in self.sites.items() if key in keep}
        asyncio.get_running_loop().call_soon(lambda: self.on_states([self._state(site) for site in sites]))

    def _state(self, site: Site) -> SiteState:
        held = self.until_s if site.key in self.sites else 0
        return SiteState(site.key, "" if site.certificates else "it has no certificate", held)

    def ticket_keys(self, keys: Sequence[TicketKey]) -> None:
        self.keys = tuple(keys)


class FakeChallenges:
    """Confirms everything."""

    def __init__(self) -> None:
        self.history: list[tuple[ChallengeAnswer, ...]] = []
        self.error = ""

    async def challenges(self, answers: Sequence[ChallengeAnswer]) -> str:
        self.history.append(tuple(answers))
        return self.error


class FakeEngine:
    def __init__(self, post: Callable[[Event], None]) -> None:
        self.stats = EngineStats()
        self.upgrades = False
        self.sites = FakeSites()
        self.challenges = FakeChallenges()
        self.applied: list[Apply] = []
        self.cuts: list[tuple[tuple[EndpointKey, ...], bool]] = []
        self.configs: list[EngineConfig] = []
        self._post = post

    @property
    def features(self) -> frozenset[Feature]:
        return FEATURES

    def degraded(self) -> Sequence[Degraded]:
        return ()

    async def start(self, config: EngineConfig, settle_s: float = 0.0) -> None:
        self.configs.append(config)
        self.stats.attached = True
        self._post(EngineAttached("boot-1", 0, 0))

    async def configure(self, config: EngineConfig) -> str:
        self.configs.append(config)
        return ""

    def apply(self, delta: Apply) -> None:
        self.applied.append(delta)
        asyncio.get_running_loop().call_soon(self._confirm, delta)

    def _confirm(self, delta: Apply) -> None:
        self._post(EngineApplied(delta.epoch))
        for key in delta.delete_endpoints:
            self._post(EngineDrained(key, delta.epoch))

    def attach_again(self) -> None:
        self._post(EngineAttached("boot-1", self.applied[-1].epoch if self.applied else 0, 0))

    def cut(self, endpoints: Sequence[EndpointKey], *, streams_only: bool = False) -> None:
        self.cuts.append((tuple(endpoints), streams_only))

    def reopen_log(self) -> None:
        pass

    async def upgrade(self, deadline_s: float) -> Upgraded:
        if not self.upgrades:
            raise EngineFailed("there is nothing to upgrade")
        return Upgraded(2, "0.2.0", 1, "0.1.0", deadline_s)

    async def drain_clients(self, deadline_s: float) -> None:
        pass

    async def shut_down(self, deadline_s: float) -> None:
        self.stats.attached = False

    async def detach(self) -> None:
        self.stats.attached = False
