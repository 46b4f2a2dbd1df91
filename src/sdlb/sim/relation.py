"""The truth about which versions may serve side by side: what operators have set and instances declare.

Both change, and a change takes a while to reach all nodes. Meanwhile a pair is *unsettled*: checks accept either result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sdlb.model.policy import Policy
from sdlb.sim import bridge
from sdlb.sim.affected import NEVER, RECOVERY_S
from sdlb.sim.process import Process

if TYPE_CHECKING:
    from sdlb.sim.world import World

CHANGE_S = 15.0  # time after a change within which a denied version has drained, with its requests in flight


class Known(Struct):
    """The policy of a service as a root has it."""

    text: str | None
    policy: Policy
    rules_since: float
    silence_since: float
    opening_since: float


class Relations:
    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[tuple[str, str], Known] = {}
        self._declared: dict[
            tuple[str, str], dict[tuple[str, ...], float]
        ] = {}  # (service, version) -> when last heard

    def refresh(self) -> None:
        """Notices changes at the roots and of declarations. Runs once a second and before comparisons."""
        for root in self._world.shape.roots:
            if self._world.hosts[root].balancer is not None:
                for service in self._world.by_service:
                    self.known(root, service)
        for service, processes in self._world.by_service.items():
            for process in processes.values():
                if process.spec.compatible:
                    self._heard(service, process)

    def _heard(self, service: str, process: Process) -> None:
        self._declared.setdefault((service, process.version), {})[process.spec.compatible] = self._world.clock.now

    def ended(self, process: Process) -> None:
        if process.spec.compatible:
            self._heard(process.spec.service, process)

    def known(self, root: str, service: str) -> Known:
        host, now = self._world.hosts[root], self._world.clock.now
        text = bridge.policy_of(host.view, service)
        known = self._known.get((root, service))
        if known is None:
            policy = Policy() if text is None else Policy.from_json(text)
            known = self._known[root, service] = Known(
                text, policy, NEVER if text is None else now, now, NEVER if text is None else now
            )
        elif known.text != text:
            policy = Policy() if text is None else Policy.from_json(text)
            if policy.compatibility != known.policy.compatibility:
                known.rules_since = now
            if policy.on_silence != known.policy.on_silence:
                known.silence_since = now
            if (policy.opening, policy.gates) != (known.policy.opening, known.policy.gates):
                known.opening_since = now
            known.text, known.policy = text, policy
        if host.hold.on:
            known.rules_since = now  # it cannot act on it before its disk has space
        return known

    def waits_for_silent(self, root: str, service: str, since: float) -> bool:
        """Whether the policy at this root has been `on_silence = "wait"` all the time."""
        known = self.known(root, service)
        return known.policy.on_silence == "wait" and known.silence_since < since

    def settled_opening(self, root: str, service: str) -> bool:
        """Whether gates, cut-over, hold, pin and floor at this root have been the same for long enough to be acted on."""
        return self._world.clock.now - self.known(root, service).opening_since > CHANGE_S

    def flips(self, root: str, service: str) -> bool | None:
        """Whether an incompatible version replaces the active ones as soon as it is ready. None: it changed lately."""
        known = self.known(root, service)
        return known.policy.opening.cut_over == "flip" if self.settled_opening(root, service) else None

    def compatible(self, root: str, service: str, a: str, b: str) -> bool | None:
        """Whether the versions are compatible for this root, by what it has had time to act on. None: unsettled."""
        if a == b:
            return True
        known = self.known(root, service)
        rules, now = known.policy.compatibility, self._world.clock.now
        settled = now - known.rules_since > CHANGE_S
        if rules.compatible(a, b):
            return True if settled else None
        firm_a, loose_a = self._declarations(root, service, a)
        firm_b, loose_b = self._declarations(root, service, b)
        if rules.compatible(a, b, firm_a, firm_b):
            return True if settled else None
        if not settled or rules.compatible(a, b, loose_a, loose_b):
            return None
        return False

    def parted(self, process: Process) -> bool:
        """Whether it was registered again as a version that may not serve beside it. Then it drains at once, although its
        successor may have to wait for others."""
        new, shape = process.successor, self._world.shape
        if new is None:
            return False
        roots = [root for root in shape.roots if root in shape.above(process.host)]
        return any(not self.compatible(root, process.spec.service, process.version, new.version) for root in roots)

    def _declarations(self, root: str, service: str, version: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The declarations of a version's instances: those that certainly count, and those that may count."""
        now = self._world.clock.now
        firm: set[str] = set()
        loose: set[str] = set()
        for process in self._world.by_service.get(service, {}).values():
            if process.version != version or not process.spec.compatible:
                continue
            loose.update(process.spec.compatible)
            sure = process.wanted and process.renewing and not process.rejected and now - process.since > CHANGE_S
            if sure and root in self._world.touch.roots_in_touch(process.host):
                firm.update(process.spec.compatible)
        for texts, when in self._declared.get((service, version), {}).items():
            # an instance that stopped silently may still count, and so may its declarations
            if now - when < RECOVERY_S or self.waits_for_silent(root, service, when):
                loose.update(texts)
        return tuple(sorted(firm)), tuple(sorted(loose))
