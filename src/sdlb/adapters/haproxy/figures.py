"""The figures of `show stat`, added up over workers and reloads, in the form that the native engine reports.

Each worker counts from its own start, and a slot gets another group later. So only differences to the last poll are added,
for the group and the server that have the slot now. HAProxy has no latency histograms: those rows stay empty.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable

from msgspec import Struct, field

from sdlb.adapters.engine_stats import ROWS_MAX
from sdlb.adapters.haproxy.names import SLOT, UNSAFE, is_node, of_slot
from sdlb.adapters.haproxy.tables import Server
from sdlb.core.messages import ClaimKey
from sdlb.seams.engine import EngineStats, GroupTotals, InstanceTotals, UpstreamTotals

STATUS = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx")
ERROR = STATUS[4]
COUNTED = ("req_tot", "stot", "econ", "eresp", "wretr", "wredis", "connect", *STATUS)
FAILED = ("econ", "eresp", "wretr", "wredis")
"""Attempts that failed at a server: the last one of a request, or one that was repeated there or elsewhere."""
Row = dict[str, int]


class Sample(Struct):
    """What one poll of a server added, over all workers, and what is in flight there now."""

    added: Row = field(default_factory=dict[str, int])
    in_flight: int = 0
    idle: int = 0

    @property
    def failures(self) -> int:
        return sum(self.added.get(name, 0) for name in FAILED)

    @property
    def errors(self) -> int:
        return self.added.get(ERROR, 0)

    @property
    def successes(self) -> int:
        return sum(self.added.get(name, 0) for name in STATUS[:4])


def read(text: str) -> list[dict[str, str]]:
    """The rows of an answer to `show stat`."""
    lines = [line for line in text.removeprefix("# ").splitlines() if line]
    return list(csv.DictReader(lines))


class Figures:
    def __init__(self, stats: EngineStats) -> None:
        self._stats = stats
        self._last: dict[tuple[int, str, str], Row] = {}

    def poll(
        self,
        answers: Iterable[tuple[int, str]],
        claim_of: Callable[[str], ClaimKey | None],
        server_of: Callable[[str], Server | None],
    ) -> dict[str, Sample]:
        """`answers`: process id of a worker -> its `show stat`. Returns the samples of servers by full name."""
        samples: dict[str, Sample] = {}
        groups: dict[tuple[str, str], Row] = {}
        pids: set[int] = set()
        for pid, text in answers:
            pids.add(pid)
            for row in read(text):
                name, server = row["pxname"], row["svname"]
                if server == "FRONTEND" or not name.startswith((SLOT, UNSAFE)):
                    continue
                added = self._added((pid, name, server), row)
                name = of_slot(name)
                if server == "BACKEND":
                    claim = claim_of(name)
                    if claim is not None:
                        _add(groups.setdefault((claim.service, claim.version), {}), added)
                    continue
                sample = samples.setdefault(f"{name}/{server}", Sample())
                _add(sample.added, added)
                sample.in_flight += _number(row, "scur") + _number(row, "qcur")
                sample.idle += _number(row, "idle_conn_cur")
        self._last = {key: row for key, row in self._last.items() if key[0] in pids}
        self._write(samples, groups, server_of)
        return samples

    @staticmethod
    def in_flight(text: str) -> list[tuple[str, int]]:
        """The full names of servers and their requests, without counting anything. A name may come twice."""
        rows = [row for row in read(text) if row["svname"] not in ("FRONTEND", "BACKEND")]
        return [
            (of_slot(f"{row['pxname']}/{row['svname']}"), _number(row, "scur") + _number(row, "qcur")) for row in rows
        ]

    def _added(self, key: tuple[int, str, str], row: dict[str, str]) -> Row:
        now = {name: _number(row, name) for name in COUNTED}
        before = self._last.get(key, {})
        self._last[key] = now
        if now["stot"] < before.get("stot", 0):  # another server of that name
            before = {}
        return {name: value - before.get(name, 0) for name, value in now.items()}

    def _write(
        self,
        samples: dict[str, Sample],
        groups: dict[tuple[str, str], Row],
        server_of: Callable[[str], Server | None],
    ) -> None:
        upstreams: dict[str, list[Sample]] = {}
        instances: dict[tuple[str, str], Row] = {}
        children: dict[tuple[str, str], Row] = {}
        for name, sample in samples.items():
            server = server_of(name)
            if server is not None:
                upstreams.setdefault(server.key.target, []).append(sample)
                claim = server.key.claim
                rows = children if is_node(server.key.target) else instances
                _add(rows.setdefault((claim.service, claim.version), {}), sample.added)
        for target, found in upstreams.items():
            self._stats.upstreams[target] = _upstream(self._stats.upstreams.get(target, UpstreamTotals()), found)
        for group, added in groups.items():
            old = self._stats.groups.pop(group, None) or GroupTotals()
            self._stats.groups[group] = _group(old, added, instances.get(group, {}), children.get(group, {}))
        while len(self._stats.groups) > ROWS_MAX:
            del self._stats.groups[next(iter(self._stats.groups))]


def _group(old: GroupTotals, added: Row, instances: Row, children: Row) -> GroupTotals:
    answers = tuple(instances.get(name, 0) for name in STATUS)
    status = [old_count + added.get(name, 0) for old_count, name in zip(old.status, STATUS, strict=True)]
    ours = max(0, added.get("hrsp_5xx", 0) - instances.get("hrsp_5xx", 0) - children.get("hrsp_5xx", 0))
    before = old.at_instances or InstanceTotals(answers=(0,) * len(STATUS))
    return GroupTotals(
        requests=old.requests + added.get("req_tot", 0),
        status=(status[0], status[1], status[2], status[3], status[4]),
        failed=old.failed + ours,
        retries=old.retries + added.get("wretr", 0) + added.get("wredis", 0),
        at_instances=InstanceTotals(
            requests=before.requests + sum(answers) + instances.get("eresp", 0),
            answers=tuple(a + b for a, b in zip(before.answers, answers, strict=True)),
            broken=before.broken + instances.get("eresp", 0),
            unreached=before.unreached + instances.get("econ", 0),
        ),
    )


def _upstream(old: UpstreamTotals, samples: Iterable[Sample]) -> UpstreamTotals:
    found = list(samples)

    def sum_of(name: str) -> int:
        return sum(sample.added.get(name, 0) for sample in found)

    return UpstreamTotals(
        requests=old.requests + sum_of("stot"),
        connects=old.connects + sum_of("connect"),
        connect_failures=old.connect_failures + sum_of("econ"),
        failures=old.failures + sum_of("eresp"),
        in_flight=sum(sample.in_flight for sample in found),
        idle_connections=sum(sample.idle for sample in found),
    )


def _number(row: dict[str, str], name: str) -> int:
    text = row.get(name) or "0"
    return int(text) if text.lstrip("-").isdigit() else 0


def _add(total: Row, added: Row) -> None:
    for name, value in added.items():
        total[name] = total.get(name, 0) + value
