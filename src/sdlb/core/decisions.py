"""The rules of an authority: which service holds a route, and which versions of a service are active. Pure functions.

For one service (promises 1, 2 and 8):

* A version joins the active set if it is compatible with every version that is active, still open, or unaccounted for.
* When the last incompatible version has stopped, the waiting version with the earliest claim opens.
* Each incompatible replacement starts a new *generation*.
* The active set is pairwise compatible. When policy or declarations change, the version with less seniority is recalled. A
  root that settles waits for the reports of its children first.
* A version that is barred (by policy or a closed gate) does not open, but stays open if it is. During a cut-over the versions
  that the new one replaces are recalled, and no other version opens (`conduct.py`).
* The record overrides reports of children. A generation is newer than the record only if more than half of the children
  that have the service report it (`votes.py`): then this root has missed decisions.
* Two roots may grant different versions at first, if claims reach them in different order. Neither opens, because a node
  needs the consent of all its parents. Both roots notice (`granted`) and settle it by the same rule: the version that is
  open at more children stays, else the one with the earlier stamp, else the first by name. If another root is reported to
  grant both versions, this root keeps to its record.

Each function takes a record and reports. It returns a new record and the reason why each version (or service) must wait.
Nodes and messages do not occur here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cmp_to_key

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.model.reason import (
    Asking,
    Closing,
    Contested,
    CuttingOver,
    NewerGeneration,
    PresumedStopped,
    Reason,
    RouteConflict,
    Settling,
    StillRunning,
)

Compatible = Callable[[str, str], bool]

PAST_MAX = 64
"""Versions of earlier generations that a record keeps."""
SAME_TIME_US = 2_000_000
"""Two claims within this time may reach two roots in different order. Then the earliest stamp of all roots decides."""


class Report(Struct, frozen=True):
    """What all sources together report about a version of a service, or about a service on a route.

    `stamp`: the earliest of this root and of the other roots of the tree, as children report. `own`: the stamp of this root.
    `vouched`: open by a decision of this root or another root of the tree, and not recalled here. `backing`: number of sources
    that report so; `majority`: they are more than half of those that claim the route. `granted`: ids of the other roots whose
    decision is ACTIVE now; `refused`: ids of those whose decision is REFUSED, as most sources report. `generation` 0: of
    another authority, or reported by too few. `able`, `healthy`: capacity and number of healthy instances. `joined`: see `Claim`.
    """

    stamp: int
    count: int = 0
    open: bool = False  # gets traffic somewhere
    may_be_open: bool = False  # is open, or was granted and has not confirmed the recall
    vouched: bool = False
    granted: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    backing: int = 0
    majority: bool = False
    generation: int = 0
    hosts: tuple[str, ...] = ()
    able: int = 0
    healthy: int = 0
    joined: frozenset[str] = frozenset()
    remembered: bool = False  # known from records only: no node that was heard since this root started has it
    presumed: bool = False  # all of it is silent, and on_silence = "wait" keeps it from counting as stopped
    own: int = 0


class ServiceRecord(Struct, frozen=True):
    """What a root has decided for a service. Saved durably, except `heard` and `hold_until`.

    `era`: all versions that were active in this generation; `past`: the last ones of earlier generations. `scope`: ids of other
    authorities whose generations this record continues.
    """

    generation: int = 0
    active: Mapping[str, int] = field(default_factory=dict[str, int])  # version -> stamp
    era: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()  # recalled, and not confirmed by all sources yet
    scope: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    heard: int = 0  # a reported newer generation that no node serving it has reported yet
    hold_until: float = 0.0

    @property
    def blank(self) -> bool:
        return not self.generation and not self.active

    def same_on_disk(self, other: ServiceRecord) -> bool:
        return self == other or replace(self, heard=0, hold_until=0.0) == replace(other, heard=0, hold_until=0.0)


class HolderRecord(Struct, frozen=True):
    """The service that holds a route. Saved durably. `confirmed`: it has been open under this record."""

    service: str
    stamp: int = 0
    confirmed: bool = False


class Guard(Struct, frozen=True):
    """What may not open now, besides the rules of this module. `barred`: version -> reason. `cut_over`: the version of a
    cut-over in progress; "": none."""

    barred: Mapping[str, Reason] = field(default_factory=dict[str, Reason])
    cut_over: str = ""


NO_GUARD = Guard()


class _Draft(Struct):
    """A record during its decision."""

    record: ServiceRecord
    reports: Mapping[str, Report]
    compatible: Compatible
    now: float
    settling: bool
    active: dict[str, int]
    guard: Guard = NO_GUARD
    recalled: set[str] = field(default_factory=set[str])

    def rank(self, version: str) -> tuple[int, int, int, str]:
        report = self.reports[version]
        return (-report.generation if report.vouched else 0, -report.backing, report.stamp, version)

    def rivals(self, version: str) -> list[str]:
        return [other for other in self.active if other != version and not self.compatible(other, version)]

    def recall(self, versions: list[str]) -> None:
        for version in versions:
            self.active.pop(version, None)
            self.recalled.add(version)

    def set(self, **changes: object) -> None:
        if any(getattr(self.record, name) != value for name, value in changes.items()):
            self.record = replace(self.record, **changes)  # type: ignore[arg-type]


def decide_service(
    record: ServiceRecord,
    reports: Mapping[str, Report],
    compatible: Compatible,
    *,
    now: float,
    settling: bool,
    hold_s: float,
    heard: int = 0,
    guard: Guard = NO_GUARD,
) -> tuple[ServiceRecord, dict[str, Reason]]:
    """Decides the active set of a service. Returns the new record, and the reason for each version that waits.

    `reports`: by version, of claims that are not refused. `heard`: the newest accepted generation that is reported. `settling`:
    some recorded children have not reported since this root started, so absent versions may only be late. `hold_s`: how long
    a newer generation keeps waiting versions from opening until its versions are reported.
    """
    draft = _Draft(record, reports, compatible, now, settling, dict(record.active), guard)
    _yield_to_newer(draft, hold_s, heard)
    if not settling:
        for version in [v for v in draft.active if v not in reports]:
            del draft.active[version]
    _part_incompatible(draft)
    _settle_contests(draft)
    if guard.cut_over and guard.cut_over not in draft.active:
        draft.recall(draft.rivals(guard.cut_over))
    unconfirmed = {v for v, f in reports.items() if v not in draft.active and (f.may_be_open or v in draft.recalled)}
    draft.set(closing=tuple(sorted(unconfirmed)))
    reasons = _admit(draft)
    active = sorted(draft.active.items())
    if active != list(draft.record.active.items()):  # sorted, so that equal records are saved alike
        draft.record = replace(draft.record, active=dict(active))
    return draft.record, reasons


def _yield_to_newer(draft: _Draft, hold_s: float, heard: int) -> None:
    newest = max((f.generation for f in draft.reports.values() if f.vouched), default=0)
    if newest > draft.record.generation:
        kept: list[str] = []
        for version in sorted(draft.reports, key=draft.rank):
            serves = draft.reports[version].vouched and draft.reports[version].generation == newest
            if serves and all(draft.compatible(version, other) for other in kept):
                kept.append(version)
                draft.recall(draft.rivals(version))
        past = _past(draft.record.past, draft.record.era)
        draft.set(generation=newest, era=tuple(sorted(kept)), past=tuple(v for v in past if v not in kept))
    if heard <= draft.record.generation:
        return
    # Nodes below know a generation that is not on record here, because this root's disk is old or another root continued.
    # The nodes that serve it will report. Until then, no version that is not open is granted or stays granted.
    if draft.record.heard != heard:
        draft.set(heard=heard, hold_until=draft.now + hold_s)
    if draft.now < draft.record.hold_until:
        draft.recall([v for v in draft.active if v not in draft.reports or not draft.reports[v].open])
    else:
        draft.set(generation=heard)


def _part_incompatible(draft: _Draft) -> None:
    """Recalls active versions that are no longer compatible, because policy or declarations have changed.

    The senior version stays, but no version that serves is recalled for one that is only remembered. While the root settles
    nothing is recalled: versions that are not reported yet may have stopped, or may declare more. This root's own stamps
    decide seniority. The stamps of other roots, which children report, count only for claims within SAME_TIME_US.
    """
    reports = draft.reports
    if draft.settling:
        return

    def before(a: str, b: str) -> int:
        one, two = reports[a], reports[b]
        apart = one.own - two.own
        stamps = apart if abs(apart) > SAME_TIME_US else one.stamp - two.stamp
        return one.remembered - two.remembered or stamps or (-1 if a < b else 1)

    order = sorted((v for v in draft.active if v in reports), key=cmp_to_key(before))
    for index, version in enumerate(order):
        if version in draft.active:
            juniors = [other for other in order[index + 1 :] if other in draft.active]
            draft.recall([other for other in juniors if not draft.compatible(version, other)])


def _settle_contests(draft: _Draft) -> None:
    for version in sorted(draft.reports):
        report = draft.reports[version]
        if version in draft.active or version in draft.recalled or not report.granted:
            continue
        if report.vouched and report.generation < draft.record.generation:
            continue  # the record is newer
        if version in draft.guard.barred and not report.vouched:
            continue  # it would not open
        rivals = draft.rivals(version)
        # A rival without a report may be late after a restart. A version that serves with another root's consent does not wait.
        if rivals and all(_prevails(draft, version, rival) for rival in rivals):
            draft.recall(rivals)


def _prevails(draft: _Draft, version: str, rival: str) -> bool:
    report, other = draft.reports[version], draft.reports.get(rival)
    if other is None:
        return report.vouched
    return bool(report.granted - other.granted) and draft.rank(version) < draft.rank(rival)


def _admit(draft: _Draft) -> dict[str, Reason]:
    reasons: dict[str, Reason] = {}
    record, reports = draft.record, draft.reports
    started = bool(draft.active)
    held = record.heard > record.generation and draft.now < record.hold_until
    newest = record.generation
    first: str | None = None
    for version in sorted((v for v in reports if v not in draft.active), key=draft.rank):
        report = reports[version]
        reason = _blocker(draft, version, newest)
        if reason is None and draft.settling and not report.vouched:
            # A version that opened while this root was down may not have been reported yet.
            reason = next((Settling(old) for old in record.era if not draft.compatible(old, version)), None)
        if reason is None and held and not report.vouched and not report.granted:
            reason = NewerGeneration(record.heard)
        if reason is None and not (report.vouched and report.generation):  # else it serves by a decision
            reason = draft.guard.barred.get(version)
        to = draft.guard.cut_over
        if reason is None and to and version != to and to not in draft.active and not draft.compatible(version, to):
            reason = CuttingOver(to, "it replaces this version")
        if reason is None and not started and first is not None and not draft.compatible(first, version):
            reason = Contested(first)
        if (
            first is None
            and version not in draft.guard.barred
            and not isinstance(reason, CuttingOver | NewerGeneration)
        ):
            first = version
        if reason is not None:
            reasons[version] = reason
            continue
        era, generation = draft.record.era, draft.record.generation
        if not all(draft.compatible(version, old) for old in era):
            draft.set(past=_past(draft.record.past, era))
            generation, era = generation + 1, ()
        generation = max(generation, 1, report.generation if report.vouched or report.granted else 0)
        draft.set(generation=generation, era=tuple(sorted({*era, version})))
        draft.active[version] = report.stamp
    return reasons


def _past(past: tuple[str, ...], era: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*past, *era)))[-PAST_MAX:]


def _blocker(draft: _Draft, version: str, newest: int) -> Reason | None:
    reports = draft.reports
    for other in sorted(draft.active):
        if not draft.compatible(other, version):
            if other not in reports:
                return Settling(other)
            if draft.settling and reports[other].remembered and reports[version].vouched:
                # It serves, and the other version may have stopped while this root was down. `Asking` closes nothing.
                return Asking()
            if reports[other].presumed:
                return PresumedStopped(other, reports[other].hosts)
            return StillRunning(other, reports[other].count, reports[other].hosts)
    if reports[version].vouched and reports[version].generation >= newest and version not in draft.recalled:
        # It serves with another root's consent. Waiting for the closing version would only close this one too.
        return None
    for other in sorted(reports):
        if other != version and other in draft.record.closing and not draft.compatible(other, version):
            return Closing(other, reports[other].hosts)
    return None


def decide_route(
    holder: HolderRecord | None,
    reports: Mapping[str, Report],
    *,
    route: str,
    decided_by: str,
    settling: bool,
    wanted: str = "",
) -> tuple[HolderRecord | None, dict[str, Reason]]:
    """Decides which service in `reports` holds `route`. Returns the new record and the reason for each service that must not
    serve it, which may include a new holder while the former one closes.

    `wanted`: the service to which an operator has transferred the route. It holds the route whenever it claims it.
    """
    before = holder
    if holder is not None and holder.service not in reports and not settling:
        holder = None
    if not reports:
        return holder, {}
    if wanted in reports:
        transferred = holder is None or holder.service != wanted
        holder = _hold(wanted, reports) if holder is None or transferred else _confirmed(holder, reports)
    elif holder is None:
        holder = _hold(min(reports, key=lambda s: _order(s, reports)), reports)
    elif holder.service in reports:
        takers = [s for s in reports if s != holder.service and _takes_over(holder, s, reports)]
        if takers:
            holder = _hold(min(takers, key=lambda s: _order(s, reports)), reports)
        holder = _confirmed(holder, reports)
    reasons: dict[str, Reason] = {}
    for service in sorted(reports):
        if service == holder.service:
            continue
        reasons[service] = RouteConflict(route, holder.service, decided_by)
        changed = before is not None and service == before.service
        if holder.service in reports and (changed or (reports[service].may_be_open and not holder.confirmed)):
            reasons[holder.service] = Closing(service, reports[service].hosts)
    return holder, reasons


def _hold(service: str, reports: Mapping[str, Report]) -> HolderRecord:
    return HolderRecord(service, reports[service].stamp)


def _confirmed(holder: HolderRecord, reports: Mapping[str, Report]) -> HolderRecord:
    if reports[holder.service].open and not holder.confirmed:
        return replace(holder, confirmed=True)
    return holder


def _takes_over(holder: HolderRecord, service: str, reports: Mapping[str, Report]) -> bool:
    """Whether `service` takes the route over from the holder.

    It does if another root has granted it the route, refuses the holder, and the service comes first by `_order`. It also does
    if it serves and this root has missed that, because its disk is old or was lost: then a majority of the sources on the
    route report it, or the holder has never served.
    """
    mine, other = reports[holder.service], reports[service]
    if not mine.open and (other.majority or (other.open and not holder.confirmed)):
        return True
    evidence = other.granted & mine.refused  # a single child can report `granted`, but `refused` needs a majority
    return bool(evidence) and _order(service, reports) < _order(holder.service, reports)


def _order(service: str, reports: Mapping[str, Report]) -> tuple[int, bool, int, str]:
    """Sort key of services where no record decides: the first one gets the route."""
    report = reports[service]
    return -report.backing, not report.open, report.stamp, service
