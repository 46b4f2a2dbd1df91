"""Where a node keeps what it decided: a map of keys to JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from sdlb.core.effects import Note

NoteSink = Callable[[Note], None]
"""Takes what a part of the node has to say: to the log and to `/v1/events`."""


class StoreFailed(OSError):
    """The store could not write (disk full, read-only). Nothing of the commit was written; it may be tried again."""


class Store(Protocol):
    async def load(self) -> dict[str, object]:
        """All that was committed. What can't be trusted is set aside and told (`state-set-aside`): then it is empty."""
        ...

    async def commit(self, puts: Mapping[str, object], durable: bool) -> None:
        """All of `puts` or nothing, in the order of the calls; None deletes. Returns when it is written.

        `durable`: also when the machine loses power from here on. Without it only a crash of the process is survived.
        Raises StoreFailed.
        """
        ...

    async def close(self) -> None:
        """Writes what was committed; safe to call twice."""
        ...
