"""The agent of a node: brings each service of its roles to the version that the target names, one node's part of a rollout.

`agent_steps.py` has the rules. This module collects what they need (the target, the driver's answers, the instances), saves the
record of each entry ROLE/SERVICE before it acts on it, calls the driver, registers instances and asks for slots. After a restart
it asks the driver what runs, and goes on from the record.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.core import agent_steps as steps
from sdlb.core.agent_places import Call, Runtime, no_answer, pause_s
from sdlb.core.agent_saved import record_from, record_to
from sdlb.core.agent_steps import ASKED, DRAIN, EMPTY, HELD, PLACES, RUN, Facts, Fetch, Place, Record, Seen
from sdlb.core.effects import RunDriver
from sdlb.core.events import DriverDone, FiguresCounted, InstanceGone, InstancePut, InstanceRemove
from sdlb.core.figures import OwnFigures
from sdlb.core.instance import AGENT, Instance, Life
from sdlb.core.messages import TARGET
from sdlb.model.instance import InstanceSpec
from sdlb.model.role import Container, Program, RoleService
from sdlb.model.rollout import (
    FAIL,
    FAILED,
    GIVE_BACK,
    HOLDING,
    QUEUED,
    REVERTING,
    TAKE,
    UNUSED,
    VERIFYING,
    RoleReport,
    RolloutSpec,
    SlotAsk,
    SlotReport,
    Target,
    position,
)

if TYPE_CHECKING:
    from sdlb.core.forwarding import Forwarder
    from sdlb.core.local_instances import LocalInstances
    from sdlb.core.reports import Reports
    from sdlb.core.state import State
    from sdlb.model.rollout import SlotAnswer

ASK_AGAIN_S = 5.0
"""Pause before the owner of a rollout is asked again that could not be reached."""
SPREAD_S_MAX = 10.0
"""Requests for a slot that were refused together are spread over half of that time when they are repeated."""
ASK_SPREAD_S = 1.0
"""Nodes that may ask for a slot because a rollout has taken a step do so within this time."""
CALL_S = 60.0
"""Time that a call of the driver may take, besides what the role allows the program."""
DETAIL_CHARS_MAX = 4000


class _Entry(Struct):
    name: str
    role: RoleService
    record: Record = Record()
    places: dict[str, Runtime] = field(default_factory=lambda: {name: Runtime(fresh=True) for name in PLACES})
    known: bool = False  # the driver has reported both places since the start of this control
    fetching: Call | None = None
    fetch: Fetch = Fetch()
    fetch_fails: int = 0
    fetch_due: float = 0.0
    ask_due: float = 0.0
    attempt: str = ""  # of the rollout, as last seen


class Agents:
    def __init__(self, state: State, local: LocalInstances, reports: Reports, forwarder: Forwarder) -> None:
        self._state = state
        self._forwarder = forwarder
        self._local = local
        self._reports = reports
        self._entries = {f"{r.role}/{r.service}": _Entry(f"{r.role}/{r.service}", r) for r in state.settings.roles}
        self.figures = OwnFigures(state, self._instances)
        self._targets: dict[str, Target] = {}  # service -> as last read
        self._asking: dict[str, tuple[str, str]] = {}  # service -> (entry, what) of the question in progress
        self._due: dict[str, None] = {}
        self._reported: dict[str, RoleReport | None] = {}
        self._could_write = True
        self._started_s = 0.0

    def load(self, name: str, value: object) -> None:
        """`name`: ROLE/SERVICE."""
        entry = self._entries.get(name)
        if entry is not None:  # else it was taken out of the node file, and may come back
            entry.record = record_from(value)

    def start(self, now: float) -> None:
        """After the saved state was loaded."""
        self._started_s = self._state.wall_s
        self.figures.start()
        for name in self._entries:
            self._state.set_timer(now, "agent", name)
            self._drop_stale(self._entries[name])

    # ------------------------------------------------------------------ events

    def on_target(self, service: str, now: float) -> None:
        """The target of a service has changed."""
        before = self._targets.get(service)
        rollout = self._target(service).rollout
        moved = before is not None and _stage(before) != _stage(self._target(service))
        for entry in self._entries.values():
            if moved and entry.role.service == service and entry.record.phase == QUEUED:
                entry.ask_due = now + self._state.rng.uniform(0.0, ASK_SPREAD_S)  # more nodes may be updated now
            if entry.role.service == service and rollout is not None and rollout.attempt != entry.attempt:
                entry.attempt = rollout.attempt
                entry.fetch, entry.fetch_fails, entry.fetch_due = Fetch(), 0, 0.0  # the artifact may be there now
        self.figures.review(service)
        self._mark(service)
        self._report(service)

    def on_figures(self, event: FiguresCounted) -> None:
        self.figures.counted(event)
        self._report(event.service)

    def on_driver(self, event: DriverDone, now: float) -> None:
        entry, place = self._called(event.key)
        if entry is None:
            return  # of a call that this control did not make, or has given up
        self._due[entry.name] = None
        if place is None:
            self._on_prepared(entry, event, now)
            return
        runtime = entry.places[place]
        call, runtime.call = runtime.call, None
        assert call is not None
        if event.fault:
            runtime.failed(call, event, now)
            return
        if call.call == "stop":
            entry.places[place] = Runtime("absent")
            ran = runtime.status in ("running", "pausing")
            self._put(entry, steps.emptied(entry.record, place, event.log if ran else ()))
            self._gone(entry, call.version, place)
        else:
            runtime.reported(call, event, now)

    def _called(self, key: str) -> tuple[_Entry | None, str | None]:
        for entry in self._entries.values():
            if entry.fetching is not None and entry.fetching.key == key:
                return entry, None
            for name, runtime in entry.places.items():
                if runtime.call is not None and runtime.call.key == key:
                    return entry, name
        return None, None

    def _on_prepared(self, entry: _Entry, event: DriverDone, now: float) -> None:
        call, entry.fetching = entry.fetching, None
        assert call is not None
        if not event.fault:
            entry.fetch, entry.fetch_fails, entry.fetch_due = Fetch(), 0, 0.0
            self._put(entry, replace(entry.record, prepared=call.version))
            return
        entry.fetch_fails += 1
        entry.fetch_due = now + pause_s(entry.fetch_fails)
        entry.fetch = Fetch(call.version, event.detail, event.retry, event.log)

    def on_answer(self, service: str, answer: SlotAnswer | None, now: float) -> None:
        """The owner's answer to a SlotAsk. None: it could not be asked."""
        name, what = self._asking.pop(service, ("", ""))
        entry = self._entries.get(name)
        if entry is None:
            return
        for each in self._entries:  # another service may wait for this one
            self._state.set_timer(now, "agent", each)
        retry_s = ASK_AGAIN_S if answer is None else max(answer.retry_s, 0.5)
        entry.ask_due = now + retry_s + min(retry_s, SPREAD_S_MAX) * self._state.rng.uniform(-0.25, 0.25)
        record = entry.record
        if what == TAKE:
            if answer is not None and answer.granted and record.slot == ASKED:
                text = f"{record.slot_rollout}: {self._state.settings.name} may take {service} out"
                self._state.note("slot-granted", text, service=service, rollout=record.slot_rollout)
                self._put(entry, replace(record, slot=HELD))
            elif answer is not None and record.phase == QUEUED:
                entry.record = replace(record, detail=answer.why)
            return
        active = self._target(service).active
        if answer is not None or active is None or active.id != record.slot_rollout:
            entry.ask_due = 0.0
            self._put(entry, replace(record, slot=steps.NONE, slot_rollout=""))

    def on_timer(self, name: str, now: float) -> None:
        """`name`: ROLE/SERVICE."""
        self._due[name] = None

    def settle(self, now: float) -> None:
        """After each batch of events: instances of this node may have changed."""
        if not (self._entries or self._reported or self._state.policies.names(TARGET)):
            return  # the usual case: this node has no roles, and no service has a target
        changed, can_write = self._state.changed_services, self._state.can_write
        if can_write != self._could_write:
            self._could_write = can_write
            self._due.update(dict.fromkeys(self._entries))
        if changed:
            for entry in self._entries.values():
                if entry.role.service in changed:
                    self._due[entry.name] = None
        for name in [name for name in self._entries if name in self._due]:
            self._advance(self._entries[name], now)
        services = {name.partition("/")[2]: None for name in self._due} | changed
        self._due.clear()
        for service in services:
            self._report(service)

    # ------------------------------------------------------------------ one entry

    def _mark(self, service: str) -> None:
        self._due.update({name: None for name, entry in self._entries.items() if entry.role.service == service})

    def _target(self, service: str) -> Target:
        """The last one that could be read."""
        found = self._state.targets.get(service)
        if found is not None:
            self._targets[service] = found
        return self._targets.get(service) or Target(service)

    def _put(self, entry: _Entry, record: Record) -> None:
        """Changes the record and saves it, before anything that follows from it is done."""
        if record != entry.record:
            entry.record = record
            self._state.persist(f"agent/{entry.name}", record_to(record))

    def _advance(self, entry: _Entry, now: float) -> None:
        wakes: list[float] = []
        self._give_up_calls(entry, now, wakes)
        self._watch(entry, now)
        if not entry.known:
            entry.known = all(runtime.status for runtime in entry.places.values())
        if entry.known:
            self._take_step(entry, now, wakes)
        for name in PLACES:
            self._carry_out(entry, name, now, wakes)
        if entry.known:
            self._ask(entry, now, wakes)
        if wakes:
            self._state.set_timer(min(wakes), "agent", entry.name)
        else:
            self._state.clear_timer("agent", entry.name)

    def _take_step(self, entry: _Entry, now: float, wakes: list[float]) -> None:
        before, service = entry.record, entry.role.service
        outcome = steps.advance(before, self._facts(entry, now))
        for runtime in entry.places.values():
            runtime.broke = 0
        for name in PLACES:
            if outcome.record.places[name].intent != before.places[name].intent:
                entry.places[name].begin_anew()
        if outcome.record.phase == QUEUED != before.phase:
            entry.ask_due = 0.0
        self._put(entry, outcome.record)
        if outcome.record.places != before.places:
            self._drop_stale(entry)
        rollout = self._target(service).rollout
        for code, text, level in outcome.notes:
            self._state.note(code, text, level, service=service, rollout=rollout.id if rollout is not None else "")
        wakes += [now + wake_s for wake_s in outcome.wakes]
        if outcome.prepare:
            self._prepare(entry, outcome.prepare, now, wakes)

    def _facts(self, entry: _Entry, now: float) -> Facts:
        state, target = self._state, self._target(entry.role.service)
        active = target.active
        return Facts(
            state.settings.name,
            target,
            state.wall_s,
            self._started_s,
            active is None
            or position(active.id, state.settings.name, active.zones, state.settings.zone or "") < active.cursor,
            entry.role.side_by_side,
            state.can_write and not state.stopping,
            {name: self._seen(entry, name, now) for name in PLACES},
            entry.fetch,
        )

    def _seen(self, entry: _Entry, name: str, now: float) -> Seen:
        runtime, place = entry.places[name], entry.record.places[name]
        instance = self._instance(entry, place.version, name)
        return Seen(
            runtime.status,
            runtime.version,
            runtime.port,
            runtime.fails,
            runtime.fault,
            runtime.detail or (instance.detail if instance is not None else ""),
            runtime.retry,
            runtime.log,
            instance is not None,
            instance is not None and self._is_active(instance),
            None if runtime.up_since is None else now - runtime.up_since,
            runtime.broke,
            runtime.ended,
            now - runtime.lost_at if runtime.lost else None,
        )

    def _watch(self, entry: _Entry, now: float) -> None:
        """Since when each program is healthy without a break."""
        for name, runtime in entry.places.items():
            instance = self._instance(entry, entry.record.places[name].version, name)
            runtime.watch(runtime.status == "running" and instance is not None and _is_up(instance), now)

    # ------------------------------------------------------------------ instances

    def _id(self, entry: _Entry, version: str, place: str) -> str:
        role = entry.role
        return f"{role.service}-{version}.{self._state.settings.name}.{role.role}-{place}"

    def _instance(self, entry: _Entry, version: str, place: str) -> Instance | None:
        """The registration of this version, also while it drains."""
        if not version:
            return None
        name = self._id(entry, version, place)
        return self._local.by_id.get(name) or next(iter(self._local.former(name)), None)

    def _gone(self, entry: _Entry, version: str, place: str) -> None:
        name = self._id(entry, version, place)
        if version and name in self._local.by_id:
            self._local.on_gone(InstanceGone(name, "it was stopped", AGENT))

    def _drop_stale(self, entry: _Entry) -> None:
        """Drops registrations of versions that are not in their place: after a power loss, or with an older copy of the state. The
        program at their endpoint is another one, or gone."""
        for instance in list(self._local.by_id.values()):
            spec = instance.spec
            for name in PLACES if instance.owner == AGENT and spec.service == entry.role.service else ():
                place = entry.record.places[name]
                stays = place.version == spec.version and place.intent in (RUN, DRAIN)
                if spec.id == self._id(entry, spec.version, name) and not stays:
                    self._gone(entry, spec.version, name)

    def _is_active(self, instance: Instance) -> bool:
        slots = self._state.slots
        return all((slot := slots.get(key)) is not None and slot.active for key in instance.keys())

    def _register(self, entry: _Entry, name: str, place: Place, now: float, wakes: list[float]) -> None:
        role, spec_id = entry.role, self._id(entry, place.version, name)
        spec = InstanceSpec(
            spec_id,
            role.service,
            place.version,
            role.routes,
            f"127.0.0.1:{place.port}",
            role.protocol,
            role.compatible,
            role.capacity,
            role.health,
            ttl_s=0.0,
        )
        known = self._local.by_id.get(spec_id)
        if known is not None and (known.spec == spec or known.life is not Life.REGISTERED):
            return  # it is registered, or drains and is registered again afterwards
        event = InstancePut(spec, role.health.kind == "none", AGENT)
        conflict = self._local.conflict(event)
        if conflict:
            entry.places[name].detail = conflict
            wakes.append(now + ASK_AGAIN_S)
        elif known is None and spec_id in self._state.changed_instances:
            wakes.append(now)  # it was removed just now: those who watch it see that first
        else:
            self._local.on_put(event, now)
            wakes.append(now)

    # ------------------------------------------------------------------ the driver

    def _carry_out(self, entry: _Entry, name: str, now: float, wakes: list[float]) -> None:
        """Brings a place closer to what shall be in it."""
        place, runtime = entry.record.places[name], entry.places[name]
        if entry.known:
            self._carry_out_instance(entry, name, now, wakes)
        if runtime.call is not None:
            return
        if not entry.known and runtime.status:
            return
        call = steps.next_call(place, self._seen(entry, name, now)) if entry.known else "state"
        if entry.known and runtime.renew and place.intent == RUN:
            call, runtime.renew, runtime.due = "stop", False, now  # and then started, with the role as it is now
        if not call:
            return
        if now < runtime.due:
            wakes.append(runtime.due)
            return
        if call == "state" and runtime.status and not runtime.look(now, verifying=entry.record.phase == VERIFYING):
            wakes.append(runtime.due)
            return
        self._call(entry, name, call, now)
        wakes.append(now + self._limit_s(entry, call))

    def _carry_out_instance(self, entry: _Entry, name: str, now: float, wakes: list[float]) -> None:
        place, runtime = entry.record.places[name], entry.places[name]
        if place.intent == RUN and runtime.status == "running" and place.port:
            self._register(entry, name, place, now, wakes)
        elif place.intent == RUN and runtime.status in ("absent", "stopped"):
            self._gone(entry, place.version, name)
        elif place.intent == DRAIN:
            instance = self._instance(entry, place.version, name)
            current = self._local.by_id.get(self._id(entry, place.version, name))
            if current is not None and not (current.removing and current.leaving):
                self._local.on_remove(InstanceRemove(current.spec.id, self._drain_s(entry)), now)
                wakes.append(now)
            elif instance is None:
                wakes.append(now)  # it can be stopped

    def _call(self, entry: _Entry, name: str, call: str, now: float) -> None:
        place, runtime = entry.record.places[name], entry.places[name]
        port = place.port or (entry.role.port if name == PLACES[0] else 0)
        runtime.call = Call(self._key(entry, name), call, now, place.version)
        release = self._target(entry.role.service).releases.get(place.version, {})
        role, service = entry.role.role, entry.role.service
        self._state.effects.append(RunDriver(runtime.call.key, role, service, call, name, place.version, port, release))

    def _prepare(self, entry: _Entry, version: str, now: float, wakes: list[float]) -> None:
        if entry.fetching is not None:
            return
        if entry.fetch.version == version and now < entry.fetch_due:
            wakes.append(entry.fetch_due)
            return
        # In the empty place, so that the driver can be asked about the other one meanwhile.
        name = next((name for name, place in entry.record.places.items() if place.intent == EMPTY), PLACES[1])
        entry.fetching = Call(self._key(entry, name), "prepare", now, version)
        release = self._target(entry.role.service).releases.get(version, {})
        role, service = entry.role.role, entry.role.service
        self._state.effects.append(
            RunDriver(entry.fetching.key, role, service, "prepare", name, version, release=release)
        )
        wakes.append(now + self._limit_s(entry, "prepare"))

    def _key(self, entry: _Entry, place: str) -> str:
        return f"{entry.name}/{place}/{self._state.next_number()}"

    def _limit_s(self, entry: _Entry, call: str) -> float:
        role = entry.role
        own_s = role.run.stop_timeout_s if isinstance(role.run, Program | Container) else role.run.timeout_s
        return CALL_S + {"prepare": role.artifacts.timeout_s, "start": role.start_timeout_s}.get(call, own_s)

    def _give_up_calls(self, entry: _Entry, now: float, wakes: list[float]) -> None:
        """A driver that does not answer: the call counts as failed, and what runs is asked for again."""
        for runtime in entry.places.values():
            call = runtime.call
            if call is not None:
                late = call.at + self._limit_s(entry, call.call)
                if now >= late:
                    runtime.call = None
                    runtime.failed(call, no_answer(call, now), now)
                else:
                    wakes.append(late)
        call = entry.fetching
        if call is not None:
            late = call.at + self._limit_s(entry, call.call)
            if now >= late:
                self._on_prepared(entry, no_answer(call, now), now)
            else:
                wakes.append(late)

    # ------------------------------------------------------------------ slots

    def _drain_s(self, entry: _Entry) -> float | None:
        """None: as the policy has it."""
        rollout = self._target(entry.role.service).rollout
        return None if rollout is None or rollout.spec.drain_by_policy else rollout.spec.drain_s

    def _spec(self, entry: _Entry) -> RolloutSpec:
        rollout = self._target(entry.role.service).rollout
        return rollout.spec if rollout is not None else RolloutSpec()

    def _ask(self, entry: _Entry, now: float, wakes: list[float]) -> None:
        """Asks for a slot, or gives it back. A node has one slot, and asks for one at a time."""
        record, service = entry.record, entry.role.service
        rollout = self._target(service).rollout
        what = record.slot if record.slot in (GIVE_BACK, FAIL) else ""
        if not what and record.phase == QUEUED and not record.moving and record.slot in (steps.NONE, ASKED):
            what = TAKE
        if not what or service in self._asking or (what != TAKE and not record.slot_rollout):
            return
        if now < entry.ask_due:
            wakes.append(entry.ask_due)
            return
        if what == TAKE:
            if rollout is None or self._others_out(entry):
                return
            beside = steps.goes_beside(record, self._facts(entry, now))
            share = 0 if beside else self._serving(entry.role.service)
            record = replace(record, slot=ASKED, slot_rollout=rollout.id, slot_term=rollout.term, share=share)
            record = replace(record, detail=record.detail or "waits for a slot")
            self._put(entry, record)
        term = rollout.term if rollout is not None and rollout.id == record.slot_rollout else record.slot_term
        detail = "\n".join((record.why, *record.log))[:DETAIL_CHARS_MAX] if what == FAIL else ""
        node = self._state.settings.name
        self._asking[service] = (entry.name, what)
        if what == GIVE_BACK and (record.phase not in HOLDING or record.phase == REVERTING):
            what = UNUSED
        alone = all(each is entry or each.record.phase != QUEUED for each in self._entries.values())
        waits = what == TAKE and alone
        ask = SlotAsk(service, record.slot_rollout, term, node, what, record.share, detail, waits)
        self._forwarder.ask_owner(service, ask, now)

    def _others_out(self, entry: _Entry) -> bool:
        others = [each for each in self._entries.values() if each is not entry]
        asking = any(what == TAKE for _, what in self._asking.values())
        holding = (each.record for each in others if each.record.slot in (HELD, GIVE_BACK, FAIL))
        return asking or any(record.slot_rollout for record in holding)

    # ------------------------------------------------------------------ reports

    def _instances(self, service: str) -> list[Instance]:
        found: dict[str, Instance] = {}
        for key in self._state.by_service.get(service, ()):
            slot = self._state.slots[key]
            if slot.sums.local_count:
                found |= {t: self._local.by_target[t] for t in slot.sources if t in self._local.by_target}
        return list(found.values())

    def _serving(self, service: str, but: Collection[str] = ()) -> int:
        """Capacity of instances that are healthy and may serve. `but`: ids of those that do not count."""
        there = [each for each in self._instances(service) if each.spec.id not in but]
        return sum(each.spec.capacity for each in there if _is_up(each) and self._is_active(each))

    def _uncounted(self, entries: list[_Entry]) -> list[str]:
        """Ids of instances that are no capacity of this node: new ones beside old ones that serve, and those that have not been
        seen to run since the start of this control."""
        found: list[str] = []
        for entry in entries:
            record = entry.record
            beside = record.moving and record.old not in ("", record.new) and record.places[record.old].intent == RUN
            for name, place in record.places.items():
                if place.version and ((beside and name == record.new) or entry.places[name].up_since is None):
                    found.append(self._id(entry, place.version, name))
        return found

    def _report(self, service: str) -> None:
        entries = [entry for entry in self._entries.values() if entry.role.service == service]
        report: RoleReport | None = None
        if entries or f"{TARGET}/{service}" in self._state.policies.docs:
            report = self._own_report(service, entries)
        if self._reported.get(service) != report:
            self._reported[service] = report
            self._reports.put_own(service, report)

    def _own_report(self, service: str, entries: list[_Entry]) -> RoleReport | None:
        node, rollout = self._state.settings.name, self._target(service).rollout
        waiting: dict[str, int] = {}
        for each in self._instances(service):
            if _is_up(each) and not self._is_active(each):
                waiting[each.spec.version] = waiting.get(each.spec.version, 0) + each.spec.capacity
        records = [entry.record for entry in entries]
        slots = tuple(
            SlotReport(node, each.slot_rollout, each.phase, each.share, each.detail)
            for each in records
            if each.slot == HELD or (each.slot in (GIVE_BACK, FAIL) and each.phase in HOLDING)
        )
        leaves = any(slot.share for slot in slots)
        ready = 0 if leaves else self._serving(service, self._uncounted(entries))
        blocks = self.figures.blocks(service)
        if not entries:
            return RoleReport(ready=ready, waiting=waiting, blocks=blocks) if ready or waiting or blocks else None
        counts: dict[str, int] = {}
        failed = phase = ""
        if rollout is not None:
            record = min(records, key=_progress)
            phase = record.phase if record.rollout == rollout.id else steps.CURRENT
            counts = {f"{rollout.attempt if phase == FAILED else rollout.id} {phase}": 1}
            failed = next((each.why for each in records if each.failed == rollout.attempt), "")
        alone = int(not all(entry.role.side_by_side for entry in entries))
        zone, failures = {self._state.settings.zone or "": 1}, {node: failed} if failed else {}
        left = zone if phase in steps.TO_COME else {}
        has_new = any(steps.has_to_go_back(each.record, rollout, each.fetch) for each in entries)
        back = zone if has_new and phase != FAILED else {}
        return RoleReport(1, alone, ready, waiting, counts, slots, failures, blocks, zone, left, back)

    # ------------------------------------------------------------------ reads

    def view(self) -> list[dict[str, Any]]:
        return [self._view(entry) for _, entry in sorted(self._entries.items())]

    def _view(self, entry: _Entry) -> dict[str, Any]:
        record, target = entry.record, self._target(entry.role.service)
        running = list(record.running())
        serving = [version for version in running if self._serves(entry, version)]
        return {
            "role": entry.role.role,
            "service": entry.role.service,
            "version": (serving or running or [""])[0],
            "phase": record.phase,
            "rollout": record.rollout,
            "target": steps.wanted(target) or "",
            "slots": {
                name: {
                    "version": record.places[name].version,
                    "status": runtime.status or "unknown",
                    "pid": runtime.pid,
                    "port": record.places[name].port,
                }
                for name, runtime in entry.places.items()
            },
            "since": record.since,
            "detail": record.detail or (record.why if record.failed.partition(".")[0] == record.rollout else ""),
            "log": list(record.log),
        }

    def _serves(self, entry: _Entry, version: str) -> bool:
        instance = self._instance(entry, version, entry.record.running()[version])
        return instance is not None and _is_up(instance) and self._is_active(instance)


def _is_up(instance: Instance) -> bool:
    return instance.life is Life.REGISTERED and instance.healthy and not instance.superseded


def _stage(target: Target) -> tuple[str, str, int]:
    rollout = target.rollout
    return (rollout.id, rollout.state, rollout.at_step) if rollout is not None else ("", "", 0)


def _progress(record: Record) -> tuple[bool, float]:
    """The entry of several that its node reports: one that is on its way, else the one that has waited longest."""
    return not record.moving, record.since
