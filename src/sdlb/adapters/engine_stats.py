"""The statistics of all engine processes of a node, added up: counters never decrease in a hot restart.

Each process counts from its own start. While two serve, their counters are added; the counts of an exited one are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import TypeVar

from msgspec import Struct, field

from sdlb.core.events import EndpointKey
from sdlb.seams.engine import EngineStats, GroupTotals, InstanceTotals, UpstreamTotals
from sdlb.wire.engine_pb2 import GroupStats, Stats

ROWS_MAX = 32_768
"""The maximum number of versions, and of targets, whose statistics are kept; the least recently changed are dropped. A node
that runs for years sees many more of them than exist at any time."""

K = TypeVar("K")
V = TypeVar("V")
Group = tuple[str, str]


class Rows(Struct):
    """The last statistics of one process. `in_flight` and `ejected` are current values, not totals."""

    groups: dict[Group, GroupTotals] = field(default_factory=dict[Group, GroupTotals])
    targets: dict[str, UpstreamTotals] = field(default_factory=dict[str, UpstreamTotals])
    counters: dict[str, int] = field(default_factory=dict[str, int])
    in_flight: dict[EndpointKey, int] = field(default_factory=dict[EndpointKey, int])
    ejected: dict[str, str] = field(default_factory=dict[str, str])


class Totals:
    """Adds up the statistics of all processes and writes them into `stats`."""

    def __init__(self, stats: EngineStats) -> None:
        self._stats = stats
        self._live: list[Rows] = []
        self._ended = Rows()

    def begin(self, rows: Rows) -> None:
        self._live.append(rows)

    def end(self, rows: Rows) -> None:
        """Keeps the totals of a process that has exited."""
        if all(each is not rows for each in self._live):
            return
        self._live = [each for each in self._live if each is not rows]
        for key, group in rows.groups.items():
            _keep(self._ended.groups, key, _sum_groups((self._ended.groups.get(key), group)))
        for key, target in rows.targets.items():
            total = _sum_targets((self._ended.targets.get(key), target))
            _keep(self._ended.targets, key, _without_gauges(total))
        for name, value in rows.counters.items():
            if name.endswith("_total"):
                self._ended.counters[name] = self._ended.counters.get(name, 0) + value
        self._refresh(rows.groups, rows.targets, rows.counters)

    def replace(self, old: Rows, new: Rows) -> None:
        """The same process on a new connection, over which it sends all its statistics again."""
        self._live = [new if each is old else each for each in self._live]

    def on_stats(self, rows: Rows, stats: Stats) -> None:
        for group in stats.groups:
            status = (group.status_1xx, group.status_2xx, group.status_3xx, group.status_4xx, group.status_5xx)
            row = GroupTotals(
                group.requests,
                status,
                group.failed,
                group.retries,
                group.parked,
                tuple(group.latency_buckets),
                group.latency_us_sum,
                tuple(group.grpc_status),
                _at_instances(group) if group.answers else None,
            )
            _keep(rows.groups, (group.service, group.version), row)
        for target in stats.targets:
            row = UpstreamTotals(
                target.requests,
                target.connects,
                target.connect_failures,
                target.failures,
                target.in_flight,
                target.idle_connections,
            )
            _keep(rows.targets, target.target, row)
        for counter in stats.counters:
            rows.counters[counter.name] = counter.value
        self._refresh(
            [(group.service, group.version) for group in stats.groups],
            [target.target for target in stats.targets],
            [counter.name for counter in stats.counters],
        )

    def forget_upstream(self, key: str) -> None:
        """The endpoint was deleted: a later one of that name counts from zero."""
        self._stats.upstreams.pop(key, None)
        self._stats.ejected.pop(key, None)
        self._ended.targets.pop(key, None)
        for rows in self._live:
            rows.targets.pop(key, None)

    def _refresh(self, groups: Iterable[Group], targets: Iterable[str], counters: Iterable[str]) -> None:
        stats, every = self._stats, (self._ended, *self._live)
        for group in groups:
            _keep(stats.groups, group, _sum_groups([rows.groups.get(group) for rows in every]))
        for target in targets:
            _keep(stats.upstreams, target, _sum_targets([rows.targets.get(target) for rows in every]))
        for name in counters:
            stats.counters[name] = sum(rows.counters.get(name, 0) for rows in every)


def _sum_groups(rows: Iterable[GroupTotals | None]) -> GroupTotals:
    there = [row for row in rows if row is not None]
    if len(there) == 1:
        return there[0]
    return GroupTotals(
        requests=sum(row.requests for row in there),
        status=(
            sum(row.status[0] for row in there),
            sum(row.status[1] for row in there),
            sum(row.status[2] for row in there),
            sum(row.status[3] for row in there),
            sum(row.status[4] for row in there),
        ),
        failed=sum(row.failed for row in there),
        retries=sum(row.retries for row in there),
        parked=sum(row.parked for row in there),
        latency=_columns(there, lambda row: row.latency),
        latency_us_sum=sum(row.latency_us_sum for row in there),
        grpc_status=_columns(there, lambda row: row.grpc_status),
        at_instances=_sum_at_instances(row.at_instances for row in there),
    )


def _at_instances(group: GroupStats) -> InstanceTotals:
    return InstanceTotals(
        group.asked,
        tuple(group.answers),
        group.broken,
        group.unreached,
        tuple(group.head_buckets),
        group.head_us_sum,
        group.grpc_errors if group.HasField("grpc_errors") else None,
    )


def _sum_at_instances(rows: Iterable[InstanceTotals | None]) -> InstanceTotals | None:
    there = [row for row in rows if row is not None]
    if len(there) <= 1:
        return there[0] if there else None
    return InstanceTotals(
        requests=sum(row.requests for row in there),
        answers=_columns(there, lambda row: row.answers),
        broken=sum(row.broken for row in there),
        unreached=sum(row.unreached for row in there),
        heads=_columns(there, lambda row: row.heads),
        head_us_sum=sum(row.head_us_sum for row in there),
        grpc_errors=_sum_or_none(row.grpc_errors for row in there),
    )


def _sum_or_none(counts: Iterable[int | None]) -> int | None:
    """None if one of them is not known."""
    found = list(counts)
    known = [count for count in found if count is not None]
    return sum(known) if len(known) == len(found) else None


def _columns(rows: list[V], of: Callable[[V], Iterable[int]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip_longest(*map(of, rows), fillvalue=0))


def _sum_targets(rows: Iterable[UpstreamTotals | None]) -> UpstreamTotals:
    there = [row for row in rows if row is not None]
    if len(there) == 1:
        return there[0]
    return UpstreamTotals(
        requests=sum(row.requests for row in there),
        connects=sum(row.connects for row in there),
        connect_failures=sum(row.connect_failures for row in there),
        failures=sum(row.failures for row in there),
        in_flight=sum(row.in_flight for row in there),
        idle_connections=sum(row.idle_connections for row in there),
    )


def _without_gauges(row: UpstreamTotals) -> UpstreamTotals:
    return UpstreamTotals(row.requests, row.connects, row.connect_failures, row.failures)


def _keep(rows: dict[K, V], key: K, row: V) -> None:
    rows.pop(key, None)  # makes it the most recent one
    rows[key] = row
    while len(rows) > ROWS_MAX:
        del rows[next(iter(rows))]
