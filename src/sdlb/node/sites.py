"""Sites of a running node: files are read at the start and whenever they change, ticket keys are made and rotated.

Every `LOOK_S` the files are checked. Files that have changed and were the same at two checks (they are completely
written) are read and given to the engine, which uses them or keeps the previous ones. So a certificate is renewed by
replacing its files, without a restart or a signal. Files that cannot be used are reported once (`node.certificates`)
and retried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdlb.core.effects import Note
from sdlb.model.problem import Invalid
from sdlb.model.site import Site, SiteSpec, SiteState, TicketKey
from sdlb.node.certificates import Sites
from sdlb.node.pem import Stamp, read_site, stamp
from sdlb.node.ticket_keys import load_keys, make_key, save_keys
from sdlb.node.tickets import rotate
from sdlb.seams.engine import SiteSink
from sdlb.seams.store import NoteSink

LOOK_S = 2.0
ENDING_LOOK_S = 600
Taken = tuple[SiteSpec, Stamp, Site, list[str]]


class SiteWatch:
    """`ticket_file`: where the keys of session tickets are kept. `wall`: Unix time in seconds, by which
    certificates expire."""

    def __init__(
        self, sink: SiteSink, report: NoteSink, ticket_file: Path, wall: Callable[[], float] = time.time
    ) -> None:
        self._sink = sink
        self._report = report
        self._ticket_file = ticket_file
        self._wall = wall
        self._known = Sites()
        self._specs: dict[str, SiteSpec] = {}
        self._seen: dict[str, Stamp] = {}  # at the last check
        self._taken: dict[str, tuple[Stamp, Site]] = {}  # what was read last
        self._keys: tuple[TicketKey, ...] | None = None  # None: the file was not read yet
        self._keys_unwritten = ""
        self._ending_at = 0
        self._lock = asyncio.Lock()
        self._any = asyncio.Event()
        sink.on_states = self._on_states

    # ------------------------------------------------------------------ changes of the sites

    async def adopt(self, specs: Sequence[SiteSpec]) -> None:
        """Sets the sites. Raises Invalid, and changes nothing, if a file of a new site cannot be read."""
        async with self._lock:
            fresh = [spec for spec in specs if self._specs.get(spec.key) != spec]
            taken = await asyncio.to_thread(lambda: [_take(spec) for spec in fresh])
            self._specs = {spec.key: spec for spec in specs}
            self._any.set() if specs else self._any.clear()
            self._known.replace(specs)
            for held in (self._seen, self._taken):
                for key in [key for key in held if key not in self._specs]:
                    del held[key]
            for spec, now, _, _ in taken:
                self._seen[spec.key] = now
            await self._tickets()
            self._remember(taken)
            self._sink.put([site for _, _, site, _ in taken], keep=list(self._specs))

    def _remember(self, taken: list[Taken]) -> list[Site]:
        """Records the files that were read and reports what is wrong with them. Returns the sites that have changed."""
        others: list[Site] = []
        for spec, now, site, exposed in taken:
            before = self._taken.get(spec.key)
            changed = before is not None and before[1] != site
            self._taken[spec.key] = (now, site)
            self._report_all(self._known.on_read(spec.key, exposed, changed))
            if changed:
                others.append(site)
        return others

    # ------------------------------------------------------------------ checks of the files

    async def run(self) -> None:
        """Checks the files until it is cancelled; does nothing on a node without sites."""
        while True:
            await self._any.wait()
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        async with self._lock:
            specs = list(self._specs.values())
            stamps = await asyncio.to_thread(lambda: [stamp(spec) for spec in specs])
            changed: list[SiteSpec] = []
            for spec, now in zip(specs, stamps, strict=True):
                before, self._seen[spec.key] = self._seen.get(spec.key), now
                if now != self._taken[spec.key][0] and now == before:
                    changed.append(spec)
            if changed:
                self._sink.put(self._remember(await self._read(changed)))
            await self._tickets()
            now_s = int(self._wall())
            if not 0 <= now_s - self._ending_at < ENDING_LOOK_S:
                self._ending_at = now_s
                self._report_all(self._known.on_time(now_s))

    async def _read(self, specs: list[SiteSpec]) -> list[Taken]:
        """The sites whose files can be read; errors of the others are reported, and they are retried."""
        taken: list[Taken] = []
        for spec in specs:
            try:
                taken.append(await asyncio.to_thread(_take, spec))
            except Invalid as error:
                self._report_all(self._known.on_unreadable(spec.key, error.what))
        return taken

    # ------------------------------------------------------------------ reports of the engine

    def _on_states(self, states: Sequence[SiteState]) -> None:
        self._report_all(self._known.on_applied(states, int(self._wall())))

    def views(self) -> list[dict[str, Any]]:
        """The views of `node.certificates`."""
        return self._known.views()

    # ------------------------------------------------------------------ ticket keys

    async def _tickets(self) -> None:
        """Rotates the keys and gives new ones to the engine, also when they could not be written to the file."""
        if not self._specs:
            return
        keys, why = (
            (self._keys, "") if self._keys is not None else await asyncio.to_thread(load_keys, self._ticket_file)
        )
        if why:
            text = f"new session ticket keys were created, each client does one more full handshake: {why}"
            self._report(Note("ticket-keys-lost", text, "warning"))
        now_s = int(self._wall())
        new = rotate(keys, now_s, lambda: make_key(now_s))
        if new != keys or self._keys_unwritten:
            await self._write(new)
        if new != self._keys:
            self._keys = new
            self._sink.ticket_keys(new)

    async def _write(self, keys: Sequence[TicketKey]) -> None:
        try:
            await asyncio.to_thread(save_keys, self._ticket_file, keys)
            self._keys_unwritten = ""
        except OSError as error:
            why = error.strerror or str(error)
            if why != self._keys_unwritten:
                text = (
                    f"{self._ticket_file} cannot be written ({why}): TLS sessions will not be resumed after a restart"
                )
                self._report(Note("ticket-keys-not-written", text, "warning"))
            self._keys_unwritten = why

    def _report_all(self, notes: list[Note]) -> None:
        for note in notes:
            self._report(note)


def _take(spec: SiteSpec) -> Taken:
    """The stamp is taken before the files are read, so that a change meanwhile is seen at the next check. Raises
    Invalid."""
    now = stamp(spec)
    return (spec, now, *read_site(spec))
