"""What nodes report about the services that they run, summed up on the way to the roots.

Each node reports to one parent (`reporting.py`), so that it is counted once. The sum of a service is kept while reports come and
go: a change of one child costs as much as its report, not as the number of children. The report of a child is checked and cut
to limits, so that a sum of reports can always be sent on.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.core.block_sums import NUMBER_MAX, BlockSums, cut_blocks, names_of, numbers_of
from sdlb.model.problem import Invalid
from sdlb.model.rollout import COUNTS_MAX, FAILED_MAX, RoleReport, read_report, report_body
from sdlb.model.version import check_service

SLOTS_MAX: Final = 256
"""Slots in one report. The owner has its own record of the slots that it granted."""
SERVICES_MAX: Final = 1024
"""Services of one child; reports of further ones are ignored."""
NAME_CHARS_MAX: Final = 256
DETAIL_CHARS_MAX: Final = 512
FAILED_CHARS_MAX: Final = 2048
BODY_BYTES_MAX: Final = 1 << 16
CHILD_BYTES_MAX: Final = 1 << 22
"""All reports of one child, as sent. A report that exceeds it counts as none."""

_OWN: Final = ""
_NONE: Final = RoleReport()


class _Tally(Struct):
    """Numbers by name. `sources`: how many of them have the name."""

    amount: dict[str, int] = field(default_factory=dict[str, int])
    sources: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, values: Mapping[str, int], sign: int) -> None:
        for name, value in values.items():
            self.amount[name] = self.amount.get(name, 0) + sign * value
            self.sources[name] = self.sources.get(name, 0) + sign
            if not self.sources[name]:
                del self.amount[name], self.sources[name]

    def first(self) -> dict[str, int]:
        """Of too many names, those that most sources have, so that a faulty child cannot displace those of the others."""
        names = sorted(self.sources, key=lambda name: (-self.sources[name], name))[:COUNTS_MAX]
        return {name: min(self.amount[name], NUMBER_MAX) for name in sorted(names)}


class _Sum(Struct):
    """Of one service. `by_source`: reports with slots or failed nodes, by the child that sent them."""

    sources: int = 0
    nodes: int = 0
    alone: int = 0
    ready: int = 0
    waiting: _Tally = field(default_factory=_Tally)
    counts: _Tally = field(default_factory=_Tally)
    zones: _Tally = field(default_factory=_Tally)
    left: _Tally = field(default_factory=_Tally)
    back: _Tally = field(default_factory=_Tally)
    blocks: BlockSums = field(default_factory=BlockSums)
    by_source: dict[str, RoleReport] = field(default_factory=dict[str, RoleReport])
    total: RoleReport | None = None

    def add(self, source: str, report: RoleReport) -> None:
        self._count(report, 1)
        if report.slots or report.failed:
            self.by_source[source] = report

    def subtract(self, source: str, report: RoleReport) -> None:
        self._count(report, -1)
        self.by_source.pop(source, None)

    def _count(self, report: RoleReport, sign: int) -> None:
        self.total = None
        self.sources += sign
        self.nodes += sign * report.nodes
        self.alone += sign * report.alone
        self.ready += sign * report.ready
        self.waiting.add(report.waiting, sign)
        self.counts.add(report.counts, sign)
        self.zones.add(report.zones, sign)
        self.left.add(report.left, sign)
        self.back.add(report.back, sign)
        self.blocks.add(report.blocks, sign)

    def whole(self) -> RoleReport:
        if self.total is None:
            slots = chain.from_iterable(report.slots for report in self.by_source.values())
            failed = chain.from_iterable(report.failed.items() for report in self.by_source.values())
            self.total = RoleReport(
                min(self.nodes, NUMBER_MAX),
                min(self.alone, NUMBER_MAX),
                min(self.ready, NUMBER_MAX),
                self.waiting.first(),
                self.counts.first(),
                tuple(sorted(slots, key=lambda slot: (slot.node, slot.rollout, slot.phase))[:SLOTS_MAX]),
                dict(sorted(failed)[:FAILED_MAX]),
                self.blocks.total(),
                self.zones.first(),
                self.left.first(),
                self.back.first(),
            )
        return self.total


class Reports:
    """`changed`: services whose sum has changed since the caller last cleared it. `unsent`: the same for the parents."""

    def __init__(self) -> None:
        self.changed: dict[str, None] = {}
        self.unsent: dict[str, None] = {}
        self._sums: dict[str, _Sum] = {}
        self._reports: dict[str, dict[str, RoleReport]] = {}  # child, or _OWN -> service -> its report
        self._bytes: dict[str, dict[str, int]] = {}  # child -> service -> size of its report
        self._child_bytes: dict[str, int] = {}  # child -> size of all its reports

    # ------------------------------------------------------------------ reports

    def put_own(self, service: str, report: RoleReport | None) -> None:
        """The report of this node itself; None: it does not run the service."""
        self._put(_OWN, service, _NONE if report is None else _cut(report))

    def put_child(self, child: str, service: str, body: bytes) -> None:
        """The report of a child as it came, for the node itself and all below that report through it. One that cannot be read
        counts as none: what was there before is out of date."""
        sizes = self._bytes.setdefault(child, {})
        if service not in sizes and (len(sizes) >= SERVICES_MAX or not _is_service(service)):
            return
        size = self._child_bytes.get(child, 0) - sizes.pop(service, 0)
        report = _read(body) if size + len(body) <= CHILD_BYTES_MAX else _NONE
        if report != _NONE:
            sizes[service] = len(body)
            size += len(body)
        self._child_bytes[child] = size
        self._put(child, service, report)

    def keep_only(self, child: str, services: frozenset[str]) -> None:
        """A full state of the child has no other reports."""
        for service in [each for each in self._reports.get(child, ()) if each not in services]:
            self.put_child(child, service, b"")

    def drop_child(self, child: str) -> None:
        """The link to the child is closed, so it may report to another parent."""
        for service in list(self._reports.get(child, ())):
            self._put(child, service, _NONE)
        self._bytes.pop(child, None)
        self._child_bytes.pop(child, None)

    def _put(self, source: str, service: str, report: RoleReport) -> None:
        reports = self._reports.setdefault(source, {})
        old = reports.get(service, _NONE)
        if report != old:
            total = self._sums.setdefault(service, _Sum())
            if old != _NONE:
                total.subtract(source, reports.pop(service))
            if report != _NONE:
                reports[service] = report
                total.add(source, report)
            if not total.sources:
                del self._sums[service]
            self.changed[service] = self.unsent[service] = None
        if not reports:
            del self._reports[source]

    # ------------------------------------------------------------------ sums

    def zones(self, child: str, service: str) -> Mapping[str, int]:
        """Zones of the nodes that run the service and report through this child. "": of this node."""
        return self._reports.get(child, {}).get(service, _NONE).zones

    def total(self, service: str) -> RoleReport:
        """Of this node and all nodes below that report through it."""
        total = self._sums.get(service)
        return _NONE if total is None else total.whole()

    def services(self) -> tuple[str, ...]:
        """Those that have a report."""
        return tuple(sorted(self._sums))

    def body(self, service: str) -> bytes:
        """The sum as it is sent to a parent, within the size that it accepts. Empty: no node runs the service."""
        total = self.total(service)
        if total == _NONE:
            return b""
        body = report_body(total)
        if len(body) > BODY_BYTES_MAX:  # the texts are for people
            total = replace(total, slots=tuple(replace(slot, detail="") for slot in total.slots), failed={})
            body = report_body(total)
        while len(body) > BODY_BYTES_MAX and total.blocks:
            total = replace(total, blocks=dict(islice(total.blocks.items(), len(total.blocks) - 1)))
            body = report_body(total)
        while len(body) > BODY_BYTES_MAX and total.slots:
            total = replace(total, slots=total.slots[: len(total.slots) // 2])
            body = report_body(total)
        return (
            body
            if len(body) <= BODY_BYTES_MAX
            else report_body(replace(total, waiting={}, counts={}, zones={}, left={}, back={}))
        )


def minor(old: RoleReport, new: RoleReport) -> bool:
    """Whether a change may wait for the next heartbeat: only counts, figures or the phases of nodes with a slot have changed, or the
    ready capacity has grown. A slot that is no longer held is reported at once, with its capacity: other nodes wait for it."""
    same = replace(new, ready=old.ready, left=old.left, back=old.back)
    rest = replace(same, counts=old.counts, blocks=old.blocks, slots=old.slots)
    return new.ready >= old.ready and rest == old and _held(new) == _held(old)


def _held(report: RoleReport) -> set[tuple[str, str, int]]:
    return {(slot.node, slot.rollout, slot.share) for slot in report.slots}


# ---------------------------------------------------------------------- what a child may send


def _is_service(text: str) -> bool:
    try:
        return check_service(text) == text
    except Invalid:
        return False


def _read(body: bytes) -> RoleReport:
    """The report within the limits."""
    report = read_report(body) if 0 < len(body) <= BODY_BYTES_MAX else None
    if report is None:
        return _NONE
    numbers = (report.nodes, report.alone, report.ready, *report.waiting.values(), *report.counts.values())
    slots = report.slots[:SLOTS_MAX]
    numbers = (*numbers, *(slot.share for slot in slots), *numbers_of(report.blocks))
    numbers = (*numbers, *report.zones.values(), *report.left.values(), *report.back.values())
    names = (*report.waiting, *report.counts, *report.failed, *(n for s in slots for n in (s.node, s.rollout, s.phase)))
    names = (*names, *names_of(report.blocks), *report.zones, *report.left, *report.back)
    if not all(0 <= number <= NUMBER_MAX for number in numbers):
        return _NONE
    if any(len(name) > NAME_CHARS_MAX or not name.isprintable() for name in names):
        return _NONE
    return _cut(report)


def _cut(report: RoleReport) -> RoleReport:
    return replace(
        report,
        waiting=dict(islice(sorted(report.waiting.items()), COUNTS_MAX)),
        counts=dict(islice(sorted(report.counts.items()), COUNTS_MAX)),
        slots=tuple(replace(slot, detail=slot.detail[:DETAIL_CHARS_MAX]) for slot in report.slots[:SLOTS_MAX]),
        failed={node: text[:FAILED_CHARS_MAX] for node, text in islice(sorted(report.failed.items()), FAILED_MAX)},
        blocks=cut_blocks(report.blocks),
        zones=dict(islice(sorted(report.zones.items()), COUNTS_MAX)),
        left=dict(islice(sorted(report.left.items()), COUNTS_MAX)),
        back=dict(islice(sorted(report.back.items()), COUNTS_MAX)),
    )
