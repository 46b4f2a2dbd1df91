"""All actions on a world, one method each. Faults choose them at random, scenarios by script.

Each method also records the truth about the action: what it may cost, which nodes it disturbs, and how it is counted.
"""

from __future__ import annotations

import json
from random import Random

from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.model.instance import InstanceSpec
from sdlb.sim import bridge
from sdlb.sim.drivers import release
from sdlb.sim.host import Host
from sdlb.sim.liar import Liar
from sdlb.sim.process import Process
from sdlb.sim.world import World

RENEW_S = 3.0
TTL_S = 10.0


class Acts:
    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self._count = 0

    def _fault(self, kind: str, *hosts: Host) -> None:
        self.world.coverage.faults[kind] += 1
        for host in hosts:
            self.world.affected.disturb(host.name)

    def _change(self, kind: str) -> None:
        self.world.coverage.changes[kind] += 1

    def _harm(self, host: Host) -> None:
        self.world.affected.harm_node(host.name)

    def _services_of(self, host: Host) -> set[str]:
        """The services that are served through this node."""
        below = self.world.shape.below(host.name)
        return {p.spec.service for p in self.world.processes.values() if p.host in below}

    # ------------------------------------------------------------------ control

    def kill(self, host: Host, within: int | None = None) -> None:
        """kill -9 of control. `within`: in the middle of its next iteration."""
        self._fault("control killed", host)
        if within is None:
            host.kill()
        else:
            host.crash_in = within

    def start(self, host: Host) -> None:
        self.world.affected.disturb(host.name)
        host.start()

    def pause(self, host: Host, seconds: float) -> None:
        self._fault("control paused", host)
        host.paused_until = self.world.clock.now + seconds
        self.world.clock.after(seconds, lambda: self.world.affected.disturb(host.name))

    # ------------------------------------------------------------------ engines

    def crash_engine(self, host: Host) -> None:
        self._fault("engine crashed", host)
        self._harm(host)
        host.crash_engine()

    def start_engine(self, host: Host) -> None:
        if host.powered and not host.engine.up:
            self._harm(host)
            host.start_engine()

    def join_engine(self, host: Host) -> None:
        """A hot restart begins: a second engine process attaches, and control sends the whole table again."""
        if host.running and host.engine.up:
            self._fault("engine joined")
            self.world.log_event(host.name, "a second engine joins")
            host.take(ev.EngineJoined())

    def lose_engine_link(self, host: Host, seconds: float) -> None:
        """The connection between control and engine is down for a while. The engine serves on with the same boot id."""
        if host.lose_engine_link(applied=self.rng.random() < 0.5):
            self._fault("engine link lost", host)
            self.world.clock.after(seconds, host.link_engine)

    # ------------------------------------------------------------------ machines and disks

    def power_off(self, host: Host) -> None:
        if not host.powered:
            return
        self._fault("machines off", host)
        self._power_off(host)

    def _power_off(self, host: Host) -> None:
        self._harm(host)
        self.world.log_event(host.name, "power is off")
        host.kill(silently=True)
        host.disk.power_cut(self.rng)
        host.powered = False
        self.world.hooks.machine_ended(host)
        for process in list(host.processes.values()):
            if process.alive:
                self.world.affected.harm_service(process.spec.service)
                self.world.end(process, "its machine is off")
        self.world.drivers.machine_ended(host)
        host.crash_engine()

    def power_on(self, host: Host) -> None:
        if not host.powered:
            host.powered = True
            self._harm(host)
            self.world.log_event(host.name, "power is on")
            host.start_engine()
            host.start()

    def lose_disk(self, host: Host) -> None:
        """The state file is damaged or lost: it is set aside, and the node starts empty, under a new id."""
        if host.running:
            self._fault("disks lost", host)
            host.kill()
            self._forget_all(host)

    def _forget_all(self, host: Host) -> None:
        host.disk.lose()
        host.node_id = f"{host.name}#{host.boot}"
        self._knows_nothing(host)

    def _knows_nothing(self, host: Host) -> None:
        self.world.touch.fresh_at[host.name] = self.world.clock.now
        self.world.forgot_at[host.name] = self.world.clock.now
        self.world.affected.disturb(host.name)
        self.world.affected.split(self._services_of(host))

    def replace(self, host: Host) -> None:
        """The machine is lost. When it is powered on, a machine with the same name and an empty disk replaces it."""
        if host.powered:
            self._fault("nodes replaced", host)
            self._power_off(host)
            self.world.drivers.machine_ended(host, lost=True)
            self._forget_all(host)

    def restore(self, host: Host, saved: dict[str, object]) -> None:
        """The machine goes down and returns with the state of the snapshot."""
        self._fault("nodes restored", host)
        if host.powered:
            self._power_off(host)
        host.disk.set_back(saved)
        self._knows_nothing(host)

    def restore_folder(self, host: Host, saved: dict[str, object]) -> None:
        """An operator puts an older copy of the state folder in place. The engine and the programs go on."""
        self._fault("state folders restored", host)
        host.kill()
        host.disk.set_back(saved)
        self._knows_nothing(host)
        host.start()

    def fill_disk(self, host: Host) -> None:
        self._fault("disks full", host)
        self.world.log_event(host.name, "the disk is full")
        host.disk.full = True

    def free_disk(self, host: Host) -> None:
        if host.disk.full:
            self.world.affected.disturb(host.name)
            self.world.log_event(host.name, "the disk has space again")
            host.disk.full = False

    def clone(self, host: Host, name: str) -> Host:
        """A second machine starts with a copy of this state folder: the same node runs twice."""
        self._fault("state folders cloned", host)
        twin = Host(self.world, name, host.parents, Random(self.rng.random()), node=host.node)
        twin.node_id = host.node_id
        twin.disk.set_back(host.disk.read())
        self.world.outside[name] = None
        self.world.add(twin)
        self.world.children_ever[name] = self.world.children_ever.get(host.name, 0)  # they are on its disk
        twin.start()
        return twin

    # ------------------------------------------------------------------ links

    def cut(self, a: str, b: str, seconds: float, both: bool = True, stall: bool = False) -> None:
        """Messages from one node to the other do not arrive."""
        self.world.affected.disturb(a)
        self.world.affected.disturb(b)
        self.world.network.block(a, b, self.world.clock.now + seconds, both, stall)
        self.world.clock.after(seconds, lambda: self._joined(a, b))

    def _joined(self, *names: str) -> None:
        for name in names:
            self.world.affected.disturb(name)

    def isolate(self, host: Host, seconds: float) -> None:
        """No control message passes in or out. Traffic still does."""
        self._fault("nodes cut off", host)
        self.world.log_event(host.name, f"is cut off for {seconds:.1f} s")
        for other in [*host.parents, *self.world.shape.children[host.name]]:
            self.cut(host.name, other, seconds)

    # ------------------------------------------------------------------ the tree

    def move(self, host: Host, parents: tuple[str, ...]) -> None:
        """The node gets other parents and its control restarts. Its engine serves on meanwhile."""
        world = self.world
        before = {root for root in world.shape.roots if root in world.shape.above(host.name)}
        world.log_event(host.name, f"gets other parents: {', '.join(parents) or 'none'}")
        self._fault("nodes moved" if parents and host.parents else "roots promoted" if not parents else "roots demoted")
        host.kill()
        host.parents = host.addresses = parents
        world.place(host)
        after = {root for root in world.shape.roots if root in world.shape.above(host.name)}
        world.touch.left_at.update(dict.fromkeys(before - after, world.clock.now))
        for name in world.shape.below(host.name):
            world.affected.disturb(name)
            self._joins(name)
            if before != after:  # others decide from now on
                world.touch.fresh_at[name] = world.clock.now
                world.forgot_at[name] = world.clock.now
        host.start()

    def _joins(self, name: str) -> None:
        """From now on the policies of its new tree apply to the node. Those that it brings along apply nowhere else."""
        world, mine = self.world, self.world.policies_set.setdefault(name, {})
        for root in world.shape.roots:
            if root in world.shape.above(name):
                for service, texts in world.policies_set.get(root, {}).items():
                    mine.setdefault(service, set()).update(texts)

    def add_node(self, name: str, parents: tuple[str, ...]) -> Host:
        self._change("nodes added")
        host = Host(self.world, name, parents, Random(self.rng.random()))
        self.world.add(host)
        self._joins(name)
        host.start()
        return host

    def add_liar(self, name: str, parents: tuple[str, ...]) -> Liar:
        self._fault("liars")
        liar = Liar(self.world, name, parents, Random(self.rng.random()))
        self.world.outside[name] = None
        self.world.add(liar)
        liar.start()
        return liar

    def stop(self, host: Host, deadline_s: float = 20.0) -> None:
        """The node leaves cleanly, for a while or permanently."""
        if host.running:
            self._change("nodes left")
            host.leaving = True
            self.world.affected.disturb(host.name)
            host.take(ev.Stop(deadline_s))

    def come_back(self, host: Host) -> None:
        if host.leaving:
            self.world.affected.disturb(host.name)
            host.come_back()

    def forget(self, parent: Host, child: str) -> None:
        """An operator reports that this child has stopped."""
        if parent.running:
            self._change("children forgotten")
            self.world.log_event(parent.name, f"an operator reports that {child} has stopped")
            self.world.touch.forgotten_at[self.world.shape.tree_of(parent.name)] = self.world.clock.now
            self.world.forgotten[parent.name, child] = self.world.clock.now
            parent.take(ev.ForgetChild(child))

    def policy(self, root: str, service: str, data: dict[str, object]) -> None:
        """An operator sets the policy at one root, from which it reaches all nodes."""
        host, shape = self.world.hosts[root], self.world.shape
        if not host.running:
            return
        self._change("policies set")
        self.world.orders.order(service)
        text = json.dumps(data)
        for name in shape.parents:
            if shape.tree_of(name) == shape.tree_of(root):
                self.world.policies_set.setdefault(name, {}).setdefault(service, set()).add(text)
        host.take(bridge.policy_put(service, text))

    # ------------------------------------------------------------------ openings

    def approve(self, root: str, service: str, version: str, gate: str, by: str) -> bool:
        """A person approves at one root. Returns whether it counts there: only the conductor's answer does."""
        host = self.world.hosts[root]
        if not host.running or host.view.approval_objection(service, version, gate, by):
            return False
        self._change("gates approved")
        self.world.orders.approvals.setdefault((service, version, gate), set()).add(by)
        host.take(ev.Approve(service, version, gate, by))
        return True

    def promote_version(self, root: str, service: str, version: str, by: str, no_gates: str = "") -> bool:
        host = self.world.hosts[root]
        if not host.running or host.view.promotion_objection(service, version):
            return False
        self._change("versions promoted")
        orders = self.world.orders
        orders.order(service)
        orders.promoted[service, version] = no_gates or orders.promoted.get((service, version), "")
        host.take(ev.Promote(service, version, by, no_gates))
        return True

    def transfer(self, root: str, route: str, service: str, by: str) -> bool:
        host = self.world.hosts[root]
        if not host.running or host.view.transfer_objection(route, service):
            return False
        self._change("routes transferred")
        for name in self.world.sharing.get(service, set()) | {service}:
            self.world.orders.order(name)
            self.world.orders.transferred[name] = self.world.clock.now
        self.world.orders.given[route] = service
        host.take(ev.RouteTransfer(route, service, by))
        return True

    # ------------------------------------------------------------------ rollouts

    def release(self, root: str, service: str, version: str, *requires: str) -> None:
        """An operator adds a release, at all roots of the tree of this one."""
        self._change("releases added")
        world = self.world
        for name in world.shape.roots:
            if world.shape.tree_of(name) == world.shape.tree_of(root) and world.hosts[name].running:
                body = json.dumps(release(service, version, *requires)).encode()
                world.hosts[name].take(ev.ReleasePut(f"{service}-{version}", body, "operator-a"))

    def rollout(self, root: str, order: ev.RolloutOrder) -> str:
        """An operator orders something about a rollout at one root. Returns why it has no effect; "": it has one."""
        host = self.world.hosts[root]
        if not host.running:
            return f"{root} is not running"
        why = host.view.rollout_objection(order)
        if not why:
            self._change(f"rollouts: {order.verb}")
            self.world.orders.order(order.service)
            host.take(order)
        return why

    # ------------------------------------------------------------------ instances

    def spec(
        self,
        name: str,
        service: str,
        version: str,
        routes: tuple[str, ...],
        *,
        ttl_s: float = TTL_S,
        capacity: int = 100,
        compatible: tuple[str, ...] = (),
    ) -> InstanceSpec:
        """A new program with its own address and process id."""
        self._count += 1
        return InstanceSpec(
            id=name,
            service=service,
            version=version,
            routes=routes,
            endpoint=f"127.0.0.1:{1000 + self._count}",
            capacity=capacity,
            ttl_s=ttl_s,
            pid=self._count,
            compatible=compatible,
        )

    def run(self, host: Host, spec: InstanceSpec, *, owner: str = "", home: str = "", healthy: bool = True) -> Process:
        """A program starts, registers, and keeps renewing."""
        self._change("instances started")
        owner = owner or (spec.id if spec.pid else "")  # as in production: without a process id there is no owner
        process = Process(self._name(spec), host.name, spec, self.world.clock.now, owner, home)
        process.healthy = healthy
        self.world.spawn(process)
        self._renew(process)
        return process

    def _name(self, spec: InstanceSpec) -> str:
        same = sum(1 for process in self.world.processes.values() if process.id == spec.id)
        return spec.id if not same else f"{spec.id}~{same + 1}"

    def _renew(self, process: Process) -> None:
        host = self.world.hosts[process.host]
        if not process.alive:
            return
        # its owner has one registration in mind, the newest
        asked = process.successor is None and host.running and self._is_registered(host, process)
        known = process.wanted or asked
        if process.rejected:
            process.since = self.world.clock.now
        if process.renewing and host.running and known:
            host.register(process)
        self.world.clock.after(self.rng.uniform(0.9, 1.1) * RENEW_S, lambda: self._renew(process))

    @staticmethod
    def _is_registered(host: Host, process: Process) -> bool:
        """Whether this very process is registered, and not another one that replaced it."""
        known = host.view.instance(process.id)
        return known is not None and known["pid"] == process.spec.pid

    def well(self, process: Process) -> None:
        process.healthy = True
        process.since = self.world.clock.now

    def register_again(self, process: Process, spec: InstanceSpec, healthy: bool = True) -> Process:
        """Its owner registers the same id with other settings. The former registration drains when the new one serves."""
        self._change("instances registered again")
        new = self.run(self.world.hosts[process.host], spec, owner=process.owner, home=process.home, healthy=healthy)
        process.wanted = False
        process.successor = new
        process.leave_asked = 1e9
        self._see_off_old(process)
        return new

    def _see_off_old(self, process: Process) -> None:
        """The replaced program exits when no request can reach it any more."""
        new = process.successor
        if process.alive and new is not None:
            if (new.served or not new.alive) and not self.world.is_endpoint(process) and not process.carried:
                self.world.end(process, "was replaced")
            else:
                self.world.clock.after(1.0, lambda: self._see_off_old(process))

    def usurp(self, process: Process, version: str) -> Process:
        """A program of another owner registers under the id of a live one. It gets no requests while that one stays."""
        self._change("ids taken by others")
        self._count += 1
        spec = replace(process.spec, version=version, endpoint=f"127.0.0.1:{1000 + self._count}", pid=self._count)
        other = self.run(self.world.hosts[process.host], spec, owner=f"another/{self._count}", home=process.home)
        other.holder = process
        return other

    def drain(self, process: Process, deadline_s: float) -> None:
        """Drained by hand: it gets no new traffic but stays registered."""
        host = self.world.hosts[process.host]
        if process.wanted and process.alive and host.running:
            self._change("instances drained by hand")
            self._leaves(process, deadline_s)
            host.take(ev.InstanceDrain(process.id, deadline_s))

    def _leaves(self, process: Process, deadline_s: float) -> None:
        process.wanted = False
        process.leave_asked = self.world.clock.now
        process.leave_by = self.world.clock.now + deadline_s
        self.world.log_event(process.host, f"{process.name} is to leave")

    def leave(self, process: Process, deadline_s: float) -> None:
        """SIGTERM to `sdlb run`: it drains and deregisters the program, which exits then, or at the deadline."""
        if process.alive and (process.wanted or process.successor is None):
            self._change("instances stopped")
            if process.wanted:
                self._leaves(process, deadline_s)
            self._see_off(process, self.world.clock.now + deadline_s)

    def _see_off(self, process: Process, until: float) -> None:
        host, now = self.world.hosts[process.host], self.world.clock.now
        if not process.alive:
            return
        reads = host.running and now >= host.paused_until
        gone = reads and not self._is_registered(host, process) and not self.world.is_endpoint(process)
        if now >= until + 1.0:
            if process.carried or self.world.is_endpoint(process):
                self.world.affected.harm_service(process.spec.service)
                self.world.coverage.happened["left at the deadline"] += 1
            self.world.end(process, "its drain took too long")
        elif gone:
            self.world.end(process, "drained")
        else:
            if reads and self._is_registered(host, process):
                host.take(ev.InstanceRemove(process.id, max(0.1, until - now)))
            self.world.clock.after(0.2, lambda: self._see_off(process, until))

    def crash(self, process: Process) -> None:
        self._fault("process crashed")
        if process.role:
            self.world.drivers.exits(self.world.hosts[process.host], process)
            return
        self.world.affected.harm_service(process.spec.service)
        self.world.end(process, "crashes")

    def hang(self, process: Process) -> None:
        """The program stops renewing its lease."""
        self._fault("process hung")
        self.world.affected.harm_service(process.spec.service)
        process.renewing = False
