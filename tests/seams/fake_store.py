"""A store in memory, held to the same tests as the real one. `fails`: every commit raises until it is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from sdlb.seams.store import StoreFailed


class MemoryStore:
    def __init__(self, disk: dict[str, bytes] | None = None) -> None:
        self.disk = {} if disk is None else disk
        self.fails = ""
        self.commits: list[tuple[dict[str, object], bool]] = []

    async def load(self) -> dict[str, object]:
        return {key: msgspec.json.decode(value) for key, value in self.disk.items()}

    async def commit(self, puts: Mapping[str, object], durable: bool) -> None:
        rows = {key: None if value is None else msgspec.json.encode(value) for key, value in puts.items()}
        await asyncio.sleep(0)
        if self.fails:
            raise StoreFailed(self.fails)
        self.commits.append((dict(puts), durable))
        for key, value in rows.items():
            if value is None:
                self.disk.pop(key, None)
            else:
                self.disk[key] = value

    async def close(self) -> None:
        pass
