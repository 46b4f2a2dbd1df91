"""Sites of a running node: files are read at the start and whenever they change, ticket keys are made and rotated.

Every `LOOK_S` the files are checked. Files that have changed and were the same at two checks (they are completely
written) are read and given to the engine, which uses them or keeps the previous ones. So a certificate is renewed by
replacing its files, without a restart or a signal. Where the system
reports changes (`adapters.folder_watch`), they are read at once. Files that cannot be used are reported once (`node.certificates`)
and retried. For certificates that `node.certificate_faults` refuses, the engine gets a site without any: it keeps what it
has and reports until when that is valid, also to a control that was restarted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace as replace_spec

from sdlb.core.effects import Note
from sdlb.model.hardening import Hardening
from sdlb.model.problem import Invalid
from sdlb.model.site import Site, SiteSpec, SiteState, TicketKey
from sdlb.node.certificates import Sites
from sdlb.node.pem import Reading, Stamp, read_site, stamp
from sdlb.node.ticket_keys import load_keys, make_key, save_keys
from sdlb.node.tickets import merge, rotate
from sdlb.seams.engine import SiteSink
from sdlb.seams.store import NoteSink

if TYPE_CHECKING:
    from sdlb.node.certificate_faults import Checked

LOOK_S = 2.0
SETTLE_S = 0.02
"""From the report of a changed file to its reading."""
ENDING_LOOK_S = 600


class Taken(Struct, frozen=True):
    """The files of a site as they were read. `exposed`: what is wrong with the permissions of its keys."""

    spec: SiteSpec
    stamp: Stamp
    site: Site
    exposed: list[str]
    checked: Checked


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
        self._configured: tuple[SiteSpec, ...] = ()
        self._hardening = Hardening()
        self._issued: tuple[SiteSpec, ...] = ()  # of sites whose certificates the node orders
        self._specs: dict[str, SiteSpec] = {}
        self.orders: dict[str, int] = {}  # ended orders of certificates, by result
        self.annotate: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
        self._seen: dict[str, Stamp] = {}  # at the last check
        self._taken: dict[str, tuple[Stamp, Site, str]] = {}  # what was read and sent last, and why it was refused
        self._good: dict[str, Checked] = {}  # what was sent last with its certificates
        self._worse: dict[str, Taken] = {}  # what may be better than the certificate in use later
        self._keys: tuple[TicketKey, ...] | None = None  # None: the file was not read yet
        self._keys_unwritten = ""
        self._ending_at = 0
        self._lock = asyncio.Lock()
        self._any = asyncio.Event()
        self._by_path: dict[str, list[str]] = {}  # path -> the sites that have it
        self._urgent: set[str] | None = None  # sites to be read at once; None: no task for it
        self._reading: asyncio.Task[None] | None = None
        self.watch_files: Callable[[Collection[str]], None] = _watch_nothing
        sink.on_states = self._on_states

    # ------------------------------------------------------------------ changes of the sites

    async def adopt(self, specs: Sequence[SiteSpec], hardening: Hardening | None = None) -> None:
        """Sets the configured sites, and what all sites have of `hardening`. Raises Invalid, and changes nothing, if a file of a new
        site cannot be read."""
        async with self._lock:
            before, self._hardening = self._hardening, hardening or self._hardening
            try:
                await self._adopt(self._served(specs, self._issued))
            except Invalid:
                self._hardening = before
                raise
            self._configured = tuple(specs)

    async def adopt_issued(self, specs: Sequence[SiteSpec]) -> None:
        """Sets the sites whose certificates the node has ordered itself, with their files. Raises Invalid as `adopt`."""
        async with self._lock:
            await self._adopt(self._served(self._configured, specs))
            self._issued = tuple(specs)

    def _served(self, configured: Sequence[SiteSpec], issued: Sequence[SiteSpec]) -> list[SiteSpec]:
        """A site that changes to ordered certificates keeps its earlier one until the first is issued."""
        found = {spec.key: spec for spec in configured if not spec.acme}
        found |= {spec.key: spec for spec in issued}
        for spec in configured:
            if spec.acme and spec.key not in found and spec.key in self._specs:
                found[spec.key] = self._specs[spec.key]
        wanted = self._hardening.tls_min, self._hardening.session_tickets
        return [
            spec if (spec.tls_min, spec.tickets) == wanted else replace_spec(spec, tls_min=wanted[0], tickets=wanted[1])
            for spec in found.values()
        ]

    async def _adopt(self, specs: list[SiteSpec]) -> None:
        fresh = [spec for spec in specs if self._specs.get(spec.key) != spec]
        taken = await asyncio.to_thread(lambda: [self._take(spec) for spec in fresh])
        self._specs = {spec.key: spec for spec in specs}
        self._by_path = {}
        for spec in specs:
            for file in spec.files():
                self._by_path.setdefault(file.path, []).append(spec.key)
        self.watch_files(self._by_path.keys())
        self._any.set() if specs else self._any.clear()
        self._known.replace(specs)
        for held in (self._seen, self._taken, self._good, self._worse):
            for key in [key for key in held if key not in self._specs]:
                del held[key]
        for each in taken:
            self._seen[each.spec.key] = each.stamp
        await self._tickets()
        self._remember(taken)
        self._sink.put([self._taken[each.spec.key][1] for each in taken], keep=self._specs.keys())

    def _remember(self, taken: list[Taken]) -> list[Site]:
        """Records the files that were read and reports what is wrong with them. Returns the sites that have changed."""
        others: list[Site] = []
        now_s = int(self._wall())
        for each in taken:
            key, site, checked = each.spec.key, each.site, each.checked
            worse = checked.worse_than(self._good.get(key), now_s)
            refused = checked.refused or worse
            if worse is not None:
                self._worse[key] = each
            else:
                self._worse.pop(key, None)
            if refused is None:
                self._good[key] = checked
            else:
                site = replace(site, certificates=())
            why = "" if refused is None else f"{refused.what}; {refused.do}"
            before = self._taken.get(key)
            changed = before is not None and before[1:] != (site, why)
            renewed = before is not None and (before[2] != why or not before[1].same_certificates(site))
            self._taken[key] = (each.stamp, site, why)
            faults = {} if refused else checked.faults(now_s)
            spans = [(leaf.not_before_s, leaf.not_after_s) for leaf in checked.leaves]
            self._report_all(self._known.on_read(key, each.exposed, renewed, spans))
            self._report_all(self._known.on_checked(key, why, [f"{one.what}; {one.do}" for one in faults.values()]))
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

    def changed(self, paths: Collection[str]) -> None:
        """These files may have changed (`adapters.folder_watch`): sites that have them are read at once, without a second check,
        because the files were closed or renamed into place."""
        found = {key for path in paths for key in self._by_path.get(path, ())}
        if found and self._urgent is not None:
            self._urgent.update(found)
            return
        if found:
            self._urgent = set(found)
            self._reading = asyncio.create_task(self._read_urgent(), name="changed sites")

    async def _read_urgent(self) -> None:
        await asyncio.sleep(SETTLE_S)  # a key and its certificate are often replaced one after the other
        async with self._lock:
            keys, self._urgent = self._urgent or set(), None
            specs = [self._specs[key] for key in sorted(keys) if key in self._specs]
            taken: list[Taken] = []
            for spec in specs:
                with contextlib.suppress(Invalid):  # half of it may be there: the regular check reports it
                    taken.append(await asyncio.to_thread(self._take, spec))
            if taken := [each for each in taken if each.checked.refused is None]:
                self._sink.put(self._remember(taken))
            for each in taken:
                self._seen[each.spec.key] = each.stamp

    async def look(self) -> None:
        specs = list(self._specs.values())
        # Without the lock: for 10,000 sites it takes as long as a changed certificate may take.
        stamps = await asyncio.to_thread(lambda: [stamp(spec) for spec in specs])
        async with self._lock:
            changed: list[SiteSpec] = []
            for spec, now in zip(specs, stamps, strict=True):
                if self._specs.get(spec.key) is not spec:
                    continue
                before, self._seen[spec.key] = self._seen.get(spec.key), now
                if now != self._taken[spec.key][0] and now == before:
                    changed.append(spec)
            taken = await self._read(changed)
            read = {each.spec.key for each in taken}
            taken += [each for key, each in self._worse.items() if key not in read and self._is_better_now(each)]
            if taken:
                self._sink.put(self._remember(taken))
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
                taken.append(await asyncio.to_thread(self._take, spec))
            except Invalid as error:
                self._report_all(self._known.on_unreadable(spec.key, error.what))
        return taken

    def _take(self, spec: SiteSpec) -> Taken:
        """Raises Invalid."""
        from sdlb.node.certificate_faults import check  # its library is loaded by nodes with certificates only

        seen = Reading()
        site = read_site(spec, seen)
        checked = check(spec, site, engine_checks_keys=self._sink.checks_keys)
        return Taken(spec, tuple([seen.stamps[file.path] for file in spec.files()]), site, seen.exposed, checked)

    def _is_better_now(self, each: Taken) -> bool:
        return each.checked.worse_than(self._good.get(each.spec.key), int(self._wall())) is None

    # ------------------------------------------------------------------ reports of the engine

    def _on_states(self, states: Sequence[SiteState]) -> None:
        self._report_all(self._known.on_applied(states, int(self._wall())))

    def views(self) -> list[dict[str, Any]]:
        """The views of `node.certificates`, with what `node.acme_view` adds."""
        return self.annotate(self._known.views(int(self._wall())))

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

    def ticket_keys(self) -> Sequence[TicketKey]:
        """The keys now; none on a node without sites."""
        return (self._keys or ()) if self._specs else ()

    async def accept_ticket_keys(self, keys: Sequence[TicketKey]) -> None:
        """Takes the keys of another entry, so that each resumes the sessions of the other."""
        async with self._lock:
            if self._keys is None or not self._specs:
                return
            merged = merge(self._keys, keys, int(self._wall()))
            if merged != self._keys:
                await self._write(merged)
                self._keys = merged
                self._sink.ticket_keys(merged)

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


def _watch_nothing(paths: Collection[str]) -> None: ...
