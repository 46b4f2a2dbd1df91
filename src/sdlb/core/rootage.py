"""The decisions of a root, kept for all services: facts from the slots, rules from `authority`, records for the disk."""

from __future__ import annotations

from typing import cast

from sdlb.core.authority import Compatible, Facts, ServiceRecord, decide_route, decide_service
from sdlb.core.children import Children
from sdlb.core.events import MemberKey
from sdlb.core.messages import ACTIVE, REFUSED, WAITING
from sdlb.core.slot import HOSTS_MAX, Permit, Slot
from sdlb.core.state import State
from sdlb.model.reason import Reason


class Rootage:
    def __init__(self, state: State, children: Children) -> None:
        self._state = state
        self._children = children
        self.records: dict[str, ServiceRecord] = {}
        self.holders: dict[str, str] = {}
        self._route_reasons: dict[str, dict[str, Reason]] = {}
        self._version_reasons: dict[str, dict[str, Reason]] = {}
        self._again_routes: dict[str, None] = {}
        self._again_services: dict[str, None] = {}

    def load_service(self, service: str, saved: dict[str, object]) -> None:
        record = ServiceRecord.from_json(saved)
        self.records[service] = record
        # What was recalled before the restart may not have been confirmed: treat it as not confirmed.
        for key in self._state.by_service.get(service, ()):
            if key.version in record.closing or key.version in record.active:
                slot = self._state.slots[key]
                slot.epoch = slot.revoked_epoch = self._state.next_number()

    @property
    def settling(self) -> bool:
        return bool(self._children.unsynced)

    # ------------------------------------------------------------------ deciding

    def look_again(self) -> None:
        """At all there is on record, also at what nobody claims any more."""
        self._state.dirty_services.update(dict.fromkeys(self.records))
        self._state.dirty_routes.update(dict.fromkeys(self.holders))

    def decide(self, now: float) -> None:
        """For what was touched. What was taken from somebody is looked at again once its permits have followed."""
        state = self._state
        self._again_routes.clear()
        self._again_services.clear()
        for route in list(state.dirty_routes):
            self._decide_route(route)
        for service in list(state.dirty_services):
            self._decide_service(service, now)
        state.dirty_routes.clear()
        state.dirty_services.clear()
        state.dirty_routes.update(self._again_routes)
        state.dirty_services.update(self._again_services)

    def _decide_route(self, route: str) -> None:
        state = self._state
        slots: dict[str, list[Slot]] = {}
        for key in state.by_route.get(route, ()):
            if state.slots[key].sources:
                slots.setdefault(key.service, []).append(state.slots[key])
        facts = {service: self._facts(each) for service, each in slots.items()}
        before = self.holders.get(route)
        holder, reasons = decide_route(
            before, facts, route=route, decided_by=state.settings.name, settling=self.settling
        )
        if holder != before:
            if holder is None:
                self.holders.pop(route, None)
            else:
                self.holders[route] = holder
            state.persist(f"holder/{route}", holder)
            if before is not None:
                self._again_routes[route] = None
        if reasons != self._route_reasons.get(route, {}):
            for service in slots:
                state.dirty_services[service] = None
        if reasons:
            self._route_reasons[route] = reasons
        else:
            self._route_reasons.pop(route, None)

    def _decide_service(self, service: str, now: float) -> None:
        state = self._state
        slots: dict[str, list[Slot]] = {}
        for key in state.by_service.get(service, ()):
            slot = state.slots[key]
            if slot.sources and self._refusal(slot) is None:
                slots.setdefault(key.version, []).append(slot)
        record = self.records.get(service)
        if record is None:
            if not slots:
                return
            record = self.records[service] = ServiceRecord()
        before = record.to_json()
        held = record.hold_until
        facts = {version: self._facts(each) for version, each in slots.items()}
        hold_s = state.settings.lease_s + state.settings.fence_s
        reasons = decide_service(
            record, facts, self._compatible(service, slots), now=now, settling=self.settling, hold_s=hold_s
        )
        after = record.to_json()
        if after != before:
            state.persist(f"service/{service}", after)
            self._tell(service, before, after)
            if after["closing"] != before["closing"]:
                self._again_services[service] = None
        if record.hold_until > held:
            state.set_timer(record.hold_until, "hold", service)
        self._version_reasons[service] = reasons
        for key in state.by_service.get(service, ()):
            if self.permit(state.slots[key]) != state.slots[key].permit:
                state.dirty[key] = None

    def _tell(self, service: str, before: dict[str, object], after: dict[str, object]) -> None:
        old, new = cast("dict[str, object]", before["active"]), cast("dict[str, object]", after["active"])
        if set(old) != set(new):
            names = ", ".join(sorted(new)) or "nothing"
            text = f"{service}: {names} active (generation {after['generation']})"
            self._state.note("active-set", text, service=service)

    def _facts(self, slots: list[Slot]) -> Facts:
        """Over all the slots of one version of a service, or of one service on a route."""
        table = self._state.table
        present = any(table.present(MemberKey(s.key, target)) for s in slots for target in s.sources)
        is_open = present or any(s.open_below() for s in slots)
        sources = [source.claim for s in slots for source in s.sources.values()]
        generations = [c.generation for c in sources if c.open or not is_open]
        per_route = [s.count() for s in slots]  # an instance with several routes counts once
        return Facts(
            stamp=min((s.stamp() for s in slots), default=0),
            count=max(per_route, default=0),
            open=is_open,
            may_be_open=is_open or any(s.may_be_open_below() for s in slots),
            granted=is_open or any(c.granted for c in sources),
            generation=max(generations, default=0),
            hosts=tuple(sorted({host for s in slots for host in s.hosts()})[:HOSTS_MAX]),
            presumed=all(c.presumed for c in sources),
        )

    def _compatible(self, service: str, slots: dict[str, list[Slot]]) -> Compatible:
        rules = self._state.policy(service).compatibility
        declared = {v: tuple(sorted({c for s in each for c in s.compatible()})) for v, each in slots.items()}

        def compatible(a: str, b: str) -> bool:
            return rules.compatible(a, b, declared.get(a, ()), declared.get(b, ()))

        return compatible

    # ------------------------------------------------------------------ the outcome for one key

    def _refusal(self, slot: Slot) -> Reason | None:
        reason = self._route_reasons.get(slot.key.route, {}).get(slot.key.service)
        return reason if self.holders.get(slot.key.route) != slot.key.service else None

    def permit(self, slot: Slot) -> Permit:
        key, node = slot.key, self._state.settings.name
        record = self.records.get(key.service)
        generation = record.generation if record is not None else 0
        refusal = self._refusal(slot)
        if refusal is not None:
            return Permit(REFUSED, refusal.code, str(refusal), node, generation)
        reason = self._route_reasons.get(key.route, {}).get(key.service)
        if reason is None and record is not None and key.version in record.active:
            return Permit(ACTIVE, "", "", node, generation)
        reason = reason or self._version_reasons.get(key.service, {}).get(key.version)
        if reason is None:
            return Permit(WAITING, "asking", "no decision yet", node, generation)
        return Permit(WAITING, reason.code, str(reason), node, generation)
