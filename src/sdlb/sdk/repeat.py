"""When a write is sent again because its connection broke: with the same `Idempotency-Key`, so that it is done once. No I/O.

Control may have been killed or restarted before, while or after it carried the request out. A node that cannot be connected to at first, or
that does not answer in time, is reported at once: waiting is the caller's decision.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import httpx

from sdlb.sdk.calls import Call, problem

HEADER: Final = "idempotency-key"
AGAIN_S: Final = 10.0
"""A restart of control takes a second."""
PAUSE_S: Final = 0.2
PASSING: Final = ("key-in-use", "no-root")
"""The first request is still in progress; the node has just started, and is not connected to its parents yet."""


class Repeat:
    """Of one call. `headers`: for each of its requests."""

    def __init__(self, call: Call[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self.headers = {HEADER: uuid.uuid4().hex} if call.keyed else {}
        self._clock = clock
        self._broken_at: float | None = None

    def after_error(self, error: httpx.TransportError) -> bool:
        """Whether to send it again, in PAUSE_S."""
        if not self.headers or isinstance(error, httpx.TimeoutException):
            return False
        if self._broken_at is None:
            if isinstance(error, httpx.ConnectError):
                return False
            self._broken_at = self._clock()
        return self._clock() < self._broken_at + AGAIN_S

    def after_answer(self, status: int, content: bytes) -> bool:
        """As above."""
        if self._broken_at is None or status < 400 or problem(status, content).code not in PASSING:
            return False
        return self._clock() < self._broken_at + AGAIN_S
