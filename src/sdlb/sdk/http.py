"""What both clients need of httpx: a transport to the node's Unix socket, and its failures as `Unreachable`."""

from __future__ import annotations

import httpx

from sdlb.sdk.calls import CONNECT_TIMEOUT_S
from sdlb.sdk.problem import Unreachable

BASE_URL = "http://localhost"
RETRY_FIRST_S, RETRY_MAX_S = 0.2, 5.0


def timeout(read_s: float | None) -> httpx.Timeout:
    return httpx.Timeout(read_s, connect=CONNECT_TIMEOUT_S)


def transport(socket: str) -> httpx.HTTPTransport:
    # verify=False: there is no TLS on a Unix socket, and loading the system's certificates takes longer than most calls
    return httpx.HTTPTransport(uds=socket, verify=False)


def async_transport(socket: str) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(uds=socket, verify=False)


def unreachable(socket: str, error: httpx.TransportError) -> Unreachable:
    """Says why in the system's words ("No such file or directory") where there are any."""
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(socket, "something listens there, but it does not answer")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return Unreachable(socket, cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return Unreachable(socket, str(error) or "the connection broke")
