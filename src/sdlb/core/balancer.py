"""One node's decisions: `handle(event, now)` returns what is to be done.

Everything is level-triggered. Events change facts (what sources claim, what parents say, what the engine confirmed) and
mark the claim keys that they touch; `_settle` then recomputes, for those keys only, the permit, the engine's members and
routes, and what each parent and child is owed. A message that is lost is made good by the next link's full state, and a
cost is always that of the change.

The loop and the simulator both drive this object; neither decides anything itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from sdlb.core import events as ev
from sdlb.core.children import Children
from sdlb.core.effects import Answered, Changed, Effect, Execute, Persist, RoutePut, Stopped, ToChild, ToParent
from sdlb.core.events import MemberKey
from sdlb.core.locals import Locals
from sdlb.core.messages import (
    ACTIVE,
    REFUSED,
    WAITING,
    Answer,
    Ask,
    Beat,
    Bye,
    ClaimKey,
    DownState,
    PolicyDoc,
    Refused,
    RootAnswer,
    UpState,
    Welcome,
)
from sdlb.core.parents import Parents
from sdlb.core.relay import LATECOMERS_S, PATIENCE_S, Relay
from sdlb.core.rootage import Rootage
from sdlb.core.settings import Settings
from sdlb.core.share import picks
from sdlb.core.slot import Permit, Slot, Source
from sdlb.core.state import State, key_of, text_of
from sdlb.core.uplink import Phase
from sdlb.core.view import View
from sdlb.model.route import Pattern

if TYPE_CHECKING:
    from random import Random

DIAL_WITHOUT_ENGINE_S = 5.0


class Balancer(View):
    def __init__(self, settings: Settings, saved: Mapping[str, object], rng: Random) -> None:
        self.settings = settings
        self._saved: Mapping[str, object] = saved
        self._state = State(settings, rng)
        self._children = Children(self._state)
        self._locals = Locals(self._state)
        self._relay = Relay()
        self._now = 0.0
        self._parents = Parents(self._state, 0.0)
        self._roots = Rootage(self._state, self._children)
        self._path: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._served: dict[str, None] = {}  # routes that have had capacity; durable
        self._held_back: dict[str, None] = {}  # routes of claims that wait, left to a less specific route meanwhile
        self._stopping = False
        self._stopped = False
        self._warm = False  # the engine has confirmed the table at least once

    # ------------------------------------------------------------------ start

    def start(self, now: float) -> list[Effect]:
        state = self._state
        self._now = now
        self._parents = Parents(state, now)
        self._parents.arm(now)
        self._load(now)
        state.set_timer(now + self.settings.beat_s, "beat")
        state.set_timer(now + DIAL_WITHOUT_ENGINE_S, "dial-all")
        if self._children.unsynced:
            state.set_timer(now + self.settings.lease_s + self.settings.fence_s, "settled")
        return self._finish(now)

    def _load(self, now: float) -> None:
        claims: dict[str, dict[str, object]] = {}
        children: dict[str, list[str | int]] = {}
        for name in sorted(self._saved):
            value = self._saved[name]
            kind, _, rest = name.partition("/")
            if kind == "policy":
                revision, origin, json = cast("tuple[int, str, str]", value)
                self._state.adopt_policy(PolicyDoc(rest, revision, origin, json))
            elif kind == "child":
                children[rest] = cast("list[str | int]", value)
            elif kind == "claim":
                child, _, key = rest.partition("/")
                claims.setdefault(child, {})[key] = value
            elif kind == "route":
                self._served[rest] = None
            elif kind == "instance":
                self._locals.load(cast("dict[str, object]", value), now)
        for name, value in children.items():
            self._children.load(name, value, claims.get(name, {}), now)
        for name, value in self._saved.items():
            kind, _, rest = name.partition("/")
            if kind == "service":
                self._roots.load_service(rest, cast("dict[str, object]", value))
            elif kind == "holder":
                self._roots.holders[rest] = str(value)
            elif kind == "permit" and not self.settings.is_root:
                self._load_permit(key_of(rest), cast("list[object]", value))
        self._served = {route: None for route in self._served if route in self._state.by_route}
        self._state.puts.clear()
        self._state.durable = False
        self._saved = {}

    def _load_permit(self, key: ClaimKey, value: list[object]) -> None:
        slot = self._state.slots.get(key)
        if slot is not None:
            slot.permit = Permit(ACTIVE, "", "", str(value[1]), int(cast("int", value[0])))
            slot.opened = slot.permit.generation
            slot.epoch = self._state.next_number()

    # ------------------------------------------------------------------ events

    def wake_at(self) -> float | None:
        return self._state.next_timer()

    def handle(self, event: ev.Event, now: float) -> list[Effect]:
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[ev.Event], now: float) -> list[Effect]:
        """Several events at once: the result is that of one after the other, with fewer messages."""
        gap = now - self._now
        if gap > self.settings.lease_s / 2:
            self._state.note("stalled", f"control did not run for {gap:.1f} s; leases are extended by it", "warning")
            self._children.shift(gap)
            self._locals.shift(gap)
        self._now = now
        for event in events:
            self._dispatch(event, now)
        for kind, name in self._state.due_timers(now):
            self._timer(kind, name, now)
        return self._finish(now)

    def _dispatch(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.Tick():
                pass
            case ev.ChildMessage():
                self._on_child_message(event, now)
            case ev.ParentMessage():
                self._on_parent_message(event, now)
            case ev.EngineApplied():
                self._touch_all(self._state.table.on_applied(event.epoch))
                self._warm_up(now)
            case ev.EngineDrained():
                key = self._state.table.on_drained(event.key, event.epoch)
                if key is not None:
                    self._touch_all([key])
                    self._locals.check_drained(event.key.target)
            case ev.InstancePut():
                self._locals.on_put(event, now)
            case ev.InstanceHealth():
                self._locals.on_health(event)
            case ev.InstanceDrain():
                self._locals.on_drain(event, now)
            case ev.InstanceRemove():
                self._locals.on_remove(event, now)
            case ev.InstanceGone():
                self._locals.on_gone(event)
            case ev.ChildConnected():
                ancestors, roots = self._parents.path()
                self._children.on_connected(event, now, ancestors, roots)
            case ev.ChildClosed():
                self._children.on_closed(event)
            case ev.ParentConnected():
                self._parents.on_connected(event, now)
            case ev.ParentClosed():
                self._on_parent_closed(event, now)
            case ev.EngineAttached():
                self._on_engine_attached(event, now)
            case ev.EngineRejected():
                self._state.table.on_rejected(event.epoch, now)
                self._state.set_timer(now + 1.0, "engine")
                self._state.note("engine-rejected", f"the engine refused epoch {event.epoch}: {event.reason}", "error")
            case ev.EngineLost():
                self._state.table.on_lost()
                self._state.note("engine-lost", "the connection to the engine is gone", "warning")
            case ev.EngineJoined():
                self._state.table.refresh()
            case ev.PolicyPut():
                self._on_policy(event.doc)
            case ev.ForgetChild():
                self._children.on_forget(event)
            case ev.AskUp():
                self._ask(Ask(event.id, event.method, event.path, event.body), None, now)
            case ev.AskDone():
                answer = RootAnswer(self.settings.name, event.status, event.body)
                if self._relay.answered("", Answer(event.id, (answer,))):
                    self._finish_ask(event.id)
            case ev.Stop():
                self._on_stop(event, now)

    def _on_child_message(self, event: ev.ChildMessage, now: float) -> None:
        child = self._children.by_link.get(event.link)
        if child is None:
            return  # of a link that we have dropped
        self._children.heard(child, now)
        match event.message:
            case UpState() as message:
                self._children.on_state(child, message)
            case Beat() as beat:
                self._children.on_beat(child, beat)
            case Ask() as ask:
                self._ask(ask, event.link, now)
            case Bye():
                self._children.on_bye(child)
            case _:
                self._state.note("protocol", f"{child.name} said Hello twice", "warning")

    def _on_parent_message(self, event: ev.ParentMessage, now: float) -> None:
        uplink = self._parents.links[event.parent]
        if uplink.phase not in (Phase.GREETING, Phase.UP):
            return  # of a link that we have hung up
        match event.message:
            case Welcome() as message:
                self._parents.on_welcome(uplink, message, now)
            case Refused() as message:
                self._parents.on_refused(uplink, message, now)
            case DownState() as message:
                uplink.heard(now)
                self._parents.on_state(uplink, message, now)
            case Beat() as beat:
                uplink.heard(now)
                self._parents.on_beat(uplink, beat, now)
            case Answer() as answer:
                if self._relay.answered(event.parent, answer):
                    self._finish_ask(answer.id)
                elif answer.answers:
                    self._state.set_timer(now + LATECOMERS_S, "ask", answer.id)

    def _on_parent_closed(self, event: ev.ParentClosed, now: float) -> None:
        self._parents.on_closed(event, now)
        for ask_id in self._relay.lost(event.parent):
            self._finish_ask(ask_id)

    def _on_engine_attached(self, event: ev.EngineAttached, now: float) -> None:
        table = self._state.table
        self._touch_all(table.on_attached(event, now, self.settings.lease_s))
        if table.keep_until is not None:
            text = "the engine has routes that this control knows nothing of; keeping them for one lease"
            self._state.note("engine-kept", text, "warning")
            self._state.set_timer(table.keep_until, "engine")
        self._warm = False

    def _warm_up(self, now: float) -> None:
        if not self._warm:
            self._warm = True
            if self._state.table.keep_until is None:  # else those below are to tell first what there is ("dial-all")
                self._parents.start_dialing(now)
            self._locals.resume_drains(now)

    def _on_policy(self, doc: PolicyDoc) -> None:
        known = self._state.policies.get(doc.service)
        revision = doc.revision or (known.revision + 1 if known is not None else 1)
        origin = doc.origin or self.settings.name
        if self._state.adopt_policy(PolicyDoc(doc.service, revision, origin, doc.json)):
            self._state.note("policy-set", f"the policy of {doc.service} was changed", service=doc.service)

    def _touch_all(self, keys: Iterable[ClaimKey]) -> None:
        for key in keys:
            self._state.touch(key)

    # ------------------------------------------------------------------ time

    def _timer(self, kind: str, name: str, now: float) -> None:
        match kind:
            case "beat":
                self._parents.beat()
                for link in sorted(self._children.by_link):
                    self._state.effects.append(ToChild(link, self._children.by_link[link].beat()))
                self._parents.flush(self._measure, damped=False)
                self._state.set_timer(now + self.settings.beat_s, "beat")
            case "child":
                self._children.check(name, now)
            case "parent":
                self._parents.check_lease(name, now)
            case "greeting":
                self._parents.check_greeting(name, now)
            case "dial":
                if not self._stopped:
                    self._parents.dial(name, now)
            case "dial-all":
                self._parents.start_dialing(now)
            case "instance":
                self._locals.check_lease(name, now)
            case "drain":
                self._locals.check_drain(name, now)
            case "settled":
                for child in sorted(self._children.unsynced):
                    self._children.mark_synced(child)
            case "hold":
                self._state.dirty_services[name] = None
            case "ask":
                self._finish_ask(name)
            case "stop":
                self._finish_stop(clean=False)
            case _:
                pass  # "engine": settling below sends what waits

    # ------------------------------------------------------------------ asks

    def _ask(self, ask: Ask, link: int | None, now: float) -> None:
        done = self._relay.done(ask.id)
        if done is not None:
            if link is not None:
                self._state.effects.append(ToChild(link, done))
            return
        if self.settings.is_root:
            if self._relay.add(ask.id, link, {""}, now):
                self._state.effects.append(Execute(ask.id, ask.method, ask.path, ask.body))
                self._state.set_timer(now + PATIENCE_S, "ask", ask.id)
            return
        up = {parent for parent, uplink in self._parents.links.items() if uplink.phase is Phase.UP}
        if self._relay.add(ask.id, link, up, now):
            self._state.effects += [ToParent(parent, ask) for parent in sorted(up)]
            if up:
                self._state.set_timer(now + PATIENCE_S, "ask", ask.id)
            else:
                self._finish_ask(ask.id)

    def _finish_ask(self, ask_id: str) -> None:
        expected = {root for uplink in self._parents.links.values() for root in uplink.roots}
        expected |= {u.name or u.parent for u in self._parents.links.values() if not u.roots}
        if self.settings.is_root:
            expected = {self.settings.name}
        finished = self._relay.finish(ask_id, expected)
        if finished is None:
            return
        pending, answer = finished
        for link in pending.links:
            if link in self._children.by_link:
                self._state.effects.append(ToChild(link, answer))
        if pending.local:
            self._state.effects.append(Answered(ask_id, answer.answers, answer.unreachable))

    # ------------------------------------------------------------------ stop

    def _on_stop(self, event: ev.Stop, now: float) -> None:
        if not self._stopping:
            self._stopping = True
            self._state.note("stopping", f"{self.settings.name} is draining")
            self._state.set_timer(now + event.deadline_s, "stop")
            self._touch_all(self._state.slots)

    def _finish_stop(self, clean: bool) -> None:
        if not self._stopped:
            self._stopped = True
            self._parents.say_bye()
            self._state.effects.append(Stopped(clean))

    # ------------------------------------------------------------------ settling

    def _finish(self, now: float) -> list[Effect]:
        state = self._state
        self._settle(now)
        delta = state.table.next_delta(now)
        path = self._parents.path()
        path_changed = path != self._path
        self._path = path
        for service in state.new_policies:
            self._parents.owe_policy(service)
            self._children.owe_policy(service)
        state.new_policies.clear()
        self._parents.flush(self._measure, damped=True)
        self._children.flush(path, path_changed)
        if self._stopping and not self._stopped and self._all_out():
            self._finish_stop(clean=True)
        effects: list[Effect] = []
        if state.puts:
            effects.append(Persist(state.puts, state.durable))
            state.puts, state.durable = {}, False
        if delta is not None:
            effects.append(delta)
        effects += state.effects
        if state.changed_instances or state.changed_services:
            effects.append(Changed(tuple(state.changed_instances), tuple(state.changed_services)))
        state.effects = []
        state.changed_instances, state.changed_services = {}, {}
        return effects

    def _settle(self, now: float) -> None:
        """Decisions change permits, and a permit that is taken back can change a decision: until nothing is left."""
        state = self._state
        if self._children.just_settled:
            self._children.just_settled = False
            self._roots.look_again()
        routes: dict[str, None] = {}
        while state.dirty or state.dirty_routes or state.dirty_services:
            routes.update(state.dirty_routes)
            if self.settings.is_root:
                self._roots.decide(now)
            else:
                state.dirty_routes.clear()
                state.dirty_services.clear()
            keys = state.dirty
            state.dirty = {}
            for key in keys:
                routes[key.route] = None
                state.changed_services[key.service] = None
                self._settle_slot(key, now)
        for route in routes:
            self._settle_route(route)

    def _settle_slot(self, key: ClaimKey, now: float) -> None:
        state = self._state
        slot = state.slots.get(key)
        if slot is None:
            self._parents.owe(key)
            return
        before = slot.permit, slot.epoch
        self._settle_permit(slot, now)
        self._settle_members(slot, now)
        for target in list(slot.sources):
            if target.startswith("i:"):
                self._locals.check_drained(target)
        self._parents.owe(key)
        self._children.owe(slot, news=(slot.permit, slot.epoch) != before)
        if not slot.sources:
            if not self.settings.is_root and slot.active:
                state.persist(f"permit/{text_of(key)}", None)
            state.forget_slot(key)
            self._parents.forget(key)

    def _settle_permit(self, slot: Slot, now: float) -> None:
        state = self._state
        permit = self._roots.permit(slot) if self.settings.is_root else self._parents.permit(slot, now)
        old = slot.permit
        if permit == old:
            return
        slot.permit = permit
        if (permit.state == ACTIVE) != (old.state == ACTIVE) or permit.generation != old.generation or not slot.epoch:
            slot.epoch = state.next_number()
        if permit.state == ACTIVE:
            slot.opened = permit.generation
        elif old.state == ACTIVE:
            slot.revoked_epoch = slot.epoch
            state.dirty_routes[slot.key.route] = None
            state.dirty_services[slot.key.service] = None
        if not self.settings.is_root and ACTIVE in (permit.state, old.state):
            value = [permit.generation, permit.decided_by] if permit.state == ACTIVE else None
            state.persist(f"permit/{text_of(slot.key)}", value)
        if permit.state != old.state and slot.sources:
            name = f"{slot.key.service}-{slot.key.version}"
            why = f": {permit.reason}" if permit.reason else ""
            code = {ACTIVE: "claim-active", REFUSED: "claim-refused", WAITING: "claim-waiting"}[permit.state]
            state.note(code, f"{name} on {slot.key.route} is {permit.state}{why}", service=slot.key.service)

    def _settle_members(self, slot: Slot, now: float) -> None:
        """Which sources are in the engine: make before break upwards, break after the parents let go downwards."""
        table, key = self._state.table, slot.key
        serving = slot.active and not self._stopping
        stable = serving and any(
            not s.claim.leaving and not s.suspect and s.claim.capacity and table.applied(MemberKey(key, s.target))
            for s in slot.sources.values()
        )
        goers = [
            s.target
            for s in slot.sources.values()
            if (s.claim.leaving or not serving) and table.present(MemberKey(key, s.target))
        ]
        if goers and not stable and not self.settings.is_root:
            if not slot.leaving:
                slot.leaving = self._state.next_number()
                slot.acked.clear()
            free = self._parents.drained(slot, now)
        else:
            slot.leaving = 0
            free = True
        for target in sorted({*slot.members, *slot.sources}):
            source = slot.sources.get(target)
            member = MemberKey(key, target)
            if source is not None and serving and not source.claim.leaving and source.claim.capacity > 0:
                table.want(member, source.claim.capacity, source.suspect, self._is_far(source))
                slot.members.add(target)
            elif source is not None and target in goers and not free and not source.forced and target in slot.members:
                pass  # the parents still send through here
            elif target in slot.members:
                table.unwant(member)
                slot.members.discard(target)

    def _measure(self, slot: Slot) -> tuple[int, bool, bool]:
        """For the parents: capacity that can be served now, whether more is on its way, whether anything may be in flight."""
        table = self._state.table
        capacity, opening, present = 0, False, False
        for source in slot.sources.values():
            member = MemberKey(slot.key, source.target)
            present = present or table.present(member)
            if source.claim.leaving or self._stopping:
                continue
            if table.applied(member):
                capacity += source.claim.capacity
            elif source.claim.capacity:
                # also before the permit: an entry whose own verdict is out parks from that moment
                opening = True
            opening = opening or source.claim.opening
        return capacity, opening, present

    def _is_far(self, source: Source) -> bool:
        """In another zone than this node, as far as both say where they are (the label `zone`)."""
        child = self._children.by_name.get(source.child) if source.child else None
        here = dict(self.settings.labels).get("zone")
        there = next((label[5:] for label in child.labels if label.startswith("zone=")), None) if child else here
        return here is not None and there is not None and here != there

    def _settle_route(self, route: str) -> None:
        state = self._state
        slots = [state.slots[key] for key in state.by_route.get(route, ())]
        slots = [slot for slot in slots if slot.permit.state != REFUSED]
        self._held_back.pop(route, None)
        if not slots:
            state.table.set_route(route, None)
            if self._served.pop(route, 0) is None:
                state.persist(f"route/{route}", None, durable=False)
            for other in [other for other in self._held_back if not self._served_by_wider(other)]:
                self._settle_route(other)
            return
        # While two services are being sorted out, the one that serves has the route, else the earlier one.
        service = min(slots, key=lambda s: (not s.active, s.stamp(), s.key.service)).key.service
        mine = [slot for slot in slots if slot.key.service == service]
        capacity = {s.key.version: sum(x.claim.capacity for x in s.sources.values()) for s in mine if s.active}
        if route not in self._served:
            if any(capacity.values()):
                self._served[route] = None
                state.persist(f"route/{route}", True, durable=False)
            elif state.table.route(route) is None and self._served_by_wider(route):
                self._held_back[route] = None
                return
        policy = state.policy(service)
        expected = any(not slot.active or self._measure(slot)[1] for slot in mine)
        sticky = policy.sticky
        state.table.set_route(
            route,
            RoutePut(
                route,
                service,
                picks(policy, capacity),
                policy.park.requests_max if expected else 0,
                policy.park.timeout_s if expected else 0.0,
                sticky.by if sticky is not None else "",
                sticky.name if sticky is not None else "",
            ),
        )

    def _served_by_wider(self, route: str) -> bool:
        """What has never served takes nothing away from what a less specific route serves."""
        table = self._state.table
        return any(table.route(str(pattern)) is not None for pattern in Pattern.parse(route).wider())

    def _all_out(self) -> bool:
        table = self._state.table
        if any(slot.members for slot in self._state.slots.values()):
            return self.settings.is_root
        keys = ((MemberKey(slot.key, target)) for slot in self._state.slots.values() for target in slot.sources)
        return not any(table.present(member) for member in keys)
