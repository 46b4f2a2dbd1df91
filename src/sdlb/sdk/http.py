"""What both clients need of httpx: a transport to the node's Unix socket, and its failures as `Unreachable`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import httpx

from sdlb.sdk.calls import CONNECT_TIMEOUT_S, Call
from sdlb.sdk.problem import Unreachable
from sdlb.sdk.sse import Parser

T = TypeVar("T")

BASE_URL = "http://localhost"
RETRY_FIRST_S, RETRY_MAX_S = 0.2, 5.0


def transport(socket: str) -> httpx.HTTPTransport:
    """Used as it is, without `httpx.Client`: that one logs every request, thus every renewal, to the program's log."""
    # verify=False: there is no TLS on a Unix socket, and loading the system's certificates takes longer than most calls
    return httpx.HTTPTransport(uds=socket, verify=False)


def async_transport(socket: str) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(uds=socket, verify=False)


def request(call: Call[T], more: Mapping[str, str]) -> httpx.Request:
    return httpx.Request(
        call.method,
        BASE_URL + call.path,
        params=call.params,
        content=call.content(),
        headers={**({"content-type": "application/json"} if call.body is not None else {}), **call.headers, **more},
        extensions={"timeout": httpx.Timeout(call.timeout_s, connect=CONNECT_TIMEOUT_S).as_dict()},
    )


def events_request(parser: Parser, *, follow: bool) -> httpx.Request:
    """The response has no timeout: there may be no event for a long time."""
    return httpx.Request(
        "GET",
        BASE_URL + "/v1/events",
        params={} if follow else {"follow": "0"},
        headers=parser.headers(),
        extensions={"timeout": httpx.Timeout(None, connect=CONNECT_TIMEOUT_S).as_dict()},
    )


def unreachable(socket: str, error: httpx.TransportError) -> Unreachable:
    """The reason, from the system's message ("No such file or directory") where there is one."""
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(socket, "it accepts connections but does not answer", hangs=True)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return Unreachable(socket, cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return Unreachable(socket, str(error) or "the connection broke")
