"""Random faults, chosen by the seed: one now and then, sometimes several at once. All end when the phase of faults ends."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sdlb.core.messages import ClaimKey
from sdlb.sim import bridge
from sdlb.sim.acts import Acts
from sdlb.sim.host import Host
from sdlb.sim.liar import Liar
from sdlb.sim.network import Weather
from sdlb.sim.process import Process
from sdlb.sim.world import World

ALL_ALONG_S = 1000.0  # until faults end


class Faults:
    """`kinds`: names of the faults that may happen, from `KINDS`."""

    def __init__(self, world: World, acts: Acts, rng: Random, pace_s: float, kinds: tuple[str, ...]) -> None:
        self.world = world
        self.acts = acts
        self.rng = rng
        self.pace_s = pace_s
        self.kinds = kinds
        self.active = True
        self._names = tuple(world.hosts)
        self._inner = world.shape.roots + world.shape.inner
        self._count = 0
        self._saved: dict[str, dict[str, object]] = {}  # snapshots of disks
        self._moved: dict[str, list[str]] = {}  # node -> parents that it has left

    def start(self, after_s: float) -> None:
        self.world.clock.after(after_s, self._next)

    def _next(self) -> None:
        if not self.active:
            return
        kind = self.rng.choice(self.kinds)
        KINDS[kind](self)
        self.world.clock.after(self.rng.expovariate(1 / self.pace_s), self._next)

    def _host(self) -> Host:
        """A random node. Nodes with children are chosen more often."""
        names = self._inner if self.rng.random() < 0.5 else self._names
        return self.world.hosts[self.rng.choice(names)]

    def _later(self, low_s: float, high_s: float, action: Callable[[], None]) -> None:
        self.world.clock.after(self.rng.uniform(low_s, high_s), action)

    def _short_or_long(self) -> float:
        return self.rng.choice((self.rng.uniform(0.05, 2.0), self.rng.uniform(2.0, 9.0), self.rng.uniform(9.0, 35.0)))

    # ------------------------------------------------------------------ control

    def kill_control(self) -> None:
        host = self._host()
        self.acts.kill(host, self.rng.randint(0, 6) if self.rng.random() < 0.5 else None)
        self.world.clock.after(self._short_or_long(), lambda: self.acts.start(host))

    def pause_control(self) -> None:
        self.acts.pause(self._host(), self._short_or_long())

    def jump_clock(self) -> None:
        host = self._host()
        self.world.coverage.faults["clock jumped"] += 1
        host.wall_ahead_s += self.rng.uniform(-1e5, 1e5)
        if self.rng.random() < 0.5:
            self.world.affected.disturb(host.name)
            host.clock_ahead_s += self.rng.uniform(0.0, 60.0)  # a machine that slept

    # ------------------------------------------------------------------ nodes that come and go

    def leave(self) -> None:
        """A node with children is stopped cleanly and returns. That is no fault, and no request may be lost."""
        shape, hosts = self.world.shape, self.world.hosts
        if any(host.leaving for host in hosts.values()):
            return
        spare = [n for n in self._inner if all(self._has_another(c, n) for c in shape.children[n])]
        host = hosts[self.rng.choice(spare)] if spare else None
        if host is not None and host.running:
            self.acts.stop(host)
            self._later(25.0, 35.0, lambda: self.acts.come_back(host))

    def _has_another(self, child: str, parent: str) -> bool:
        """Whether the child has another steady parent."""
        host = self.world.hosts[child]
        links = host.view.parent_links() if host.running and host.honest else []
        return any(
            link.name != parent and link.state == "connected" and self.world.affected.steady(link.name, 10.0)
            for link in links
        )

    def leave_children(self) -> None:
        """Likewise for nodes whose children have no other parent: these serve on, cut off."""
        host = self.world.hosts[self.rng.choice(self._inner)]
        if host.running and not any(other.leaving for other in self.world.hosts.values()):
            for name in self.world.shape.below(host.name):
                self.world.affected.harm_node(name)
            self.acts.stop(host)
            self._later(5.0, 45.0, lambda: self.acts.come_back(host))

    # ------------------------------------------------------------------ links

    def reset_links(self) -> None:
        links = list(self.world.network.links.values())
        if links:
            self.world.coverage.faults["links reset"] += 1
            half = self.rng.random() < 0.3
            for link in self.rng.sample(links, min(len(links), self.rng.choice((1, 1, 5, 50)))):
                self.world.affected.disturb(link.child)
                self.world.network.reset(link, half)

    def partition(self) -> None:
        host = self._host()
        pairs = [*host.parents, *self.world.shape.children[host.name]]
        if not pairs:
            return
        chosen = self.rng.sample(pairs, self.rng.randint(1, len(pairs)))
        seconds = self._short_or_long()
        both, stall = self.rng.random() < 0.6, self.rng.random() < 0.5
        self.world.coverage.faults["partitions"] += 1
        self.world.log_event(host.name, f"is cut off from {len(chosen)} for {seconds:.1f}, both={both} stall={stall}")
        for other in chosen:
            ends = (host.name, other) if self.rng.random() < 0.5 else (other, host.name)
            self.acts.cut(*ends, seconds, both, stall)

    def half_visible(self) -> None:
        """A child permanently reaches only some of its parents."""
        names = [n for n in self._names if len(self.world.shape.parents[n]) > 1]
        if names:
            host = self.world.hosts[self.rng.choice(names)]
            lost = self.rng.choice(host.parents)
            self.world.coverage.faults["parents out of sight"] += 1
            self.world.log_event(host.name, f"does not reach {lost} any more")
            self.acts.cut(host.name, lost, ALL_ALONG_S)

    def bad_weather(self) -> None:
        self.world.coverage.faults["bad weather"] += 1
        self.world.affected.disturb_all()
        self.world.network.weather = Weather(
            slow=self.rng.choice((0.0, 0.1)),
            slow_s=self.rng.choice((0.1, 2.0)),
            loss=self.rng.choice((0.0, 0.001, 0.02)),
        )

        def clear() -> None:
            self.world.affected.disturb_all()
            self.world.network.weather = Weather()

        self._later(2.0, 15.0, clear)

    # ------------------------------------------------------------------ engines, processes, machines

    def join_engine(self) -> None:
        self.acts.join_engine(self._host())

    def crash_engine(self) -> None:
        host = self._host()
        if host.honest:
            self.acts.crash_engine(host)
            self._later(0.2, 5.0, lambda: self.acts.start_engine(host))

    def lose_engine_link(self) -> None:
        self.acts.lose_engine_link(self._host(), self._short_or_long())

    def _victim(self) -> Process | None:
        alive = [p for p in self.world.processes.values() if p.alive and p.wanted]
        return self.rng.choice(alive) if alive else None

    def crash_process(self) -> None:
        process = self._victim()
        if process is not None:
            self.acts.crash(process)

    def hang_process(self) -> None:
        """An instance hangs: it neither renews nor answers."""
        process = self._victim()
        if process is not None and process.spec.ttl_s:
            self.acts.hang(process)
            self._later(15.0, 40.0, lambda: self.world.end(process, "is killed"))

    def power_off(self) -> None:
        host = self._host()
        if host.powered:
            self.acts.power_off(host)
            self.world.clock.after(self._short_or_long(), lambda: self.acts.power_on(host))

    def power_off_cut_off(self) -> None:
        """A machine is off and on again while no parent can be reached."""
        host = self.world.hosts[self.rng.choice(self._names)]
        if host.powered and host.parents:
            self.acts.isolate(host, 40.0)

            def off() -> None:
                self.acts.power_off(host)
                self._later(0.5, 5.0, lambda: self.acts.power_on(host))

            self._later(0.0, 20.0, off)

    # ------------------------------------------------------------------ disks

    def lose_disk(self) -> None:
        host = self._host()
        if host.running:
            self.acts.lose_disk(host)
            self._later(0.1, 3.0, lambda: self.acts.start(host))

    def replace_node(self) -> None:
        """A machine with children is replaced by an empty one. Some of its children return late, or not at all."""
        host = self.world.hosts[self.rng.choice(self._inner)]
        if host.powered and host.parents:
            self.acts.replace(host)
            for child in self.world.shape.children[host.name]:
                if self.rng.random() < 0.5:
                    self.acts.cut(child, host.name, self.rng.choice((5.0, 16.0, ALL_ALONG_S)))
            self._later(0.5, 12.0, lambda: self.acts.power_on(host))

    def restore_node(self) -> None:
        """A snapshot of a disk is taken, or an earlier one is restored."""
        host = self._host()
        saved = self._saved.pop(host.name, None)
        if saved is None:
            self._saved[host.name] = host.disk.read()
        elif host.powered:
            self.acts.restore(host, saved)
            self._later(0.5, 12.0, lambda: self.acts.power_on(host))

    def clone_node(self) -> None:
        """A second machine runs with a copy of a host's state for a while."""
        host = self.world.hosts[self.rng.choice(self.world.shape.leaves)]
        if host.running and host.name not in self.world.outside:
            self._count += 1
            twin = self.acts.clone(host, f"{host.name}-copy-{self._count}")
            self._later(5.0, 40.0, lambda: self._end_clone(twin))

    def _end_clone(self, twin: Host) -> None:
        if twin.powered:
            self.acts.power_off(twin)

    def fill_disk(self) -> None:
        host = self._host()
        if host.running and not host.disk.full:
            self.acts.fill_disk(host)
            self.world.clock.after(self._short_or_long(), lambda: self.acts.free_disk(host))

    # ------------------------------------------------------------------ the tree

    def move(self) -> None:
        """A node, with all that is below it, gets other parents: in its own tree, or in another."""
        shape = self.world.shape
        names = [n for n in self._names if shape.parents[n] and shape.is_own(n) and self.world.hosts[n].running]
        if not names:
            return
        host = self.world.hosts[self.rng.choice(names)]
        below = shape.below(host.name)
        outside = self.world.outside
        above = [
            n
            for n in self._names
            if n not in below and n not in outside and (shape.children[n] or not shape.parents[n])
        ]
        parent = self.rng.choice(above) if above else ""
        if not parent or host.parents == (parent,):
            return
        # beside the others of that tier: a node's parents all lead to the same roots
        parents = (
            (parent,)
            if shape.parents[parent]
            else tuple(r for r in shape.roots if shape.tree_of(r) == shape.tree_of(parent))
        )
        self._moved.setdefault(host.name, []).extend(p for p in host.parents if p not in parents)
        self.acts.move(host, parents)

    def promote(self) -> None:
        """A middle node becomes a root, or a root becomes the child of another."""
        shape = self.world.shape
        names = [n for n in self._inner if shape.is_own(n) and self.world.hosts[n].running]
        if not names:
            return
        host = self.world.hosts[self.rng.choice(names)]
        if host.parents:
            self._moved.setdefault(host.name, []).extend(host.parents)
            self.acts.move(host, ())
            return
        others = [r for r in shape.roots if shape.tree_of(r) != shape.tree_of(host.name)]
        if others:
            tree = shape.tree_of(self.rng.choice(others))
            self.acts.move(host, tuple(r for r in others if shape.tree_of(r) == tree))

    def add_host(self) -> None:
        """A new host appears; sometimes below a node that is cut off at the moment."""
        shape = self.world.shape
        parents = [n for n in self._inner if shape.parents[n]] or list(shape.roots)
        parent = self.world.hosts[self.rng.choice(parents)]
        self._count += 1
        if parent.parents and self.rng.random() < 0.5:
            self.acts.isolate(parent, self._short_or_long())
        above = (
            (parent.name,)
            if parent.parents
            else tuple(r for r in shape.roots if shape.tree_of(r) == shape.tree_of(parent.name))
        )
        self.acts.add_node(f"new-host-{self._count}", above)

    def forget(self) -> None:
        """A machine is off for long. Before it is presumed stopped, an operator reports that it has stopped."""
        host = self.world.hosts[self.rng.choice(self.world.shape.leaves)]
        if not host.powered or host.name in self.world.outside:
            return
        self.acts.power_off(host)

        def say_so() -> None:
            if not host.powered:
                for parent in host.parents:
                    self.acts.forget(self.world.hosts[parent], host.node)

        self._later(12.0, 18.0, say_so)
        self._later(20.0, 40.0, lambda: self.acts.power_on(host))

    # ------------------------------------------------------------------ liars

    def lie(self) -> None:
        """A child that lies about a service of others."""
        services = [p for p in self.world.processes.values() if p.alive and p.served]
        if not services or any(not host.honest and host.running for host in self.world.hosts.values()):
            return  # one at a time: most children of a node are honest
        about = self.rng.choice(services)
        parent = self.world.hosts[self.rng.choice(self._inner)]
        self._count += 1
        liar = self.acts.add_liar(f"liar-{self._count}", (parent.name,))
        self._later(0.5, 3.0, lambda: self._tell_lies(liar, about))
        self._later(10.0, 40.0, liar.leave)

    def _tell_lies(self, liar: Liar, about: Process) -> None:
        service = self.rng.choice((about.spec.service, "evil"))
        # It may also claim a version that others have: only identities could distinguish that.
        key = ClaimKey(service, "99.0.0", self.rng.choice(about.spec.routes))
        is_open = self.rng.random() < 0.7
        liar.lie(
            bridge.false_claim(
                key,
                is_open=is_open,
                roots=liar.roots,
                generation=self.rng.choice((0, 1_000_000)),
                host=self.rng.choice((about.host, liar.name)),
                seen=self.rng.choice((0, 1 << 52)),
            )
        )
        if self.rng.random() < 0.5:
            text = '{"compatibility":{"rule":"any"},"on_silence":"open"}'
            liar.lie_about_policies(bridge.policy(about.spec.service, text, 1_000_000, self.world.shape.roots[0]))

    # ------------------------------------------------------------------ the end of it

    def stop(self) -> None:
        """Ends all faults: everything that can return returns."""
        self.active = False
        world = self.world
        world.network.heal()
        for host in list(world.hosts.values()):
            if isinstance(host, Liar):
                host.leave()
                continue
            if host.name in world.outside:
                self._end_clone(host)
                continue
            self.acts.free_disk(host)
            host.crash_in = None
            self.acts.come_back(host)
            host.resume()
            self.acts.power_on(host)
            self.acts.start_engine(host)
            host.link_engine()
            host.start()
        for process in list(world.processes.values()):
            if process.alive and not process.renewing:
                world.end(process, "is killed")
        for seconds in (5.0, 15.0, 25.0, 35.0, 45.0):  # tier by tier: each may still report what the one below presumes
            world.clock.after(seconds, self._forget_the_gone)

    def _forget_the_gone(self) -> None:
        """Operators report nodes that were moved away or never existed as stopped, and remnants likewise."""
        world = self.world
        gone = [(parent, child) for child, parents in self._moved.items() for parent in parents]
        for name in world.outside:
            gone += [(parent, name) for parent in world.hosts[name].parents]
        for host in world.inside():
            gone += [(host.name, child) for child in bridge.remnants(host.view)]
        for parent, child in gone:
            there = world.hosts.get(child)
            its_own = there is None or there.node == child
            if its_own and (child in world.outside or there is None or self._is_back(parent, child)):
                self.acts.forget(world.hosts[parent], child)

    def _is_back(self, parent: str, child: str) -> bool:
        """Whether the node reports to all its current parents, so that claims that it does not report do not exist."""
        links = self.world.hosts[child].view.parent_links()
        return all(link.state == "connected" for link in links) or parent not in self.world.shape.parents[child]


KINDS: dict[str, Callable[[Faults], None]] = {
    "kill": Faults.kill_control,
    "pause": Faults.pause_control,
    "clock": Faults.jump_clock,
    "reset": Faults.reset_links,
    "partition": Faults.partition,
    "half-visible": Faults.half_visible,
    "weather": Faults.bad_weather,
    "engine": Faults.crash_engine,
    "engine-link": Faults.lose_engine_link,
    "upgrade": Faults.join_engine,
    "process": Faults.crash_process,
    "hang": Faults.hang_process,
    "power": Faults.power_off,
    "power-cut-off": Faults.power_off_cut_off,
    "disk": Faults.lose_disk,
    "disk-full": Faults.fill_disk,
    "replace": Faults.replace_node,
    "restore": Faults.restore_node,
    "clone": Faults.clone_node,
    "leave": Faults.leave,
    "leave-children": Faults.leave_children,
    "move": Faults.move,
    "promote": Faults.promote,
    "add-host": Faults.add_host,
    "forget": Faults.forget,
    "lie": Faults.lie,
}
