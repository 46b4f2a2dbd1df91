"""Everything there is in one run, in one order of events that the seed alone decides."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import Claim, ClaimKey, DownMessage, UpState
from sdlb.model.version import Compatibility
from sdlb.sim.clock import Clock
from sdlb.sim.host import Host
from sdlb.sim.network import Edge, Network
from sdlb.sim.process import Process
from sdlb.sim.topology import Shape
from sdlb.sim.traffic import Request, Traffic

if TYPE_CHECKING:
    from sdlb.sim.check import Check

TRACE_LINES = 400
RECOVERY_S = 40.0  # so long after a fault that may split the tree, what is left of it must have been sorted out


class World:
    def __init__(self, shape: Shape, rng: Random, checks: list[Check]) -> None:
        self.shape = shape
        self.clock = Clock()
        self.rng = rng
        self.checks = checks
        self.network = Network(self, Random(rng.random()))
        self.traffic = Traffic(self, Random(rng.random()))
        self.numbers = {name: number for number, name in enumerate(shape.parents)}
        self.hosts = {name: Host(self, name, ps, Random(rng.random())) for name, ps in shape.parents.items()}
        self.processes: dict[str, Process] = {}
        self.by_service: dict[str, dict[str, Process]] = {}
        self.rules: dict[str, Compatibility] = {}
        self.declared: dict[tuple[str, str], tuple[str, ...]] = {}  # (service, version) -> what it says of others
        self.keys: dict[ClaimKey, None] = {}  # that any process ever had
        self.routes_max = 1  # of one process
        self.sharing: dict[str, set[str]] = {}  # service -> services that ever claimed one of its routes
        self.claimed: dict[tuple[str, str], dict[ClaimKey, Claim]] = {}  # (child, parent) -> as the parent was told
        self._heard: dict[int, int] = {}  # link -> seq of the last UpState that its parent took in
        for child, parents in shape.parents.items():
            for parent in parents:
                self.network.edges[child, parent] = Edge()
        self.faults: Counter[str] = Counter()
        self.harmed_at = -1e9  # when something happened that may cost requests
        self.split_at = -1e9  # when something happened after which the tree may disagree with itself for a while
        self.forgot_at: dict[str, float] = {}  # node -> when its disk was lost or set back
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self._digest = hashlib.sha256()

    # ------------------------------------------------------------------ telling

    def tell(self, where: str, what: str, level: str = "info") -> None:
        line = f"{self.clock.now:9.3f} {where:<8} {what}"
        self.trace.append(line)
        self._digest.update(line.encode())

    @property
    def digest(self) -> str:
        """Of the whole trace: two runs of one seed must agree."""
        return self._digest.hexdigest()[:16]

    def harm(self, kind: str) -> None:
        self.faults[kind] += 1
        self.harmed_at = self.clock.now

    def split(self, kind: str) -> None:
        self.faults[kind] += 1
        self.split_at = self.clock.now

    @property
    def calm(self) -> bool:
        """Nothing has happened of late that would excuse a lost request."""
        return self.clock.now - max(self.harmed_at, self.split_at) > RECOVERY_S

    # ------------------------------------------------------------------ hooks

    def before_step(self, host: Host, events: list[ev.Event]) -> None:
        for event in events:
            match event:
                case ev.ChildMessage(link, UpState() as message):
                    self._learn(link, message)
                case _:
                    pass
        for check in self.checks:
            check.before_step(host, events)

    def _learn(self, link: int, message: UpState) -> None:
        """A node listens to nothing more on a link once a message of it was lost."""
        if message.seq != self._heard.get(link, 0) + 1:
            self._heard[link] = -1
            return
        self._heard[link] = message.seq
        claims = self.claimed.setdefault(self.network.ends[link], {})
        if message.full:
            claims.clear()
        claims.update((claim.key, claim) for claim in message.claims)
        for key in message.withdrawn:
            claims.pop(key, None)

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ef.Note) and effect.code == "child-presumed-stopped":
                self.split("presumed stopped")
        for check in self.checks:
            check.after_step(host, events, effects)

    def table_changed(self, host: Host, out: list[ev.MemberKey]) -> None:
        for process in host.processes.values():
            if not process.served:
                process.served = any(process.target in host.engine.groups.get(key, ()) for key in process.keys())
        for check in self.checks:
            check.on_table(host, out)

    def on_told(self, host: Host, message: DownMessage) -> None:
        for check in self.checks:
            check.on_told(host, message)

    def on_lost(self, request: Request, why: str) -> None:
        for check in self.checks:
            check.on_lost(request, why)

    def every_second(self) -> None:
        for check in self.checks:
            check.every_second()
        self.clock.after(1.0, self.every_second)

    # ------------------------------------------------------------------ the truth

    def compatible(self, a: Process, b: Process) -> bool:
        return self.compatible_versions(a.spec.service, a.version, b.version)

    def compatible_versions(self, service: str, a: str, b: str) -> bool:
        declared_a, declared_b = self.declared.get((service, a), ()), self.declared.get((service, b), ())
        return self.rules[service].compatible(a, b, declared_a, declared_b)

    def is_member(self, process: Process) -> bool:
        engine = self.hosts[process.host].engine
        return any(process.target in engine.groups.get(key, ()) for key in process.keys())

    def accountable(self, a: str, b: str) -> str | None:
        """A root that both hosts have been in touch with for long enough, by ways that carried claims and verdicts."""
        mine = self._roots_in_touch(a)
        theirs = mine if a == b else self._roots_in_touch(b)
        return next((root for root in mine if root in theirs), None)

    def _roots_in_touch(self, name: str) -> dict[str, None]:
        seen = {name: None}
        queue = deque([name])
        roots: dict[str, None] = {}
        while queue:
            child = queue.popleft()
            if self.clock.now - self.forgot_at.get(child, -1e9) < RECOVERY_S:
                continue
            if not self.shape.parents[child]:
                roots[child] = None
            for parent in self.shape.parents[child]:
                if parent not in seen and self._in_touch(child, parent):
                    seen[parent] = None
                    queue.append(parent)
        return roots

    def _in_touch(self, child: str, parent: str) -> bool:
        edge, now, shape = self.network.edges[child, parent], self.clock.now, self.shape
        return (
            now - edge.up_heard < shape.presumed_s
            and now - edge.down_heard < shape.lease_s - shape.slack_s
            and now - edge.up_gap_end > RECOVERY_S
            and now - edge.down_gap_end > RECOVERY_S
        )

    def cut_off(self, name: str) -> bool:
        """It has heard no parent for its lease."""
        parents, now = self.shape.parents[name], self.clock.now
        return bool(parents) and all(
            now - self.network.edges[name, parent].down_heard >= self.shape.lease_s for parent in parents
        )

    def running(self) -> Iterator[Host]:
        return (host for host in self.hosts.values() if host.running)

    # ------------------------------------------------------------------ processes

    def spawn(self, process: Process) -> None:
        self.processes[process.id] = process
        self.by_service.setdefault(process.spec.service, {})[process.id] = process
        self.declared[process.spec.service, process.version] = process.spec.compatible
        self.rules.setdefault(process.spec.service, Compatibility())
        self.routes_max = max(self.routes_max, len(process.spec.routes))
        for key in process.keys():
            if key not in self.keys:
                for other in self.keys:
                    if other.route == key.route and other.service != key.service:
                        self.sharing.setdefault(key.service, set()).add(other.service)
                        self.sharing.setdefault(other.service, set()).add(key.service)
                self.keys[key] = None
        self.hosts[process.host].processes[process.id] = process
        self.tell(process.host, f"{process.id} starts")

    def end(self, process: Process, how: str) -> None:
        if process.alive:
            self.tell(process.host, f"{process.id} ends: {how}")
            process.alive = False
            process.ended = self.clock.now
            self.traffic.process_ended(process)
            del self.by_service[process.spec.service][process.id]
