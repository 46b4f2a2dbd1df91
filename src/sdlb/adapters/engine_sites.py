"""Sites and ticket keys on their way to the native engine.

Each connection gets everything first: keys, then sites, before the listeners that need them. Later come changes. The
engine answers in the order in which it was told. A site that it refuses keeps what it had; so that this holds for an engine
that is started afresh too, each gets the last that one has taken first, and then what is there now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence

from sdlb.model.site import Site, SiteState, TicketKey
from sdlb.wire import engine as wire
from sdlb.wire.engine_pb2 import SitesApplied, ToEngine

BATCH_BYTES = 1 << 20
"""Of PEM in one message; a site that has more goes alone, and is never near a frame's 16 MiB."""


class EngineSites:
    def __init__(self, send: Callable[[ToEngine], None]) -> None:
        self.told: Callable[[Sequence[SiteState]], None] = _nobody
        self._send = send
        self._sites: dict[str, Site] = {}
        self._taken: dict[str, Site] = {}
        self._keys: tuple[TicketKey, ...] = ()
        self._given: dict[str, Site] = {}  # on this connection
        self._unanswered: deque[list[Site]] = deque()
        self._connected = False

    # ------------------------------------------------------------------ the seam

    def put(self, sites: Sequence[Site], keep: Collection[str] | None = None) -> None:
        self._sites.update((site.key, site) for site in sites)
        if keep is not None:
            self._sites = {key: site for key, site in self._sites.items() if key in keep}
            self._taken = {key: site for key, site in self._taken.items() if key in keep}
        if not self._connected:
            return
        for batch in _batches(sites):
            self._send_batch(batch)
        if keep is not None:
            self._send_keep()

    def ticket_keys(self, keys: Sequence[TicketKey]) -> None:
        self._keys = tuple(keys)
        if self._connected:
            self._send(wire.to_ticket_keys(self._keys))

    # ------------------------------------------------------------------ the connection

    async def greet(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Everything, to an engine that was just connected to. `drain` waits until it has read most of it; what is put
        meanwhile is sent at once, and is not overtaken by what was there before."""
        self._unanswered.clear()
        self._given.clear()
        self._connected = True
        if self._keys:
            self._send(wire.to_ticket_keys(self._keys))
        for batch in _batches([self._taken.get(key, site) for key, site in self._sites.items()]):
            self._send_batch([site for site in batch if site.key not in self._given])
            await drain()
        for batch in _batches([site for key, site in self._sites.items() if self._given.get(key) is not site]):
            self._send_batch([site for site in batch if self._sites.get(site.key) is site])
            await drain()
        self._send_keep()

    def lost(self) -> None:
        """The connection is gone; what comes now waits for the next one."""
        self._connected = False

    def on_applied(self, message: SitesApplied) -> None:
        if not self._unanswered:
            return
        sent = {site.key: site for site in self._unanswered.popleft()}
        states = [state for state in wire.site_states(message) if state.key in sent]
        for state in states:
            if not state.error and state.key in self._sites:
                self._taken[state.key] = sent[state.key]
        if states:
            self.told(states)

    def _send_batch(self, sites: list[Site]) -> None:
        self._given.update((site.key, site) for site in sites)
        self._unanswered.append(sites)
        self._send(wire.to_sites(sites))

    def _send_keep(self) -> None:
        self._unanswered.append([])
        self._send(wire.to_sites([], list(self._sites)))


def _batches(sites: Iterable[Site]) -> Iterator[list[Site]]:
    batch: list[Site] = []
    size = 0
    for site in sites:
        more = sum(map(len, site.certificates)) + len(site.client_ca)
        if batch and size + more > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(site)
        size += more
    if batch:
        yield batch


def _nobody(_: Sequence[SiteState]) -> None:
    """Until somebody listens."""
