"""Large reads in slices: a list of 10,000 services takes a quarter of a second, and decisions must not wait for it.

A read first lists the names of its entries. It then makes and encodes the entries one by one. When `SLICE_S` is used
up, the loop runs; if it has something to decide, the read waits until that is done (at most for `YIELD_S`: a disk that
hangs must not stop reads). So a list is not a snapshot, but every entry is correct when it is made, and an entry that
was removed meanwhile is left out. Encoded lists have one entry a line, so that a reader can split them in slices too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sdlb.core.view import View
from sdlb.model.route import Pattern
from sdlb.model.shadow import shadows
from sdlb.node.lists import Lists

SLICE_S = 0.003
YIELD_S = 0.01
Quiet = Callable[[float], Awaitable[None]]
"""Returns when no decision is in progress, at the latest after the given seconds (`NodeLoop.quiet`)."""
OPEN, BETWEEN, CLOSE = b"[\n", b",\n", b"\n]"
BLOCK_BYTES = 64 * 1024


class Pace:
    """`await pause()` between two steps: the loop runs once whenever a slice is used up."""

    def __init__(self, quiet: Quiet, slice_s: float = SLICE_S, clock: Callable[[], float] = time.perf_counter) -> None:
        self._quiet = quiet
        self._slice_s = slice_s
        self._clock = clock
        self._until = clock() + slice_s

    @property
    def over(self) -> bool:
        return self._clock() >= self._until

    async def pause(self) -> None:
        if self.over:
            await asyncio.sleep(0)
            await self._quiet(YIELD_S)
            self._until = self._clock() + self._slice_s


# ------------------------------------------------------------------ encoded lists


async def encoded(values: AsyncIterator[Mapping[str, Any]]) -> list[bytes]:
    """Encodes each entry as JSON without line breaks."""
    return [msgspec.json.encode(value) async for value in values]


def pieces(head: Mapping[str, object], **lists: Sequence[bytes]) -> list[bytes]:
    """The parts of a JSON object: the fields of `head`, then lists whose entries are already encoded."""
    found = [msgspec.json.encode(head)[:-1]]
    for name, entries in lists.items():
        found.append(b'%s"%s":%s' % (b"" if found == [b"{"] else b",", name.encode(), OPEN if entries else b"["))
        for entry in entries:
            found += (entry, BETWEEN)
        if entries:
            found[-1] = CLOSE
        else:
            found.append(b"]")
    found.append(b"}")
    return found


def document(head: Mapping[str, object], **lists: Sequence[bytes]) -> bytes:
    return b"".join(pieces(head, **lists))


async def blocks(found: Sequence[bytes], pace: Pace) -> AsyncIterator[bytes]:
    """The pieces, joined to chunks that are large enough for one write each."""
    start = size = 0
    for end, piece in enumerate(found, 1):
        size += len(piece)
        if size >= BLOCK_BYTES:
            yield b"".join(found[start:end])
            start, size = end, 0
            await pace.pause()
    yield b"".join(found[start:])


def entries_of(content: bytes, name: str) -> list[bytes]:
    """The entries of the only list of `document({}, name=...)`, still encoded. Raises msgspec.DecodeError."""
    start, end = b'{"%s":%s' % (name.encode(), OPEN), CLOSE + b"}"
    if content.startswith(start) and content.endswith(end):
        entries = content.split(BETWEEN)
        entries[0] = entries[0][len(start) :]
        entries[-1] = entries[-1][: -len(end)]
        return entries
    # The list is short, or an older release wrote it in one line.
    found = msgspec.json.decode(content, type=dict[str, list[msgspec.Raw]]).get(name, [])
    return [bytes(entry) for entry in found]


# ------------------------------------------------------------------ the lists


Entry = Callable[[str], dict[str, Any] | None]


def services(view: View, pace: Pace) -> AsyncIterator[dict[str, Any]]:
    return _each(view.service_names(), view.service, pace)


def releases(view: View, pace: Pace) -> AsyncIterator[dict[str, Any]]:
    return _each(view.release_names(), view.release, pace)


def instances(view: Lists, pace: Pace) -> AsyncIterator[dict[str, Any]]:
    return _each(view.instance_ids(), view.instance, pace)


def children(view: Lists, pace: Pace) -> AsyncIterator[dict[str, Any]]:
    return _each(view.child_names(), view.child, pace)


async def routes(view: Lists, pace: Pace) -> AsyncIterator[dict[str, Any]]:
    """The routes, most specific first. A thread finds out which pattern shadows which, from a copy of the patterns."""
    order, below, above = await asyncio.to_thread(_shadows, view.route_texts())

    def entry(text: str) -> dict[str, Any] | None:
        return view.route(text, below.get(text, ()), above.get(text, ()))

    async for found in _each(order, entry, pace):
        yield found


async def _each(names: Iterable[str], entry: Entry, pace: Pace) -> AsyncIterator[dict[str, Any]]:
    """`entry` returns None for a name that was removed meanwhile."""
    for name in names:
        found = entry(name)
        if found is not None:
            yield found
        await pace.pause()


def _shadows(texts: Iterable[str]) -> tuple[list[str], dict[str, list[str]], dict[str, list[str]]]:
    patterns = sorted(map(Pattern.parse, texts), key=lambda pattern: pattern.specificity, reverse=True)
    below = {str(winner): sorted(map(str, losers)) for winner, losers in shadows(patterns).items()}
    above: dict[str, list[str]] = {}
    for winner, losers in below.items():
        for loser in losers:
            above.setdefault(loser, []).append(winner)
    return [str(pattern) for pattern in patterns], below, {text: sorted(found) for text, found in above.items()}
