"""The world of a run. The seed alone determines the order of its events."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from random import Random

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import Claim, ClaimKey, DownMessage, UpState
from sdlb.sim.affected import Affected
from sdlb.sim.check import HOOKS, Check, overrides
from sdlb.sim.clock import Clock
from sdlb.sim.coverage import Coverage
from sdlb.sim.drivers import Drivers, DriverSlot
from sdlb.sim.figures import HostFigures
from sdlb.sim.hooks import Hooks, Orders, Program
from sdlb.sim.host import Host
from sdlb.sim.metrics import Metrics
from sdlb.sim.network import Edge, Network
from sdlb.sim.process import Process
from sdlb.sim.relation import Relations
from sdlb.sim.topology import Shape
from sdlb.sim.touch import Touch
from sdlb.sim.traffic import Request, Traffic

TRACE_LINES = 400
ENDED_S = 120.0


class World:
    def __init__(self, shape: Shape, rng: Random) -> None:
        self.shape = shape
        self.clock = Clock()
        self.rng = rng
        self.checks: list[Check] = []
        self._on: dict[str, list[Callable[..., None]]] = {}
        self.coverage = Coverage()
        self.network = Network(self, Random(rng.random()))
        self.traffic = Traffic(self, Random(rng.random()))
        self.touch = Touch(self)
        self.relations = Relations(self)
        self.affected = Affected(self)
        self.hooks = Hooks(self, Random(repr(rng.getstate())))
        self.metrics = Metrics(self)
        self.orders = Orders(self)
        self.drivers = Drivers(self, Random(repr(rng.getstate()) + "drivers"))
        self.figures = HostFigures(self, Random(repr(rng.getstate()) + "figures"))
        self.hosts: dict[str, Host] = {}
        self.numbers: dict[str, int] = {}  # of machines: their addresses
        self.by_address: dict[str, Host] = {}
        self.outside: dict[str, None] = {}  # clones and lying children: the tree must be as if they did not exist
        self.processes: dict[str, Process] = {}
        self.by_service: dict[str, dict[str, Process]] = {}  # those that are alive
        self.ended: dict[str, dict[str, Process]] = {}  # by service: those that are not, for as long as it matters
        self.keys: dict[ClaimKey, None] = {}  # that any process ever had
        self.routes_max = 1  # of one process
        self.opened_ever: set[tuple[str, str]] = set()  # (service, version)
        self.sharing: dict[str, set[str]] = {}  # service -> services that ever claimed one of its routes
        self.claimed: dict[
            tuple[str, str], dict[ClaimKey, Claim]
        ] = {}  # (child, parent) -> the claims that the parent got
        self.policies_set: dict[str, dict[str, set[str]]] = {}  # root -> service -> texts that operators set there
        self.forgot_at: dict[str, float] = {}  # node -> when its disk was lost, or it came from another tree
        self.forgotten: dict[
            tuple[str, str], float
        ] = {}  # (parent, child) -> when an operator reported that it has stopped
        self.children_ever: dict[str, int] = {}  # node -> how many it has had
        self._heard: dict[int, int] = {}  # link -> seq of the last UpState that its parent took in
        for name, parents in shape.parents.items():
            self.add(Host(self, name, parents, Random(rng.random())))
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self._digest = hashlib.sha256()

    def watch(self, checks: Iterable[Check]) -> None:
        """Adds checks, which see everything from now on."""
        self.checks.extend(checks)
        self._on = {name: [getattr(c, name) for c in self.checks if overrides(c, name)] for name in HOOKS}

    def add(self, host: Host) -> None:
        """Adds a machine below its parents."""
        self.numbers[host.name] = len(self.numbers)
        self.hosts[host.name] = host
        self.by_address[host.address] = host
        self.place(host)

    def place(self, host: Host) -> None:
        """The parents that the machine is configured with."""
        if self.shape.parents.get(host.name) != host.parents:
            self.shape = self.shape.moved(host.name, host.parents)
        for parent in host.parents:
            if (host.name, parent) not in self.network.edges:
                now = self.clock.now  # decisions that a moved node got before the move stay valid for one lease
                self.network.edges[host.name, parent] = Edge(now, now, now, now) if now else Edge()
                self.children_ever[parent] = self.children_ever.get(parent, 0) + 1

    # ------------------------------------------------------------------ trace

    def log_event(self, where: str, what: str, level: str = "info") -> None:
        line = f"{self.clock.now:9.3f} {where:<8} {what}"
        self.trace.append(line)
        self._digest.update(line.encode())

    @property
    def digest(self) -> str:
        """Digest of the whole trace. Two runs of the same seed must agree."""
        return self._digest.hexdigest()[:16]

    # ------------------------------------------------------------------ hooks

    def before_step(self, host: Host, events: list[ev.Event]) -> None:
        for event in events:
            match event:
                case ev.ChildMessage(link, UpState() as message):
                    self._learn(link, message)
                case ev.HookDone():
                    self.hooks.heard(host, event)
                case _:
                    pass
        for hook in self._on["before_step"]:
            hook(host, events)

    def _learn(self, link: int, message: UpState) -> None:
        """Whether a node ignores a link because a message on it was lost."""
        if message.seq != self._heard.get(link, 0) + 1:
            self._heard[link] = -1
            return
        self._heard[link] = message.seq
        claims = self.claimed.setdefault(self.network.ends[link], {})
        if message.full:
            claims.clear()
        claims.update((claim.key, claim) for claim in message.claims)
        for key, _ in message.withdrawn:
            claims.pop(key, None)

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        self.coverage.changed(host, effects)
        for hook in self._on["after_step"]:
            hook(host, events, effects)

    def on_note(self, host: Host, note: ef.Note) -> None:
        self.coverage.notes[note.code] += 1
        self.touch.note(host.name, note)
        if note.code == "child-presumed-stopped":
            self.coverage.happened["presumed stopped"] += 1
            self.affected.split(self._claimed_by(note.text.split(" ", 1)[0], host))
        for hook in self._on["on_note"]:
            hook(host, note)

    def _claimed_by(self, node: str, parent: Host) -> set[str]:
        """The services that a child has, or had at its last report."""
        pairs = [pair for pair in self.claimed if pair[1] == parent.name and self.hosts[pair[0]].node == node]
        return {key.service for pair in pairs for key in self.claimed[pair]}

    def on_apply(self, host: Host, delta: ef.Apply) -> None:
        for hook in self._on["on_apply"]:
            hook(host, delta)

    def table_changed(self, host: Host, out: list[ev.EndpointKey]) -> None:
        """The endpoints of the engine have changed. `out`: those that control deleted."""
        if host.processes:
            self._instances_changed(host)
        for hook in self._on["on_table"]:
            hook(host, out)

    def _instances_changed(self, host: Host) -> None:
        before, now = host.endpoints, dict[tuple[ClaimKey, Process], None]()
        for key, group in host.engine.groups.items():
            for target in group:
                process = host.process_at(ev.EndpointKey(key, target)) if target.startswith("i:") else None
                if process is not None:
                    now[key, process] = None
        host.endpoints = now
        closed = [endpoint for endpoint in before if endpoint not in now]
        opened = [endpoint for endpoint in now if endpoint not in before]
        open_now = {process for _, process in now}
        for _, process in closed:
            if process not in open_now:
                process.endpoint_since = 1e9
        for hook in self._on["on_close"]:
            for key, process in closed:
                hook(host, key, process)
        for key, process in opened:
            if process.endpoint_since > self.clock.now:
                process.endpoint_since = self.clock.now
            for hook in self._on["on_open"]:
                hook(host, key, process)
            process.served = True
            self.opened_ever.add((key.service, key.version))

    def on_told(self, host: Host, message: DownMessage) -> None:
        self.coverage.verdicts_sent(host, message)
        for hook in self._on["on_told"]:
            hook(host, message)

    def on_lost(self, request: Request, why: str) -> None:
        for hook in self._on["on_lost"]:
            hook(request, why)

    def on_hook(self, host: Host, program: Program) -> None:
        for hook in self._on["on_hook"]:
            hook(host, program)

    def on_driver(self, host: Host, slot: DriverSlot, effect: ef.RunDriver) -> None:
        """A driver is about to start or to stop something."""
        for hook in self._on["on_driver"]:
            hook(host, slot, effect)

    def on_retired(self, host: Host, process: Process) -> None:
        """An agent begins to drain a program that it has registered."""
        for hook in self._on["on_retired"]:
            hook(host, process)

    def on_pick(self, host: Host, key: ClaimKey) -> None:
        for hook in self._on["on_pick"]:
            hook(host, key)

    def on_stopped(self, host: Host, clean: bool) -> None:
        for hook in self._on["on_stopped"]:
            hook(host, clean)

    def every_second(self) -> None:
        for host in self.hosts.values():
            if host.hold.on or host.lost_engine:
                host.stuck_at = self.clock.now
        self.relations.refresh()
        for hook in self._on["every_second"]:
            hook()
        self.clock.after(1.0, self.every_second)

    # ------------------------------------------------------------------ the truth

    def at(self, host: Host, target: str) -> Host | None:
        """The machine that this node's engine reaches, or has just stopped reaching, as the target `n:NODE`."""
        put = host.engine.targets.get(target) or host.engine.targets_before.get(target)
        return self.by_address.get(put.address) if put is not None else None

    def is_endpoint(self, process: Process) -> bool:
        return process.endpoint_since <= self.clock.now

    def inside(self) -> Iterator[Host]:
        """The nodes for which the promises hold."""
        return (host for name, host in self.hosts.items() if name not in self.outside)

    # ------------------------------------------------------------------ processes

    def spawn(self, process: Process) -> None:
        self.processes[process.name] = process
        self.by_service.setdefault(process.spec.service, {})[process.name] = process
        self.routes_max = max(self.routes_max, len(process.spec.routes))
        for key in process.keys():
            self.know(key)
        self.hosts[process.host].adopt(process)
        self.log_event(process.host, f"{process.name} starts")

    def know(self, key: ClaimKey) -> None:
        """Records a claim key that an instance has."""
        if key not in self.keys:
            for other in self.keys:
                if other.route == key.route and other.service != key.service:
                    self.sharing.setdefault(key.service, set()).add(other.service)
                    self.sharing.setdefault(other.service, set()).add(key.service)
            self.keys[key] = None

    def end(self, process: Process, how: str) -> None:
        if process.alive:
            self.log_event(process.host, f"{process.name} ends: {how}")
            process.alive = False
            process.ended = self.clock.now
            self.traffic.process_ended(process)
            self.relations.ended(process)
            del self.by_service[process.spec.service][process.name]
            ended = self.ended.setdefault(process.spec.service, {})
            ended[process.name] = process
            for name in [name for name, each in ended.items() if self.clock.now - each.ended > ENDED_S]:
                del ended[name]
