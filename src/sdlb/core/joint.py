"""Joint rollouts: rollouts of several services that start together, go one after the other, and go back together.

Each part is a rollout of its own, with its own target document, slots and capacity rule; `Rollout.joint` of each names them all, in the
order in which they are carried out. One root owns all of them. All nodes of all services fetch before the first node is touched, and a
service is touched once all before it are done.

If one part is halted or aborted, all go back in reverse order. Parts in progress go back to what was before. Parts that are done get a
rollout that undoes them, which waits for its turn like any other: so each state of the whole stands in the documents, and another root
can adopt it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from sdlb.core import requirements
from sdlb.core.events import RolloutOrder
from sdlb.core.requirements import Move
from sdlb.core.rollout_rules import prepared
from sdlb.model.rollout import (
    CUTTING_OVER,
    DONE,
    HALTED,
    PREPARING,
    UNDOING,
    UNDONE,
    Part,
    Rollout,
    Target,
    past,
)
from sdlb.model.version import matches, sort_key

if TYPE_CHECKING:
    from sdlb.core.authority import Root
    from sdlb.core.reports import Reports
    from sdlb.core.rollouts import Rollouts
    from sdlb.core.state import State


class Turn(NamedTuple):
    """As in `Conditions`."""

    text: str = ""
    begun: bool = False
    since_s: float = 0.0


class Joint:
    def __init__(self, state: State, reports: Reports, root: Root | None, rollouts: Rollouts) -> None:
        self._state = state
        self._reports = reports
        self._root = root
        self._rollouts = rollouts

    # ------------------------------------------------------------------ reads

    def parts(self, rollout: Rollout | None) -> list[tuple[Target, Rollout]]:
        """Those that are the last rollouts of their services, in order."""
        found = ((self._state.targets.get(part.service), part.rollout) for part in (rollout.joint if rollout else ()))
        return [(t, t.rollout) for t, id in found if t is not None and t.rollout is not None and t.rollout.id == id]

    def in_progress(self, target: Target | None) -> list[tuple[Target, Rollout]]:
        """The parts of the joint rollout to which the last one of the service belongs. Empty: there is none, or it is over."""
        parts = self.parts(target.rollout if target is not None else None)
        return parts if any(not rollout.ended for _, rollout in parts) else []

    def view(self, rollout: Rollout) -> list[dict[str, str]]:
        """Its parts in order, as plain values for JSON."""
        return [
            {"service": part.service, "id": each.id, "before": each.before, "to": each.to, "state": each.state}
            for part, each in self._all(rollout)
        ]

    def undoable(self, last: Rollout) -> list[tuple[Target, Rollout]]:
        """The parts that an undo of this rollout, which is done, takes back. Empty: it alone."""
        found = ((self._state.targets.get(part.service), part.rollout) for part in last.joint)
        idle = [(target, last_done(target), id) for target, id in found if target is not None and target.active is None]
        parts = [(target, done) for target, done, id in idle if done is not None and done.id == id]
        return parts if len(parts) > 1 else []

    def serving(self, but: Rollout | None = None) -> dict[str, set[str]]:
        """The versions of each service that are active, or may be while a rollout is in progress. Of parts of the joint rollout `but`,
        only those that are active."""
        records = self._root.records if self._root is not None else {}
        found: dict[str, set[str]] = {name: set(record.active) for name, record in records.items()}
        own = {part.rollout for part in but.joint} if but is not None else ()
        for target in self._state.targets.all():
            there, rollout = found.setdefault(target.service, set()), target.rollout
            if not there and target.settled:
                there.add(target.settled)
            if rollout is not None and rollout.id not in own and (not rollout.ended or self.in_progress(target)):
                there |= {rollout.to, rollout.before} - {""}
        return found

    def requirement_objection(self, moves: Sequence[Move]) -> str:
        """Why these changes would break a requirement, and what to do."""
        serving, requires = self.serving(), self._rollouts.releases.requires
        why = requirements.objection(moves, serving, requires)
        return f"{why}; {self._way_out(moves, why)}" if why else ""

    def _way_out(self, moves: Sequence[Move], why: str) -> str:
        named = {move.service for move in moves}
        for move in moves:
            needs = [need for need in self._rollouts.releases.requires(move.service, move.to) if str(need) in why]
            for need in needs if why.startswith(move.name) else ():
                if need.service in named:
                    return f"choose versions that fit: {need}"
                fit = [
                    each.version
                    for each in self._rollouts.releases.available(need.service)
                    if matches(each.version, [need.versions])
                ]
                scheme = self._state.policy(need.service).compatibility.scheme
                version = max(fit, key=lambda each: sort_key(each, scheme), default="")
                if not version:
                    return f"add a release of {need.service} that fits, and roll it out first"
                both = " ".join(f"{each.service} {each.to}" for each in moves)
                return f"roll out {need.service} {version} first, or all together: sdlb rollout start {both} {need.service} {version}"
        other = why.partition(",")[0]
        return f"roll out another version of that service first, or add a version of it to this rollout that fits (in place of {other})"

    # ------------------------------------------------------------------ orders

    def start_objection(self, order: RolloutOrder) -> str:
        """`order`: "start" of several services."""
        orders = (order, *order.also)
        names = [each.service for each in orders]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            return f"{twice} is named twice; give each service once"
        for each in orders:
            if why := self._rollouts.objections.part_objection(each):
                return why if each.service in why else f"{each.service}: {why}"
        moves = [Move(each.service, each.version) for each in orders]
        return self.requirement_objection(moves) or self._order(moves)[1]

    def _order(self, moves: Sequence[Move]) -> tuple[list[Move], str]:
        return requirements.order(moves, self.serving(), self._rollouts.releases.requires)

    def in_order(self, order: RolloutOrder) -> list[RolloutOrder]:
        """The parts of a "start" or "undo", as single orders, in the order in which they would be carried out. Empty: it is of one
        service, or there is no order."""
        if order.verb == "start" and order.also:
            orders = {each.service: each for each in (replace(order, also=()), *order.also)}
            found, _ = self._order([Move(each.service, each.version) for each in orders.values()])
            return [orders[move.service] for move in found]
        if order.verb == "undo":
            target = self._state.targets.get(order.service)
            back = [part for part in self.in_progress(target) if part[1].state != UNDONE]
            if not back and target is not None and (last := last_done(target)) is not None:
                back = self.undoable(last)
            return [replace(order, service=target.service) for target, _ in reversed(back)]
        return []

    def objection(self, order: RolloutOrder, parts: Sequence[tuple[Target, Rollout]]) -> str:
        """Of an order about a joint rollout in progress."""
        named = next(rollout for target, rollout in parts if target.service == order.service)
        if order.verb == "adopt":
            strange = [rollout for _, rollout in parts if not self._rollouts.owns(rollout)]
            return "" if strange else f"{named.id} is owned by this root already"
        active = [(target, rollout) for target, rollout in parts if not rollout.ended]
        for _, rollout in active:
            if not self._rollouts.owns(rollout):
                return f"{rollout.id} is owned by {rollout.owner}, not {self._state.settings.name}"
        if order.verb in ("abort", "undo"):
            for target, rollout in active:
                if rollout.state == CUTTING_OVER:
                    return f"{rollout.id} of {target.service} is cutting over to {rollout.to}; wait until it is done"
            if any(rollout.state in (UNDOING, UNDONE) for _, rollout in parts):
                return f"the joint rollout of {_names(parts)} is going back already"
            return ""
        found = {rollout.id: self._rollouts.objections.verb_objection(order.verb, rollout) for _, rollout in active}
        return "" if "" in found.values() else found.get(named.id) or next(iter(found.values()))

    def on_order(self, order: RolloutOrder, now: float) -> bool:
        """Whether it is about several services, and is carried out now."""
        target = self._state.targets.get(order.service)
        parts = self.in_progress(target) if order.verb != "start" else []
        if parts and order.verb in ("abort", "undo"):
            self._go_back(parts, order.by, f"aborted by {order.by}", now)
            return True
        if parts:
            for part, rollout in parts:
                wanted = not rollout.ended and not self._rollouts.objections.verb_objection(order.verb, rollout)
                if order.verb == "adopt":
                    wanted = not self._rollouts.owns(rollout)
                if wanted:
                    self._rollouts.carry_out(replace(order, service=part.service), now)
            return True
        orders = self.in_order(order)
        if len(orders) < 2:
            return False
        ids = self._rollouts.next_ids(len(orders))
        joint = tuple(Part(each.service, id) for each, id in zip(orders, ids, strict=True))
        for each, id in zip(orders, ids, strict=True):
            self._rollouts.begin(each, id, joint, now)
        return True

    # ------------------------------------------------------------------ going back

    def review(self, target: Target | None, now: float) -> None:
        """After each change of a part: if one is halted, all go back. An undo that is halted asks the operator."""
        parts = self.in_progress(target)
        if any(rollout.undoes or rollout.state in (CUTTING_OVER, UNDOING, UNDONE) for _, rollout in parts):
            return
        for halted, rollout in parts:
            if rollout.state == HALTED:
                self._go_back(parts, "", f"goes back, because {rollout.id} of {halted.service} is halted", now)
                return

    def abort(self, target: Target, rollout: Rollout, why: str, now: float) -> None:
        """The owner aborts a rollout itself, with all that belong to it."""
        if parts := self.in_progress(target):
            self._go_back(parts, "", why, now)
        else:
            self._rollouts.abort(target, rollout, "", why, ())

    def undo(self, service: str, id: str, why: str, now: float) -> None:
        """The owner undoes the rollout, which has just ended, with all that belong to it."""
        target = self._state.targets.get(service)
        rollout = target.rollout if target is not None else None
        if target is None or rollout is None or rollout.id != id or rollout.state != DONE:
            return
        if parts := self.in_progress(target):
            self._go_back(parts, "", why, now)
        else:
            order = RolloutOrder(service, "undo", rollout.by, reason=why)
            self._rollouts.begin(order, self._rollouts.next_ids(1)[0], (), now)

    def _go_back(self, parts: Sequence[tuple[Target, Rollout]], by: str, why: str, now: float) -> None:
        """`by` "": the owner does it itself."""
        back: list[tuple[Target, Rollout]] = []
        undone: list[str] = []
        for target, rollout in reversed(parts):
            if stays := self._stays(target.service, rollout):
                text = f"{target.service} stays at {rollout.to}: {stays}"
                self._state.note("rollout-state", text, "error", service=target.service, rollout=rollout.id)
            elif rollout.state == DONE:
                undone.append(rollout.id)
            back.append((target, rollout))
        ids = dict(zip(undone, self._rollouts.next_ids(len(undone)), strict=True))
        joint = tuple(Part(target.service, ids.get(rollout.id, rollout.id)) for target, rollout in back)
        for target, rollout in back:
            if rollout.id in ids:
                order = RolloutOrder(target.service, "undo", by or rollout.by, reason=why)
                self._rollouts.begin(order, ids[rollout.id], joint, now)
            elif not rollout.ended:
                detail = rollout.detail if rollout.state == HALTED and rollout.detail else why
                if by:
                    self._rollouts.recorder.order(target.service, "abort", by)
                self._rollouts.abort(target, rollout, by, detail, joint)

    def _stays(self, service: str, rollout: Rollout) -> str:
        """Why a part that is done does not go back. "": it does."""
        if rollout.state != DONE:
            return ""
        return (
            self._rollouts.objections.floor_objection(service, rollout.before)
            if rollout.before
            else "it had no version before"
        )

    # ------------------------------------------------------------------ steps

    def turn(self, service: str, rollout: Rollout) -> Turn:
        """What a part that prepares waits for, before the first of its nodes is touched. Also what its version requires."""
        if rollout.state != PREPARING:
            return Turn()
        waits, begun, since_s = self._earlier(rollout)
        if not waits and not begun:
            waits = self._unprepared(rollout)
        if not waits:
            moves = [Move(service, rollout.to)]
            waits = requirements.objection(moves, self.serving(rollout), self._rollouts.releases.requires)
        return Turn(waits, begun, since_s)

    def _earlier(self, rollout: Rollout) -> Turn:
        begun, waits, since_s, before = False, "", 0.0, True
        for part, other in self._all(rollout):
            before = before and other.id != rollout.id
            begun = begun or other.state != PREPARING
            if before and not other.ended:
                waits = waits or f"waits for {part.service} {_goal(other)} ({other.id})"
            elif before:
                since_s = max(since_s, other.ended_s)
        return Turn(waits, begun, since_s)

    def _all(self, rollout: Rollout) -> Iterator[tuple[Part, Rollout]]:
        """Its parts, also those that have had another rollout since."""
        for part in rollout.joint:
            target = self._state.targets.get(part.service)
            for each in past(target) if target is not None else ():
                if each.id == part.rollout:
                    yield part, each

    def _unprepared(self, rollout: Rollout) -> str:
        for target, other in self.parts(rollout):
            report = self._reports.total(target.service)
            if other.id != rollout.id and prepared(other, report) < max(1, report.nodes):
                return f"waits until all nodes have fetched {target.service} {other.to} ({other.id})"
        return ""


def _goal(rollout: Rollout) -> str:
    return rollout.before or "nothing" if rollout.state == UNDOING else rollout.to


def last_done(target: Target) -> Rollout | None:
    """That an undo takes back: not one for nodes that were left, which changed no version."""
    return next((each for each in past(target) if each.state == DONE and not each.of_rest), None)


def _names(parts: Sequence[tuple[Target, Rollout]]) -> str:
    return " and ".join(target.service for target, _ in parts)
