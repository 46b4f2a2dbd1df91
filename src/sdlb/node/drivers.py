"""Calls the drivers for the core's agent: the effect `RunDriver` in, the event `DriverDone` out, whatever fails.

* One call at a time for each slot. After a kill the core repeats its call; a call that finds its work done changes nothing.
* Where a program listens is chosen here: the `port` of the node file in slot "a", else a free one. A slot keeps its port: what
  runs tells it, and control reserves it on this machine while it lives.
* What runs stays when control stops, restarts or is killed. The next control adopts it.
* Artifacts stay while a target names their version or a slot has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from random import Random

from msgspec.structs import replace

from sdlb.core.effects import Note, RunDriver
from sdlb.core.events import DriverDone
from sdlb.model.problem import Invalid
from sdlb.model.release import Artifact, Release, read_release
from sdlb.model.role import RoleService
from sdlb.node.ports import HeldPort, hold, hold_free_port, is_free
from sdlb.node.programs import Programs
from sdlb.seams.driver import Driver, DriverFailed, Plan, Slot, SlotState

_DIGEST = re.compile(rb"[0-9a-f]{64}")
_ENDED = ("absent", "stopped")


def this_platform() -> str:
    machine = os.uname()
    return f"{machine.sysname.lower()}-{machine.machine}"


class Drivers:
    """`drivers`: by kind. `folder`: of the slots. `targets`: the releases that are named for a service; None: not known. `keep`:
    removes all artifacts but those with these digests."""

    def __init__(
        self,
        services: Iterable[RoleService],
        drivers: Mapping[str, Driver],
        folder: Path,
        programs: Programs,
        report: Callable[[Note], None],
        targets: Callable[[str], Iterable[Mapping[str, object]] | None],
        keep: Callable[[set[str]], Awaitable[object]],
        rng: Random,
    ) -> None:
        self._services = {(each.role, each.service): each for each in services}
        self._drivers = drivers
        self._folder = folder
        self._programs = programs
        self._report = report
        self._targets = targets
        self._keep = keep
        self._rng = rng
        self._busy: dict[Slot, asyncio.Lock] = {}
        self._ports: dict[Slot, HeldPort] = {}
        self._digests: dict[Slot, str] = {}  # of the last plan
        self._tidying: asyncio.Task[None] | None = None
        programs.state = self.state

    def close(self) -> None:
        """Stops watching. What runs stays."""
        self._programs.close()
        if self._tidying is not None:
            self._tidying.cancel()
        for held in self._ports.values():
            if held.name is not None:
                held.name.close()
        self._ports.clear()

    async def run(self, effect: RunDriver) -> DriverDone:
        """Never raises."""
        slot = Slot(effect.role, effect.service, effect.slot)
        try:
            async with self._busy.setdefault(slot, asyncio.Lock()):
                state = await self._call(slot, effect)
        except DriverFailed as error:
            return DriverDone(effect.key, error.fault, error.text, error.retry, error.log)
        except Exception as error:
            self._report(Note("internal-error", traceback.format_exc(limit=-6), "error"))
            return DriverDone(effect.key, "us", f"{type(error).__name__}: {error}"[:500], retry=True)
        if effect.call in ("start", "forget"):
            self._tidy()
        return DriverDone(
            *(effect.key, "", state.reason, False, state.log),
            *(state.status, state.version, state.pid, state.port, state.restarts, state.ended),
        )

    async def state(self, slot: Slot) -> SlotState:
        async with self._busy.setdefault(slot, asyncio.Lock()):
            return (await self._found(slot))[1]

    async def _call(self, slot: Slot, effect: RunDriver) -> SlotState:
        match effect.call:
            case "prepare" | "start":
                return await self._run_version(slot, effect)
            case "stop":
                self._programs.drop(slot)
                before = (await self._found(slot))[1]
                for driver in self._drivers.values():
                    await driver.stop(slot)
                if before.status not in _ENDED:
                    self._note("version-stopped", slot, before.version, "was stopped")
            case "forget":
                for driver in self._drivers.values():
                    await driver.forget(slot)
                self._release_port(slot)
                self._digests.pop(slot, None)
            case "state":
                pass
            case _:
                raise DriverFailed("us", f"a driver has no call {effect.call!r}", retry=False)
        state = (await self._found(slot))[1]
        if state.status not in _ENDED:
            self._hold(slot, state.port)
            self._programs.watch(slot, state)
        return state

    async def _run_version(self, slot: Slot, effect: RunDriver) -> SlotState:
        entry = self._services.get((effect.role, effect.service))
        if entry is None:
            text = f"the node file has no [role.{effect.role}.{effect.service}] any more"
            raise DriverFailed("us", text, retry=False)
        artifact = _artifact(effect)
        kind, found = await self._found(slot)
        if effect.call == "start" and found.status not in _ENDED and kind != entry.driver:
            text = f"the slot has {effect.service}-{found.version}, which the driver {kind} has started; stop it first"
            raise DriverFailed("us", text, retry=False)
        port = await self._port(slot, entry, found, effect.port)
        plan = Plan(slot, effect.version, entry, port, artifact)
        if artifact is not None:
            self._digests[slot] = artifact.sha256
        driver = self._drivers[entry.driver]
        if effect.call == "prepare":
            await driver.prepare(plan)
            self._note("version-fetched", slot, effect.version, "can be started here")
            return SlotState(found.status, found.version, found.pid, port, reason=found.reason)
        state = await driver.start(plan)
        self._programs.watch(slot, state)
        if found.status in _ENDED:
            self._note("version-started", slot, effect.version, f"was started on port {port}")
            return replace(state, log=())  # it is that of the version before
        return state

    def _note(self, code: str, slot: Slot, version: str, what: str) -> None:
        fields = {"service": slot.service, "version": version, "slot": slot.name}
        self._report(Note(code, f"{slot.service}-{version} {what}", "info", fields))

    async def _found(self, slot: Slot) -> tuple[str, SlotState]:
        """The kind of the driver that runs something in the slot, and what is there. The node file may name another driver than
        the one that started it."""
        entry = self._services.get((slot.role, slot.service))
        first = entry.driver if entry is not None else ""
        found = ("", SlotState("absent"))
        for kind in sorted(self._drivers, key=lambda kind: kind != first):
            state = await self._drivers[kind].state(slot)
            if state.status not in _ENDED:
                return kind, state
            if found[1].status == "absent":
                found = (kind, state)
        return found

    # ------------------------------------------------------------------ ports

    async def _port(self, slot: Slot, entry: RoleService, found: SlotState, before: int) -> int:
        """`before`: the port that the core has on record for the slot."""
        if found.status not in _ENDED and found.port:
            self._hold(slot, found.port)
            return found.port
        if entry.port and slot.name == "a":
            return entry.port
        held = self._ports.get(slot)
        for port in (held.port if held else 0, found.port, before):
            if port and await self._is_ours(slot, port):
                return port
        self._release_port(slot)
        held = self._ports[slot] = hold_free_port(self._rng)
        return held.port

    async def _is_ours(self, slot: Slot, port: int) -> bool:
        """Whether the slot can have the port again. What its last program left behind may still listen there: a stop ends it."""
        if not self._hold(slot, port):
            return False
        if not is_free(port):
            for driver in self._drivers.values():
                await driver.stop(slot)
        return is_free(port)

    def _hold(self, slot: Slot, port: int) -> bool:
        """Reserves the port. False: another slot or process has reserved it."""
        held = self._ports.get(slot)
        if held is not None and held.port == port:
            return True
        name = hold(port) if port else None
        if name is None:
            return False
        self._release_port(slot)
        self._ports[slot] = HeldPort(port, name)
        return True

    def _release_port(self, slot: Slot) -> None:
        held = self._ports.pop(slot, None)
        if held is not None and held.name is not None:
            held.name.close()

    # ------------------------------------------------------------------ artifacts

    def _tidy(self) -> None:
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self._discard(), name="artifacts")

    async def _discard(self) -> None:
        """Removes artifacts that nothing needs. If that is not known for one service, all stay. Nothing may wait between the
        first line and the removal: a call that begins meanwhile would not be counted."""
        needed = {*self._digests.values(), *self._in_slots()}
        for _, service in self._services:
            named = self._targets(service)
            if named is None:
                return
            for data in named:
                try:
                    release = read_release(data, service)
                except Invalid:
                    return
                needed |= {artifact.sha256 for _, artifact in release.artifacts}
        with contextlib.suppress(OSError):  # the next call tries again
            await self._keep(needed)

    def _in_slots(self) -> set[str]:
        """All digests in the records of the slots, whatever their format."""
        found: set[str] = set()
        for file in self._folder.glob("*/*/*/*.json"):
            with contextlib.suppress(OSError):
                found |= {each.decode() for each in _DIGEST.findall(file.read_bytes())}
        return found


def _artifact(effect: RunDriver) -> Artifact | None:
    """The artifact of the version for this machine. None: the release has none at all."""
    if not effect.release:
        return None
    name = f"{effect.service}-{effect.version}"
    try:
        release = read_release(effect.release, f"release {name}")
    except Invalid as error:
        raise DriverFailed("us", str(error), retry=False) from None
    if release.name != name:
        raise DriverFailed("us", f"the release of {name} is that of {release.name}", retry=False)
    found = release.artifact(this_platform())
    if found is None and release.artifacts:
        raise DriverFailed("artifact", _no_artifact(release), retry=False)
    return found


def _no_artifact(release: Release) -> str:
    platforms = ", ".join(platform for platform, _ in release.artifacts)
    return (
        f"{release.name} has no artifact for {this_platform()}, only for {platforms}; add one to the release file and run "
        "'sdlb release add' again"
    )
