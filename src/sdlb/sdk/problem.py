"""What a client raises: every error of the local API is one `Problem` (RFC 9457)."""

from __future__ import annotations

import errno
import os

BASE = "https://sdlb.dev/problems/"
_FORBIDDEN = (os.strerror(errno.EACCES), os.strerror(errno.EPERM))


class Problem(Exception):
    """A call was refused or failed, and nothing of it was done unless `status` is 5xx.

    `type` is the stable URI, `code` its last part, `status` the HTTP status (0: no node was reached), `detail` one
    sentence for people: where, what, what to do.
    """

    def __init__(self, type: str, status: int, detail: str, title: str = "") -> None:
        super().__init__(detail)
        self.type = type
        self.status = status
        self.detail = detail
        self.title = title

    @property
    def code(self) -> str:
        return self.type.rsplit("/", 1)[-1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.status}, {self.detail!r})"


class Unreachable(Problem):
    """No node answers at the socket: none runs, its control is just restarting, or the path is another node's.

    `hangs`: a process accepts connections there but does not answer.
    """

    def __init__(self, socket: str, why: str, *, hangs: bool = False) -> None:
        text = f"no node answers at {socket} ({why})"
        do = "start one with 'sdlb node', or give its socket with --socket or SDLB_SOCKET"
        if why in _FORBIDDEN:
            text = f"this user has no access to the socket {socket} ({why})"
            do = 'use the user that runs the node, or grant a group access with listen.socket_mode = "0660"'
        elif hangs:
            do = "its control hangs, is stopped or is overloaded; see the node's log (its engine keeps serving)"
        super().__init__(BASE + "node-unreachable", 0, f"{text}; {do}", "No node reached")
        self.socket = socket
        self.why = why
