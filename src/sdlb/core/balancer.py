"""The decisions of a node: `handle(event, now)` returns the effects to carry out.

Everything is level-triggered. Events change the inputs (claims of sources, decisions of parents, confirmations of the
engine) and mark the changed sources as dirty. `_settle` then recomputes, only for those, the permit, the endpoints and
routes of the engine, and the messages to parents and children. The full state on the next link makes up for a lost message,
and the cost is always that of the change.

The loop and the simulator both drive this object; neither makes decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core import saved as formats
from sdlb.core.agents import Agents
from sdlb.core.authority import Authority, Delegated, Root
from sdlb.core.auto import Auto
from sdlb.core.children import Children
from sdlb.core.drains import Drains
from sdlb.core.effects import Apply, AttachAgain, Changed, Effect, Persist, Stopped
from sdlb.core.endpoints import Endpoints
from sdlb.core.forwarding import Forwarder
from sdlb.core.local_instances import LocalInstances
from sdlb.core.messages import (
    ACTIVE,
    OPENING,
    POLICY,
    REFUSED,
    TARGET,
    WAITING,
    Answer,
    Ask,
    Beat,
    Bye,
    Cause,
    ClaimKey,
    DownState,
    Path,
    Refused,
    UpState,
    Welcome,
)
from sdlb.core.parents import Parents
from sdlb.core.rollouts import Rollouts
from sdlb.core.routes import Routes
from sdlb.core.saved import EPOCH_MAX, permit_to
from sdlb.core.settings import Settings
from sdlb.core.slot import Permit, Slot, Transition
from sdlb.core.slot import Phase as SlotPhase
from sdlb.core.source import Standing, Step
from sdlb.core.state import ALL, State, text_of
from sdlb.core.uplink import Phase
from sdlb.core.view import View
from sdlb.model.reason import differ_in_counts

if TYPE_CHECKING:
    from random import Random

DIAL_WITHOUT_ENGINE_S = 5.0
PASSING = frozenset(
    ("asking", "closing", "settling", "contested", "still-running", "replacing", "gate", "cutting-over", "not-ready")
)
"""Codes of reasons to wait that end automatically or in the course of a rollout. They are logged without a warning."""
LATER = ("service", "holder", "permit", "stamp")
"""Kinds of saved records that belong to the authority. They are loaded after the claims, to which they refer."""


class Balancer:
    def __init__(self, settings: Settings, saved: Mapping[str, object], rng: Random) -> None:
        self.settings = settings
        self._saved: Mapping[str, object] = saved
        self._state = state = State(settings, rng)
        self._children = Children(state)
        self._local = LocalInstances(state)
        self._drains = Drains(state)
        self._parents = Parents(state, 0.0)
        self._authority: Authority = (
            Root(state, self._children) if settings.is_root else Delegated(state, self._parents)
        )
        self._endpoints = Endpoints(state, self._children, self._local)
        self._routes = Routes(state)
        self._reports = state.reports
        root = self._authority if isinstance(self._authority, Root) else None
        self._rollouts = Rollouts(state, self._children, self._reports, root)
        self._auto = Auto(state, self._children, self._rollouts) if root is not None else None
        if root is not None:
            root.openings.wanted = self._rollouts.wanted
        self._forwarder = Forwarder(state, self._children, self._parents, self._rollouts)
        self._agents = Agents(state, self._local, self._reports, self._forwarder)
        self._routes_due: dict[str, None] = {}
        self._batch: list[tuple[ClaimKey, dict[str, None]]] = []  # slots whose permit is settled, but not the rest
        self._path: Path | None = None
        self._has_say = True
        self._contents_known = False  # it is known what the engine has
        self._boot_id = ""  # of the engine that served under the saved permits
        self._saved_epoch = EPOCH_MAX  # of the last delta that this state folder knows
        self._older = False  # the state folder is an older copy, and no parent has confirmed it yet
        self._stopped = False
        self._delta: Apply | None = None  # computed but not returned yet, if an exception came between
        self.view = View(
            state,
            self._children,
            self._local,
            self._parents,
            self._authority,
            self._rollouts,
            self._reports,
            self._agents,
        )

    # ------------------------------------------------------------------ start

    def start(self, now: float, wall_s: float = 0.0) -> list[Effect]:
        """Loads the saved state. Call it once, before `handle_all`, with the same clocks."""
        state = self._state
        state.now, state.wall_s = now, wall_s
        self._parents.start(now)
        self._load(now)
        self._agents.start(now)
        self._rollouts.start(now)
        state.set_timer(now + self.settings.beat_s, "beat")
        state.set_timer(now + min(DIAL_WITHOUT_ENGINE_S, self.settings.lease_s / 2), "dial-all")
        if self._children.unsynced:
            state.set_timer(now + self.settings.silence_s, "settled")
        return self._finish(now)

    def _load(self, now: float) -> None:
        claims: dict[str, dict[str, object]] = {}
        children: dict[str, dict[str, object]] = {}
        later: list[tuple[str, str, object]] = []
        routes: dict[str, object] = {}
        for name in sorted(self._saved):
            value = self._saved[name]
            kind, _, rest = name.partition("/")
            match kind:
                case "doc":
                    self._state.policies.load(rest, value)
                case "policy":  # as release 0.1 wrote it
                    self._state.policies.load(name, value)
                    self._state.persist(name, None)
                case "child":
                    children[rest] = formats.child_from(value)
                case "claim":
                    child, _, key = rest.partition("/")
                    claims.setdefault(child, {})[key] = value
                case "remnant":
                    target, _, text = rest.partition("/")
                    self._children.remnants.load(target, text, cast("dict[str, object]", value), now)
                case "route":
                    routes[rest] = value
                case "parent":
                    self._parents.load(rest, str(value))
                case "instance":
                    self._local.load(rest, value, now)
                case "agent":
                    self._agents.load(rest, value)
                case "rollout":
                    self._rollouts.load(rest, value)
                case "record":
                    self._rollouts.recorder.load(rest, value)
                case "tally":
                    self._rollouts.recorder.load_tally(rest, value)
                case "engine":
                    self._boot_id, self._saved_epoch, self._older = formats.engine_from(value)
                case _ if kind in LATER:
                    later.append((kind, rest, value))
                case _:
                    pass  # written by a newer release
        for name, value in children.items():
            self._children.load(name, value, claims.get(name, {}), now)
        for kind, name, value in later:
            self._authority.load(kind, name, value)
        for route, service in routes.items():
            self._routes.load(route, service)
        self._saved = {}

    # ------------------------------------------------------------------ events

    def wake_at(self) -> float | None:
        """The time at which a Tick is due at the latest. None: no timer is set."""
        return self._state.next_timer()

    def handle(self, event: ev.Event, now: float, wall_s: float = 0.0) -> list[Effect]:
        return self.handle_all((event,), now, wall_s)

    def handle_all(self, events: Iterable[ev.Event], now: float, wall_s: float = 0.0) -> list[Effect]:
        """Handles several events in one iteration, with the same result as one after the other but fewer messages.

        `now`: seconds on a monotonic clock. `wall_s`: seconds since 1970, used only for the seniority of claims at a root.
        """
        state = self._state
        gap = now - state.now
        if gap > self.settings.lease_s / 2:
            state.note("stalled", f"control did not run for {gap:.1f} s; extending all leases by that time", "warning")
            self._children.shift(gap)
            self._local.shift(gap)
        state.now, state.wall_s = now, wall_s
        for event in events:
            self._dispatch(event, now)
        for kind, name in state.due_timers(now):
            self._timer(kind, name, now)
        return self._finish(now)

    def _dispatch(self, event: ev.Event, now: float) -> None:
        state = self._state
        match event:
            case ev.Tick():
                pass
            case ev.ChildMessage():
                self._on_child_message(event, now)
            case ev.ParentMessage():
                self._on_parent_message(event, now)
            case ev.EngineApplied():
                for endpoint in state.table.on_applied(event.epoch):
                    state.touch(endpoint.claim, endpoint.target)
                self._on_engine_confirmed(now)
                if state.table.deleted_unknown(event.epoch):
                    state.effects.append(AttachAgain())
                if not self._contents_known and state.table.contents_known:
                    self._contents_known = True
                    state.touch_all()  # until now, any key might have had requests in flight
            case ev.EngineDrained():
                if state.table.on_drained(event.key, event.epoch):
                    state.touch(event.key.claim, event.key.target)
                    self._local.on_slot_changed(event.key.target)
            case ev.InstancePut():
                self._local.on_put(event, now)
            case ev.InstanceHealth():
                self._local.on_health(event)
            case ev.InstanceDrain():
                self._local.on_drain(event, now)
            case ev.InstanceRemove():
                self._local.on_remove(event, now)
            case ev.InstanceGone():
                self._local.on_gone(event)
            case ev.ChildConnected():
                self._children.on_connected(event, now, self._authority.path(), self._authority.has_say(now))
            case ev.ChildClosed():
                self._children.on_closed(event)
            case ev.ParentConnected():
                self._parents.on_connected(event, now)
            case ev.ParentClosed():
                self._parents.on_closed(event, now)
                self._forwarder.on_parent_closed(event.parent)
            case ev.EngineAttached():
                self._on_engine_attached(event, now)
            case ev.EngineRejected():
                state.table.on_rejected(event.epoch, now)
                state.set_timer(now + 1.0, "engine", "retry")
                state.note("engine-rejected", f"the engine refused epoch {event.epoch}: {event.reason}", "error")
            case ev.EngineLost():
                state.table.on_lost()
                if not state.table.blind:  # else this control has closed it itself
                    state.note("engine-lost", "the connection to the engine was lost", "warning")
            case ev.EngineJoined():
                state.table.refresh()
            case ev.StoreStuck() | ev.StoreWritten():
                self._on_store(isinstance(event, ev.StoreWritten), now)
            case ev.PolicyPut():
                self._on_policies((event,))
            case ev.PoliciesPut():
                self._on_policies(event.puts)
            case ev.HookDone() if self._rollouts.on_answer(event, now):
                pass
            case ev.Approve() | ev.Promote() | ev.RouteTransfer() | ev.HookDone():
                self._authority.on_order(event, now)
            case ev.ReleasePut():
                self._rollouts.on_release(event, now)
            case ev.RolloutOrder():
                self._rollouts.on_order(event, now)
            case ev.DriverDone():
                self._agents.on_driver(event, now)
            case ev.FiguresCounted():
                self._agents.on_figures(event)
            case ev.AnswersCounted():
                self._rollouts.recorder.on_answers(event.service, event.totals)
            case ev.MetricsAnswered():
                self._rollouts.on_answer(event, now)
            case ev.NodeFileNames():
                self._rollouts.on_names(event)
            case ev.ForgetChild():
                self._children.on_forget(event)
            case ev.AskUp():
                ask = Ask(event.id, event.method, event.path, event.body, self.settings.name)
                self._forwarder.ask(ask, None, self._authority.is_root, now)
            case ev.AskDone():
                self._forwarder.done_here(event)
            case ev.Stop():
                self._on_stop(event, now)

    def _on_policies(self, puts: tuple[ev.PolicyPut, ...]) -> None:
        changed = self._state.policies.put([(put.service, put.body) for put in puts])
        for put in puts:
            if put.service in changed:
                by = f" (set at {put.by})" if put.by else ""
                what = f": {put.what}" if put.what else ""
                text = f"the policy of {put.service} was changed{by}{what}"
                self._state.note("policy-set", text, service=put.service)

    def _recheck_remnants(self, doc_id: str) -> None:
        kind, _, name = doc_id.partition("/")
        for service in self._state.policies.affected(name) if kind == POLICY else ():
            self._children.remnants.recheck(service)

    def _on_child_message(self, event: ev.ChildMessage, now: float) -> None:
        child = self._children.by_link.get(event.link)
        if child is None:
            return  # from a link that this node has dropped
        self._children.heard(child, now)
        match event.message:
            case UpState() as message:
                self._children.on_state(child, message, now)
                for doc in message.docs:
                    if self._state.policies.reported(child.name, doc, len(self._children.by_name)):
                        self._authority.on_reported(doc)
            case Beat() as beat:
                self._children.on_beat(child, beat)
            case Ask() as ask:
                self._forwarder.ask(ask, event.link, self._authority.is_root, now)
            case Bye() as bye:
                self._children.on_bye(child, bye, now)
            case _:
                self._state.note("protocol", f"{child.name} sent a second Hello", "warning")

    def _on_parent_message(self, event: ev.ParentMessage, now: float) -> None:
        uplink = self._parents.links[event.parent]
        if uplink.phase not in (Phase.GREETING, Phase.UP):
            return  # from a link that this node has closed
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
                self._forwarder.answered(event.parent, answer, now)

    def _on_engine_attached(self, event: ev.EngineAttached, now: float) -> None:
        state, table = self._state, self._state.table
        first = not table.boot_id  # the first attach of this control
        known = event.boot_id == self._boot_id
        ahead = event.epoch >> 32 >= state.incarnation or (known and event.epoch > self._saved_epoch)
        behind = first and (ahead or (known and self._older))
        if behind:
            self._older = True
            text = "the state folder is older than the engine's table: it is an older copy; parents must confirm the active versions"
            state.note("restored", text, "warning")
        if behind or (first and not known):
            self._parents.require_confirmation()
        elif first:
            self._parents.require_confirmation(closed=True)
        unsure = behind or (first and not state.slots)
        # A root deletes at once what it had recalled before the restart.
        closing = first and any(slot.phase is SlotPhase.CLOSING for slot in state.slots.values())
        for key in table.on_attached(event, now, self.settings.keep_s, unsure=unsure, closing=closing):
            state.touch(key)
        self._save_engine(event.epoch)
        if table.keep_until is not None:
            text = f"the engine has endpoints that are not in the state folder; keeping them for {self.settings.keep_s:g} s"
            state.note("engine-kept", text, "warning")
            state.set_timer(table.keep_until, "engine", "keep")
        state.engine_confirmed = False
        self._contents_known = table.contents_known

    def _keep_on(self, now: float) -> None:
        """The time during which nothing is deleted from an unknown table is over. It is extended by another lease while this node
        is cut off, because then it closes nothing, and while a child that it has on record has not reported yet."""
        table = self._state.table
        if table.keep_until is not None and (self._children.unsynced or not self._authority.admits(now)):
            table.keep(now + self.settings.lease_s)
            self._state.set_timer(now + self.settings.lease_s, "engine", "keep")

    def _save_engine(self, epoch: int) -> None:
        """Saves the engine's epoch before each delta. With it, the next control can tell from the engine whether its state folder
        is up to date. The incarnation cannot tell that if the restored copy is newer than the last start."""
        table = self._state.table
        self._older = self._older and not (table.contents_known and not self._parents.unconfirmed)
        self._state.persist("engine/", formats.engine_to(table.boot_id, epoch, self._older), durable=False)

    def _on_store(self, can_write: bool, now: float) -> None:
        state = self._state
        state.can_write = can_write
        if can_write:
            state.clear_timer("follow")
        else:
            state.set_timer(now + self.settings.silence_s, "follow")

    def _on_engine_confirmed(self, now: float) -> None:
        if not self._state.engine_confirmed:
            self._state.engine_confirmed = True
            self._state.touch_all()
            if self._state.table.keep_until is None:  # else children report first, until the timer "dial-all"
                self._parents.start_dialing(now)
            self._local.resume_drains(now)

    # ------------------------------------------------------------------ time

    def _timer(self, kind: str, name: str, now: float) -> None:
        match kind:
            case "beat":
                self._parents.beat()
                self._children.beat(self._authority.has_say(now))
                self._parents.flush(damped=False)
                self._rollouts.on_beat()
                if self._auto is not None:
                    self._auto.on_beat(now)
                self._state.set_timer(now + self.settings.beat_s, "beat")
            case "child":
                self._children.check(name, now)
            case "remnant":
                self._children.remnants.check(name, now)
            case "parent":
                self._parents.check_lease(name, now)
            case "mute":
                self._state.touch_all()
            case "docs":
                self._parents.check_docs(name, now)
            case "greeting":
                self._parents.check_greeting(name, now)
            case "dial":
                if not self._stopped:
                    self._parents.dial(name, now)
            case "dial-all":
                self._parents.start_dialing(now)
            case "instance":
                self._local.check_lease(name, now)
            case "drain":
                self._local.check_drain(name, now)
            case "streams":
                self._local.cut_streams(name)
            case "recall":
                self._drains.on_deadline(name, now)
            case "recall-streams":
                self._drains.on_streams(name)
            case "replaced":
                self._local.check_replaced(name, now)
            case "settled":
                for child in sorted(self._children.unsynced):
                    self._children.mark_synced(child)
            case "engine" if name == "keep":
                self._keep_on(now)
            case "follow":
                self._authority.follow()
            case "hold" | "gate" | "left" | "text":
                self._state.dirty_services[name] = None
            case "route":
                self._routes.on_timer(name)
            case "ask":
                self._forwarder.finish(name)
            case "reports":
                self._parents.reporting.check()
            case "agent":
                self._agents.on_timer(name, now)
            case "rollout":
                self._rollouts.on_timer(name, now)
            case "auto" if self._auto is not None:
                self._auto.on_timer(name, now)
            case "stop":
                self._finish_stop(clean=False)
            case _:
                pass  # "engine", "answers": the settling that follows handles them

    # ------------------------------------------------------------------ stop

    def _on_stop(self, event: ev.Stop, now: float) -> None:
        state = self._state
        if not state.stopping:
            state.stopping = True
            state.note("stopping", f"{self.settings.name} is draining")
            state.set_timer(now + event.deadline_s, "stop")
            state.touch_all()

    def _finish_stop(self, clean: bool) -> None:
        if not self._stopped:
            self._stopped = True
            self._parents.send_bye()
            self._state.effects.append(Stopped(clean))

    # ------------------------------------------------------------------ settling

    def _finish(self, now: float) -> list[Effect]:
        state = self._state
        self._settle(now)
        for service, answer in self._forwarder.take_answers():
            self._agents.on_answer(service, answer, now)
        self._agents.settle(now)
        self._rollouts.settle(now)
        self._forwarder.answer_waiting()
        self._settle(now)
        if self._delta is None:
            self._delta = state.table.next_delta(now)
            if self._delta is not None:
                self._save_engine(self._delta.epoch)
        path = self._authority.path()
        for doc_id in state.policies.take_changed():
            self._parents.mark_doc_dirty(doc_id)
            self._children.mark_doc_dirty(doc_id)
            self._recheck_remnants(doc_id)
            kind, _, name = doc_id.partition("/")
            if self._auto is not None:
                self._auto.on_doc(kind, name, now)
            if kind in (TARGET, OPENING):
                self._rollouts.recorder.touch(name)
            if kind == TARGET:
                state.dirty_services[name] = None
                state.reports.unsent[name] = None  # the rollout may have another owner
                self._agents.on_target(name, now)
        self._agents.settle(now)
        has_say = self._authority.has_say(now)
        if has_say != self._has_say:
            self._has_say = has_say
            self._children.beat(has_say)  # immediately, and again with every heartbeat
            state.touch_all()
        self._settle(now)
        self._parents.flush(damped=True)
        self._children.flush(path, path != self._path)
        self._path = path
        if state.stopping and not self._stopped and state.table.empty:
            self._finish_stop(clean=True)
        self._rollouts.recorder.settle()
        effects: list[Effect] = []
        if state.puts:
            effects.append(Persist(state.puts, state.durable))
            state.puts, state.durable = {}, False
        if self._delta is not None:
            effects.append(self._delta)
            self._delta = None
        effects += state.effects
        if state.changed_instances or state.changed_services:
            effects.append(Changed(tuple(state.changed_instances), tuple(state.changed_services)))
        state.effects = []
        state.changed_instances, state.changed_services = {}, {}
        return effects

    def _settle(self, now: float) -> None:
        """Recomputes what depends on dirty sources. Decisions change permits, and a recalled permit can change a decision, so
        this repeats until nothing is dirty.

        Keys are removed one at a time, so that after an exception in one the next event handles the others.
        """
        state = self._state
        if self._children.just_settled:
            self._children.just_settled = False
            self._authority.review_all()
        if self._children.recount:
            self._children.recount = False
            for doc in self._state.policies.held_by_most(len(self._children.by_name)):
                self._authority.on_reported(doc)
            self._authority.review_openings()
        while self._batch or state.dirty or state.dirty_routes or state.dirty_services or state.known_stopped:
            self._children.settle_known()
            self._refresh()
            self._routes_due.update(state.dirty_routes)
            self._authority.decide(now)
            while state.dirty:
                key, targets = state.dirty.popitem()
                self._routes_due[key.route] = None
                state.changed_services[key.service] = None
                self._batch.append((key, self._settle_permit(key, targets, now)))
            while self._batch:  # after all permits, because the endpoints of one version may wait for those of another
                key, targets = self._batch.pop()
                self._settle_slot(key, targets, now)
        while self._routes_due:
            route, _ = self._routes_due.popitem()
            self._routes.settle(route)

    def _refresh(self) -> None:
        """Updates the sums of the dirty slots, which decisions read."""
        for key, targets in self._state.dirty.items():
            slot = self._state.slots.get(key)
            if slot is not None:
                try:
                    self._endpoints.refresh(slot, targets)
                except BaseException:
                    del self._state.dirty[key]
                    raise

    def _settle_slot(self, key: ClaimKey, targets: dict[str, None], now: float) -> None:
        state = self._state
        slot = state.slots.get(key)
        if slot is None:
            self._parents.mark_dirty(key)
            return
        self._endpoints.settle(slot, targets, self._parents, now)
        if slot.phase is SlotPhase.CLOSING and slot.conforms_below() and not slot.sums.present and not slot.sums.open:
            slot.transition(Transition.CONFORM)
            self._drains.over(key)
            self._forget_permit(slot)  # only now, so that a restart during the recall continues it
        for target in list(slot.sources) if ALL in targets else targets:
            if target.startswith("i:"):
                self._local.on_slot_changed(target)
        sent = slot.sent
        slot.sent = (slot.permit, slot.epoch)
        changed = slot.sent[1] != sent[1] or ALL in targets or _differs_beyond_counts(sent[0], slot.permit)
        self._parents.mark_dirty(key)
        self._children.mark_dirty(slot, targets, changed=changed, lagging=slot.permit != sent[0])
        if not slot.sources:
            self._forget_slot(slot)

    def _forget_slot(self, slot: Slot) -> None:
        key = slot.key
        self._forget_permit(slot)
        self._state.forget_slot(key)
        self._drains.over(key)
        self._parents.forget(key, Cause(slot.cause))
        self._authority.forget(key)

    def _forget_permit(self, slot: Slot) -> None:
        if slot.on_disk:
            slot.on_disk = False
            self._state.persist(f"permit/{text_of(slot.key)}", None)

    def _settle_permit(self, key: ClaimKey, targets: dict[str, None], now: float) -> dict[str, None]:
        """Settles the permit and the sources that it admits. Returns the targets that changed."""
        slot = self._state.slots.get(key)
        if slot is None:
            return targets
        epoch = slot.epoch
        permit, old = self._authority.permit(slot, now), slot.permit
        if permit != old:
            self._change_permit(slot, old, permit)
        self._admit(slot, targets, slot.epoch != epoch, now)
        return targets

    def _change_permit(self, slot: Slot, old: Permit, permit: Permit) -> None:
        state = self._state
        slot.permit = permit
        if (permit.state == ACTIVE) != (old.state == ACTIVE) or permit.generation != old.generation or not slot.epoch:
            slot.epoch = state.next_number()
        if permit.state == ACTIVE:
            slot.opened, slot.opened_scope = permit.generation, permit.scope
            slot.transition(Transition.GRANT)
            self._drains.over(slot.key)
        elif old.state == ACTIVE:
            slot.transition(Transition.RECALL)
            slot.revoked_epoch = slot.epoch
            self._drains.recalled(slot.key, state.now)
            state.dirty_routes[slot.key.route] = None
            state.dirty_services[slot.key.service] = None
        if permit.state == ACTIVE and not self._authority.is_root:
            slot.on_disk = True
            state.persist(f"permit/{text_of(slot.key)}", permit_to(permit))
        waits = permit.state == WAITING and permit.reason.code not in ("", "asking", old.reason.code)
        if (permit.state != old.state or waits) and slot.sources:
            name = f"{slot.key.service}-{slot.key.version}"
            why = f": {permit.reason}" if str(permit.reason) else ""
            code = {ACTIVE: "claim-active", REFUSED: "claim-refused", WAITING: "claim-waiting"}[permit.state]
            level = "info" if permit.state == ACTIVE or permit.reason.code in PASSING else "warning"
            state.note(code, f"{name} on {slot.key.route} is {permit.state}{why}", level, service=slot.key.service)

    def _admit(self, slot: Slot, targets: dict[str, None], changed: bool, now: float) -> None:
        """Admits sources of an active key. A node that is cut off admits none."""
        if not slot.active:
            return
        names = slot.sources if changed or ALL in targets else targets
        claimed = [s for t in names if (s := slot.sources.get(t)) is not None and s.standing is Standing.CLAIMED]
        if not claimed or not self._authority.admits(now):
            return
        for source in claimed:
            source.step(Step.ADMIT)
            targets[source.target] = None
            if not source.child:
                self._local.admitted(source.target)


def _differs_beyond_counts(before: Permit, permit: Permit) -> bool:
    """Whether the permits differ in more than the counts of their reasons."""
    return before != permit and not (
        replace(before, reason=permit.reason) == permit and differ_in_counts(before.reason, permit.reason)
    )
