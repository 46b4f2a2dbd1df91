"""Answers of HTTP/1.1 on a connection that is used again."""

from __future__ import annotations

import socket
from http.client import HTTPResponse


def status(client: socket.socket, method: str = "GET") -> int:
    """Of the next answer, which is read to its end: one `recv` may give a part of it. Raises ConnectionResetError when the
    connection ends before."""
    answer = HTTPResponse(client, method=method)
    answer.begin()
    answer.read()
    return answer.status
