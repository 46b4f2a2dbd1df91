"""Streams to parents and from children (`Tree.Link`, proto/tree.proto). None of these methods waits.

Implementations hand in `ParentConnected`, `ParentMessage`, `ParentClosed`, `ChildConnected`, `ChildMessage` and
`ChildClosed` (core/events.py). After `hang_up` or `drop` no further event of that stream comes.
"""

from __future__ import annotations

from typing import Protocol

from sdlb.core.messages import DownMessage, UpMessage


class ParentLinks(Protocol):
    def dial(self, parent: str) -> None:
        """Answered by ParentConnected or ParentClosed. An open stream to the same parent is closed first."""
        ...

    def send(self, parent: str, message: UpMessage) -> None:
        """Dropped when no stream is open; a parent that reads nothing is hung up (ParentClosed)."""
        ...

    def hang_up(self, parent: str) -> None: ...

    async def close(self) -> None:
        """Sends what is queued (bounded in time), then closes all streams."""
        ...


class ChildLinks(Protocol):
    def send(self, link: int, message: DownMessage) -> None:
        """Dropped when the link is gone; a child that reads nothing is dropped (ChildClosed)."""
        ...

    def drop(self, link: int) -> None:
        """Closes the link after what was sent before has gone out."""
        ...

    async def close(self) -> None: ...
