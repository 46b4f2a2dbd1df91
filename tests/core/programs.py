"""The driver and the programs of one node of the forest, which outlive its control. A slot has one version at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from sdlb.core import effects as ef
from sdlb.core import events as ev

if TYPE_CHECKING:
    from tests.core.node import Node

Slot = tuple[str, str, str]
"""(role, service, slot)."""


@dataclass
class Program:
    version: str
    port: int
    pid: int
    status: str = "running"
    restarts: int = 0
    why: str = ""
    ended: str = ""


@dataclass
class Build:
    """How a version behaves. `prepares`, `starts`: "" or the fault. `retry`: of these. `healthy`: False: never."""

    prepares: str = ""
    starts: str = ""
    retry: bool = False
    healthy: bool = True


@dataclass
class Programs:
    """`slow_s`: time that a call takes; in `hangs` ("start 1.0.2", "stop"): never answered. `stops`: "" or the fault of `stop`.
    `last_words`: what a program that is stopped has logged. `calls`: all, as "CALL SLOT VERSION"."""

    node: Node
    builds: dict[str, Build] = field(default_factory=dict)
    slots: dict[Slot, Program] = field(default_factory=dict)
    prepared: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    slow_s: float = 0.0
    hangs: set[str] = field(default_factory=set)
    stops: str = ""
    last_words: tuple[str, ...] = ()
    waiting: list[tuple[float, ef.RunDriver]] = field(default_factory=list)
    _count: count[int] = field(default_factory=lambda: count(1))

    # ------------------------------------------------------------------ calls

    def run(self, effect: ef.RunDriver) -> None:
        self.calls.append(f"{effect.call} {effect.slot} {effect.version}".strip())
        if effect.call in self.hangs or f"{effect.call} {effect.version}" in self.hangs:
            return
        slow_s = self.slow_s if effect.call != "state" else 0.0
        self.waiting.append((self.node.forest.now + slow_s, effect))
        self.work()

    def work(self) -> None:
        """Ends the calls whose time has come."""
        due = [each for each in self.waiting if each[0] <= self.node.forest.now]
        self.waiting = [each for each in self.waiting if each[0] > self.node.forest.now]
        for _, effect in due:
            done = self._do(effect)
            if self.node.alive:
                self.node.inbox.append(done)

    def _do(self, effect: ef.RunDriver) -> ev.DriverDone:
        slot, key, version = (effect.role, effect.service, effect.slot), effect.key, effect.version
        there, build = self.slots.get(slot), self.builds.get(effect.version, Build())
        match effect.call:
            case "prepare":
                if build.prepares:
                    return ev.DriverDone(key, build.prepares, f"{version} cannot be fetched", build.retry)
                self.prepared.add(version)
            case "start":
                assert there is None or there.version == version, f"{version} beside {there} in {slot}"
                if build.starts:
                    log = tuple(f"line {n}" for n in range(30))
                    return ev.DriverDone(key, build.starts, f"{version} does not start", build.retry, log)
                number = next(self._count)
                if there is None:
                    self.slots[slot] = Program(version, effect.port or 20_000 + number, number)
                elif there.status != "running":
                    there.status, there.pid = "running", number
            case "stop":
                if self.stops and there is not None:
                    return ev.DriverDone(key, self.stops, "it does not stop", retry=True)
                self.slots.pop(slot, None)
                return ev.DriverDone(key, status="absent", log=self.last_words)
            case _:
                assert effect.call == "state"
        found = self.slots.get(slot)
        if found is None:
            return ev.DriverDone(key, status="absent")
        return ev.DriverDone(
            *(key, "", found.why if found.status != "running" else "", False, ("last line",)),
            *(found.status, found.version, found.pid, found.port, found.restarts, found.ended),
        )

    # ------------------------------------------------------------------ programs

    def die(self, version: str, status: str = "stopped", why: str = "") -> None:
        for program in self.slots.values():
            if program.version == version:
                program.status, program.why = status, why

    def restart(self, version: str, times: int, ended: str = "") -> None:
        """Its supervisor has started it again, so many times. `ended`: how the last run ended."""
        for program in self.slots.values():
            if program.version == version:
                program.restarts, program.ended = program.restarts + times, ended
                program.pid = next(self._count)

    def check_health(self) -> None:
        """What the health checks of the node report about the instances that its agent has registered."""
        ports = {
            f"127.0.0.1:{program.port}": self.builds.get(program.version, Build()).healthy
            for program in self.slots.values()
            if program.status == "running"
        }
        for instance in self.node.balancer.view.instances():
            healthy = ports.get(instance["endpoint"], False)
            event = ev.InstanceHealth(instance["id"], healthy, "" if healthy else "connection refused")
            if instance["owner"] == "agent" and instance["healthy"] != healthy and event not in self.node.inbox:
                self.node.inbox.append(event)

    def versions(self) -> dict[str, str]:
        """Of each slot that is not empty; "-" after those that do not run."""
        return {
            slot: each.version + ("" if each.status == "running" else "-") for (_, _, slot), each in self.slots.items()
        }
