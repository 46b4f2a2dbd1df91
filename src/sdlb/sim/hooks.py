"""What gates ask: programs on the machines of roots, and what operators have said about openings. The truth for the checks.

As in production, a program goes on when control is killed, a second call with its key joins it, and it ends with its machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct

from sdlb.core.effects import RunHook
from sdlb.core.events import HookDone
from sdlb.sim.affected import NEVER, RECOVERY_S

if TYPE_CHECKING:
    from sdlb.sim.host import Host
    from sdlb.sim.world import World

HOOK_S = (0.05, 2.0)
Answer = tuple[str, float]
"""Outcome, and the seconds until then."""


class Program(Struct, eq=False):
    """`host`: the machine that it runs on. `told`: when control got its answer."""

    host: str
    effect: RunHook
    since: float
    ended: float = 1e9
    outcome: str = ""
    told: float = 1e9

    @property
    def gate(self) -> tuple[str, str, str]:
        return self.effect.service, self.effect.version, self.effect.hook.name

    @property
    def running(self) -> bool:
        return self.ended == 1e9


class Hooks:
    """`answers`: scripted ones by name of the gate, the next one first; the last one stays. `otherwise`: of all others."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self.answers: dict[str, deque[Answer]] = {}
        self.otherwise: Callable[[], str] = lambda: "yes"
        self.programs: list[Program] = []

    def call(self, host: Host, effect: RunHook) -> None:
        program = next((p for p in self.programs if p.running and self._is(p, host, effect.key)), None)
        if program is None:
            program = Program(host.name, effect, self._world.clock.now)
            self._world.on_hook(host, program)
            self.programs.append(program)
            outcome, seconds = self._answer(effect.hook.name)
            self._world.coverage.happened[f"hooks that answered {outcome}"] += 1
            self._world.clock.after(seconds, lambda: self._ends(program, outcome))
        boot = host.boot
        self._deliver(host, program, boot)

    @staticmethod
    def _is(program: Program, host: Host, key: str) -> bool:
        return program.host == host.name and program.effect.key == key

    def _answer(self, gate: str) -> Answer:
        answers = self.answers.get(gate)
        if answers:
            return answers.popleft() if len(answers) > 1 else answers[0]
        return self.otherwise(), self._rng.uniform(*HOOK_S)

    def _ends(self, program: Program, outcome: str) -> None:
        if program.running:
            program.ended = self._world.clock.now
            program.outcome = outcome
            self._world.log_event(program.host, f"hook {program.effect.key} answers {outcome}")

    def _deliver(self, host: Host, program: Program, boot: int) -> None:
        if program.running:
            self._world.clock.after(0.01, lambda: self._deliver(host, program, boot))
        elif host.boot == boot and host.running:
            host.take(HookDone(program.effect.key, program.outcome, "as simulated"))

    def heard(self, host: Host, event: HookDone) -> None:
        """Control takes the answer in."""
        for program in self.programs:
            if self._is(program, host, event.key) and not program.running and program.told == 1e9:
                program.told = self._world.clock.now

    def control_ended(self, host: Host) -> None:
        """What it had just taken in may not be on disk."""
        for program in self.programs:
            if program.host == host.name and program.told == self._world.clock.now:
                program.told = 1e9

    def machine_ended(self, host: Host) -> None:
        for program in self.programs:
            if program.host == host.name and program.running:
                program.ended, program.outcome = self._world.clock.now, "failed"

    def running(self, service: str) -> list[Program]:
        return [p for p in self.programs if p.running and p.effect.service == service]

    def yes(self, service: str, version: str, gate: str) -> bool:
        return any(p.gate == (service, version, gate) and p.outcome == "yes" for p in self.programs)


class Orders:
    """What operators have ordered, by service."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.approvals: dict[tuple[str, str, str], set[str]] = {}  # (service, version, gate) -> who
        self.promoted: dict[tuple[str, str], str] = {}  # (service, version) -> the reason for no gates
        self.transferred: dict[str, float] = {}  # when a route of the service was given to it or to another one
        self.given: dict[str, str] = {}  # route -> the service that it was last given to
        self.at: dict[str, float] = {}  # when a policy was last set or a version promoted

    def order(self, service: str) -> None:
        self.at[service] = self._world.clock.now

    def transferred_lately(self, service: str) -> bool:
        """Whether a route of the service changed hands by order. The order stays in force: the service that it names takes the route
        again whenever it claims it."""
        if service not in self.transferred:
            return False
        since, sharing = [self.transferred[service]], self._world.sharing.get(service, set()) | {service}
        for name in sharing.intersection(self.given.values()):
            since += [process.since for process in self._world.by_service.get(name, {}).values()]
        return self._world.clock.now - max(since) < RECOVERY_S

    def since(self, service: str, when: float) -> bool:
        return self.at.get(service, NEVER) >= when
