"""What other policy documents would change: states of versions and shares of services. Nothing is decided here.

The rules are those that decide (`decisions.decide_service`, `share.picks`), on this root's record and on what is reported now.
They run with the policy in force and with the other one, so that only what the policy changes shows as a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from sdlb.core.decisions import Guard, Report, ServiceRecord, decide_service
from sdlb.core.messages import ACTIVE, REFUSED, WAITING
from sdlb.core.openings import barred_by_policy
from sdlb.core.share import Overlay, overlay, percentages, picks
from sdlb.core.slot import Slot
from sdlb.core.state import State
from sdlb.model.policy import Policy
from sdlb.model.policy_layers import Layers
from sdlb.model.reason import Reason


class Seen(Struct, frozen=True):
    """What a root knows of a service. `declared`: version -> declarations of compatibility. `capacity`: of the versions that
    serve. `over`: the share that a rollout lays over the policy."""

    record: ServiceRecord
    reports: Mapping[str, Report]
    declared: Mapping[str, tuple[str, ...]]
    capacity: Mapping[str, int]
    over: Overlay | None = None


def preview(
    state: State, records: Mapping[str, ServiceRecord], layers: Layers, services: Iterable[str]
) -> list[dict[str, Any]]:
    """The services that would change: `{"service", "versions": [...], "shares": [...]}`."""
    found: list[dict[str, Any]] = []
    for service in services:
        before, after = state.policy(service), layers.of(service)
        if service in state.by_service and before != after:
            seen = _seen(state, service, records.get(service, ServiceRecord()))
            versions, shares = versions_changed(seen, before, after), shares_changed(seen, before, after)
            if versions or shares:
                found.append({"service": service, "versions": versions, "shares": shares})
    return found


def _seen(state: State, service: str, record: ServiceRecord) -> Seen:
    slots: dict[str, list[Slot]] = {}
    for key in state.by_service[service]:
        slot = state.slots[key]
        if slot.sources and slot.permit.state != REFUSED:
            slots.setdefault(key.version, []).append(slot)
    return Seen(
        record,
        {version: _report(each, record, version) for version, each in slots.items()},
        {
            version: tuple(sorted({text for slot in each for text in slot.compatible()}))
            for version, each in slots.items()
        },
        {
            version: max(slot.sums.capacity for slot in each)
            for version, each in slots.items()
            if version in record.active
        },
        overlay(state.targets.get(service)),
    )


def _report(slots: list[Slot], record: ServiceRecord, version: str) -> Report:
    stamp = min(slot.permit.stamp for slot in slots)
    active = version in record.active
    return Report(
        stamp=stamp,
        own=stamp,
        count=max(slot.count() for slot in slots),
        open=any(slot.open() for slot in slots),
        may_be_open=any(slot.open() or slot.may_be_open_below() for slot in slots),
        vouched=active,
        generation=record.generation if active else 0,
        hosts=tuple(sorted({host for slot in slots for host in slot.hosts()})),
    )


def decided(seen: Seen, policy: Policy) -> tuple[set[str], dict[str, Reason]]:
    """The versions that would be active under a policy, apart from gates, and why each other one would wait."""
    rules = policy.compatibility

    def compatible(a: str, b: str) -> bool:
        return rules.compatible(a, b, seen.declared.get(a, ()), seen.declared.get(b, ()))

    barred = {v: barred_by_policy(policy, v, seen.record) for v in seen.reports if v not in seen.record.active}
    guard = Guard({version: reason for version, reason in barred.items() if reason is not None})
    record, reasons = decide_service(
        seen.record, seen.reports, compatible, now=0.0, settling=False, hold_s=0.0, guard=guard
    )
    return set(record.active), reasons


def versions_changed(seen: Seen, before: Policy, after: Policy) -> list[dict[str, str]]:
    was, _ = decided(seen, before)
    now, reasons = decided(seen, after)
    if before.gates and not after.gates:  # they keep versions waiting that the other rules would open
        was &= set(seen.record.active)
    found: list[dict[str, str]] = []
    for version in sorted(was ^ now):
        state = ACTIVE if version in seen.record.active else WAITING
        if version in now:
            found.append({"version": version, "before": state, "after": ACTIVE, "reason": ""})
        else:
            reason = str(reasons.get(version, ""))
            found.append({"version": version, "before": state, "after": WAITING, "reason": reason})
    return found


def shares_changed(seen: Seen, before: Policy, after: Policy) -> list[dict[str, Any]]:
    """Percent of the new requests of each version that serves now."""
    stay, _ = decided(seen, after)
    left = {version: capacity for version, capacity in seen.capacity.items() if version in stay}
    was = percentages(picks(before, seen.capacity, seen.over), seen.capacity)
    now = percentages(picks(after, left, seen.over), left)
    return [
        {"version": version, "before": round(was.get(version, 0.0), 2), "after": round(now.get(version, 0.0), 2)}
        for version in sorted({*was, *now})
        if round(was.get(version, 0.0), 2) != round(now.get(version, 0.0), 2)
    ]
