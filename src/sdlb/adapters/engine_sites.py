"""Sites and ticket keys on their way to the native engine.

Each connection first gets the full state: keys, then sites, before the listeners that need them. After that it gets
changes. The engine answers the messages in order. When it refuses a site, it keeps the previous one. To make this hold
for a newly started engine too, each connection first gets the last accepted version of a site, then the current one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence

from sdlb.model.site import Site, SiteState, TicketKey
from sdlb.wire import engine as wire
from sdlb.wire.engine_pb2 import SitesApplied, ToEngine

BATCH_BYTES = 1 << 20
"""PEM bytes in one message; a larger site gets its own message, which is far below a frame's 16 MiB."""


class EngineSites:
    """The wanted sites and keys for all engines: two during a hot restart."""

    checks_keys = True

    def __init__(self) -> None:
        self.on_states: Callable[[Sequence[SiteState]], None] = _ignore_states
        self.wanted: dict[str, Site] = {}
        self.taken: dict[str, Site] = {}
        self.keys: tuple[TicketKey, ...] = ()
        self._feeds: list[SiteFeed] = []

    def put(self, sites: Sequence[Site], keep: Collection[str] | None = None) -> None:
        self.wanted.update((site.key, site) for site in sites)
        if keep is not None:
            self.wanted = {key: site for key, site in self.wanted.items() if key in keep}
            self.taken = {key: site for key, site in self.taken.items() if key in keep}
        for feed in self._feeds:
            feed.put(sites, prune=keep is not None)

    def ticket_keys(self, keys: Sequence[TicketKey]) -> None:
        self.keys = tuple(keys)
        for feed in self._feeds:
            feed.ticket_keys()

    def feed(self, send: Callable[[ToEngine], object]) -> SiteFeed:
        """Feeds one more connection until `stop`."""
        feed = SiteFeed(self, send)
        self._feeds.append(feed)
        return feed

    def stop(self, feed: SiteFeed) -> None:
        """Stops feeding a connection: it is gone, or its engine accepts no new clients."""
        self._feeds = [each for each in self._feeds if each is not feed]


class SiteFeed:
    """Sends sites and keys to one connection, and records what it was sent."""

    def __init__(self, all_of_it: EngineSites, send: Callable[[ToEngine], object]) -> None:
        self._all = all_of_it
        self._send = send
        self._given: dict[str, Site] = {}
        self._unanswered: deque[list[Site]] = deque()

    def put(self, sites: Sequence[Site], prune: bool) -> None:
        for batch in _batches(sites):
            self._send_batch(batch)
        if prune:
            self._send_keep()

    def ticket_keys(self) -> None:
        self._send(wire.to_ticket_keys(self._all.keys))

    async def greet(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Sends everything to a newly connected engine. `drain` waits until it has read most of it. A site that is put
        meanwhile is sent immediately, and its older version is not sent after it."""
        if self._all.keys:
            self.ticket_keys()
        for batch in _batches([self._all.taken.get(key, site) for key, site in self._all.wanted.items()]):
            self._send_batch([site for site in batch if site.key not in self._given])
            await drain()
        for batch in _batches([site for key, site in self._all.wanted.items() if self._given.get(key) is not site]):
            self._send_batch([site for site in batch if self._all.wanted.get(site.key) is site])
            await drain()
        self._send_keep()

    def on_applied(self, message: SitesApplied) -> None:
        if not self._unanswered:
            return
        sent = {site.key: site for site in self._unanswered.popleft()}
        states = [state for state in wire.site_states(message) if state.key in sent]
        for state in states:
            if not state.error and state.key in self._all.wanted:
                self._all.taken[state.key] = sent[state.key]
        if states:
            self._all.on_states(states)

    def _send_batch(self, sites: list[Site]) -> None:
        self._given.update((site.key, site) for site in sites)
        self._unanswered.append(sites)
        self._send(wire.to_sites(sites))

    def _send_keep(self) -> None:
        self._unanswered.append([])
        self._send(wire.to_sites([], list(self._all.wanted)))


def _batches(sites: Iterable[Site]) -> Iterator[list[Site]]:
    batch: list[Site] = []
    size = 0
    for site in sites:
        more = sum(map(len, site.certificates)) + len(site.client_ca) + sum(len(html) for _, html in site.pages)
        if batch and size + more > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(site)
        size += more
    if batch:
        yield batch


def _ignore_states(_: Sequence[SiteState]) -> None:
    """Used until a listener is set."""
