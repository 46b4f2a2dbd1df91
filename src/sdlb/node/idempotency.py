"""Requests with an `Idempotency-Key`: a repeated one gets the first answer, and nothing is done twice.

As in draft-ietf-httpapi-idempotency-key-header: a key belongs to one user and one request. It is kept for a day, at the node that got
the request, also over a restart of control (`repeats_file.py`). An error is not kept: such a request is carried out again.

That a request is carried out is on disk before it begins, and its answer before it is sent. If control is killed in between, nobody knows
whether it was done: a repeated PUT or DELETE is carried out again, which changes nothing, and a POST is refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final

from msgspec import Struct, structs
from starlette.requests import Request
from starlette.responses import Response

from sdlb.node.problems import Refusal
from sdlb.node.repeats_file import Entry, RepeatsFile
from sdlb.node.requests import BODY_BYTES_MAX, body_of

HEADER: Final = "idempotency-key"
KEY: Final = re.compile(r"^[!-~]{1,255}\Z")
KEPT_S: Final = 86_400.0
KEYS_MAX: Final = 1000
BYTES_MAX: Final = 8 * 1024 * 1024
"""Of all kept answers. Beyond either maximum, the oldest answers are forgotten."""
Name = tuple[int, str]
Handler = Callable[[Request], Awaitable[Response]]


class _Kept(Struct):
    """`lost`: a former control has not told how it ended."""

    entry: Entry
    lost: bool = False

    @property
    def size(self) -> int:
        return len(self.entry.answer)


class Repeats:
    """`file`: where keys are kept over restarts of control; None: nowhere."""

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = RepeatsFile(file) if file is not None else None
        self._kept: dict[Name, _Kept] = {}  # the oldest first
        for entry in self._file.load() if self._file is not None else ():
            self._kept[entry.uid, entry.key] = _Kept(entry, lost=not entry.status)
        self._bytes = sum(kept.size for kept in self._kept.values())

    async def answer(self, request: Request, handler: Handler, body_max: int = BODY_BYTES_MAX) -> Response:
        """Raises Refusal, and whatever the handler raises."""
        text = request.headers.get(HEADER)
        if text is None:
            return await handler(request)
        if not KEY.match(text):
            raise Refusal("bad-query", f"Idempotency-Key is {text[:40]!r}; use 1 to 255 visible ASCII characters")
        name = (getattr(request.state, "uid", -1), text)
        digest = await _digest(request, body_max)
        self._forget_old()
        known = self._kept.get(name)
        if known is not None and not (known.lost and known.entry.request == digest and request.method != "POST"):
            return _repeated(known, digest, text)
        return await self._first(request, handler, Entry(*name, digest, self._clock()))

    async def _first(self, request: Request, handler: Handler, entry: Entry) -> Response:
        name = (entry.uid, entry.key)
        self._kept.pop(name, None)  # one that is lost: the oldest are first
        self._kept[name] = _Kept(entry)
        if not await self._write(entry):
            del self._kept[name]
            why = "the Idempotency-Key cannot be written to disk, and nothing was done"
            raise Refusal("not-written", f"{why}; free space, or repeat the request without a key")
        try:
            done = await handler(request)
        except Exception:
            await self._forget(name)
            raise
        except BaseException:  # control stops, and perhaps it was done
            self._kept[name].lost = True
            raise
        if done.status_code >= 400:
            await self._forget(name)
            return done
        entry = structs.replace(
            entry, answer=bytes(done.body), status=done.status_code, media_type=done.media_type or ""
        )
        self._kept[name] = _Kept(entry)
        self._bytes += len(entry.answer)
        await self._write(entry)
        self._forget_old()
        return done

    async def _forget(self, name: Name) -> None:
        kept = self._kept.pop(name)
        await self._write(structs.replace(kept.entry, gone=True))

    async def _write(self, entry: Entry) -> bool:
        return self._file is None or await self._file.append(entry, lambda: [k.entry for k in self._kept.values()])

    def _forget_old(self) -> None:
        """Requests in progress stay; their number is that of the connections."""
        oldest = self._clock() - KEPT_S
        for name, kept in list(self._kept.items()):
            full = len(self._kept) > KEYS_MAX or self._bytes > BYTES_MAX
            if kept.entry.since > oldest and not full:
                return
            if kept.entry.status or kept.lost:
                self._bytes -= kept.size
                del self._kept[name]


async def _digest(request: Request, body_max: int) -> bytes:
    content, match = await body_of(request, body_max), request.headers.get("if-match", "")
    target = f"{request.method} {request.url.path}?{request.url.query}\n{match}\n"
    return blake2b(target.encode() + content, digest_size=16).digest()


def _repeated(known: _Kept, digest: bytes, text: str) -> Response:
    entry = known.entry
    if entry.request != digest:
        raise Refusal(
            "key-reused", f"Idempotency-Key {text[:40]!r} belongs to another request; use a new key for this one"
        )
    if known.lost:
        lost = f"control stopped while it carried out the request with Idempotency-Key {text[:40]!r}"
        raise Refusal("outcome-unknown", f"{lost}; look whether it was done, and use a new key if not")
    if not entry.status:
        raise Refusal(
            "key-in-use", f"the first request with Idempotency-Key {text[:40]!r} is in progress; repeat it later"
        )
    return Response(entry.answer, entry.status, media_type=entry.media_type or None)
