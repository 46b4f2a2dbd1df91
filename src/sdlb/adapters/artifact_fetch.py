"""Copies an artifact's file to this machine, only from the places that the node file permits, and hashes what was copied.

A redirect is followed only to a permitted place. Size and time are bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from msgspec import Struct

from sdlb.adapters.hook_program import printable
from sdlb.adapters.http_client import error_text, load_http, new_client
from sdlb.adapters.regular_file import NotRegular, open_regular
from sdlb.model.location import Location, parse_location
from sdlb.model.role import ArtifactRules
from sdlb.seams.driver import DriverFailed

REDIRECTS_MAX = 5
SILENCE_S = 30.0
CHUNK = 1 << 20
AGAIN = frozenset((408, 425, 429))


class Copied(Struct, frozen=True):
    """`blake2b`: BLAKE2b-512, which prehashed signatures are made over."""

    size: int
    sha256: str
    blake2b: bytes


def artifact_failed(text: str, *, retry: bool = False) -> NoReturn:
    raise DriverFailed("artifact", text, retry=retry)


def permitted(url: str, rules: ArtifactRules) -> Location:
    """Raises DriverFailed."""
    try:
        found = parse_location(url)
    except ValueError as error:
        artifact_failed(f"{printable(url)[:200]} is not usable: expected {error}")
    if not any(source.permits(found) for source in rules.sources):
        known = ", ".join(map(str, rules.sources)) or "nowhere"
        artifact_failed(f"{found} is not below a prefix in `from` of the node file ({known})")
    return found


class Fetcher:
    """Keeps the HTTP client's certificates; they take 0.2 s to load."""

    def __init__(self) -> None:
        self._http: tuple[Any, Any] | None = None

    async def copy(self, place: Location, rules: ArtifactRules, to: Path, bytes_max: int) -> Copied:
        """`place`: permitted. Raises DriverFailed, or OSError for `to`."""
        try:
            async with asyncio.timeout(rules.timeout_s):
                if place.scheme == "file":
                    return await asyncio.to_thread(copy_file, Path(place.path), to, bytes_max)
                return await self._download(place, rules, to, bytes_max)
        except TimeoutError:
            artifact_failed(f"{place} could not be fetched within {rules.timeout_s:g} s", retry=True)

    async def _download(self, place: Location, rules: ArtifactRules, to: Path, bytes_max: int) -> Copied:
        if self._http is None:
            self._http = await asyncio.to_thread(load_http)
        httpx, tls = self._http
        headers = {"accept-encoding": "identity", "user-agent": "sdlb-artifact"}
        try:
            async with new_client(tls, SILENCE_S) as client:
                for _ in range(REDIRECTS_MAX + 1):
                    async with client.stream("GET", str(place), headers=headers) as answer:
                        if not answer.is_redirect:
                            return await _save(answer, place, to, bytes_max)
                        target = httpx.URL(str(place)).join(answer.headers.get("location", ""))
                    place = permitted(str(target), rules)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            artifact_failed(f"{place} could not be fetched: {error_text(error, 300)}", retry=True)
        artifact_failed(f"{place} leads to more than {REDIRECTS_MAX} redirects")


async def _save(answer: Any, place: Location, to: Path, bytes_max: int) -> Copied:
    if answer.status_code != 200:
        again = answer.status_code >= 500 or answer.status_code in AGAIN
        artifact_failed(f"{place} answered {answer.status_code}", retry=again)
    if answer.headers.get("content-encoding", "identity") != "identity":
        artifact_failed(f"{place} answered with a content encoding, which was not asked for")
    declared = answer.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > bytes_max:
        _too_large(place, bytes_max)
    with to.open("xb") as file:
        copy = _Copy(file, place, bytes_max)
        async for chunk in answer.aiter_raw(CHUNK):
            await asyncio.to_thread(copy.add, chunk)
        return copy.result()


def copy_file(source: Path, to: Path, bytes_max: int) -> Copied:
    """Raises DriverFailed for the source, OSError for `to`."""
    try:
        opened = open_regular(source)
    except NotRegular:
        artifact_failed(f"{source} is not a file")
    except OSError as error:
        artifact_failed(f"{source} cannot be read ({error.strerror})", retry=error.errno not in (2, 13, 20))
    with opened, to.open("xb") as out:
        copy = _Copy(out, source, bytes_max)
        while chunk := opened.read(CHUNK):
            copy.add(chunk)
        return copy.result()


class _Copy:
    def __init__(self, out: BinaryIO, source: object, bytes_max: int) -> None:
        self._out, self._source, self._bytes_max = out, source, bytes_max
        self._size = 0
        self._sha256, self._blake2b = hashlib.sha256(), hashlib.blake2b()

    def add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._bytes_max:
            _too_large(self._source, self._bytes_max)
        self._sha256.update(chunk)
        self._blake2b.update(chunk)
        self._out.write(chunk)

    def result(self) -> Copied:
        self._out.flush()
        return Copied(self._size, self._sha256.hexdigest(), self._blake2b.digest())


def _too_large(source: object, bytes_max: int) -> NoReturn:
    artifact_failed(f"{source} is larger than artifact_mb_max ({bytes_max >> 20} MiB)")
