"""Rollouts that start automatically: `auto = "compatible"` in the policy of a service.

A release is rolled out if it is newer than what the service has and compatible with it, and if the policy lets it become active.
If there are several, the newest one is. It has to be newer than every compatible version that had a rollout before: what was
aborted, halted or undone never starts automatically again, and neither does an older version in its place.

One root starts it: the first by name of those that the nodes are in touch with. It has to be the first for as long as nodes need
to report to another root, so that it knows what its predecessor has started. If it cannot write, the release waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sdlb.core.events import RolloutOrder
from sdlb.core.messages import POLICY, RELEASE, TARGET
from sdlb.model.policy import COMPATIBLE, Policy
from sdlb.model.policy_layers import covers
from sdlb.model.rollout import Target, past
from sdlb.model.rollout_reader import merged
from sdlb.model.version import SortKey, sort_key

if TYPE_CHECKING:
    from sdlb.core.children import Children
    from sdlb.core.rollouts import Rollouts
    from sdlb.core.state import State

BY: Final = "auto"
"""The name that is recorded for such a rollout."""
TIMER: Final = "auto"


def choose(policy: Policy, current: str, releases: Iterable[str], tried: Iterable[str]) -> str:
    """The version to roll out. "": none. `current`: what the service has. `releases`: versions. `tried`: those that had a rollout."""
    rules, opening = policy.compatibility, policy.opening
    if policy.auto != COMPATIBLE or not current:
        return ""

    def rank(version: str) -> SortKey:
        return sort_key(version, rules.scheme)

    least = max(rank(version) for version in (*tried, current) if rules.compatible(current, version))
    found = [
        version
        for version in releases
        if rank(version) > least
        and rules.compatible(current, version)
        and not opening.held(version, returns=False)
        and not opening.pinned_out(version)
        and not opening.below_floor(version, rules.scheme)
    ]
    return max(found, key=rank, default="")


class Auto:
    """At a root."""

    def __init__(self, state: State, children: Children, rollouts: Rollouts) -> None:
        self._state = state
        self._children = children
        self._rollouts = rollouts
        self._releases: dict[str, dict[str, None]] = {}  # service -> versions that are not withdrawn
        self._held: dict[str, str] = {}  # service -> why its newest version does not start, as it was noted
        self._first_since: float | None = None

    # ------------------------------------------------------------------ what changes

    def on_doc(self, kind: str, name: str, now: float) -> None:
        if kind == RELEASE:
            self._look_at(self._read(name), now)
        elif kind == TARGET:
            self._look_at(name, now)
        elif kind == POLICY:
            for service in self._releases:
                if covers(name, service):
                    self._look_at(service, now)

    def _look_at(self, service: str, now: float) -> None:
        if service in self._releases and self._state.policy(service).auto == COMPATIBLE:
            self._state.set_timer(now, TIMER, service)

    def _read(self, name: str) -> str:
        """Returns the service of the release. "": it cannot be read."""
        known = self._rollouts.releases.get(name)
        if known is None:
            return ""
        service, version = known.release.service, known.release.version
        versions = self._releases.setdefault(service, {})
        if known.withdrawn:
            versions.pop(version, None)
        else:
            versions[version] = None
        return service

    # ------------------------------------------------------------------ decisions

    def on_beat(self, now: float) -> None:
        """Watches since when this is the first root."""
        if not self._releases or not self._stands():
            self._first_since = None
        elif self._first_since is None:
            self._first_since = now

    def _stands(self) -> bool:
        """Whether this is the first root, and hears enough to know what the others have decided."""
        linked, known = len(self._children.by_link), len(self._children.by_name)
        return (
            self._state.can_write
            and not self._state.stopping
            and not self._children.unsynced
            and not self._children.guarded
            and (2 * linked > known or not known)
            and self._is_first()
        )

    def _is_first(self) -> bool:
        """Of the roots that the children are in touch with. One of them that cannot write stays the first: nodes report to it."""
        children, own = self._children, self._state.settings
        others = children.other_roots() - children.lost_roots()
        return all(children.root_names.get(root, "") > own.name for root in others)

    def on_timer(self, service: str, now: float) -> None:
        state, target = self._state, self._state.targets.get(service)
        policy = state.policy(service)
        if policy.auto != COMPATIBLE or (target is not None and target.active is not None):
            self._held.pop(service, None)  # a change of either calls this again
            return
        self.on_beat(now)
        current = self._rollouts.before(service, target)
        version = choose(policy, current, self._releases.get(service, ()), tried(target))
        if current and not version:
            self._held.pop(service, None)
            return
        again = now + state.settings.lease_s
        if version and self._first_since is not None:
            known = self._first_since + self._rollouts.learning_s
            if now >= known:
                order = RolloutOrder(service, "start", BY, version, merged(policy.rollout, {}))
                why = self._rollouts.objections.objection(order)
                if not why:
                    self._held.pop(service, None)
                    self._rollouts.on_order(order, now)
                    return
                self._note(service, version, why)
            else:
                again = known
        state.set_timer(again, TIMER, service)

    def _note(self, service: str, version: str, why: str) -> None:
        text = f"{service}-{version} is not rolled out automatically: {why}"
        if self._held.get(service) != text:
            self._held[service] = text
            self._state.note("auto-held", text, "warning", service=service)


def tried(target: Target | None) -> tuple[str, ...]:
    """The versions that had a rollout."""
    return (*(rollout.to for rollout in past(target)), *target.tried) if target is not None else ()
