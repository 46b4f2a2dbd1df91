"""Interfaces to the streams to parents and from children (`Tree.Link`, proto/tree.proto). Only `close` waits.

Implementations report `ParentConnected`, `ParentMessage`, `ParentClosed`, `ChildConnected`, `ChildMessage` and
`ChildClosed` (core/events.py). After `hang_up` or `drop` they report nothing more about that stream.
"""

from __future__ import annotations

from typing import Protocol

from sdlb.core.messages import DownMessage, UpMessage


class ParentLinks(Protocol):
    def dial(self, parent: str) -> None:
        """Opens a stream; ParentConnected or ParentClosed follows. An open stream to the same parent is closed first."""
        ...

    def send(self, parent: str, message: UpMessage) -> None:
        """Queues a message. It is dropped when no stream is open. A stream whose queue is full is closed (ParentClosed)."""
        ...

    def hang_up(self, parent: str) -> None: ...

    async def close(self) -> None:
        """Sends what is queued, for a limited time, then closes all streams."""
        ...


class ChildLinks(Protocol):
    def send(self, link: int, message: DownMessage) -> None:
        """Queues a message. It is dropped when the link is closed. A link whose queue is full is closed (ChildClosed)."""
        ...

    def drop(self, link: int) -> None:
        """Closes the link after the queued messages have been sent."""
        ...

    async def close(self) -> None: ...
