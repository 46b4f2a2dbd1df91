"""Server-sent events (WHATWG HTML, "9.2.6 Interpreting an event stream"), as far as `/v1/events` uses them. No I/O."""

from __future__ import annotations

import msgspec

from sdlb.sdk.types import Event


class Parser:
    """Lines in, events out, over any number of connections. `opened`: a connection has succeeded."""

    def __init__(self) -> None:
        self.opened = False
        self._last_id = ""
        self._data: list[str] = []

    def headers(self) -> dict[str, str]:
        """The header fields for the next connection; drops an incomplete event of the last one."""
        self._data = []
        headers = {"accept": "text/event-stream"}
        if self._last_id:
            headers["last-event-id"] = self._last_id
        return headers

    def line(self, line: str) -> Event | None:
        """Takes one line without its end; gives an event when the line completes one."""
        if line == "":
            data, self._data = self._data, []
            return msgspec.json.decode("\n".join(data), type=Event, strict=False) if data else None
        if line.startswith(":"):
            return None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._last_id = value
        return None
