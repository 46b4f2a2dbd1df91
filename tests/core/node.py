"""One node of the tests' forest: the real `Balancer`, with its engine and its disk in memory.

The engine keeps exactly what `Apply` has. The disk knows what a power loss leaves of it, and can be full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import Claim, ClaimKey, UpMessage
from sdlb.core.settings import Settings
from sdlb.model.role import RoleService
from sdlb.node.held_effects import HeldEffects
from tests.core.programs import Programs

if TYPE_CHECKING:
    from sdlb.model.rollout import SlotAnswer, SlotAsk
    from tests.core.forest import Forest

_boots = count(1)


@dataclass
class Engine:
    """One process: a new one has another boot id and knows nothing."""

    boot: int = field(default_factory=lambda: next(_boots))
    epoch: int = 0
    endpoints: dict[ev.EndpointKey, ef.EndpointPut] = field(default_factory=dict)
    routes: dict[str, ef.RoutePut] = field(default_factory=dict)
    targets: dict[str, ef.UpstreamPut] = field(default_factory=dict)
    in_flight: dict[ev.EndpointKey, int] = field(default_factory=dict)
    draining: dict[ev.EndpointKey, int] = field(default_factory=dict)

    def apply(self, delta: ef.Apply) -> list[ev.Event]:
        assert delta.epoch > self.epoch
        self.epoch = delta.epoch
        deleted = list(delta.delete_endpoints)
        if delta.replace:
            named = {endpoint.key for endpoint in delta.put_endpoints}
            deleted += [key for key in self.endpoints if key not in named]
            self.routes = {}
        self.targets.update((target.key, target) for target in delta.put_upstreams)
        for endpoint in delta.put_endpoints:
            self.endpoints[endpoint.key] = endpoint
            self.draining.pop(endpoint.key, None)
        for route in delta.put_routes:
            self.routes[route.pattern] = route
        for pattern in delta.delete_routes:
            del self.routes[pattern]
        out: list[ev.Event] = [ev.EngineApplied(delta.epoch)]
        for key in deleted:
            del self.endpoints[key]
            self.draining[key] = delta.epoch
        return out + self.drained()

    def drained(self) -> list[ev.Event]:
        done = [key for key in self.draining if not self.in_flight.get(key)]
        return [ev.EngineDrained(key, self.draining.pop(key)) for key in done]

    def attached(self) -> ev.Event:
        draining = tuple((key, self.in_flight.get(key, 0)) for key in self.draining)
        return ev.EngineAttached(f"boot-{self.boot}", self.epoch, len(self.endpoints), draining)


class Answer(NamedTuple):
    """The answer of a test to a node that asked for a slot."""

    service: str
    answer: SlotAnswer | None


class Snapshot(NamedTuple):
    """A state folder, as a backup has it."""

    disk: dict[str, object]
    incarnation: int
    node_id: str


class Node:
    """`address`: where others dial it; `name`: its name in Hello (the same, except for clones)."""

    def __init__(self, forest: Forest, address: str, parents: tuple[str, ...]) -> None:
        self.forest = forest
        self.address = self.name = address
        self.parents = parents
        self.disk: dict[str, object] = {}
        self.flushed: dict[str, object] = {}  # what a power cut leaves of it
        self.engine = Engine()
        self.incarnation = 0
        self.node_id = f"id-{address}"
        self.starts = 0
        self.inbox: deque[ev.Event] = deque()
        self.up: dict[str, int] = {}  # parent -> link
        self.notes: list[ef.Note] = []
        self.cuts: list[ef.Cut] = []
        self.labels: tuple[tuple[str, str], ...] = ()
        self.answered: list[ef.Answered] = []
        self.hooks: list[ef.RunHook] = []
        self.metrics: list[ef.AskMetrics] = []
        self.sent: list[object] = []  # all messages to parents and children, from the last `listen` on
        self.stopped: ef.Stopped | None = None
        self.alive = False
        self.lie: Callable[[Claim], Iterable[Claim]] = lambda claim: (claim,)
        self.forge: Callable[[UpMessage], UpMessage] = lambda message: message  # all that it sends to parents
        self.stuck = self.released = False
        self.wall_ahead_s = 0.0
        self.hold = HeldEffects()
        self.unwritten: dict[str, object] = {}
        self.roles: tuple[RoleService, ...] = ()
        self.programs = Programs(self)
        self.asked: Callable[[SlotAsk], SlotAnswer | None] | None = None  # answers in place of the roots

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        self.incarnation += 1
        self.alive = True
        self.starts += 1
        nonce = f"{self.address}/{self.starts}"
        settings = replace(
            Settings(
                self.name,
                self.node_id,
                self.incarnation,
                self.parents,
                nonce=nonce,
                roles=self.roles,
                labels=self.labels,
            ),
            **self.forest.timing,
        )
        self.balancer = Balancer(settings, dict(self.disk), Random(self.address))
        if self.asked is not None:
            self.balancer._forwarder.ask_owner = self._ask_owner  # pyright: ignore[reportPrivateUsage]
        self.carry_out(self.balancer.start(self.forest.now, self.forest.now))
        self.inbox.append(self.engine.attached())

    def kill(self) -> None:
        """kill -9 of control: the engine goes on."""
        self.alive = False
        self.inbox.clear()
        self.hold, self.unwritten, self.released = HeldEffects(), {}, False
        self.forest.break_links(self.address)

    def restart(self) -> None:
        self.kill()
        self.start()

    def power_cut(self) -> None:
        """Control and engine are gone, and what was not flushed to the disk."""
        self.kill()
        self.disk = dict(self.flushed)
        self.engine = Engine()

    def reboot(self) -> None:
        """A power cut, and the machine starts again."""
        self.power_cut()
        self.start()

    def lose_engine(self) -> None:
        """The engine's process dies and another one is started under this control."""
        self.engine = Engine()
        self.inbox.extend((ev.EngineLost(), self.engine.attached()))

    def move(self, *parents: str) -> None:
        """The node file names other parents; without any, it is a root."""
        self.kill()
        self.parents = parents
        self.start()

    def snapshot(self) -> Snapshot:
        return Snapshot(dict(self.disk), self.incarnation, self.node_id)

    def restore(self, snapshot: Snapshot, *, rebooted: bool = True) -> None:
        """Started from an older state folder. `rebooted`: of the whole machine, else the engine goes on."""
        self.kill()
        if rebooted:
            self.engine = Engine()
        self.disk, self.incarnation, self.node_id = dict(snapshot.disk), snapshot.incarnation, snapshot.node_id
        self.start()

    def replace(self) -> None:
        """Another machine of the same name: empty disk, new identity, new engine."""
        self.restore(Snapshot({}, 0, f"{self.node_id}'"))

    def lose_disk(self) -> None:
        """The state folder is gone, its identity (kept elsewhere) and its engine are not."""
        self.restore(Snapshot({}, self.incarnation, self.node_id), rebooted=False)

    # ------------------------------------------------------------------ disk

    def stick(self) -> None:
        """From now on its disk takes nothing."""
        self.stuck = True

    def unstick(self) -> None:
        self.stuck = False
        self._write(self.unwritten, durable=True)
        self.unwritten = {}
        self.released = False
        self._release()
        self.inbox.append(ev.StoreWritten())

    def _release(self) -> None:
        self.released = self.stuck
        while (held := self.hold.pop()) is not None:
            self._act(held)

    def _persist(self, effect: ef.Persist) -> None:
        if not self.stuck:
            self._write(effect.puts, effect.durable)
            return
        self.unwritten.update(effect.puts)
        if effect.durable and not self.hold.on and not self.released:
            self.hold.on = True
            self.inbox.append(ev.StoreStuck())

    def _write(self, puts: dict[str, object], durable: bool) -> None:
        for name, value in puts.items():
            if value is None:
                self.disk.pop(name, None)
            else:
                self.disk[name] = value
        if durable:
            self.flushed = dict(self.disk)

    # ------------------------------------------------------------------ events and effects

    def _ask_owner(self, service: str, ask: SlotAsk, now: float) -> None:
        assert self.asked is not None
        self.inbox.append(Answer(service, self.asked(ask)))  # type: ignore[arg-type]

    def handle(self, *events: ev.Event) -> None:
        for event in events:
            if isinstance(event, Answer):
                agents = self.balancer._agents  # pyright: ignore[reportPrivateUsage]
                agents.on_answer(event.service, event.answer, self.forest.now)
                events = (ev.Tick(),)
        if self.hold.on:
            for event in events:
                self.hold.event(event)
        now = self.forest.now
        self.carry_out(self.balancer.handle_all(events, now, now + self.wall_ahead_s))
        if self.roles:
            self.programs.work()
            self.programs.check_health()

    def carry_out(self, effects: list[ef.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ef.Persist):
                self._persist(effect)
                continue
            now = self.hold.pass_or_hold(effect) if self.hold.on else effect
            if now is not None:
                self._act(now)

    def _act(self, effect: ef.Effect) -> None:
        match effect:
            case ef.Apply():
                self.inbox.extend(self.engine.apply(effect))
            case ef.AttachAgain():
                self.inbox.extend((ev.EngineLost(), self.engine.attached()))
            case ef.Cut():
                self.cuts.append(effect)
                for key in effect.endpoints if not effect.streams_only else ():
                    self.engine.in_flight.pop(key, None)
                self.inbox.extend(self.engine.drained())
            case ef.Dial():
                self.forest.dial(self, effect.parent)
            case ef.ToParent():
                self.sent.append(effect.message)
                self.forest.send_up(self, effect.parent, effect.message)
            case ef.ToChild():
                self.sent.append(effect.message)
                self.forest.send_down(self, effect.link, effect.message)
            case ef.HangUp():
                self.forest.close(self.up.pop(effect.parent, 0), told=self.address)
            case ef.DropChild():
                self.forest.close(effect.link, told=self.address)
            case ef.Note():
                self.notes.append(effect)
            case ef.Execute():
                self.inbox.append(ev.AskDone(effect.id, 200, f"{effect.method} {effect.path}".encode()))
            case ef.Answered():
                self.answered.append(effect)
            case ef.RunHook():
                self.hooks.append(effect)
            case ef.AskMetrics():
                self.metrics.append(effect)
            case ef.RunDriver():
                self.programs.run(effect)
            case ef.Stopped():
                self.stopped = effect
            case ef.Reincarnate():
                self.incarnation = effect.incarnation
            case ef.ReleaseHeld():
                self._release()
            case ef.Changed() | ef.Persist():
                pass

    # ------------------------------------------------------------------ reads

    def versions(self, service: str = "catalog") -> dict[str, str]:
        found = self.balancer.view.service(service)
        return {} if found is None else {v["version"]: v["state"] for v in found["versions"]}

    def generation(self, service: str = "catalog") -> int:
        found = self.balancer.view.service(service)
        return 0 if found is None else found["generation"]

    def serves(self, key: ClaimKey) -> set[str]:
        return {endpoint.target for endpoint in self.engine.endpoints if endpoint.claim == key}

    def state(self, instance_id: str) -> str:
        found = self.balancer.view.instance(instance_id)
        return "gone" if found is None else found["state"]

    def reason(self, instance_id: str) -> str:
        found = self.balancer.view.instance(instance_id)
        return "" if found is None else found["reason"]

    def codes(self) -> list[str]:
        return [note.code for note in self.notes]

    def listen(self) -> list[object]:
        """What it sends from here on."""
        self.sent = []
        return self.sent
