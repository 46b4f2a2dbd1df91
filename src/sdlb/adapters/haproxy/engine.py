"""HAProxy behind the seam `Engine`: one task carries out deltas in order, others poll figures, drains and sites.

HAProxy has its own session and outlives control. The table of control (`tables.py`) is what the workers should have (`workers.py`). A
delta counts as applied when all of them have it, leaving ones too. A reload is never needed for an endpoint or a route, only for
listeners, sites, and when few spare backends are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from sdlb.adapters import engine_process as processes
from sdlb.adapters.haproxy import limits
from sdlb.adapters.haproxy.access_log import AccessLog
from sdlb.adapters.haproxy.challenges import Challenges
from sdlb.adapters.haproxy.drains import Drains
from sdlb.adapters.haproxy.ejections import Ejections
from sdlb.adapters.haproxy.links import Links
from sdlb.adapters.haproxy.master import CommandFailed, Processes, Silent
from sdlb.adapters.haproxy.names import of_slot
from sdlb.adapters.haproxy.rules import LOG
from sdlb.adapters.haproxy.sites import Sites
from sdlb.adapters.haproxy.tables import NoSlots, Refused, ServerCommand, Tables
from sdlb.adapters.haproxy.workers import Workers
from sdlb.core.effects import Apply, Note
from sdlb.core.events import (
    EndpointKey,
    EngineApplied,
    EngineAttached,
    EngineLost,
    EngineRejected,
    Event,
)
from sdlb.model.traffic import Traffic
from sdlb.seams.engine import ChallengeSink, Degraded, EngineConfig, EngineFailed, EngineStats, Feature, Upgraded
from sdlb.seams.store import NoteSink

POLL_S = 1.0
IDLE_POLL_S = 0.05
DELAY_S_MIN, DELAY_S_MAX = 0.1, 5.0


class HaproxyEngine:
    """`folder`: for all of HAProxy's files and sockets. `binary`: its path; "": found on the PATH."""

    def __init__(
        self,
        folder: Path,
        log_file: Path,
        workers: int,
        post: Callable[[Event], None],
        report: NoteSink,
        binary: str = "",
    ) -> None:
        self.stats = EngineStats()
        self.sites = Sites(folder, self._sites_changed)
        self._folder = folder
        self._post = post
        self._report = report
        self._workers = Workers(folder, log_file, workers, self.stats, self.sites, report, binary)
        self._drains = Drains(self._workers, self.stats, post)
        self._ejections = Ejections(self._workers, self.stats, report)
        self._access = AccessLog(folder / LOG, self._endpoint_of)
        self._challenges = Challenges(folder, self._put_challenges)
        self._links = Links(folder)
        self._services: dict[str, Traffic] = {}
        self._deltas: asyncio.Queue[Apply] = asyncio.Queue()
        self._sites_wait = asyncio.Event()
        self._degraded: tuple[Degraded, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def tables(self) -> Tables:
        return self._workers.tables

    async def processes(self) -> Processes:
        """Raises Silent."""
        return await self._workers.processes()

    async def tell(self, pid: int, command: str) -> str:
        """The answer of a worker to one command. Raises Silent."""
        return await self._workers.tell(pid, command)

    def owns(self, pid: int) -> bool:
        """Whether the process runs with this node's files."""
        return self._workers.owns(pid)

    # ------------------------------------------------------------------ the seam

    @property
    def features(self) -> frozenset[Feature]:
        return limits.FEATURES

    def degraded(self) -> Sequence[Degraded]:
        return self._degraded

    async def start(self, config: EngineConfig, settle_s: float = 0.0) -> None:
        workers = self._workers
        found = await workers.find()
        workers.config = config
        self.tables.node_tls = config.identity is not None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            self._access.configure(config.access_log)
        except OSError as error:
            raise EngineFailed(f"the access log {config.access_log}: {error.strerror}") from None
        attached = await workers.attach()
        if attached:
            self._drains.restore()
            self._sites_changed()
        try:
            await self._links.use(config)
            await self._challenges.use(config)
            if not attached:
                await self._spawn(settle_s)
            elif not workers.files.are_of(config, found, self.tables, self.sites):
                await workers.reload_soon()
            self._note_degraded()
            self._attached()
        except BaseException:
            await (self.detach() if attached else self.shut_down(0.0))
            raise
        works = (self._carry_out, self._poll, self._drains.watch, self._watch_sites, self._watch)
        self._tasks = [asyncio.create_task(self._keep(work), name="haproxy") for work in works]
        if settle_s and not attached:
            self._tasks.append(asyncio.create_task(self._settle(settle_s), name="haproxy"))

    async def configure(self, config: EngineConfig) -> str:
        workers = self._workers
        async with workers.lock:
            before, workers.config = workers.config, config
            try:
                self._access.configure(config.access_log)
                error = await workers.reload()
                if not error:
                    await self._links.use(config)
                    await self._challenges.use(config)
            except (OSError, Silent) as failure:
                error = str(failure)
            if error:
                workers.config = before
                with contextlib.suppress(OSError):
                    self._access.configure(before.access_log if before is not None else "")
            self._note_degraded()
            return error

    @property
    def challenges(self) -> ChallengeSink:
        return self._challenges

    def apply(self, delta: Apply) -> None:
        if self.stats.attached:
            self._deltas.put_nowait(delta)

    def attach_again(self) -> None:
        if self.stats.attached:
            self._drains.take_up()
            self._attached()

    def cut(self, endpoints: Sequence[EndpointKey], *, streams_only: bool = False) -> None:
        if not streams_only:  # it cannot tell them from other sessions (`limits.py`)
            self._drains.cut(endpoints)

    def reopen_log(self) -> None:
        self._access.reopen()

    async def upgrade(self, deadline_s: float) -> Upgraded:
        workers = self._workers
        if workers.lock.locked():
            raise EngineFailed("HAProxy is being reloaded; try again when it is done")
        async with workers.lock:
            before, version = workers.now, self.stats.version
            if before is None:
                raise EngineFailed("control is not connected to HAProxy; see the node's log")
            found = await workers.find()
            error = await workers.reload()
            if error:
                raise EngineFailed(f"HAProxy (process {before.current}) keeps serving; the reload failed: {error}")
            assert workers.now is not None
            pid = workers.now.current
            text = f"HAProxy {found.version} (process {pid}) has replaced process {before.current}, which drains"
            self._report(Note("engine-upgraded", text))
            return Upgraded(pid, found.version, before.current, version, deadline_s)

    async def drain_clients(self, deadline_s: float) -> None:
        config = self._workers.config
        keys = self._workers.files.entries(config) if config is not None else []
        end = time.monotonic() + deadline_s
        with contextlib.suppress(Silent, CommandFailed):
            async with self._workers.lock:
                await self._workers.run([ServerCommand(f"disable frontend {key}") for key in keys])
            idle = 0
            while time.monotonic() < end and idle < 3:
                await asyncio.sleep(IDLE_POLL_S)
                in_flight = sum(sample.in_flight for sample in (await self._workers.sample()).values())
                idle = idle + 1 if not in_flight else 0

    async def shut_down(self, deadline_s: float) -> None:
        await self._cancel()
        await self._workers.stop(deadline_s)
        await self.detach()

    async def detach(self) -> None:
        await self._cancel()
        await self._links.close()
        await self._challenges.close()
        self._access.close()
        self.stats.attached = False

    async def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """Repeats a work after an internal error, which is reported. The workers may differ from the table then."""
        while True:
            try:
                await work()
            except Exception:
                self._workers.dirty = True
                self._report(Note("engine-failed", f"internal error: {traceback.format_exc(limit=-4)}", "error"))
                await asyncio.sleep(POLL_S)

    async def _cancel(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    # ------------------------------------------------------------------ start and restart

    async def _spawn(self, settle_s: float) -> None:
        """Raises EngineFailed."""
        self._sites_wait.clear()
        await self._workers.spawn(settle_s)

    def _attached(self) -> None:
        workers, stats = self._workers, self.stats
        assert workers.now is not None and workers.program is not None
        stats.pid, stats.version = workers.now.current, workers.program.version
        stats.attached, stats.hangs = True, False
        workers.show()
        in_flight = dict.fromkeys(self._drains.undrained, 1)
        boot_id = f"haproxy-{workers.now.master}-{processes.start_ticks(workers.now.master)}"
        count = len(self.tables.endpoints())
        self._post(EngineAttached(boot_id, self.tables.epoch, count, tuple(in_flight.items())))

    async def _settle(self, settle_s: float) -> None:
        await asyncio.sleep(settle_s)
        async with self._workers.lock:
            await self._workers.settled()

    async def _watch(self) -> None:
        """Starts HAProxy again when it has exited."""
        delay_s, spawned = 0.0, time.monotonic()
        while True:
            await self._workers.exit()
            self.stats.attached = False
            self._post(EngineLost())
            self._report(Note("engine-restarting", "HAProxy has exited; starting it again", "error"))
            while True:
                if time.monotonic() - spawned > 60.0:
                    delay_s = 0.0
                await asyncio.sleep(delay_s)
                delay_s = min(DELAY_S_MAX, max(DELAY_S_MIN, delay_s * 2))
                spawned = time.monotonic()
                try:
                    async with self._workers.lock:
                        await self._restart()
                    break
                except (EngineFailed, OSError) as error:
                    self._report(Note("engine-failed", str(error), "error"))

    async def _restart(self) -> None:
        self._workers.kill_left()
        while not self._deltas.empty():
            self._deltas.get_nowait()
        self._drains.clear()
        self.tables.ejected.clear()
        await self._spawn(0.0)
        self._attached()

    # ------------------------------------------------------------------ deltas

    async def _carry_out(self) -> None:
        while True:
            delta = await self._deltas.get()
            async with self._workers.lock:
                try:
                    await self._apply(delta)
                except EngineFailed as error:
                    self._post(EngineRejected(delta.epoch, str(error)))
                except Exception as error:
                    self._post(EngineRejected(delta.epoch, f"internal error: {error!r}"))
                    raise

    async def _apply(self, delta: Apply) -> None:
        """Raises EngineFailed when the workers do not have the table."""
        workers = self._workers
        while True:
            try:
                commands = self.tables.apply(delta)
                break
            except NoSlots:
                self.tables.grow()
                workers.dirty = True
            except Refused as error:
                raise EngineFailed(str(error)) from None
        self._keep_services(delta)
        self._drains.begin(delta)
        if workers.dirty or not await workers.send(commands):
            error = await workers.reload_soon()
            if error:
                raise EngineFailed(error)
        self._post(EngineApplied(delta.epoch))
        self._drains.report()
        self._note_degraded()
        if self.tables.few_left():
            self.tables.grow()
            await workers.reload_soon()

    def _keep_services(self, delta: Apply) -> None:
        if delta.replace:
            self._services.clear()
        self._services.update((put.name, put.traffic) for put in delta.put_services)
        for name in delta.delete_services:
            self._services.pop(name, None)

    # ------------------------------------------------------------------ sites

    def _sites_changed(self) -> None:
        self._sites_wait.set()

    async def _watch_sites(self) -> None:
        while True:
            await self._sites_wait.wait()
            async with self._workers.lock:
                self._sites_wait.clear()
                states, changed, reload = self.sites.take()
                self.sites.report(states)
                self._note_degraded()
                if reload or (changed and not await self._workers.exchange(changed)):
                    await self._workers.reload_soon()

    async def _put_challenges(self, answers: Mapping[tuple[str, str], str]) -> str:
        async with self._workers.lock:
            commands = self.tables.challenges(answers)
            if self._workers.now is None or await self._workers.send(commands):
                return ""
            return await self._workers.reload_soon()

    # ------------------------------------------------------------------ each second

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                samples = await self._workers.sample()
                self.stats.counters["log_lines_dropped_total"] = self._access.dropped
                async with self._workers.lock:
                    await self._ejections.adjust(samples)
                self._workers.hangs(False)
            except Silent as error:
                if not error.gone:
                    self._workers.hangs(True)
            self._workers.trim_log()

    def _endpoint_of(self, full_name: str) -> str:
        server = self.tables.server(of_slot(full_name))
        return server.key.target if server is not None else ""

    # ------------------------------------------------------------------ what it cannot do

    def _note_degraded(self) -> None:
        config, program = self._workers.config, self._workers.program
        if config is None or program is None:
            return
        refused = [f"{key.target}: {why}" for key, why in sorted(self.tables.refused.items())]
        found = tuple(
            limits.degraded(
                config,
                self._services,
                lua=program.lua,
                limits_floods=program.limits_floods,
                drops_trailers=program.drops_trailers,
                wildcards=self.sites.wildcards,
                fronts=self.sites.fronts,
                refused=refused,
                sessions=self.tables.sessions,
            )
        )
        for note in limits.notes(self._degraded, found):
            self._report(note)
        self._degraded = found
