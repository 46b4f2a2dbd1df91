"""What goes wrong, by the seed: one fault now and then, several at once sometimes; all of it ends when faults end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sdlb.core import events as ev
from sdlb.sim.host import Host
from sdlb.sim.network import Weather
from sdlb.sim.process import Process
from sdlb.sim.world import World


class Faults:
    """`kinds`: which may happen; the names are those of `KINDS`."""

    def __init__(self, world: World, rng: Random, pace_s: float, kinds: tuple[str, ...]) -> None:
        self.world = world
        self.rng = rng
        self.pace_s = pace_s
        self.kinds = kinds
        self.active = True
        self._names = tuple(world.hosts)
        self._inner = world.shape.roots + world.shape.inner

    def start(self, after_s: float) -> None:
        self.world.clock.after(after_s, self._next)

    def _next(self) -> None:
        if not self.active:
            return
        kind = self.rng.choice(self.kinds)
        KINDS[kind](self)
        self.world.clock.after(self.rng.expovariate(1 / self.pace_s), self._next)

    def _host(self) -> Host:
        """Nodes that carry others are hit more often than their number would make it."""
        names = self._inner if self.rng.random() < 0.5 else self._names
        return self.world.hosts[self.rng.choice(names)]

    def _later(self, low_s: float, high_s: float, action: Callable[[], None]) -> None:
        self.world.clock.after(self.rng.uniform(low_s, high_s), action)

    def _short_or_long(self) -> float:
        return self.rng.choice((self.rng.uniform(0.05, 2.0), self.rng.uniform(2.0, 9.0), self.rng.uniform(9.0, 35.0)))

    # ------------------------------------------------------------------ control

    def kill_control(self) -> None:
        host = self._host()
        self.world.faults["control killed"] += 1
        if self.rng.random() < 0.5:
            host.crash_in = self.rng.randint(0, 6)  # in the middle of what it does next
        else:
            host.kill()
        self.world.clock.after(self._short_or_long(), host.start)

    def pause_control(self) -> None:
        host = self._host()
        self.world.faults["control paused"] += 1
        host.paused_until = self.world.clock.now + self._short_or_long()

    def jump_clock(self) -> None:
        host = self._host()
        self.world.faults["clock jumped"] += 1
        host.wall_ahead_s += self.rng.uniform(-1e5, 1e5)
        if self.rng.random() < 0.5:
            host.clock_ahead_s += self.rng.uniform(0.0, 60.0)  # a machine that slept

    # ------------------------------------------------------------------ nodes that come and go

    def leave(self) -> None:
        """A node above others is stopped as it should be, and comes back: no fault at all, and costs no request."""
        shape, hosts = self.world.shape, self.world.hosts
        if any(host.leaving for host in hosts.values()):
            return
        spare = [n for n in self._inner if all(len(shape.parents[c]) > 1 for c in shape.children[n])]
        host = hosts[self.rng.choice(spare)] if spare else None
        if host is None or not host.running:
            return
        self.world.faults["nodes left"] += 1
        host.leaving = True
        host.take(ev.Stop(20.0))
        self._later(25.0, 35.0, host.come_back)

    # ------------------------------------------------------------------ links

    def reset_links(self) -> None:
        links = list(self.world.network.links.values())
        if links:
            self.world.faults["links reset"] += 1
            half = self.rng.random() < 0.3
            for link in self.rng.sample(links, min(len(links), self.rng.choice((1, 1, 5, 50)))):
                self.world.network.reset(link, half)

    def partition(self) -> None:
        host = self._host()
        pairs = [*host.parents, *self.world.shape.children[host.name]]
        chosen = self.rng.sample(pairs, self.rng.randint(1, len(pairs)))
        until = self.world.clock.now + self._short_or_long()
        both, stall = self.rng.random() < 0.6, self.rng.random() < 0.5
        self.world.faults["partitions"] += 1
        self.world.tell(host.name, f"is cut off from {len(chosen)} until {until:.1f}, both={both} stall={stall}")
        for other in chosen:
            ends = (host.name, other) if self.rng.random() < 0.5 else (other, host.name)
            self.world.network.block(*ends, until, both, stall)

    def bad_weather(self) -> None:
        self.world.faults["bad weather"] += 1
        self.world.network.weather = Weather(
            slow=self.rng.choice((0.0, 0.1)),
            slow_s=self.rng.choice((0.1, 2.0)),
            loss=self.rng.choice((0.0, 0.001, 0.02)),
        )

        def clear() -> None:
            self.world.network.weather = Weather()

        self._later(2.0, 15.0, clear)

    # ------------------------------------------------------------------ engines, processes, machines

    def join_engine(self) -> None:
        """A second process comes to take over, and control tells everything again; what it then does is the adapter's."""
        host = self._host()
        if host.running and host.engine.up:
            self.world.faults["engine joined"] += 1
            self.world.tell(host.name, "a second engine joins")
            host.take(ev.EngineJoined())

    def crash_engine(self) -> None:
        host = self._host()
        self.world.harm("engine crashed")
        host.crash_engine()

        def restart() -> None:
            if host.powered and not host.engine.up:
                host.start_engine()

        self._later(0.2, 5.0, restart)

    def _victim(self) -> Process | None:
        alive = [p for p in self.world.processes.values() if p.alive and p.wanted]
        return self.rng.choice(alive) if alive else None

    def crash_process(self) -> None:
        process = self._victim()
        if process is not None:
            self.world.harm("process crashed")
            self.world.end(process, "crashes")

    def hang_process(self) -> None:
        """It renews no more, and answers no more."""
        process = self._victim()
        if process is not None and process.spec.ttl_s:
            self.world.harm("process hung")
            process.renewing = False
            self._later(15.0, 40.0, lambda: self.world.end(process, "is killed"))

    def power_off(self) -> None:
        host = self._host()
        if not host.powered:
            return
        self.world.harm("machines off")
        self.world.tell(host.name, "power is off")
        host.kill(silently=True)
        host.disk.power_cut(self.rng)
        host.powered = False
        for process in list(host.processes.values()):
            self.world.end(process, "its machine is off")
        host.crash_engine()
        self.world.clock.after(self._short_or_long(), lambda: self.power_on(host))

    def power_on(self, host: Host) -> None:
        if not host.powered:
            host.powered = True
            self.world.tell(host.name, "power is on")
            host.start_engine()
            host.start()

    # ------------------------------------------------------------------ disks

    def lose_disk(self) -> None:
        """The state file was torn or lost: set aside, and the node starts with nothing, under a new id."""
        host = self._host()
        if not host.running:
            return
        self.world.harm("disks lost")
        host.kill()
        host.disk.lose()
        host.node_id = f"{host.name}#{host.boot}"
        self.world.forgot_at[host.name] = self.world.clock.now
        self.world.split_at = self.world.clock.now
        self._later(0.1, 3.0, host.start)

    # ------------------------------------------------------------------ the end of it

    def stop(self) -> None:
        """Faults are over: everything is back that can come back."""
        self.active = False
        self.world.network.heal()
        for host in self.world.hosts.values():
            host.crash_in = None
            host.come_back()
            host.resume()
            self.power_on(host)
            if not host.engine.up:
                host.start_engine()
            host.start()
        for process in list(self.world.processes.values()):
            if process.alive and not process.renewing:
                self.world.end(process, "is killed")


KINDS: dict[str, Callable[[Faults], None]] = {
    "kill": Faults.kill_control,
    "pause": Faults.pause_control,
    "clock": Faults.jump_clock,
    "reset": Faults.reset_links,
    "partition": Faults.partition,
    "weather": Faults.bad_weather,
    "engine": Faults.crash_engine,
    "upgrade": Faults.join_engine,
    "process": Faults.crash_process,
    "hang": Faults.hang_process,
    "power": Faults.power_off,
    "disk": Faults.lose_disk,
    "leave": Faults.leave,
}
