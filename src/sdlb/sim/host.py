"""One node: its disk, its control (the real `Balancer` behind a loop like production's), its engine, its processes.

An iteration of the loop passes the pending events to the core and carries its effects out in order. A crash may happen
between any two effects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey
from sdlb.model.role import RoleService
from sdlb.sim import bridge
from sdlb.sim.disk import Disk, DiskFull
from sdlb.sim.engine import Engine
from sdlb.sim.hold import Hold
from sdlb.sim.process import Process

if TYPE_CHECKING:
    from sdlb.sim.world import World

TURN_EVENTS_MAX = 64
ENGINE_DELAY_S = (0.0001, 0.003)
LAZY_WRITE_S = 1.0
WRITE_AGAIN_S = 1.0
WALL_S = 1e9  # since 1970, when the world begins


class Host:
    """`name`: unique name of the machine. `node`: name of the node; a clone has that of the original.

    `honest`: the machine runs the real control. The promises hold only for those.
    """

    honest = True

    def __init__(self, world: World, name: str, parents: tuple[str, ...], rng: Random, node: str = "") -> None:
        self.name = name
        self.node = node or name
        self.parents = parents
        self.roles: tuple[RoleService, ...] = ()
        self.zone = ""
        self.addresses = parents  # those by which it dials them
        self.rng = rng
        self.disk = Disk()
        self.engine = Engine()
        self.processes: dict[str, Process] = {}
        self.by_pid: dict[int, Process] = {}
        self.by_endpoint: dict[str, list[Process]] = {}
        self.endpoints: dict[tuple[ClaimKey, Process], None] = {}  # of the engine, as of its last change
        self.up: dict[str, int] = {}  # parent -> link
        self.down: set[int] = set()  # links of children
        self.boot: int = 0  # of control
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
        self.balancer: bridge.Balancer | None = None
        self.hold = Hold()
        self.stuck_at = -1e9  # when it last could not write a decision or send it to its engine
        self.releasing = False  # carries out what it had held, some of which may be out of date
        self._world = world
        self._inbox: deque[tuple[ev.Event, tuple[str, str] | None]] = deque()
        self._turn_planned = False
        self._wake_at = 0.0
        self._link = 0  # counts the connections between control and engine
        self._linked = False
        self._new_links: deque[int] = deque()  # those whose EngineAttached waits in the inbox
        self._attached_to = 0  # the connection that control talks on
        self._on_its_way: ef.Apply | None = None
        self._to_engine_at = 0.0
        self._from_engine_at = 0.0

    @property
    def address(self) -> str:
        """Address of its engine."""
        number = self._world.numbers[self.name]
        return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:80"

    @property
    def now(self) -> float:
        """Its monotonic clock."""
        return self._world.clock.now + self.clock_ahead_s

    @property
    def wall_s(self) -> float:
        return WALL_S + self._world.clock.now + self.wall_ahead_s

    @property
    def view(self) -> bridge.View:
        """The view of control, also after control has ended."""
        assert self.balancer is not None
        return bridge.view(self.balancer)

    # ------------------------------------------------------------------ control

    def start(self) -> None:
        if self.running or not self.powered or self.stopped:
            return
        if self.disk.full:
            self._world.clock.after(WRITE_AGAIN_S, self.start)
            return
        self.boot += 1
        saved = self.disk.read()
        self.incarnation = int(str(saved.pop("node/incarnation", 0))) + 1
        self.disk.write({"node/incarnation": self.incarnation}, durable=True)
        shape = self._world.shape
        settings = bridge.settings(
            self.node,
            self.node_id,
            self.incarnation,
            f"{self.name}/{self.boot}",
            self.addresses,
            (shape.beat_s, shape.lease_s, shape.fence_s),
            self.roles,
            self.zone,
        )
        self.running = True
        self.up, self.down = {}, set()
        self.paused_until = 0.0
        self.crash_in = None
        self.hold = Hold()
        self._clear_inbox()
        self._wake_at = 0.0
        self.balancer = bridge.Balancer(settings, saved, Random(f"{self.name}/{self.boot}"))
        self._world.log_event(self.name, f"control starts, incarnation {self.incarnation}")
        effects = bridge.start(self.balancer, self.now, self.wall_s)
        self._world.drivers.look(self)
        self._world.figures.look(self)
        self._carry_out(effects)
        if self.running:
            self._attach()
        boot = self.boot
        self._world.clock.after(1.0, lambda: self._watch_pids(boot))

    def kill(self, silently: bool = False) -> None:
        """kill -9 of control: the engine goes on."""
        if self.running:
            self._world.log_event(self.name, "control is killed")
            self.running = False
            self._clear_inbox()
            self._world.hooks.control_ended(self)
            delta, self._on_its_way = self._on_its_way, None
            if delta is not None and self._linked and self.rng.random() < 0.5:
                self._apply_now(delta)  # the engine had read it already
            self._linked = False
            self._world.network.close_all(self.name, silently)

    def _clear_inbox(self) -> None:
        self._inbox.clear()
        self._new_links.clear()

    def come_back(self) -> None:
        """Starts the node again, immediately or as soon as it has stopped."""
        if self.leaving:
            self.leaving = False
            if self.stopped or not self.running:
                self._back()

    def _back(self) -> None:
        self.stopped = False
        self._world.affected.disturb(self.name)
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
                self._attached_to = self._new_links.popleft()
            if self.hold.on and isinstance(event, ev.EngineLost | ev.EngineAttached):
                self.hold.forget_deltas()
            if pair is not None and not isinstance(event, ev.ChildConnected):  # which may be refused
                self._world.network.note_heard(pair, up=pair[1] == self.name)
        if self._inbox:
            self._plan_turn()
        assert self.balancer is not None
        self._world.before_step(self, events)
        effects = bridge.handle(self.balancer, events, self.now, self.wall_s)
        if not self.hold.on:
            effects = ef.without_spare(effects)
        self._world.after_step(self, events, effects)
        self._world.drivers.look(self)
        self._world.figures.look(self)
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
        if isinstance(effect, ef.Persist):
            self._write(dict(effect.puts), effect.durable)
            return
        number = bridge.new_incarnation(effect)
        if number is not None:
            self._write({"node/incarnation": number}, durable=True)
            return
        now = self.hold.sift(effect) if self.hold.on and not self.hold.released else effect
        if now is not None:
            self._act(now)

    def _write(self, puts: dict[str, object], durable: bool) -> None:
        """Writes that fail are kept and retried. A durable decision that cannot be written holds back all later effects."""
        hold = self.hold
        if hold.on:
            hold.unwritten.update(puts)
            return
        puts = {**hold.unwritten, **puts}
        durable = durable or bool(hold.unwritten)
        try:
            self.disk.write(puts, durable)
        except DiskFull:
            if not hold.unwritten:
                self._plan_write()
            hold.unwritten = puts
            if durable:
                hold.on = True
                self._world.log_event(self.name, "decisions-wait: a decision cannot be written")
                self._take_store_event(stuck=True)
            return
        hold.unwritten = {}
        if not durable:
            self._world.clock.after(LAZY_WRITE_S, lambda: self.disk.flush(1))

    def _plan_write(self) -> None:
        boot = self.boot
        self._world.clock.after(WRITE_AGAIN_S, lambda: self._write_again(boot))

    def _write_again(self, boot: int) -> None:
        if self.boot != boot or not self.running or not self.hold.unwritten:
            return
        if self.disk.full:
            self._plan_write()
            return
        self.disk.write(self.hold.unwritten, durable=True)
        held = self.hold.release()
        self._world.log_event(self.name, f"the state is written again, {len(held)} effects follow")
        self._take_store_event(stuck=False)
        self.releasing = True
        self._carry_out(held)
        self.releasing = False

    def _take_store_event(self, stuck: bool) -> None:
        self.take(bridge.store_event(stuck))

    def _act(self, effect: ef.Effect) -> None:
        network = self._world.network
        match effect:
            case ef.Apply():
                self._world.on_apply(self, effect)
                self._to_engine(effect)
            case ef.AttachAgain():
                self.lose_engine_link(applied=True)
                self.link_engine()
            case ef.ReleaseHeld():
                for held in self.hold.let_go():
                    self._act(held)
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
            case ef.RunHook():
                self._world.hooks.call(self, effect)
            case ef.AskMetrics():
                self._world.metrics.ask(self, effect)
            case ef.RunDriver():
                self._world.drivers.call(self, effect)
            case ef.Execute(id):
                self.take(ev.AskDone(id, 200, b""))
            case ef.Note(code, text, level):
                self._world.log_event(self.name, f"{code}: {text}", level)
                self._world.on_note(self, effect)
            case ef.Stopped(clean):
                self._world.log_event(self.name, f"has stopped, clean={clean}")
                self._world.on_stopped(self, clean)
                self.stopped = True
                self.kill()
                self.crash_engine()
                if not self.leaving:
                    self._world.clock.after(1.0, self._back)
            case _:
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
            self._link += 1
            self._linked = True
            self._from_engine(self.engine.attached)

    def start_engine(self) -> None:
        self.engine.up = True
        self._world.log_event(self.name, "engine starts")
        if self.running:
            self._attach()

    def crash_engine(self) -> None:
        if self.engine.up:
            self._world.log_event(self.name, "engine crashes")
            self._world.traffic.engine_crashed(self)
            self.engine.crash()
            self._world.table_changed(self, [])
            self._linked = False
            self.take(ev.EngineLost())

    @property
    def lost_engine(self) -> bool:
        """Whether its engine serves with its last table and cannot get another one."""
        return self.running and self.engine.up and not self._linked

    def lose_engine_link(self, applied: bool) -> bool:
        """The connection between control and engine breaks, and both run on. `applied`: the engine got the pending messages."""
        if not (self.running and self.engine.up and self._linked):
            return False
        self._world.log_event(self.name, f"the connection to the engine breaks, applied={applied}")
        delta, self._on_its_way = self._on_its_way, None
        self._linked = False
        if delta is not None and applied:
            self._apply_now(delta)
        self._link += 1
        self.take(ev.EngineLost())
        return True

    def link_engine(self) -> None:
        if self.running and self.engine.up and not self._linked:
            self._attach()

    def _to_engine(self, delta: ef.Apply) -> None:
        link = self._attached_to
        when = max(self._to_engine_at, self._world.clock.now + self.rng.uniform(*ENGINE_DELAY_S))
        self._to_engine_at = when
        self._on_its_way = delta if link == self._link and self._linked else None
        self._world.clock.at(when, lambda: self._apply(delta, link))

    def _apply(self, delta: ef.Apply, link: int) -> None:
        if self.engine.up and self._link == link and self._linked:  # else of a connection that is gone
            self._on_its_way = None
            self._apply_now(delta)

    def _apply_now(self, delta: ef.Apply) -> None:
        if delta.epoch <= self.engine.epoch:
            return
        out = self.engine.apply(delta)
        self._world.table_changed(self, out)
        self._from_engine(lambda: ev.EngineApplied(delta.epoch))
        self.tell_drained()

    def tell_drained(self) -> None:
        for event in self.engine.drained():
            self._from_engine(lambda event=event: event)

    def _from_engine(self, make: Callable[[], ev.Event]) -> None:
        link = self._link
        when = max(self._from_engine_at, self._world.clock.now + self.rng.uniform(*ENGINE_DELAY_S))
        self._from_engine_at = when

        def deliver() -> None:
            if self.running and self.engine.up and self._linked and self._link == link:
                event = make()
                if isinstance(event, ev.EngineAttached):
                    self._new_links.append(link)
                self.take(event)

        self._world.clock.at(when, deliver)

    # ------------------------------------------------------------------ processes

    def adopt(self, process: Process) -> None:
        """The process runs on this host from now on."""
        self.processes[process.name] = process
        if not process.role:
            self.by_pid[process.spec.pid] = process
        self.by_endpoint.setdefault(process.spec.endpoint, []).append(process)

    def process_at(self, key: ev.EndpointKey) -> Process | None:
        """The process that gets requests to this endpoint: the one that listens at its address."""
        target = self.engine.targets.get(key.target)
        there = self.by_endpoint.get(target.address, ()) if target is not None else ()
        there = [p for p in there if p.alive] or there
        return next((p for p in reversed(there) if key.claim in p.keys()), there[-1] if there else None)

    def _watch_pids(self, boot: int) -> None:
        """As in production, the node checks the process ids of its instances once a second."""
        if self.boot != boot or not self.running:
            return
        if self._world.clock.now >= self.paused_until and self.processes:
            for known in self.view.instances():
                if self._world.drivers.runs(self, known["id"]):
                    self._world.drivers.tell(self, known["id"])
                    continue
                process = self.by_pid.get(known["pid"])
                if known["pid"] and (process is None or not process.alive):
                    self.take(ev.InstanceGone(known["id"], "its process is gone"))
                elif process is not None and known["healthy"] != process.healthy:
                    self.take(ev.InstanceHealth(known["id"], process.healthy))
        self._world.clock.after(1.0, lambda: self._watch_pids(boot))

    def register(self, process: Process) -> None:
        process.renewed = self._world.clock.now
        self.take(bridge.instance_put(process.spec, process.healthy, process.owner, process.name))
