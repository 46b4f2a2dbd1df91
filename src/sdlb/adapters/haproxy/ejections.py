"""What is adjusted each second: overflow between versions, and endpoints that fail, which are taken out and back."""

from __future__ import annotations

import time

from sdlb.adapters.haproxy.figures import ERROR, Sample
from sdlb.adapters.haproxy.health import Health
from sdlb.adapters.haproxy.names import is_node
from sdlb.adapters.haproxy.workers import Workers
from sdlb.core.effects import Note
from sdlb.seams.engine import EngineStats
from sdlb.seams.store import NoteSink


class Ejections:
    def __init__(self, workers: Workers, stats: EngineStats, report: NoteSink) -> None:
        self._workers = workers
        self._stats = stats
        self._report = report
        self._health = Health()

    async def adjust(self, samples: dict[str, Sample]) -> None:
        tables = self._workers.tables
        in_flight = {name: sample.in_flight for name, sample in samples.items()}
        commands = [*tables.sweep(), *tables.balance(in_flight)]
        for name, sample in samples.items():
            server = tables.server(name)
            if server is not None and is_node(server.key.target):
                sample.added.pop(ERROR, None)  # an answer of its instance, which the child judges itself
        for name, ejected, why in self._health.check(samples, time.monotonic()):
            found = tables.eject(name, ejected)
            server = tables.server(name)
            if not found or server is None:
                continue
            commands += found
            self._note(server.key.target, ejected, why)
        servers = map(tables.server, tables.ejected)
        known = {server.key.target for server in servers if server is not None}
        for target in self._stats.ejected.keys() - known:  # it has left, or HAProxy was started again
            del self._stats.ejected[target]
        await self._workers.send(commands)

    def _note(self, target: str, ejected: bool, why: str) -> None:
        if ejected:
            self._stats.ejected[target] = why
            text = f"endpoint {target} is ejected: {why}"
            self._report(Note("target-ejected", text, "warning", {"target": target}))
        elif self._stats.ejected.pop(target, None) is not None:
            self._report(Note("target-back", f"endpoint {target} gets requests again", "info", {"target": target}))
