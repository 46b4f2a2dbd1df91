"""The part of the Docker Engine API that the driver `container` needs, over the engine's Unix socket. Podman offers the same API.

Paths without a version: Docker and Podman support different ranges of versions, and what is used here is the same in all of
them. One connection for each request: engines restart, and Podman's exits when it is idle.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from sdlb.adapters.hook_program import printable
from sdlb.adapters.http_client import read_start
from sdlb.adapters.supervisor import files
from sdlb.seams.driver import DriverFailed

if TYPE_CHECKING:
    import httpx

BYTES_MAX = 4 << 20
TIMEOUT_S = 60.0
SHOWN_CHARS = 400
T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def text(self) -> str:
        """The engine's own words about a failure."""
        try:
            found: Any = json.loads(self.body)
            words = str(found["message"])
        except (ValueError, KeyError, TypeError):
            words = self.body[-SHOWN_CHARS:].decode("utf-8", "replace")
        return shown(words) or f"status {self.status}"


class ContainerState(msgspec.Struct, rename="pascal"):
    status: str = ""
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)


class ContainerConfig(msgspec.Struct, rename="pascal"):
    labels: dict[str, str] | None = None


class Inspected(msgspec.Struct, rename="pascal"):
    """A container."""

    id: str
    state: ContainerState
    config: ContainerConfig
    restart_count: int = 0


class _Progress(msgspec.Struct):
    error: str = ""


class ContainerApi:
    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def inspect(self, name: str) -> Inspected | None:
        answer = await self.call("GET", f"/containers/{quote(name)}/json")
        if answer.status == 404:
            return None
        self._check(answer, f"the state of {name} cannot be read")
        try:
            return msgspec.json.decode(answer.body, type=Inspected)
        except msgspec.DecodeError as error:
            text = f"{self._socket} has not answered as a container engine does ({error})"
            raise DriverFailed("machine", text, retry=False) from None

    async def has_image(self, image: str) -> bool:
        answer = await self.call("GET", f"/images/{quote(image, safe='/:@')}/json")
        if answer.status != 404:
            self._check(answer, f"the image {image} cannot be looked up")
        return answer.ok

    async def pull(self, image: str, timeout_s: float) -> str:
        """What the engine says when it fails; "": the image is there."""
        async with self._request("POST", "/images/create", {"fromImage": image}, None, timeout_s) as response:
            if response.status_code >= 400:
                return Answer(response.status_code, await _body(response)).text
            error = ""
            async for line in response.aiter_lines():  # of progress, the failure among them
                try:
                    error = msgspec.json.decode(line, type=_Progress).error or error
                except msgspec.DecodeError:
                    continue
        return shown(error)

    async def log(self, name: str) -> tuple[str, ...]:
        """The last lines of the program; () if the engine does not have them."""
        query = {"stdout": "1", "stderr": "1", "tail": str(files.LINES_MAX)}
        answer = await self.call("GET", f"/containers/{quote(name)}/logs", query)
        return tuple(files.last_lines(_without_frames(answer.body)[-files.TAIL_BYTES :])) if answer.ok else ()

    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        """Raises DriverFailed only if the engine does not answer."""
        async with self._request(method, path, query or {}, body, timeout_s) as response:
            return Answer(response.status_code, await _body(response))

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, query: Mapping[str, str], body: object, timeout_s: float
    ) -> AsyncGenerator[httpx.Response]:
        import httpx

        content = None if body is None else json.dumps(body).encode()
        request = httpx.Request(
            method,
            f"http://localhost{path}{'?' if query else ''}{urlencode(query)}",
            headers={"content-type": "application/json", "connection": "close"},
            content=content,
            extensions={"timeout": httpx.Timeout(timeout_s, connect=TIMEOUT_S).as_dict()},
        )
        try:
            async with httpx.AsyncHTTPTransport(uds=self._socket, verify=False) as transport:
                response = await transport.handle_async_request(request)
                try:
                    yield response
                finally:
                    await response.aclose()
        except httpx.TimeoutException:
            text = f"{self._socket} has not answered {method} {path} within {timeout_s:g} s"
            raise DriverFailed("machine", text, retry=True) from None
        except httpx.TransportError as error:
            self._unreachable(error)

    def _unreachable(self, error: Exception) -> NoReturn:
        why: BaseException | None = error
        while why is not None and not isinstance(why, OSError):
            why = why.__cause__ or why.__context__
        if isinstance(why, PermissionError):
            text = (
                f"user {os.geteuid()} may not use {self._socket}; run the node as root, or as a user that the container "
                "engine permits (that user is as powerful as root)"
            )
            raise DriverFailed("machine", text, retry=False) from None
        reason = why.strerror if why is not None and why.strerror else str(error) or type(error).__name__
        text = (
            f"no container engine answers at {self._socket} ({reason}); start Docker or Podman, or correct `socket` in the node "
            "file (Podman: /run/podman/podman.sock)"
        )
        raise DriverFailed("machine", text, retry=True) from None

    @staticmethod
    def _check(answer: Answer, what: str) -> None:
        if not answer.ok:
            raise DriverFailed("machine", f"{what}: {answer.text}", retry=True)


async def _body(response: httpx.Response) -> bytes:
    return await read_start(response.aiter_bytes(), BYTES_MAX)


def shown(text: str) -> str:
    return printable(text)[:SHOWN_CHARS]


def _without_frames(content: bytes) -> bytes:
    """Output without a terminal comes in frames: the stream's number, three zeros, and the length in four bytes."""
    found, at = b"", 0
    while len(content) >= at + 8 and content[at] in (0, 1, 2) and content[at + 1 : at + 4] == b"\0\0\0":
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8])
        found += content[at + 8 : end]
        at = end
    return found if at else content
