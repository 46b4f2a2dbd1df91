"""One node: its disk, its control (the real `Balancer` behind a loop like production's), its engine, its processes.

A turn of the loop takes what has come in, lets the core decide, and carries the effects out in order; a crash may hit
between any two of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.settings import Settings
from sdlb.sim.disk import Disk
from sdlb.sim.engine import Engine
from sdlb.sim.process import Process

if TYPE_CHECKING:
    from sdlb.sim.world import World

TURN_EVENTS_MAX = 64
ENGINE_DELAY_S = (0.0001, 0.003)
LAZY_WRITE_S = 1.0


class Host:
    def __init__(self, world: World, name: str, parents: tuple[str, ...], rng: Random) -> None:
        self.name = name
        self.parents = parents
        self.rng = rng
        self.disk = Disk()
        self.engine = Engine()
        self.processes: dict[str, Process] = {}
        self.up: dict[str, int] = {}  # parent -> link
        self.down: set[int] = set()  # links of children
        self.boot = 0  # of control
        self.node_id = f"{name}#0"
        self.incarnation = 0
        self.running = False
        self.paused_until = 0.0
        self.powered = True
        self.clock_ahead_s = rng.uniform(0.0, 1e5)
        self.wall_ahead_s = 0.0
        self.crash_in: int | None = None  # effects until control is killed
        self.leaving = False  # asked to stop; new clients go elsewhere
        self.stopped = False
        self.balancer: Balancer | None = None
        self.last_note = ""
        self._world = world
        self._inbox: deque[tuple[ev.Event, tuple[str, str] | None]] = deque()
        self._turn_planned = False
        self._wake_at = 0.0
        self._attached_to = ""  # boot of the engine that control talks to
        self._to_engine_at = 0.0
        self._from_engine_at = 0.0

    @property
    def address(self) -> str:
        """Where its engine is reached: each node has an address of its own."""
        number = self._world.numbers[self.name]
        return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:80"

    @property
    def now(self) -> float:
        """Its monotonic clock."""
        return self._world.clock.now + self.clock_ahead_s

    # ------------------------------------------------------------------ control

    def start(self) -> None:
        if self.running or not self.powered or self.stopped:
            return
        self.boot += 1
        saved = self.disk.read()
        self.incarnation = int(str(saved.pop("node/incarnation", 0))) + 1
        self.disk.write({"node/incarnation": self.incarnation}, durable=True)
        shape = self._world.shape
        settings = Settings(
            self.name,
            self.node_id,
            self.incarnation,
            self.parents,
            beat_s=shape.beat_s,
            lease_s=shape.lease_s,
            fence_s=shape.fence_s,
        )
        self.running = True
        self.up, self.down = {}, set()
        self.paused_until = 0.0
        self.crash_in = None
        self._inbox.clear()
        self._wake_at = 0.0
        self.balancer = Balancer(settings, saved, Random(f"{self.name}/{self.boot}"))
        self._world.tell(self.name, f"control starts, incarnation {self.incarnation}")
        self._carry_out(self.balancer.start(self.now))
        self._attach()
        boot = self.boot
        self._world.clock.after(1.0, lambda: self._watch_pids(boot))

    def kill(self, silently: bool = False) -> None:
        """kill -9 of control: the engine goes on."""
        if self.running:
            self._world.tell(self.name, "control is killed")
            self.running = False
            self._inbox.clear()
            self._world.network.close_all(self.name, silently)

    def come_back(self) -> None:
        """At once if it has stopped, else when it has."""
        if self.leaving:
            self.leaving = False
            if self.stopped or not self.running:
                self._back()

    def _back(self) -> None:
        self.stopped = False
        if not self.engine.up and self.powered:
            self.start_engine()
        self.start()

    def take(self, event: ev.Event, pair: tuple[str, str] | None = None) -> None:
        """`pair`: (child, parent) of the link that it came by."""
        if self.running:
            self._inbox.append((event, pair))
            self._plan_turn()

    def resume(self) -> None:
        if self._world.clock.now < self.paused_until:
            self.paused_until = self._world.clock.now
            self._world.clock.after(0.0, self._turn)

    def _plan_turn(self) -> None:
        if not self._turn_planned:
            self._turn_planned = True
            when = max(self._world.clock.now + self.rng.uniform(0.00001, 0.001), self.paused_until)
            self._world.clock.at(when, self._turn)

    def _turn(self) -> None:
        self._turn_planned = False
        if not self.running or not self._inbox:
            return
        if self._world.clock.now < self.paused_until:
            self._plan_turn()
            return
        events: list[ev.Event] = []
        for _ in range(min(len(self._inbox), self.rng.choice((1, 2, TURN_EVENTS_MAX)))):
            event, pair = self._inbox.popleft()
            events.append(event)
            if isinstance(event, ev.EngineAttached):
                self._attached_to = event.boot_id
            if pair is not None and not isinstance(event, ev.ChildConnected):  # which may be refused
                self._world.network.note_heard(pair, up=pair[1] == self.name)
        if self._inbox:
            self._plan_turn()
        assert self.balancer is not None
        self._world.before_step(self, events)
        effects = self.balancer.handle_all(events, self.now)
        self._world.after_step(self, events, effects)
        self._carry_out(effects)

    def _carry_out(self, effects: list[ef.Effect]) -> None:
        boot = self.boot
        for effect in effects:
            if self.crash_in is not None:
                self.crash_in -= 1
                if self.crash_in < 0:
                    self.crash_in = None
                    self.kill()
                    return
            self._carry_out_one(effect)
            if self.boot != boot or not self.running:
                return
        self._plan_wake()

    def _carry_out_one(self, effect: ef.Effect) -> None:
        network = self._world.network
        match effect:
            case ef.Persist(puts, durable):
                self.disk.write(dict(puts), durable)
                if not durable:
                    self._world.clock.after(LAZY_WRITE_S, lambda: self.disk.flush(1))
            case ef.Apply():
                self._to_engine(effect)
            case ef.Dial(parent):
                network.dial(self, parent)
            case ef.ToParent(parent, message):
                network.send_up(self, parent, message)
            case ef.ToChild(link, message):
                self._world.on_told(self, message)
                network.send_down(self, link, message)
            case ef.HangUp(parent):
                network.hang_up(self, parent)
            case ef.DropChild(link):
                network.drop(self, link)
            case ef.Execute(id):
                self.take(ev.AskDone(id, 200, b""))
            case ef.Note(code, text, level):
                self.last_note = text
                self._world.tell(self.name, f"{code}: {text}", level)
            case ef.Stopped(clean):
                self._world.tell(self.name, f"has stopped, clean={clean}")
                self.stopped = True
                self.kill()
                if not clean:
                    self._world.harm("stopped at the deadline")
                self.crash_engine()
                if not self.leaving:
                    self._world.clock.after(1.0, self._back)
            case ef.Changed() | ef.Answered():
                pass

    def _plan_wake(self) -> None:
        assert self.balancer is not None
        wake = self.balancer.wake_at()
        if wake is None:
            return
        when = max(self._world.clock.now, wake - self.clock_ahead_s) + 1e-6
        if self._wake_at <= self._world.clock.now or when < self._wake_at:
            self._wake_at = when
            boot = self.boot
            self._world.clock.at(when, lambda: self._wake(when, boot))

    def _wake(self, when: float, boot: int) -> None:
        if self.boot == boot and when == self._wake_at:
            self.take(ev.Tick())

    # ------------------------------------------------------------------ engine

    def _attach(self) -> None:
        if self.engine.up:
            self._from_engine(self.engine.attached)

    def start_engine(self) -> None:
        self.engine.up = True
        self._world.tell(self.name, "engine starts")
        if self.running:
            self._attach()

    def crash_engine(self) -> None:
        if self.engine.up:
            self._world.tell(self.name, "engine crashes")
            self._world.traffic.engine_crashed(self)
            self.engine.crash()
            self._world.table_changed(self, [])
            self.take(ev.EngineLost())

    def _to_engine(self, delta: ef.Apply) -> None:
        boot = self._attached_to
        when = max(self._to_engine_at, self._world.clock.now + self.rng.uniform(*ENGINE_DELAY_S))
        self._to_engine_at = when
        self._world.clock.at(when, lambda: self._apply(delta, boot))

    def _apply(self, delta: ef.Apply, boot: str) -> None:
        engine = self.engine
        if not engine.up or engine.boot_id != boot or delta.epoch <= engine.epoch:
            return  # of a control before this one: its connection is gone
        out = engine.apply(delta)
        self._world.table_changed(self, out)
        self._from_engine(lambda: ev.EngineApplied(delta.epoch))
        self.tell_drained()

    def tell_drained(self) -> None:
        for event in self.engine.drained():
            self._from_engine(lambda event=event: event)

    def _from_engine(self, make: Callable[[], ev.Event]) -> None:
        control, boot = self.boot, self.engine.boot
        when = max(self._from_engine_at, self._world.clock.now + self.rng.uniform(*ENGINE_DELAY_S))
        self._from_engine_at = when

        def deliver() -> None:
            if self.running and self.boot == control and self.engine.up and self.engine.boot == boot:
                self.take(make())

        self._world.clock.at(when, deliver)

    # ------------------------------------------------------------------ processes

    def _watch_pids(self, boot: int) -> None:
        """Production looks at the process ids that it has on record, once a second."""
        if self.boot != boot or not self.running:
            return
        assert self.balancer is not None
        if self._world.clock.now >= self.paused_until:
            for known in self.balancer.instances():
                process = self.processes.get(known["id"])
                if known["pid"] and (process is None or not process.alive):
                    self.take(ev.InstanceGone(known["id"], "its process is gone"))
                elif process is not None and known["healthy"] != process.healthy:
                    self.take(ev.InstanceHealth(known["id"], process.healthy))
        self._world.clock.after(1.0, lambda: self._watch_pids(boot))

    def register(self, process: Process) -> None:
        stamp = round((1e9 + self._world.clock.now + self.wall_ahead_s) * 1e6)
        self.take(ev.InstancePut(process.spec, process.healthy, stamp))
