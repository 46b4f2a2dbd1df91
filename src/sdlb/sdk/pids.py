"""Whether the node sees this process under the same process id (a container has its own namespace)."""

from __future__ import annotations

import socket as sockets
import struct

_PEERCRED = getattr(sockets, "SO_PEERCRED", 17)
_UCRED = struct.Struct("iII")  # pid, uid, gid: struct ucred of unix(7)


def visible_pid(socket: str, pid: int) -> int:
    """`pid` when the node at `socket` lives in this process-id namespace, else 0: the process is not watched.

    A node in another namespace shows as process 0 (unix(7), SO_PEERCRED); it would watch an unrelated process.
    """
    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(socket)
            peer, _, _ = _UCRED.unpack(probe.getsockopt(sockets.SOL_SOCKET, _PEERCRED, _UCRED.size))
    except OSError:
        return pid
    return pid if peer != 0 else 0
