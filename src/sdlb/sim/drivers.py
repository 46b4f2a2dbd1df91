"""What drivers run on the machines: slots with programs that outlive control. The truth for the checks.

As in production, one call at a time runs in a slot, a call that finds its work done changes nothing, a program that exits is started
again after a pause, and all end with their machine. Control that was killed does not get the results of its calls.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct

from sdlb.core.effects import RunDriver
from sdlb.core.events import DriverDone, InstanceHealth
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.model.role import Program, RoleService
from sdlb.sim import bridge
from sdlb.sim.process import Process

if TYPE_CHECKING:
    from sdlb.sim.host import Host
    from sdlb.sim.world import World

CALL_S = {"prepare": (0.05, 1.5), "start": (0.02, 0.3), "stop": (0.05, 0.5), "state": (0.001, 0.05)}
WARM_UP_S = (0.2, 2.0)
NOTICED_S = (0.001, 0.2)  # from the end of a program to the event about it
RESTART_S, RESTART_S_MAX, STABLE_S = 1.0, 60.0, 60.0
FIRST_PORT = 20_000
DIGEST = "ab" * 32


class Flaw(Struct, frozen=True):
    """What is wrong with a version on a machine. `prepare`, `start`: the call fails with this text; `retry`: it may succeed
    later. `dies_s`: the program exits that long after each start. `ill`: it is never healthy. `hangs_s`: a stop takes that
    long. `slow_s`: so does each call."""

    prepare: str = ""
    start: str = ""
    retry: bool = False
    dies_s: float = 0.0
    ill: bool = False
    hangs_s: float = 0.0
    slow_s: float = 0.0


class DriverSlot(Struct, eq=False):
    """`program`: the process that runs now. `machine`: how often its machine has ended. `run`: how often its program has been started or
    stopped. `free_at`: when the last call will have ended."""

    host: str
    role: RoleService
    name: str
    status: str = "absent"
    version: str = ""
    port: int = 0
    pid: int = 0
    program: Process | None = None
    since: float = 0.0
    restarts: int = 0
    machine: int = 0
    run: int = 0
    free_at: float = 0.0

    @property
    def occupied(self) -> bool:
        return self.status not in ("absent", "stopped")


def role(service: str, routes: tuple[str, ...], *, capacity: int = 100, side_by_side: bool = True) -> RoleService:
    return RoleService(
        *("web", service, Program((f"./{service}", "--port", "{port}")), routes, HealthCheck("http")),
        capacity=capacity,
        side_by_side=side_by_side,
    )


def release(service: str, version: str, *requires: str) -> dict[str, object]:
    artifact = {"url": f"https://repo.example/{service}-{version}.tgz", "sha256": DIGEST}
    return {"service": service, "version": version, "requires": list(requires), "artifact": {"any": artifact}}


class Drivers:
    """`flaws`: by machine ("": all) and version, the former first. `otherwise`: of all others."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self.flaws: dict[tuple[str, str], Flaw] = {}
        self.otherwise: Callable[[str, str], Flaw] = lambda host, version: Flaw()
        self.slots: dict[tuple[str, str, str, str], DriverSlot] = {}
        self._count = 0

    def of(self, host: str) -> list[DriverSlot]:
        return [slot for slot in self.slots.values() if slot.host == host]

    def running(self, service: str, host: str = "") -> list[DriverSlot]:
        """Slots with a program of the service, on one machine or on all."""
        there = (s for s in self.slots.values() if s.role.service == service and s.program is not None)
        return [slot for slot in there if not host or slot.host == host]

    def runs(self, host: Host, instance: str) -> bool:
        """Whether the instance is one of a role of this host."""
        return bool(host.roles) and host.view.of_agent(instance) is not None

    def flaw(self, host: str, version: str) -> Flaw:
        known = self.flaws.get((host, version)) or self.flaws.get(("", version))
        if known is None:
            known = self.flaws[host, version] = self.otherwise(host, version)
        return known

    # ------------------------------------------------------------------ calls

    def call(self, host: Host, effect: RunDriver) -> None:
        key = (host.name, effect.role, effect.service, effect.slot)
        slot = self.slots.get(key)
        if slot is None:
            mine = next(each for each in host.roles if (each.role, each.service) == key[1:3])
            slot = self.slots[key] = DriverSlot(host.name, mine, effect.slot)
        self._world.coverage.happened[f"driver calls {effect.call}"] += 1
        flaw = self.flaw(host.name, effect.version)
        took = self._rng.uniform(*CALL_S[effect.call]) + flaw.slow_s
        if effect.call == "stop" and slot.occupied:
            took += self.flaw(host.name, slot.version).hangs_s
        slot.free_at = max(slot.free_at, self._world.clock.now) + took
        boot, machine = host.boot, slot.machine
        self._world.clock.at(slot.free_at, lambda: self._carry_out(host, slot, effect, boot, machine))

    def _carry_out(self, host: Host, slot: DriverSlot, effect: RunDriver, boot: int, machine: int) -> None:
        alive = host.running and host.boot == boot
        if not host.powered or slot.machine != machine:
            return
        if not alive and self._rng.random() < 0.5:
            return  # control was killed before it had made the call
        fault, text, retry = self._do(host, slot, effect)
        if alive:
            log = ("as simulated",) if fault else ()
            found = ("", "", 0, 0) if fault else (slot.status, slot.version, slot.pid, slot.port)
            host.take(DriverDone(effect.key, fault, text, retry, log, *found))

    def _do(self, host: Host, slot: DriverSlot, effect: RunDriver) -> tuple[str, str, bool]:
        """Whose fault it is, what happened, and whether to retry."""
        flaw = self.flaw(host.name, effect.version)
        match effect.call:
            case "prepare" if flaw.prepare:
                return "artifact", flaw.prepare, flaw.retry
            case "start" if slot.occupied and slot.version != effect.version:
                return "us", f"the slot has {slot.version}; stop it first", False
            case "start" if flaw.start and not slot.occupied:
                return "program", flaw.start, flaw.retry
            case "start":
                self._world.on_driver(host, slot, effect)
                if not slot.occupied:
                    slot.version, slot.restarts = effect.version, 0
                    slot.port = slot.port or self._port(host, slot, effect.port)
                    self._run(host, slot)
            case "stop":
                self._world.on_driver(host, slot, effect)
                self._stop(slot)
            case _:
                pass
        return "", "", False

    def _port(self, host: Host, slot: DriverSlot, before: int) -> int:
        taken = {each.port for each in self.of(host.name) if each is not slot}
        if before and before not in taken:
            return before
        self._count += 1
        return FIRST_PORT + self._count

    # ------------------------------------------------------------------ programs

    def _run(self, host: Host, slot: DriverSlot) -> None:
        self._count += 1
        slot.run += 1
        slot.pid, slot.status, slot.since = 1_000_000 + self._count, "running", self._world.clock.now
        spec = _spec(host, slot)
        process = Process(f"{spec.id}~{slot.pid}", host.name, spec, self._world.clock.now, "agent", role=slot.role.role)
        process.healthy = process.wanted = False  # until it is warm and registered
        slot.program = process
        self._world.spawn(process)
        self._world.coverage.changes["programs started by drivers"] += 1
        flaw = self.flaw(host.name, slot.version)
        if not flaw.ill:
            self._world.clock.after(self._rng.uniform(*WARM_UP_S), lambda: self._warm(host, slot, process))
        if flaw.dies_s:
            self._world.clock.after(flaw.dies_s, lambda: self._dies(host, slot, process))

    def _warm(self, host: Host, slot: DriverSlot, process: Process) -> None:
        if process.alive and slot.program is process:
            process.healthy, process.since = True, self._world.clock.now
            self._report(host, process)

    def _dies(self, host: Host, slot: DriverSlot, process: Process) -> None:
        if slot.program is process and self.flaw(host.name, process.version).dies_s:
            self.exits(host, process)

    def heal(self) -> None:
        """From now on nothing is wrong with any version."""
        self.flaws.clear()
        self.otherwise = lambda host, version: Flaw()
        for slot in self.slots.values():
            if slot.program is not None and not slot.program.healthy:
                self._warm(self._world.hosts[slot.host], slot, slot.program)

    def exits(self, host: Host, process: Process) -> None:
        """The program exits by itself. It is started again after a pause."""
        slot = self._slot_of(process)
        if slot is None or not process.alive:
            return
        world = self._world
        world.coverage.faults["programs that exited"] += 1
        world.affected.harm_service(process.spec.service)
        world.end(process, "exits")
        if world.clock.now - slot.since > STABLE_S:
            slot.restarts = 0
        slot.program, slot.pid, slot.status = None, 0, "pausing"
        pause_s = min(RESTART_S * 2**slot.restarts, RESTART_S_MAX)
        slot.restarts += 1
        run = slot.run
        world.clock.after(pause_s, lambda: self._again(host, slot, run))
        self._report(host, process)

    def _again(self, host: Host, slot: DriverSlot, run: int) -> None:
        if slot.run == run and slot.status == "pausing":
            self._run(host, slot)

    def _slot_of(self, process: Process) -> DriverSlot | None:
        return next((slot for slot in self.of(process.host) if slot.program is process), None)

    def _stop(self, slot: DriverSlot) -> None:
        process = slot.program
        slot.run += 1
        slot.program, slot.pid, slot.status, slot.version, slot.restarts = None, 0, "absent", "", 0
        if process is not None:
            self._world.end(process, "is stopped")

    # ------------------------------------------------------------------ what the node watches

    def _report(self, host: Host, process: Process) -> None:
        self._world.clock.after(self._rng.uniform(*NOTICED_S), lambda: self.tell(host, process.id))

    def tell(self, host: Host, instance: str) -> None:
        """As the health checks of the node do, for one instance that its agent has registered."""
        known = host.view.instance(instance) if host.running else None
        if known is None or self._world.clock.now < host.paused_until:
            return
        there = next((p for p in host.by_endpoint.get(known["endpoint"], ()) if p.alive and p.id == instance), None)
        healthy = there is not None and there.healthy
        if known["healthy"] != healthy:
            host.take(InstanceHealth(instance, healthy, "" if healthy else "as simulated"))

    def look(self, host: Host) -> None:
        """After a step of control: which programs it has registered, and which of them it wants to drain."""
        now = self._world.clock.now
        for slot in self.of(host.name):
            process = slot.program
            if process is None:
                continue
            known = host.view.instance(process.id)
            mine = known is not None and known["endpoint"] == process.spec.endpoint
            wanted = mine and known is not None and known["state"] not in ("draining", "drained")
            if wanted and not process.wanted:
                process.wanted, process.leave_asked, process.leave_by, process.since = True, 1e9, 1e9, now
            elif process.wanted and not wanted:
                self._world.on_retired(host, process)
                target = bridge.target_of(host.view, process.spec.service)
                drain_s = target.rollout.spec.drain_s if target is not None and target.rollout is not None else 0.0
                process.wanted, process.leave_asked, process.leave_by = False, now, now + drain_s
                self._world.log_event(host.name, f"{process.name} is to leave")

    # ------------------------------------------------------------------ machines

    def machine_ended(self, host: Host, *, lost: bool = False) -> None:
        """`lost`: another machine takes its place."""
        for key, slot in list(self.slots.items()):
            if slot.host == host.name:
                slot.machine += 1
                slot.run += 1
                slot.program, slot.pid = None, 0
                slot.status = "stopped" if slot.occupied else slot.status
                if lost:
                    del self.slots[key]


def _spec(host: Host, slot: DriverSlot) -> InstanceSpec:
    """As the agent registers it."""
    mine = slot.role
    return InstanceSpec(
        *(
            f"{mine.service}-{slot.version}.{host.node}.{mine.role}-{slot.name}",
            mine.service,
            slot.version,
            mine.routes,
        ),
        *(f"127.0.0.1:{slot.port}", mine.protocol, mine.compatible, mine.capacity, mine.health),
        ttl_s=0.0,
    )
