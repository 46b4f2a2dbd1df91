"""The rules of an authority: which service holds a route, which versions of a service are active. Pure functions.

For one service (promises 1, 2 and 8):

* A version joins the active set when it is compatible with everything that is active, still open, or unaccounted for.
* Only the last stop of an incompatible version makes room for the next; then the earliest claim goes first.
* Each incompatible replacement is a new *generation*.
* The active set is pairwise compatible: when policy or declarations change, the junior version is recalled. A root that
  settles waits with that until its children have reported.
* What is on record beats what children report. A generation is newer than the record only if more than half of the
  children that have the service report it (`Belief`): then this root is the one that missed something.
* Two roots may grant different things at first, when claims reach them in different order. Neither opens (a node needs
  the consent of all its parents), both notice (`granted`), and both settle it alike: what is open at more children stays,
  else the earlier stamp, else the name. A root that is reported to grant both grants what is on record here.

Each takes a record and facts, and returns a new record and the reason why each version (or service) must wait. They
know nothing of nodes or messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cmp_to_key

from sdlb.model.reason import (
    Asking,
    Closing,
    Contested,
    NewerGeneration,
    PresumedStopped,
    Reason,
    RouteConflict,
    Settling,
    StillRunning,
)

Compatible = Callable[[str, str], bool]

SAME_TIME_US = 2_000_000
"""Two claims this close may reach two roots in different order. Then the earliest stamp of all roots decides."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a version of a service (or of a service on a route), over all sources.

    `stamp`: the earliest of this root and of those that decide with it, as children report. `vouched`: open by a decision
    of this authority or of one that decides with it, and not recalled here. `backing`: how many sources report that;
    `majority`: more than half of those that claim the route. `granted`: the other roots that say ACTIVE now; `refused`:
    those that say REFUSED, as most sources report. `generation` 0: of another authority, or not believed.
    """

    stamp: int
    count: int = 0
    open: bool = False  # gets traffic somewhere
    may_be_open: bool = False  # or was granted and has not confirmed the recall
    vouched: bool = False
    granted: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    backing: int = 0
    majority: bool = False
    generation: int = 0
    hosts: tuple[str, ...] = ()
    remembered: bool = False  # nobody who was heard since this root started has any of it
    presumed: bool = False  # all of it is silent and, under on_silence = "wait", not taken for stopped
    own: int = 0  # the stamp that this root gave itself


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """Durable but for `heard` and `hold_until`. `era`: all versions that were active in this generation. `scope`: ids of
    other authorities whose generations this record continues."""

    generation: int = 0
    active: Mapping[str, int] = field(default_factory=dict[str, int])  # version -> stamp
    era: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()  # recalled, and not all confirmed yet
    scope: tuple[str, ...] = ()
    heard: int = 0  # a generation that was reported, and that nobody who serves it has reported yet
    hold_until: float = 0.0

    @property
    def blank(self) -> bool:
        return not self.generation and not self.active

    def same_on_disk(self, other: ServiceRecord) -> bool:
        return replace(self, heard=0, hold_until=0.0) == replace(other, heard=0, hold_until=0.0)


@dataclass(frozen=True, slots=True)
class HolderRecord:
    """Who holds a route. Durable. `confirmed`: it has been open under this record."""

    service: str
    stamp: int = 0
    confirmed: bool = False


@dataclass(slots=True)
class _Draft:
    """A record while it is being decided."""

    record: ServiceRecord
    reports: Mapping[str, Report]
    compatible: Compatible
    now: float
    settling: bool
    active: dict[str, int]
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
) -> tuple[ServiceRecord, dict[str, Reason]]:
    """`facts`: by version, of those whose claim is not refused. `heard`: the newest generation that is believed, of what
    is open or not. `settling`: children that are on record have not all reported since this root started, so what is
    absent may only be late."""
    draft = _Draft(record, reports, compatible, now, settling, dict(record.active))
    _yield_to_newer(draft, hold_s, heard)
    if not settling:
        for version in [v for v in draft.active if v not in reports]:
            del draft.active[version]
    _part_incompatible(draft)
    _settle_contests(draft)
    unconfirmed = {v for v, f in reports.items() if v not in draft.active and (f.may_be_open or v in draft.recalled)}
    draft.set(closing=tuple(sorted(unconfirmed)))
    reasons = _admit(draft)
    draft.set(active=dict(sorted(draft.active.items())))
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
        draft.set(generation=newest, era=tuple(sorted(kept)))
    if heard <= draft.record.generation:
        return
    # Nodes below were told of a generation that is not on record here: our disk is old, or another root went on. Whoever
    # serves it will report; until then nothing that is not open is (or stays) granted.
    if draft.record.heard != heard:
        draft.set(heard=heard, hold_until=draft.now + hold_s)
    if draft.now < draft.record.hold_until:
        draft.recall([v for v in draft.active if v not in draft.reports or not draft.reports[v].open])
    else:
        draft.set(generation=heard)


def _part_incompatible(draft: _Draft) -> None:
    """Policy or declarations may have changed since these were let in: the senior one stays, but nothing that serves is
    recalled for what is only remembered. While the root settles, what is not reported yet may have gone, or declare more.

    This root's own stamps decide which one is senior. The stamps of other roots, which children report, count only if both
    claims arrived within SAME_TIME_US.
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
            continue  # older: it gives way
        rivals = draft.rivals(version)
        # An absent rival may be late, after a restart; what serves with another root's consent does not wait for it.
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
            # What has opened while this root was away may not have been reported yet.
            reason = next((Settling(old) for old in record.era if not draft.compatible(old, version)), None)
        if reason is None and held and not report.vouched and not report.granted:
            reason = NewerGeneration(record.heard)
        if reason is None and not started and first is not None and not draft.compatible(first, version):
            reason = Contested(first)
        if first is None:
            first = version
        if reason is not None:
            reasons[version] = reason
            continue
        era, generation = draft.record.era, draft.record.generation
        if not all(draft.compatible(version, old) for old in era):
            generation, era = generation + 1, ()
        generation = max(generation, 1, report.generation if report.vouched or report.granted else 0)
        draft.set(generation=generation, era=tuple(sorted({*era, version})))
        draft.active[version] = report.stamp
    return reasons


