"""The truth about contact between nodes, from the messages that really passed: what a node may and may not conclude."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sdlb.core import effects as ef
from sdlb.core.messages import ACTIVE
from sdlb.sim.affected import NEVER, RECOVERY_S
from sdlb.sim.process import Process

if TYPE_CHECKING:
    from sdlb.sim.world import World

UNDECIDED = ("asking", "no-parent", "settling", "opening")
"""Codes of reasons that are not decisions."""


class Touch:
    def __init__(self, world: World) -> None:
        self._world = world
        self.fresh_at: dict[str, float] = {}  # node -> when it forgot what it knew, or came from another tree
        self.must_wait: set[tuple[str, str]] = (
            set()
        )  # (node, service): a parent has decided that a version must not serve
        self.left_at: dict[str, float] = {}  # root -> when a node below it last went to another tree
        self.forgotten_at: dict[int, float] = {}  # tree -> when an operator last declared a node of it to have stopped

    def note(self, name: str, note: ef.Note) -> None:
        pair = (name, note.fields.get("service", ""))
        if note.code in ("claim-waiting", "claim-refused"):
            if not self.cut_off(name) and self._decided(name, pair[1]):
                self.must_wait.add(pair)
        elif note.code == "claim-active":
            self.must_wait.discard(pair)

    def _decided(self, name: str, service: str) -> bool:
        found = self._world.hosts[name].view.service(service)
        claims = [claim for version in (found["versions"] if found is not None else ()) for claim in version["claims"]]
        return any(claim["state"] != ACTIVE and claim["reason_code"] not in UNDECIDED for claim in claims)

    def fresh(self, name: str) -> bool:
        return self._world.clock.now - self.fresh_at.get(name, NEVER) < RECOVERY_S

    # ------------------------------------------------------------------ both ways

    def accountable(self, a: str, b: str) -> str | None:
        """A root that both hosts have been in touch with for long enough, through paths that carried claims and verdicts."""
        mine = self.roots_in_touch(a)
        theirs = mine if a == b else self.roots_in_touch(b)
        return next((root for root in mine if root in theirs), None)

    def roots_in_touch(self, name: str) -> dict[str, None]:
        seen = {name: None}
        queue = deque([name])
        roots: dict[str, None] = {}
        parents = self._world.shape.parents
        while queue:
            child = queue.popleft()
            if self.fresh(child):
                continue
            if not parents[child]:
                roots[child] = None
            for parent in parents[child]:
                if parent not in seen and self._in_touch(child, parent):
                    seen[parent] = None
                    queue.append(parent)
        return roots

    def _in_touch(self, child: str, parent: str) -> bool:
        edge, now, shape = self._world.network.edges[child, parent], self._world.clock.now, self._world.shape
        return (
            now - edge.up_heard < shape.presumed_s
            and now - edge.down_heard < shape.lease_s - shape.slack_s
            and now - edge.up_gap_end > RECOVERY_S
            and now - edge.down_gap_end > RECOVERY_S
        )

    def rejoined(self, name: str) -> bool:
        """Whether one of several roots above was out of reach for a lease and has returned, so that decisions must be joined."""
        world, now = self._world, self._world.clock.now
        above = world.shape.above(name)
        if sum(1 for other in above if not world.shape.parents[other]) < 2:
            return False
        edges = [world.network.edges[child, parent] for child in above for parent in world.shape.parents[child]]
        return any(now - edge.down_gap_end < RECOVERY_S or now - edge.up_gap_end < RECOVERY_S for edge in edges)

    # ------------------------------------------------------------------ upward

    def heard_at(self, root: str, name: str) -> float:
        """The time of the last report about this node that reached the root through any path. A path on which a long silence
        has just ended does not count."""
        if name == root:
            return self._world.clock.now
        best, now = NEVER, self._world.clock.now
        for parent in self._world.shape.parents[name]:
            edge = self._world.network.edges[name, parent]
            if root in self._world.shape.above(parent) and now - edge.up_gap_end > RECOVERY_S:
                best = max(best, min(edge.up_heard, self.heard_at(root, parent)))
        return best

    def may_presume(self, root: str, other: Process) -> bool:
        """Whether this root may presume the process stopped, although that was not reported."""
        world = self._world
        heard = self.heard_at(root, other.host)
        if heard <= self.fresh_at.get(root, NEVER):
            return True  # it has known nothing of it since its disk was lost
        if world.relations.waits_for_silent(root, other.spec.service, heard):
            return self.forgotten_at.get(world.shape.tree_of(root), NEVER) >= heard
        return world.clock.now - heard >= world.shape.presumed_after_s(other.spec.ttl_s)

    def moved_out(self, root: str, service: str) -> bool:
        """Whether a node below this root moved to another tree, so that the root must still account for its instances."""
        world, left = self._world, self.left_at.get(root, NEVER)
        if world.relations.waits_for_silent(root, service, left):
            return self.forgotten_at.get(world.shape.tree_of(root), NEVER) < left
        longest_s = max((p.spec.ttl_s for p in world.by_service.get(service, {}).values()), default=0.0)
        return world.clock.now - left < world.shape.presumed_after_s(longest_s) + 2 * world.shape.slack_s

    def may_be_there(self, root: str, service: str) -> list[Process]:
        """The instances that this root must account for: live ones, and those whose stop was not reported to it."""
        world = self._world
        ended = [p for p in world.ended.get(service, {}).values() if p.served]
        unheard = [p for p in ended if root in world.shape.above(p.host) and self.heard_at(root, p.host) <= p.ended]
        return [*world.by_service.get(service, {}).values(), *unheard]

    # ------------------------------------------------------------------ downward

    def cut_off(self, name: str, extra_s: float = 0.0) -> bool:
        """Whether the node has heard no parent for its lease and `extra_s`."""
        parents, now = self._world.shape.parents[name], self._world.clock.now
        edges = self._world.network.edges
        lease_s = self._world.shape.lease_s + extra_s
        return bool(parents) and all(now - edges[name, parent].down_heard >= lease_s for parent in parents)

    def adrift(self, name: str) -> bool:
        """Whether no path to any root has been alive for a lease."""
        world = self._world
        parents = world.shape.parents[name]
        if not parents:
            return False
        # each tier may learn of it a beat or two after the one above
        margin_s = world.shape.slack_s + 2 * world.shape.beat_s * (len(world.shape.above(name)) - 1)
        return self._adrift(name, world.shape.lease_s + margin_s)

    def _adrift(self, name: str, silence_s: float) -> bool:
        now, edges = self._world.clock.now, self._world.network.edges
        parents = self._world.shape.parents[name]
        return bool(parents) and all(
            now - edges[name, parent].down_heard >= silence_s or self._adrift(parent, silence_s) for parent in parents
        )
