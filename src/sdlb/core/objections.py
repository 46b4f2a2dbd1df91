"""What an order about a rollout would do, and why it would have no effect. Nothing here changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from msgspec.structs import replace

from sdlb.core.events import RolloutOrder
from sdlb.core.joint import last_done
from sdlb.core.requirements import Move, withdrawal_objection
from sdlb.core.rollout_plan import Change, Known, plan
from sdlb.model.rollout import (
    CUTTING_OVER,
    DONE,
    HALTED,
    PAUSED,
    PREPARING,
    ROLLING,
    UNDOING,
    Rollout,
    RolloutSpec,
    Target,
)

if TYPE_CHECKING:
    from sdlb.core.children import Children
    from sdlb.core.events import ReleasePut
    from sdlb.core.reports import Reports
    from sdlb.core.rollouts import Rollouts
    from sdlb.core.state import State


class Objections:
    """`known`: names of the root's node file."""

    def __init__(self, state: State, children: Children, reports: Reports, rollouts: Rollouts) -> None:
        self._state = state
        self._children = children
        self._reports = reports
        self._rollouts = rollouts
        self.known = Known()

    def objection(self, order: RolloutOrder) -> str:
        """Why the order would have no effect. "": it has one."""
        target = self._state.targets.get(order.service)
        active = target.active if target is not None else None
        if order.verb == "start":
            if order.also:
                return self._rollouts.joint.start_objection(order) or self._problems(order)
            moves = [Move(order.service, order.version)]
            return (
                self.part_objection(order) or self._rollouts.joint.requirement_objection(moves) or self._problems(order)
            )
        if parts := self._rollouts.joint.in_progress(target):
            return self._rollouts.joint.objection(order, parts)
        if order.verb == "undo" and active is None:
            return self._undo_objection(order)
        if active is None:
            return f"no rollout of {order.service} is in progress"
        if order.verb == "adopt":
            return f"{active.id} is owned by this root already" if self._rollouts.owns(active) else ""
        if not self._rollouts.owns(active):
            return f"{active.id} is owned by {active.owner}, not {self._state.settings.name}"
        goes_on = order.verb in ("resume", "promote") and active.state == PAUSED
        if goes_on and (why := self._rollouts.reverted(order.service, active.to)):
            do = f"sdlb rollout promote {order.service} {active.to}"
            return f"the cut-over to {active.to} was reverted ({why}); run '{do}' first"
        return self.verb_objection(order.verb, active)

    def verb_objection(self, verb: str, active: Rollout) -> str:
        match verb:
            case "pause" if active.state not in (PREPARING, ROLLING):
                return f"{active.id} is {active.state}; only a rollout that is preparing or rolling can be paused"
            case "resume" if active.state not in (PAUSED, HALTED):
                return f"{active.id} is {active.state}; only a paused or halted rollout can be resumed"
            case "promote" if active.state not in (PREPARING, ROLLING, PAUSED):
                return f"{active.id} is {active.state}; there is nothing to promote"
            case "abort" | "undo" if active.state == CUTTING_OVER:
                return f"{active.id} is cutting over to {active.to}; wait until it is done, then undo it"
            case "abort" | "undo" if active.state == UNDOING:
                return f"{active.id} is being undone already"
            case "pause" | "resume" | "promote" | "abort" | "undo":
                return ""
            case _:
                return f"{verb} is not an order for a rollout"

    def part_objection(self, order: RolloutOrder) -> str:
        """Of a "start", without what its version requires."""
        target = self._state.targets.get(order.service)
        active = target.active if target is not None else None
        name = f"{order.service}-{order.version}"
        if self._rollouts.release_of(order.service, order.version) is None:
            return f"there is no release {name}; add it with 'sdlb release add'"
        if parts := self._rollouts.joint.in_progress(target):
            names = ", ".join(f"{each.service} ({rollout.id})" for each, rollout in parts)
            return (
                f"{order.service} takes part in the joint rollout of {names}; abort it first, or wait until it is over"
            )
        if active is not None and not order.supersede:
            return f"{active.id} to {active.to} is {active.state}; abort it first, or start with --supersede"
        if active is not None and active.state in (CUTTING_OVER, UNDOING):
            return f"{active.id} is {active.state}; wait until it is over"
        if target is not None and active is None and target.settled == order.version and not self.left(target):
            return f"{name} is what all nodes have since {target.rollout.id if target.rollout else 'the start'}"
        return self.floor_objection(order.service, order.version) or self._bar_objection(order.service, order.version)

    def left(self, target: Target) -> list[str]:
        """Nodes that failed in the last rollout, which is done without them. Another one to the same version is for them."""
        last, report = target.rollout, self._reports.total(target.service)
        if last is None or last.state != DONE or last.to != target.settled or not report.failures(last):
            return []
        return sorted(report.failed) or ["some nodes"]

    def _undo_objection(self, order: RolloutOrder) -> str:
        orders = self._rollouts.joint.in_order(order) or [order]
        moves: list[Move] = []
        for each in orders:
            last = undoable(self._state.targets.get(each.service))
            if last is None or not last.before:
                return f"{each.service} has no finished rollout that could be undone"
            if why := self.floor_objection(each.service, last.before):
                return why
            moves.append(Move(each.service, last.before))
        return self._rollouts.joint.requirement_objection(moves) or self._problems(order)

    def floor_objection(self, service: str, version: str) -> str:
        policy = self._state.policy(service)
        if policy.opening.below_floor(version, policy.compatibility.scheme):
            hooks = [gate.name for gate in policy.gates if gate.kind == "hook"]
            after = f", since the hook {', '.join(hooks)}" if hooks else ""
            return f"{service}-{version} is below never_below = {policy.opening.never_below}{after}"
        return ""

    def _bar_objection(self, service: str, version: str) -> str:
        """Of a version that would have to turn active beside the one that serves. An incompatible one may wait until the policy
        changes."""
        before = self._rollouts.before(service, self._state.targets.get(service))
        if self._rollouts.is_incompatible(service, before, version):
            return ""
        key = self.bar(service, version)
        do = f"allow it with 'sdlb policy set {service} --unset {key}'"
        return f"{service}-{version} would not turn active: the policy keeps it out ({key}); {do}" if key else ""

    def bar(self, service: str, version: str) -> str:
        """The key of the policy that keeps the version from turning active beside the one that serves. "": none does."""
        opening = self._state.policy(service).opening
        if opening.pinned_out(version):
            return "pin"
        returns = version == self._rollouts.before(service, self._state.targets.get(service))
        return "hold" if opening.held(version, returns=returns) else ""

    def _problems(self, order: RolloutOrder) -> str:
        plans = self.joint_plans(order) or [self.plan(order)]
        problems = [(str(each["service"]), text) for each in plans for text in cast("list[str]", each["problems"])]
        return "; ".join(text if len(plans) == 1 else f"{service}: {text}" for service, text in problems)

    def joint_plans(self, order: RolloutOrder) -> list[dict[str, object]]:
        """Of a joint rollout: what would become of each service, in order. Empty: it is of one service."""
        orders = self._rollouts.joint.in_order(order)
        return [self.plan(each) for each in orders] if len(orders) > 1 else []

    def plan(self, order: RolloutOrder) -> dict[str, object]:
        """What `start` or `undo` would do, as far as it is known beforehand."""
        service, target = order.service, self._state.targets.get(order.service)
        last = undoable(target) if order.verb == "undo" else None
        version, spec = order.version, order.spec
        if last is not None:
            version, spec = last.before, without_canary(last.spec)
        before, report = self._rollouts.before(service, target), self._reports.total(service)
        if last is not None and not last.ended:
            before = last.to
        baseline = self._rollouts.baseline(service)
        floor = self._rollouts.floor(service, baseline, report.nodes)
        incompatible = self._rollouts.is_incompatible(service, before, version)
        change = Change(service, before, version, spec, incompatible)
        found = plan(change, report, baseline, floor, self._state.policy(service), self.known)
        unknown = self._unknown(service) if not report.nodes else ""
        return {**found, "problems": [unknown]} if unknown else found

    def _unknown(self, service: str) -> str:
        """Why this root may not know the nodes that run the service. "": it does."""
        name, names, target = self._state.settings.name, self._children.root_names, self._state.targets.get(service)
        active = target.active if target is not None else None
        if active is not None:
            other = "" if self._rollouts.owns(active) else active.owner
        else:
            other = (
                "" if self._rollouts.is_first() else min(names.get(root, root) for root in self._children.other_roots())
            )
        if other:
            text = f"{name} does not know which nodes run {service}, because they report to {other}"
            return f"{text}; run the command on {other} or on a node below both"
        if self._rollouts.learning(service):
            return f"{name} does not know yet which nodes run {service}; try again in {self._rollouts.learning_s:g} s"
        return ""

    def release_objection(self, event: ReleasePut) -> str:
        """Why the event would have no effect at this root. "": it has one, or the release is known as it is."""
        known = self._rollouts.releases.get(event.name) if not event.body else None
        if known is not None:
            service, version = known.release.service, known.release.version
            why = withdrawal_objection(
                service, version, self._rollouts.joint.serving(), self._rollouts.releases.requires
            )
            if why:
                return f"{why}; roll out another version of one of them first"
        return self._rollouts.releases.objection(event)


def without_canary(spec: RolloutSpec) -> RolloutSpec:
    """An undo goes back to a version that is known."""
    return replace(spec, step=(), analysis=None)


def undoable(target: Target | None) -> Rollout | None:
    """The rollout that `undo` takes back: the one in progress, else the last that is done."""
    if target is None:
        return None
    return target.active or last_done(target)
