"""Counts what the instances of this host answered in each block, while a rollout with an analysis is in progress.

The engine's totals only grow, also over its restarts, so a block is the difference between two samples. The first sample of a service is
taken when its rollout begins: what came before it belongs to no block, and its first block is only the rest of one. So a version that
fails at once is found at the end of that block. A block that cannot be told apart, because the clock jumped or control did not run, is left
out; no count is ever in two blocks.

gRPC: the engine counts the calls that instances answered with a status of GRPC_ERRORS. One of an older release does not. It counts
statuses by request, and those that it answered itself among them. These are attempts that broke or reached nobody, which count as errors
already, so they are subtracted; with child nodes or other requests besides gRPC, that is an estimate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from sdlb.core.events import Event, FiguresCounted
from sdlb.core.figures import Analysed
from sdlb.model.canary import BLOCK_S, Figures, block_of
from sdlb.seams.engine import EngineStats, GroupTotals, InstanceTotals

GRPC_ERRORS: Final = (2, 4, 12, 13, 14, 15)
LATE_S: Final = 0.01
"""After the end of a block, so that a timer that fires a little early does not find the block still going on."""
Totals = Mapping[tuple[str, str], GroupTotals]


class Sample(Struct, frozen=True):
    """At the beginning of the block, or where counting began in it. `totals`: of all versions of these services."""

    block: int
    analysed: Mapping[str, Analysed]
    totals: Totals


class FigureCounter:
    def __init__(
        self,
        analysed: Callable[[], list[Analysed]],
        stats: Callable[[], EngineStats],
        post: Callable[[Event], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._analysed = analysed
        self._stats = stats
        self._post = post
        self._wall = wall
        self._timer: asyncio.TimerHandle | None = None
        self._before: Sample | None = None

    def look(self) -> None:
        """After each iteration of the loop: there may be something to count from now on."""
        analysed = self._analysed()
        before = self._before or Sample(-1, {}, {})
        if new := {each.service: each for each in analysed if each.service not in before.analysed}:
            self._begin(new)
        if self._timer is None and analysed:
            self._wait()

    def _begin(self, new: Mapping[str, Analysed]) -> None:
        """The rest of this block counts too."""
        block, stats = block_of(self._wall()), self._stats()
        before = self._before or Sample(block, {}, {})
        if before.block == block and stats.counters:  # else its end is due
            totals = {key: total for key, total in stats.groups.items() if key[0] in new}
            self._before = Sample(block, {**before.analysed, **new}, {**before.totals, **totals})

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        """Until the end of the current block."""
        left_s = BLOCK_S - self._wall() % BLOCK_S
        self._timer = asyncio.get_running_loop().call_later(left_s + LATE_S, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self.take():
            self._wait()

    def take(self) -> bool:
        """A block has ended, or almost. Returns whether there is still something to count."""
        block, before = block_of(self._wall()), self._before
        if before is not None and block == before.block:
            return True  # the clock was set back a little: this block takes longer
        analysed, stats = {each.service: each for each in self._analysed()}, self._stats()
        totals = {key: total for key, total in stats.groups.items() if key[0] in analysed}
        if before is not None and block == before.block + 1:
            for service in before.analysed:
                figures = _of_service(before, analysed.get(service), stats.groups, service)
                self._post(FiguresCounted(service, before.block, figures))
        # A control that has just started has no statistics yet, and would take all that was ever counted for one block.
        self._before = Sample(block, analysed, totals) if analysed and stats.counters else None
        return bool(analysed)


def _of_service(before: Sample, now: Analysed | None, totals: Totals, service: str) -> dict[str, Figures]:
    """Of the versions that had an instance here at the beginning or at the end of the block."""
    both = [each for each in (before.analysed[service], now) if each is not None]
    figures: dict[str, Figures] = {}
    for version in sorted({version for each in both for version in each.versions}):
        key = (service, version)
        counted = figures_of(before.totals.get(key), totals.get(key))
        if counted is not None:
            is_early = any(version in each.early for each in both)
            figures[version] = Figures(0, 0, 0, {}, counted.asked, counted.errors, 1) if is_early else counted
    return figures


def figures_of(before: GroupTotals | None, after: GroupTotals | None) -> Figures | None:
    """The difference. None: the engine's totals were lost in between."""
    old, new = before or GroupTotals(), after or GroupTotals()
    was, now = old.at_instances or InstanceTotals(), new.at_instances or InstanceTotals()
    answers = [_at(now.answers, place) - _at(was.answers, place) for place in range(5)]
    heads = [count - _at(was.heads, bucket) for bucket, count in enumerate(now.heads)]
    missed = now.broken - was.broken + now.unreached - was.unreached
    if min(*answers, *heads, missed, 0) < 0:
        return None
    errors = answers[4] + missed + max(0, min(_by_grpc(old, new), answers[1]))
    head = {bucket: count for bucket, count in enumerate(heads) if count}
    return Figures(sum(answers) + missed, errors, answers[3], head, hosts=1)


def _by_grpc(old: GroupTotals, new: GroupTotals) -> int:
    was, now = old.at_instances, new.at_instances
    if now is not None and now.grpc_errors is not None:
        return now.grpc_errors - ((was.grpc_errors if was is not None else 0) or 0)
    return _grpc_errors(new) - _grpc_errors(old) - (new.failed - old.failed)


def _grpc_errors(total: GroupTotals) -> int:
    return sum(_at(total.grpc_status, code) for code in GRPC_ERRORS)


def _at(counts: Sequence[int], place: int) -> int:
    return counts[place] if place < len(counts) else 0
