"""`hooks`: gunicorn's master process registers its workers as one instance, and drains it before it closes its sockets.

In gunicorn.conf.py:

    from sdlb.sdk.gunicorn import hooks

    bind = "127.0.0.1:8001"
    when_ready, on_exit = hooks("catalog-1.0.1", routes=["example.com/catalog*"])

SIGTERM is held back until the instance is drained, then passed to gunicorn; a second one is passed immediately.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from sdlb.sdk.listening import endpoint_of
from sdlb.sdk.serving import Serving, serve

log = logging.getLogger("sdlb")
Hook = Callable[[Any], None]
ENDING = (signal.SIGTERM, signal.SIGINT)


def hooks(name_version: str | tuple[str, str], **fields: Any) -> tuple[Hook, Hook]:
    """(when_ready, on_exit). Takes what `serve` takes; without `port` and `endpoint`: gunicorn's first socket."""
    master = _Master(name_version, fields)
    return master.when_ready, master.on_exit


class _Master:
    def __init__(self, name_version: str | tuple[str, str], fields: dict[str, Any]) -> None:
        self._name_version = name_version
        self._fields = fields
        self._serving: Serving | None = None
        self._pid = 0
        self._before: dict[int, Any] = {}
        self._draining: threading.Thread | None = None

    def when_ready(self, server: Any) -> None:
        fields = dict(self._fields)
        if "port" not in fields and "endpoint" not in fields:
            fields["endpoint"] = endpoint_of(server.LISTENERS[0].sock)
        self._pid = os.getpid()
        self._serving = serve(self._name_version, **fields)
        self._serving.__enter__()
        for number in ENDING:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._on_signal)

    def on_exit(self, server: Any) -> None:
        if os.getpid() == self._pid:
            self._leave()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid or self._draining is not None:  # a forked worker, or already draining
            self._before[number](number, frame)
            return
        self._draining = threading.Thread(target=self._drain, args=(number,), name="sdlb-drain", daemon=True)
        self._draining.start()

    def _drain(self, number: int) -> None:
        try:
            self._leave()
        finally:
            os.kill(self._pid, number)

    def _leave(self) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.__exit__(None, None, None)
