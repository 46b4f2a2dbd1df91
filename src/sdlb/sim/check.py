"""The base class of checks: hooks into a run. `@check(n)` registers a check for promise n."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey, DownMessage
from sdlb.sim.process import Process

if TYPE_CHECKING:
    from sdlb.sim.drivers import DriverSlot
    from sdlb.sim.hooks import Program
    from sdlb.sim.host import Host
    from sdlb.sim.traffic import Request
    from sdlb.sim.world import World


class Broken(Exception):
    """A promise was broken."""

    def __init__(self, promise: int, text: str) -> None:
        super().__init__(f"promise {promise}: {text}")
        self.promise = promise
        self.text = text


class Check:
    """The hooks. A check overrides those that it needs."""

    promise = 0

    def __init__(self, world: World) -> None:
        self.world = world
        self._name = f"{self.promise} {type(self).__name__}"

    def before_step(self, host: Host, events: list[ev.Event]) -> None: ...
    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None: ...
    def on_apply(self, host: Host, delta: ef.Apply) -> None: ...
    def on_open(self, host: Host, key: ClaimKey, process: Process) -> None: ...
    def on_close(self, host: Host, key: ClaimKey, process: Process) -> None: ...
    def on_table(self, host: Host, out: list[ev.EndpointKey]) -> None: ...
    def on_told(self, host: Host, message: DownMessage) -> None: ...
    def on_note(self, host: Host, note: ef.Note) -> None: ...
    def on_lost(self, request: Request, why: str) -> None: ...
    def on_hook(self, host: Host, program: Program) -> None: ...
    def on_driver(self, host: Host, slot: DriverSlot, effect: ef.RunDriver) -> None: ...
    def on_retired(self, host: Host, process: Process) -> None: ...
    def on_pick(self, host: Host, key: ClaimKey) -> None: ...
    def on_stopped(self, host: Host, clean: bool) -> None: ...
    def every_second(self) -> None: ...
    def at_end(self) -> None: ...

    def compared(self, times: int = 1) -> None:
        """Counts that the check had something to compare. A check that never has shows in the coverage."""
        self.world.coverage.compared[self._name] += times

    def broken(self, text: str) -> Broken:
        return Broken(self.promise, text)


HOOKS = (
    "before_step",
    "after_step",
    "on_apply",
    "on_open",
    "on_close",
    "on_table",
    "on_told",
    "on_note",
    "on_lost",
    "on_hook",
    "on_driver",
    "on_retired",
    "on_pick",
    "on_stopped",
    "every_second",
)


def overrides(check: Check, hook: str) -> bool:
    """Whether this check overrides a hook. Hooks that are not overridden are not called."""
    return getattr(type(check), hook) is not getattr(Check, hook)


CHECKS: list[type[Check]] = []


def check(promise: int) -> Callable[[type[Check]], type[Check]]:
    def register(kind: type[Check]) -> type[Check]:
        kind.promise = promise
        CHECKS.append(kind)
        return kind

    return register
