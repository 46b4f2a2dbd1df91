"""Interface to the store that keeps a node's decisions over restarts: a map from keys to JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from sdlb.core.effects import Note

NoteSink = Callable[[Note], None]
"""Receives a note for the log and `/v1/events`."""


class StoreFailed(OSError):
    """The store could not write (disk full, read-only). Nothing of the commit was written; the caller may retry."""


class Store(Protocol):
    async def load(self) -> dict[str, object]:
        """Returns everything that was committed. A damaged store is set aside with an event (`state-set-aside`), and the
        result is empty."""
        ...

    async def commit(self, puts: Mapping[str, object], durable: bool) -> None:
        """Writes all of `puts` or nothing, in the order of the calls; None deletes a key. Returns when it is written.

        `durable`: the write survives a power loss from then on; without it, only a crash of the process.
        Raises StoreFailed.
        """
        ...

    async def close(self) -> None:
        """Writes pending commits; safe to call twice."""
        ...
