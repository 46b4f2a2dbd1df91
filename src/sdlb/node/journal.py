"""What the node has to say: JSON lines on stderr (plain ones on a terminal), and the recent ones for `/v1/events`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

import msgspec

from sdlb.core.effects import Note

RECENT_MAX = 2000
"""Events kept for those who ask later."""


class Event(msgspec.Struct, frozen=True):
    """One note with its number and time. `at`: RFC 3339, UTC."""

    id: int
    at: str
    level: str
    code: str
    text: str
    fields: dict[str, str]


class Journal:
    """`wall`: seconds since the epoch, for people to read; nothing is decided by it."""

    def __init__(
        self, node: str, stream: TextIO | None = None, wall: Callable[[], float] = time.time, level: str = "info"
    ) -> None:
        self._node = node
        self._stream = sys.stderr if stream is None else stream
        self._plain = self._stream.isatty()
        self._wall = wall
        self._quiet = level != "info"
        self._next = 1
        self.recent: deque[Event] = deque(maxlen=RECENT_MAX)
        self.counts: dict[tuple[str, str], int] = {}  # (level, code) -> notes
        self._more: asyncio.Event = asyncio.Event()

    def tell(self, note: Note) -> None:
        now = self._wall()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        event = Event(self._next, at, note.level, note.code, note.text, dict(note.fields))
        self._next += 1
        self.recent.append(event)
        self.counts[note.level, note.code] = self.counts.get((note.level, note.code), 0) + 1
        self._more.set()
        self._more = asyncio.Event()
        if not (self._quiet and note.level == "info"):
            self._print(event)

    def _print(self, event: Event) -> None:
        if self._plain:
            line = f"{event.at[11:23]} {event.level:7} {_printable(event.text)} [{event.code}]\n"
        else:
            shown = {"at": event.at, "level": event.level, "node": self._node, "code": event.code, "text": event.text}
            line = msgspec.json.encode({**shown, **event.fields, **shown}).decode() + "\n"
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads the log any more; the node goes on

    def after(self, last_id: int) -> list[Event]:
        """The kept events with a greater id."""
        if not self.recent or self.recent[-1].id <= last_id:
            return []
        return [event for event in self.recent if event.id > last_id]

    @property
    def last_id(self) -> int:
        return self._next - 1

    async def wait(self) -> None:
        """Until there is one more."""
        await self._more.wait()


def _printable(text: str) -> str:
    """Names that come from elsewhere may hold control characters; a terminal must not obey them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
