"""Endpoints that leave: drained when nothing is in flight at any worker, then deleted from HAProxy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from sdlb.adapters.haproxy.figures import Figures
from sdlb.adapters.haproxy.master import Silent
from sdlb.adapters.haproxy.workers import Workers
from sdlb.core.effects import Apply
from sdlb.core.events import EndpointKey, EngineDrained, Event
from sdlb.seams.engine import EngineStats

POLL_S = 0.05
DELETE_EVERY_S = 1.0


class Drains:
    """`undrained`: endpoints that are to be reported, with the epoch of their deletion."""

    def __init__(self, workers: Workers, stats: EngineStats, post: Callable[[Event], None]) -> None:
        self.undrained: dict[EndpointKey, int] = {}
        self._workers = workers
        self._stats = stats
        self._post = post
        self._idle_polls: dict[str, int] = {}
        self._unused: set[str] = set()  # full names: drained, but HAProxy has not deleted them yet
        self._to_cut: set[EndpointKey] = set()
        self._wanted = asyncio.Event()

    def begin(self, delta: Apply) -> None:
        """What a delta deletes; `report` follows when it is applied."""
        for key, epoch in ((each, delta.epoch) for each in (*delta.delete_endpoints, *delta.left_out)):
            self.undrained[key] = epoch
        for endpoint in delta.put_endpoints:
            self.undrained.pop(endpoint.key, None)

    def report(self) -> None:
        leaving = self._workers.tables.leaving
        busy = {server.key for name, server in leaving.items() if name not in self._unused}
        for key in [key for key in self.undrained if key not in busy]:
            self._stats.draining.pop(key, None)
            self._post(EngineDrained(key, self.undrained.pop(key)))
        if leaving:
            self._wanted.set()

    def take_up(self) -> None:
        """Reports again what leaves, to a control that does not know it."""
        tables = self._workers.tables
        serving = set(tables.endpoints())
        left = (each for each in tables.leaving.values() if each.key not in serving)
        self.undrained.update({each.key: each.epoch for each in left})
        self._wanted.set()

    def restore(self) -> None:
        """What the workers drain, after a restart of control."""
        self.undrained = {server.key: server.epoch for server in self._workers.tables.leaving.values()}
        self._wanted.set()

    def clear(self) -> None:
        """Nothing drains in a HAProxy that starts."""
        self.undrained.clear()
        self._unused.clear()
        self._idle_polls.clear()
        for name in list(self._workers.tables.leaving):
            self._workers.tables.forget(name)

    def cut(self, endpoints: Iterable[EndpointKey]) -> None:
        self._to_cut.update(endpoints)
        self._wanted.set()

    async def watch(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._workers.tables.leaving or self._to_cut:
                with contextlib.suppress(Silent):
                    async with self._workers.lock:
                        await self._cut()
                        await self._drain()
                waiting = self._workers.tables.leaving.keys() - self._unused
                await asyncio.sleep(POLL_S if waiting else DELETE_EVERY_S)

    async def _cut(self) -> None:
        names = self._workers.tables.names_of(self._to_cut)
        for pid in (await self._workers.processes()).workers if names else ():
            for name in names:
                await self._workers.tell(pid, f"shutdown sessions server {name}")
        self._to_cut.clear()

    async def _drain(self) -> None:
        now, leaving = await self._workers.processes(), self._workers.tables.leaving
        in_flight = dict.fromkeys(leaving, 0)
        names = {name for server in leaving.values() for name in server.copies}
        for backend in {name.partition("/")[0] for name in names}:
            for pid in now.workers:
                answer = await self._workers.tell(pid, f"show stat {backend} 4 -1")
                for name, count in Figures.in_flight(answer):
                    if name in in_flight:
                        in_flight[name] += count
        for name, count in in_flight.items():
            # Twice in a row: a request may have chosen the server just before it was told to leave.
            self._idle_polls[name] = 0 if count else self._idle_polls.get(name, 0) + 1
            if self._idle_polls[name] >= 2:
                self._unused.add(name)
        self._stats.draining = {}
        for name in in_flight.keys() - self._unused:
            key = leaving[name].key
            self._stats.draining[key] = self._stats.draining.get(key, 0) + in_flight[name]
        self.report()
        for name in sorted(self._unused & in_flight.keys()):
            answers = [await self._workers.tell(now.current, f"del server {each}") for each in leaving[name].copies]
            if all(map(_is_deleted, answers)):
                self._unused.discard(name)
                self._idle_polls.pop(name, None)
                await self._workers.send(self._workers.tables.forget(name))


def _is_deleted(answer: str) -> bool:
    return "Server deleted" in answer or "No such server" in answer or not answer.strip()
