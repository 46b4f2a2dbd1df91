"""The node's events: JSON lines on stderr (plain ones on a terminal), and the recent ones for `/v1/events`.

A log that is not read blocks nothing (`node.log_writer`): its lines are dropped, reported as `log-blocked`; the events
stay.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

import msgspec

from sdlb.core.effects import Note
from sdlb.node.log_writer import LogWriter, of_stderr

RECENT_MAX = 2000
"""Events that are kept for later reads."""


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
        self._writer: LogWriter | None = of_stderr(self._lost) if stream is None else None
        self._stream: TextIO | LogWriter = stream or self._writer or sys.stderr
        self._plain = self._stream.isatty()
        self._wall = wall
        self._quiet = level != "info"
        self._next = 1
        self.recent: deque[Event] = deque(maxlen=RECENT_MAX)
        self.counts: dict[tuple[str, str], int] = {}  # (level, code) -> notes
        self._more: asyncio.Event = asyncio.Event()
        self._blocked = False  # `log-blocked` was reported; reset when the log is read again
        self._dropped = 0  # the part of `dropped` that the log has reported

    @property
    def dropped(self) -> int:
        """Log lines dropped because stderr was not read in time."""
        return self._writer.dropped if self._writer is not None else 0

    def handler(self) -> logging.Handler:
        """A handler for what libraries log."""
        handler = logging.StreamHandler(self._stream)
        handler.setLevel(logging.WARNING)
        return handler

    def end(self) -> None:
        """Writes the queued lines before the process exits, if stderr is read."""
        if self._writer is not None:
            self._writer.end()

    def report(self, note: Note) -> None:
        event = Event(self._next, self._at(), note.level, note.code, note.text, dict(note.fields))
        self._next += 1
        self.recent.append(event)
        self.counts[note.level, note.code] = self.counts.get((note.level, note.code), 0) + 1
        self._more.set()
        self._more = asyncio.Event()
        if not (self._quiet and note.level == "info"):
            self._print(event)
        if self.dropped > self._dropped and not self._blocked:
            self._blocked = True
            self.report(
                Note(
                    "log-blocked", "the log on stderr is not read; lines are dropped, the node keeps running", "warning"
                )
            )

    def _line(self, event: Event) -> str:
        if self._plain:
            return f"{event.at[11:23]} {event.level:7} {_printable(event.text)} [{event.code}]\n"
        shown = {"at": event.at, "level": event.level, "node": self._node, "code": event.code, "text": event.text}
        return msgspec.json.encode({**shown, **event.fields, **shown}).decode() + "\n"

    def _lost(self, lines: int) -> str:
        """Called in the writer's thread when the log is read again."""
        self._dropped, self._blocked = self.dropped, False
        text = f"{lines} log lines are missing here: the log was not read"
        return self._line(Event(0, self._at(), "warning", "log-lines-dropped", text, {"lines": str(lines)}))

    def _at(self) -> str:
        now = self._wall()
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"

    def _print(self, event: Event) -> None:
        try:
            self._stream.write(self._line(event))
            self._stream.flush()
        except (OSError, ValueError):
            pass  # stderr is closed; the node keeps running

    def after(self, last_id: int) -> list[Event]:
        """The kept events with a greater id."""
        if not self.recent or self.recent[-1].id <= last_id:
            return []
        return [event for event in self.recent if event.id > last_id]

    @property
    def last_id(self) -> int:
        return self._next - 1

    async def wait(self) -> None:
        """Returns when there is a new event."""
        await self._more.wait()


def _printable(text: str) -> str:
    """Escapes control characters: names come from other machines and must not control the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