def _blocker(draft: _Draft, version: str, newest: int) -> Reason | None:
    reports = draft.reports
    for other in sorted(draft.active):
        if not draft.compatible(other, version):
            if other not in reports:
                return Settling(other)
            if draft.settling and reports[other].remembered and reports[version].vouched:
                # It serves, and what it would wait for may have gone while this root was away: no answer closes nothing.
                return Asking()
            if reports[other].presumed:
                return PresumedStopped(other, reports[other].hosts)
            return StillRunning(other, reports[other].count, reports[other].hosts)
    if reports[version].vouched and reports[version].generation >= newest and version not in draft.recalled:
        # It serves, with another root's consent: to let it wait for what is closing would only close it too.
        return None
    for other in sorted(reports):
        if other != version and other in draft.record.closing and not draft.compatible(other, version):
            return Closing(other, reports[other].hosts)
    return None


def decide_route(
    holder: HolderRecord | None, reports: Mapping[str, Report], *, route: str, decided_by: str, settling: bool
) -> tuple[HolderRecord | None, dict[str, Reason]]:
    """Who holds `route` among the services in `facts`, and why each other service (or the new holder, yet) may not."""
    before = holder
    if holder is not None and holder.service not in reports and not settling:
        holder = None
    if not reports:
        return holder, {}
    if holder is None:
        holder = _hold(min(reports, key=lambda s: _order(s, reports)), reports)
    elif holder.service in reports:
        takers = [s for s in reports if s != holder.service and _takes_over(holder, s, reports)]
        if takers:
            holder = _hold(min(takers, key=lambda s: _order(s, reports)), reports)
        if reports[holder.service].open and not holder.confirmed:
            holder = replace(holder, confirmed=True)
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


def _takes_over(holder: HolderRecord, service: str, reports: Mapping[str, Report]) -> bool:
    """Another root has granted the route to `service` and refuses the holder, or `service` serves and this root has missed
    that (its disk is old or was lost): then more than half of those that claim the route say so, or the holder has never
    served."""
    mine, other = reports[holder.service], reports[service]
    if not mine.open and (other.majority or (other.open and not holder.confirmed)):
        return True
    evidence = other.granted & mine.refused  # one child alone can say the first, not the second
    return bool(evidence) and _order(service, reports) < _order(holder.service, reports)


def _order(service: str, reports: Mapping[str, Report]) -> tuple[int, bool, int, str]:
    """Who comes first where nothing on record decides."""
    report = reports[service]
    return -report.backing, not report.open, report.stamp, service
